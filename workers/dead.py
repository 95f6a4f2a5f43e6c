"""`parley dead`: what could not be handled, and why."""

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import msgspec
import redis
from rich import box
from rich.console import Console
from rich.table import Table

from config.settings import Settings
from engine.events import Inbound, Outbound, decode_outbound
from workers import letters
from workers.drafts import read_entry
from workers.letters import DeadLetter
from workers.reach import reach

PIPE_WIDTH = 200


@click.group()
def dead() -> None:
    """What could not be handled, and why.

    \b
    Example:
      parley dead list
      parley dead show e5f3c0a1b2c3d4e6
    """


@dead.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_letters(as_json: bool) -> None:
    """All dead letters, oldest first."""
    settings, client = reach(os.environ)
    found = sorted(stored(client, settings), key=lambda letter: letter.at)
    if as_json:
        for letter in found:
            click.echo(json.dumps(_plain(letter, brief=True)))
        return
    if not found:
        click.echo("No dead letters.")
        return
    table = Table(box=box.SIMPLE)
    for column in ("id", "when (UTC)", "channel", "reason"):
        table.add_column(column, no_wrap=True)
    table.add_column("why")
    for letter in found:
        table.add_row(
            letter.id, _when(letter.at), letter.channel, letter.reason, f"{letter.code} {letter.why}".strip()
        )
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


@dead.command()
@click.argument("letter_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(letter_id: str, as_json: bool) -> None:
    """One dead letter with all that is known of it. Exit status 1 if there is none with this id."""
    settings, client = reach(os.environ)
    letter = next((letter for letter in stored(client, settings) if letter.id == letter_id), None)
    if letter is None:
        raise click.ClickException(f"no dead letter {letter_id}; `parley dead list` lists them")
    plain = _plain(letter, brief=False)
    if as_json:
        click.echo(json.dumps(plain))
        return
    for name, value in plain.items():
        if value not in ("", None):
            click.echo(f"{name:10} {value}")


def stored(client: redis.Redis, settings: Settings) -> Iterator[DeadLetter]:
    """Every dead letter of every shard."""
    for k in range(settings.shards):
        yield from letters.stored(client, k)


def _plain(letter: DeadLetter, *, brief: bool) -> dict[str, object]:
    plain: dict[str, object] = {
        "id": letter.id, "when": _when(letter.at), "kind": letter.kind, "channel": letter.channel,
        "session": letter.session, "sender": letter.sender, "reason": letter.reason, "code": letter.code,
        "why": letter.why, "attempts": letter.attempts, "version": letter.version,
    }  # fmt: skip
    if not brief:
        plain["what"] = str(_what(letter))
        plain["traceback"] = letter.traceback
    return plain


def _what(letter: DeadLetter) -> Inbound | Outbound | bytes:
    """The event or SMS in it, or its bytes if they are neither."""
    try:
        return decode_outbound(letter.what) if letter.kind == "sms" else read_entry(letter.what).event
    except (msgspec.MsgspecError, ValueError):
        return letter.what


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
