"""`parley dead`: what could not be handled, and why; and what an operator may do about it."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NoReturn, TypeVar

import click
import msgspec
import redis
from rich.table import Table

from config.connections.redis_connections import COMMAND_RETRIES
from config.connections.redis_failures import failure_clause
from config.settings.settings import ConfigError, exit_on_config_error
from config.settings.startup_check import load_settings_and_surveys
from config.store import redis_client
from config.store.audit import record_operator
from config.telemetry.logs import configure_logging
from engine.commands.json_output import print_json
from engine.commands.terminal import NARROW_WIDTH, open_console, require_confirmation, simple_table
from engine.model.timestamps import format_utc
from engine.surveys.survey_registry import SurveyRegistry
from workers.commands.cli_numbers import parse_sender_argument
from workers.commands.cli_options import DurationParam, operator_option
from workers.commands.connect import (
    confirm_replicated,
    connect_both,
    connect_lanes,
    find_readable_shards,
)
from workers.commands.screens.dead_letter_tables import group_lines, group_table, letter_table
from workers.composition import build_dead_letter_replayer
from workers.dead_letters.actions import drop_letters, preview_letters, replay_letters
from workers.dead_letters.filters import (
    DeadLetterFilter,
    LocatedDeadLetter,
    find_dead_letters,
)
from workers.dead_letters.groups import DeadLetterGroup, group_letters
from workers.dead_letters.letter_reading import (
    MAX_OPERATOR_NAME_LENGTH,
    count_reasons,
    details_of,
    format_reason_counts,
    last_audit_entry_of,
    without_bulk,
    without_content,
)
from workers.dead_letters.letter_result import LetterResult
from workers.dead_letters.outcomes import DRY_RUN_TITLE, report_outcomes
from workers.dead_letters.replay import DeadLetterReplayer
from workers.dead_letters.replay_decision import ReplayDecision, ReplayOption
from workers.dead_letters.view import (
    detail_lines,
    dramatiq_letter_details,
    letter_summary,
)
from workers.store import dead_letter_store, survey_versions
from workers.store.dead_letter_store import DeadLetter
from workers.store.deployment import Deployment
from workers.store.dramatiq_letters import DramatiqLetter

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def dead() -> None:
    """What could not be handled, and why; replay it, or drop it.

    \b
    Example:
      parley dead list --reason engine_error --newer 2h
      parley dead show e5f3c0a1b2c3d4e6
      parley dead replay --survey clinic --dry-run
      parley dead replay --survey clinic --rate 20
      parley dead audit --since 1d
    """


_FILTER_OPTIONS = (
    click.option(
        "--queue",
        default="",
        help="Only of this queue: starts, replies, outbound, hooks, or one of Dramatiq's.",
    ),
    click.option("--reason", default="", help="Only of this reason, such as engine_error, or dramatiq."),
    click.option("--channel", default="", help="Only of this channel."),
    click.option("--survey", default="", help="Only about this survey."),
    click.option("--sender", default="", help="Only of this phone number."),
    click.option("--hook", default="", help="Only what this endpoint has refused."),
    click.option(
        "--older",
        "older_ms",
        type=DurationParam(),
        default=0,
        help="Only those that fell longer ago, such as 2h.",
    ),
    click.option(
        "--newer", "newer_ms", type=DurationParam(), default=0, help="Only those that fell since, such as 2h."
    ),
    click.option("--error", default="", help="Only with this text in what went wrong; in any case."),
)


def _filter_options(command: _Command) -> _Command:
    for option in reversed(_FILTER_OPTIONS):
        command = option(command)
    return command


_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_ids_argument = click.argument("ids", metavar="[ID]...", nargs=-1)
_all_option = click.option("--all", "everything", is_flag=True, help="All of them, where nothing says which.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask, though there are several.")


@dead.command("list")
@_filter_options
@click.option(
    "--group", is_flag=True, help="What is alike together, the most first: how many, of whom, since when."
)
@_json_option
def list_letters(group: bool, as_json: bool, **filters: Any) -> None:
    """Dead letters, oldest first; after them those that Dramatiq itself has given up, and what is alike in them.

    \b
    Example:
      parley dead list --queue outbound --error timeout --older 10m
      parley dead list --group
    """
    deployment = _open_for_reading()
    wanted = _parse_filters((), filters)
    shards = None if wanted.sender or wanted.ids else find_readable_shards(deployment)
    found = (each.letter for each in find_dead_letters(deployment, wanted, shards))
    if as_json:
        for each in group_letters(found) if group else map(letter_summary, found):
            print_json(each)
        return
    shown = _print_groups(group_letters(found)) if group else _print_letters(found)
    if not shown:
        click.echo(_no_match_sentence(deployment, wanted))


def _print_letters(found: Iterable[DeadLetter | DramatiqLetter]) -> bool:
    """Print each, and what is alike. False if there is none."""
    screen, letters = open_console(), list[DeadLetter | DramatiqLetter]()
    table = letter_table(_noted(found, letters), narrow=screen.width < NARROW_WIDTH)
    if not letters:
        return False
    screen.print(table)
    groups = group_letters(letters)
    if len(groups) < len(letters):
        for line in group_lines(groups):
            click.echo(line)
    return True


def _noted(
    found: Iterable[DeadLetter | DramatiqLetter], kept: list[DeadLetter | DramatiqLetter]
) -> Iterator[DeadLetter | DramatiqLetter]:
    """Pass them on; what it takes to group them is kept."""
    for letter in found:
        kept.append(without_bulk(letter))
        yield letter


def _print_groups(groups: Sequence[DeadLetterGroup]) -> bool:
    screen = open_console()
    if groups:
        screen.print(group_table(groups, narrow=screen.width < NARROW_WIDTH))
    return bool(groups)


@dead.command()
@click.argument("letter_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(letter_id: str, as_json: bool) -> None:
    """One dead letter with all that is known of it: every attempt, its lane then and now, and what a replay would do.

    Exit status 1 if there is none with this id.

    \b
    Example:
      parley dead show e5f3c0a1b2c3d4e6
    """
    deployment = _open_for_reading()
    found = next(find_dead_letters(deployment, DeadLetterFilter(ids=(letter_id,))), None)
    if found is None:
        _fail_not_found(deployment, letter_id)
    letter = found.letter
    record_operator(deployment.lanes, "read dead letter", letter.id)
    plain = (
        dramatiq_letter_details(letter)
        if isinstance(letter, DramatiqLetter)
        else _read_letter_details(deployment, letter)
    )
    if as_json:
        print_json(plain)
        return
    for line in detail_lines(plain):
        click.echo(line)


@dead.command()
@_ids_argument
@_filter_options
@_all_option
@click.option("--dry-run", is_flag=True, help="Say for each what would come of it; change nothing.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="So many a second. Default: as fast as it goes.",
)
@click.option(
    "--stale", is_flag=True, help="Replay stale ones too: their session is over, or another is open."
)
@click.option(
    "--uncertain", is_flag=True, help="Replay SMS too that the provider may have: they may come twice."
)
@operator_option
@_yes_option
@_json_option
def replay(
    ids: Sequence[str], everything: bool, dry_run: bool, rate: float | None, stale: bool, uncertain: bool,
    by: str, yes: bool, as_json: bool, **filters: Any,
) -> None:  # fmt: skip
    """Try dead letters again: of these IDs, or all that the filters let through.

    An event is applied to its lane as it is now, an SMS is put into its outbox, what an endpoint refused is sent to it. What has been applied already is only
    taken away. What is stale, or fails again, or whose person has opted out, stays. Safe beside live traffic, and beside
    another operator; killed half-way, run it again.

    Exit status 0 if all are dealt with, 1 if some stay, 2 if it could not be tried.

    \b
    Example:
      parley dead replay --reason engine_error --survey clinic --dry-run
      parley dead replay e5f3c0a1b2c3d4e6
      parley dead replay --queue outbound --newer 6h --rate 5 --yes
    """  # fmt: skip
    deployment = connect_both(os.environ, COMMAND_RETRIES)
    found = _select_letters(deployment, ids, everything, filters)
    options: list[ReplayOption] = [name for name, wanted in _replay_option_flags(stale, uncertain) if wanted]
    redress = _build_replayer(deployment, by, options, publish=not dry_run)
    if dry_run:
        done = preview_letters(redress, deployment.settings, found, options)
    else:
        _confirm_if_many(found, yes, "Replay")
        done = replay_letters(redress, deployment.settings, found, by, rate or 0.0)
    missing = list(_results_of_missing(deployment, ids, found))
    title = DRY_RUN_TITLE if dry_run else "replayed"
    status = report_outcomes(chain(missing, done), len(found), title, as_json=as_json, each_one=dry_run)
    if not dry_run:
        confirm_replicated(deployment)
    sys.exit(status)


@dead.command()
@_ids_argument
@_filter_options
@_all_option
@operator_option
@_yes_option
@_json_option
def drop(ids: Sequence[str], everything: bool, by: str, yes: bool, as_json: bool, **filters: Any) -> None:
    """Give dead letters up for good: of these IDs, or all that the filters let through.

    The audit keeps which they were, and who dropped them. Exit status 1 if one was not there.

    \b
    Example:
      parley dead drop --reason undecodable --older 7d
    """
    deployment = connect_both(os.environ, COMMAND_RETRIES)
    found = _select_letters(deployment, ids, everything, filters)
    _confirm_if_many(found, yes, "Drop")
    missing = list(_results_of_missing(deployment, ids, found))
    status = report_outcomes(chain(missing, drop_letters(found, by)), len(found), "dropped", as_json=as_json)
    confirm_replicated(deployment)
    sys.exit(status)


@dead.command()
@click.option(
    "--since", "since_ms", type=DurationParam(), default=0, help="Only of so long ago and less, such as 1d."
)
@_json_option
def audit(since_ms: int, as_json: bool) -> None:
    """What was done with dead letters: when, by whom, and what came of it; the newest last.

    \b
    Example:
      parley dead audit --since 1d
    """
    deployment = _open_for_reading()
    client = deployment.lanes
    since = redis_client.server_time_ms(client) - since_ms if since_ms else 0
    entries = [
        entry
        for k in find_readable_shards(deployment)
        for entry in dead_letter_store.scan_audit(client, k, since)
    ]
    if len(deployment.distinct_servers) > 1:
        entries += dead_letter_store.scan_audit(deployment.broker, 0, since)
    entries.sort(key=attrgetter("at"))
    if as_json:
        for entry in entries:
            print_json({"when": format_utc(entry.at)} | msgspec.structs.asdict(entry))
        return
    screen = open_console()
    if entries:
        screen.print(_audit_table(entries, narrow=screen.width < NARROW_WIDTH))
    else:
        click.echo("Nothing was done with dead letters.")


def _open_for_reading() -> Deployment:
    """Connect for a command that changes nothing. If the wake-ups' Redis is down, warn and use the lanes' Redis in its place."""
    deployment = connect_lanes(os.environ)
    try:
        redis_client.require_answer(deployment.broker)
    except redis.RedisError as e:
        click.echo(
            f"The Redis of the wake-ups {failure_clause(e)} ({type(e).__name__}): "
            "what Dramatiq gave up there is not told.",
            err=True,
        )
        return msgspec.structs.replace(deployment, broker=deployment.lanes)
    return deployment


def _no_match_sentence(deployment: Deployment, wanted: DeadLetterFilter) -> str:
    """That nothing was found; and what there is, as a word of a filter may be wrong."""
    reasons = (
        Counter() if wanted.is_empty else count_reasons(find_dead_letters(deployment, DeadLetterFilter()))
    )
    return (
        f"No dead letters like that; there are {format_reason_counts(reasons)}."
        if reasons
        else "No dead letters."
    )


def _audit_table(entries: Iterable[dead_letter_store.AuditEntry], *, narrow: bool) -> Table:
    table = simple_table()
    more = () if narrow else ("kind", "reason", "channel")
    for column in ("when (UTC)", "who", "letter", *more, "outcome"):
        table.add_column(column, no_wrap=column != "who")
    for entry in entries:
        told = (getattr(entry, each) for each in more)
        table.add_row(format_utc(entry.at), entry.by, entry.id, *told, entry.outcome)
    return table


def _replay_option_flags(stale: bool, uncertain: bool) -> list[tuple[ReplayOption, bool]]:
    return [("stale", stale), ("uncertain", uncertain)]


def _parse_filters(ids: Sequence[str], filters: dict[str, Any]) -> DeadLetterFilter:
    sender = parse_sender_argument(filters["sender"]) if filters["sender"] else ""
    return DeadLetterFilter(ids=tuple(ids), **(filters | {"sender": sender}))


def _select_letters(
    deployment: Deployment, ids: Sequence[str], everything: bool, filters: dict[str, Any]
) -> list[LocatedDeadLetter]:
    """What a command is to deal with. Raises UsageError if nothing says which."""
    wanted = _parse_filters(ids, filters)
    if ids and (everything or wanted != DeadLetterFilter(ids=tuple(ids))):
        raise click.UsageError("name letters by their ids, or by filters, or say --all; not two of these")
    if wanted.is_empty and not everything:
        raise click.UsageError("say which: ids, filters such as --reason, or --all")
    return [without_content(each) for each in find_dead_letters(deployment, wanted)]


def _confirm_if_many(found: Sequence[LocatedDeadLetter], yes: bool, verb: str) -> None:
    if len(found) < 2 or yes:
        return
    require_confirmation(
        f"{verb} {len(found)} dead letters ({format_reason_counts(count_reasons(found))})?",
        stderr=True,
    )


def _results_of_missing(
    deployment: Deployment, ids: Sequence[str], found: Sequence[LocatedDeadLetter]
) -> Iterator[LetterResult]:
    """A result for each id of which there is no letter: `gone` if the audit has it, else `missing`."""
    there = {each.letter.id for each in found}
    for identity in dict.fromkeys(ids):
        if identity not in there:
            last = last_audit_entry_of(deployment, identity)
            if last:
                yield LetterResult(identity, "gone", f"{last.outcome}, by {last.by}")
            else:
                yield LetterResult(
                    identity, "missing", "there is none with this id; `parley dead list` lists them"
                )


def _fail_not_found(deployment: Deployment, identity: str) -> NoReturn:
    last = last_audit_entry_of(deployment, identity)
    if last is not None:
        raise click.ClickException(
            f"dead letter {identity} is gone: {last.outcome} by {last.by}, {format_utc(last.at)} UTC"
        )
    raise click.ClickException(f"no dead letter {identity}; `parley dead list` lists them")


def _build_replayer(
    deployment: Deployment, by: str, options: Collection[ReplayOption], *, publish: bool
) -> DeadLetterReplayer:
    """Build a replayer with this deployment's settings and surveys. Raises UsageError if they have errors; with `publish`,
    stores the surveys' versions first."""
    try:
        settings, surveys = load_settings_and_surveys()
    except ConfigError as e:
        problems = "\n".join(f"  {problem}" for problem in e.problems)
        raise click.UsageError(f"nothing was tried, as no worker would start either:\n{problems}") from e
    with exit_on_config_error():
        replayer = build_dead_letter_replayer(
            msgspec.structs.replace(deployment, surveys=surveys), by[:MAX_OPERATOR_NAME_LENGTH], options
        )
    configure_logging(settings)
    if publish:
        survey_versions.publish_current(deployment.lanes, surveys)
    return replayer


def _read_letter_details(deployment: Deployment, letter: DeadLetter) -> dict[str, Any]:
    surveys = SurveyRegistry()
    judged = None
    if letter.kind != "hook":
        survey_versions.load_versions(deployment.lanes, surveys)
        judged = _preview_replay(deployment, letter)
    return details_of(deployment, letter, judged, surveys)


def _preview_replay(deployment: Deployment, letter: DeadLetter) -> ReplayDecision | None:
    """What a replay would do; None if no worker would run with these settings either."""
    try:
        load_settings_and_surveys()
    except ConfigError:
        return None
    (judged,) = _build_replayer(deployment, "", (), publish=False).preview([letter])
    return judged
