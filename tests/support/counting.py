"""A process that counts what it is told to, in the directory that PROMETHEUS_MULTIPROC_DIR names."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from config.telemetry import metrics

ROOT = Path(__file__).parents[2]

READY_S = 60.0


class CountingProcess:
    """It is running when this returns, unless `fault` (config/telemetry/faults.py) has it first."""

    def __init__(self, folder: Path, fault: str = "") -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.support.counting"],
            cwd=ROOT,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PARLEY_FAULT": fault},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if not fault:
            self.wait_ready()

    @property
    def pid(self) -> int:
        return self._popen.pid

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
        self._popen.kill()
        self.wait_dead()

    def end(self) -> None:
        """Let it come to its end by itself."""
        self._pipe().close()
        self.wait_dead()

    def wait_dead(self) -> int:
        """Its exit status, negative for a signal."""
        status = self._popen.wait(READY_S)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()
        return status

    def _ask(self, line: str) -> str:
        self._pipe().write(line + "\n")
        self._pipe().flush()
        return self._answer()

    def _pipe(self) -> IO[str]:
        assert self._popen.stdin is not None
        return self._popen.stdin

    def _answer(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().strip()


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
