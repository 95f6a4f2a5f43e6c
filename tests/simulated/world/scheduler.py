"""Runs actors, one call at a time, in virtual time.

An actor is a greenlet of a process. It runs until it asks something of the world: a call, a sleep, a wait. Then another is
next: who waits longest comes first, unless a fault says otherwise. Time goes on by a little with each call, and by as much as
is needed when nobody can go on. Nothing else moves it, so a run depends on its play and its schedule alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from traceback import format_exception
from typing import Any, Protocol

import msgspec
from greenlet import GreenletExit, getcurrent, greenlet
from redis import RedisError

from tests.simulated.world.faults import LONGEST_OVERSLEEP_MS, OVERSLEEP_MS, Fault, Place

CALL_US = 200
"""How long a call takes."""

START_US = 1_800_000_000_000_000
"""When every run begins, in microseconds since 1970: no day of the year is special."""

LOOKS_US = 5_000_000
"""For how long everybody looks who polls, once they are asked to."""

RESTART_MS = 1_000
"""A process that died is there again after so long."""


class Call(msgspec.Struct, frozen=True):
    """Something that an actor asks of a server or a provider. `perform` does it, with a fault of its own kind or none, and
    answers or raises; `menu` are the faults that may meet it beside those of any call, `weight` how often one should, beside
    other calls. It `takes` if it gives its process something that no other may have then."""

    what: str
    perform: Callable[[Fault | None], Any]
    menu: Sequence[Fault] = ()
    weight: float = 1.0
    takes: bool = False


class AnswerLater(Exception):
    """What `perform` raises for a call whose actor learns only after `after_us` what came of it: `answer`, or that it failed
    with `error`."""

    def __init__(self, after_us: int, answer: Any = None, error: Exception | None = None) -> None:
        super().__init__()
        self.after_us = after_us
        self.answer = answer
        self.error = error


class FaultSource(Protocol):
    def fault_at(self, place: Place, call: Call) -> Fault | None:
        """Which fault meets this call, if one does."""
        ...


class Process:
    """A process of the deployment: `begin` starts its actors, at first and after each death. One that is `outside` is not the
    deployment's, and nothing happens to it. `at_death` is what the machine does once a life is over: connections break."""

    def __init__(
        self, scheduler: "Scheduler", name: str, begin: Callable[["Process"], None], *, outside: bool = False
    ) -> None:
        self.scheduler = scheduler
        self.name = name
        self.outside = outside
        self.lives = 0
        self.is_alive = False
        self.frozen_until_us = 0
        self.started_us = 0
        self.oversleeps_us = 0
        self.takes_to_see = 0
        self.stopped_actors: list[Actor] = []
        self.actors: list[Actor] = []
        self.at_death: list[Callable[[], None]] = []
        self._begin = begin

    def start(self) -> None:
        self.lives += 1
        self.is_alive = True
        self.frozen_until_us = 0
        self.started_us = self.scheduler.now_us
        self._begin(self)

    def spawn(self, name: str, run: Callable[[], None]) -> "Actor":
        """Begin an actor, which is called after its process."""
        actor = Actor(self, f"{self.name}/{name}" if name else self.name, run)
        self.actors.append(actor)
        self.scheduler.add_actor(actor)
        return actor

    def die(self) -> None:
        """End as by kill -9, and be started again a little later."""
        self.is_alive = False
        for actor in self.actors:
            actor.is_over = True
        self.actors = []
        self.stopped_actors = []
        endings, self.at_death = self.at_death, []
        for end in endings:
            end()
        self.scheduler.at(self.scheduler.now_us + RESTART_MS * 1_000, self.start)

    def freeze(self, ms: int) -> None:
        self.frozen_until_us = max(self.frozen_until_us, self.scheduler.now_us + ms * 1_000)

    def oversleep(self, times: int) -> None:
        """Stand still until others have taken something so many times, beyond a lease."""
        self.freeze(LONGEST_OVERSLEEP_MS)
        self.oversleeps_us = self.scheduler.now_us + OVERSLEEP_MS * 1_000
        self.takes_to_see = times
        self.scheduler.oversleeping.append(self)

    def see_taking(self) -> bool:
        """Note that another process has taken something; whether that wakes this one."""
        if self.scheduler.now_us < self.oversleeps_us:
            return False
        self.takes_to_see -= 1
        if self.takes_to_see > 0:
            return False
        self.frozen_until_us = self.scheduler.now_us
        return True


class Actor:
    """One thread of a process. `calls` are counted through all lives of the process, by the actor's name."""

    def __init__(self, process: Process, name: str, run: Callable[[], None]) -> None:
        self.process = process
        self.name = name
        self.is_over = False
        self.pending: Call | None = None
        self.waits_for: object | None = None
        self.wait_number = 0
        self.answer: Any = None
        self.error: BaseException | None = None
        self.delay_steps = 0
        self.is_faulted = False
        self.greenlet = greenlet(self._run)
        self._work = run

    def _run(self) -> None:
        try:
            self._work()
        except GreenletExit:
            pass
        except RedisError:
            self.process.die()  # as a process does that cannot reach its server when it starts
        except Exception as e:  # noqa: BLE001 (whatever it was, it is a finding)
            self.process.scheduler.crashed(self, e)
        self.is_over = True
        if self in self.process.actors:
            self.process.actors.remove(self)


class _Poll(msgspec.Struct):
    actor: Actor
    earliest_us: int
    due_us: Callable[[], int | None]
    is_wanted: bool = False

    def moment_us(self) -> int | None:
        due = self.earliest_us if self.is_wanted else self.due_us()
        return None if due is None else max(due, self.earliest_us)


_BEFORE = ("delay", "freeze_before", "oversleep_before", "die_before")


class Scheduler:
    """The actors of a run, and its time. `observers` are called after each call that was made."""

    def __init__(self, faults: FaultSource) -> None:
        self.now_us = START_US
        self.observers: list[Callable[[], None]] = []
        self.crashes: list[str] = []
        self.oversleeping: list[Process] = []
        self.trace: Callable[[str], None] | None = None
        self._faults = faults
        self._hub = getcurrent()
        self._ready: deque[Actor] = deque()
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._polls: list[_Poll] = []
        self._looks_until_us = 0
        self._order = count()
        self._waiting: dict[int, list[Actor]] = {}
        self._calls: dict[str, int] = {}
        self._actors: list[Actor] = []
        self._is_closed = False
        self._current: Actor | None = None

    # What actors ask for

    @property
    def current(self) -> Actor:
        """The actor that runs."""
        assert self._current is not None, "nobody runs"
        return self._current

    @property
    def runs_actor(self) -> bool:
        return self._current is not None

    def call(self, call: Call) -> Any:
        """Make a call, as the actor that runs; answer what came of it, or raise it."""
        actor = self.current
        actor.pending = call
        self._ready.append(actor)
        return self._leave(actor)

    def sleep_us(self, us: int) -> None:
        actor = self.current
        self._wake_at(self.now_us + max(0, us), actor)
        self._leave(actor)

    def wait(self, token: object, timeout_us: int | None = None) -> None:
        """Let others run until `notify` is called with the token, or until so long has passed."""
        actor = self.current
        actor.waits_for = token
        self._waiting.setdefault(id(token), []).append(actor)
        if timeout_us is not None:
            self._wake_at(self.now_us + max(0, timeout_us), actor)
        self._leave(actor)

    def poll(self, due_us: Callable[[], int | None], interval_us: int) -> None:
        """Sleep for the interval at least, and then until something is due: as somebody who looks at every interval, but that
        looks which could find nothing are left out. `due_us` says when something is, of what is known now."""
        actor = self.current
        is_wanted = self.now_us < self._looks_until_us
        self._polls.append(_Poll(actor, self.now_us + interval_us, due_us, is_wanted))
        self._leave(actor)

    def look_at_polls(self) -> None:
        """Let everybody look who polls now or soon, though nothing is due: what they look at has changed otherwise."""
        self._looks_until_us = self.now_us + LOOKS_US
        for poll in self._polls:
            poll.is_wanted = True

    def notify(self, token: object) -> None:
        for actor in self._waiting.pop(id(token), ()):
            self._wake(actor, actor.wait_number)

    def at(self, us: int, action: Callable[[], None]) -> None:
        """Do something at a moment, whoever runs then."""
        heappush(self._timers, (us, next(self._order), action))

    def add_actor(self, actor: Actor) -> None:
        self._actors.append(actor)
        self._ready.append(actor)

    def crashed(self, actor: Actor, error: Exception) -> None:
        """Note that an actor ended with an error that nobody expected."""
        self.crashes.append(f"{actor.name}: {''.join(format_exception(error))}")

    # The run

    def run_until(self, us: int, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let actors run until this moment, until `is_over` says so while nobody can go on, or until one crashes."""
        while self.now_us < us and not self.crashes:
            self._begin_what_is_due()
            if self._ready:
                self._step(self._ready.popleft())
            elif is_over() or not self._advance(us):
                return

    def close(self) -> None:
        """End every actor."""
        self._is_closed = True
        for actor in self._actors:
            if not actor.greenlet.dead:
                self._current = actor
                actor.greenlet.parent = getcurrent()
                actor.greenlet.throw(GreenletExit)
        self._current = None

    def _leave(self, actor: Actor) -> Any:
        """Let the hub run, until it comes back to this actor."""
        if self._is_closed:
            raise GreenletExit
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        self._hub.switch()
        asyncio._set_running_loop(loop)
        if self._is_closed:
            raise GreenletExit
        error, actor.error = actor.error, None
        answer, actor.answer = actor.answer, None
        if error is not None:
            raise error
        return answer

    def _step(self, actor: Actor) -> None:
        """Make the call that an actor waits with, and let it go on to its next one."""
        process = actor.process
        if actor.is_over:
            return
        if self.now_us < process.frozen_until_us:
            self._stand_still(actor)
            return
        if actor.pending is not None and not self._make_call(actor):
            return
        self._resume(actor)

    def _make_call(self, actor: Actor) -> bool:
        """Make the pending call. Answers whether the actor goes on now."""
        call, process = actor.pending, actor.process
        assert call is not None
        if actor.delay_steps > 0 and self._ready:
            actor.delay_steps -= 1
            self._ready.append(actor)
            return False
        fault = None
        if not actor.is_faulted:
            number = self._calls.get(actor.name, 0)
            self._calls[actor.name] = number + 1
            fault = self._faults.fault_at(Place(actor.name, number), call)
        if fault is not None and fault.kind in _BEFORE:
            actor.is_faulted = True
            return self._fault_before(actor, fault)
        actor.is_faulted = False
        actor.pending = None
        self.now_us += CALL_US
        try:
            actor.answer = call.perform(fault)
        except AnswerLater as later:
            actor.answer, actor.error = later.answer, later.error
            if self.trace is not None:
                self.trace(
                    f"{self._describe(actor, call, fault)}, told in {later.after_us / 1_000_000:.4f} s"
                )
            self._wake_at(self.now_us + later.after_us, actor)
            return False
        except Exception as e:  # noqa: BLE001 (it is the actor's to handle)
            actor.error = e
        if self.trace is not None:
            self.trace(self._describe(actor, call, fault))
        for observe in self.observers:
            observe()
        if call.takes and self.oversleeping:
            self._wake_oversleepers(process)
        return fault is None or self._go_on_after(actor, fault)

    def _describe(self, actor: Actor, call: Call, fault: Fault | None) -> str:
        at_s = (self.now_us - START_US) / 1_000_000
        met = f" [{fault.kind} {fault.amount}]" if fault is not None else ""
        return f"{at_s:.4f} {actor.name}: {call.what}{met} -> {actor.error or actor.answer!r:.200}"

    def _go_on_after(self, actor: Actor, fault: Fault) -> bool:
        match fault.kind:
            case "die_after":
                actor.process.die()
            case "freeze_after":
                actor.process.freeze(fault.amount)
                self._stand_still(actor)
            case "oversleep_after":
                actor.process.oversleep(fault.amount)
                self._stand_still(actor)
            case _:
                return True
        return False

    def _wake_oversleepers(self, taker: Process) -> None:
        """Let those go on before anybody else who have waited for this."""
        for process in list(self.oversleeping):
            if process is not taker and process.see_taking():
                self.oversleeping.remove(process)
                self._ready.extendleft(process.stopped_actors)
                process.stopped_actors = []

    def _stand_still(self, actor: Actor) -> None:
        """Let an actor of a frozen process go on once that does."""
        process = actor.process
        process.stopped_actors.append(actor)
        self.at(process.frozen_until_us, lambda: self._thaw(process))

    def thaw(self, process: Process) -> None:
        """Let a process go on that is frozen."""
        process.frozen_until_us = min(process.frozen_until_us, self.now_us)
        self._thaw(process)

    def _thaw(self, process: Process) -> None:
        if process.is_alive and self.now_us >= process.frozen_until_us:
            self._ready.extend(process.stopped_actors)
            process.stopped_actors = []
            if process in self.oversleeping:
                self.oversleeping.remove(process)

    def _fault_before(self, actor: Actor, fault: Fault) -> bool:
        match fault.kind:
            case "delay":
                actor.delay_steps = fault.amount - 1
                self._ready.append(actor)
            case "freeze_before":
                actor.process.freeze(fault.amount)
                self._stand_still(actor)
            case "oversleep_before":
                actor.process.oversleep(fault.amount)
                self._stand_still(actor)
            case "die_before":
                actor.process.die()
        return False

    def _resume(self, actor: Actor) -> None:
        self._current = actor
        actor.greenlet.parent = self._hub
        actor.greenlet.switch()
        self._current = None

    def _begin_what_is_due(self) -> None:
        while self._timers and self._timers[0][0] <= self.now_us:
            heappop(self._timers)[2]()
        for poll in [each for each in self._polls if each.earliest_us <= self.now_us]:
            if poll.actor.is_over or (poll.moment_us() or self.now_us + 1) <= self.now_us:
                self._polls.remove(poll)
                self._ready.append(poll.actor)

    def _advance(self, until_us: int) -> bool:
        """Move on to what comes next. False if nothing does, by then."""
        moments = [moment for poll in self._polls if (moment := poll.moment_us()) is not None]
        if self._timers:
            moments.append(self._timers[0][0])
        next_us = min(moments, default=until_us)
        self.now_us = max(self.now_us, min(next_us, until_us))
        return next_us < until_us

    def _wake_at(self, us: int, actor: Actor) -> None:
        number = actor.wait_number
        self.at(us, lambda: self._wake(actor, number))

    def _wake(self, actor: Actor, number: int) -> None:
        """Let an actor go on that waits, unless it has gone on from there already."""
        if actor.wait_number != number or actor.is_over:
            return
        actor.wait_number += 1
        if actor.waits_for is not None:
            waiting = self._waiting.get(id(actor.waits_for), [])
            if actor in waiting:
                waiting.remove(actor)
            actor.waits_for = None
        self._ready.append(actor)
