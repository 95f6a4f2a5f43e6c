"""Deaths on purpose: `PARLEY_FAULT=after_claim` kills the process with SIGKILL the first time it gets there,
`after_claim@3` the third time, `stop:after_claim` stops it with SIGSTOP instead. For tests of recovery."""

import os
import signal
from threading import get_ident


class _InjectedFault:
    def __init__(self, spec: str) -> None:
        self.signal = signal.SIGSTOP if spec.startswith("stop:") else signal.SIGKILL
        self.place, _, nth = spec.removeprefix("stop:").partition("@")
        self.left = int(nth or 1)

    def reach(self, place: str) -> None:
        if place != self.place:
            return
        self.left -= 1
        if self.left == 0:
            signal.pthread_kill(get_ident(), self.signal)  # this very thread stops here, not a little later


_fault = _InjectedFault(os.environ.get("PARLEY_FAULT", ""))
reach = _fault.reach
