"""`parley optout`: who has opted out, and lists of them from elsewhere.

What is known of a person who opted out is a keyed hash, so no command can list numbers. An export is of use where the
same key is: as a copy, or for another deployment with as many shards.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import click

from config.settings.csv_files import CsvFileError, CsvRow, read_csv_rows, write_csv_rows
from config.settings.settings import Settings, exit_on_config_error
from config.store.audit import record_operator
from config.telemetry.logs import hash_sender
from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS
from engine.commands.json_output import json_line, print_json
from engine.commands.terminal import open_console, progress_bar, simple_table
from engine.model.errors import ParleyError
from engine.model.timestamps import format_utc_ms
from workers.commands.cli_numbers import InvalidNumberError, parse_reachable_argument, parse_reachable_number
from workers.commands.connect import confirm_replicated, connect_lanes
from workers.store.deployment import Deployment
from workers.store.optouts import OptOutEntry, OptOutList

IMPORT_PAGE = 500
_EXPORT_COLUMNS = ["channel", "time", "source", "shard"]
"""The columns of an export beside the first, whose head tells the key: `hash <mark>`."""

T = TypeVar("T")


class InvalidEntryError(ParleyError):
    """A line of an imported list is invalid. The message says why."""


class ImportResult(NamedTuple):
    """The result of an import: opt-outs added, opt-outs that were listed already, and a sentence for each invalid line."""

    new: int
    known: int
    bad: list[str]


@click.group()
def optout() -> None:
    """Who has opted out, and lists of them from elsewhere.

    \b
    Example:
      parley optout list
      parley optout list +33612345678
      parley optout import blocked.csv
    """


_channels_option = click.option(
    "--channel", "channels", multiple=True, help="Only this channel; may be repeated. Default: every channel."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@optout.command("list")
@click.argument("number", default="")
@_json_option
def list_opt_outs(number: str, as_json: bool) -> None:
    """How many opted out, by channel and source; or whether, when and how one NUMBER did.

    Exit status 1 if NUMBER did not opt out of any channel.
    """
    opened = _open_opt_outs()
    optouts = opened.optouts
    if number:
        sender = parse_reachable_argument(number)
        opened.record_in_audit("read opt-outs", sender)
        sys.exit(_print_opt_outs_of(optouts, sender, as_json))
    sources = {(entry.hash, entry.channel): entry.source for entry in optouts.entries()}  # each person once
    counts = Counter((channel, source) for (_, channel), source in sources.items())
    if as_json:
        print_json([{"channel": c, "source": s, "people": n} for (c, s), n in sorted(counts.items())])
        return
    if not counts:
        click.echo("Nobody has opted out.")
        return
    table = simple_table("channel", "source", "people")
    for (channel, source), people in sorted(counts.items()):
        table.add_row(channel, source, str(people))
    open_console().print(table)


@optout.command()
@click.argument("numbers", nargs=-1, required=True)
@_channels_option
@_json_option
def add(numbers: Sequence[str], channels: Sequence[str], as_json: bool) -> None:
    """Opt NUMBERS out, as if they had said stop. Their open sessions end."""
    opened = _open_opt_outs()
    settings, optouts = opened.settings, opened.optouts
    chosen = _selected_channels(settings, channels)
    people = [(parse_reachable_argument(each), channel) for each in numbers for channel in chosen]
    for sender in dict.fromkeys(sender for sender, _ in people):
        opened.record_in_audit("opt out", sender, channels=chosen)
    new = optouts.add_opt_outs(people, "operator")
    confirm_replicated(opened.deployment)
    _print_counts(as_json, f"{new} new, {len(people) - new} known", new=new, known=len(people) - new)


@optout.command()
@click.argument("numbers", nargs=-1, required=True)
@_channels_option
@_json_option
def remove(numbers: Sequence[str], channels: Sequence[str], as_json: bool) -> None:
    """Forget that NUMBERS opted out: they may be texted again. Only if they have asked for it.

    Somebody who texts START is removed without this.
    """
    opened = _open_opt_outs()
    settings, optouts = opened.settings, opened.optouts
    chosen = _selected_channels(settings, channels)
    removed = 0
    for each in numbers:
        sender = parse_reachable_argument(each)
        opened.record_in_audit("remove opt-out", sender, channels=chosen)
        gone = optouts.remove_opt_outs(sender, chosen)
        if gone is None:
            raise click.ClickException(f"{each}: a worker has their lane in its hands; try again")
        removed += gone
    confirm_replicated(opened.deployment)
    _print_counts(as_json, f"{removed} removed", removed=removed)


@optout.command("import")
@click.argument("file", type=click.File("rb"))
@_channels_option
@_json_option
def import_opt_outs(file: BinaryIO, channels: Sequence[str], as_json: bool) -> None:
    """Opt out the people in FILE: a number a line, or CSV of numbers and channels, or what `export` wrote.

    A line without a channel is about those of --channel. Several channels of a line are apart by spaces. Open sessions
    end. Lines that are of no use are told, and the others imported; exit status 1 if there were such.

    \b
    Example:
      parley optout import blocked.csv --channel clinic
    """
    opened = _open_opt_outs()
    settings, optouts = opened.settings, opened.optouts
    name = str(getattr(file, "name", "-"))
    rows = _read_rows(file, name)
    opened.record_in_audit("import opt-outs", lines=len(rows))
    if rows and rows[0].cells[0].startswith("hash "):
        imported = _restore_export(settings, optouts, rows)
    else:
        source = f"import {Path(name).name}"
        imported = _import_numbers(
            optouts, rows, _selected_channels(settings, channels), [*settings.channels], source
        )
    confirm_replicated(opened.deployment)
    for line in imported.bad:
        click.echo(f"{name}: {line}", err=True)
    sentence = f"{imported.new} new, {imported.known} known, {len(imported.bad)} lines of no use"
    _print_counts(as_json, sentence, new=imported.new, known=imported.known, bad=len(imported.bad))
    sys.exit(EXIT_PROBLEMS if imported.bad else EXIT_OK)


@optout.command()
def export() -> None:
    """Print the list as CSV: hash, channel, time, source, shard.

    Numbers are not known, only their hashes. It can be imported where PARLEY_OPTOUT_KEY and PARLEY_SHARDS are the same;
    without PARLEY_OPTOUT_KEY the key is in the Redis key optout-key.

    \b
    Example:
      parley optout export > optouts.csv
    """
    opened = _open_opt_outs()
    settings, optouts = opened.settings, opened.optouts
    opened.record_in_audit("export opt-outs")
    entries = (
        (entry.hash, entry.channel, format_utc_ms(entry.at), entry.source, f"{entry.shard}/{settings.shards}")
        for entry in optouts.entries()
    )
    write_csv_rows(sys.stdout, chain([(f"hash {optouts.key_fingerprint}", *_EXPORT_COLUMNS)], entries))


class _OpenedOptOuts(NamedTuple):
    """The list of opt-outs of a deployment."""

    deployment: Deployment
    optouts: OptOutList

    @property
    def settings(self) -> Settings:
        return self.deployment.settings

    def record_in_audit(self, action: str, sender: str = "", **detail: Any) -> None:
        """Tell of what is going to be done, with one number's opt-outs or with all."""
        whose = hash_sender(self.deployment.open_log_key(), sender) if sender else ""
        record_operator(self.deployment.lanes, action, whose, **detail)


def _open_opt_outs() -> _OpenedOptOuts:
    deployment = connect_lanes(os.environ, begins=True)
    with exit_on_config_error():
        return _OpenedOptOuts(deployment, deployment.open_opt_out_list())


def _print_opt_outs_of(optouts: OptOutList, number: str, as_json: bool) -> int:
    known = optouts.opt_outs_of(number)
    if as_json:
        plain = {
            channel: {"since": format_utc_ms(at), "source": source} for channel, (at, source) in known.items()
        }
        print_json({"number": number, "opted_out": plain})
    elif known:
        for channel, (at, source) in sorted(known.items()):
            click.echo(f"{number} opted out of {channel} at {format_utc_ms(at)}, by {source}")
    else:
        click.echo(f"{number} has not opted out")
    return EXIT_OK if known else EXIT_PROBLEMS


def _selected_channels(settings: Settings, channels: Sequence[str]) -> list[str]:
    for each in channels:
        if each not in settings.channels:
            known = ", ".join(settings.channels)
            raise click.BadParameter(
                f"no channel is called {each}; there are {known}", param_hint="--channel"
            )
    return [*(channels or settings.channels)]


def _read_rows(file: BinaryIO, name: str) -> list[CsvRow]:
    try:
        return list(read_csv_rows(file.read()))
    except CsvFileError as e:
        raise click.ClickException(f"{name}: {e}") from e


def _import_numbers(
    optouts: OptOutList,
    rows: Sequence[CsvRow],
    chosen: Sequence[str],
    known: Sequence[str],
    source: str,
) -> ImportResult:
    people: list[tuple[str, str]] = []
    bad: list[str] = []
    for line, cells in _without_header(rows):
        try:
            number = parse_reachable_number(cells[0])
            named = [_require_known_channel(each, known) for each in " ".join(cells[1:]).split()]
        except (InvalidEntryError, InvalidNumberError) as e:
            bad.append(f"line {line}: {e}")
        else:
            people += ((number, channel) for channel in named or chosen)
    people = list(dict.fromkeys(people))
    new = _sum_by_pages(people, lambda page: optouts.add_opt_outs(page, source))
    return ImportResult(new, len(people) - new, bad)


def _without_header(rows: Sequence[CsvRow]) -> Sequence[CsvRow]:
    has_head = bool(rows) and not any(map(str.isdigit, rows[0].cells[0]))
    return rows[1:] if has_head else rows


def _restore_export(settings: Settings, optouts: OptOutList, rows: Sequence[CsvRow]) -> ImportResult:
    if rows[0].cells[0] != f"hash {optouts.key_fingerprint}":
        raise click.ClickException(
            "this list was exported with another key: set PARLEY_OPTOUT_KEY to that one"
        )
    entries: list[OptOutEntry] = []
    bad: list[str] = []
    for line, cells in rows[1:]:
        try:
            entries.append(_parse_exported_entry(cells, settings.shards, settings.channels))
        except InvalidEntryError as e:
            bad.append(f"line {line}: {e}")
    new = _sum_by_pages(entries, optouts.restore)
    optouts.opt_out_lanes(entries)
    return ImportResult(new, len(entries) - new, bad)


def _parse_exported_entry(cells: Sequence[str], shards: int, channels: Iterable[str]) -> OptOutEntry:
    if len(cells) != 1 + len(_EXPORT_COLUMNS):
        raise InvalidEntryError(
            f"{len(cells)} cells: expected {1 + len(_EXPORT_COLUMNS)}, hash, {', '.join(_EXPORT_COLUMNS)}"
        )
    hash_, channel, time, source, shard = cells
    place, _, of = shard.partition("/")
    if of != str(shards) or not place.isdigit() or int(place) >= shards:
        raise InvalidEntryError(
            f"its shard is {shard!r}: expected one of {shards}; only a list of as many PARLEY_SHARDS fits"
        )
    try:
        at = datetime.fromisoformat(time)
        bytes.fromhex(hash_)
    except ValueError as e:
        raise InvalidEntryError(f"its hash or time is not one that `export` writes: {e}") from e
    return OptOutEntry(
        int(place), hash_, _require_known_channel(channel, channels), round(at.timestamp() * 1000), source
    )


def _require_known_channel(channel: str, known: Iterable[str]) -> str:
    if channel not in known:
        raise InvalidEntryError(f"no channel is called {channel!r}; there are {', '.join(known)}")
    return channel


def _sum_by_pages(items: Sequence[T], store_page: Callable[[Sequence[T]], int]) -> int:
    """Store the items page by page, under a progress bar, and sum up what `store_page` answers."""
    total = 0
    with progress_bar(len(items), "importing", shown_from=2 * IMPORT_PAGE) as advance:
        for at in range(0, len(items), IMPORT_PAGE):
            page = items[at : at + IMPORT_PAGE]
            total += store_page(page)
            advance(len(page))
    return total


def _print_counts(as_json: bool, sentence: str, **counts: int) -> None:
    click.echo(json_line(counts) if as_json else sentence)
