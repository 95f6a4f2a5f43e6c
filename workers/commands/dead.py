"""`parley dead`: what could not be handled, and why; and what an operator may do about it."""

import json
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
from rich import box
from rich.table import Table

from config.settings.settings import Mistakes, Settings, exit_with_mistakes, load
from config.store import keyspace, stored_values
from config.telemetry.logs import configure
from engine.proofs.survey_loader import read_surveys
from engine.providers import Recourse, Unusable
from engine.providers.provider_registry import mistakes, open_provider
from engine.surveys.survey_registry import Surveys
from workers.commands.cli_numbers import sender_named
from workers.commands.cli_options import Duration, named
from workers.commands.connect import reach_apart, reach_both
from workers.dead_letters.actions import dropped, looked_at, replayed
from workers.dead_letters.filters import DRAMATIQ, Deployment, Found, Wanted, find
from workers.dead_letters.outcomes import WOULD_BE, console, tell
from workers.dead_letters.replay import Done, Redress
from workers.dead_letters.replay_decision import Judged, Option
from workers.dead_letters.view import brief, full, full_dramatiq, lines_of, when
from workers.runtime.wakeup_broker import Doorbell
from workers.store import dead_letter_store, dramatiq_letters, survey_versions
from workers.store.channel_state import Channels
from workers.store.dead_letter_store import DeadLetter
from workers.store.dramatiq_letters import DramatiqLetter
from workers.store.lanes import Lanes
from workers.store.optouts import open_list
from workers.turns.turns import policy_of

NARROW = 110
"""A terminal that is not as wide is shown less of each letter, but never less of its id or of what went wrong."""

_MOST_NAME = 80
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


_FILTERS = (
    click.option("--queue", default="", help="Only of this queue: starts, replies, outbound, or one of Dramatiq's."),
    click.option("--reason", default="", help="Only of this reason, such as engine_error, or dramatiq."),
    click.option("--channel", default="", help="Only of this channel."),
    click.option("--survey", default="", help="Only about this survey."),
    click.option("--sender", default="", help="Only of this phone number."),
    click.option("--older", "older_ms", type=Duration(), default=0, help="Only those that fell longer ago, such as 2h."),
    click.option("--newer", "newer_ms", type=Duration(), default=0, help="Only those that fell since, such as 2h."),
    click.option("--error", default="", help="Only with this text in what went wrong; in any case."),
)  # fmt: skip


def _filters(command: _Command) -> _Command:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_ids = click.argument("ids", metavar="[ID]...", nargs=-1)
_all = click.option("--all", "everything", is_flag=True, help="All of them, where nothing says which.")
_yes = click.option("--yes", is_flag=True, help="Do not ask, though there are several.")


@dead.command("list")
@_filters
@_json
def list_letters(as_json: bool, **filters: Any) -> None:
    """Dead letters, oldest first; after them those that Dramatiq itself has given up.

    \b
    Example:
      parley dead list --queue outbound --error timeout --older 10m
    """
    deployment = _to_look()
    wanted = _wanted((), filters)
    found = (each.letter for each in find(deployment, wanted))
    if as_json:
        for letter in found:
            click.echo(json.dumps(brief(letter)))
        return
    screen = console()
    table = _listed(found, narrow=screen.width < NARROW)
    if table.row_count:
        screen.print(table)
    else:
        click.echo(_none_like_that(deployment, wanted))


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
    deployment = _to_look()
    found = next(find(deployment, Wanted(ids=(letter_id,))), None)
    if found is None:
        _none(deployment, letter_id)
    letter = found.letter
    plain = full_dramatiq(letter) if isinstance(letter, DramatiqLetter) else _full(deployment, letter)
    if as_json:
        click.echo(json.dumps(plain))
        return
    for line in lines_of(plain):
        click.echo(line)


@dead.command()
@_ids
@_filters
@_all
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
@named
@_yes
@_json
def replay(
    ids: Sequence[str], everything: bool, dry_run: bool, rate: float | None, stale: bool, uncertain: bool, by: str,
    yes: bool, as_json: bool, **filters: Any,
) -> None:  # fmt: skip
    """Try dead letters again: of these IDs, or all that the filters let through.

    An event is applied to its lane as it is now, an SMS is put into its outbox. What has been applied already is only
    taken away. What is stale, or fails again, or whose person has opted out, stays. Safe beside live traffic, and beside
    another operator; killed half-way, run it again.

    Exit status 0 if all are dealt with, 1 if some stay, 2 if it could not be tried.

    \b
    Example:
      parley dead replay --reason engine_error --survey clinic --dry-run
      parley dead replay e5f3c0a1b2c3d4e6
      parley dead replay --queue outbound --newer 6h --rate 5 --yes
    """  # fmt: skip
    deployment = Deployment(*reach_both(os.environ, keyspace.RETRIES))
    found = _chosen(deployment, ids, everything, filters)
    options: list[Option] = [name for name, wanted in _options(stale, uncertain) if wanted]
    redress = _redress(deployment, by, options, publish=not dry_run)
    if dry_run:
        done = looked_at(redress, found, options)
    else:
        _confirm(found, yes, "Replay")
        done = replayed(redress, found, by, rate or 0.0)
    missing = list(_missing(deployment, ids, found))
    title = WOULD_BE if dry_run else "replayed"
    sys.exit(tell(chain(missing, done), len(found), title, as_json=as_json, each_one=dry_run))


@dead.command()
@_ids
@_filters
@_all
@named
@_yes
@_json
def drop(ids: Sequence[str], everything: bool, by: str, yes: bool, as_json: bool, **filters: Any) -> None:
    """Give dead letters up for good: of these IDs, or all that the filters let through.

    The audit keeps which they were, and who dropped them. Exit status 1 if one was not there.

    \b
    Example:
      parley dead drop --reason undecodable --older 7d
    """
    deployment = Deployment(*reach_both(os.environ, keyspace.RETRIES))
    found = _chosen(deployment, ids, everything, filters)
    _confirm(found, yes, "Drop")
    missing = list(_missing(deployment, ids, found))
    sys.exit(tell(chain(missing, dropped(found, by)), len(found), "dropped", as_json=as_json))


@dead.command()
@click.option(
    "--since", "since_ms", type=Duration(), default=0, help="Only of so long ago and less, such as 1d."
)
@_json
def audit(since_ms: int, as_json: bool) -> None:
    """What was done with dead letters: when, by whom, and what came of it; the newest last.

    \b
    Example:
      parley dead audit --since 1d
    """
    deployment = _to_look()
    settings, client = deployment.settings, deployment.lanes
    since = keyspace.server_ms(client) - since_ms if since_ms else 0
    entries = [entry for k in range(settings.shards) for entry in dead_letter_store.audit(client, k, since)]
    if len(deployment.servers) > 1:
        entries += dead_letter_store.audit(deployment.broker, 0, since)
    entries.sort(key=attrgetter("at"))
    if as_json:
        for entry in entries:
            click.echo(json.dumps({"when": when(entry.at)} | msgspec.structs.asdict(entry)))
        return
    screen = console()
    if entries:
        screen.print(_audited(entries, narrow=screen.width < NARROW))
    else:
        click.echo("Nothing was done with dead letters.")


def _to_look() -> Deployment:
    """The deployment, for a command that only looks. Where the wake-ups' Redis is away, it goes by the lanes' alone."""
    settings, lanes, broker = reach_apart(os.environ)
    try:
        broker.ping()
    except redis.RedisError as e:
        click.echo(
            f"The Redis of the wake-ups does not answer ({type(e).__name__}): what Dramatiq gave up there is not told.",
            err=True,
        )
        broker = lanes
    return Deployment(settings, lanes, broker)


def _listed(found: Iterable[DeadLetter | DramatiqLetter], *, narrow: bool) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("id", no_wrap=not narrow, overflow="fold")  # those of Dramatiq's may fill a line
    for column in ("when (UTC)", "channel") if narrow else ("when (UTC)", "queue", "channel", "reason"):
        table.add_column(column, no_wrap=True)
    table.add_column("why")
    for letter in found:
        channel, reason = getattr(letter, "channel", ""), getattr(letter, "reason", DRAMATIQ)
        if narrow:
            table.add_row(letter.id, when(letter.at), channel, f"{reason}: {_why(letter)}")
        else:
            table.add_row(letter.id, when(letter.at), letter.queue, channel, reason, _why(letter))
    return table


def _none_like_that(deployment: Deployment, wanted: Wanted) -> str:
    """That nothing was found; and what there is, as a word of a filter may be wrong."""
    reasons = Counter() if wanted.everything else _reasons(find(deployment, Wanted()))
    return f"No dead letters like that; there are {_counted(reasons)}." if reasons else "No dead letters."


def _audited(entries: Iterable[dead_letter_store.Audited], *, narrow: bool) -> Table:
    table = Table(box=box.SIMPLE)
    more = () if narrow else ("kind", "reason", "channel")
    for column in ("when (UTC)", "who", "letter", *more, "outcome"):
        table.add_column(column, no_wrap=column != "who")
    for entry in entries:
        told = (getattr(entry, each) for each in more)
        table.add_row(when(entry.at), entry.by, entry.id, *told, entry.outcome)
    return table


def _options(stale: bool, uncertain: bool) -> list[tuple[Option, bool]]:
    return [("stale", stale), ("uncertain", uncertain)]


def _wanted(ids: Sequence[str], filters: dict[str, Any]) -> Wanted:
    sender = sender_named(filters["sender"]) if filters["sender"] else ""
    return Wanted(ids=tuple(ids), **(filters | {"sender": sender}))


def _chosen(
    deployment: Deployment, ids: Sequence[str], everything: bool, filters: dict[str, Any]
) -> list[Found]:
    """What a command is to deal with. Raises UsageError if nothing says which."""
    wanted = _wanted(ids, filters)
    if ids and (everything or wanted != Wanted(ids=tuple(ids))):
        raise click.UsageError("name letters by their ids, or by filters, or say --all; not two of these")
    if wanted.everything and not everything:
        raise click.UsageError("say which: ids, filters such as --reason, or --all")
    return [_light(each) for each in find(deployment, wanted)]


def _light(found: Found) -> Found:
    """Without what a hundred thousand of them should not hold in memory."""
    if isinstance(found.letter, DramatiqLetter):
        return found
    slim = msgspec.structs.replace(found.letter, what=b"", state=None, tries=[], traceback="", why="")
    return msgspec.structs.replace(found, letter=slim)


def _confirm(found: Sequence[Found], yes: bool, verb: str) -> None:
    if len(found) < 2 or yes:
        return
    click.confirm(f"{verb} {len(found)} dead letters ({_counted(_reasons(found))})?", abort=True, err=True)


def _reasons(found: Iterable[Found]) -> Counter[str]:
    return Counter(getattr(each.letter, "reason", DRAMATIQ) for each in found)


def _counted(reasons: Counter[str]) -> str:
    """`12 rejected, 3 engine_error`."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def _missing(deployment: Deployment, ids: Sequence[str], found: Sequence[Found]) -> Iterator[Done]:
    """Ids of which nothing is there. The audit may know what became of one."""
    there = {each.letter.id for each in found}
    for identity in dict.fromkeys(ids):
        if identity not in there:
            last = _last(deployment, identity)
            if last:
                yield Done(identity, "gone", f"{last.outcome}, by {last.by}")
            else:
                yield Done(identity, "missing", "there is none with this id; `parley dead list` lists them")


def _last(deployment: Deployment, identity: str) -> dead_letter_store.Audited | None:
    if identity.startswith(dramatiq_letters.PREFIX):
        known = (dead_letter_store.last_audit(server, 0, identity) for server in deployment.servers)
    else:
        known = (
            dead_letter_store.last_audit(deployment.lanes, k, identity)
            for k in range(deployment.settings.shards)
        )
    return max(filter(None, known), key=attrgetter("at"), default=None)


def _none(deployment: Deployment, identity: str) -> NoReturn:
    last = _last(deployment, identity)
    if last is not None:
        raise click.ClickException(
            f"dead letter {identity} is gone: {last.outcome} by {last.by}, {when(last.at)} UTC"
        )
    raise click.ClickException(f"no dead letter {identity}; `parley dead list` lists them")


def _redress(deployment: Deployment, by: str, options: Collection[Option], *, publish: bool) -> Redress:
    """What replays as this deployment's workers would. Ends with the mistakes in its settings and surveys, if any."""
    try:
        settings, surveys = load(os.environ, read_surveys, mistakes)
    except Mistakes as e:
        problems = "\n".join(f"  {problem}" for problem in e.problems)
        raise click.UsageError(f"nothing was tried, as no worker would start either:\n{problems}") from e
    client = deployment.lanes
    with exit_with_mistakes():
        optouts = open_list(client, settings.shards, settings.optout_key)
    configure(settings)
    if publish:
        survey_versions.publish(client, surveys)
    return Redress(
        Lanes(client, settings.shards, settings.keep_events_ms, optouts),
        optouts,
        surveys,
        policy_of(settings.channels),
        Channels(client, settings.channels),
        Doorbell(deployment.broker),
        _recourses(settings),
        settings.shards,
        by=by[:_MOST_NAME],
        options=options,
    )


def _recourses(settings: Settings) -> dict[str, Recourse]:
    """What may be done about an SMS that the provider may have; nothing, if it cannot be told."""
    found: dict[str, Recourse] = {}
    for name, channel in settings.channels.items():
        try:
            found[name] = open_provider(channel, settings).recourse
        except Unusable:
            found[name] = "none"
    return found


def _full(deployment: Deployment, letter: DeadLetter) -> dict[str, Any]:
    settings, client = deployment.settings, deployment.lanes
    k = keyspace.shard_of(letter.sender, settings.shards)
    state = stored_values.state_in(keyspace.ask(client, ("GET", keyspace.lane(k, letter.sender))))
    surveys = Surveys()
    survey_versions.learn(client, surveys)
    return full(letter, state, _judged(deployment, letter), surveys)


def _judged(deployment: Deployment, letter: DeadLetter) -> Judged | None:
    """What a replay would do; None if no worker would run with these settings either."""
    try:
        load(os.environ, read_surveys, mistakes)
    except Mistakes:
        return None
    (judged,) = _redress(deployment, "", (), publish=False).look([letter])
    return judged


def _why(letter: DeadLetter | DramatiqLetter) -> str:
    if isinstance(letter, DramatiqLetter):
        return f"{letter.actor}, {letter.retries} retries: {letter.why}".removesuffix(": ")
    return f"{letter.code} {letter.why}".strip()
