"""Variables of a command in a file, as systemd, Docker and `.env` files have them: of `--env-file`, or else of the working
folder's `.env`, if it has one.

A line is `NAME=value`, or a comment that begins with #; `export` may stand before it, and one pair of quotation marks around
the value. What the environment says already counts more.
"""

import re
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import NamedTuple

from config.settings.config_errors import ConfigError

FOLDER_ENV_FILE = Path(".env")

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


class EnvFileRead(NamedTuple):
    """The names of the variables that a file said, and of those that the environment says otherwise."""

    file: Path
    said: tuple[str, ...]
    overruled: tuple[str, ...]


def read_env_files(named: Sequence[Path], environ: MutableMapping[str, str]) -> list[EnvFileRead]:
    """Read those that are named; if none is, the working folder's `.env`, if there is one."""
    folders_own = [FOLDER_ENV_FILE] if FOLDER_ENV_FILE.is_file() else []
    return [read_env_file(file, environ) for file in named or folders_own]


def read_env_file(file: Path, environ: MutableMapping[str, str]) -> EnvFileRead:
    """Set what the file says and `environ` does not. Raises ConfigError; nothing is set then. A line is never shown: it may
    hold a secret."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise ConfigError([f"{file}: cannot be read ({why})"]) from e
    found: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if parsed := _LINE.fullmatch(line):
            found[parsed[1]] = _unquoted(parsed[2].strip())
        else:
            problems.append(f"{file}: line {number}: expected NAME=value, or # and a comment")
    if problems:
        raise ConfigError(problems)
    overruled = tuple(name for name, value in found.items() if environ.setdefault(name, value) != value)
    return EnvFileRead(file, tuple(found), overruled)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
