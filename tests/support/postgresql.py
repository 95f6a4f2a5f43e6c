"""A real PostgreSQL of a test's own, on a free port of the loopback interface."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import free_port

SETTINGS = {"listen_addresses": "127.0.0.1", "fsync": "off", "max_connections": "40"}


def postgresql_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest that is installed; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: int(each.parts[4]))
    return found[-1].parent if found else None


@contextmanager
def run_postgresql() -> Iterator[str]:
    """Start a server, and yield the URL of an empty database; skip the test if none is installed."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder, port = Path(tempfile.mkdtemp(prefix="parley-postgresql-")), free_port()
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:  # it refuses to run as root
        shutil.chown(folder, user)
    data = str(folder / "data")
    options = " ".join(f"-c {name}={value}" for name, value in (SETTINGS | {"port": str(port)}).items())
    try:
        _run_as(
            user,
            [str(programs / "initdb"), "-D", data, "-U", "parley", "--auth=trust", "-E", "UTF8", "--no-sync"],
        )
        _run_as(
            user,
            [
                str(programs / "pg_ctl"),
                "-D",
                data,
                "-o",
                f"{options} -k {folder}",
                "-l",
                str(folder / "log"),
                "-w",
                "start",
            ],
        )
        try:
            yield f"postgresql://parley@127.0.0.1:{port}/postgres"
        finally:
            _run_as(user, [str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_as(user: str, command: Sequence[str]) -> None:
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, cwd="/", user=user if os.getuid() == 0 else None
    )
