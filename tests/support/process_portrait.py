"""A process that says what it was given, so that two ways of starting one can be compared:

python -m tests.support.process_portrait 3

It ends as it is told: with a status, by a signal (-9), or by an error that nobody catches (`raise`).
"""

import gc
import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

from config.telemetry import faults

OF_THE_SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}


def portrait() -> dict[str, object]:
    return {
        "arguments": sys.argv[1:],
        "module": __name__,
        "file": sys.argv[0],
        "folder": str(Path.cwd()),
        "path": sys.path,
        "environment": {name: value for name, value in os.environ.items() if name not in OF_THE_SHELL},
        "fault": faults.reach.__self__.place,  # type: ignore[attr-defined]
        "leads its session": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "open files": sorted(str(Path(f"/proc/self/fd/{each}").readlink()) for each in (0, 1, 2)),
        "more open files": [each for each in range(3, 64) if Path(f"/proc/self/fd/{each}").exists()],
        "ignored signals": [each for each in signal.Signals if signal.getsignal(each) == signal.SIG_IGN],
        "blocked signals": [*signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "threads": [each.name for each in threading.enumerate()],
        "collects garbage": gc.isenabled(),
        "chance": random.random(),
    }


def end(how: str) -> None:
    if how == "raise":
        raise RuntimeError("nobody catches this")
    if int(how) < 0:
        os.kill(os.getpid(), -int(how))
    sys.exit(int(how))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(portrait()) + "\n")
    sys.stderr.write("drawn\n")
    end(sys.argv[1])
