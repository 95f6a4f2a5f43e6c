"""`parley key`: a key to the API, and what parley.toml has to know of it, which is not the key."""

import os
import re
import secrets
from hashlib import sha256

import click

from config.settings.channels import SIMULATOR
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
def key(name: str, channels: tuple[str, ...], requests_per_minute: int) -> None:
    """Make a key to the API. It is shown once: Parley keeps only its hash.

    The key goes to standard output, the table for parley.toml to standard error.

    \b
    Example:
      parley key hospital --channel clinic
    """
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", name) or name == SIMULATOR:
        raise click.UsageError(
            f"{name}: expected a name of 1 to 32 of a-z, 0-9, - and _, other than {SIMULATOR}"
        )
    with exit_on_config_error():
        settings = load_settings(os.environ)
    for channel in channels:
        if channel not in settings.channels:
            raise click.UsageError(f"--channel {channel}: expected one of {', '.join(settings.channels)}")
    if any(each.name == name for each in settings.keys):
        raise click.UsageError(f"{name}: parley.toml has a key of this name: expected another")
    made = f"parley_{secrets.token_urlsafe(KEY_BYTES)}"
    click.echo(made)
    click.echo(
        f"\nPut this into parley.toml and restart `web`; the key itself is not kept anywhere:\n\n"
        f"{key_table(name, made, channels or tuple(settings.channels), requests_per_minute)}",
        err=True,
    )


def key_table(name: str, made: str, channels: tuple[str, ...], requests_per_minute: int) -> str:
    """`[keys.<name>]` for parley.toml."""
    listed = ", ".join(f'"{channel}"' for channel in channels)
    return (
        f"[keys.{name}]\n"
        f'sha256 = "{sha256(made.encode()).hexdigest()}"\n'
        f"channels = [{listed}]\n"
        f"requests_per_minute = {requests_per_minute}\n"
    )
