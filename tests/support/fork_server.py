"""Starts Python processes by forking one that has imported what they need: a start takes a sixth of the processor time.

What is forked runs `python -m <module> <arguments>` in every other respect as the shell would start it: a session, an
environment, a folder, a log and a `__main__` of its own. Only modules that read nothing of their environment when they
are imported are there beforehand (PRELOADED); those that do (READERS) a forked process imports itself. The shipped surveys
are parsed beforehand.

The server is a process with one thread, which forks and reaps when it is told to. It ends with its client, whose
processes it kills. So a forked process that is dead stays a zombie until somebody here asks for its status, as a
child would: its id is not another's by then.
"""

import ctypes
import gc
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock

from config.settings.survey_folder import read_survey_files
from engine.proofs.survey_loader import load_surveys
from tests.support.machines import NAMESPACES
from tests.support.parsed_once import parse_yaml_once

ROOT = Path(__file__).parents[2]

PRELOADED = (
    "aiohttp", "alembic.command", "dramatiq", "falcon.asgi", "hiredis", "httptools", "prometheus_client", "redis.asyncio", "requests", "structlog",
    "sqlalchemy.dialects.sqlite", "uvicorn.lifespan.on", "uvicorn.protocols.http.httptools_impl", "uvloop",
    "engine.codebook.codebook", "engine.hooks.webhook_description", "engine.proofs.survey_loader", "engine.providers.octopush",
    "engine.turns.advance", "phonenumbers.data.region_FR",
    "config.archive.archive_schema", "config.archive.event_contexts", "config.archive.funnel", "config.archive.session_pages",
    "config.settings.startup_check", "config.store.audit", "config.store.function_calls", "config.telemetry.hook_stats",
    "config.telemetry.logs", "config.telemetry.periodic_task",
    "workers.archiving.survey_mover", "workers.hooks.archive_questions", "workers.store.event_stream",
    "workers.turns.session_lookup",
)  # fmt: skip

READERS = ("config.telemetry.faults", "config.telemetry.metrics")
"""They read PARLEY_FAULT and PROMETHEUS_MULTIPROC_DIR when they are imported."""

FORK_EVENT = "tests.fork"
"""For audit hooks, as `subprocess.Popen` is."""

MOST_DESCRIPTORS = 256
MOST_BYTES = 100_000
"""Of a request: an environment, mostly."""


class ForkedProcess:
    """A process that the server has forked. Its methods are those of subprocess.Popen."""

    def __init__(self, server: "ForkServer", pid: int) -> None:
        self.pid = pid
        self._server = server
        self._end = os.pidfd_open(pid)
        self._status: int | None = None
        self._lock = Lock()

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._ended_within(0)

    def wait(self, timeout: float) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        status = self._ended_within(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return status

    def _ended_within(self, seconds: float) -> int | None:
        with self._lock:
            if self._status is None and _is_readable(self._end, seconds):
                self._status = self._server.reap(self.pid)
                os.close(self._end)
            return self._status


class ForkServer:
    """One server, started when made. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env={
                    **{
                        name: value
                        for name, value in os.environ.items()
                        if not name.startswith(("PARLEY_", "PROMETHEUS_"))
                    },
                    "PYTHONPATH": str(ROOT),
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def fork(
        self,
        command: str,
        environment: Mapping[str, str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        namespace: str = "",
    ) -> ForkedProcess:
        """Run `command`, a `python -m …`, with these open files for its own, in the network of this namespace if it is not this
        one's (machines.py)."""
        python, m, *arguments = shlex.split(command)
        assert (python, m) == ("python", "-m"), f"cannot be forked: {command}"
        sys.audit(FORK_EVENT, command)
        request = {"arguments": arguments, "environment": dict(environment), "namespace": namespace}
        return ForkedProcess(self, self._ask(request, [stdin, stdout, stderr]))

    def reap(self, pid: int) -> int:
        """The exit status of a forked process that is dead, to be asked for once."""
        return self._ask({"reap": pid}, [])

    def close(self) -> None:
        """End it, and kill all that it has forked."""
        self._socket.close()
        self._popen.wait()

    def _ask(self, request: object, files: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            answer = self._socket.recv(64)
        assert answer, "the fork server is gone"
        return int(answer)


_starting = Lock()


def fork_server() -> ForkServer:
    """The server of this process; it ends with it. Threads that ask at once get the same."""
    with _starting:
        return _started_server()


@cache
def _started_server() -> ForkServer:
    return ForkServer()


def _is_readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1_000))


def serve(client: socket.socket) -> Callable[[], object] | None:
    """Answer requests until the client is gone, and kill what it left behind; or, in a process that was just forked,
    what it is to run."""
    forked: set[int] = set()
    while True:
        request, files, _, _ = socket.recv_fds(client, MOST_BYTES, 3)
        if not request:
            for pid in forked:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            return None
        told = json.loads(request)
        if "reap" in told:
            _, status = os.waitpid(told["reap"], 0)
            forked.discard(told["reap"])
            answer = os.waitstatus_to_exitcode(status)
        else:
            begun, begin = os.pipe()
            answer = os.fork()
            if answer == 0:
                client.detach()
                return _become(**told, files=files)  # closes `begin`, as it closes all that is not its own
            forked.add(answer)
            os.close(begin)
            os.read(begun, 1)
            for each in (begun, *files):
                os.close(each)
        client.send(b"%d" % answer)


def _become(
    arguments: list[str], environment: dict[str, str], namespace: str, files: list[int]
) -> Callable[[], object]:
    """Give this process what a shell would have given it. What it is to run is answered."""
    gc.enable()
    os.setsid()
    if namespace:
        _enter(namespace)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, MOST_DESCRIPTORS)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    module, *sys.argv[1:] = arguments
    return lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)


def _enter(namespace: str) -> None:
    """Have its network. (os.setns is of Python 3.12.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / namespace).open() as file:
        if libc.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), "cannot be entered", namespace)


def main() -> None:
    for name in PRELOADED:
        import_module(name)
    parse_yaml_once()
    load_surveys(read_survey_files(ROOT / "config" / "surveys"))
    early = [name for name in READERS if name in sys.modules]
    assert not early, f"{early} would read the server's environment"
    gc.collect()
    gc.disable()
    gc.freeze()
    run = serve(socket.socket(fileno=int(sys.argv[1])))
    if run is not None:
        run()


if __name__ == "__main__":
    main()
