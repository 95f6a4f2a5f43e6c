"""Poison: wake-ups and mail that cannot be read, and events that fail, or take their worker with them. Only they are put
aside, and everybody else is answered."""

import pytest

from config.settings.settings import DEFAULT_SHARDS
from config.store import function_calls, keyspace, redis_client
from tests.support import audit, clinic
from tests.support.person import inbound
from tests.support.processes import odd_process
from tests.support.waiting import until
from workers.store import dead_letter_store
from workers.turns.drafts import MAX_CLAIM_ATTEMPTS

SHARDS = DEFAULT_SHARDS


def put_aside(redis):
    """(sender, reason) of every dead letter."""
    return sorted(
        (each.sender, each.reason)
        for k in range(SHARDS)
        for each in dead_letter_store.scan_unordered(redis, k)
    )


def test_events_that_kill_or_fail_are_put_aside_alone(deployment, play, octopush, own_valkey):
    """Some kill every worker that reads them, at once or by exiting, one takes all memory, one raises: each ends as a dead
    letter, its neighbours are answered meanwhile, and so is what comes after it."""
    poisoned = {
        clinic.number(place): word for place, word in enumerate(("deadly", "fatal", "greedy", "faulty"))
    }
    redis = own_valkey.client()
    deployment.start(conversation=0)
    odd_process(deployment, "conversation", "deadly+lease-1s")
    with deployment.respawning():
        for number, word in poisoned.items():
            play.crowd.post([inbound(number, text) for text in ("START", word)])
        play.hold(range(10, 16))
        until(lambda: len(put_aside(redis)) == len(poisoned), 90, "all of it is put aside")
        reasons = dict.fromkeys(poisoned, "engine_error") | dict.fromkeys(list(poisoned)[:2], "worker_died")
        assert put_aside(redis) == sorted(reasons.items())
        for number in poisoned:
            play.crowd.post([inbound(number, "Ada")])
            until(
                lambda number=number: len(octopush.accepted(number)) == 2,
                30,
                "what came after it is answered",
            )


def test_an_event_that_kills_is_put_aside_where_there_is_no_other_traffic(
    deployment, play, octopush, own_valkey
):
    """Nothing but the event itself ever comes to the one worker of its queue."""
    redis, number = own_valkey.client(), clinic.number(0)
    deployment.start(conversation=0)
    play.crowd.post([inbound(number, "START")])
    until(lambda: octopush.accepted(number), 30, "they are asked")
    play.crowd.post([inbound(number, "deadly")])
    odd_process(deployment, "conversation", "deadly+lease-1s")
    with deployment.respawning():
        until(lambda: put_aside(redis) == [(number, "worker_died")], 60, "it is put aside")
    (letter,) = dead_letter_store.scan_unordered(redis, keyspace.shard_of(number, SHARDS))
    assert letter.attempts == MAX_CLAIM_ATTEMPTS + 2  # the one that would have told more of it died as well


@pytest.mark.parametrize("oddity, fault", [("sick+lease-1s", ""), ("lease-1s", "before_commit")])
def test_a_release_that_dies_at_every_turn_buries_nobody(
    deployment, play, octopush, own_valkey, oddity, fault
):
    """However often its workers die, the events that they met are answered by the next release."""
    redis, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    people = [clinic.number(place) for place in range(3)]
    deployment.start(conversation=0)
    play.crowd.post([inbound(number, "START") for number in people])
    until(lambda: all(map(octopush.accepted, people)), 30, "they are asked")
    play.crowd.post([inbound(number, "Ada") for number in people])
    worker = odd_process(deployment, "conversation", oddity, fault)

    def dies() -> bool:
        redis_client.run_command(broker, function_calls.wake_command(keyspace.REPLIES_QUEUE, people))
        return not worker.alive

    for _ in range(MAX_CLAIM_ATTEMPTS + 2):
        until(dies, 30, "it dies of whatever it takes up")
        worker.restart(fault)
    worker.kill9()
    deployment.spawn("conversation")
    until(lambda: all(len(octopush.accepted(number)) == 2 for number in people), 30, "they are answered")
    assert put_aside(redis) == []


def test_wake_ups_and_mail_that_cannot_be_read_harm_nobody(deployment, play, own_valkey):
    redis, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    deployment.start()
    broken, stranger = clinic.number(1), clinic.number(2)
    (entry,), _ = function_calls.accept_commands(SHARDS, [(broken, False, b"\xc1 no event")])
    redis_client.run_command(redis, entry)
    for queue in (keyspace.STARTS_QUEUE, keyspace.REPLIES_QUEUE, keyspace.OUTBOUND_QUEUE):
        broker.zadd(
            keyspace.wakeup_queue_key(queue),
            {b"\xff\xfe": 1, b"": 2, b"x" * 100_000: 3, stranger.encode(): 4},
        )
    play.hold(range(10, 16))
    play.judge()
    until(lambda: put_aside(redis) == [(broken, "undecodable")], 30, "the mail is put aside")
    audit.settle(redis, broker)
