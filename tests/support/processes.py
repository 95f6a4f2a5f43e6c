"""Parley's real processes, as the Procfile says, each in a process group of its own: to be killed, stopped and
started again at will."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import NamedTuple, Self

import requests

from tests.support.clinic import CHANNEL, NUMBER
from tests.support.fork_server import ForkedProcess, fork_server
from tests.support.machines import Machine
from tests.support.octopush import FakeOctopush
from tests.support.waiting import HANG_S, LOOK_S, PATIENCE, free_port, until

ROOT = Path(__file__).parents[2]
SURVEYS = ROOT / "config" / "surveys"
TOKEN = "a-token-for-tests"

READY_S = 30.0
END_S = 15.0

KILLED_S = 15.0
"""How soon a process ends that is told to. A supervisor kills it after ten seconds; a busy machine takes a little longer
over what comes before and after its patience."""

Limit = int | float


class Release(NamedTuple):
    """Whose code runs: the folder of a checkout, and that of the programs (`python`, `parley`) of its environment."""

    root: Path
    programs: Path

    @property
    def environment(self) -> dict[str, str]:
        """What leads to it, before everything else."""
        path = os.pathsep.join([str(self.programs), os.environ.get("PATH", "")])
        return {"PATH": path, "PYTHONPATH": str(self.root)}


THIS = Release(ROOT, Path(sys.executable).parent)


def procfile(release: Release = THIS) -> dict[str, str]:
    """Line name -> command."""
    lines = (release.root / "Procfile").read_text().splitlines()
    return {name: command.strip() for name, _, command in (line.partition(":") for line in lines) if command}


class Process:
    """One running copy of a Procfile line. Its stderr goes to `log`, also across restarts. What is started again is the
    code of `release` as it is then.

    With `forked`, a `python -m …` of this release is forked instead of executed, which is cheaper: see fork_server.py; and
    only then it may be on a `machine` that is not this one.
    """

    _popen: subprocess.Popen[bytes] | ForkedProcess

    def __init__(
        self,
        name: str,
        command: str,
        environment: Mapping[str, str],
        log: Path,
        release: Release = THIS,
        *,
        forked: bool = False,
        machine: Machine | None = None,
    ) -> None:
        assert forked or machine is None
        self.name = name
        self._namespace = machine.namespace if machine else ""
        self._forked = forked and release is THIS
        self.log = log
        self.release = release
        self._command = command
        self._environment = dict(environment)
        self.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def start(self) -> None:
        """Start it, for the first time or again."""
        with self.log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            if self._forked:
                self._popen = fork_server().fork(
                    self._command, self._environment,
                    stdin=nothing.fileno(), stdout=log.fileno(), stderr=log.fileno(), namespace=self._namespace,
                )  # fmt: skip
                return
            self._popen = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {self._command}"],
                cwd=self.release.root,
                env=self._environment | self.release.environment,
                stdin=nothing,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def restart(self, fault: str = "") -> None:
        """Start it again once it is dead, with no fault point but `fault`."""
        assert not self.alive, f"{self.name} is still running"
        self._environment["PARLEY_FAULT"] = fault
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send it to the whole group, if there still is one."""
        if self.alive:
            os.killpg(self.pid, number)

    def kill9(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait_dead()

    def terminate(self) -> None:
        """End it as a supervisor does."""
        self.signal(signal.SIGTERM)
        self.wait_dead()

    def sigstop(self) -> None:
        self.signal(signal.SIGSTOP)

    def sigcont(self) -> None:
        self.signal(signal.SIGCONT)

    def wait_dead(self, deadline_s: float = END_S) -> int:
        """Its exit status, negative for a signal. Raises subprocess.TimeoutExpired after PATIENCE times `deadline_s`."""
        return self._popen.wait(deadline_s * PATIENCE)

    def wait_stopped(self, deadline_s: float = END_S) -> None:
        """Until a SIGSTOP (ours, or a fault point's) has it."""
        until(lambda: self._state() == "T", deadline_s, f"{self.name} is stopped")

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]


class Deployment:
    """A configuration, and the processes that run with it. A context manager, which ends them all.

    `limits` are those of the channel, and by default there are none, so that a test waits for nothing. Its processes are
    `forked`, unless it is measured what they take, or it is the start itself that matters. `web` listens on `host`.
    """

    def __init__(
        self, redis_url: str, broker_url: str, octopush: FakeOctopush, *, limits: Mapping[str, Limit] | None = None,
        surveys: Path = SURVEYS, channel_surveys: Sequence[str] = ("clinic",), environment: Mapping[str, str] | None = None,
        forked: bool = True, host: str = "127.0.0.1",
    ) -> None:  # fmt: skip
        self._forked = forked
        self._folder = tempfile.TemporaryDirectory(prefix="parley-")
        self.folder = Path(self._folder.name)
        self.host, self.port = host, free_port()
        self.processes: list[Process] = []
        self._logs = count()
        config = self.folder / "parley.toml"
        config.write_text(_config(UNLIMITED | dict(limits or {}), channel_surveys))
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PARLEY_", "PROMETHEUS_"))},
            **THIS.environment,
            "PYTHONUNBUFFERED": "1",
            "PARLEY_CONFIG": str(config),
            "PARLEY_SURVEYS": str(surveys),
            "PARLEY_VAR": str(self.folder / "var"),
            "PARLEY_HOST": host,
            "PARLEY_PORT": str(self.port),
            "PARLEY_REDIS_URL": redis_url,
            "PARLEY_BROKER_URL": broker_url,
            "PARLEY_OCTOPUSH_URL": octopush.url,
            "PARLEY_OCTOPUSH_LOGIN": octopush.login,
            "PARLEY_OCTOPUSH_KEY": octopush.key,
            "PARLEY_CLINIC_TOKEN": TOKEN,
            "PARLEY_CONSOLE_PORT": "0",
            **(environment or {}),
        }  # fmt: skip

    @property
    def base(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def webhook(self) -> str:
        """Where Octopush would post."""
        return f"{self.base}/webhooks/{CHANNEL}?token={TOKEN}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What its processes get, for a command of its own."""
        return self._environment

    def spawn(
        self, name: str, fault: str = "", release: Release = THIS, machine: Machine | None = None, **environment: str
    ) -> Process:  # fmt: skip
        """Start one more copy of a Procfile line, which dies at `fault` (config/telemetry/faults.py) if there is one; on
        `machine`, if it is not this one."""
        log = self.new_log(name)
        environment = {**self._environment, "PARLEY_FAULT": fault, **environment}
        process = Process(
            name, procfile(release)[name], environment, log, release, forked=self._forked, machine=machine
        )
        self.processes.append(process)
        return process

    def new_log(self, name: str) -> Path:
        """A file for what one process writes, and no other, though that one may be gone."""
        return self.folder / f"{name}.{next(self._logs)}.log"

    def command(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """What `parley` answers to an operator who types `arguments`."""
        with (
            tempfile.TemporaryFile("w+") as output,
            tempfile.TemporaryFile("w+") as errors,
            Path(os.devnull).open() as nothing,
        ):
            process = fork_server().fork(
                shlex.join(["python", "-m", "tests.support.parley_command", *arguments]), self._environment | environment,
                stdin=nothing.fileno(), stdout=output.fileno(), stderr=errors.fileno(),
            )  # fmt: skip
            status = process.wait(HANG_S * PATIENCE)
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(arguments, status, output.read(), errors.read())

    def start(self, release: Release = THIS, **copies: int) -> Self:
        """Start every Procfile line but `console` once, or as many times as told (`clock=0`), and wait until it is ready."""
        for name in procfile(release):
            for _ in range(copies.get(name, 0 if name == "console" else 1)):
                self.spawn(name, release=release)
        if copies.get("web", 1):
            self.wait_ready()
        self.wait_running()
        return self

    def wait_ready(self, deadline_s: float = READY_S) -> None:
        """Until /readyz says 200."""
        until(self._ready, deadline_s, f"{self.base}/readyz answers 200\n{self.logs()}")

    def wait_running(self, deadline_s: float = READY_S) -> None:
        """Until every process has said that it runs."""
        for process in self.processes:
            until(lambda log=process.log: b"running" in log.read_bytes(), deadline_s, f"{process.name} runs")  # type: ignore[misc]

    def of(self, name: str) -> list[Process]:
        """The copies of a line."""
        return [process for process in self.processes if process.name == name]

    @contextmanager
    def respawning(self) -> Iterator[None]:
        """Meanwhile, whatever dies is started again, as a supervisor does, without its fault point."""
        stop = Event()
        supervisor = Thread(target=self._respawn, args=(stop,), name="supervisor")
        supervisor.start()
        try:
            yield
        finally:
            stop.set()
            supervisor.join()

    def logs(self) -> str:
        """What all processes have written, for a test that failed."""
        return "\n".join(
            f"--- {process.log.stem}\n{process.log.read_text(errors='replace')[-4000:]}"
            for process in self.processes
            if process.log.exists() and process.log.stat().st_size
        )

    def close(self) -> None:
        """Kill them all. That they end by themselves when they are told to is for tests that look at it."""
        for process in self.processes:
            process.signal(signal.SIGKILL)
        for process in self.processes:
            process.wait_dead()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            sys.stderr.write(self.logs())
        self.close()

    def _ready(self) -> bool:
        web = self.of("web")
        if web and not any(process.alive for process in web):
            raise RuntimeError(f"web ended at its start\n{self.logs()}")
        try:
            return requests.get(f"{self.base}/readyz", timeout=HANG_S).status_code == 200
        except requests.RequestException:
            return False

    def _respawn(self, stop: Event) -> None:
        while not stop.wait(LOOK_S):
            for process in self.processes:
                if not process.alive:
                    process.restart()


def odd_process(
    deployment: Deployment, role: str, oddity: str, fault: str = "", **environment: str
) -> Process:
    """One more process of `role`, with something odd about it: see odd_worker.py."""
    log = deployment.new_log(f"odd-{role}")
    command = f"python -m tests.support.odd_worker {role} {oddity}"
    environment = {**deployment.environment, "PARLEY_FAULT": fault, **environment}
    process = Process(role, command, environment, log, forked=True)
    deployment.processes.append(process)
    return process


UNLIMITED: dict[str, Limit] = {
    "sessions_per_sender_per_day": 0,
    "start_burst": 0,
    "start_per_minute": 0,
    "new_sessions_per_minute": 0,
    "sms_per_day": 0,
    "sms_per_second": 0,
    "pause_s": 0,
}


def _config(limits: Mapping[str, Limit], surveys: Sequence[str]) -> str:
    names = ", ".join(f'"{name}"' for name in surveys)
    lines = [f"{name} = {value}" for name, value in limits.items()]
    return "\n".join(
        [
            f"[channels.{CHANNEL}]",
            'provider = "octopush"',
            f'number = "{NUMBER}"',
            f"surveys = [{names}]",
            'token_env = "PARLEY_CLINIC_TOKEN"',
            f"[channels.{CHANNEL}.limits]",
            *lines,
            "",
        ]
    )
