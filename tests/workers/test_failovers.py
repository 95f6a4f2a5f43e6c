"""A shard whose server has changed is looked at before anybody works on it, and marked is what may have left, and nothing
else. tests/faults/test_failovers.py does it with a replica."""

import msgspec
import pytest
import redis

from config.store import function_calls, keyspace, redis_client, stored_values
from config.store.outbox_states import OutboxOwner, encode_owner
from config.store.server_functions import ConfirmReply
from engine.model.effects import Effects
from engine.model.events import OutboundSms, decode_outbound, encode_event
from workers.store.channel_state import ChannelStore
from workers.store.failovers import FailoverGuard, NewServer, channel_state
from workers.store.lanes import LaneClaim, LaneDraft, LaneStore
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OutboxStore, OutboxUpdate

ANNA = "+33600000001"
SHARDS = 1
OUTBOX, LOCK, SERVER = keyspace.outbox_key(0, ANNA), keyspace.outbox_lock_key(0, ANNA), keyspace.server_key(0)
HOUR_MS = 3_600_000


@pytest.fixture
def lanes(client):
    return LaneStore(client, SHARDS, open_opt_out_list(client, SHARDS, ""), channels=["c"])


@pytest.fixture
def outboxes(client):
    return OutboxStore(client, SHARDS, channels=["c"])


@pytest.fixture
def tail_is_lost(client, monkeypatch):
    """Makes the server another that may have lost what was done last."""
    monkeypatch.setattr(NewServer, "writes_at_once", False)
    return lambda: client.hset(SERVER, "admitted", "00 00 0")


def sms(number=0, channel="c", decided=1):
    return OutboundSms(
        f"00000000000000aax{number}", channel, ANNA, "text", "00000000000000aa", decided=decided
    )


def queue(client, *queued):
    """SMS wait to be sent."""
    client.rpush(OUTBOX, *(stored_values.outbox_entry(each.channel, encode_event(each)) for each in queued))
    client.zadd(keyspace.outbox_alarms_key(0), {ANNA: 1})


def rest(client, state, for_ms, tag=""):
    now = redis_client.server_time_ms(client)
    fence = 7 if state in ("trying", "gone") else 0
    client.set(LOCK, f"{fence} {now + for_ms} 1 {now} {encode_owner(OutboxOwner(state, tag))}")


def uncertain(client):
    return [decode_outbound(entry.partition(b"\0")[2]).uncertain for entry in client.lrange(OUTBOX, 0, -1)]


STATES = {"done": "", "again": "", "untried": "", "booked": "7", "reserved": "aa", "gone": ""}


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_what_rested_beyond_the_moment_that_is_lost_is_not_marked(
    client, outboxes, tail_is_lost, state, over
):
    outboxes.lease_oldest([ANNA])
    queue(client, sms(0), sms(1))
    rest(client, state, -1 if over else HOUR_MS, STATES[state])
    tail_is_lost()
    outboxes.lease_oldest([ANNA])
    marked = over or state in ("reserved", "gone")
    assert uncertain(client) == [marked, marked]


def test_an_outbox_that_waited_for_nothing_is_marked_and_what_is_decided_later_is_not(
    client, outboxes, tail_is_lost
):
    outboxes.lease_oldest([ANNA])
    later = redis_client.server_time_ms(client) + HOUR_MS
    queue(client, sms(0), sms(1, decided=later))
    tail_is_lost()
    (lease,) = outboxes.lease_oldest([ANNA])
    assert uncertain(client) == [True, False]
    assert decode_outbound(lease.sms_bytes) == msgspec.structs.replace(sms(0), uncertain=True)
    assert 0 < lease.lost_before_ms <= lease.now


def test_the_sms_that_is_being_tried_is_left_as_its_holder_knows_it(client, outboxes, tail_is_lost):
    queue(client, sms(0), sms(1))
    (lease,) = outboxes.lease_oldest([ANNA])
    tail_is_lost()
    assert outboxes.lease_oldest([ANNA]) == []
    assert uncertain(client) == [False, True]
    outboxes.apply_updates([OutboxUpdate(lease, "done")])
    assert uncertain(client) == [True]


def test_what_waits_behind_an_sms_is_marked_before_that_is_settled(client, outboxes, tail_is_lost):
    """Its reply was lost with the server, which has no trace of the next one's lease."""
    queue(client, sms(0), sms(1))
    (lease,) = outboxes.lease_oldest([ANNA])
    tail_is_lost()
    outboxes.apply_updates([OutboxUpdate(lease, "done", rest_ms=HOUR_MS)])
    assert uncertain(client) == [True]


def test_what_waits_behind_a_reply_is_marked_though_its_receipt_comes_before_anybody_looks(
    client, outboxes, tail_is_lost
):
    """It went out in a webhook's answer."""
    outboxes.lease_oldest([ANNA])
    queue(client, msgspec.structs.replace(sms(0), uncertain=True), sms(1))
    rest(client, "entrusted", 20_000, "aa")
    tail_is_lost()
    confirmed = ConfirmReply(
        outbox_alarms=keyspace.outbox_alarms_key(0), events=keyspace.events_key(0), outbox=OUTBOX, outbox_lock=LOCK,
        tickets=keyspace.tickets_key(0, ANNA), server=SERVER, sender=ANNA, entry=client.lindex(OUTBOX, 0), others_unheard=0,
        pause_ms=HOUR_MS, records=b"r", ticket="t",
    )  # fmt: skip
    assert redis_client.run_command(client, function_calls.function_call(confirmed)) == 0
    assert outboxes.lease_oldest([ANNA]) == []  # it rests as if nothing had been confirmed
    assert uncertain(client) == [True, True]


def test_what_a_paused_channel_held_is_not_marked(client, outboxes, tail_is_lost):
    queue(client, sms(0), sms(1, channel="d"))
    ChannelStore(client, {}).pause("c", "why")
    tail_is_lost()
    outboxes.lease_oldest([ANNA])
    assert uncertain(client) == [False, False]


def test_a_rest_that_its_channel_may_have_ended_early_proves_nothing(client, outboxes, tail_is_lost):
    client.hset(keyspace.circuit_state_key("c"), "held", 1)
    queue(client, sms(0))
    outboxes.lease_oldest([ANNA])
    rest(client, "untried", HOUR_MS)
    tail_is_lost()
    outboxes.lease_oldest([ANNA])
    assert uncertain(client) == [True]


def test_many_shards_are_looked_at_in_as_many_round_trips_as_one(client, monkeypatch):
    """Those wait meanwhile whose shards were worked on in the same one."""
    monkeypatch.setattr(NewServer, "writes_at_once", False)
    trips = []
    send = redis_client._send
    monkeypatch.setattr(redis_client, "_send", lambda *of, **how: (trips.append(of), send(*of, **how))[1])

    def trips_with(shards):
        people = {keyspace.shard_of(each, shards): each for each in map("+336{:08d}".format, range(200))}
        outboxes = OutboxStore(client, shards, channels=["c"])
        outboxes.lease_oldest([*people.values()])
        for k in range(shards):
            client.zadd(keyspace.outbox_alarms_key(k), {people[k]: 1})
            client.hset(keyspace.server_key(k), "admitted", "00 00 0")
        trips.clear()
        outboxes.lease_oldest([*people.values()])
        assert not any(client.hexists(keyspace.server_key(k), "newcomer") for k in range(shards))
        return len(trips)

    assert trips_with(16) == trips_with(1)


@pytest.mark.parametrize(
    "paused, by_operator, held, probing, state",
    [
        (True, True, True, True, "paused"),
        (True, False, True, False, "paused"),
        (True, False, True, True, "reopening"),
        (False, False, True, False, "reopening"),
        (False, False, False, False, None),
    ],
)
def test_what_a_channel_let_leave_in_the_moment_that_is_lost(paused, by_operator, held, probing, state):
    assert channel_state(paused=paused, by_operator=by_operator, held=held, probing=probing) == state


def test_a_server_that_writes_at_once_and_one_that_only_changed_its_history_have_lost_nothing(
    client, outboxes
):
    queue(client, sms(0))
    outboxes.lease_oldest(["+33600000009"])
    admitted = client.hget(SERVER, "admitted")
    process, _, lost = admitted.split()
    for was in (b"00 00", process + b" 00"):
        client.hset(SERVER, "admitted", was + b" " + lost)
        (lease,) = outboxes.lease_oldest([ANNA])
        assert (lease.lost_before_ms, uncertain(client)) == (0, [False])
        assert client.hget(SERVER, "admitted") == admitted
        outboxes.apply_updates([OutboxUpdate(lease, "again")])


# Turns


def test_of_a_server_that_lacks_replicas_it_is_told_though_the_next_one_has_them(client, monkeypatch):
    """One shard was known and its lease is lost; the other is admitted by whoever took over."""
    lacking = redis_client.NotReplicatedError("leased", 0, 1)
    said = iter([[lacking, redis.ResponseError("UNKNOWNSERVER")], ["leased"]])
    monkeypatch.setattr(redis_client, "try_commands", lambda *_, **__: next(said))
    monkeypatch.setattr(FailoverGuard, "_admit_servers", lambda *_: {})
    assert FailoverGuard(client).run_commands([0, 1], [("PING",), ("PING",)], replicas=1) == [
        lacking,
        "leased",
    ]


def accept(client, text):
    commands, _ = function_calls.accept_commands(SHARDS, [(ANNA, False, text)])
    redis_client.run_commands(client, commands)


def claim(lanes) -> LaneClaim:
    (held,) = lanes.claim("replies", [ANNA]).claimed
    return held


def draft(held, **effects):
    return LaneDraft(claim=held, state=b"state", effects=Effects(**effects))


def test_mail_of_before_is_claimed_by_itself_and_what_it_decides_is_uncertain(client, lanes, tail_is_lost):
    lanes.claim("replies", [ANNA])
    accept(client, b"before")
    tail_is_lost()
    seen_ms = redis_client.server_time_ms(client)
    accept(client, b"notes that another server has come")
    assert int(client.hget(SERVER, "came_ms")) >= seen_ms
    accept(client, b"after")
    client.hset(
        SERVER, "came_ms", stored_values.mail_accepted_ms(client.lindex(keyspace.mailbox_key(0, ANNA), 0)) + 1
    )
    first = claim(lanes)
    assert (first.mail[0][14:], first.loss_possible) == (b"before", True)
    lanes.commit([draft(first, outbox=[sms(0)])])
    assert uncertain(client) == [True]


def test_mail_that_a_server_was_given_since_it_came_was_applied_nowhere_else(client, lanes, tail_is_lost):
    lanes.claim("replies", [ANNA])
    tail_is_lost()
    accept(client, b"after")
    held = claim(lanes)
    assert not held.loss_possible
    lanes.commit([draft(held, outbox=[sms(0)])])
    assert uncertain(client) == [False]


def test_a_deadline_of_before_may_have_been_applied(client, lanes, tail_is_lost):
    accept(client, b"1")
    held = claim(lanes)
    lanes.commit([draft(held, alarm=held.now)])
    tail_is_lost()
    again = claim(lanes)
    assert (again.mail, again.loss_possible) == ([], True)


def test_a_commit_of_a_claim_of_before_changes_nothing_but_one_that_was_made_is_known(
    client, lanes, tail_is_lost
):
    accept(client, b"1")
    made = draft(claim(lanes))
    lanes.commit([made])
    accept(client, b"2")
    held = claim(lanes)
    tail_is_lost()
    assert [each.succeeded for each in lanes.commit([draft(held, outbox=[sms(0)])])] == [False]
    assert client.llen(keyspace.mailbox_key(0, ANNA)) == 1
    assert uncertain(client) == []
    assert [each.succeeded for each in lanes.commit([made])] == [True]


def test_where_nothing_is_asked_no_replica_is_waited_for(valkey):
    client = valkey.client()
    waits = lambda: client.info("commandstats").get("cmdstat_wait", {"calls": 0})["calls"]  # noqa: E731
    before = waits()
    assert redis_client.try_commands(client, [], replicas=1) == []
    assert waits() == before
