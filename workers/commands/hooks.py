"""`parley hooks`: the endpoints that are told what happens; one is tried, paused, resumed, and told again from earlier on."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import ExitStack, closing
from zoneinfo import ZoneInfo

import click
from rich.table import Table
from rich.text import Text

from config.archive.result_filters import InvalidFilterError, parse_moment
from config.service.deployment_health import server_failure
from config.settings.config_errors import unknown_name_problem
from config.settings.hooks import Hook
from config.settings.settings import Settings
from config.store import redis_client
from config.store.audit import operator_name, record_operator
from config.store.entry_id import BEGINNING, EntryId
from config.telemetry.hook_stats import HookStats
from config.telemetry.redis_stats import RedisStats, StatsReader
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, require_confirmation, simple_table
from engine.model.durations import format_duration
from engine.model.timestamps import format_utc
from workers.archiving.stream_reader import read_tips
from workers.commands.cli_options import DurationParam, operator_option
from workers.commands.connect import (
    away_sentence,
    confirm_replicated,
    connect_lanes,
    load_settings_in_use,
)
from workers.commands.reports.open_archive import open_archive_or_warn
from workers.hooks.archive_questions import ArchiveQuestions
from workers.hooks.endpoint_client import HookReply
from workers.hooks.entry_reader import EntryReader
from workers.hooks.hook_store import HookStore
from workers.hooks.hook_test_event import send_test_event
from workers.hooks.hook_wording import behind_words, hook_state, hook_state_sentence, reply_sentence
from workers.store.deployment import Deployment
from workers.store.event_stream import is_archived


@click.group()
def hooks() -> None:
    """The endpoints that are told what happens: how far each is, and what it answers.

    \b
    Example:
      parley hooks list
      parley hooks test crm
      parley hooks pause crm --why "the CRM moves house"
      parley hooks resume crm
      parley hooks rewind crm --to 2026-11-01T00:00:00Z
    """


_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_name_argument = click.argument("name", metavar="HOOK")


@hooks.command("list")
@_json_option
def list_hooks(as_json: bool) -> None:
    """Every endpoint: how far it is behind, whether it is told, and what it said last if it failed.

    One that is not configured any more is listed for as long as it is known how far it was.

    \b
    Example:
      parley hooks list --json | jq -r 'select(.behind_ms > 60000) | .hook'
    """
    deployment = connect_lanes(os.environ)
    settings = deployment.settings
    with closing(StatsReader(settings)) as reader:
        found = reader.read()
    if not found.lanes.up:
        raise click.ClickException(server_failure("lanes", found.lanes))
    removed = sorted(_store(deployment).find_known() - set(settings.hooks))
    if as_json:
        for name, stats in found.hooks.items():
            print_json(_hook_fields(settings.hooks[name], stats))
        for name in removed:
            print_json({"hook": name, "configured": False})
        return
    if found.hooks:
        open_console().print(_hooks_table(settings, found))
    else:
        click.echo("parley.toml has no endpoint: a table [hooks.<name>] makes one.")
    for name in removed:
        click.echo(
            f"The hook {name} is not configured any more: "
            f"`parley hooks forget {name}` forgets how far it was."
        )


@hooks.command()
@_name_argument
@_json_option
def test(name: str, as_json: bool) -> None:
    """Send HOOK one event of the type `hook.test`, as `hooks` would, and show what it answers.

    Nothing is stored, and its position stays. Exit status 1 if the endpoint does not take it.

    \b
    Example:
      parley hooks test crm
    """
    settings = load_settings_in_use(os.environ, needs_secrets=True)
    hook = _require_hook(settings, name)
    reply = asyncio.run(send_test_event(settings, hook))
    if as_json:
        print_json({"hook": name, "url": hook.shown_url} | _reply_fields(reply))
    else:
        click.echo(f"{name}: {reply_sentence(hook, reply)}")
    if reply.outcome != "delivered":
        raise SystemExit(EXIT_PROBLEMS)


@hooks.command()
@_name_argument
@click.option("--why", required=True, help="What is said to whoever asks why it is told nothing.")
@click.option(
    "--for", "for_ms", type=DurationParam(), help="It ends by itself after that, such as 2h. Default: never."
)
@operator_option
@_json_option
def pause(name: str, why: str, for_ms: int | None, by: str, as_json: bool) -> None:
    """Tell HOOK nothing until `resume`, or until --for is over.

    Nothing is lost: its position stands still, and what happens meanwhile is told afterwards. A request that is under way
    comes to its end.

    \b
    Example:
      parley hooks pause crm --why "the CRM moves house" --for 2h
    """
    deployment = connect_lanes(os.environ)
    _require_hook(deployment.settings, name)
    record_operator(deployment.lanes, "pause hook", name, why=why)
    _store(deployment).pause(name, why, by, for_ms)
    confirm_replicated(deployment)
    if as_json:
        print_json({"hook": name, "paused": True, "for_ms": for_ms})
    else:
        until = f"for {format_duration(for_ms)}" if for_ms else "until `parley hooks resume` ends it"
        click.echo(f"{name} is told nothing {until}; what happens meanwhile is told afterwards.")


@hooks.command()
@_name_argument
@_json_option
def resume(name: str, as_json: bool) -> None:
    """End the pause of HOOK, and call it at once though it has failed.

    If it fails again, it is left alone again.

    \b
    Example:
      parley hooks resume crm
    """
    deployment = connect_lanes(os.environ)
    _require_hook(deployment.settings, name)
    record_operator(deployment.lanes, "resume hook", name)
    was = _store(deployment).resume(name)
    confirm_replicated(deployment)
    if as_json:
        print_json({"hook": name, "paused": False, "ended": was})
    else:
        click.echo(
            f"{name} is told again."
            if was
            else f"{name} was neither paused nor failing; it is called at once."
        )


@hooks.command()
@_name_argument
@click.option(
    "--to",
    "moment",
    required=True,
    help="From when on it is told: a moment such as 2026-11-01T00:00:00Z, so long ago such as 2h, "
    "`beginning`, or `now`.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_json_option
def rewind(name: str, moment: str, yes: bool, as_json: bool) -> None:
    """Tell HOOK again what has happened since a moment; with `now`, tell it nothing of what it has not got yet.

    It gets events again that it has had, under the same ids. What the event streams have no more is read from the archive.

    \b
    Example:
      parley hooks rewind crm --to 2h
      parley hooks rewind crm --to beginning --yes
    """
    deployment = connect_lanes(os.environ)
    settings, client = deployment.settings, deployment.lanes
    _require_hook(settings, name)
    now = redis_client.server_time_ms(client)
    since = _parse_start(moment, now)
    if not yes:
        told = (
            "what it has not got yet is skipped" if since is None else "it gets events again that it has had"
        )
        require_confirmation(
            f"Tell {name} what happens from {_shown_start(since)} on? {told[:1].upper()}{told[1:]}.",
            stderr=True,
        )
    record_operator(client, "rewind hook", name, to=moment)
    with ExitStack() as stack:
        archive = stack.enter_context(open_archive_or_warn(deployment)) if since else None
        if since and archive is None and is_archived(client, settings.shards):
            raise click.ClickException(
                "where that moment is, only the archive knows: rewind once it can be read, or --to beginning"
            )
        reader = EntryReader(
            client, None if archive is None else ArchiveQuestions(client, archive, deployment.host)
        )
        places = _places(deployment, reader, since)
    _store(deployment).rewind(name, places)
    confirm_replicated(deployment)
    if as_json:
        print_json({"hook": name, "to": since, "positions": {k: str(at) for k, at in places.items()}})
    else:
        click.echo(f"{name} is told what happens from {_shown_start(since)} on.")


@hooks.command()
@_name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(name: str, yes: bool) -> None:
    """Forget how far HOOK is, which is not configured any more.

    If it is configured again, it begins as a new one. Its dead letters stay.

    \b
    Example:
      parley hooks forget old-crm
    """
    deployment = connect_lanes(os.environ)
    store = _store(deployment)
    if name in deployment.settings.hooks:
        raise click.BadParameter(f"{name} is configured: remove [hooks.{name}] first", param_hint="HOOK")
    known = store.find_known()
    if name not in known:
        raise click.BadParameter(unknown_name_problem(f"hook {name}", name, known), param_hint="HOOK")
    if not yes:
        require_confirmation(f"Forget how far {name} is?", stderr=True)
    record_operator(deployment.lanes, "forget hook", name)
    store.forget(name)
    confirm_replicated(deployment)
    click.echo(f"{name} is forgotten.")


def _hook_fields(hook: Hook, stats: HookStats) -> dict[str, object]:
    pause = stats.pause
    return {
        "hook": hook.name,
        "configured": True,
        "url": hook.shown_url,
        "state": hook_state(stats),
        "behind_ms": stats.lag_ms if stats.is_begun else None,
        "process": stats.owner or None,
        "paused": None if pause is None else {"why": pause.why, "who": pause.who, "since": pause.since},
        "failures": stats.circuit.failures,
        "why": stats.circuit.why,
        "channels": sorted(hook.wanted.channels),
        "surveys": sorted(hook.wanted.surveys),
        "events": sorted(hook.wanted.events),
        "batch": hook.batch,
        "numbers": hook.numbers,
    }


def _hooks_table(settings: Settings, found: RedisStats) -> Table:
    table = simple_table()
    table.add_column("hook", no_wrap=True)
    table.add_column("endpoint", overflow="fold")
    table.add_column("behind", justify="right", no_wrap=True)
    table.add_column("state", min_width=20)
    for name, stats in found.hooks.items():
        table.add_row(
            name, settings.hooks[name].shown_url, behind_words(stats), _state_text(stats, found.lanes.now)
        )
    return table


def _state_text(stats: HookStats, now: int) -> Text:
    return Text(hook_state_sentence(stats, now), style="" if hook_state(stats) == "told" else "red")


def _store(deployment: Deployment) -> HookStore:
    return HookStore(deployment.lanes, f"operator {operator_name()}")


def _require_hook(settings: Settings, name: str) -> Hook:
    if name not in settings.hooks:
        sentence = unknown_name_problem(f"hook {name}", name, settings.hooks)
        if not settings.hooks:
            sentence += ": parley.toml has no table [hooks.<name>]"
        raise click.BadParameter(sentence, param_hint="HOOK")
    return settings.hooks[name]


def _reply_fields(reply: HookReply) -> dict[str, object]:
    return {
        "outcome": reply.outcome,
        "status": reply.status or None,
        "why": reply.why,
        "said": reply.said,
        "took_ms": reply.took_ms,
    }


def _parse_start(written: str, now: int) -> int | None:
    """From when on (ms); 0 for the beginning, None for now."""
    match written:
        case "now":
            return None
        case "beginning":
            return 0
    try:
        return parse_moment(written, ZoneInfo("UTC"), now)
    except InvalidFilterError as e:
        raise click.BadParameter(f"{e}, or beginning, or now", param_hint="--to") from e


def _shown_start(since: int | None) -> str:
    match since:
        case None:
            return "now"
        case 0:
            return "the beginning"
        case _:
            return f"{format_utc(since)} UTC"


def _places(deployment: Deployment, reader: EntryReader, since: int | None) -> Mapping[int, EntryId]:
    """The position in each shard behind which everything has happened since then."""
    shards = range(deployment.settings.shards)
    if since is None:
        tips = read_tips(deployment.lanes, shards)
        if tips.away:
            raise click.ClickException(
                f"{away_sentence(sorted(tips.away))}: where that moment is, is not known: rewind once it is "
                "back"
            )
        return tips.last_ids
    return {k: reader.find_last_before(k, since) if since else BEGINNING for k in shards}
