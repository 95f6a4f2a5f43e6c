"""`parley optout`: who has opted out, and lists of them from elsewhere.

What is known of a person who opted out is a keyed hash, so no command can list numbers. An export is of use where the
same key is: as a copy, or for another deployment with as many shards.
"""

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar

import click
import phonenumbers
from phonenumbers import NumberParseException
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from config.settings.settings import Settings, exit_on_config_error
from engine.model.errors import ParleyError
from engine.model.sender_numbers import normalize_number
from workers.commands.connect import connect_lanes
from workers.store.optouts import OptOutEntry, OptOutList

IMPORT_PAGE = 500
_PIPE_WIDTH = 100  # of tables that no terminal shows
_EXPORT_COLUMNS = ["channel", "time", "source", "shard"]
"""The columns of an export beside the first, whose head tells the key: `hash <mark>`."""

T = TypeVar("T")


class InvalidEntryError(ParleyError):
    """A line of a list is of no use. The message says why."""


class ImportResult(NamedTuple):
    """What came of an import: new entries, those that the list had, and what is wrong with the other lines."""

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
    _, optouts = _open_opt_outs()
    if number:
        sys.exit(_print_opt_outs_of(optouts, _parse_number_argument(number), as_json))
    counts = Counter((entry.channel, entry.source) for entry in optouts.entries())
    if as_json:
        click.echo(
            json.dumps([{"channel": c, "source": s, "people": n} for (c, s), n in sorted(counts.items())])
        )
        return
    if not counts:
        click.echo("Nobody has opted out.")
        return
    table = Table("channel", "source", "people", box=box.SIMPLE)
    for (channel, source), people in sorted(counts.items()):
        table.add_row(channel, source, str(people))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


@optout.command()
@click.argument("numbers", nargs=-1, required=True)
@_channels_option
@_json_option
def add(numbers: Sequence[str], channels: Sequence[str], as_json: bool) -> None:
    """Opt NUMBERS out, as if they had said stop. Their open sessions end."""
    settings, optouts = _open_opt_outs()
    people = [
        (_parse_number_argument(each), channel)
        for each in numbers
        for channel in _selected_channels(settings, channels)
    ]
    new = optouts.add_opt_outs(people, "operator")
    _print_counts(as_json, f"{new} new, {len(people) - new} known", new=new, known=len(people) - new)


@optout.command()
@click.argument("numbers", nargs=-1, required=True)
@_channels_option
@_json_option
def remove(numbers: Sequence[str], channels: Sequence[str], as_json: bool) -> None:
    """Forget that NUMBERS opted out: they may be texted again. Only if they have asked for it.

    Somebody who texts START is removed without this.
    """
    settings, optouts = _open_opt_outs()
    removed = 0
    for each in numbers:
        gone = optouts.remove_opt_outs(
            _parse_number_argument(each), _selected_channels(settings, channels), settings.keep_events_ms
        )
        if gone is None:
            raise click.ClickException(f"{each}: a worker has their lane in its hands; try again")
        removed += gone
    _print_counts(as_json, f"{removed} removed", removed=removed)


@optout.command("import")
@click.argument("file", type=click.File(encoding="utf-8-sig"))
@_channels_option
@_json_option
def import_opt_outs(file: TextIO, channels: Sequence[str], as_json: bool) -> None:
    """Opt out the people in FILE: a number a line, or CSV of numbers and channels, or what `export` wrote.

    A line without a channel is about those of --channel. Several channels of a line are apart by spaces. Open sessions
    end. Lines that are of no use are told, and the others imported; exit status 1 if there were such.

    \b
    Example:
      parley optout import blocked.csv --channel clinic
    """
    settings, optouts = _open_opt_outs()
    name = str(getattr(file, "name", "-"))
    rows = _read_rows(file, name)
    if rows and rows[0][1][0].startswith("hash "):
        imported = _restore_export(settings, optouts, rows)
    else:
        source = f"import {Path(name).name}"
        imported = _import_numbers(
            optouts, rows, _selected_channels(settings, channels), [*settings.channels], source
        )
    for line in imported.bad:
        click.echo(f"{name}: {line}", err=True)
    sentence = f"{imported.new} new, {imported.known} known, {len(imported.bad)} lines of no use"
    _print_counts(as_json, sentence, new=imported.new, known=imported.known, bad=len(imported.bad))
    sys.exit(1 if imported.bad else 0)


@optout.command()
def export() -> None:
    """Print the list as CSV: hash, channel, time, source, shard.

    Numbers are not known, only their hashes. It can be imported where PARLEY_OPTOUT_KEY and PARLEY_SHARDS are the same;
    without PARLEY_OPTOUT_KEY the key is in the Redis key optout-key.

    \b
    Example:
      parley optout export > optouts.csv
    """
    settings, optouts = _open_opt_outs()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([f"hash {optouts.key_fingerprint}", *_EXPORT_COLUMNS])
    for entry in optouts.entries():
        writer.writerow(
            [
                entry.hash,
                entry.channel,
                _format_utc_ms(entry.at),
                entry.source,
                f"{entry.shard}/{settings.shards}",
            ]
        )


def _open_opt_outs() -> tuple[Settings, OptOutList]:
    deployment = connect_lanes(os.environ)
    with exit_on_config_error():
        return deployment.settings, deployment.open_opt_out_list()


def _print_opt_outs_of(optouts: OptOutList, number: str, as_json: bool) -> int:
    known = optouts.opt_outs_of(number)
    if as_json:
        plain = {
            channel: {"since": _format_utc_ms(at), "source": source}
            for channel, (at, source) in known.items()
        }
        click.echo(json.dumps({"number": number, "opted_out": plain}))
    elif known:
        for channel, (at, source) in sorted(known.items()):
            click.echo(f"{number} opted out of {channel} at {_format_utc_ms(at)}, by {source}")
    else:
        click.echo(f"{number} has not opted out")
    return 0 if known else 1


def _selected_channels(settings: Settings, channels: Sequence[str]) -> list[str]:
    for each in channels:
        if each not in settings.channels:
            known = ", ".join(settings.channels)
            raise click.BadParameter(
                f"no channel is called {each}; there are {known}", param_hint="--channel"
            )
    return [*(channels or settings.channels)]


def _parse_number_argument(written: str) -> str:
    try:
        return parse_phone_number(written)
    except InvalidEntryError as e:
        raise click.BadParameter(str(e), param_hint="NUMBER") from e


def parse_phone_number(written: str) -> str:
    """A number as lanes are called. Raises Bad, also for what could not be anybody's: a list would not be heeded."""
    if not written.strip().startswith(("+", "00")):
        raise InvalidEntryError(
            f"{written!r} is no number with its country: expected one such as +33612345678"
        )
    number = normalize_number(written.strip())
    if number is None:
        raise InvalidEntryError(
            f"{written!r} is no phone number: expected 3 to 15 digits, such as +33612345678"
        )
    try:
        possible = phonenumbers.is_possible_number(phonenumbers.parse(number))
    except NumberParseException as e:
        raise InvalidEntryError(f"{written!r} is no phone number: {e}") from e
    if not possible:
        raise InvalidEntryError(f"{written!r} is no phone number: it has too few or too many digits")
    return number


def _read_rows(file: TextIO, name: str) -> list[tuple[int, list[str]]]:
    """(line, cells) of every line that is not empty."""
    try:
        text = file.read()
    except UnicodeDecodeError as e:
        raise click.ClickException(f"{name}: not UTF-8, at byte {e.start}") from e
    lines = text.splitlines()
    delimiter = ";" if lines and ";" in lines[0] else ","
    reader = csv.reader(lines, delimiter=delimiter)
    return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]


def _import_numbers(
    optouts: OptOutList,
    rows: Sequence[tuple[int, list[str]]],
    chosen: Sequence[str],
    known: Sequence[str],
    source: str,
) -> ImportResult:
    people: list[tuple[str, str]] = []
    bad: list[str] = []
    for line, cells in _without_header(rows):
        try:
            number = parse_phone_number(cells[0])
            named = [_require_known_channel(each, known) for each in " ".join(cells[1:]).split()]
        except InvalidEntryError as e:
            bad.append(f"line {line}: {e}")
        else:
            people += ((number, channel) for channel in named or chosen)
    people = list(dict.fromkeys(people))
    new = sum(optouts.add_opt_outs(page, source) for page in _with_progress_bar(list(_split_pages(people))))
    return ImportResult(new, len(people) - new, bad)


def _without_header(rows: Sequence[tuple[int, list[str]]]) -> Sequence[tuple[int, list[str]]]:
    has_head = bool(rows) and not any(map(str.isdigit, rows[0][1][0]))
    return rows[1:] if has_head else rows


def _restore_export(
    settings: Settings, optouts: OptOutList, rows: Sequence[tuple[int, list[str]]]
) -> ImportResult:
    if rows[0][1][0] != f"hash {optouts.key_fingerprint}":
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
    new = sum(optouts.restore(page) for page in _with_progress_bar(list(_split_pages(entries))))
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


def _split_pages(items: Sequence[T]) -> Iterator[list[T]]:
    waiting = iter(items)
    while page := list(islice(waiting, IMPORT_PAGE)):
        yield page


def _with_progress_bar(pages: list[T]) -> Iterable[T]:
    """With a progress bar, on a terminal."""
    return track(pages, "importing", console=Console(stderr=True)) if sys.stderr.isatty() else pages


def _print_counts(as_json: bool, sentence: str, **counts: int) -> None:
    click.echo(json.dumps(counts) if as_json else sentence)


def _format_utc_ms(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
