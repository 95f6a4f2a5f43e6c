"""`parley init`: a folder in which `parley run` works, made of the samples that Parley brings along.

The files lie where the settings look for them by default, and secrets in `.env`, which every command reads there.
"""

import os
import re
import secrets
import shlex
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import click

from config.settings.env_file import FOLDER_ENV_FILE
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.surveys.documents import SURVEY_SUFFIXES

_SAMPLES = Path(__file__).parents[1]

_SECRET_BYTES = 32

_GIVEN_BY_OTHERS = ("client_secret",)
"""Secrets that are nobody's here to make."""

_SECRETS_HEAD = """\
# Variables of every `parley` that is typed in this folder; what the environment says counts more. These are the secrets
# that config/parley.toml names, made for you: keep them to yourself.
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
def init(folder: Path) -> None:
    """Make FOLDER one in which Parley runs: configuration, surveys, secrets.

    It gets config/parley.toml, config/contacts.csv, config/surveys/ and .env. What is there already is never written over: if one
    of these files is there, it is named, nothing is made, and the exit status is 1.

    \b
    Example:
      parley init
      parley init clinic
    """
    files = {folder / name: content for name, content in _new_files()}
    there = [file for file in files if os.path.lexists(file)]
    for file in there:
        click.echo(f"{file} is there already: nothing was made", err=True)
    if there:
        sys.exit(EXIT_PROBLEMS)
    try:
        for file, content in files.items():
            _write_new(file, content)
    except OSError as e:
        raise click.ClickException(f"{e.filename} cannot be made ({e.strerror})") from e
    for file in files:
        click.echo(f"made {file}")
    there_first = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    click.echo(
        f"\nNext:\n"
        f"  {there_first}parley run     all of it, until Ctrl-C\n"
        f"  parley phone     in another terminal: a phone; text START\n"
        f"  parley check     after each change of config/parley.toml, {FOLDER_ENV_FILE} or a survey"
    )


def _new_files() -> Iterator[tuple[Path, str]]:
    """What a folder gets, and where in it."""
    config = Path("config")
    sample = _SAMPLES / "parley.toml"
    surveys = sorted(file for file in (_SAMPLES / "surveys").iterdir() if file.suffix in SURVEY_SUFFIXES)
    for file in (sample, _SAMPLES / "contacts.csv", *surveys):
        yield config / file.relative_to(_SAMPLES), file.read_text(encoding="utf-8")
    yield FOLDER_ENV_FILE, _SECRETS_HEAD + "".join(_secret_lines(sample.read_text(encoding="utf-8")))


def _secret_lines(parley_toml: str) -> Iterator[str]:
    """A secret for each variable that the file names, also where that is a comment yet. A token is part of a URL; other
    secrets are as hooks want them, whom their endpoints may be told."""
    for field, variable in dict.fromkeys(re.findall(r'(\w+)_env = "(\w+)"', parley_toml)):
        if field in _GIVEN_BY_OTHERS:
            continue
        made = secrets.token_bytes(_SECRET_BYTES)
        yield f"{variable}={made.hex() if field == 'token' else f'whsec_{b64encode(made).decode()}'}\n"


def _write_new(file: Path, content: str) -> None:
    """Write a file that is not there, which only its owner may read if it holds secrets."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o600 if file.name == FOLDER_ENV_FILE.name else 0o666
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as new:
        new.write(content)
