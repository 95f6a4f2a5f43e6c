"""Does it kill its process? Tried in a process of its own, since what has killed workers would kill an operator's command."""

import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

CRASH_PROBE_TIMEOUT_S = 10.0
"""How long an event whose workers died may take in a process of its own."""

CrashProbe = Callable[[Callable[[], object]], str]
"""Tries something that may end its process, and answers as `crash_reason` does."""


def crash_reason(judge: Callable[[], object]) -> str:
    """How a process ends that does this, if it does not end well; empty if it does."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with suppress(BaseException):
            judge()
            os.write(writing, b"!")
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], CRASH_PROBE_TIMEOUT_S)
    survived = bool(ready) and os.read(reading, 1) == b"!"
    os.close(reading)
    if not ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if survived:
        return ""
    if not ready:
        return f"it takes longer than {CRASH_PROBE_TIMEOUT_S:.0f} s"
    return f"it ends its process, with status {os.waitstatus_to_exitcode(status)}"
