"""Hands over what is spooled where the lanes are on a cluster: of each shard whose server is there, in order, whatever became of the
others. ingest/intake/spool.py states the law.

A pass goes from the first line that is not handed over to the end. A line of a shard whose server is away is left, and with it
all that follow of the shard, until the next pass. A part of a pass is what SpoolDrain calls one: once the mailboxes have it, that
is noted, and only then the next is read. What was looked through once, and has only lines that are left, is not read again
until a server of them is back.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from math import inf
from typing import Protocol

import msgspec
import structlog

from config.host import THIS_HOST, Host
from config.store import keyspace
from config.telemetry import faults
from ingest.intake.mailboxes import (
    WRITE_TIMEOUT_S,
    AsyncRedisClient,
    MailboxWriter,
    RedisUnavailableError,
    WrongRedisTypeError,
    shard_keys,
)
from ingest.intake.shard_marks import ShardMarks
from ingest.intake.spool import (
    FIRST_PART_EVENTS,
    LARGEST_PART_EVENTS,
    PART_TIMEOUT_S,
    Spool,
    SpooledEvent,
    SpoolLine,
    SpoolPosition,
    decode_line,
    encode_line,
)

log = structlog.get_logger()

LINES_PER_STEP = 512
"""Lines that are looked through in one go."""


class PutAside(Protocol):
    """Keeps lines that cannot be handed over."""

    async def __call__(self, lines: Sequence[bytes], why: str) -> None: ...


class _Pass(msgspec.Struct):
    """How far a pass is: at `byte`, with `left` lines before it that are not handed over, the first at `first_left`, of the
    shards `left_shards`. `place` is what is noted in the file. Shards that are `there` are handed over. Of `marks` there are so
    many; those of `left_marks` stay."""

    place: SpoolPosition
    byte: int
    there: set[int]
    marks: int
    left: int = 0
    first_left: int = 0
    left_shards: frozenset[int] = frozenset()
    left_marks: frozenset[int] = frozenset()


class _Step(msgspec.Struct):
    """Lines that were looked through, up to the byte `end`: events to hand over, lines that nobody can read, how many have nothing
    to hand over, and those that are left, with their senders. `last` says that no line follows."""

    end: int
    last: bool
    events: list[tuple[SpoolLine, SpooledEvent]] = []
    damaged: list[SpoolLine] = []
    empty: int = 0
    left: list[tuple[SpoolLine, str]] = []


class ShardDrain:
    """The drain of a spool that has marks. Whoever calls it has the drain lock."""

    def __init__(
        self,
        spool: Spool,
        marks: ShardMarks,
        mailboxes: MailboxWriter,
        lanes: AsyncRedisClient,
        put_aside: PutAside,
        host: Host = THIS_HOST,
    ) -> None:
        self._spool = spool
        self._marks = marks
        self._mailboxes = mailboxes
        self._lanes = lanes
        self._put_aside = put_aside
        self._host = host
        self._shards = mailboxes.shards
        self._keys = shard_keys(self._shards)
        self._last_pass: _Pass | None = None

    async def drain(self, stopping: asyncio.Event) -> None:
        """Hand over what there is of shards whose server is there. Raises SpoolError and OSError; what was handed over by then is
        noted."""
        there = await self._shards_there()
        run = await asyncio.to_thread(self._begin_pass, there)
        most = FIRST_PART_EVENTS
        while run.there and not stopping.is_set():
            settled = await asyncio.to_thread(self._spool.settled_bytes)
            while run.byte < settled and run.there and not stopping.is_set():
                step = await asyncio.to_thread(self._look_through, run, most, settled)
                if step.end == run.byte:
                    break
                await self._hand_over(run, step, PART_TIMEOUT_S)
                most = min(2 * most, LARGEST_PART_EVENTS)
            if run.there and not stopping.is_set() and await self._end_pass(run):
                return

    async def _shards_there(self) -> set[int]:
        silent = await self._lanes.find_silent(self._keys)
        return {k for k, key in enumerate(self._keys) if key not in silent}

    def _begin_pass(self, there: set[int]) -> _Pass:
        """Where the last pass ended, if nobody has handed over anything since and no server is back of which it left lines. Shards
        that have no mark are not there, as nothing is in the file of theirs but what comes in meanwhile."""
        with self._spool.locked_file():
            self._marks.add((), anew=False)  # there may be none, of a time with one server
            marked = self._marks.read()
        if len(marked.marks) == self._shards:
            there = {k for k in there if marked.is_marked(k)}
        place, last = self._spool.read_position(), self._last_pass
        if (
            last is not None
            and last.place == place
            and last.marks == len(marked.marks)
            and not last.left_shards & there
        ):
            return msgspec.structs.replace(last, there=there)
        counted = self._spool.count_lines(place.byte)
        return _Pass(place._replace(lines=counted), place.byte, there, len(marked.marks))

    def _look_through(self, run: _Pass, most: int, until: float) -> _Step:
        lines, end, last = self._spool.read_lines(run.byte, LINES_PER_STEP, until)
        step = _Step(end, last)
        for line in lines:
            if len(step.events) == most:
                step.end, step.last = line.byte, False
                break
            match decode_line(line.written) if line.written else None:
                case SpooledEvent() as event if keyspace.shard_of(event.sender, self._shards) in run.there:
                    step.events.append((line, event))
                case SpooledEvent() as event:
                    step.left.append((line, event.sender))
                case bytes():
                    step.damaged.append(line)
                case None:
                    step.empty += 1
        return step

    async def _hand_over(self, run: _Pass, step: _Step, within_s: float) -> None:
        """Put what a step found into the mailboxes, note it, and go on with the pass behind it."""
        faults.reach("before_hand_over")
        failed = await self._deliver([event for _, event in step.events], within_s)
        faults.reach("after_hand_over")
        if step.damaged:
            await self._put_aside([line.written for line in step.damaged], "they cannot be read")
        left = [(line, event.sender) for line, event in step.events if event.sender in failed]
        done = [line for line, event in step.events if event.sender not in failed]
        await asyncio.to_thread(self._note, run, step, done, sorted([*step.left, *left]))
        faults.reach("after_move")

    def _note(
        self, run: _Pass, step: _Step, done: Sequence[SpoolLine], left: Sequence[tuple[SpoolLine, str]]
    ) -> None:
        handed_over = [*done, *step.damaged]
        run.place = run.place._replace(lines=run.place.lines + len(handed_over) + step.empty)
        if handed_over:
            self._spool.mark_done(run.place, handed_over)
        if left and not run.left:
            run.first_left = left[0][0].byte
        run.left += len(left)
        shards = {keyspace.shard_of(sender, self._shards) for _, sender in left}
        run.left_shards |= shards
        run.left_marks |= {keyspace.shard_of(sender, run.marks) for _, sender in left}
        run.there -= run.left_shards | self._shards_beside(run.there & shards)
        run.byte = step.end

    def _shards_beside(self, shards: Collection[int]) -> set[int]:
        """Return all that are on the servers of these, which have just taken nothing."""
        servers = {self._lanes.server_of(self._keys[k]) for k in shards}
        return {k for k, key in enumerate(self._keys) if servers and self._lanes.server_of(key) in servers}

    async def _deliver(self, events: Sequence[SpooledEvent], within_s: float) -> Collection[str]:
        """Put events into their mailboxes, and aside those that never can be. Return whose are in none yet."""
        if not events:
            return ()
        failed = await self._mailboxes.try_accept_spooled(events, within_s)
        hopeless = {sender for sender, error in failed.items() if isinstance(error, WrongRedisTypeError)}
        away = failed.keys() - hopeless
        for event in events:
            if event.sender in hopeless - away:
                again = await self._mailboxes.try_accept_spooled([event], within_s)
                match again.get(event.sender):
                    case WrongRedisTypeError():
                        await self._put_aside(
                            [encode_line(event)], "what lies at their mailbox's name is none"
                        )
                    case RedisUnavailableError():
                        away |= {event.sender}
        return away

    async def _end_pass(self, run: _Pass) -> bool:
        """Hand over the last part while nobody can write, and let only shards of which something is left keep their marks. Return
        False if another part follows after all."""
        with ExitStack() as stack:
            file = await asyncio.to_thread(stack.enter_context, self._spool.locked_file())
            step = await asyncio.to_thread(self._look_through, run, LARGEST_PART_EVENTS, inf)
            if not step.last:
                return False
            await self._hand_over(run, step, WRITE_TIMEOUT_S)
            faults.reach("before_finish")
            await asyncio.to_thread(self._finish, run, file)
        faults.reach("after_finish")
        if not run.left:
            log.info(
                "what was spooled is handed over", events=run.place.lines, seconds=self._age_s(run.place)
            )
        return True

    def _finish(self, run: _Pass, file: int) -> None:
        if not run.left:
            self._spool.truncate_file(file)
            self._last_pass = None
            return
        run.place = run.place._replace(byte=run.first_left)
        self._spool.mark_done(run.place, [])
        self._marks.keep(run.left_marks, run.marks)
        self._last_pass = run

    def _age_s(self, place: SpoolPosition) -> float | None:
        return round((self._host.wall_ms() - place.begun_ms) / 1000, 1) if place.begun_ms else None
