"""The Redis server that comes with Parley, for whoever has none: a real Valkey, append-only file, fsync always.

Its data live under `var/valkey` and survive a restart. One `parley run` at a time may use a directory.
"""

import ctypes
import fcntl
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import redis

from config.telemetry.library_internals import valkey_server_path
from engine.model.errors import ParleyError

EMBEDDED_START_TIMEOUT_S = 20.0


class EmbeddedServerError(ParleyError):
    """The embedded server did not start; the message says why and what to do."""


@contextmanager
def run_embedded_server(var: Path) -> Iterator[str]:
    """The URL of a Valkey with its data under `var`, running for as long as the context. Raises EmbeddedServerError."""
    data = (var / "valkey").resolve()
    data.mkdir(parents=True, exist_ok=True)
    with _exclusive_lock(data / "lock"):
        port = _free_port()
        url = f"redis://127.0.0.1:{port}/0"
        process = _spawn_valkey(data, port)
        note = _url_file(var)
        try:
            _wait_until_loaded(process, url, data)
            note.write_text(url)
            yield url
        finally:
            note.unlink(missing_ok=True)
            process.terminate()
            process.wait()


def url_of_running(var: Path) -> str | None:
    """Where the embedded server of a `parley run` with this `var` can be reached, if one is running."""
    try:
        return _url_file(var).read_text()
    except FileNotFoundError:
        return None


def _url_file(var: Path) -> Path:
    return var / "valkey" / "url"


@contextmanager
def _exclusive_lock(lock: Path) -> Iterator[None]:
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EmbeddedServerError(
                f"another parley is running on {lock.parent}: stop it, or set PARLEY_VAR to another directory"
            ) from None
        yield


def _spawn_valkey(data: Path, port: int) -> subprocess.Popen[bytes]:
    try:
        binary = valkey_server_path()
    except FileNotFoundError as e:
        raise EmbeddedServerError(
            f"no Valkey for this machine ({e}): run a Redis 7.2 or later and set PARLEY_REDIS_URL"
        ) from e
    options = {
        "bind": "127.0.0.1", "port": port, "dir": data, "logfile": data / "valkey.log", "save": "",
        "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction",
    }  # fmt: skip
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    return subprocess.Popen(  # noqa: S603 (our own arguments)
        [str(binary), *arguments],
        start_new_session=True,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 (no thread has been started yet)
    )


def _die_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_loaded(process: subprocess.Popen[bytes], url: str, data: Path) -> None:
    deadline = monotonic() + EMBEDDED_START_TIMEOUT_S
    with redis.Redis.from_url(url) as client:
        while monotonic() < deadline and process.poll() is None:
            try:
                client.ping()
            except redis.RedisError:
                sleep(0.02)
            else:
                return
    process.kill()
    raise EmbeddedServerError(f"the embedded Valkey did not start; its log is {data / 'valkey.log'}")
