"""`parley surveys`: which versions of which surveys are in use, and what would an upgrade change?"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import click
import msgspec
import redis
from rich.table import Table

from config.settings.settings import Settings
from config.settings.survey_folder import read_survey_files
from config.telemetry import process_registry
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console, simple_table
from engine.model.timestamps import format_utc
from engine.proofs.survey_loader import ReloadResult, reload_surveys
from engine.simulator.survey_diff import FieldDifference, SurveyDiff, diff_versions
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry
from workers.commands.connect import connect_lanes
from workers.store import survey_versions
from workers.store.deployment import Deployment
from workers.store.open_sessions import OpenSessions, count_open_sessions

EMPTY_VALUE = "(nothing)"


class SurveyVersion(msgspec.Struct, frozen=True):
    """One version of one survey.

    `processes` are those that run it. `since` (when Redis got it) and `used` (when it was last known to be in use) are
    ms; 0: nobody knows. `waiting` counts its open sessions by the step at which they wait. `in_folder`: it is what
    PARLEY_SURVEYS holds.
    """

    survey: str
    version: str
    file: str
    in_folder: bool
    processes: list[str]
    since: int
    used: int
    open_sessions: int
    waiting: dict[str, int]
    channels: list[str]

    @property
    def in_use(self) -> bool:
        return bool(self.processes or self.open_sessions)


class SurveyInventory(msgspec.Struct, frozen=True):
    """All there is to know. `known` holds every version that this release can read, `folder` what PARLEY_SURVEYS holds;
    `unreadable` lanes may have open sessions that are not counted."""

    versions: list[SurveyVersion]
    known: SurveyRegistry
    folder: ReloadResult
    unreadable: int


class SurveyChange(msgspec.Struct, frozen=True):
    """What becomes of a version that is in use: `new` replaces it; without, no file holds the survey any more. Without
    `old`, nobody has run the survey yet."""

    survey: str
    old: SurveyVersion | None
    new: Survey | None
    upgrade: SurveyDiff | None = None


@click.group(invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="Also versions that nobody uses any more.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def surveys(context: click.Context, *, everything: bool, as_json: bool) -> None:
    """The versions of each survey, and the open sessions on them.

    Files with errors are named; exit status 1 if there is one.

    \b
    Example:
      parley surveys
      PARLEY_SURVEYS=new-surveys/ parley surveys upgrade
    """
    if context.invoked_subcommand is not None:
        return
    stock = read_inventory(connect_lanes(os.environ))
    shown = [each for each in stock.versions if everything or each.in_use or each.in_folder]
    if as_json:
        _print_json_lines(map(msgspec.to_builtins, shown))
    else:
        _print_table(_version_table(shown))
    _report_refused_files(stock, as_json=as_json)


@surveys.command()
@click.argument("names", metavar="[SURVEY]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def upgrade(names: tuple[str, ...], *, as_json: bool) -> None:
    """What the files in PARLEY_SURVEYS would change.

    They are compared, step by step, with the versions that run, and with those on which sessions are open; open
    sessions always end as they began. Files with errors are named; exit status 1 if there is one.

    \b
    Example:
      PARLEY_SURVEYS=new-surveys/ parley surveys upgrade clinic
    """
    stock = read_inventory(connect_lanes(os.environ))
    known = sorted({each.survey for each in stock.versions})
    if unknown := [name for name in names if name not in known]:
        raise click.ClickException(f"no survey is called {unknown[0]}: expected {', '.join(known)}")
    changes = [change for change in pending_changes(stock) if not names or change.survey in names]
    if as_json:
        _print_json_lines(map(_change_fields, changes))
    else:
        for line in _change_lines(changes):
            click.echo(line)
        if not changes and not stock.folder.refused:
            click.echo("Nothing would change.")
    _report_refused_files(stock, as_json=as_json)


def read_inventory(deployment: Deployment) -> SurveyInventory:
    """Every version that Redis or the folder knows, by survey and age."""
    settings, client = deployment.settings, deployment.lanes
    try:
        files = read_survey_files(settings.surveys)
    except OSError as e:
        raise click.ClickException(f"{settings.surveys}: cannot be read ({e.strerror})") from e
    folder = reload_surveys(files, SurveyRegistry(), ())
    known = SurveyRegistry(folder.current)
    for stored in survey_versions.stored_versions(client).values():
        _add_stored_version(known, stored)
    return SurveyInventory(
        _list_versions(settings, client, known, found := count_open_sessions(client)),
        known,
        folder,
        found.unreadable,
    )


def _add_stored_version(known: SurveyRegistry, stored: bytes) -> None:
    """One that this release cannot read stays unknown: it is listed without its name."""
    with suppress(InvalidSurveyError, msgspec.MsgspecError):
        known.add_version(read_stored_survey(*survey_versions.decode_survey_file(stored)))


def _list_versions(
    settings: Settings, client: redis.Redis, known: SurveyRegistry, found: OpenSessions
) -> list[SurveyVersion]:
    """Every survey version that the folder, a living process, an open session or Redis names, sorted by survey and age."""
    since, used = (
        survey_versions.version_times(client, survey_versions.FIRST_STORED_KEY),
        survey_versions.version_times(client, survey_versions.LAST_USED_KEY),
    )
    processes: dict[tuple[str, str], list[str]] = {}
    for process, run in process_registry.living_processes(client).items():
        for pair in run.surveys.items():
            processes.setdefault(pair, []).append(process)
    waiting: dict[tuple[str, str], Counter[str]] = {}
    for place, count in found.by_position.items():
        waiting.setdefault((place.survey, place.version), Counter())[
            _step_id(known, place.version, place.step)
        ] += count
    folder = {(name, survey.version) for name in known.current_names() if (survey := known.current(name))}
    named = {*processes, *waiting, *folder}
    others = used.keys() - {version for _, version in named}
    named |= {(survey.name if (survey := known.by_version(version)) else "?", version) for version in others}
    rows = (
        SurveyVersion(
            survey=name,
            version=version,
            file=survey.file if (survey := known.by_version(version)) else "",
            in_folder=(name, version) in folder,
            processes=processes.get((name, version), []),
            since=since.get(version, 0),
            used=used.get(version, 0),
            open_sessions=waiting.get((name, version), Counter()).total(),
            waiting=dict(waiting.get((name, version), {})),
            channels=[each.name for each in settings.channels.values() if name in each.surveys],
        )
        for name, version in named
    )
    return sorted(rows, key=lambda row: (row.survey, row.since or sys.maxsize, row.version))


def _step_id(known: SurveyRegistry, version: str, step: int) -> str:
    survey = known.by_version(version)
    return survey.steps[step].id if survey is not None and 0 <= step < len(survey.steps) else "?"


def pending_changes(stock: SurveyInventory) -> list[SurveyChange]:
    """What the folder would change about every version that is in use, and what it adds. What it refuses changes
    nothing."""
    in_use = [each for each in stock.versions if each.in_use]
    changes = [
        _change_of_version(old, stock)
        for old in in_use
        if not old.in_folder and old.file not in stock.folder.refused
    ]
    new = set(stock.known.current_names()) - {each.survey for each in in_use}
    return [*changes, *(SurveyChange(name, None, stock.known.current(name)) for name in sorted(new))]


def _change_of_version(old: SurveyVersion, stock: SurveyInventory) -> SurveyChange:
    was, new = stock.known.by_version(old.version), stock.known.current(old.survey)
    found = diff_versions(was, new) if was is not None and new is not None else None
    return SurveyChange(old.survey, old, new, found)


def _version_table(shown: Iterable[SurveyVersion]) -> Table:
    table = simple_table()
    for column in ("survey", "version", "file", "in the folder", "run by", "since (UTC)"):
        table.add_column(column, no_wrap=True)
    table.add_column("open sessions", justify="right")
    table.add_column("channels")
    for each in shown:
        table.add_row(
            each.survey, each.version, each.file, "yes" if each.in_folder else "no",
            _count_processes_by_role(each), format_utc(each.since) if each.since else "-",
            str(each.open_sessions), ", ".join(each.channels),
        )  # fmt: skip
    return table


def _print_table(table: Table) -> None:
    """As wide as it needs: in a narrow terminal lines that go on below say more than columns cut to an ellipsis."""
    console = open_console()
    if console.is_terminal:
        console.width = max(console.width, console.measure(table).maximum)
    console.print(table)


def _count_processes_by_role(version: SurveyVersion) -> str:
    """Processes of the workers, by role."""
    roles = Counter(process.partition("@")[0] for process in version.processes)
    return ", ".join(f"{count} {role}" for role, count in roles.items()) or "-"


def _change_lines(changes: Sequence[SurveyChange]) -> Iterator[str]:
    for change in changes:
        old, new = change.old, change.new
        came = f"from {old.version} " if old is not None else ""
        to = f"to {new.version} ({new.file})" if new is not None else "no file holds it any more"
        yield click.style(f"{change.survey}, {came}{to}", bold=True)
        yield from (f"  {line}" for line in _concerned_lines(change))
        if change.upgrade is not None:
            yield from _upgrade_lines(change.upgrade)


def _concerned_lines(change: SurveyChange) -> Iterator[str]:
    """Whom the change concerns."""
    old = change.old
    if old is None:
        yield "nobody runs it yet"
        return
    if change.new is None:
        yield "it runs on, as a channel offers it" if old.channels else "nobody can begin it any more"
    elif change.upgrade is None:
        yield "this release cannot read the old version"
    elif not change.upgrade:
        yield "it says and does the same"
    yield f"run by: {_count_processes_by_role(old)}"
    if old.open_sessions:
        where = ", ".join(f"{count} at {step}" for step, count in sorted(old.waiting.items()))
        yield f"open sessions, which end as they began: {old.open_sessions} ({where})"


_SIGN_OF_KIND = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def _upgrade_lines(upgrade: SurveyDiff) -> Iterator[str]:
    for each in upgrade.whole:
        yield from _difference_lines("  ", each)
    for step in upgrade.steps:
        sign, colour = _SIGN_OF_KIND[step.kind]
        yield click.style(f"  {sign} step {step.step}", fg=colour)
        for each in step.differences:
            yield from _difference_lines("      ", each)


def _difference_lines(margin: str, each: FieldDifference) -> Iterator[str]:
    was, now = _one_line(each.was), _one_line(each.now)
    if was == now:
        yield f"{margin}{each.field}: {now} (accepts or means something else)"
    else:
        yield f"{margin}{each.field}:"
        yield click.style(f"{margin}  - {was or EMPTY_VALUE}", fg="red")
        yield click.style(f"{margin}  + {now or EMPTY_VALUE}", fg="green")


def _one_line(text: str) -> str:
    return " ⏎ ".join(text.splitlines())


def _change_fields(change: SurveyChange) -> dict[str, object]:
    old, new = change.old, change.new
    return {
        "survey": change.survey,
        "from": old.version if old is not None else None,
        "to": new.version if new is not None else None,
        "processes": old.processes if old is not None else [],
        "open_sessions": old.open_sessions if old is not None else 0,
        "waiting": old.waiting if old is not None else {},
        "upgrade": msgspec.to_builtins(change.upgrade),
    }


def _print_json_lines(objects: Iterable[Mapping[str, object]]) -> None:
    for each in objects:
        print_json(each)


def _report_refused_files(stock: SurveyInventory, *, as_json: bool) -> None:
    """Print the refused files and the count of unreadable lanes; exit with EXIT_PROBLEMS if a file was refused."""
    if as_json:
        _print_json_lines({"refused": file, "problems": why} for file, why in stock.folder.refused.items())
    else:
        for file, problems in stock.folder.refused.items():
            click.secho(f"{file} has errors and is refused; what ran of it runs on", fg="red")
            for problem in problems:
                click.echo(f"  {problem}")
    if stock.unreadable:
        click.echo(f"{stock.unreadable} lanes cannot be read; their sessions are not counted", err=True)
    if stock.folder.refused:
        sys.exit(EXIT_PROBLEMS)
