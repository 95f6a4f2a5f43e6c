"""`--env-file`: variables of a command in a file, as systemd, Docker and `.env` files have them.

A line is `NAME=value`, or a comment that begins with #; `export` may stand before it, and one pair of quotation marks around
the value. What the environment says already counts more.
"""

import re
from collections.abc import MutableMapping
from pathlib import Path

from config.settings.config_errors import ConfigError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read_env_file(file: Path, environ: MutableMapping[str, str]) -> None:
    """Set what the file says and `environ` does not. Raises ConfigError; nothing is set then. A line is never shown: it may
    hold a secret."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise ConfigError([f"--env-file {file}: cannot be read ({why})"]) from e
    found: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        if parsed := _LINE.fullmatch(line):
            found[parsed[1]] = _unquoted(parsed[2].strip())
        else:
            problems.append(f"--env-file {file}: line {number}: expected NAME=value, or # and a comment")
    if problems:
        raise ConfigError(problems)
    for name, value in found.items():
        environ.setdefault(name, value)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
