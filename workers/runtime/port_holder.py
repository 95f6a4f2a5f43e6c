"""Who listens on a port of this machine? Linux tells in /proc, of the processes that we may look into; elsewhere nobody does."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

RUN_PID_VARIABLE = "PARLEY_RUN_PID"
"""In the environment of what `parley run` starts: its process."""

_LISTENING = "0A"


class PortHolder(NamedTuple):
    """A process that listens, what was typed to start it, in which folder, and the `parley run` that it is of; 0 if of none."""

    pid: int
    command: str
    folder: str
    run_pid: int


def find_port_holder(port: int) -> PortHolder | None:
    """Whoever listens on the port; None if nobody does, or who cannot be told."""
    inodes = set(_listening_inodes(port))
    for process in _processes() if inodes else ():
        try:
            if any(_link(file) in inodes for file in (process / "fd").iterdir()):
                return _describe(process)
        except OSError:
            continue  # it is another user's, or has just ended
    return None


def is_alive(pid: int) -> bool:
    """Is there such a process?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            _, *lines = Path(table).read_text().splitlines()
        except (OSError, ValueError):
            continue
        for line in lines:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                yield f"socket:[{inode}]"


def _processes() -> Iterator[Path]:
    return (path for path in Path("/proc").iterdir() if path.name.isdigit())


def _link(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:
        return ""


def _describe(process: Path) -> PortHolder:
    words = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    command = " ".join(word.decode(errors="replace") for word in words)
    prefix = f"{RUN_PID_VARIABLE}=".encode()
    said = [each for each in (process / "environ").read_bytes().split(b"\0") if each.startswith(prefix)]
    run_pid = said[0].removeprefix(prefix) if said else b""
    return PortHolder(
        int(process.name),
        command,
        str((process / "cwd").readlink()),
        int(run_pid) if run_pid.isdigit() else 0,
    )
