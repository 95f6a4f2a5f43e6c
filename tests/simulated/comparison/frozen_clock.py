"""A real server's clock that stands still until it is set, so that a real server and the model tell the same time."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.support.closing import Closing
from tests.support.stepped_clock import build_clock_library

SOURCE = Path(__file__).with_suffix(".c")

START_US = 1_792_000_000_000_000


class FrozenClock(Closing):
    """The clock of whatever is started with `environment`. A context manager, which removes its files. Raises
    FileNotFoundError if there is no C compiler."""

    def __init__(self) -> None:
        self._folder, self._library = build_clock_library(SOURCE)
        self._file = self._folder / "now"
        self._file.write_bytes(bytes(8))
        self.now_us = 0
        self.set(START_US)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to go by this clock alone."""
        return {"LD_PRELOAD": str(self._library), "FROZEN_CLOCK": str(self._file)}

    def set(self, now_us: int) -> None:
        self.now_us = now_us
        with self._file.open("r+b") as file:
            file.write(now_us.to_bytes(8, "little", signed=True))

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
