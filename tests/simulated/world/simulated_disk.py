"""A machine's disk, in memory: what `os`, `open` and `flock` are to a module while it is mounted there.

What changes a file, syncs it or reads it is a call of the scheduler. A lock is let go with its process. What was written and
not synced is gone when the machine loses its power, and all its processes with it.
"""

import errno
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from types import ModuleType
from typing import Any

import msgspec

from tests.simulated.world import faults
from tests.simulated.world.faults import Fault
from tests.simulated.world.scheduler import AnswerLater, Call, Process, Scheduler

_FIRST_FD = 1 << 20
"""More than the machine gives."""


class _File:
    def __init__(self) -> None:
        self.written = b""
        self.synced = b""
        self.lock: _Opened | None = None


class _Opened(msgspec.Struct, eq=False):
    """A descriptor of one life of a process."""

    file: _File
    process: Process
    life: int

    @property
    def is_open(self) -> bool:
        return self.process.is_alive and self.process.lives == self.life


class SimulatedDisk:
    """Files by name. `O_...` and the methods are those of `os`, with a descriptor that is none of the machine's."""

    O_RDONLY = os.O_RDONLY
    O_RDWR = os.O_RDWR
    O_CREAT = os.O_CREAT

    def __init__(self, scheduler: Scheduler) -> None:
        self.files: dict[str, _File] = {}
        self._scheduler = scheduler
        self.processes: list[Process] = []
        """They are of the machine."""
        self._opened: dict[int, _Opened] = {}
        self._descriptors = count(_FIRST_FD)

    @contextmanager
    def mounted(self, module: ModuleType) -> Iterator[None]:
        """Be the disk of a module, until the block ends."""
        there: dict[str, Any] = vars(module)
        before = {name: there[name] for name in ("os", "open", "flock") if name in there}
        there.update(os=self, open=self.open_file, flock=self.flock)
        try:
            yield
        finally:
            for name in ("os", "open", "flock"):
                there.pop(name)
            there.update(before)

    def content(self, name: str) -> bytes:
        """What a file holds; nothing if there is none."""
        return self.files[name].written if name in self.files else b""

    # As `os` has them

    def open(self, path: object, flags: int, mode: int = 0) -> int:
        """Open a file, or a folder, which holds nothing itself."""
        name = str(path)
        is_folder = any(each.startswith(f"{name}/") for each in self.files)
        if name not in self.files and not is_folder and not flags & os.O_CREAT:
            raise FileNotFoundError(errno.ENOENT, "No such file", name)
        process = self._scheduler.current.process
        fd = next(self._descriptors)
        file = _File() if is_folder else self.files.setdefault(name, _File())
        self._opened[fd] = _Opened(file, process, process.lives)
        return fd

    def close(self, fd: int) -> None:
        closed = self._opened.pop(fd)
        if closed.file.lock is closed:
            closed.file.lock = None

    def fstat(self, fd: int) -> os.stat_result:
        return _status(self._opened[fd].file)

    def stat(self, path: object) -> os.stat_result:
        if str(path) not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return _status(self.files[str(path)])

    def pread(self, fd: int, size: int, at: int) -> bytes:
        return self._opened[fd].file.written[at : at + size]

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        file = self._opened[fd].file

        def perform(fault: Fault | None) -> int:
            kind = fault.kind if fault is not None else ""
            part = len(data) // 2 if kind in ("half_written", "disk_full") else len(data)
            file.written = file.written[:at].ljust(at, b"\0") + bytes(data[:part]) + file.written[at + part :]
            if kind == "disk_full":
                raise OSError(errno.ENOSPC, "No space left on device")
            return part

        done: int = self._call("pwrite", perform, faults.DISK)
        return done

    def ftruncate(self, fd: int, size: int) -> None:
        file = self._opened[fd].file

        def perform(_fault: Fault | None) -> None:
            file.written = file.written[:size].ljust(size, b"\0")

        self._call("ftruncate", perform, (faults.POWER_CUT,))

    def fsync(self, fd: int) -> None:
        file = self._opened[fd].file

        def perform(fault: Fault | None) -> None:
            if fault is not None and fault.kind == "disk_full":
                raise OSError(errno.EIO, "Input/output error")
            file.synced = file.written

        self._call("fsync", perform, faults.DISK)

    # As `open` and `flock`

    def open_file(
        self, path: object, mode: str, opener: Callable[[str, int], int] | None = None
    ) -> io.BytesIO:
        """Open a file to read what it holds now ("rb"), or to write at its end ("ab")."""
        name = str(path)
        if mode == "ab":
            return _AppendedFile(self, self.open(name, os.O_CREAT | os.O_RDWR))

        def perform(_fault: Fault | None) -> bytes:
            if name not in self.files:
                raise FileNotFoundError(errno.ENOENT, "No such file", name)
            return self.files[name].written

        return io.BytesIO(self._call("read", perform, ()))

    def flock(self, fd: int, _operation: int) -> None:
        """Take the lock of a file, or raise BlockingIOError."""
        opened = self._opened[fd]

        if (holder := opened.file.lock) is not None and holder is not opened and holder.is_open:
            raise BlockingIOError(errno.EWOULDBLOCK, "Resource temporarily unavailable")
        opened.file.lock = opened
        self._call("flock", lambda fault: None, ())

    def _call(self, what: str, perform: Callable[[Fault | None], Any], menu: Sequence[Fault]) -> Any:
        def perform_with_power(fault: Fault | None) -> Any:
            if fault is not None and fault.kind == "power_cut":
                self._cut_power()
                raise AnswerLater(0)
            return perform(fault)

        return self._scheduler.call(Call(f"disk {what}", perform_with_power, menu))

    def _cut_power(self) -> None:
        for file in self.files.values():
            file.written = file.synced
        for process in self.processes:
            if process.is_alive:
                process.die()


class _AppendedFile(io.BytesIO):
    """A file to which is written at its end, once it is flushed."""

    def __init__(self, disk: SimulatedDisk, fd: int) -> None:
        super().__init__()
        self._disk = disk
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def flush(self) -> None:
        if data := self.getvalue():
            self.seek(0)
            self.truncate()
            self._disk.pwrite(self._fd, data, self._disk.fstat(self._fd).st_size)

    def close(self) -> None:
        if not self.closed:
            self.flush()
            self._disk.close(self._fd)
        super().close()


def _status(file: _File) -> os.stat_result:
    return os.stat_result((0, 0, 0, 0, 0, 0, len(file.written), 0, 0, 0))
