"""The `parley` command: a table of subcommands, each of which lives beside what it commands and is loaded when it
is called."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import click

COMMANDS = {
    "init": ("config.commands.init", "Make a folder in which Parley runs: configuration, surveys, secrets."),
    "run": ("workers.commands.run", "Run all of Parley on this machine."),
    "phone": ("ingest.commands.phone", "A phone in the terminal, texting a running Parley."),
    "invite": ("ingest.commands.invite", "Ask a person, or a table of people, to take a survey."),
    "key": ("ingest.commands.key", "Make a key to the API."),
    "lint": ("engine.commands.lint", "Prove that surveys end, and what they cost at most."),
    "graph": ("workers.commands.reports.survey_graph", "Draw a survey, and on it how people go through it."),
    "chat": ("engine.commands.chat", "Play a survey in the terminal, skipping time."),
    "convert": ("engine.commands.convert", "Write a questions.json as a YAML survey that behaves the same."),
    "replay": (
        "workers.commands.replay",
        "Run stored conversations again, or against another version of their survey.",
    ),
    "schema": ("engine.commands.schema", "Print the JSON Schema of survey files, for editors, or of events."),
    "surveys": (
        "workers.commands.surveys",
        "Versions of surveys, the open sessions on each, and what an upgrade would change.",
    ),
    "check": ("workers.commands.check", "Check the configuration and the surveys; start nothing."),
    "capacity": (
        "workers.commands.capacity",
        "How many machines a load takes, and what is in the way first.",
    ),
    "status": ("workers.commands.status", "How the service does, what is wrong, who works, what waits."),
    "lane": ("workers.commands.lane", "Everything about one phone number, and why nothing happens."),
    "channel": (
        "workers.commands.channel",
        "What channels may do now; pause one, and resume it; end a removed one.",
    ),
    "archive": (
        "workers.commands.archive",
        "How far the archive is; what is made of its entries, anew; go on after a loss; forget it.",
    ),
    "reshard": ("workers.commands.reshard", "Divide the lanes into more shards, while nothing runs."),
    "hooks": (
        "workers.commands.hooks",
        "Endpoints that are told what happens: list, test, pause, resume, rewind.",
    ),
    "metrics": ("workers.commands.metrics", "Publish the numbers of a machine without `web`."),
    "results": (
        "workers.commands.reports.results",
        "What was answered to a survey, and how its sessions ended.",
    ),
    "export": (
        "workers.commands.reports.export",
        "The results of a survey as a file: CSV, JSON lines, Excel, Parquet.",
    ),
    "funnel": (
        "workers.commands.reports.funnel",
        "How far people come in a survey, and where they leave it.",
    ),
    "transcript": ("workers.commands.transcript", "What was said with one phone number."),
    "optout": ("workers.commands.optout", "Who has opted out, and lists of them from elsewhere."),
    "erase": ("workers.commands.erase", "Remove every trace of a phone number, but that it opted out."),
    "console": (
        "workers.commands.access.console",
        "Sign in to the console in the browser; see who has, and end it.",
    ),
    "audit": ("workers.commands.access.audit", "Who did what, and who read whose data."),
    "dead": ("workers.commands.dead", "What could not be handled, and why."),
}
"""Subcommand -> the module whose attribute of that name is it, and its line in the help."""


class _CommandGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = cast(click.Command, getattr(import_module(COMMANDS[name][0]), name))
        _show_env_file(command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read --env-file first, wherever it stands, or else `.env`: what a command is made of reads the environment as it is
        loaded."""
        files, rest = _split_off_env_files(args)
        if not ctx.resilient_parsing:  # where a shell completes what is typed
            ctx.obj = _read_env_files(files)
        return super().parse_args(ctx, rest)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as e:
            if sentence := _redis_failure_sentence(e):
                raise click.ClickException(sentence) from e
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


_ENV_FILE = "--env-file"
_ENV_FILE_HELP = (
    "Variables, a line NAME=value each; what is set already counts more.  [default: .env, if it is there]"
)


def _split_off_env_files(args: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The files that are named, and the other arguments."""
    files: list[Path] = []
    others: list[str] = []
    rest = iter(args)
    for arg in rest:
        name, has_value, value = arg.partition("=")
        if arg == "--":
            others += [arg, *rest]
        elif name != _ENV_FILE:
            others.append(arg)
        elif file := value if has_value else next(rest, ""):
            files.append(Path(file))
        else:
            raise click.UsageError(f"{_ENV_FILE}: expected a file")
    return files, others


def _read_env_files(named: Sequence[Path]) -> Sequence[object]:
    from config.settings.config_errors import exit_on_config_error  # noqa: PLC0415 (as below)
    from config.settings.env_file import read_env_files  # noqa: PLC0415 (takes 40 ms)

    with exit_on_config_error():
        return read_env_files(named, os.environ)


def _show_env_file(command: click.Command) -> None:
    """Have the help of a command, and of those under it, tell of --env-file."""
    if not any(_ENV_FILE in each.opts for each in command.params):
        command.params.append(
            click.Option([_ENV_FILE], metavar="FILE", expose_value=False, help=_ENV_FILE_HELP)
        )
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _show_env_file(each)


def _redis_failure_sentence(error: Exception) -> str:
    """Write the sentence for an operator whose command Redis failed; "" if it is another error. A command that has
    not imported redis has not failed by it."""
    redis = sys.modules.get("redis")
    if redis is None or not isinstance(error, redis.RedisError):
        return ""
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return "Redis is full and refuses writes: raise its `maxmemory`, then type this again"
    if isinstance(error, redis.exceptions.NoPermissionError):
        from config.store.missing_rights import refusal_sentence  # noqa: PLC0415 (it imports redis)

        return refusal_sentence(error)
    if isinstance(error, redis.exceptions.MovedError | redis.exceptions.AskError):
        from config.settings.redis_rights import CLUSTER_URL_SENTENCE  # noqa: PLC0415 (it imports redis)

        return f"the Redis of one of our URLs is not what the URL says: {CLUSTER_URL_SENTENCE}"
    if type(error).__name__ == "ServerAwayError":  # its module is loaded by whoever reaches a cluster
        return f"Redis failed: {error}; look at `parley status`, then type this again"
    return f"Redis failed ({type(error).__name__}): look at `parley status`, then type this again"


@click.command(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="parley")
@click.option(_ENV_FILE, metavar="FILE", expose_value=False, help=_ENV_FILE_HELP)
def main() -> None:
    """Two-way SMS conversations."""
