"""Where the wake-ups lie in another database of the lanes' own server, the functions that accept and commit ring there themselves."""

import pytest
import redis

from config.store import function_calls, keyspace, redis_client
from engine.model.effects import Effects
from engine.model.events import InboundSms, OutboundSms, encode_event
from workers.store.lanes import LaneDraft, LaneStore
from workers.store.optouts import open_opt_out_list

pytestmark = pytest.mark.one_server(
    "where the lanes are on a cluster, the wake-ups are not in a database of theirs"
)

ANNA, BORIS = "+33600000001", "+33600000002"
SHARDS = 4
DATABASE = 1


@pytest.fixture
def bells(valkey):
    return valkey.client(valkey.broker_url)


@pytest.fixture
def lanes(client):
    return LaneStore(client, SHARDS, open_opt_out_list(client, SHARDS, ""), bells_database=DATABASE)


def accept(client, *events):
    """Whom is whoever called left to wake for each of these (sender, is a START, event)?"""
    commands, positions = function_calls.accept_commands(SHARDS, events, bells_database=DATABASE)
    answers = redis_client.run_commands(client, commands)
    wakes = {
        at: wake for ats, of in zip(positions, answers, strict=True) for at, wake in zip(ats, of, strict=True)
    }
    return [wakes[at] for at in range(len(events))]


def rung(bells):
    """Who is rung for, by queue."""
    return {
        queue: {sender.decode() for sender in bells.zrange(keyspace.wakeup_queue_key(queue), 0, -1)}
        for queue in keyspace.QUEUES
    }


def answer(claim, text="Hello"):
    """A turn that says this."""
    sms = OutboundSms("1", "clinic", claim.sender, text, "")
    return LaneDraft(claim=claim, state=b"state", effects=Effects(outbox=[sms]))


def test_what_is_accepted_is_rung_for_in_the_same_call(client, bells):
    assert accept(client, (ANNA, True, b"start"), (BORIS, False, b"reply")) == [0, 0]
    assert rung(bells) == {"starts": {ANNA}, "replies": {BORIS}, "outbound": set()}
    assert bells.dbsize() == 2  # nothing else went there
    assert not client.keys("bell:*")


def test_a_call_that_rings_leaves_those_that_follow_in_the_lanes_database(client, lanes, bells):
    """Mail of several shards is accepted in one command, and so are turns committed."""
    senders = {f"+336000000{number}" for number in range(10, 30)}
    assert {keyspace.shard_of(sender, SHARDS) for sender in senders} == set(range(SHARDS))
    accept(client, *((sender, False, b"reply") for sender in senders))
    assert rung(bells) == {"starts": set(), "replies": senders, "outbound": set()}
    assert bells.dbsize() == 1
    claimed = lanes.claim("replies", [*senders]).claimed
    assert {claim.sender for claim in claimed} == senders
    assert all(each.succeeded for each in lanes.commit([answer(claim) for claim in claimed]))
    assert rung(bells)["outbound"] == senders
    assert bells.dbsize() == 2


def test_nobody_is_rung_for_whose_mail_was_waiting_already(client, bells):
    accept(client, (ANNA, False, b"1"))
    bells.flushdb()
    assert accept(client, (ANNA, False, b"2")) == [0]
    assert rung(bells)["replies"] == set()


def test_both_queues_are_rung_for_what_may_be_a_stop(client, bells):
    stop = encode_event(InboundSms("1", "clinic", ANNA, "STOP", 1, may_be_stop=True))
    assert accept(client, (ANNA, False, stop)) == [0]
    assert rung(bells) == {"starts": {ANNA}, "replies": {ANNA}, "outbound": set()}


def test_a_commit_rings_for_its_sms_and_for_what_mail_is_left(client, lanes, bells):
    accept(client, (ANNA, False, b"reply"), (ANNA, True, b"start"))
    (claim,) = lanes.claim("replies", [ANNA]).claimed
    bells.flushdb()
    (committed,) = lanes.commit([answer(claim)])
    assert (committed.succeeded, committed.wake_queues, committed.wake_delivery) == (True, (), False)
    assert rung(bells) == {"starts": {ANNA}, "replies": set(), "outbound": {ANNA}}


def test_a_commit_whose_reply_was_lost_rings_again(client, lanes, bells):
    accept(client, (ANNA, False, b"reply"))
    (claim,) = lanes.claim("replies", [ANNA]).claimed
    lanes.commit([answer(claim)])
    bells.flushdb()
    (committed,) = lanes.commit([answer(claim)])
    assert (committed.succeeded, committed.wake_delivery) == (True, False)
    assert rung(bells)["outbound"] == {ANNA}


def test_a_commit_that_changes_nothing_rings_for_nobody(client, lanes, bells):
    accept(client, (ANNA, False, b"reply"))
    (claim,) = lanes.claim("replies", [ANNA]).claimed
    client.delete(keyspace.lane_lock_key(keyspace.shard_of(ANNA, SHARDS), ANNA))
    bells.flushdb()
    assert not lanes.commit([answer(claim)])[0].succeeded
    assert bells.dbsize() == 0


def test_whoever_called_rings_where_the_function_may_not(client, valkey, bells):
    """A user of one's own, who may not go to another database: what is accepted stands, and nothing lies beside the lanes."""
    client.acl_setuser(
        "lanes", enabled=True, nopass=True, categories=["+@all"], keys=["*"], commands=["-select"]
    )
    try:
        with redis.Redis(
            host=valkey.primaries[0].host,
            port=valkey.primaries[0].port,
            username="lanes",
            password="any",
            protocol=2,
        ) as bound:
            assert accept(bound, (ANNA, False, b"reply"), (BORIS, True, b"start")) == [2, 1]
    finally:
        client.acl_deluser("lanes")
    assert not [*client.keys("bell:*"), *bells.keys()]
    assert client.llen(keyspace.mailbox_key(keyspace.shard_of(ANNA, SHARDS), ANNA)) == 1


def test_whoever_called_rings_where_something_else_lies_in_a_bells_place(client, lanes, bells):
    for queue in keyspace.QUEUES:
        bells.set(keyspace.wakeup_queue_key(queue), "no bell")
    assert accept(client, (ANNA, False, b"reply")) == [2]
    (claim,) = lanes.claim("replies", [ANNA]).claimed
    (committed,) = lanes.commit([answer(claim)])
    assert (committed.succeeded, committed.wake_delivery) == (True, True)
