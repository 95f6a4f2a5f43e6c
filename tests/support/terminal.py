"""A terminal of a size, and a program that runs on it: what its person sees, and types."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Self

from tests.support.processes import THIS
from tests.support.waiting import HANG_S, PATIENCE

_SEQUENCE = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])|\x1b[=>]")


class Screen:
    """What a terminal shows of what was written to it, as far as our programs go: text, moves of the cursor, and erasing."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._lines: list[list[str]] = [[]]
        self._row = self._column = 0

    def write(self, written: bytes) -> None:
        at = 0
        for found in _SEQUENCE.finditer(written):
            self._put(written[at : found.start()].decode(errors="replace"))
            self._control((found[1] or b"").decode(), (found[2] or b"").decode())
            at = found.end()
        self._put(written[at:].decode(errors="replace"))

    @property
    def lines(self) -> list[str]:
        """The lines that are seen, the first that scrolled out of sight included."""
        return ["".join(line).rstrip() for line in self._lines]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def _put(self, text: str) -> None:
        for char in text:
            match char:
                case "\n":
                    self._row += 1
                case "\r":
                    self._column = 0
                case "\b":
                    self._column = max(0, self._column - 1)
                case "\a":
                    pass
                case _:
                    if self._column == self.columns:
                        self._row, self._column = self._row + 1, 0
                    line = self._line()
                    line += " " * (self._column + 1 - len(line))
                    line[self._column] = char
                    self._column += 1

    def _line(self) -> list[str]:
        while len(self._lines) <= self._row:
            self._lines.append([])
        return self._lines[self._row]

    def _control(self, arguments: str, kind: str) -> None:
        match kind:
            case "H":
                self._row = self._column = 0
            case "A":
                self._row = max(0, self._row - int(arguments or 1))
            case "K":
                line = self._line()
                del line[0 if arguments == "2" else self._column :]
            case "J":
                self._lines, self._row, self._column = [[]], 0, 0
            case "h" | "l" if arguments == "?1049":
                self._lines, self._row, self._column = [[]], 0, 0


class OwnTerminal:
    """A program on a terminal of its own. A context manager, which ends it."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], columns: int, rows: int
    ) -> None:
        self.written = b""
        self._size = columns, rows
        self._side, program_side = pty.openpty()
        fcntl.ioctl(program_side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        known = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **THIS.environment}
        inherited = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=program_side, stdout=program_side, stderr=program_side, start_new_session=True,
            env={**inherited, **known}, cwd=THIS.root,
        )  # fmt: skip
        os.close(program_side)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def screen(self) -> Screen:
        """What is seen now."""
        screen = Screen(*self._size)
        screen.write(self.written)
        return screen

    def enter(self, keys: str) -> None:
        os.write(self._side, keys.encode())

    def end(self) -> int:
        """Its exit status, after Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(HANG_S * PATIENCE)
        self._reader.join()
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        os.close(self._side)

    def _read(self) -> None:
        with suppress(OSError):
            while some := os.read(self._side, 65_536):
                self.written += some
