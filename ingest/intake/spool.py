"""Where do events go while Redis cannot take them? Into one file of this machine, until it can.

The law: an event that comes in after another of its sender was acknowledged goes behind it into the mailbox, whichever
`web` processes of the machine they came to. (Two that are under way at once have no order, as without a spool.) Why it
holds:

1. The file is one for all processes, so what is in it has one order. An event is acknowledged when the file is synced,
   and only whoever holds the file's lock writes. A write that the disk fails takes its lines back, so none are handed
   over before it is over.
2. While there is anything in the file, every event goes into it. Each write asks whether there is, after the last event
   in it has come in: what was acknowledged before is then in the file, and seen, or in the mailboxes.
3. One process at a time hands over (`drain_lock`: a lock that dies with its process, and then it is another's turn), in the
   file's order, the next part once the mailboxes have the one before. The last part is handed over while nobody can
   write, and the file is emptied before anybody can: so it does end, however much comes in meanwhile.
4. Up to where it was handed over is noted in the file itself, after the mailboxes have it. Whoever dies in between has
   one part handed over twice; so has a write whose reply was lost before its events were spooled. An event's id makes
   the copy harmless, and the copy never comes before what was acknowledged earlier: that was in its mailbox by then.

The law is of one machine, whose processes have the folder on a local disk. Of a sender whose SMS reach several machines
while Redis is away, each machine's are in order, and what lies on one may be overtaken by what comes to another.

A line is a CRC-32 and an event in Base64, so no damage reaches further than to the next line's beginning. A line that
was cut off by a death was never acknowledged: whoever writes next marks it as TORN, and it is passed over. Any other
that cannot be read is put aside, into a file beside.

Where the lanes are on a cluster, one server may be away while the others are not, and points 2 to 4 hold for each shard:

2. While there is anything of a *shard* in the file, every event of that shard goes into it. Which shards that are, the *marks*
   say, a file beside with a byte for each (ingest/intake/shard_marks.py). Whoever writes sets the marks of what he writes, before
   it is acknowledged and on the disk before it; so a shard without a mark has nothing acknowledged in the file but what the
   mailboxes have. Whoever finds a mark looks again when he has the lock, and writes nothing if it is gone.
3. The one who hands over passes by lines of shards whose server is away, and in that pass all that follow of such a shard
   (ingest/intake/shard_drain.py). At the end of the pass, while nobody can write, exactly those shards keep their marks of which
   something was passed by; if that is none, the file is emptied.
4. A line that is handed over before others in front of it begins with DONE, once the mailboxes have it. The noted place is the
   first line that is not handed over.

Marks count shards as whoever began them does, be that the right number or not: any division of senders keeps the law.

An event is applied at the time at which it was acknowledged, as if its mailbox had had it since then: an answer that
was given in time is in time, and STARTs that came in over minutes are not throttled as if they had come at once. What
is handed over is the event's age, so no clock of a machine is compared with another's, but only with itself; an age
that only a clock that was set could explain is cut to MAX_AGE_MS. What cannot be promised: a session whose deadline
passes while Redis is away may be ended by the clock before the answer is handed over.
"""

import errno
import os
from binascii import a2b_base64, b2a_base64
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from math import inf
from pathlib import Path
from typing import Literal, NamedTuple
from zlib import crc32

import msgspec

from config.host import THIS_HOST, Host
from config.settings.config_errors import ConfigError
from config.telemetry import faults
from engine.model.errors import ParleyError
from ingest.intake.shard_marks import ShardMarks

MAX_AGE_MS = 86_400_000

FIRST_PART_EVENTS, LARGEST_PART_EVENTS = 16, 128
"""Events that are handed over at once. A lane remembers as many (engine/turns/advance.py), so that a part which is handed over
twice is known even if all of it is one person's."""

PART_TIMEOUT_S = 3.0
"""How long a part may take, as nobody waits for it."""

LOCK_TIMEOUT_S = 2.0
"""How long the file's lock is waited for: longer than a sync takes, or the hand-over of the last part."""

LOCK_POLL_S = 0.002

READ_BLOCK_BYTES = 262_144
"""Bytes that are read at once."""

_LINES_LOOKED_AT = 256
"""Lines among which the oldest event is looked for, as those before it may be handed over while it is not."""

MIN_FREE_BYTES = 1 << 20
"""Bytes that the disk must have free for the spool to be ready."""

TORN_MARK = b"~"
"""Ends a line whose writer died before it was whole."""

DONE_MARK = b"+"
"""Begins a line that is handed over; checksums begin with no such sign."""

_HEADER_FORMAT = "parley-spool-1 {:013d} {:015d} {:012d}"
_HEADER_BYTES = len(_HEADER_FORMAT.format(0, 0, 0)) + 10
_PRIVATE_MODE = 0o600  # phone numbers and texts

SpoolRefusal = Literal["full", "disk_full", "failed", "busy"]


class SpoolError(ParleyError):
    """The spool does not have the events. `str` is a sentence for the operator."""

    def __init__(self, reason: SpoolRefusal, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class SpooledEvent(msgspec.Struct, frozen=True, array_like=True):
    """An event on disk: `event` as the mailbox will have it, acknowledged at `at` (ms, by this machine's clock). A field
    may be appended with a default, never moved or removed."""

    sender: str
    event: bytes
    start: bool
    at: int
    channel: str
    kind: str

    def age_ms(self, now: int) -> int:
        return min(max(0, now - self.at), MAX_AGE_MS)


class SpoolPosition(NamedTuple):
    """Up to where the file of `begun` (ms) is handed over: a byte, and the lines before it."""

    begun_ms: int
    byte: int
    lines: int


class SpoolPart(NamedTuple):
    """Some lines of the file: events, and lines that cannot be read. `place` is behind them; `last` says that no line
    follows."""

    events: list[SpooledEvent]
    damaged: list[bytes]
    end_position: SpoolPosition
    last: bool


class SpoolLine(NamedTuple):
    """A line of the file, without its end, and the byte at which it begins."""

    byte: int
    written: bytes


class SpoolStatus(NamedTuple):
    """What is in the file and not yet handed over, by lines; its size; since when the oldest waits (ms; 0: nothing)."""

    events: int
    bytes: int
    oldest_ms: int


EMPTY_STATUS = SpoolStatus(0, 0, 0)


def open_spool(folder: Path, most_bytes: int, host: Host = THIS_HOST, marked_shards: int = 0) -> "Spool":
    """The spool in `folder`, which is made if it is missing. Raises ConfigError."""
    spool = Spool(folder, most_bytes, host, marked_shards)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        spool.create_files()
    except OSError as e:
        todo = "expected a folder in which this user may write; empty: no spool"
        raise ConfigError([f"PARLEY_SPOOL is {str(folder)!r}: cannot be used ({e.strerror}): {todo}"]) from e
    return spool


class Spool:
    """The file, with marks of so many shards if there are several servers. Everything here may block, `in_use` and `held_senders`
    aside: call it in a thread."""

    def __init__(self, folder: Path, most_bytes: int, host: Host = THIS_HOST, marked_shards: int = 0) -> None:
        self._folder = folder
        self._file = str(folder / "events")
        self._drain_lock_file = folder / "turn"
        self.damaged_file = folder / "damaged"
        self.max_bytes = most_bytes
        self._host = host
        self._counted = SpoolPosition(0, _HEADER_BYTES, 0)
        self.marks = ShardMarks(folder, marked_shards) if marked_shards else None

    def create_files(self) -> None:
        """Try everything that will be needed. Raises OSError."""
        for name in (self._file, self._drain_lock_file):
            os.close(os.open(name, os.O_RDWR | os.O_CREAT, _PRIVATE_MODE))
        if self.marks is None:
            ShardMarks(self._folder, 1).remove()  # of a time with a cluster: nobody sets them any more
        self._sync_folder()

    @property
    def in_use(self) -> bool:
        """Whether the file holds anything; True if that cannot be found out. Costs one system call."""
        try:
            return os.stat(self._file).st_size > 0  # noqa: PTH116 - Path makes it twice as long
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def held_senders(self, senders: Collection[str]) -> Collection[str]:
        """Return whose events go into the file, if it is in use, as something of their shard may be in it. Costs three system
        calls."""
        if self.marks is None:
            return senders
        marked = self.marks.read()
        return [sender for sender in senders if marked.holds(sender)]

    def has_room(self) -> bool:
        """Would it take an event now?"""
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False
        room = disk.f_bavail * disk.f_frsize >= MIN_FREE_BYTES and self._file_size() < self.max_bytes
        return room and os.access(self._folder, os.W_OK)

    def append(self, events: Sequence[SpooledEvent], *, begin: bool) -> int:
        """Write events at the end of the file, and sync it. Return the file's size before; or -1, having written
        nothing, if it was empty and `begin` is False. Raises SpoolError: then nothing may be acknowledged."""
        lines = b"".join(encode_line(event) + b"\n" for event in events)
        try:
            with self.locked_file() as fd:
                size = os.fstat(fd).st_size
                if size == 0 and not begin:
                    return -1
                if self.marks is not None:
                    self.marks.add([event.sender for event in events], anew=size == 0)
                self._write_lines(fd, size, lines)
                return size
        except OSError as e:
            raise _as_spool_error(e) from e

    def append_held(self, events: Sequence[SpooledEvent]) -> Collection[str]:
        """Write events behind others of their shards, as `append` does. Return the senders before whose events there are none any
        more: nothing of theirs is written. Raises SpoolError."""
        if self.marks is None:
            return {event.sender for event in events} if self.append(events, begin=False) == -1 else ()
        try:
            with self.locked_file() as fd:
                size = os.fstat(fd).st_size
                held = self.held_senders({event.sender for event in events}) if size else ()
                lines = b"".join(encode_line(event) + b"\n" for event in events if event.sender in held)
                if lines:
                    self._write_lines(fd, size, lines)
                return {event.sender for event in events} - set(held)
        except OSError as e:
            raise _as_spool_error(e) from e

    @contextmanager
    def locked_file(self) -> Iterator[int]:
        """Hold the file's lock, so that no other process writes; yield its descriptor. Raises SpoolError after
        LOCK_TIMEOUT_S."""
        fd = os.open(self._file, os.O_RDWR | os.O_CREAT, _PRIVATE_MODE)
        try:
            end_s = self._host.monotonic_s() + LOCK_TIMEOUT_S
            while not _try_lock(fd):
                if self._host.monotonic_s() > end_s:
                    raise SpoolError("busy", f"another process has held the spool for {LOCK_TIMEOUT_S:g} s")
                self._host.sleep(LOCK_POLL_S)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def drain_lock(self) -> Iterator[bool]:
        """Try to take the drain lock; yield whether this process has it. It is held until the end of the block."""
        fd = os.open(self._drain_lock_file, os.O_RDWR | os.O_CREAT, _PRIVATE_MODE)
        try:
            yield _try_lock(fd)
        finally:
            os.close(fd)

    def read_position(self) -> SpoolPosition:
        """Return up to where the file has been handed over; its beginning if the header cannot be read."""
        try:
            with open(self._file, "rb") as file:  # noqa: PTH123
                return _decode_header(file.read(_HEADER_BYTES))
        except FileNotFoundError:
            return _decode_header(b"")

    def settled_bytes(self) -> int:
        """Return the size of the file while nobody writes: no write takes back bytes before it. Raises SpoolError."""
        with self.locked_file() as fd:
            return os.fstat(fd).st_size

    def read_part(self, place: SpoolPosition, most: int, until: float = inf) -> SpoolPart:
        """At most so many lines from `place` on, which end at the byte `until`."""
        lines, byte, last = self.read_lines(place.byte, most, until)
        events: list[SpooledEvent] = []
        damaged: list[bytes] = []
        for line in lines:
            match decode_line(line.written):
                case SpooledEvent() as event:
                    events.append(event)
                case bytes() as unreadable:
                    damaged.append(unreadable)
        return SpoolPart(events, damaged, SpoolPosition(place.begun_ms, byte, place.lines + len(lines)), last)

    def read_lines(self, byte: int, most: int, until: float = inf) -> tuple[list[SpoolLine], int, bool]:
        """Read at most so many lines from `byte` on, which end at the byte `until`. Return them, the byte behind them, and whether
        no line follows."""
        with open(self._file, "rb") as file:  # noqa: PTH123
            file.seek(byte)
            lines: list[SpoolLine] = []
            line = file.readline()
            while len(lines) < most and line.endswith(b"\n") and byte + len(line) <= until:
                lines.append(SpoolLine(byte, line[:-1]))
                byte += len(line)
                line = file.readline()
        return lines, byte, not line.endswith(b"\n")

    def put_aside(self, lines: Sequence[bytes]) -> None:
        """Keep lines that cannot be handed over, for a person to look at."""
        with open(self.damaged_file, "ab", opener=_open_private) as file:
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self._sync_folder()

    def save_position(self, place: SpoolPosition) -> None:
        """Record that the mailboxes have everything before `place`."""
        fd = os.open(self._file, os.O_RDWR)
        try:
            os.pwrite(fd, _encode_header(place), 0)
            os.fsync(fd)
        finally:
            os.close(fd)

    def mark_done(self, place: SpoolPosition, lines: Sequence[SpoolLine]) -> None:
        """Record that the mailboxes have these lines, and everything before `place`."""
        fd = os.open(self._file, os.O_RDWR)
        try:
            for line in lines:
                if line.written:
                    os.pwrite(fd, DONE_MARK, line.byte)
            os.pwrite(fd, _encode_header(place), 0)
            os.fsync(fd)
        finally:
            os.close(fd)

    def count_lines(self, until: int) -> int:
        """Return how many lines end before a byte."""
        counted, left = 0, until - _HEADER_BYTES
        with open(self._file, "rb") as file:  # noqa: PTH123
            file.seek(_HEADER_BYTES)
            while left > 0 and (block := file.read(min(READ_BLOCK_BYTES, left))):
                left -= len(block)
                counted += block.count(b"\n")
        return counted

    def truncate_file(self, closed: int) -> None:
        """The mailboxes have everything. `closed` is the file, at which nobody else writes."""
        os.ftruncate(closed, 0)
        os.fsync(closed)
        if self.marks is not None:
            self.marks.clear()

    def read_status(self) -> SpoolStatus:
        """Return how much waits in the file. Reads only what was added since the last call. Raises OSError."""
        size = self._file_size()
        if size <= _HEADER_BYTES:
            return EMPTY_STATUS
        place = self.read_position()
        begun, byte, counted = self._counted
        if begun != place.begun_ms or size < byte:
            byte, counted = _HEADER_BYTES, 0
        with open(self._file, "rb") as file:  # noqa: PTH123
            file.seek(byte)
            while block := file.read(READ_BLOCK_BYTES):
                byte += len(block)
                counted += block.count(b"\n")
        self._counted = SpoolPosition(place.begun_ms, byte, counted)
        waiting = max(0, counted - place.lines)
        looked_at = 1 if self.marks is None else _LINES_LOOKED_AT
        oldest = self.read_part(place, looked_at).events if waiting else []
        return SpoolStatus(waiting, size, oldest[0].at if oldest else place.begun_ms if waiting else 0)

    def _write_lines(self, fd: int, size: int, lines: bytes) -> None:
        before = size
        if size < _HEADER_BYTES:  # none, or one that nobody has lived to finish
            os.ftruncate(fd, 0)
            size, written = 0, _encode_header(SpoolPosition(self._host.wall_ms(), _HEADER_BYTES, 0)) + lines
        else:
            unfinished = os.pread(fd, 1, size - 1) != b"\n"
            written = TORN_MARK + b"\n" + lines if unfinished else lines
        if size + len(written) > self.max_bytes:
            raise SpoolError(
                "full",
                f"the spool is full: {self.max_bytes >> 20} MB, as PARLEY_SPOOL_MB allows",
            )
        faults.reach("before_spool")
        try:
            _write_all(fd, written, size)
            os.fsync(fd)
            if before == 0:
                self._sync_folder()
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, size)
            raise
        faults.reach("after_spool")

    def _file_size(self) -> int:
        try:
            return os.stat(self._file).st_size  # noqa: PTH116
        except FileNotFoundError:
            return 0

    def _sync_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _as_spool_error(error: OSError) -> SpoolError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return SpoolError("disk_full" if full else "failed", f"the spool cannot be written ({error.strerror})")


def _try_lock(fd: int) -> bool:
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_private(name: str, flags: int) -> int:
    return os.open(name, flags, _PRIVATE_MODE)


def _write_all(fd: int, written: bytes, at: int) -> None:
    left = memoryview(written)
    while left:
        done = os.pwrite(fd, left, at)
        left, at = left[done:], at + done


_encode_event = msgspec.msgpack.Encoder().encode
_decode_event = msgspec.msgpack.Decoder(SpooledEvent).decode


def encode_line(event: SpooledEvent) -> bytes:
    payload = _encode_event(event)
    return b"%08x %b" % (crc32(payload), b2a_base64(payload, newline=False))


def decode_line(line: bytes) -> SpooledEvent | bytes | None:
    """Return the event in a line; the line, if it cannot be read; None if there is nothing to hand over in it."""
    if line.startswith(DONE_MARK):
        return None
    try:
        return _decode_checked(line)
    except (ValueError, msgspec.MsgspecError):
        return None if line.endswith(TORN_MARK) else line


def _decode_checked(line: bytes) -> SpooledEvent:
    """Raises ValueError and MsgspecError."""
    check, _, written = line.partition(b" ")
    payload = a2b_base64(written, strict_mode=True)
    if check != b"%08x" % crc32(payload):
        raise ValueError("another checksum")
    return _decode_event(payload)


def _encode_header(place: SpoolPosition) -> bytes:
    """The file's first line, which always has the same length."""
    words = _HEADER_FORMAT.format(*place).encode()
    return b"%b %08x\n" % (words, crc32(words))


def _decode_header(head: bytes) -> SpoolPosition:
    words, _, check = head.rstrip(b"\n").rpartition(b" ")
    if len(head) < _HEADER_BYTES or check != b"%08x" % crc32(words):
        return SpoolPosition(0, _HEADER_BYTES, 0)
    _, begun, byte, lines = words.split(b" ")
    return SpoolPosition(int(begun), int(byte), int(lines))
