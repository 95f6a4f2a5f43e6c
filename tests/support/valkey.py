"""A real Valkey, set up as production is: append-only file, fsync always, no eviction. It can be killed and come
back with the data that it had on disk, on the same port."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import redis

from config.telemetry.library_internals import valkey_server_path
from tests.support.closing import Closing
from tests.support.machines import Machine
from tests.support.stepped_clock import SteppedClock
from tests.support.waiting import HANG_S, free_port, until

START_S = 20.0

SETTINGS = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    "repl-diskless-sync-delay": "0",  # a replica waits for no other
}


class Valkey(Closing):
    """One server with a port and a directory of its own, a `clock` if a test is to step it, and a `machine` if it is not to be
    on this one. Started when made; a context manager, which removes both."""

    def __init__(
        self, clock: SteppedClock | None = None, machine: Machine | None = None, **settings: str
    ) -> None:
        self.port = free_port()
        self.host = machine.address if machine else "127.0.0.1"
        self._program = [str(valkey_server_path())]
        if machine:
            self._program = machine.command(*self._program)
            settings |= {"bind": f"{self.host} 127.0.0.1", "protected_mode": "no"}
        self._environment = {**os.environ, **(clock.environment if clock else {})}
        self.folder = Path(tempfile.mkdtemp(prefix="parley-valkey-"))
        self._settings = SETTINGS | {name.replace("_", "-"): value for name, value in settings.items()}
        self._clients: list[redis.Redis] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def url(self) -> str:
        """Where the lanes go."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def broker_url(self) -> str:
        """Where the wake-ups go."""
        return f"redis://{self.host}:{self.port}/1"

    @property
    def primaries(self) -> Sequence["Valkey"]:
        """Those that take writes: itself, where it is no part of more."""
        return [self]

    def client(self, url: str = "") -> redis.Redis:
        """A plain client, closed by `close_clients` or with the server."""
        client = redis.Redis.from_url(url or self.url, protocol=2)
        self._clients.append(client)
        return client

    def start(self) -> None:
        """Start on the same port and the same data, and wait until it answers."""
        options = self._settings | {
            "port": str(self.port),
            "dir": str(self.folder),
            "logfile": str(self.folder / "valkey.log"),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [*self._program, *arguments], env=self._environment, start_new_session=True
        )
        until(self._answers, START_S, f"Valkey on port {self.port} answers")

    @property
    def is_running(self) -> bool:
        """Also while it is frozen."""
        return self._process is not None

    def kill9(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does; its data stay."""
        self._end(signal.SIGTERM)

    def sigstop(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def sigcont(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def promote(self) -> None:
        """Let it be a replica no more."""
        self._settings.pop("replicaof", None)
        self.client().replicaof("NO", "ONE")

    def follow(self, port: int) -> None:
        """Let it be a replica from its next start on."""
        self._settings["replicaof"] = f"127.0.0.1 {port}"

    def empty(self) -> None:
        """Take away all keys."""
        with self.client() as client:
            client.flushall()

    def close_clients(self) -> None:
        """Close every connection that `client` opened."""
        while self._clients:
            self._clients.pop().close()

    def close(self) -> None:
        """End it for good, data and all."""
        self.close_clients()
        if self._process is not None:
            self.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server is not running"
        return self._process

    def _end(self, number: signal.Signals) -> None:
        process = self._running()
        process.send_signal(number)
        process.wait(HANG_S)
        self._process = None

    def _answers(self) -> bool:
        if self._running().poll() is not None:
            raise RuntimeError(f"Valkey ended at its start: {(self.folder / 'valkey.log').read_text()}")
        with redis.Redis.from_url(self.url, protocol=2) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False
