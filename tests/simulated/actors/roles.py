"""The lines of the Procfile as simulated processes: the real code, with its threads as actors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import dramatiq
import redis

from config.store import keyspace
from tests.simulated.world.scheduler import Process
from tests.simulated.world.simulated_provider import run_alone
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.clock.alarm_clock import MAX_TICK_S
from workers.clock.clock_steps import LONGEST_GAP_S
from workers.clock.stream_trimming import TRIM_INTERVAL_S
from workers.composition import (
    build_alarm_clock,
    build_answer_notes,
    build_invitation_pacer,
    build_turn_runner,
)
from workers.roles.clock import HOUSEKEEPING_INTERVAL_S, run_housekeeping, trim_streams
from workers.sending.bulkhead import SLOTS_PER_CHANNEL
from workers.sending.send_policy import SendAttempt
from workers.sending.send_steps import SendableSms, SendSteps
from workers.store.deployment import Deployment

T = TypeVar("T")


def begin_turns(world: SimulatedWorld, queue: str, process: Process) -> None:
    """Be `ratelimit` or `conversation`."""
    deployment = world.deployment(process)
    process.spawn("", lambda: _consume(deployment, queue, build_turn_runner(deployment).handle_wakeup))


async def _in_place(call: Callable[[], T]) -> T:
    """What would hold a loop up holds up nobody here, where each try is an actor."""
    return call()


def begin_delivery(world: SimulatedWorld, process: Process) -> None:
    """Be `delivery`."""
    deployment = world.deployment(process)
    ended: list[SendAttempt] = []
    slots = {name: _Slots() for name in world.providers}
    steps = SendSteps(
        deployment.outbox_store(),
        deployment.channel_store(),
        world.provider_clients(process),
        deployment.wakeup_broker(),
        b"log key",
        build_answer_notes(deployment),
        deployment.host,
        in_thread=_in_place,
    )

    def attempt(sendable: SendableSms) -> None:
        ended.append(run_alone(steps.run_attempt(sendable, lambda: False)))
        process.scheduler.notify(ended)

    def handle(_queue: str, senders: Sequence[str]) -> None:
        for sendable in steps.lease_sendable(senders, slots):
            slots[sendable.sms.channel].taken_slots += 1
            process.spawn("attempt", lambda sendable=sendable: attempt(sendable))

    def settle() -> None:
        while True:
            if not ended:
                process.scheduler.wait(ended)
            attempts, ended[:] = list(ended), []
            with suppress(redis.RedisError):
                steps.settle_attempts(attempts)
            for each in attempts:
                slots[each.sms.channel].taken_slots -= 1

    process.spawn("settle", settle)
    process.spawn("", lambda: _consume(deployment, keyspace.OUTBOUND_QUEUE, handle))


def begin_clock(world: SimulatedWorld, process: Process) -> None:
    """Be `clock`: alarms and invitations."""
    deployment = world.deployment(process)
    stop = _NeverStop(process, world.next_alarm_us)
    pacer = build_invitation_pacer(deployment)
    process.spawn("alarms", lambda: build_alarm_clock(deployment).run(stop))
    process.spawn(
        "invitations",
        lambda: _repeat(process, pacer.release_until_done, MAX_TICK_S, world.next_invitation_us),
    )


def begin_tidying(world: SimulatedWorld, process: Process) -> None:
    """Be the part of `clock` that forgets what need not be kept."""
    deployment = world.deployment(process)

    def trim_due_us() -> int | None:
        """When the oldest entry of all is too old; looks before that find nothing."""
        view, shards = world.lanes.view, range(world.settings.shards)
        oldest = [first for k in shards if (first := view.first_entry(keyspace.events_key(k)))]
        if not oldest:
            return None
        return (min(oldest)[0] + world.settings.stream_ms) * 1_000 - world.lanes.clock_ahead_us

    process.spawn(
        "trim", lambda: _repeat(process, lambda: trim_streams(deployment), TRIM_INTERVAL_S, trim_due_us)
    )
    process.spawn(
        "tidy", lambda: _repeat(process, lambda: run_housekeeping(deployment), HOUSEKEEPING_INTERVAL_S)
    )


class _NeverStop:
    """What a clock asks whether it is to stop: it never is, and waits meanwhile. After a tick that took long it looks again, though
    nothing is due: the server's clock may have been set meanwhile."""

    def __init__(self, process: Process, due_us: Callable[[], int | None]) -> None:
        self._process = process
        self._due_us = due_us
        self._woken_us = process.scheduler.now_us

    def wait(self, timeout_s: float) -> bool:
        scheduler = self._process.scheduler
        has_missed_some = scheduler.now_us - self._woken_us > LONGEST_GAP_S * 1_000_000
        if timeout_s > 0:
            scheduler.poll((lambda: 0) if has_missed_some else self._due_us, round(timeout_s * 1_000_000))
        self._woken_us = scheduler.now_us
        return False


class _Slots:
    def __init__(self) -> None:
        self.taken_slots = 0

    @property
    def free_slots(self) -> int:
        return SLOTS_PER_CHANNEL - self.taken_slots

    def slot_wait_ms(self) -> int:
        return 1_000


def _consume(deployment: Deployment, queue: str, handle: Callable[[str, Sequence[str]], None]) -> None:
    """Do as Dramatiq's worker with one thread. What Redis fails at is left to the alarms; whatever else fails is a finding."""
    broker = deployment.wakeup_broker()
    dramatiq.actor(broker=broker, actor_name=queue, queue_name=queue)(_unused_actor)
    consumer = broker.consume(queue)
    while True:
        with suppress(redis.RedisError, dramatiq.errors.BrokerConnectionError):
            message = next(consumer)
            if message is None:
                continue
            with _acknowledged(consumer, message):
                handle(queue, message.args[0])


@contextmanager
def _acknowledged(consumer: dramatiq.Consumer, message: dramatiq.MessageProxy) -> Iterator[None]:
    try:
        yield
    finally:
        consumer.ack(message)


def _unused_actor(senders: list[str]) -> None:
    """Stand where Dramatiq wants an actor."""


def _repeat(
    process: Process,
    work: Callable[[], object],
    interval_s: float,
    due_us: Callable[[], int | None] | None = None,
) -> None:
    """Do as run_periodically: what Redis fails at is done the next time."""
    interval_us = round(interval_s * 1_000_000)
    while True:
        with suppress(redis.RedisError):
            work()
        if due_us is None:
            process.scheduler.sleep_us(interval_us)
        else:
            process.scheduler.poll(due_us, interval_us)
