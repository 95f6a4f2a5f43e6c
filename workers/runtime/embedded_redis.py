"""The Redis server that comes with Parley, for whoever has none: a real Valkey, append-only file, fsync always.

Its data live under `var/valkey` and survive a restart. One `parley run` at a time may use a directory. People's numbers and
texts are in it, so nobody else of the machine may read it, nor ask it: its files are its owner's alone, and it listens on no
port but on a socket in a folder that is its owner's alone too. A socket's path ends at 108 bytes, so that it does not lie
beside the data, whose folder may lie deep.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import quote

import redis

from config.telemetry.library_internals import valkey_server_path
from engine.model.errors import ParleyError

EMBEDDED_START_TIMEOUT_S = 20.0

MAX_SOCKET_PATH = 107
"""Bytes: what the kernel takes, without the zero at its end."""

PRIVATE_FOLDER, PRIVATE_FILE, PRIVATE_UMASK = 0o700, 0o600, 0o077


class EmbeddedServerError(ParleyError):
    """The embedded server did not start; the message says why and what to do."""


@contextmanager
def run_embedded_server(var: Path) -> Iterator[str]:
    """The URL of a Valkey with its data under `var`, running for as long as the context. Raises EmbeddedServerError."""
    data = (var / "valkey").resolve()
    data.mkdir(parents=True, exist_ok=True)
    _make_private(data)
    with _exclusive_lock(data / "lock"), _socket_folder() as folder:
        socket = folder / "valkey.sock"
        url = f"unix://{quote(str(socket))}?db=0"
        process = _spawn_valkey(data, socket)
        note = _url_file(var)
        try:
            _wait_until_loaded(process, url, data)
            note.touch(PRIVATE_FILE)
            note.write_text(url)
            yield url
        finally:
            note.unlink(missing_ok=True)
            process.terminate()
            process.wait()


def _make_private(folder: Path) -> None:
    """Take from others what an earlier release, or another umask, let them read."""
    folder.chmod(PRIVATE_FOLDER)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(PRIVATE_FOLDER if path.is_dir() else PRIVATE_FILE)


@contextmanager
def _socket_folder() -> Iterator[Path]:
    """A folder of nobody else's, with a short name, that goes with the context."""
    runtime, temporary = os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()
    tried = [each for each in (runtime, temporary, "/tmp") if each]  # noqa: S108 (made private there)
    for parent in tried:
        if len(os.fsencode(parent)) + len("/parley-12345678/valkey.sock") > MAX_SOCKET_PATH:
            continue
        try:
            folder = tempfile.TemporaryDirectory(prefix="parley-", dir=parent, ignore_cleanup_errors=True)
        except OSError:
            continue
        with folder as name:
            yield Path(name)
        return
    raise EmbeddedServerError(
        f"no folder for its socket can be made in any of {', '.join(tried)}: "
        "set XDG_RUNTIME_DIR to a folder of yours with a short name"
    )


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
    lock.touch(PRIVATE_FILE)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EmbeddedServerError(
                f"another parley is running on {lock.parent}: stop it, or set PARLEY_VAR to another directory"
            ) from None
        yield


def _spawn_valkey(data: Path, socket: Path) -> subprocess.Popen[bytes]:
    try:
        binary = valkey_server_path()
    except FileNotFoundError as e:
        raise EmbeddedServerError(
            f"no Valkey for this machine ({e}): run a Redis 7.2 or later and set PARLEY_REDIS_URL"
        ) from e
    options = {
        "port": 0, "unixsocket": socket, "unixsocketperm": 700,
        "dir": data, "logfile": data / "valkey.log", "save": "",
        "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction",
    }  # fmt: skip
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    return subprocess.Popen(  # noqa: S603 (our own arguments)
        [str(binary), *arguments],
        start_new_session=True,
        preexec_fn=_become_private_child,  # noqa: PLW1509 (no thread has been started yet)
    )


def _become_private_child() -> None:
    """Write files that are ours alone, and die with the parent."""
    os.umask(PRIVATE_UMASK)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


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
