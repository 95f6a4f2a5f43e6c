"""A server's clock that is set back, for every function that compares a stored moment with it: nothing waits for longer
than it could have waited."""

import pytest

from config.host import Host
from config.store import keyspace, redis_client
from config.store.function_calls import accept_commands, function_call
from config.store.server_functions import AcquirePermits, LeasedOutbox, LeaseSms, ReserveOutbox, TakeTokens
from config.store.stored_values import parse_lock
from engine.model.effects import Effects
from engine.model.events import OutboundSms
from tests.support.stepped_functions import OFFSET_KEY, load_stepped_functions, step_functions
from workers.clock.alarm_clock import AlarmClock
from workers.clock.clock_steps import ClockStepDetector, behind_fences_ms
from workers.store.lanes import LaneDraft, LaneStore
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OutboxStore, OutboxUpdate

ANNA, BORIS = "+33600000001", "+33600000002"
SHARDS = 4
EACH_ALONE = [[k] for k in range(SHARDS)]
HOUR_S = 3_600
PAUSE_MS = 2_000


class Waker:
    def __init__(self):
        self.woken = []

    def wake(self, queue, senders):
        self.woken += [(queue, sender) for sender in senders]

    def take(self):
        woken, self.woken = self.woken, []
        return woken


@pytest.fixture
def client(own_valkey):
    client = own_valkey.client()
    load_stepped_functions(client)
    return client


@pytest.fixture
def lanes(client):
    return LaneStore(client, SHARDS, open_opt_out_list(client, SHARDS, ""))


@pytest.fixture
def outboxes(client):
    return OutboxStore(client, SHARDS, longest_pause_ms=PAUSE_MS)


@pytest.fixture
def waker():
    return Waker()


@pytest.fixture
def clock(client, waker, outboxes):
    return AlarmClock(client, EACH_ALONE, waker, outboxes)


def accept(client, sender):
    (command,), _ = accept_commands(SHARDS, [(sender, False, b"event")])
    redis_client.run_command(client, command)


def speak(client, lanes, sender, *texts, **effects):
    """Have these SMS decided."""
    accept(client, sender)
    (claim,) = lanes.claim("replies", [sender]).claimed
    sms = [OutboundSms(f"{sender}{text}", "clinic", sender, text, "") for text in texts]
    draft = LaneDraft(claim=claim, state=b"state", effects=Effects(outbox=sms, **effects))
    (done,) = lanes.commit([draft])
    assert done.succeeded


def wait_ms(client, name, sender):
    """For how long the sender's lane or outbox waits, by the stepped clock."""
    at = client.zscore(name(keyspace.shard_of(sender, SHARDS)), sender)
    return None if at is None else at - now_ms(client)


def now_ms(client):
    return redis_client.server_time_ms(client) + 1_000 * int(client.get(OFFSET_KEY) or 0)


def lock_of(client, name, sender):
    return parse_lock(client.get(name(keyspace.shard_of(sender, SHARDS), sender)))


# Buckets


@pytest.mark.parametrize("by_s", [-HOUR_S, -31 * 86_400, -5])
def test_a_bucket_is_full_again_when_it_would_be_had_it_been_emptied_now(client, by_s):
    call = function_call(TakeTokens(bucket="{x}:bucket", rate_per_s=10, burst=10, wanted=100))
    assert redis_client.run_command(client, call) == 10
    step_functions(client, by_s)
    assert redis_client.run_command(client, call) == 0
    step_functions(client, by_s + 2)
    assert redis_client.run_command(client, call) == 10


def acquire(client, wanted=15):
    call = AcquirePermits(
        pause="{x}:pause", circuit_state="{x}:flow", sms_bucket="{x}:bucket", rate_per_s=1, burst=1, probe_lease_ms=15_000,
        wanted=["reply"] * wanted,
    )  # fmt: skip
    return redis_client.run_command(client, function_call(call))[4:]


def test_permits_that_are_booked_ahead_stay_as_far_ahead(client):
    """What waits behind them waits no longer, and no sooner than the rate allows."""
    first = acquire(client)
    assert max(first) == pytest.approx(14_000, abs=500)
    step_functions(client, -HOUR_S)
    (following,) = acquire(client, 1)
    assert following == pytest.approx(15_000, abs=2_500)
    (after_that,) = acquire(client, 1)
    assert after_that == pytest.approx(following + 1_000, abs=500)


def test_a_circuit_pauses_no_longer_than_any_circuit(client):
    client.set("{x}:pause", b'{"by": "circuit", "why": "500", "since": 1}', px=HOUR_S * 1_000)
    client.hset("{x}:flow", mapping={"level": 1, "by": "circuit", "probing": 1})
    acquire(client)
    assert client.pttl("{x}:pause") <= 60_000
    client.set("{x}:pause", b'{"by": "operator", "why": "a test", "since": 1}', px=HOUR_S * 1_000)
    acquire(client)
    assert client.pttl("{x}:pause") > 60_000


def test_looks_that_are_spread_do_not_move_away(client):
    client.set("{x}:pause", b'{"by": "operator", "why": "a test", "since": 1}', px=60_000)
    acquire(client)
    step_functions(client, -HOUR_S)
    assert min(acquire(client, 1)) > -120_000


# Leases and rests, without anybody who has seen the step


def test_a_lane_whose_worker_died_is_anothers_after_a_lease(client, lanes):
    accept(client, ANNA)
    (dead,) = lanes.claim("replies", [ANNA]).claimed
    step_functions(client, -HOUR_S)
    found = lanes.claim("replies", [ANNA])
    assert (found.claimed, found.suspects) == ([], [])
    assert 0 < wait_ms(client, keyspace.lane_alarms_key, ANNA) <= 20_000
    step_functions(client, -HOUR_S + 21)
    assert lanes.claim("replies", [ANNA]).suspects == [ANNA]
    (again,) = lanes.claim_suspect("replies", ANNA).claimed
    assert again.fence > dead.fence


def test_an_sms_whose_worker_died_is_anothers_after_a_lease(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    (dead,) = outboxes.lease_oldest([ANNA])
    step_functions(client, -HOUR_S)
    assert outboxes.lease_oldest([ANNA]) == []
    assert 0 < wait_ms(client, keyspace.outbox_alarms_key, ANNA) <= 20_000
    step_functions(client, -HOUR_S + 21)
    (again,) = outboxes.lease_oldest([ANNA])
    assert (again.uncertain, again.fence > dead.fence) == (True, True)


def test_a_pause_between_two_sms_lasts_no_longer_than_the_longest(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1", "2")
    (take,) = outboxes.lease_oldest([ANNA])
    outboxes.apply_updates([OutboxUpdate(take, "done", rest_ms=PAUSE_MS)])
    step_functions(client, -HOUR_S)
    assert outboxes.lease_oldest([ANNA]) == []
    step_functions(client, -HOUR_S + 3)
    (following,) = outboxes.lease_oldest([ANNA])
    assert not following.uncertain


def test_a_reserved_outbox_is_reserved_no_longer_than_a_lease(client, lanes, outboxes):
    k = keyspace.shard_of(ANNA, SHARDS)
    box = {"outbox": keyspace.outbox_key(k, ANNA), "outbox_lock": keyspace.outbox_lock_key(k, ANNA)}
    call = function_call(ReserveOutbox(**box, token="one", lease_ms=5_000))
    assert redis_client.run_command(client, call) == 1
    client.persist(box["outbox_lock"])
    step_functions(client, -HOUR_S)
    other = function_call(ReserveOutbox(**box, token="other", lease_ms=5_000))
    assert redis_client.run_command(client, other) == 0
    step_functions(client, -HOUR_S + 21)
    assert redis_client.run_command(client, other) == 1


# What the clock does about a step


def test_what_rests_goes_on_as_if_the_clock_had_not_been_set_back(client, lanes, outboxes, clock, waker):
    """Backoffs, booked permits and lost wake-ups; each alarm is near again."""
    for number, (disposition, rest_ms) in enumerate(
        {"again": 60_000, "booked": 90_000, "untried": 5_000}.items()
    ):
        speak(client, lanes, f"{ANNA}{number}", "1")
        (take,) = outboxes.lease_oldest([f"{ANNA}{number}"])
        outboxes.apply_updates([OutboxUpdate(take, disposition, rest_ms=rest_ms)])
    speak(client, lanes, BORIS, "1")
    accept(client, BORIS)
    clock.wake_due()
    step_functions(client, -HOUR_S)
    clock.wake_due()
    waits = [wait_ms(client, keyspace.outbox_alarms_key, f"{ANNA}{number}") for number in range(3)]
    assert waits == pytest.approx([60_000, 90_000, 5_000], abs=4_000)
    assert lock_of(client, keyspace.outbox_lock_key, f"{ANNA}1").until - now_ms(client) == pytest.approx(
        90_000, abs=4_000
    )
    assert wait_ms(client, keyspace.outbox_alarms_key, BORIS) <= 2_000
    waker.take()
    clock.wake_due()
    assert ("replies", BORIS) in waker.take()


def test_a_step_is_followed_by_a_clock_that_did_not_see_it(client, lanes, outboxes, waker):
    speak(client, lanes, ANNA, "1")
    (take,) = outboxes.lease_oldest([ANNA])
    outboxes.apply_updates([OutboxUpdate(take, "again", rest_ms=60_000)])
    step_functions(client, -HOUR_S)
    fences = [client.get(keyspace.fence_key(k)) for k in range(SHARDS)]
    assert behind_fences_ms(fences, now_ms(client)) == pytest.approx(HOUR_S * 1_000, abs=5_000)
    AlarmClock(client, EACH_ALONE, waker, outboxes).wake_due()
    assert wait_ms(client, keyspace.outbox_alarms_key, ANNA) <= 61_000


def test_work_while_a_clock_begins_is_no_step(client, lanes, outboxes, waker, monkeypatch):
    """The first look may take long: a clock stands still after it was told the time, and others go on."""
    speak(client, lanes, ANNA, "1")
    (take,) = outboxes.lease_oldest([ANNA])
    outboxes.apply_updates([OutboxUpdate(take, "again", rest_ms=20_000)])
    speak(client, lanes, BORIS, "2")
    client.zadd(keyspace.outbox_alarms_key(keyspace.shard_of(BORIS, SHARDS)), {BORIS: 1})
    fence = keyspace.fence_key(keyspace.shard_of(ANNA, SHARDS))
    monkeypatch.setattr(waker, "wake", lambda *_: client.set(fence, (now_ms(client) + 15_000) * 1_000))
    AlarmClock(client, EACH_ALONE, waker, outboxes).wake_due()
    assert int(client.get(fence)) > (now_ms(client) + 10_000) * 1_000, "somebody worked meanwhile"
    assert wait_ms(client, keyspace.outbox_alarms_key, ANNA) == pytest.approx(20_000, abs=4_000)


def test_two_clocks_that_follow_one_step_move_what_rests_once(client, lanes, outboxes, waker):
    clocks = [AlarmClock(client, EACH_ALONE, waker, outboxes) for _ in range(2)]
    speak(client, lanes, ANNA, "1")
    (take,) = outboxes.lease_oldest([ANNA])
    outboxes.apply_updates([OutboxUpdate(take, "again", rest_ms=600_000)])
    for each in clocks:
        each.wake_due()
    step_functions(client, -HOUR_S)
    for each in clocks:
        each.wake_due()
    assert wait_ms(client, keyspace.outbox_alarms_key, ANNA) == pytest.approx(600_000, abs=4_000)


def test_a_lane_that_waits_for_its_deadline_does_so_after_a_step_too(client, lanes, clock):
    speak(client, lanes, ANNA, alarm=now_ms(client) + 600_000, keep_until=now_ms(client) + 10**9)
    clock.wake_due()
    step_functions(client, -HOUR_S)
    clock.wake_due()
    lanes.claim("replies", [ANNA])
    assert wait_ms(client, keyspace.lane_alarms_key, ANNA) == pytest.approx(
        HOUR_S * 1_000 + 600_000, abs=4_000
    )


def test_a_step_is_told_from_a_slow_answer_and_from_a_frozen_process():
    times = iter([0.0, 0.1, 1.0, 1.1, 2.0, 62.0, 63.0, 63.1, 64.0, 64.1])
    seen = ClockStepDetector(Host(monotonic_s=lambda: next(times)))
    asked = seen.asked_at_s()
    assert seen.step_back_ms(100_000, asked) == 0
    asked = seen.asked_at_s()
    assert seen.step_back_ms(101_000, asked) == 0
    asked = seen.asked_at_s()
    assert seen.step_back_ms(102_000, asked) == 0, "its answer was read a minute late"
    asked = seen.asked_at_s()
    assert seen.step_back_ms(163_000, asked) == 0
    asked = seen.asked_at_s()
    assert seen.step_back_ms(163_900 - 3_600_000, asked) == pytest.approx(3_600_000, abs=200)


def test_who_stood_still_since_the_server_answered_knows_that_steps_may_be_missed():
    times = iter([0.0, 0.1, 1.0, 60.0, 60.2])
    seen = ClockStepDetector(Host(monotonic_s=lambda: next(times)))
    seen.step_back_ms(100_000, seen.asked_at_s())
    asked = seen.asked_at_s()
    assert not seen.has_missed_some(asked)
    assert seen.step_back_ms(101_000, asked) == 0, "its answer was read a minute late"
    assert seen.has_missed_some(seen.asked_at_s())


# What must not go by itself


def ends(client, name, sender):
    return client.pttl(name(keyspace.shard_of(sender, SHARDS), sender))


def test_a_lane_with_anything_open_has_no_end_and_gets_one_when_it_is_closed(client, lanes):
    later = now_ms(client) + 10**9
    speak(client, lanes, ANNA, has_open=True, keep_until=later)
    assert ends(client, keyspace.lane_key, ANNA) == -1
    speak(client, lanes, ANNA, keep_until=later)
    assert ends(client, keyspace.lane_key, ANNA) == pytest.approx(10**9, abs=5_000)
    speak(client, lanes, ANNA, has_open=True, keep_until=later)
    assert ends(client, keyspace.lane_key, ANNA) == -1, "as one that an older release has written"


def test_what_is_known_of_an_sms_has_no_end_while_it_waits(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    (take,) = outboxes.lease_oldest([ANNA])
    assert ends(client, keyspace.outbox_lock_key, ANNA) == -1
    outboxes.apply_updates([OutboxUpdate(take, "again", rest_ms=1, uncertain=True)])
    assert ends(client, keyspace.outbox_lock_key, ANNA) == -1
    step_functions(client, 31 * 86_400)
    (again,) = outboxes.lease_oldest([ANNA])
    assert (again.uncertain, again.attempts) == (True, 1)
    outboxes.apply_updates([OutboxUpdate(again, "done", rest_ms=PAUSE_MS)])
    assert 0 < ends(client, keyspace.outbox_lock_key, ANNA) <= PAUSE_MS


def test_a_lock_that_is_left_of_an_outbox_without_sms_goes(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    outboxes.lease_oldest([ANNA])
    k = keyspace.shard_of(ANNA, SHARDS)
    client.delete(keyspace.outbox_key(k, ANNA))
    box = LeasedOutbox(
        mailbox=keyspace.mailbox_key(k, ANNA), outbox=keyspace.outbox_key(k, ANNA),
        outbox_lock=keyspace.outbox_lock_key(k, ANNA), sender=ANNA,
    )  # fmt: skip
    call = LeaseSms(
        fence=keyspace.fence_key(k), outbox_alarms=keyspace.outbox_alarms_key(k), server=keyspace.server_key(k),
        owner="other", lease_ms=1, longest_pause_ms=0, uncertain_rest_ms=0, outboxes=[box],
    )  # fmt: skip
    assert redis_client.run_command(client, function_call(call)) == [0]
    assert ends(client, keyspace.outbox_lock_key, ANNA) > 0


def test_a_deadline_that_stays_due_is_looked_at_every_two_seconds_not_at_every_tick(client, lanes):
    speak(client, lanes, ANNA, alarm=now_ms(client) - 1_000, keep_until=now_ms(client) + 10**9)
    assert 1_000 < wait_ms(client, keyspace.lane_alarms_key, ANNA) <= 2_000
