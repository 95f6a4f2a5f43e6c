"""`parley run` ends with all that it has started, however it ends: its workers first, and then the server that they use."""

import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from ingest.commands.phone import PhoneConnection
from tests.support.processes import THIS
from tests.support.waiting import HANG_S, PATIENCE, free_port, until

pytestmark = pytest.mark.processes

END_S = 15
"""In which all ends, also a worker that hangs."""

PHONE = "+33698765432"


class Run(NamedTuple):
    """A `parley run`, with a folder, ports and a log of its own."""

    folder: Path
    port: int
    console_port: int
    log: Path

    @property
    def base(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PARLEY_", "PROMETHEUS_"))}
        own = {"PARLEY_VAR": str(self.folder), "PARLEY_PORT": f"{self.port}", "NO_COLOR": "1"}
        own["PARLEY_CONSOLE_PORT"] = f"{self.console_port}"
        own["XDG_RUNTIME_DIR"] = str(self.log.parent)
        return {**clean, **THIS.environment, **own}

    def command(self, *words, **environment):
        return subprocess.run(
            ["parley", *words], cwd=THIS.root, env=self.environment | environment, capture_output=True, text=True,
            check=False, timeout=HANG_S * PATIENCE,
        )  # fmt: skip

    def wait_ready(self):
        until(lambda: "Parley is running." in self.log.read_text(), 60, "it runs")

    def processes(self, of):
        """The ids of its processes whose command line matches."""
        return [pid for pid, command in commands_with(f"PARLEY_VAR={self.folder}") if re.search(of, command)]

    def wait_gone(self):
        """Until all that it has started has ended, the server last."""

        def is_gone():
            serves = self.processes("valkey-server")
            works = self.processes(r"-m (ingest|workers)")
            assert serves or not works, "the server ends last"
            return not self.processes("")

        until(is_gone, END_S, "all of it ends")


def commands_with(variable):
    """(process, command line) of all with this in their environment."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                yield int(process.name), (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.fixture
def run(tmp_path):
    found = Run(tmp_path / "var", free_port(), free_port(), tmp_path / "log")
    yield found
    for pid in found.processes(""):
        with suppress(ProcessLookupError):
            kill_group(pid)


def kill_group(pid):
    """With its group, unless that is ours: a server that has named itself has no environment that tells whose it is, and is in the
    group of the shell that would end it."""
    if os.getpgid(pid) == os.getpgrp():
        os.kill(pid, signal.SIGKILL)
    else:
        os.killpg(os.getpgid(pid), signal.SIGKILL)


@contextmanager
def started(run, **how):
    """`parley run`, in a process group of its own."""
    with run.log.open("w") as log:
        popen = subprocess.Popen(
            ["parley", "run"], cwd=THIS.root, env=run.environment, stdout=log, stderr=log, process_group=0, **how
        )  # fmt: skip
    try:
        run.wait_ready()
        yield popen
    finally:
        popen.kill()
        popen.wait()


class Terminal:
    """`parley run` as the program of a terminal, whose other side this is."""

    def __init__(self, run):
        self.pid, self._side = pty.fork()
        if self.pid == 0:
            os.chdir(THIS.root)
            os.execvpe("parley", ["parley", "run"], run.environment)
        os.set_blocking(self._side, False)
        self._shown = b""
        until(self._shows_welcome, 60, "it runs")

    def _shows_welcome(self):
        with suppress(BlockingIOError):
            self._shown += os.read(self._side, 65_536)
        return b"Parley is running." in self._shown

    def close(self):
        """How the program ended, as `os.waitpid` says it."""
        os.close(self._side)
        return os.waitpid(self.pid, 0)[1]


def test_it_ends_with_its_terminal(run):
    assert os.WIFEXITED(Terminal(run).close()), "by itself, and not by the signal"
    run.wait_gone()
    assert "bye bye" in (run.folder / "valkey" / "valkey.log").read_text()


def test_once_its_link_to_the_console_is_printed_it_leads_there(run):
    with started(run):
        printed = lambda: re.findall(r"http://\S+/sign-in\?link=\w+", run.log.read_text())  # noqa: E731
        (link,) = until(printed, 10, "it is printed")
        assert requests.get(link, timeout=HANG_S).status_code == 200


def test_it_outlives_its_terminal_if_somebody_asked_for_that(run):
    with started(run, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as popen:
        popen.send_signal(signal.SIGHUP)
        until(lambda: is_ready(run), 10, "it goes on")
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(END_S * PATIENCE) == 0
        run.wait_gone()


def is_ready(run):
    return requests.get(f"{run.base}/readyz", timeout=HANG_S).status_code == 200


def test_nobody_who_reads_what_it_says_is_needed(run):
    """Not even to end: what it would say goes nowhere."""
    reader, writer = os.pipe()
    with subprocess.Popen(
        ["parley", "run"], cwd=THIS.root, env=run.environment, stdout=writer, stderr=subprocess.DEVNULL
    ) as popen:
        os.close(writer)
        os.close(reader)
        until(lambda: suppressed(is_ready, run), 60, "it runs")
        popen.send_signal(signal.SIGTERM)
    run.wait_gone()


def suppressed(ask, *arguments):
    with suppress(requests.RequestException):
        return ask(*arguments)


def test_after_kill_9_the_next_one_waits_for_what_is_left_and_answers_what_was_taken(run):
    with started(run) as popen:
        PhoneConnection(run.base, "clinic", "simulator", PHONE).send_sms("START")
        popen.kill()
        popen.wait()
    with started(run) as popen:
        assert len(list(run.log.parent.glob("parley-*"))) == 1, "what the other had is gone"
        (heard,) = requests.get(
            f"{run.base}/simulator/phones/{PHONE}", params={"wait": 20}, timeout=HANG_S
        ).json()["messages"]
        assert "name" in heard["text"]
        popen.send_signal(signal.SIGINT)
        assert popen.wait(END_S * PATIENCE) == 0
    run.wait_gone()


def test_what_hangs_is_killed_where_the_whole_group_was(run):
    with started(run) as popen:
        (hung,) = run.processes(r"^\S+ -m workers conversation")
        os.kill(hung, signal.SIGSTOP)
        os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()
    run.wait_gone()


def test_what_is_in_the_way_is_named(run, tmp_path):
    """By its process and what it is of; and a `parley run` of the same folder by its own."""
    with started(run) as popen:
        (web,) = run.processes(r"^\S+ -m ingest")
        other = run.command("run", PARLEY_VAR=str(tmp_path / "other"))
        assert other.returncode == 1
        assert (
            f"port {run.port} is taken by process {web}, `{sys.executable} -m ingest` in {THIS.root}"
            in other.stdout
        )
        assert f"of the `parley run` that is process {popen.pid}" in other.stdout
        same = run.command("run", PARLEY_PORT=f"{free_port()}")
        assert f"another parley is running on {run.folder}/valkey (process {popen.pid})" in same.stdout
