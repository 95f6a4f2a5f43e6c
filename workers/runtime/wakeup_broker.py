"""Dramatiq's broker for wake-ups: a queue is a bell, a message is "these senders have mail".

Wake-ups are hints, and the lane is the truth, so nothing here needs to survive: a wake-up lost with its worker is
rung again by the lane's alarm, one rung twice finds nothing to do. That is why there are no acknowledgements, no
heartbeats, no redelivery and no dead-letter queue, and none of their faults. The bell is a sorted set, so that a
lane rung twice before anyone comes is woken once; a consumer waits on it with a blocking pop and takes what has
gathered, up to BATCH senders in one message, which is how batches form without anyone waiting for one.
"""

from collections.abc import Callable, Iterable
from threading import Condition

import redis
from dramatiq import Broker, Consumer, Message, MessageProxy
from dramatiq.actor import Actor
from dramatiq.errors import BrokerConnectionError, QueueNotFound

from config.store import function_calls, keyspace, redis_client
from config.telemetry import faults

WAKEUP_BATCH = 128
"""Senders in one message at the most: twice 64 gave a tenth more turns a second, as fsyncs are shared. Of a cluster as many for each
primary, which took a tenth less CPU of three."""

MAX_WAKEUP_BATCH = 1_024
"""But no more than this, so that those who came last wait for no long batch."""

POP_TIMEOUT_S = 1.0
"""How long one blocking pop waits, and so how soon a consumer notices that it should stop."""


def wakeup_batch(lanes: redis.Redis) -> int:
    """Return how many senders in one message give each server of the lanes as many as one has alone. Raises redis.RedisError."""
    return min(MAX_WAKEUP_BATCH, WAKEUP_BATCH * len(redis_client.servers_of(lanes)))


class WakeupBroker(Broker):
    """A Dramatiq broker whose queues are bells in `client`'s Redis. One actor a queue, called with senders. `went_round` is called
    whenever a consumer is about to look, unless all that it may hold is being worked on."""

    def __init__(
        self,
        client: redis.Redis,
        batch: int = WAKEUP_BATCH,
        went_round: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(middleware=[])
        self._redis = client
        self._batch = batch
        self.went_round = went_round
        self._actor_of: dict[str, str] = {}

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def declare_actor(self, actor: Actor) -> None:  # type: ignore[type-arg]
        self._actor_of[actor.queue_name] = actor.actor_name
        super().declare_actor(actor)

    def enqueue(self, message: Message, *, delay: int | None = None) -> Message:  # type: ignore[type-arg]
        if delay is not None:
            raise ValueError("a wake-up cannot be delayed: a lane that wants one later has an alarm")
        self.wake(message.queue_name, message.args[0])
        return message

    def wake(self, queue: str, senders: Iterable[str]) -> None:
        """Wake a worker of `queue` for these senders, at least once each."""
        redis_client.run_command(self._redis, function_calls.wake_command(queue, senders))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> Consumer:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)  # type: ignore[no-untyped-call]
        return _WakeupConsumer(
            self, self._redis, queue_name, self._actor_of[queue_name], prefetch, self._batch
        )


class _WakeupConsumer(Consumer):
    """Pops what has gathered on a bell, and holds back while `prefetch` messages are being worked on."""

    def __init__(
        self, broker: WakeupBroker, client: redis.Redis, queue: str, actor: str, prefetch: int, batch: int
    ) -> None:
        self._broker = broker
        self._redis = client
        self._queue = queue
        self._actor = actor
        self._free_capacity = prefetch
        self._command = ("BZMPOP", POP_TIMEOUT_S, 1, keyspace.wakeup_queue_key(queue), "MIN", "COUNT", batch)
        self._freed = Condition()

    def __next__(self) -> MessageProxy | None:
        with self._freed:
            if not self._freed.wait_for(lambda: self._free_capacity > 0, timeout=POP_TIMEOUT_S):
                return None
        self._broker.went_round()
        senders = self._pop_senders()
        if not senders:
            return None
        faults.reach("after_fetch")
        with self._freed:
            self._free_capacity -= 1
        return MessageProxy(
            Message(queue_name=self._queue, actor_name=self._actor, args=(senders,), kwargs={}, options={})
        )

    def _pop_senders(self) -> list[str]:
        try:
            popped = redis_client.run_command(self._redis, self._command)
        except redis.RedisError as e:
            raise _connection_error(e) from e
        return [sender.decode() for sender, _ in popped[1]] if popped else []

    def ack(self, message: MessageProxy) -> None:
        with self._freed:
            self._free_capacity += 1
            self._freed.notify()

    nack = ack  # a worker that failed has lost a hint; the lane's alarm has it still

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Ring again for what was popped and not begun, so that others need not wait for the alarm."""
        try:
            for message in messages:
                self._broker.wake(self._queue, message.args[0])
        except redis.RedisError as e:
            raise _connection_error(e) from e


def _connection_error(e: redis.RedisError) -> BrokerConnectionError:
    return BrokerConnectionError(f"the broker's Redis does not answer: {e}")  # type: ignore[no-untyped-call]
