"""Whatever comes, in whatever order and time, a lane stays whole: nothing raises, every bound holds."""

import math
from collections import Counter
from typing import NamedTuple

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.model.effects import Effects
from engine.model.events import (
    CancelSession,
    DeliveryReceipt,
    InboundSms,
    Invitation,
    Mail,
    PersonOptedIn,
    PersonOptedOut,
    ProviderStop,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsNotSent,
    SmsPart,
    SmsReceived,
    decode_records,
    encode_event,
)
from engine.model.lane import Lane, decode_lane, encode_lane, forget_events
from engine.model.quiet_hours import QuietHours
from engine.surveys.keywords import is_start
from engine.turns.advance import advance, missing_survey_versions
from engine.turns.session_routing import channel_of_key, main_line, open_sessions
from tests.engine.chat import SHIPPED, T0, policy_for, same_bytes, surveys_of
from tests.support.example_counts import examples

ROUND = """
survey: round
start: ROUND
languages: [fr, en]
idle: 5m
expires: 1h
cooldown: 0s
again: restart
most_sms: 7
texts: {completed: "Merci {colour|!}", refused: Plus tard.}
steps:
  - {id: hello, say: Bonjour}
  - id: colour
    ask: {fr: Couleur ?, en: Colour?}
    answer: {type: choice, options: [rouge, {id: end, label: fin, aliases: [end, quit]}]}
    attempts: 2
    give_up: colour
    remind: {after: 1m, times: 2, text: "Alors, {colour|quoi} ?"}
    next: [{when: {equals: end}, go: end}, {when: {answered: false}, go: end}]
  - {id: more, ask: "Encore ?", answer: {type: yes_no}, next: [{when: {equals: yes}, go: hello}]}
"""
SURVEYS = surveys_of({**SHIPPED, "round.yaml": ROUND})
SENDER = "+33612345678"
POLICY = {
    "octopush": msgspec.structs.replace(policy_for("tutorial"), start_burst=0),
    "twilio": msgspec.structs.replace(
        policy_for("clinic", "conversation"), pause_ms=0, number="+15005550006", contacts={SENDER: "Rey"}
    ),
    "round": msgspec.structs.replace(
        policy_for("round", "clinic"), sessions_per_sender_per_day=0, start_burst=20,
        number="99", originators=("100", "200"), quiet=QuietHours(11 * 60, 12 * 60),
    ),
}  # fmt: skip
NEVER = 2 * T0

WORDS = [
    "START",
    "Round",
    "Check-up",
    "STOP",
    "arrêt",
    "END",
    "quit",
    "HELP",
    "info",
    "UNSTOP",
    "YES",
    "stop please",
    "98.6",
    "80",
    "1",
]
TEXTS = st.sampled_from([*WORDS, "START", "ROUND", "2", "yes", "no", "oui", "Ann", ""]) | st.text(max_size=20)
CHANNELS = st.sampled_from(sorted(POLICY))
GAPS_MS = st.sampled_from([0, 1, 500, 2_000, 29_999, 30_000, 30_001, 60_000, 3_600_000, 86_400_000, -5_000])


KINDS = ["sms"] * 12 + ["part"] * 3 + ["receipt"] * 3 + ["invitation"] * 2 + ["stop", "cancel"]
NAMES = st.integers(0, 30).map("{:016x}".format)
"""Ids of events, which may have opened sessions."""


@st.composite
def events(draw, identity):
    channel = draw(CHANNELS)
    originator = draw(st.sampled_from(["", "", "99", "100", "200", "300"]))
    match draw(st.sampled_from(KINDS)):
        case "stop":
            return ProviderStop(identity, channel, draw(TEXTS), draw(st.sampled_from(["", "import"])))
        case "cancel":
            return CancelSession(identity, channel, draw(NAMES))
        case "invitation":
            survey = draw(st.sampled_from(POLICY[channel].surveys))
            variables = draw(st.sampled_from([{}, {"agentId": "7", "$contact": "Finn", "$messages": "x"}]))
            expires_at = draw(st.sampled_from([0, 0, T0 + 3_600_000]))
            return Invitation(
                identity, channel, survey, variables=variables, expires_at=expires_at, originator=originator
            )
        case "receipt":
            state = draw(st.sampled_from(["", "sent", "failed", "delivered"]))
            sms = draw(st.just("") | NAMES.map("{}x0".format) | NAMES.map("{}r0".format))
            return DeliveryReceipt(
                identity, channel, "sms_1", "S", state, permanent=draw(st.booleans()), sms=sms, why="gone"
            )
        case "part":
            reference, number = draw(st.sampled_from(["1", "2"])), draw(st.integers(1, 3))
            return SmsPart(
                identity, channel, draw(TEXTS), reference, number, draw(st.integers(1, 3)), originator
            )
        case _:
            text = draw(TEXTS)
            start = is_start(text, POLICY[channel].surveys, SURVEYS) or draw(st.integers(0, 20)) == 0
            handled = draw(st.sampled_from(["", "", "", "", "", "", "stop", "help", "start"]))
            return InboundSms(identity, channel, text, start, handled=handled, originator=originator)


@st.composite
def mails(draw, ordered=False):
    """Mail with second copies, but none later than a provider sends them."""
    now, clock, mail, applied = T0, 0, [], []
    for number in range(draw(st.integers(0, 30))):
        now += draw(GAPS_MS)
        clock = max(clock, now)
        recent = [event for at, event in applied if clock - at < 86_400_000]
        again = recent and draw(st.integers(0, 4)) == 0
        event = draw(st.sampled_from(recent)) if again else draw(events(f"{number:016x}"))
        if not again:
            applied.append((clock, event))
        mail.append(Mail(clock if ordered else now, event))
    return mail


class Step(NamedTuple):
    lane: Lane
    effects: Effects


def step(lane, mail, now):
    lane = decode_lane(encode_lane(lane))
    return Step(lane, advance(lane, SENDER, mail, now, SURVEYS, POLICY))


def play(mail):
    """One event at a time, alarms ringing in between; every step."""
    steps = [step(Lane(), [], T0)]
    for each in mail:
        ring_alarms(steps, each.at)
        steps.append(step(steps[-1].lane, [each], each.at))
    return steps


def ring_alarms(steps, before):
    while 0 < steps[-1].effects.alarm < before:
        steps.append(step(steps[-1].lane, [], steps[-1].effects.alarm))


def lasting_records(steps):
    """All records but those that depend on what had left before a STOP."""
    return [record for each in steps for record in each.effects.records if not isinstance(record, SmsNotSent)]


@settings(max_examples=examples(150), deadline=None)
@given(mails())
def test_bounds_hold_whatever_comes(mail):
    steps = play(mail)
    clock, spoken, most = 0, Counter(), {}
    silent, confirmed, unconfirmed = set(), False, False
    for each in steps:
        assert each.lane.clock >= clock
        clock = each.lane.clock
        assert decode_lane(encode_lane(each.lane)) == each.lane
        assert decode_records(encode_event(each.effects.records)) == each.effects.records
        assert len(each.lane.applied_events) <= 128
        assert missing_survey_versions(each.lane, SURVEYS) == set()
        waits = any(line.session for line in each.lane.lines.values()) or each.lane.partial_sms
        assert bool(each.effects.alarm) == bool(waits)
        assert each.effects.keep_until >= clock + 2 * 86_400_000
        assert len(each.lane.partial_sms) <= 8
        assert all(len(line.receipts) <= 64 for line in each.lane.lines.values())
        for record in each.effects.records:
            match record:
                case SessionOpened(session=session, version=version):
                    most[session] = SURVEYS.by_version(version).most_sms or math.inf
                case SmsDecided(session=session, id=identity) if session:
                    assert identity == f"{session}x{spoken[session]}"
                    spoken[session] += 1
                case SmsReceived(channel=channel, handled=handled):
                    confirmed = handled == "stop"
                case PersonOptedOut(channel=channel, by_provider=by_provider):
                    silent.add(channel)
                    unconfirmed = not (by_provider or confirmed)
                    assert each.effects.opt_outs[channel][0] in (0, record.at)
                case PersonOptedIn(channel=channel):
                    silent.remove(channel)
                    assert channel in each.effects.opt_outs
                case _:
                    pass
            if isinstance(record, SmsDecided) and record.channel in silent:
                assert (record.step, unconfirmed) == ("stopped", True)
                unconfirmed = False
        opted_out = {key for key, line in each.lane.lines.items() if line.opted_out_at}
        assert opted_out == silent
        assert not any(line.session for key, line in each.lane.lines.items() if channel_of_key(key) in silent)
        over = {
            record.session: record.how for record in each.effects.records if isinstance(record, SessionEnded)
        }
        assert {session for session, how in over.items() if how != "completed"} <= {*each.effects.withdrawn}
        assert not {session for session, how in over.items() if how == "completed"} & {
            *each.effects.withdrawn
        }
        gone = {record.id for record in each.effects.records if isinstance(record, SmsNotSent)}
        said = [
            record.id
            for record in each.effects.records
            if isinstance(record, SmsDecided) and record.id not in gone
        ]
        assert [sms.id for sms in each.effects.outbox] == said
        assert all(sms.text and sms.to == SENDER for sms in each.effects.outbox)
    assert all(spoken[session] <= most[session] for session in spoken)
    said = [sms.id for each in steps for sms in each.effects.outbox]
    assert len(said) == len(set(said))
    ended = [
        record.session
        for each in steps
        for record in each.effects.records
        if isinstance(record, SessionEnded)
    ]
    assert len(ended) == len(set(ended))


@settings(max_examples=examples(100), deadline=None)
@given(mails())
def test_the_same_gives_the_same_bytes(mail):
    assert all(same_bytes(one, other) for one, other in zip(play(mail), play(mail), strict=True))


@settings(max_examples=examples(100), deadline=None)
@given(mails(ordered=True), st.integers(0, 30))
def test_batches_and_late_alarms_make_no_difference(mail, cut):
    alone, together = play(mail), play([])
    for batch in (mail[:cut], mail[cut:]):
        if batch:
            together.append(step(together[-1].lane, batch, batch[-1].at))
    ring_alarms(alone, NEVER)
    ring_alarms(together, NEVER)
    assert encode_lane(together[-1].lane) == encode_lane(alone[-1].lane)
    assert lasting_records(together) == lasting_records(alone)
    assert sum(each.effects.duplicates for each in together) == sum(each.effects.duplicates for each in alone)


@settings(max_examples=examples(100), deadline=None)
@given(mails(ordered=True))
def test_the_effects_of_single_events_merge_into_those_of_their_batch(mail):
    assume(mail)
    now = mail[-1].at
    lane, merged = Lane(), Effects()
    for each in mail:
        merged.merge_later(advance(lane, SENDER, [each], now, SURVEYS, POLICY))
    batch_lane, batch = step(Lane(), mail, now)
    assert lane == batch_lane
    for effects in (
        merged,
        batch,
    ):  # of SMS that a later event of the batch withdraws, only the batch's archive tells
        effects.records = [each for each in effects.records if not isinstance(each, SmsNotSent)]
    assert merged == batch


@settings(max_examples=examples(150), deadline=None)
@given(mails(), st.integers(0, 30), CHANNELS, GAPS_MS)
def test_of_whom_the_list_has_nothing_leaves_unless_their_mail_opts_in_again(mail, cut, channel, gap_ms):
    """Whenever the list got it, and whatever comes at once with the moment at which the lane can be read again."""
    lane = play(mail[:cut])[-1].lane
    was_out = main_line(lane, channel).opted_out_at
    effects = advance(
        lane, SENDER, mail[cut:], max([T0, *(each.at for each in mail)]), SURVEYS, POLICY,
        opted_out={channel: (T0 + gap_ms, "person")},
    )  # fmt: skip
    is_back = effects.opt_outs.get(channel, (1, ""))[0] == 0
    assert bool(main_line(lane, channel).opted_out_at) != is_back
    if not is_back:
        leaving = {(sms.channel, kind_of(sms, effects)) for sms in effects.outbox}
        assert {kind for at, kind in leaving if at == channel} <= {"stopped"}
        assert not list(open_sessions(lane, channel))
        assert was_out or channel in effects.silenced


def kind_of(sms, effects):
    """What an SMS says, if it is a fixed text, or the step that says it."""
    decided = (each for each in effects.records if isinstance(each, SmsDecided))
    return next(each.step for each in decided if each.id == sms.id)


@settings(max_examples=examples(100), deadline=None)
@given(mails(ordered=True))
def test_a_second_copy_changes_nothing(mail):
    assume(mail and not isinstance(mail[-1].event, DeliveryReceipt))
    lane, last = play(mail)[-1].lane, mail[-1]
    after, again = step(lane, [Mail(last.at + 1, last.event)], last.at + 1)
    assert (again.duplicates, again.outbox, again.records) == (1, [], [])
    assert after == lane


@settings(max_examples=examples(100), deadline=None)
@given(mails(ordered=True), st.sampled_from(["", "sent", "failed", "delivered"]), st.booleans())
def test_a_second_receipt_changes_nothing(mail, state, permanent):
    at = mail[-1].at if mail else T0
    receipt = Mail(at, DeliveryReceipt("e" * 16, "round", "t", "s", state, permanent=permanent))
    lane = play([*mail, receipt])[-1].lane
    after, again = step(lane, [receipt], at)
    assert (again.outbox, again.records, again.withdrawn) == ([], [], {})
    assert after == lane


def test_no_more_than_128_ids_are_kept_and_the_oldest_are_handed_on():
    lane, displaced = Lane(), {}
    for number in range(300):
        each = step(lane, [Mail(T0 + number, CancelSession(f"{number:016x}", "round", "s"))], T0)
        lane = each.lane
        displaced |= each.effects.displaced_events
    assert list(lane.applied_events) == [f"{number:016x}" for number in range(172, 300)]
    assert displaced == {f"{number:016x}": T0 + number for number in range(172)}


def test_ids_are_forgotten_once_they_are_old():
    lane = Lane(applied_events={"a": 1, "b": 2, "c": 3})
    forget_events(lane, 2)
    assert lane.applied_events == {"b": 2, "c": 3}
