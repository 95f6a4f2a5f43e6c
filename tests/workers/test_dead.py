"""A dead letter is replayed as a turn of its own: once, in order, beside whatever else happens, and never past a STOP."""

import msgspec
import pytest

from config.store import keyspace, redis_client, stored_values
from engine.model.events import (
    DeliveryReceipt,
    InboundSms,
    Invitation,
    OutboundSms,
    decode_outbound,
    encode_event,
)
from tests.workers.dead_letters import call, counted, fell, letters_of, outcomes, shard, told, true_to_itself
from workers.store.dead_letter_store import DeadLetter, discard, encode_dead_letter
from workers.store.lanes import LaneStore
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OutboxStore, OutboxUpdate
from workers.turns import drafts

ANNA, BORIS = "+33600000001", "+33600000002"


@pytest.fixture
def town(deploy):
    return deploy()


def test_a_letter_is_replayed_on_its_lane_and_goes_with_an_entry_in_the_audit(town, failing):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    assert (letter.reason, letter.survey, letter.session) == ("engine_error", "clinic", f"{1:016x}")
    (looked,) = told("replay", letter.id, "--dry-run", status=0)
    assert (looked["outcome"], looked["sms"]) == ("advanced", ["How old are you, Ada?"])
    assert town.said(ANNA) == ["What is your name?"]
    (done,) = told("replay", letter.id, "--as", "eve@desk", status=0)
    assert done == looked
    assert town.said(ANNA) == ["What is your name?", "How old are you, Ada?"]
    assert letters_of(town) == []
    true_to_itself(town)
    (entry,) = told("audit")
    assert (entry["id"], entry["by"], entry["outcome"], entry["reason"]) == (
        letter.id, "eve@desk", "advanced", "engine_error",
    )  # fmt: skip
    assert outcomes(letter.id, status=0) == ["gone"]


def test_replaying_twice_does_it_once(town, failing):
    fell(town, failing, ANNA, BORIS)
    assert sorted(outcomes("--all", status=0)) == ["advanced", "advanced"]
    assert outcomes("--all", status=0) == []
    assert [len(town.said(person)) for person in (ANNA, BORIS)] == [2, 2]
    assert len(told("audit")) == 2


def test_mail_that_waits_is_not_touched_and_is_woken_for(town, failing):
    fell(town, failing, ANNA)
    town.accept(ANNA, "36")
    town.world.broker.flushdb()
    assert outcomes("--all", status=0) == ["advanced"]
    assert town.said(ANNA)[-1] == "How old are you, Ada?"
    town.drain()
    assert town.said(ANNA)[-1] == "Goodbye, Ada."


def test_letters_of_one_person_are_replayed_in_the_order_in_which_they_fell(town, failing):
    failing |= {"Ada", "x", "y", "36"}
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "Ada", "x", "y", "36")  # they fall in one commit, and in one millisecond
    town.drain()
    failing.clear()
    assert outcomes("--all", status=0) == ["advanced"] * 4
    digits = "Digits, please. How old are you, Ada?"
    assert town.said(ANNA)[1:] == ["How old are you, Ada?", digits, digits, "Goodbye, Ada."]


def test_letters_that_are_named_are_replayed_in_the_order_of_their_fall_too(town, failing):
    failing |= {"Ada", "36"}
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "Ada", "36")
    town.drain()
    failing.clear()
    older, younger = [letter.id for letter in letters_of(town)]
    assert outcomes(younger, older, status=0) == ["advanced"] * 2
    assert town.said(ANNA)[1:] == ["How old are you, Ada?", "Goodbye, Ada."]


def test_what_fails_again_stays_with_one_more_attempt_and_its_newest_error(town, failing):
    fell(town, failing, ANNA)
    failing.add("Ada")
    (looked,) = told("replay", "--all", "--dry-run", status=1)
    assert looked["outcome"] == "failing"
    assert "the same error" in looked["why"]
    assert outcomes("--all", status=1) == ["failing"]
    (letter,) = letters_of(town)
    assert (letter.attempts, len(letter.tries), letter.reason) == (2, 2, "engine_error")
    assert "cannot apply" in letter.traceback
    true_to_itself(town)
    assert [entry["outcome"] for entry in told("audit")] == ["failing"]
    assert town.said(ANNA) == ["What is your name?"]


def test_another_error_is_told_and_counted_under_its_reason(town, failing):
    fell(town, failing, ANNA)
    key = keyspace.lane_key(shard(town, ANNA), ANNA)
    state = town.client.get(key)
    town.client.set(key, b"1 0 corrupt")
    assert outcomes("--all", status=1) == ["failing"]
    (letter,) = letters_of(town)
    assert letter.reason == "unreadable_state"
    true_to_itself(town)
    town.client.set(key, state)
    assert outcomes("--all", status=0) == ["advanced"]
    true_to_itself(town)


@pytest.mark.parametrize(
    "poison", [b"not msgpack", encode_event(InboundSms("00000000000000bb", "no such channel", "hello"))]
)
def test_what_cannot_be_applied_at_all_stays_until_it_is_dropped(town, poison):
    town.deposit(ANNA, poison)
    town.drain()
    assert outcomes("--all", status=1) == ["failing"]
    call("drop", "--all", status=0)
    assert letters_of(town) == []
    assert [entry["outcome"] for entry in told("audit")] == ["failing", "dropped"]
    true_to_itself(town)


def test_what_has_been_applied_is_a_duplicate_and_only_taken_away(town, failing):
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "Ada", event_id="00000000000000aa")
    town.drain()
    failing.clear()
    town.accept(ANNA, "Ada", event_id="00000000000000aa")  # the provider sends it again
    town.drain()
    said = town.said(ANNA)
    assert outcomes("--all", status=0) == ["duplicate"]
    assert town.said(ANNA) == said
    assert letters_of(town) == []


def test_a_stop_that_held_though_it_fell_is_a_duplicate(town, failing):
    failing.add("STOP")
    fell(town, failing, ANNA)
    town.accept(ANNA, "START")
    failing.add("STOP")
    town.accept(ANNA, "STOP")
    town.drain()
    failing.clear()
    (letter,) = [letter for letter in letters_of(town) if letter.stopped]
    town.accept(ANNA, "START")
    town.drain()
    key = keyspace.lane_key(shard(town, ANNA), ANNA)
    fence, deadline, state = town.client.get(key).split(b" ", 2)
    lane = drafts.lane_format.decode_lane(state)
    lane.applied_events.clear()  # it was long ago
    town.client.set(key, b" ".join([fence, deadline, drafts.lane_format.encode_lane(lane)]))
    (looked,) = told("replay", letter.id, "--dry-run", status=0)
    (done,) = told("replay", letter.id, status=0)
    assert (done["outcome"], done["sms"]) == ("duplicate", [])
    assert looked == done
    assert not open_opt_out_list(town.client, town.world.settings.shards, "").opt_outs_of(ANNA)


def test_a_stop_that_fell_at_a_lane_that_could_not_be_read_is_told_to_it(town, failing):
    failing.clear()
    town.accept(ANNA, "START", "Ada")
    town.drain()
    key = keyspace.lane_key(shard(town, ANNA), ANNA)
    state = town.client.get(key)
    town.client.set(key, b"1 0 of another release")
    town.accept(ANNA, "STOP")
    town.drain()
    assert [(letter.reason, letter.stopped) for letter in letters_of(town)] == [("unreadable_state", True)]
    assert outcomes("--all", status=1) == ["failing"]
    town.client.set(key, state)
    assert outcomes("--all", "--dry-run") == ["advanced"]
    assert outcomes("--all", status=0) == ["advanced"]
    town.accept(ANNA, "36")
    town.deposit(ANNA, encode_event(Invitation("00000000000000a1", "clinic", "clinic")), start=True)
    town.drain()
    assert town.said(ANNA) == []
    true_to_itself(town)


def stop_unread(town):
    """Anna says STOP in a session, while her lane cannot be read. Then it can be."""
    town.accept(ANNA, "START")
    town.drain()
    key = keyspace.lane_key(shard(town, ANNA), ANNA)
    state = town.client.get(key)
    town.client.set(key, b"1 0 of another release")
    town.accept(ANNA, "STOP")
    town.drain()
    town.client.set(key, state)


def test_who_starts_again_after_such_a_stop_is_not_stopped_by_its_letter(town, failing):
    failing.clear()
    stop_unread(town)
    over(town)
    assert town.said(ANNA) == []
    another(town)
    assert outcomes("--all", "--stale", status=0) == ["duplicate"]
    assert town.said(ANNA) == ["What is your name?"]
    true_to_itself(town)


def test_who_starts_again_before_their_lane_heard_of_their_stop_is_not_stopped_unasked(
    town, failing, monkeypatch
):
    """A release whose turns do not look at the list has opened a session since."""
    failing.clear()
    stop_unread(town)
    with monkeypatch.context() as of_that_release:
        of_that_release.setattr("workers.store.lanes.decode_opt_outs", lambda entry: {})
        over(town)
        another(town)
    assert outcomes("--all", status=1) == ["stale"]
    assert outcomes("--all", "--stale", status=0) == ["advanced"]
    assert town.said(ANNA) == []


def over(town):
    """Anna's session ends."""
    town.accept(ANNA, "Bo", "36")
    town.drain()


def another(town):
    """Anna's session ends, and she begins another."""
    over(town)
    town.accept(ANNA, "START")
    town.drain()


@pytest.mark.parametrize("happens", [over, another])
def test_an_answer_to_a_session_that_is_over_is_stale_and_stays_unless_told(town, failing, happens):
    fell(town, failing, ANNA)
    happens(town)
    said = town.said(ANNA)
    assert outcomes("--all", status=1) == ["stale"]
    assert town.said(ANNA) == said
    assert len(letters_of(town)) == 1
    assert outcomes("--all", "--stale", status=0) == ["advanced"]
    assert letters_of(town) == []


def test_a_letter_that_does_not_say_what_was_open_is_stale_by_its_time(town, failing):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    undescribed = msgspec.structs.replace(letter, state=None, session="", survey="")
    name = keyspace.dead_letters_key(shard(town, ANNA))
    town.client.hset(name, letter.id, encode_dead_letter(undescribed).content)
    assert [each["outcome"] for each in told("replay", "--all", "--dry-run")] == ["advanced"]
    over(town)
    assert [each["outcome"] for each in told("replay", "--all", "--dry-run")] == ["stale"]


def test_a_letter_that_a_later_release_wrote_is_read_counted_and_told(town, failing):
    """It may have more fields than this release knows."""
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    later = msgspec.structs.asdict(letter) | {"tries": [], "mood": {"of": "the day"}, "since_when": [1, b"2"]}
    name = keyspace.dead_letters_key(shard(town, ANNA))
    town.client.hset(name, letter.id, msgspec.msgpack.encode(later))
    assert outcomes("--all", status=0) == ["advanced"]
    assert counted(town) == {}
    assert [(entry["reason"], entry["channel"]) for entry in told("audit")] == [("engine_error", "clinic")]


def test_a_session_pinned_to_another_version_is_stale(town, failing):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    k = shard(town, ANNA)
    lane = drafts.lane_format.decode_lane(letter.state)
    lane.lines["clinic"].session.version = "0" * 16
    moved = msgspec.structs.replace(letter, state=drafts.lane_format.encode_lane(lane))
    town.client.hset(keyspace.dead_letters_key(k), letter.id, encode_dead_letter(moved).content)
    (looked,) = told("replay", "--all", "--dry-run")
    assert (looked["outcome"], "version" in looked["why"]) == ("stale", True)


def test_a_version_that_this_process_does_not_run_is_found(deploy, failing):
    old = deploy()
    fell(old, failing, ANNA)
    new = deploy(survey=b"survey: clinic\nsteps: [{id: other, ask: Other?, answer: {type: yes_no}}]")
    assert outcomes("--all", status=0) == ["advanced"]
    assert new.said(ANNA)[-1] == "How old are you, Ada?"


def test_a_deadline_that_failed_is_applied_by_its_replay(town, failing, monkeypatch):
    town.accept(ANNA, "START")
    town.drain()
    k = shard(town, ANNA)
    with monkeypatch.context() as patched:
        patched.setattr(drafts, "advance", lambda *_: 1 / 0)
        fence, _, state = town.client.get(keyspace.lane_key(k, ANNA)).split(b" ", 2)
        town.client.set(keyspace.lane_key(k, ANNA), b" ".join([fence, b"1", state]))
        town.turns.handle_wakeup("replies", [ANNA])
    assert town.client.zscore(keyspace.lane_alarms_key(k), ANNA) is None
    assert outcomes("--all", status=0) == ["advanced"]
    assert town.client.zscore(keyspace.lane_alarms_key(k), ANNA) is not None


# SMS


def buried(town, sms, reason="rejected", **what):
    """A dead letter of an SMS, as the delivery worker buries it."""
    outboxes = OutboxStore(town.client, town.world.settings.shards, 60_000)
    k = shard(town, sms.to)
    town.client.rpush(
        keyspace.outbox_key(k, sms.to), stored_values.outbox_entry(sms.channel, encode_event(sms))
    )
    (take,) = outboxes.lease_oldest([sms.to])
    letter = DeadLetter(
        id=f"s{sms.id}", kind="sms", reason=reason, sender=sms.to, at=take.now, attempts=1, what=encode_event(sms),
        channel=sms.channel, session=sms.session, why="no", survey=sms.survey, **what,
    )  # fmt: skip
    outboxes.apply_updates([OutboxUpdate(take, "done", dead_letter=encode_dead_letter(letter))])
    return letter


def spoken(town, sender, text="What is your name?"):
    """The SMS with this text that waits for them, taken out of the outbox."""
    key = keyspace.outbox_key(shard(town, sender), sender)
    for entry in town.client.lrange(key, 0, -1):
        sms = decode_outbound(stored_values.outbox_sms(entry))
        if sms.text == text:
            town.client.lrem(key, 1, entry)
            return sms
    raise AssertionError(town.said(sender))


def test_an_sms_is_put_at_the_end_of_its_outbox_and_delivery_is_woken(town):
    town.accept(ANNA, "START")
    town.drain()
    first = spoken(town, ANNA)
    town.accept(ANNA, "Ada")
    town.drain()
    second = spoken(town, ANNA, "How old are you, Ada?")
    buried(town, first)
    buried(town, second)
    town.world.broker.flushdb()
    assert [each["sms"] for each in told("replay", "--all", "--yes", status=0)] == [
        [first.text],
        [second.text],
    ]
    assert town.said(ANNA) == [first.text, second.text]
    assert town.world.broker.zrange(keyspace.wakeup_queue_key("outbound"), 0, -1) == [ANNA.encode()]
    assert letters_of(town) == []
    true_to_itself(town)


def test_an_sms_is_stale_once_its_session_is_over_but_for_its_last_words(town):
    town.accept(ANNA, "START")
    town.drain()
    question = spoken(town, ANNA)
    over(town)
    farewell = spoken(town, ANNA, "Goodbye, Bo.")
    buried(town, question)
    buried(town, farewell)
    looked = {each["id"]: each["outcome"] for each in told("replay", "--all", "--dry-run")}
    assert looked == {f"s{question.id}": "stale", f"s{farewell.id}": "advanced"}
    town.accept(ANNA, "START")
    town.drain()
    assert outcomes("--all", status=1) == ["stale", "stale"]


def test_an_sms_that_the_provider_may_have_needs_an_option(town):
    town.accept(ANNA, "START")
    town.drain()
    buried(town, spoken(town, ANNA), "uncertain", uncertain=True, since=1)
    assert outcomes("--all", status=1) == ["uncertain"]
    assert town.said(ANNA) == []
    assert outcomes("--all", "--uncertain", status=0) == ["advanced"]
    assert town.said(ANNA) == ["What is your name?"]


def test_an_sms_that_is_stale_and_that_the_provider_may_have_needs_both_options(town):
    town.accept(ANNA, "START")
    town.drain()
    buried(town, spoken(town, ANNA), "uncertain", uncertain=True, since=1)
    over(town)
    said = town.said(ANNA)
    assert outcomes("--all", status=1) == ["uncertain"]
    assert outcomes("--all", "--uncertain", status=1) == ["uncertain"]
    assert outcomes("--all", "--stale", status=1) == ["uncertain"]
    assert town.said(ANNA) == said
    assert outcomes("--all", "--stale", "--uncertain", status=0) == ["advanced"]


def test_an_sms_whose_receipt_has_come_is_a_duplicate(town):
    town.accept(ANNA, "START")
    town.drain()
    sms = spoken(town, ANNA)
    buried(town, sms, "uncertain")
    town.deposit(
        ANNA, encode_event(DeliveryReceipt("r1", "clinic", "t", "delivered", "delivered", sms=sms.id))
    )
    town.drain()
    assert outcomes("--all", "--uncertain", status=0) == ["duplicate"]
    assert town.said(ANNA) == []


def test_an_sms_for_a_channel_that_is_no_more_fails_until_it_is_back(town):
    buried(town, OutboundSms("aax0", "gone", ANNA, "hello"), "unknown_channel")
    (done,) = told("replay", "--all", "--yes", status=1)
    assert (done["outcome"], "gone" in done["why"]) == ("failing", True)


# Nobody who has opted out is texted


def answer_then_stop(town, failing):
    fell(town, failing, ANNA)
    town.accept(ANNA, "STOP")


def start_then_stop(town, failing):
    failing.add("START")
    town.accept(ANNA, "START")
    town.drain()
    failing.clear()
    town.accept(ANNA, "STOP")


def sms_then_stop(town, failing):
    failing.clear()
    town.accept(ANNA, "START")
    town.drain()
    buried(town, spoken(town, ANNA), "uncertain")
    town.accept(ANNA, "STOP")


def invitation_after_stop(town, failing):
    failing.clear()
    town.accept(ANNA, "STOP")
    town.drain()
    event = encode_event(Invitation("00000000000000a1", "clinic", "clinic"))
    k = shard(town, ANNA)
    entry = keyspace.START_PREFIX + b"%013d" % (redis_client.server_time_ms(town.client) + 1_000) + event
    letter = DeadLetter(
        id="ea1", kind="event", reason="engine_error", sender=ANNA, at=1, attempts=1, what=entry
    )
    town.client.hset(keyspace.dead_letters_key(k), "ea1", encode_dead_letter(letter).content)
    town.client.zadd(keyspace.dead_letter_index_key(k), {"ea1": 1})


def sms_and_no_lane(town, failing):
    """What is left of the person is an entry in the list."""
    sms_then_stop(town, failing)
    town.drain()
    town.client.delete(keyspace.lane_key(shard(town, ANNA), ANNA))


OPTED_OUT = [answer_then_stop, start_then_stop, sms_then_stop, invitation_after_stop, sms_and_no_lane]


@pytest.mark.parametrize("way", OPTED_OUT)
def test_who_has_opted_out_is_texted_by_no_option(town, failing, way):
    way(town, failing)
    town.drain()
    town.client.delete(keyspace.outbox_key(shard(town, ANNA), ANNA))
    assert outcomes("--all", "--stale", "--uncertain", status=1) == ["opted_out"]
    town.drain()
    assert town.said(ANNA) == []
    assert len(letters_of(town)) == 1
    assert open_opt_out_list(town.client, town.world.settings.shards, "").opt_outs_of(ANNA)


@pytest.mark.parametrize("way", [answer_then_stop, sms_then_stop])
def test_who_is_in_the_list_alone_is_texted_by_no_option(town, failing, way):
    """An operator's list has them, and their lane has not heard of it yet."""
    way(town, failing)
    k = shard(town, ANNA)
    town.client.delete(keyspace.mailbox_key(k, ANNA), keyspace.outbox_key(k, ANNA))
    open_opt_out_list(town.client, town.world.settings.shards, "").add_opt_outs(
        [(ANNA, "clinic")], "operator"
    )
    town.client.delete(keyspace.mailbox_key(k, ANNA))
    assert outcomes("--all", "--stale", "--uncertain", status=1) == ["opted_out"]
    assert town.said(ANNA) == []


def stale_then_stop(town, failing):
    fell(town, failing, ANNA)
    another(town)
    town.accept(ANNA, "STOP")


def stale_sms_then_stop(town, failing):
    failing.clear()
    town.accept(ANNA, "START")
    town.drain()
    buried(town, spoken(town, ANNA))
    over(town)
    town.accept(ANNA, "STOP")


def uncertain_then_stop(town, failing):
    failing.clear()
    town.accept(ANNA, "START")
    town.drain()
    buried(town, spoken(town, ANNA), "uncertain", uncertain=True, since=1)
    town.accept(ANNA, "STOP")


@pytest.mark.parametrize(
    "way", [answer_then_stop, sms_then_stop, stale_then_stop, stale_sms_then_stop, uncertain_then_stop]
)
def test_nothing_is_sent_past_a_stop_that_waits_in_the_mailbox(town, failing, impatient, way):
    way(town, failing)
    town.client.delete(keyspace.outbox_key(shard(town, ANNA), ANNA))
    options = ["--stale", "--uncertain"]
    assert outcomes("--all", *options, status=1) == ["busy"]
    assert town.said(ANNA) == []
    town.drain()
    town.client.delete(keyspace.outbox_key(shard(town, ANNA), ANNA))
    assert outcomes("--all", *options, status=1) == ["opted_out"]
    assert town.said(ANNA) == []


def test_a_stop_that_nobody_applied_is_applied_though_its_session_is_over(town, failing, monkeypatch):
    """Workers died of it, and so did the one that looked whether it is a STOP."""
    monkeypatch.setattr(drafts, "apply_stop_only", lambda *_: None)
    failing.add("STOP")
    failing.discard("Ada")
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "STOP")
    town.drain()
    failing.clear()
    town.accept(ANNA, "Ada", "36")
    town.drain()
    assert outcomes("--all", status=0) == ["advanced"]
    assert open_opt_out_list(town.client, town.world.settings.shards, "").opt_outs_of(ANNA)


def test_a_start_sent_after_the_stop_is_the_persons_own_word(town, failing):
    failing.clear()
    town.accept(ANNA, "STOP")
    town.drain()
    failing.add("START")
    town.accept(ANNA, "START")
    town.drain()
    failing.clear()
    assert outcomes("--all", status=0) == ["advanced"]
    assert town.said(ANNA)[-1] == "What is your name?"


def meanwhile(monkeypatch, name, happens):
    """Something happens after a lane is reopened, and before `name` of Lanes is called."""
    then = getattr(LaneStore, name)

    def later(self, *arguments):
        happens()
        return then(self, *arguments)

    monkeypatch.setattr(LaneStore, name, later)


def test_a_letter_that_is_dropped_while_it_is_replayed_changes_nothing(town, failing, monkeypatch):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    k = shard(town, ANNA)
    meanwhile(monkeypatch, "commit", lambda: discard(town.client, k, [letter.id], "max", "dropped"))
    assert outcomes("--all", status=0) == ["gone"]
    assert town.said(ANNA) == ["What is your name?"]
    assert [entry["outcome"] for entry in told("audit")] == ["dropped"]


def test_mail_that_comes_while_a_letter_is_tried_is_woken_for_though_the_letter_stays(
    town, failing, monkeypatch
):
    fell(town, failing, ANNA)
    failing.add("Ada")
    town.world.broker.flushdb()

    def live():
        town.accept(ANNA, "Bo")
        assert town.woken("replies") == [ANNA]
        assert town.said(ANNA) == ["What is your name?"], "the lane is held"

    meanwhile(monkeypatch, "release_kept", live)
    assert outcomes("--all", status=1) == ["failing"]
    assert town.woken("replies") == [ANNA]
    assert town.said(ANNA)[-1] == "How old are you, Bo?"


def test_an_old_start_opens_a_session_that_lasts_from_now_on(deploy, failing):
    town = deploy(
        survey=b"survey: clinic\nidle: 10m\nsteps: [{id: name, ask: Name?, answer: {type: text}}, {id: bye, say: Bye.}]"
    )
    failing.add("START")
    town.accept(ANNA, "START")
    town.drain()
    failing.clear()
    (letter,) = letters_of(town)
    k = shard(town, ANNA)
    old = stored_values.with_accepted_ms(letter.what, letter.at - 5 * 3_600_000)
    town.client.hset(
        keyspace.dead_letters_key(k),
        letter.id,
        encode_dead_letter(msgspec.structs.replace(letter, what=old)).content,
    )
    assert outcomes("--all", status=0) == ["advanced"]
    assert town.client.zscore(keyspace.lane_alarms_key(k), ANNA) > redis_client.server_time_ms(town.client)
    town.turns.handle_wakeup("replies", [ANNA])
    town.accept(ANNA, "Ada")
    town.drain()
    assert town.said(ANNA) == ["Name?", "Bye."]


def test_a_lane_whose_worker_died_with_mail_is_left_to_workers_and_its_attempts_stay_counted(
    town, failing, impatient
):
    fell(town, failing, ANNA)
    town.accept(ANNA, "Bo")
    k = shard(town, ANNA)
    town.turns._lanes.claim("replies", [ANNA])
    fence, _, rest = town.client.get(keyspace.lane_lock_key(k, ANNA)).split(b" ", 2)
    town.client.set(keyspace.lane_lock_key(k, ANNA), b" ".join([fence, b"1", rest]))
    assert outcomes("--all", status=1) == ["busy"]
    (claim,) = town.turns._lanes.claim_suspect("replies", ANNA).claimed
    assert claim.attempts == 2


REMINDING = b"""
survey: clinic
steps: [{id: name, ask: Name?, answer: {type: text}, remind: {after: 5m, text: Still there?}}, {id: bye, say: Bye.}]
"""


def test_a_deadlines_reminder_is_not_sent_to_who_is_in_the_list_alone(deploy):
    town = deploy(survey=REMINDING)
    town.accept(ANNA, "START")
    town.drain()
    k = shard(town, ANNA)
    key = keyspace.lane_key(k, ANNA)
    fence, deadline, state = town.client.get(key).split(b" ", 2)
    lane = drafts.lane_format.decode_lane(state)
    for moment in ("opened_at", "last_sms_at", "asked_at"):
        session = lane.lines["clinic"].session
        setattr(session, moment, getattr(session, moment) - 6 * 60_000)
    town.client.set(key, b" ".join([fence, deadline, drafts.lane_format.encode_lane(lane)]))
    at = redis_client.server_time_ms(town.client)
    letter = DeadLetter(
        id="e1", kind="event", reason="engine_error", sender=ANNA, at=at, attempts=1, what=b""
    )
    town.client.hset(keyspace.dead_letters_key(k), "e1", encode_dead_letter(letter).content)
    town.client.zadd(keyspace.dead_letter_index_key(k), {"e1": at})
    (looked,) = told("replay", "--all", "--dry-run", status=0)
    assert looked["sms"] == ["Still there?"]
    open_opt_out_list(town.client, town.world.settings.shards, "").add_opt_outs(
        [(ANNA, "clinic")], "operator"
    )
    town.client.delete(keyspace.mailbox_key(k, ANNA))
    assert outcomes("--all", "--stale", status=1) == ["opted_out"]
    assert town.said(ANNA) == ["Name?"]
