"""`parley key`: a key to the API, and what parley.toml has to know of it, which is not the key."""

import os
import re
import secrets
from collections.abc import Sequence
from hashlib import sha256

import click

from config.settings.channels import SIMULATOR, ApiKeyTable
from config.settings.settings import exit_on_config_error, load_settings

KEY_BYTES = 32


@click.command()
@click.argument("name")
@click.option(
    "--channel", "channels", multiple=True, help="A channel that it is for; may be repeated.  [default: all]"
)
@click.option(
    "--requests-per-minute",
    type=click.IntRange(min=0),
    default=600,
    show_default=True,
    help="How often it may be used; 0: any.",
)
@click.option(
    "--survey", "surveys", multiple=True, help="A survey that it is for; may be repeated.  [default: all]"
)
@click.option("--read-only", is_flag=True, help="It may neither invite nor cancel.")
@click.option("--no-numbers", is_flag=True, help="It is shown pseudonyms instead of phone numbers.")
def key(
    name: str,
    channels: tuple[str, ...],
    requests_per_minute: int,
    surveys: tuple[str, ...],
    read_only: bool,
    no_numbers: bool,
) -> None:
    """Make a key to the API. It is shown once: Parley keeps only its hash.

    The key goes to standard output, the table for parley.toml to standard error. A survey that no channel offers any more
    can be written into that table by hand.

    \b
    Example:
      parley key hospital --channel clinic
      parley key statistics --survey clinic --read-only --no-numbers
    """
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", name) or name == SIMULATOR:
        raise click.UsageError(
            f"{name}: expected a name of 1 to 32 of a-z, 0-9, - and _, other than {SIMULATOR}"
        )
    with exit_on_config_error():
        settings = load_settings(os.environ, needs_secrets=False)
    for channel in channels:
        if channel not in settings.channels:
            raise click.UsageError(f"--channel {channel}: expected one of {', '.join(settings.channels)}")
    for survey in surveys:
        if survey not in settings.offered_surveys:
            expected = ", ".join(sorted(settings.offered_surveys))
            raise click.UsageError(f"--survey {survey}: expected one of {expected}")
    if any(each.name == name for each in settings.keys):
        raise click.UsageError(f"{name}: parley.toml has a key of this name: expected another")
    made = f"parley_{secrets.token_urlsafe(KEY_BYTES)}"
    table = ApiKeyTable(
        sha256=sha256(made.encode()).hexdigest(),
        channels=[*(channels or settings.channels)],
        requests_per_minute=requests_per_minute,
        surveys=[*surveys],
        read_only=read_only,
        numbers=not no_numbers,
    )
    click.echo(made)
    click.echo(
        f"\nPut this into parley.toml and restart `web`; the key itself is not kept anywhere:\n\n"
        f"{key_table(name, table)}",
        err=True,
    )


def key_table(name: str, key: ApiKeyTable) -> str:
    """`[keys.<name>]` for parley.toml. What a key has unless it is said otherwise, is not."""
    lines = [
        f"[keys.{name}]",
        f'sha256 = "{key.sha256}"',
        f"channels = {_toml_list(key.channels)}",
        f"requests_per_minute = {key.requests_per_minute}",
    ]
    if key.surveys:
        lines.append(f"surveys = {_toml_list(key.surveys)}")
    if key.read_only:
        lines.append("read_only = true")
    if not key.numbers:
        lines.append("numbers = false")
    return "\n".join([*lines, ""])


def _toml_list(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
