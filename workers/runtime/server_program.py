"""Which program is the server that `parley run` starts? The Valkey that the extra `local` brings; where that is not installed, or
has none for this machine, one on the PATH."""

import re
import shutil
import subprocess
from pathlib import Path

from config.telemetry.library_internals import valkey_server_path
from config.telemetry.server_stats import NEEDED_RELEASE
from engine.model.errors import ParleyError

SERVER_PROGRAMS = {"valkey-server": (8, 0), "redis-server": NEEDED_RELEASE}
"""By what name they are looked for, and the release that is needed. Some systems call a Valkey `redis-server`."""

_VERSION_TIMEOUT_S = 10


class ServerProgramError(ParleyError):
    """There is no server to start. The message says why, and what to do."""


def find_server_program() -> Path:
    """Raises ServerProgramError."""
    try:
        return valkey_server_path()
    except FileNotFoundError as e:
        refused = [str(e)]
    for name, needed in SERVER_PROGRAMS.items():
        if path := shutil.which(name):
            release = _release_of(path)
            if release >= needed:
                return Path(path)
            refused.append(
                f"{path} is of release {_written(release)}" if release else f"{path} tells no release"
            )
    programs = " or ".join(f"{name} {_written(needed)}" for name, needed in SERVER_PROGRAMS.items())
    raise ServerProgramError(
        f"there is no server for the lanes ({'; '.join(refused)}): pip install 'parley[local]', or install "
        f"{programs} or later, or set PARLEY_REDIS_URL to a server that runs"
    )


def _release_of(program: str) -> tuple[int, ...]:
    """Such as (8, 1); () if it does not say."""
    try:
        done = subprocess.run(  # noqa: S603 (found on the PATH, as its user has set it)
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else ()


def _written(release: tuple[int, ...]) -> str:
    return ".".join(map(str, release))
