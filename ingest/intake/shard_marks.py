"""Of which shards is anything in the spool? A file beside it has a byte for each shard: a mark, or none.

The law: a shard of which an event was acknowledged that is in the spool, and not handed over, has a mark, for whoever asks at
whatever moment, without a lock, in any process of the machine, and after a loss of power. Why it holds:

1. Marks change only under the lock of the spool's file. Whoever writes events sets their marks first, on the disk too.
2. A mark is taken away only once all of its shard is handed over.
3. The number of marks changes only while the spool's file is empty. So as long as an event waits, whoever reads finds as many
   bytes as whoever set its mark, and the mark among them, whatever others write at that moment.
4. Where there are no marks, or what is no mark stands for none, all shards have one: as if marks got lost, or if the spool was
   filled when there was one server.

How many shards there are is told by the file's length. Who began it may have counted them otherwise than who reads; they mean
the same senders by a mark.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from config.store import keyspace

_MARK, _NO_MARK = b"x", b"-"
_PRIVATE_MODE = 0o600


class MarkedShards(NamedTuple):
    """A byte for each shard."""

    marks: bytes

    def holds(self, sender: str) -> bool:
        """Whether something of the sender's shard may be in the spool."""
        return self.is_marked(keyspace.shard_of(sender, len(self.marks))) if self.marks else True

    def is_marked(self, shard: int) -> bool:
        return not self.marks or self.marks[shard] != _NO_MARK[0]


class ShardMarks:
    """The marks in a folder; of `shards` shards, where they are begun anew. Whatever changes them is done under the lock of the
    spool's file."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._folder = folder
        self._file = str(folder / "held")
        self._shards = shards

    def read(self) -> MarkedShards:
        try:
            fd = os.open(self._file, os.O_RDONLY)
        except OSError:
            return MarkedShards(b"")
        try:
            return MarkedShards(os.read(fd, 1 << 20))
        except OSError:
            return MarkedShards(b"")
        finally:
            os.close(fd)

    def add(self, senders: Collection[str], *, anew: bool) -> None:
        """Mark the shards of these senders, on the disk; `anew`: no others, as the spool is empty. Raises OSError."""
        found = b"" if anew else self.read().marks
        marks = bytearray(found or (_NO_MARK if anew else _MARK) * self._shards)
        for sender in senders:
            marks[keyspace.shard_of(sender, len(marks))] = _MARK[0]
        if bytes(marks) != found:
            self._write(bytes(marks), synced=True)

    def keep(self, shards: Collection[int], among: int) -> None:
        """Leave the marks of these shards, of so many, and no others. Raises OSError."""
        if len(self.read().marks) == among:
            self._write(b"".join(_MARK if k in shards else _NO_MARK for k in range(among)), synced=False)

    def clear(self) -> None:
        """The spool is empty. Raises OSError."""
        with suppress(FileNotFoundError):
            os.truncate(self._file, 0)

    def remove(self) -> None:
        """Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self._file)  # noqa: PTH108

    def _write(self, marks: bytes, *, synced: bool) -> None:
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT, _PRIVATE_MODE)
        try:
            before = os.fstat(fd).st_size
            if before > len(marks):
                os.ftruncate(fd, len(marks))
            if os.pwrite(fd, marks, 0) < len(marks):
                raise OSError(None, "a part of the marks could be written")
            if synced:
                os.fsync(fd)
            if before == 0:
                self._sync_folder()
        finally:
            os.close(fd)

    def _sync_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
