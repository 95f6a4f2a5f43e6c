"""A server's clock that a test may step while it runs, by a library in front of the C library's (stepped_clock.c).

It takes a C compiler, `cc`. Where there is none, `SteppedClock` raises FileNotFoundError, and a test is skipped that says so.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.closing import Closing

SOURCE = Path(__file__).with_suffix(".c")

NO_COMPILER = "no C compiler: a server's clock cannot be stepped (on Debian, `apt-get install gcc libc6-dev`)"


def build_clock_library(source: Path) -> tuple[Path, Path]:
    """Compile a library that stands in front of the C library's clock; answer the new folder that it is in, and its file. Raises
    FileNotFoundError if there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError(NO_COMPILER)
    folder = Path(tempfile.mkdtemp(prefix="parley-clock-"))
    library = folder / "clock.so"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
         "-o", str(library), str(source), "-ldl"],
        check=True,
    )  # fmt: skip
    return folder, library


class SteppedClock(Closing):
    """The clock of whatever is started with `environment`. A context manager, which removes its files."""

    def __init__(self) -> None:
        self._folder, self._library = build_clock_library(SOURCE)
        self._offset = self._folder / "offset"
        self._offset.write_bytes(bytes(8))

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to go by this clock, in front of any other that this process goes by."""
        before = os.environ.get("LD_PRELOAD", "")
        return {
            "LD_PRELOAD": f"{self._library} {before}".strip(),
            "STEPPED_CLOCK": str(self._offset),
        }

    def step_to(self, offset_s: float) -> None:
        """Be so far ahead of the true time from now on; behind it, if negative."""
        with self._offset.open("r+b") as file:
            file.write(round(offset_s * 1_000).to_bytes(8, "little", signed=True))

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
