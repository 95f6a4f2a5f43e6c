"""One sender's ten thousand SMS keep nobody waiting, and are handled in order, within their leases."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from config.settings.settings import DEFAULT_SHARDS
from config.store import function_calls, keyspace, redis_client
from config.store.stored_values import LANE_LEASE_MS
from engine.model.events import InboundSms, encode_event
from tests.soak import ledger
from tests.support import audit, clinic
from tests.support.person import inbound
from tests.support.waiting import until

HOT = clinic.number(99_999)
SMS = 10_000
AT_ONCE = 500
SHARDS = DEFAULT_SHARDS


def flood(redis, broker, over):
    """As `web` does, which would take longer over it: at least so many, and on until it is `over`. Answers how many."""
    mailbox = keyspace.mailbox_key(keyspace.shard_of(HOT, SHARDS), HOT)
    said = 0
    while said < SMS or not over.is_set():
        events = [
            (HOT, False, encode_event(InboundSms(f"{number:016x}", clinic.CHANNEL, f"said {number}")))
            for number in range(said, said + AT_ONCE)
        ]
        commands, _ = function_calls.accept_commands(SHARDS, events)
        redis_client.run_commands(redis, commands)
        redis_client.run_command(broker, function_calls.wake_command(keyspace.REPLIES_QUEUE, [HOT]))
        said += AT_ONCE
        until(lambda: redis.llen(mailbox) < SMS // 2, 60, "half of it is handled")
    return said


def test_a_flood_from_one_sender_keeps_nobody_waiting(deployment, play, own_valkey):
    redis, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    deployment.start()
    play.hold(range(10))
    play.crowd.post([inbound(HOT, "START")])
    over = Event()
    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood, redis, broker, over)
        try:
            others = play.hold(range(100, 150), every_s=0.02)
        finally:
            over.set()
        said = flooding.result()
    lags_s = sorted(lag for person in others for lag in person.lags_s)
    assert lags_s[len(lags_s) * 95 // 100] < LANE_LEASE_MS / 1_000, (
        "a lease, or the flood's end, was waited for"
    )
    audit.settle(redis, broker, deadline_s=120)
    heard = [text for _, text in ledger.stories(redis)[HOT].heard]
    assert heard == ["START", *(f"said {number}" for number in range(said))]
    assert not any(redis.exists(keyspace.dead_letters_key(k)) for k in range(SHARDS))
