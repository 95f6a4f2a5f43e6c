"""A lane has one holder, and a commit is all or nothing: claim, commit, take, settle, tick against a real server."""

from itertools import count

import pytest
import redis

from config.store import function_calls, keyspace, lua_library, redis_client
from config.store.server_functions import (
    AttachedReply,
    AttachReplies,
    Claim,
    ClaimedLane,
    LeasedOutbox,
    LeaseSms,
    ReserveOutbox,
    TakeDueAlarms,
    TakeTokens,
    WatchedShard,
)
from engine.model.effects import WITHDRAWAL_REASONS, Effects
from engine.model.events import (
    OutboundSms,
    PersonOptedIn,
    ProviderStop,
    SmsNotSent,
    decode_outbound,
    decode_records,
    encode_event,
)
from tests.support.full_effects import full_effects
from tests.support.waiting import until
from workers.store.dead_letter_store import DeadLetter, encode_dead_letter
from workers.store.lanes import (
    MAX_CLAIMED_MAIL,
    DeadLetterResolution,
    KeptDeadLetter,
    LaneClaim,
    LaneDraft,
    LaneStore,
)
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OutboxStore, OutboxUpdate

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"
SHARDS = 4
LEASE_MS = 60_000
_ids = count()


@pytest.fixture
def lanes(client):
    return LaneStore(client, SHARDS, open_opt_out_list(client, SHARDS, ""), lease_ms=LEASE_MS)


@pytest.fixture
def outboxes(client):
    return OutboxStore(client, SHARDS, lease_ms=LEASE_MS)


def accept(client, sender, *events, start=False):
    commands, _ = function_calls.accept_commands(SHARDS, [(sender, start, event) for event in events])
    (answer,) = redis_client.run_commands(client, commands)
    return answer


def claim(lanes, sender, queue="replies") -> LaneClaim:
    (held,) = lanes.claim(queue, [sender]).claimed
    return held


def bodies(claim):
    return [entry[14:] for entry in claim.mail]


def draft(claim, *, outbox=(), dead_letters=(), **effects):
    """What a turn with these effects makes of the lane; an SMS is a whole one, or (channel, text)."""
    sms = [
        each if isinstance(each, OutboundSms) else OutboundSms("", each[0], claim.sender, each[1], "")
        for each in outbox
    ]
    return LaneDraft(
        claim=claim, state=b"state", effects=Effects(outbox=sms, **effects), dead_letters=list(dead_letters)
    )


def text_of(lease):
    return decode_outbound(lease.sms_bytes).text


def letter_of(sender, identity):
    return DeadLetter(
        id=identity, kind="event", reason="engine_error", sender=sender, at=1, attempts=1, what=b"R" * 40, channel="c"
    )  # fmt: skip


def now_ms(client):
    seconds, us = client.time()
    return seconds * 1000 + us // 1000


def lapse(client, sender, key=keyspace.lane_lock_key):
    """Let the lease of whoever holds this end, without waiting for it."""
    name = key(keyspace.shard_of(sender, SHARDS), sender)
    fence, _, attempts, since, owner = client.get(name).split(b" ", 4)
    client.set(name, b" ".join([fence, b"%d" % now_ms(client), attempts, since, owner]))


def everything(client):
    """All that the server holds, byte for byte, its clock-driven expiries aside."""
    return {key: client.dump(key) for key in sorted(client.keys("*"))}


def test_only_the_first_event_of_an_empty_mailbox_rings(client):
    assert accept(client, ANNA, b"1", b"2") == [2, 0]
    assert accept(client, ANNA, b"3", start=True) == [0]
    assert accept(client, BORIS, b"1", start=True) == [1]


def test_an_event_of_whose_sender_too_many_wait_is_refused_and_none_that_was_acknowledged(client):
    mailbox = keyspace.mailbox_key(keyspace.shard_of(ANNA, SHARDS), ANNA)
    client.rpush(mailbox, *[b"R" + b"1" * 13] * 9_999)
    assert accept(client, ANNA, b"1", b"2") == [0, function_calls.MAILBOX_FULL]
    spooled, _ = function_calls.accept_commands(SHARDS, [(ANNA, False, b"3")], ages_ms=[1_000])
    assert redis_client.run_commands(client, spooled) == [[0]]
    assert [entry[14:] for entry in client.lrange(mailbox, -2, -1)] == [b"1", b"3"]
    stop = encode_event(ProviderStop("stop", "clinic"))
    assert accept(client, ANNA, stop) == [3]
    assert client.lindex(mailbox, -1)[14:] == stop


def test_mail_is_claimed_in_the_order_accepted_up_to_the_limit(client, lanes):
    accept(client, ANNA, *(b"%d" % i for i in range(MAX_CLAIMED_MAIL + 1)))
    assert bodies(claim(lanes, ANNA)) == [b"%d" % i for i in range(MAX_CLAIMED_MAIL)]


def test_a_claim_takes_only_its_queues_mail_and_says_whose_the_rest_is(client, lanes):
    accept(client, ANNA, b"start", start=True)
    accept(client, ANNA, b"reply")
    assert lanes.claim("replies", [ANNA]).other_queue == [ANNA]
    first = claim(lanes, ANNA, "starts")
    assert bodies(first) == [b"start"]
    (committed,) = lanes.commit([draft(first)])
    assert committed.wake_queues == ("replies",)
    assert bodies(claim(lanes, ANNA)) == [b"reply"]


def test_a_held_lane_cannot_be_claimed_and_its_neighbour_can(client, lanes):
    accept(client, ANNA, b"1")
    accept(client, BORIS, b"1")
    claim(lanes, ANNA)
    assert [held.sender for held in lanes.claim("replies", [ANNA, BORIS]).claimed] == [BORIS]


def test_a_claim_whose_reply_was_lost_is_answered_again(client, lanes):
    accept(client, ANNA, b"1")
    k = keyspace.shard_of(ANNA, SHARDS)
    lane = ClaimedLane(
        mailbox=keyspace.mailbox_key(k, ANNA),
        lane=keyspace.lane_key(k, ANNA),
        lane_lock=keyspace.lane_lock_key(k, ANNA),
        applied_events=keyspace.applied_events_key(k, "hash"),
        sender=ANNA,
        number_hash="hash",
    )
    command = function_calls.function_call(
        Claim(
            fence=keyspace.fence_key(k),
            lane_alarms=keyspace.lane_alarms_key(k),
            optouts=keyspace.optouts_key(k),
            server=keyspace.server_key(k),
            owner="owner",
            mail_kind=b"R",
            max_mail=MAX_CLAIMED_MAIL,
            lease_ms=LEASE_MS,
            take_suspects=0,
            lanes=[lane],
        )
    )
    first, again = client.execute_command(*command), client.execute_command(*command)
    assert [first[0][i] for i in (0, 1, 5, 6, 7)] == [again[0][i] for i in (0, 1, 5, 6, 7)]


def test_a_commit_with_an_old_fence_changes_nothing_at_all(client, lanes):
    accept(client, ANNA, b"1")
    old = claim(lanes, ANNA)
    lapse(client, ANNA)
    (new,) = lanes.claim_suspect("replies", ANNA).claimed
    before = everything(client)
    (stale,) = lanes.commit(
        [
            draft(
                old,
                records=[PersonOptedIn(1, "c", "")],
                outbox=[("c", "sms")],
                silenced=["c"],
                dead_letters=[letter_of(ANNA, "x")],
                alarm=5,
            )
        ]
    )
    assert not stale.succeeded
    assert everything(client) == before
    (committed,) = lanes.commit([draft(new)])
    assert committed.succeeded


def test_no_fence_is_given_out_twice_though_the_server_has_lost_its_tail(client, lanes, outboxes):
    def lose(*names):
        for k in range(SHARDS):
            client.delete(keyspace.fence_key(k), *(name(k, ANNA) for name in names))
        lost_ms = now_ms(client)
        until(lambda: now_ms(client) > lost_ms, 1, "a millisecond is over, as after any crash")

    accept(client, ANNA, b"1")
    ours = claim(lanes, ANNA)
    lose(keyspace.lane_lock_key)
    theirs = claim(lanes, ANNA)
    assert [each.succeeded for each in lanes.commit([draft(ours)])] == [False]
    assert [each.succeeded for each in lanes.commit([draft(theirs, outbox=[("c", "sms")])])] == [True]
    assert [each.succeeded for each in lanes.commit([draft(ours)])] == [False]
    (our_try,) = outboxes.lease_oldest([ANNA])
    lose(keyspace.outbox_lock_key)
    (their_try,) = outboxes.lease_oldest([ANNA])
    before = everything(client)
    outboxes.apply_updates([OutboxUpdate(our_try, "done")])
    assert everything(client) == before
    outboxes.apply_updates([OutboxUpdate(their_try, "done")])
    assert outboxes.lease_oldest([ANNA]) == []


def test_fences_go_on_from_those_that_were_given_out_though_a_clock_was_ahead(client, lanes):
    ahead = (now_ms(client) + 60_000) * 1_000
    for k in range(SHARDS):
        client.set(keyspace.fence_key(k), ahead)
    accept(client, ANNA, b"1")
    assert claim(lanes, ANNA).fence == ahead + 1


def test_a_commit_whose_reply_was_lost_is_answered_again_and_done_once(client, lanes):
    accept(client, ANNA, b"1")
    ours = draft(
        claim(lanes, ANNA),
        records=[PersonOptedIn(1, "c", "")],
        outbox=[("c", "sms")],
        dead_letters=[letter_of(ANNA, "x")],
    )
    (first,) = lanes.commit([ours])
    before = everything(client)
    (again,) = lanes.commit([ours])
    assert again.succeeded
    assert again.wake_delivery == first.wake_delivery
    assert everything(client) == before


def test_mail_that_came_during_a_turn_is_rung_by_its_commit(client, lanes):
    accept(client, ANNA, b"1")
    first = claim(lanes, ANNA)
    assert accept(client, ANNA, b"2") == [0]
    (committed,) = lanes.commit([draft(first)])
    assert committed.wake_queues == ("replies",)
    assert bodies(claim(lanes, ANNA)) == [b"2"]


def test_a_lane_whose_holder_died_is_suspect_and_its_attempts_are_counted(client, lanes):
    accept(client, ANNA, b"1")
    for attempt in range(1, 4):
        (held,) = (
            lanes.claim_suspect("replies", ANNA) if attempt > 1 else lanes.claim("replies", [ANNA])
        ).claimed
        assert held.attempts == attempt
        assert lanes.claim("replies", [ANNA]).suspects == []
        lapse(client, ANNA)
        assert lanes.claim("replies", [ANNA]).suspects == [ANNA]
    (held,) = lanes.claim_suspect("replies", ANNA).claimed
    lanes.commit([draft(held)])
    accept(client, ANNA, b"2")
    assert claim(lanes, ANNA).attempts == 1


def test_a_lane_without_mail_is_claimed_only_when_its_deadline_is_due(client, lanes):
    accept(client, ANNA, b"1")
    first = claim(lanes, ANNA)
    lanes.commit([draft(first, alarm=first.now + 3_600_000)])
    assert lanes.claim("replies", [ANNA]).claimed == []
    accept(client, ANNA, b"2")
    second = claim(lanes, ANNA)
    lanes.commit([draft(second, alarm=second.now)])
    assert claim(lanes, ANNA).mail == []


def test_the_alarm_is_true_after_every_step(client, lanes):
    k = keyspace.shard_of(ANNA, SHARDS)

    def alarm():
        return client.zscore(keyspace.lane_alarms_key(k), ANNA)

    accept(client, ANNA, b"1")
    accepted = alarm()
    held = claim(lanes, ANNA)
    assert alarm() == held.now + LEASE_MS > accepted
    lanes.commit([draft(held, alarm=held.now + 99_000)])
    assert alarm() == held.now + 99_000
    client.zadd(keyspace.lane_alarms_key(k), {ANNA: 1})
    assert lanes.claim("replies", [ANNA]).claimed == []
    assert alarm() == held.now + 99_000
    accept(client, ANNA, b"2")
    lanes.commit([draft(claim(lanes, ANNA), alarm=0)])
    assert alarm() is None


def test_a_tick_rings_what_is_due_once_for_all_clocks(client, lanes):
    accept(client, ANNA, b"1")
    k = keyspace.shard_of(ANNA, SHARDS)
    client.zadd(keyspace.lane_alarms_key(k), {ANNA: 1})
    tick = function_calls.function_call(
        TakeDueAlarms(
            max_senders=100,
            repeat_ms=5_000,
            shards=[
                WatchedShard(
                    lane_alarms=keyspace.lane_alarms_key(k),
                    outbox_alarms=keyspace.outbox_alarms_key(k),
                    server=keyspace.server_key(k),
                )
            ],
        )
    )
    assert client.execute_command(*tick)[0][0] == [ANNA.encode()]
    assert client.execute_command(*tick)[0][0] == []


def test_silencing_withdraws_only_that_channels_sms_and_keeps_what_the_commit_adds(client, lanes, outboxes):
    accept(client, ANNA, b"1")
    lanes.commit([draft(claim(lanes, ANNA), outbox=[("a", "1"), ("b", "2"), ("a", "3")])])
    accept(client, ANNA, b"stop")
    lanes.commit([draft(claim(lanes, ANNA), silenced=["a"], outbox=[("a", "bye")])])
    assert [outgoing(outboxes, ANNA) for _ in range(2)] == ["2", "bye"]


def outgoing(outboxes, sender):
    """The next SMS of this sender, taken and accepted."""
    (take,) = outboxes.lease_oldest([sender])
    outboxes.apply_updates([OutboxUpdate(take, "done")])
    return text_of(take)


def unsent(client):
    """What the archive says will not leave."""
    k = keyspace.shard_of(ANNA, SHARDS)
    records = [
        each for _, fields in client.xrange(keyspace.events_key(k)) for each in decode_records(fields[b"e"])
    ]
    return [each for each in records if isinstance(each, SmsNotSent)]


def speak(client, lanes, sender, *texts):
    accept(client, sender, b"%d" % next(_ids))
    return lanes.commit([draft(claim(lanes, sender), outbox=[("c", text) for text in texts])])[0]


def test_sms_leave_one_at_a_time_in_the_order_decided(client, lanes, outboxes):
    assert speak(client, lanes, ANNA, "1", "2").wake_delivery
    assert not speak(client, lanes, ANNA, "3").wake_delivery
    (take,) = outboxes.lease_oldest([ANNA])
    assert text_of(take) == "1"
    assert outboxes.lease_oldest([ANNA]) == []
    assert outboxes.apply_updates([OutboxUpdate(take, "done")]) == [ANNA]
    assert [outgoing(outboxes, ANNA), outgoing(outboxes, ANNA)] == ["2", "3"]
    assert outboxes.lease_oldest([ANNA]) == []


def test_a_sender_at_rest_sends_nothing_even_if_sms_are_decided_meanwhile(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    (take,) = outboxes.lease_oldest([ANNA])
    assert outboxes.apply_updates([OutboxUpdate(take, "done", rest_ms=60_000)]) == []
    speak(client, lanes, ANNA, "2")
    assert outboxes.lease_oldest([ANNA]) == []
    lapse(client, ANNA, keyspace.outbox_lock_key)
    assert outgoing(outboxes, ANNA) == "2"


@pytest.mark.parametrize(
    "verdict, attempts, permit", [("again", 1, -1), ("untried", 0, -1), ("booked", 0, 0)]
)
def test_an_sms_that_stays_is_the_next_one_again(client, lanes, outboxes, verdict, attempts, permit):
    speak(client, lanes, ANNA, "1", "2")
    (take,) = outboxes.lease_oldest([ANNA])
    outboxes.apply_updates([OutboxUpdate(take, verdict, rest_ms=60_000)])
    lapse(client, ANNA, keyspace.outbox_lock_key)
    (take,) = outboxes.lease_oldest([ANNA])
    assert (text_of(take), take.attempts, take.permit_epoch, take.uncertain) == (
        "1",
        attempts,
        permit,
        False,
    )


def test_a_try_that_died_is_counted_and_its_outcome_unknown_and_its_settling_changes_nothing(
    client, lanes, outboxes
):
    speak(client, lanes, ANNA, "1")
    (dead,) = outboxes.lease_oldest([ANNA])
    lapse(client, ANNA, keyspace.outbox_lock_key)
    (take,) = outboxes.lease_oldest([ANNA])
    assert (take.attempts, take.uncertain) == (1, True)
    before = everything(client)
    assert (
        outboxes.apply_updates(
            [OutboxUpdate(dead, "done", records=b"r", dead_letter=encode_dead_letter(letter_of(ANNA, "x")))]
        )
        == []
    )
    assert everything(client) == before


def test_an_sms_withdrawn_while_it_is_tried_takes_no_other_with_it(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    (take,) = outboxes.lease_oldest([ANNA])
    accept(client, ANNA, b"stop")
    lanes.commit([draft(claim(lanes, ANNA), silenced=["c"], outbox=[("c", "bye")])])
    outboxes.apply_updates([OutboxUpdate(take, "done")])
    assert outgoing(outboxes, ANNA) == "bye"


def test_a_bell_wakes_a_lane_once_however_often_it_is_rung(client):
    assert client.execute_command(*function_calls.wake_command("replies", [ANNA, BORIS])) == 2
    assert client.execute_command(*function_calls.wake_command("replies", [BORIS, ANNA])) == 0
    assert client.zcard(keyspace.wakeup_queue_key("replies")) == 2


def test_a_bucket_grants_its_burst_and_no_more(client):
    grant = function_calls.function_call(TakeTokens(bucket="bucket", rate_per_s=0.001, burst=5, wanted=3))
    assert [client.execute_command(*grant) for _ in range(3)] == [3, 2, 0]


def test_keys_expire_once_nothing_can_need_them(client, lanes):
    accept(client, ANNA, b"1")
    held = claim(lanes, ANNA)
    days_ms = 30 * 86_400_000
    lanes.commit([draft(held, keep_until=held.now + days_ms)])
    k = keyspace.shard_of(ANNA, SHARDS)
    assert 0 < client.pttl(keyspace.lane_key(k, ANNA)) <= days_ms
    assert not client.exists(
        keyspace.mailbox_key(k, ANNA), keyspace.lane_lock_key(k, ANNA), keyspace.outbox_key(k, ANNA)
    )


def test_a_function_refuses_nothing_silently(client):
    with pytest.raises(redis.ResponseError):
        client.execute_command("FCALL", f"{lua_library.LIBRARY_NAME}_unheard_of", 1, "x")


def sms(session, number, **more):
    return OutboundSms(f"{session}x{number}", "c", ANNA, "text", session, **more)


def test_withdrawing_a_session_takes_its_sms_and_no_other(client, lanes, outboxes):
    """By their ids, also where one id begins like another, or an entry cannot be read."""
    ours, theirs = "00000000000000aa", "00000000000000ab"
    accept(client, ANNA, b"1")
    outbox = [sms(ours, 0), sms(theirs, 0), ("c", "x"), sms(ours, 1), sms(ours + "x1", 0)]
    lanes.commit([draft(claim(lanes, ANNA), outbox=outbox)])
    client.lset(keyspace.outbox_key(keyspace.shard_of(ANNA, SHARDS), ANNA), 2, b"c\0garbage")
    accept(client, ANNA, b"cancel")
    lanes.commit([draft(claim(lanes, ANNA), withdrawn={ours: "cancelled"})])
    assert [(each.id, each.code) for each in unsent(client)] == [
        (f"{ours}x0", "cancelled"),
        (f"{ours}x1", "cancelled"),
    ]
    left = []
    for _ in range(3):
        (take,) = outboxes.lease_oldest([ANNA])
        outboxes.apply_updates([OutboxUpdate(take, "done")])
        left.append(take.sms_bytes)
    assert left == [encode_event(outbox[1]), b"garbage", encode_event(outbox[4])]


def test_a_session_is_found_by_its_id_while_something_of_it_is_kept(client, lanes):
    accept(client, ANNA, b"1")
    held = claim(lanes, ANNA)
    lanes.commit([draft(held, keep_until=held.now + 1_000, sessions=[("aa", 5), ("bb", 6)])])
    k = keyspace.shard_of(ANNA, SHARDS)
    assert client.get(keyspace.session_key(k, "aa")) == b"5 " + ANNA.encode()
    assert client.get(keyspace.session_key(k, "bb")) == b"6 " + ANNA.encode()
    assert (
        client.pexpiretime(keyspace.session_key(k, "aa")) == held.now + 1_000 + keyspace.UNARCHIVED_STREAM_MS
    )


def test_a_session_whose_invitation_must_be_known_for_longer_is_not_forgotten_sooner(client, lanes):
    """An invitation's session has its key since it was accepted; being opened may prolong that, never shorten it."""
    accept(client, ANNA, b"1")
    held = claim(lanes, ANNA)
    k = keyspace.shard_of(ANNA, SHARDS)
    long, short = held.now + 2 * keyspace.UNARCHIVED_STREAM_MS, held.now + 2_000
    client.set(keyspace.session_key(k, "aa"), b"1 " + ANNA.encode(), pxat=long)
    client.set(keyspace.session_key(k, "bb"), b"1 " + ANNA.encode(), pxat=short)
    lanes.commit([draft(held, keep_until=held.now + 1_000, sessions=[("aa", 5), ("bb", 6)])])
    assert client.get(keyspace.session_key(k, "aa")) == b"5 " + ANNA.encode()
    assert client.pexpiretime(keyspace.session_key(k, "aa")) == long
    assert (
        client.pexpiretime(keyspace.session_key(k, "bb")) == held.now + 1_000 + keyspace.UNARCHIVED_STREAM_MS
    )


def test_lanes_with_and_without_new_sessions_share_a_commit(client, lanes):
    people = [f"+336{i:08}" for i in range(40)]
    for person in people:
        accept(client, person, b"1")
    held = lanes.claim("replies", people).claimed
    drafts = [
        draft(each, keep_until=each.now + 60_000, sessions=[(f"{i}a", i), (f"{i}b", i)][: i % 3])
        for i, each in enumerate(held)
    ]
    assert all(committed.succeeded for committed in lanes.commit(drafts))
    found = {key.rpartition(b":")[2].decode() for key in client.keys("*:session:*")}
    assert found == {identity for each in drafts for identity, _ in each.effects.sessions}
    assert len(client.keys("*:lane:*")) == len(people)


def test_opt_outs_are_written_with_the_lane_or_not_at_all(client, lanes):
    optouts = open_opt_out_list(client, SHARDS, "")
    accept(client, ANNA, b"stop")
    old = claim(lanes, ANNA)
    lapse(client, ANNA)
    (new,) = lanes.claim_suspect("replies", ANNA).claimed
    lanes.commit([draft(old, opt_outs={"a": (7, "person")})])
    assert optouts.opt_outs_of(ANNA) == {}
    lanes.commit([draft(new, opt_outs={"a": (7, "person"), "b": (8, "provider")})])
    assert optouts.opt_outs_of(ANNA) == {"a": (7, "person"), "b": (8, "provider")}
    accept(client, ANNA, b"start")
    lanes.commit([draft(claim(lanes, ANNA), opt_outs={"a": (7, "unknown"), "b": (0, "")})])
    assert optouts.opt_outs_of(ANNA) == {"a": (7, "person")}
    assert optouts.opt_outs_of(BORIS) == {}
    assert ANNA.encode() not in b"".join(client.hkeys(keyspace.optouts_key(keyspace.shard_of(ANNA, SHARDS))))


def test_a_claim_is_told_of_opt_outs_whether_or_not_the_lane_has_state(client, lanes):
    accept(client, ANNA, b"1")
    lanes.commit([draft(claim(lanes, ANNA))])
    open_opt_out_list(client, SHARDS, "").add_opt_outs([(ANNA, "c"), (BORIS, "c")], "import")
    for person in (ANNA, BORIS, CLARA):
        accept(client, person, b"2")
    claimed = lanes.claim("replies", [ANNA, BORIS, CLARA]).claimed
    said = {held.sender: (bool(held.state), [*held.opted_out]) for held in claimed}
    assert said == {ANNA: (True, ["c"]), BORIS: (False, ["c"]), CLARA: (False, [])}
    assert {source for held in claimed for _, source in held.opted_out.values()} == {"import"}


@pytest.mark.parametrize("verdict", ["again", "booked", "untried"])
def test_that_the_provider_may_have_an_sms_is_remembered_until_it_is_settled(
    client, lanes, outboxes, verdict
):
    speak(client, lanes, ANNA, "1", "2")
    (take,) = outboxes.lease_oldest([ANNA])
    outboxes.apply_updates([OutboxUpdate(take, "again", rest_ms=1, uncertain=True)])
    for rest_ms in (60_000, 0):
        lapse(client, ANNA, keyspace.outbox_lock_key)
        (take,) = outboxes.lease_oldest([ANNA])
        booked = verdict == "booked" and rest_ms == 0
        assert (text_of(take), take.uncertain, take.permit_epoch) == ("1", True, 0 if booked else -1)
        outboxes.apply_updates([OutboxUpdate(take, verdict, rest_ms=rest_ms, uncertain=take.uncertain)])
    (take,) = outboxes.lease_oldest([ANNA])
    assert take.uncertain
    outboxes.apply_updates([OutboxUpdate(take, "done")])
    (take,) = outboxes.lease_oldest([ANNA])
    assert (text_of(take), take.uncertain, take.attempts) == ("2", False, 0)


def test_a_take_whose_reply_was_lost_is_answered_again_with_all_that_is_known(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    (take,) = outboxes.lease_oldest([ANNA])
    outboxes.apply_updates([OutboxUpdate(take, "again", uncertain=True)])
    k = keyspace.shard_of(ANNA, SHARDS)
    box = LeasedOutbox(
        mailbox=keyspace.mailbox_key(k, ANNA),
        outbox=keyspace.outbox_key(k, ANNA),
        outbox_lock=keyspace.outbox_lock_key(k, ANNA),
        sender=ANNA,
    )
    command = function_calls.function_call(
        LeaseSms(
            fence=keyspace.fence_key(k),
            outbox_alarms=keyspace.outbox_alarms_key(k),
            server=keyspace.server_key(k),
            owner="owner",
            lease_ms=LEASE_MS,
            longest_pause_ms=0,
            uncertain_rest_ms=LEASE_MS,
            outboxes=[box],
        )
    )
    (first,), (again,) = client.execute_command(*command), client.execute_command(*command)
    assert [first[i] for i in (0, 2, 3, 4, 5, 6, 7)] == [again[i] for i in (0, 2, 3, 4, 5, 6, 7)]
    assert again[4] == 1


def test_an_sms_after_one_that_was_withdrawn_while_its_worker_died_was_never_tried(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    outboxes.lease_oldest([ANNA])
    accept(client, ANNA, b"stop")
    lanes.commit([draft(claim(lanes, ANNA), silenced=["c"], outbox=[("c", "bye")])])
    lapse(client, ANNA, keyspace.outbox_lock_key)
    (take,) = outboxes.lease_oldest([ANNA])
    assert (text_of(take), take.uncertain, take.attempts, take.first_attempt_ms) == ("bye", False, 0, 0)


def test_what_a_settlement_tells_the_lane_and_remembers_stands_or_falls_with_it(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    k = keyspace.shard_of(ANNA, SHARDS)
    (old,) = outboxes.lease_oldest([ANNA])
    lapse(client, ANNA, keyspace.outbox_lock_key)
    (new,) = outboxes.lease_oldest([ANNA])
    news = {"lane_mail": ProviderStop("aa", "c"), "ticket": "SM1"}
    outboxes.apply_updates([OutboxUpdate(old, "done", **news)])
    assert not client.exists(keyspace.mailbox_key(k, ANNA), keyspace.tickets_key(k, ANNA))
    for _ in range(2):
        outboxes.apply_updates([OutboxUpdate(new, "done", **news)])
    assert bodies(claim(lanes, ANNA)) == [encode_event(ProviderStop("aa", "c"))]
    assert outboxes.recent_tickets(ANNA) == {"SM1"}


def test_the_last_fifty_tickets_of_a_sender_are_remembered(client, lanes, outboxes):
    speak(client, lanes, ANNA, *(f"{i}" for i in range(60)))
    for i in range(60):
        (take,) = outboxes.lease_oldest([ANNA])
        outboxes.apply_updates([OutboxUpdate(take, "done", ticket=f"SM{i}")])
    assert outboxes.recent_tickets(ANNA) == {f"SM{i}" for i in range(10, 60)}
    assert 0 < client.pttl(keyspace.tickets_key(keyspace.shard_of(ANNA, SHARDS), ANNA)) <= 48 * 3_600_000


def test_what_came_of_an_sms_withdrawn_meanwhile_says_nothing_of_the_next(client, lanes, outboxes):
    speak(client, lanes, ANNA, "1")
    (take,) = outboxes.lease_oldest([ANNA])
    accept(client, ANNA, b"stop")
    lanes.commit([draft(claim(lanes, ANNA), silenced=["c"], outbox=[("c", "bye")])])
    assert outboxes.apply_updates([OutboxUpdate(take, "again", rest_ms=10_000, uncertain=True)]) == [ANNA]
    (after,) = outboxes.lease_oldest([ANNA])
    assert (text_of(after), after.uncertain, after.attempts, after.first_attempt_ms) == ("bye", False, 0, 0)


def test_more_sms_than_lua_can_unpack_are_withdrawn_and_told(client, lanes, outboxes):
    speak(client, lanes, ANNA, "first")
    outbox = keyspace.outbox_key(keyspace.shard_of(ANNA, SHARDS), ANNA)
    client.rpush(outbox, *(b"c\0%d" % i for i in range(9_000)))
    accept(client, ANNA, b"stop")
    (committed,) = lanes.commit([draft(claim(lanes, ANNA), silenced=["c"], outbox=[("c", "bye")])])
    assert (committed.succeeded, committed.wake_delivery) == (True, True)
    assert len(unsent(client)) == 1, "of the others nobody knows what they were"
    assert outgoing(outboxes, ANNA) == "bye"


def test_what_is_withdrawn_is_recorded_by_the_commit_once_and_as_python_would(client, lanes):
    """By sessions, so that what was said in one can be deleted; with why, of which a STOP outdoes any other."""
    session = "00000000000000aa"
    queued = [
        sms(session, 0),
        sms("", 1),
        sms(session, 2),
        OutboundSms(f"{session}x3", "d", ANNA, "text", session),
    ]
    accept(client, ANNA, b"1")
    lanes.commit([draft(claim(lanes, ANNA), outbox=[*queued, ("d", "stays")])])
    accept(client, ANNA, b"stop")
    ours = draft(claim(lanes, ANNA), silenced=["c"], withdrawn={session: "unreachable"})
    assert lanes.commit([ours])[0].succeeded
    before = everything(client)
    assert lanes.commit([ours])[0].succeeded
    assert everything(client) == before
    entries = client.xrange(keyspace.events_key(keyspace.shard_of(ANNA, SHARDS)))
    records = [decode_records(fields[b"e"]) for _, fields in entries]
    codes = ["stopped", "stopped", "unreachable"]
    assert records == [
        [
            SmsNotSent(each.at, queued[i].channel, session, queued[i].id, code, WITHDRAWAL_REASONS[code])
            for each, i, code in zip(records[0], (0, 2, 3), codes, strict=True)
        ],
        [SmsNotSent(records[0][0].at, "c", "", "x1", "stopped", WITHDRAWAL_REASONS["stopped"])],
    ]
    assert [encode_event(each) for each in records] == [fields[b"e"] for _, fields in entries]
    assert abs(records[0][0].at - ours.claim.now) < 60_000


def test_a_long_outbox_is_written_once_when_some_of_it_is_withdrawn(client, lanes):
    """Taking them out one by one would look through the whole list for each."""
    outbox = keyspace.outbox_key(keyspace.shard_of(ANNA, SHARDS), ANNA)
    client.rpush(outbox, *(b"cd"[i % 2 :][:1] + b"\0" + encode_event(sms("a", i)) for i in range(10_000)))
    accept(client, ANNA, b"stop")
    held = claim(lanes, ANNA)
    client.config_resetstat()
    lanes.commit([draft(held, silenced=["c"])])
    stats = client.info("commandstats")
    assert {
        name: stats[name]["calls"] for name in stats if name.endswith(("_rpush", "_lrem", "_lrange"))
    } == {
        "cmdstat_lrange": 1,
        "cmdstat_rpush": 2,
    }
    assert client.llen(outbox) == len(unsent(client)) == 5_000
    assert client.lindex(outbox, -1).startswith(b"d")


def test_more_sms_than_lua_can_unpack_are_decided_in_order(client, lanes, outboxes):
    accept(client, ANNA, b"1")
    (committed,) = lanes.commit([draft(claim(lanes, ANNA), outbox=[("c", f"{i}") for i in range(9_000)])])
    assert (committed.succeeded, committed.wake_delivery) == (True, True)
    outbox = keyspace.outbox_key(keyspace.shard_of(ANNA, SHARDS), ANNA)
    entries = client.lrange(outbox, 0, -1)
    assert [decode_outbound(entry[2:]).text for entry in entries] == [f"{i}" for i in range(9_000)]


BOX = keyspace.shard_of(ANNA, SHARDS)
OUTBOX = {"outbox": keyspace.outbox_key(BOX, ANNA), "outbox_lock": keyspace.outbox_lock_key(BOX, ANNA)}


def reserve(client):
    """A webhook's answer may hold Anna's replies."""
    call = ReserveOutbox(**OUTBOX, token="token", lease_ms=5_000)
    assert redis_client.run_command(client, function_calls.function_call(call)) == 1


def attach(client, *replies):
    """The answer holds these SMS, each of which is (as it is, marked)."""
    call = AttachReplies(
        **OUTBOX,
        mailbox=keyspace.mailbox_key(BOX, ANNA),
        outbox_alarms=keyspace.outbox_alarms_key(BOX),
        sender=ANNA,
        token="token",
        rest_ms=20_000,
        replies=[
            AttachedReply(entry=b"c\0" + encode_event(sms), marked=b"c\0" + encode_event(marked))
            for sms, marked in replies
        ],
    )
    return redis_client.run_command(client, function_calls.function_call(call))


def test_sms_entrusted_with_one_that_is_withdrawn_are_not_asked_for_too_soon(client, lanes, outboxes):
    """An answer may still be on its way with both of them."""
    ours, theirs = "00000000000000aa", "00000000000000ab"
    reserve(client)
    accept(client, ANNA, b"1")
    lanes.commit([draft(claim(lanes, ANNA), outbox=[sms(ours, 0), sms(theirs, 0)])])
    marked = [sms(each, 0, uncertain=True) for each in (ours, theirs)]
    assert attach(client, (sms(ours, 0), marked[0]), (sms(theirs, 0), marked[1])) == 1
    accept(client, ANNA, b"cancel")
    lanes.commit([draft(claim(lanes, ANNA), withdrawn={ours: "cancelled"}, outbox=[("c", "later")])])
    assert outboxes.lease_oldest([ANNA]) == []
    lapse(client, ANNA, keyspace.outbox_lock_key)
    (take,) = outboxes.lease_oldest([ANNA])
    assert (take.sms_bytes, take.uncertain) == (encode_event(marked[1]), True)
    outboxes.apply_updates([OutboxUpdate(take, "done")])
    assert outgoing(outboxes, ANNA) == "later"


def test_sms_behind_those_entrusted_need_not_wait_for_one_that_is_withdrawn(client, lanes, outboxes):
    ours = "00000000000000aa"
    reserve(client)
    accept(client, ANNA, b"1")
    lanes.commit([draft(claim(lanes, ANNA), outbox=[sms(ours, 0), ("d", "other")])])
    assert attach(client, (sms(ours, 0), sms(ours, 0, uncertain=True))) == 1
    accept(client, ANNA, b"stop")
    lanes.commit([draft(claim(lanes, ANNA), silenced=["c"])])
    (take,) = outboxes.lease_oldest([ANNA])
    assert (text_of(take), take.uncertain) == ("other", False)


def dead_letter(client, lanes, sender, identity="e1"):
    """A dead letter of this sender, buried by a commit."""
    accept(client, sender, b"poison")
    letter = letter_of(sender, identity)
    lanes.commit([draft(claim(lanes, sender), dead_letters=[letter])])
    return letter


def test_a_lane_is_reopened_by_one_and_while_nobody_holds_it(client, lanes):
    dead_letter(client, lanes, ANNA)
    (ours,) = lanes.claim_for_replay("replay-1", [(ANNA, "e1")])
    assert (ours.sender, ours.mail, ours.state) == (ANNA, [], b"state")
    assert lanes.claim_for_replay("replay-1", [(ANNA, "e1")])[0].fence == ours.fence
    assert lanes.claim_for_replay("replay-2", [(ANNA, "e1")]) == ["held"]
    accept(client, ANNA, b"1")
    assert lanes.claim("replies", [ANNA]).claimed == []
    assert lanes.claim_for_replay("replay-1", [(ANNA, "e2")]) == ["gone"]


def resolving(lane, state, outcome):
    """What is committed when the letter "e1" goes; its event is in no mailbox."""
    claimed = LaneClaim(lane.sender, lane.fence, 1, lane.now, lane.state, [b"R" * 40])
    return LaneDraft(claim=claimed, state=state, resolutions=[DeadLetterResolution("e1", "eve", outcome)])


def test_a_commit_deals_with_a_letter_once_and_not_at_all_without_it(client, lanes):
    dead_letter(client, lanes, ANNA)
    (ours,) = lanes.claim_for_replay("replay-1", [(ANNA, "e1")])
    dealt = resolving(ours, b"new", "advanced")
    accept(client, ANNA, b"waits")
    assert lanes.commit([dealt])[0].succeeded
    assert client.llen(keyspace.mailbox_key(keyspace.shard_of(ANNA, SHARDS), ANNA)) == 1
    before = everything(client)
    assert lanes.commit([dealt])[0].succeeded
    assert everything(client) == before
    assert client.hgetall(keyspace.dead_letter_reasons_key(keyspace.shard_of(ANNA, SHARDS))) == {}
    dead_letter(client, lanes, ANNA, "e2")
    (ours,) = lanes.claim_for_replay("replay-1", [(ANNA, "e2")])
    lost = resolving(ours, b"no", "x")
    lost.effects.outbox.append(sms("00000000000000aa", 0))
    assert not lanes.commit([lost])[0].succeeded
    assert client.get(keyspace.lane_key(keyspace.shard_of(ANNA, SHARDS), ANNA)).endswith(b"state")


def test_a_letter_that_stays_lets_go_of_its_lane_once(client, lanes):
    dead_letter(client, lanes, ANNA)
    (ours,) = lanes.claim_for_replay("replay-1", [(ANNA, "e1")])
    accept(client, ANNA, b"1")
    stays = KeptDeadLetter(ANNA, ours.fence, "e1", "eve", "stale")
    assert lanes.release_kept([stays]) == [("replies",)]
    before = everything(client)
    assert lanes.release_kept([stays]) == [()]
    assert everything(client) == before
    assert bodies(claim(lanes, ANNA)) == [b"1"]


def test_that_a_letter_was_held_up_is_said_once_for_each_try_though_a_reply_is_lost(client, lanes):
    dead_letter(client, lanes, ANNA)
    audit = keyspace.dead_letter_audit_key(keyspace.shard_of(ANNA, SHARDS))
    for tried in (1, 2):
        command = lanes._release_kept_command(KeptDeadLetter(ANNA, 0, "e1", "eve", "busy"))
        redis_client.run_commands(client, [command, command])
        assert [each[b"outcome"] for _, each in client.xrange(audit)] == [b"busy"] * tried


def test_letters_that_fall_in_one_commit_keep_their_order(client, lanes):
    accept(client, ANNA, b"1")
    letters = [letter_of(ANNA, f"{10 - i}") for i in range(10)]
    lanes.commit([draft(claim(lanes, ANNA), dead_letters=letters)])
    k = keyspace.shard_of(ANNA, SHARDS)
    assert client.zrange(keyspace.dead_letter_index_key(k), 0, -1) == [
        letter.id.encode() for letter in letters
    ]


@pytest.mark.parametrize("field", Effects.__struct_fields__)
def test_no_effect_is_forgotten_by_the_commit(lanes, field):
    """Each by itself: what is not stored is known, and anything else is in the call."""
    claimed = LaneClaim(ANNA, 1, 1, 1, b"", [])

    def call(effects):
        return [*lanes._commit_command(0, [LaneDraft(claim=claimed, state=b"", effects=effects)])]

    only = Effects(**{field: getattr(full_effects(), field)})
    assert (call(only) == call(Effects())) == (
        field in ("opened_by_channel", "survey_by_session", "duplicates")
    )


def test_an_sms_that_finds_its_outbox_full_is_recorded_as_unsent(client, lanes, outboxes):
    session = "00000000000000aa"
    accept(client, ANNA, b"1")
    lanes.commit([draft(claim(lanes, ANNA), outbox=[sms(session, i) for i in range(9_999)])])
    accept(client, ANNA, b"2")
    more = [sms(session, i) for i in range(9_999, 10_002)]
    assert lanes.commit([draft(claim(lanes, ANNA), outbox=more)])[0].succeeded
    outbox = keyspace.outbox_key(keyspace.shard_of(ANNA, SHARDS), ANNA)
    assert client.lrange(outbox, 9_999, -1) == [b"c\0" + encode_event(more[0])]
    assert [(each.id, each.code) for each in unsent(client)] == [
        (each.id, "outbox_full") for each in more[1:]
    ]
    accept(client, ANNA, b"stop")
    lanes.commit([draft(claim(lanes, ANNA), silenced=["c"], outbox=[("c", "bye")])])
    assert outgoing(outboxes, ANNA) == "bye"
