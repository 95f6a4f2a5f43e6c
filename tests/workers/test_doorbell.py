"""Wake-ups through Dramatiq's own Worker: batched, held back while nobody is free, given back on a stop."""

from queue import Queue
from threading import Event

import dramatiq
import pytest
from dramatiq import Worker
from dramatiq.errors import QueueNotFound

from config.store import keyspace, redis_client
from workers.runtime.wakeup_broker import MAX_WAKEUP_BATCH, WAKEUP_BATCH, WakeupBroker, wakeup_batch

DEADLINE_S = 60


@pytest.fixture
def broker(valkey):
    client = valkey.client()
    redis_client.load_functions(client)
    return WakeupBroker(client)


@pytest.fixture
def woken():
    return Queue()


@pytest.fixture
def worker(broker):
    workers = []

    def start(wake):
        dramatiq.actor(wake, broker=broker, actor_name="replies", queue_name="replies")
        workers.append(Worker(broker, worker_threads=1))
        workers[0].start()
        return workers[0]

    yield start
    for each in workers:
        each.stop()


def senders(count):
    return [f"+336{i:08}" for i in range(count)]


def test_what_waits_is_taken_in_batches_in_the_order_rung(broker, worker, woken):
    broker.wake("replies", senders(WAKEUP_BATCH + 6))
    worker(woken.put)
    assert woken.get(timeout=DEADLINE_S) == senders(WAKEUP_BATCH + 6)[:WAKEUP_BATCH]
    assert woken.get(timeout=DEADLINE_S) == senders(WAKEUP_BATCH + 6)[WAKEUP_BATCH:]


@pytest.mark.parametrize("servers, most", [(1, WAKEUP_BATCH), (3, 3 * WAKEUP_BATCH), (99, MAX_WAKEUP_BATCH)])
def test_each_server_of_the_lanes_is_given_as_many_at_once_as_one_that_is_alone(monkeypatch, servers, most):
    monkeypatch.setattr(redis_client, "servers_of", lambda client: [client] * servers)
    assert wakeup_batch(object()) == most


def test_a_lone_wake_up_goes_straight_through(broker, worker, woken):
    worker(woken.put)
    broker.wake("replies", ["+33600000001"])
    assert woken.get(timeout=DEADLINE_S) == ["+33600000001"]


def test_a_message_sent_the_dramatiq_way_rings_the_same_bell(broker, woken):
    actor = dramatiq.actor(woken.put, broker=broker, actor_name="replies", queue_name="replies")
    actor.send(["+33600000001"])
    assert broker._redis.zcard(keyspace.wakeup_queue_key("replies")) == 1


def test_a_wake_up_cannot_be_delayed(broker, woken):
    actor = dramatiq.actor(woken.put, broker=broker, actor_name="replies", queue_name="replies")
    with pytest.raises(ValueError, match="alarm"):
        actor.send_with_options(args=([],), delay=1000)


def test_an_undeclared_queue_cannot_be_consumed(broker):
    with pytest.raises(QueueNotFound):
        broker.consume("nobody")


def test_a_busy_worker_leaves_the_rest_to_others_and_a_stopped_one_gives_back_what_it_had_not_begun(
    broker, worker, woken
):
    busy, done = Event(), Event()

    def wake(batch):
        woken.put(batch)
        busy.set()
        done.wait(DEADLINE_S)

    broker.wake("replies", senders(10 * WAKEUP_BATCH))
    running = worker(wake)
    assert busy.wait(DEADLINE_S)
    assert broker._redis.zcard(keyspace.wakeup_queue_key("replies")) >= 7 * WAKEUP_BATCH
    for thread in running.workers:
        thread.stop()
    done.set()
    running.stop()
    begun = sum(len(woken.get()) for _ in range(woken.qsize()))
    assert begun + broker._redis.zcard(keyspace.wakeup_queue_key("replies")) == 10 * WAKEUP_BATCH


def test_a_consumer_that_may_hold_no_more_does_not_go_round(valkey):
    """So that a process whose workers all hang is seen to."""
    rounds = []
    broker = WakeupBroker(valkey.client(), 1, lambda: rounds.append(1))
    redis_client.load_functions(valkey.client())
    dramatiq.actor(print, broker=broker, actor_name="replies", queue_name="replies")
    broker.wake("replies", senders(2))
    consumer = broker.consume("replies", prefetch=1)
    held = next(consumer)
    assert next(consumer) is None
    assert len(rounds) == 1
    consumer.ack(held)
    assert next(consumer) is not None
    assert len(rounds) == 2
