"""The Redis server that `parley run` starts, for whoever has none: a real Valkey or Redis, append-only file, fsync always.

Its data live under `var/valkey` and survive a restart. One `parley run` at a time may use a directory. People's numbers and
texts are in it, so nobody else of the machine may read it, nor ask it: its files are its owner's alone, and it listens on no
port but on a socket in a folder that is its owner's alone too. A socket's path ends at 108 bytes, so that it does not lie
beside the data, whose folder may lie deep.

It ends after all who may use it: with the last process that holds its lifeline, however that one ended.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import IO
from urllib.parse import quote, unquote, urlsplit

import redis

from config.settings.config_errors import ConfigError, unwritable_problem
from engine.model.errors import ParleyError
from workers.runtime.lifeline import GRACE_S, WATCHER_SCRIPT, Lifeline
from workers.runtime.port_holder import is_alive
from workers.runtime.server_program import ServerProgramError, find_server_program

EMBEDDED_START_TIMEOUT_S = 20.0

EARLIER_END_TIMEOUT_S = 2.0 * (GRACE_S + 2)
"""How long what an earlier `parley run` has left may take to end: its processes first, then its server."""

MAX_SOCKET_PATH = 107
"""Bytes: what the kernel takes, without the zero at its end."""

PRIVATE_FOLDER, PRIVATE_FILE, PRIVATE_UMASK = 0o700, 0o600, 0o077


_SOCKET_FOLDER_PREFIX = "parley-"


class EmbeddedServerError(ParleyError):
    """The embedded server did not start; the message says why and what to do."""


@contextmanager
def run_embedded_server(var: Path, lifeline: Lifeline | None = None) -> Iterator[str]:
    """The URL of a Valkey with its data under `var`, running for as long as the context, and if this process is killed, for
    as long as anybody holds the `lifeline`. Raises EmbeddedServerError."""
    data = (var / "valkey").resolve()
    try:
        data.mkdir(parents=True, exist_ok=True)
        _make_private(data)
        (data / "lock").touch(PRIVATE_FILE)
    except OSError as e:
        raise EmbeddedServerError(unwritable_problem(data, e, "PARLEY_VAR")) from e
    with (
        nullcontext(lifeline) if lifeline else Lifeline() as bond,
        _exclusive_lock(data / "lock") as lock,
        _socket_folder() as folder,
    ):
        _remove_leftover(var)
        socket = folder / "valkey.sock"
        url = f"unix://{quote(str(socket))}?db=0"
        process = _spawn_valkey(data, socket, bond, lock)
        note = _url_file(var)
        try:
            _wait_until_loaded(process, url, data)
            note.touch(PRIVATE_FILE)
            note.write_text(url)
            yield url
        finally:
            note.unlink(missing_ok=True)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
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
            folder = tempfile.TemporaryDirectory(
                prefix=_SOCKET_FOLDER_PREFIX, dir=parent, ignore_cleanup_errors=True
            )
        except OSError:
            continue
        with folder as name:
            yield Path(name)
        return
    raise EmbeddedServerError(
        f"no folder for its socket can be made in any of {', '.join(tried)}: "
        "set XDG_RUNTIME_DIR to a folder of yours with a short name"
    )


def _remove_leftover(var: Path) -> None:
    """Remove the socket's folder of one who was killed, and whose lock this process has now."""
    left = url_of_running(var)
    folder = Path(unquote(urlsplit(left).path)).parent if left else None
    if folder and folder.name.startswith(_SOCKET_FOLDER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def url_of_running(var: Path) -> str | None:
    """Where the embedded server of a `parley run` with this `var` can be reached, if one is running. Raises ConfigError if
    another user has started it."""
    try:
        return _url_file(var).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        whose = (
            "what `parley run` starts is its user's alone: type this as that user, or set PARLEY_REDIS_URL"
        )
        raise ConfigError([f"{_url_file(var)} cannot be read ({e.strerror}): {whose}"]) from e


def _url_file(var: Path) -> Path:
    return var / "valkey" / "url"


@contextmanager
def _exclusive_lock(lock: Path) -> Iterator[IO[str]]:
    """Hold the lock, in which this process's id stands. The server has it too, so that no second one begins on its data
    before it has ended."""
    with lock.open("r+") as held:
        _wait_for_lock(held, lock)
        held.truncate(0)
        held.write(f"{os.getpid()}")
        held.flush()
        yield held


def _wait_for_lock(held: IO[str], lock: Path) -> None:
    """Take the lock, and wait for what is left of one who is dead. Raises EmbeddedServerError."""
    deadline = monotonic() + EARLIER_END_TIMEOUT_S
    has_said = False
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = _process_in(lock)
            if pid is None or is_alive(pid):
                by = f" (process {pid})" if pid else ""
                raise EmbeddedServerError(
                    f"another parley is running on {lock.parent}{by}: stop it, or set PARLEY_VAR to another "
                    "directory"
                ) from None
            if monotonic() > deadline:
                raise EmbeddedServerError(
                    f"an earlier Parley (process {pid}, which is gone) has left processes on {lock.parent} "
                    f"that do not end: `fuser {lock}` names them"
                ) from None
            if not has_said:
                sys.stderr.write(f"{waiting_sentence(pid)}\n")
            has_said = True
            sleep(0.1)
        else:
            return


def waiting_sentence(pid: int) -> str:
    """Say what a start waits for: what the `parley run` left that was this process."""
    return f"waiting for what an earlier Parley (process {pid}, which is gone) has left to end"


def _process_in(lock: Path) -> int | None:
    """Who took the lock; None if that does not stand there (yet)."""
    written = lock.read_text()
    return int(written) if written.isdigit() else None


def _spawn_valkey(data: Path, socket: Path, lifeline: Lifeline, lock: IO[str]) -> subprocess.Popen[bytes]:
    try:
        program = find_server_program()
    except ServerProgramError as e:
        raise EmbeddedServerError(str(e)) from e
    options = {
        "port": 0, "unixsocket": socket, "unixsocketperm": 700,
        "dir": data, "logfile": data / "valkey.log", "save": "",
        "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction",
    }  # fmt: skip
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    return subprocess.Popen(  # noqa: S603 (our own arguments)
        ["/bin/sh", "-c", f'{WATCHER_SCRIPT}exec "$@"', "sh", str(program), *arguments],
        stdin=lifeline.watched,
        pass_fds=[lock.fileno()],
        umask=PRIVATE_UMASK,
        start_new_session=True,
    )


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
    raise EmbeddedServerError(f"the embedded server did not start; its log is {data / 'valkey.log'}")
