"""`parley console`: links by which one signs in to the console, and who is signed in."""

import os
from typing import get_args

import click

from config.host import THIS_HOST
from config.settings.console_settings import ConsoleRole
from config.store.audit import operator_name, record_operator
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.terminal import open_console, simple_table
from engine.model.plurals import pluralize
from engine.model.timestamps import format_utc
from workers.commands.connect import connect_lanes
from workers.console.sign_in.console_sessions import LINK_MS, ConsoleSessions, ConsoleUser, sign_in_url
from workers.store.deployment import Deployment

_DIGITS_SHOWN = 12
"""Of a session's name: enough to tell it from others."""


@click.group()
def console() -> None:
    """Sign in to the console in the browser; see who has, and end it."""


@console.command()
@click.option("--name", default="", help="Who signs in, as the audit will name them.  [default: you]")
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(get_args(ConsoleRole)),
    help="What they may do; may be repeated.  [default: operator and privacy]",
)
def link(name: str, roles: tuple[ConsoleRole, ...]) -> None:
    """Print a link by which one browser signs in, once, within ten minutes.

    A viewer looks, with numbers hidden; an operator also acts: replays, drops, pauses; privacy sees numbers, exports, erases.

    \b
    Example:
      parley console link
      parley console link --name ada --role viewer
    """
    deployment = connect_lanes(os.environ)
    _require_console(deployment)
    user = ConsoleUser(name or operator_name(), roles or ("operator", "privacy"))
    record_operator(deployment.lanes, "make console link", user.name, roles=", ".join(user.roles))
    token = ConsoleSessions(deployment.lanes, THIS_HOST).make_link(user)
    click.echo(sign_in_url(deployment.settings.console, token))
    click.echo(f"Good once, for {LINK_MS // 60_000} minutes.", err=True)


@console.command()
def sessions() -> None:
    """Who is signed in, since when, and when they were last seen."""
    deployment = connect_lanes(os.environ)
    table = simple_table("session", "who", "may", "since (UTC)", "seen")
    for digest, session in ConsoleSessions(deployment.lanes, THIS_HOST).list_open():
        table.add_row(
            digest[:_DIGITS_SHOWN],
            session.user.name,
            ", ".join(session.user.roles),
            format_utc(session.opened_at),
            format_utc(session.seen_at),
        )
    if table.row_count:
        open_console().print(table)
    else:
        click.echo("Nobody is signed in.")


@console.command()
@click.argument("session", required=False, default="")
@click.option("--name", default="", help="All sessions of this name.")
@click.option("--all", "everybody", is_flag=True, help="All sessions.")
def revoke(session: str, name: str, everybody: bool) -> None:
    """End a session, at once: SESSION is as `parley console sessions` shows it.

    Exit status 1 if there is none.
    """
    if sum(map(bool, (session, name, everybody))) != 1:
        raise click.UsageError("expected SESSION, --name or --all")
    deployment = connect_lanes(os.environ)
    store = ConsoleSessions(deployment.lanes, THIS_HOST)
    chosen = [
        digest
        for digest, each in store.list_open()
        if everybody or (name and each.user.name == name) or (session and digest.startswith(session))
    ]
    record_operator(deployment.lanes, "end session", name or session or "all")
    ended = sum(map(store.revoke, chosen))
    click.echo(f"{pluralize(ended, 'session')} ended.")
    if not ended:
        raise SystemExit(EXIT_PROBLEMS)


def _require_console(deployment: Deployment) -> None:
    if not deployment.settings.console.port:
        raise click.ClickException("there is no console: PARLEY_CONSOLE_PORT is 0")
