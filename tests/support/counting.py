"""A process that counts what it is told to, in the directory that PROMETHEUS_MULTIPROC_DIR names."""

import os
import signal
import sys
from pathlib import Path

from config.telemetry import metrics
from tests.support.fork_server import fork_server

STDERR = 2
READY_S = 60.0


class CountingProcess:
    """It is running when this returns, unless `fault` (config/telemetry/faults.py) has it first."""

    def __init__(self, folder: Path, fault: str = "") -> None:
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PARLEY_FAULT": fault}
        (stdin, told), (said, stdout) = os.pipe(), os.pipe()
        self._process = fork_server().fork(
            "python -m tests.support.counting", environment, stdin=stdin, stdout=stdout, stderr=STDERR
        )
        os.close(stdin)
        os.close(stdout)
        self._told, self._said = os.fdopen(told, "w"), os.fdopen(said)
        if not fault:
            self.wait_ready()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        assert self._answer() == "ready"

    def count(self, times: int) -> None:
        """Duplicates, and turns of 0.3 s."""
        self._ask(f"count {times}")

    def gauge(self, value: int) -> None:
        """Surveys refused, and the credit of the channel `clinic`."""
        self._ask(f"gauge {value}")

    def fork(self) -> int:
        """The pid of a child that counts one, and then waits to be killed."""
        return int(self._ask("fork"))

    def kill9(self) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.wait_dead()

    def end(self) -> None:
        """Let it come to its end by itself."""
        self._told.close()
        self.wait_dead()

    def wait_dead(self) -> int:
        """Its exit status, negative for a signal."""
        status = self._process.wait(READY_S)
        self._told.close()
        self._said.close()
        return status

    def _ask(self, line: str) -> str:
        self._told.write(line + "\n")
        self._told.flush()
        return self._answer()

    def _answer(self) -> str:
        return self._said.readline().strip()


def main() -> None:
    say("ready")
    for line in sys.stdin:
        word, _, argument = line.strip().partition(" ")
        match word:
            case "count":
                metrics.DUPLICATES.inc(int(argument))
                metrics.TURN_SECONDS.labels("replies").observe_times(0.3, int(argument))
                say("counted")
            case "gauge":
                metrics.SURVEYS_REFUSED.set(int(argument))
                metrics.CREDIT.labels("clinic").set(int(argument))
                say("set")
            case "fork":
                if child := os.fork():
                    say(str(child))
                else:
                    metrics.DUPLICATES.inc(1)
                    signal.pause()


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
