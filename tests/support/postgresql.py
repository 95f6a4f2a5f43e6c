"""A real PostgreSQL, on loopback with a folder of its own. It can be killed and come back with its data, on the same port.

It does not run as root, so where tests do, it runs as `nobody`. Nothing is synced: what tests take away is the process, not
the machine.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from tests.support.closing import Closing
from tests.support.waiting import free_port, until

START_S = 20.0
END_S = 15.0

USER = "parley"
PASSWORD = "a-password-that-nobody-must-see"

_UNPRIVILEGED = "nobody"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "max_connections": "40",
    "shared_buffers": "32MB",
}

_numbers = count(1)


def postgresql_programs() -> Path | None:
    """The folder of the newest server that is installed; None if there is none."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parents[1].name)
    )
    elsewhere = shutil.which("initdb")
    return debian[-1].parent if debian else Path(elsewhere).parent if elsewhere else None


class PostgreSql(Closing):
    """One server, started when made; a context manager, which removes it and its folder."""

    def __init__(self, **settings: str) -> None:
        programs = postgresql_programs()
        assert programs is not None, "PostgreSQL is not installed"
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="parley-postgresql-"))
        self._programs = programs
        self._settings = _SETTINGS | settings
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, _UNPRIVILEGED)
        self._create_cluster()
        self.start()

    def url(self, database: str = "postgres", port: int = 0) -> str:
        """As PARLEY_ARCHIVE_URL has it; `port` is another way there."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def create_database(self) -> str:
        """Make an empty database of a new name, and answer its name."""
        name = f"archive{os.getpid()}n{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove it, whoever is connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str) -> list[Any]:
        """Execute a statement of an administrator, outside any transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start on the same port and the same data, and wait until it answers."""
        options = self._settings | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = self._popen("postgres", "-D", str(self._data), *arguments, output=log.fileno())
        until(self._answers, START_S, f"PostgreSQL on port {self.port} answers")

    def stop(self) -> None:
        """End it at once, as an operator does in a hurry; what is under way is undone."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        if self._process is not None:
            self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _create_cluster(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        made = self._popen(
            "initdb", "-D", str(self._data), "-U", USER, "-E", "UTF8", "--locale=C", "--no-sync",
            "--auth=scram-sha-256", f"--pwfile={password}", output=subprocess.DEVNULL,
        )  # fmt: skip
        assert made.wait() == 0, "initdb failed"

    def _popen(self, program: str, *arguments: str, output: int) -> subprocess.Popen[bytes]:
        as_somebody_else: dict[str, Any] = (
            {"user": _UNPRIVILEGED, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        )
        return subprocess.Popen(
            [str(self._programs / program), *arguments],
            cwd=self.folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **as_somebody_else,
        )

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            return bool(self.execute("SELECT 1"))
        return False

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, "PostgreSQL is not running"
        self._process.send_signal(number)
        self._process.wait(END_S)
        self._process = None
