"""Poison: wake-ups and mail that cannot be read, and events that fail, or take their worker with them. Only they are put
aside, and everybody else is answered."""

from config.store import function_calls, keyspace, redis_client
from tests.support import audit, clinic
from tests.support.person import inbound
from tests.support.processes import odd_process
from tests.support.waiting import until
from workers.store import dead_letter_store

SHARDS = 16


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
