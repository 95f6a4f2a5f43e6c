"""Whatever was stored runs again, byte for byte; whatever differs is found where it differs."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.events import (
    Answer,
    AnswerRejected,
    Attachment,
    InboundSms,
    PersonOptedOut,
    ReceiptRecorded,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsReceived,
    SmsSent,
    decode_records,
    encode_event,
)
from engine.model.lane import forget_events
from engine.model.quiet_hours import QuietHours
from engine.proofs.transcripts import PersonInvited
from engine.simulator.session_replay import (
    ReplayedDifferent,
    ReplayedSame,
    ReplayImpossible,
    SessionCollector,
    course_of,
    replay_on_version,
    replay_session,
    sessions_of,
)
from engine.simulator.simulator import SIMULATED_SENDER as PHONE
from engine.surveys.survey_registry import SurveyRegistry
from tests.engine.chat import SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of
from tests.engine.test_any_sequence import POLICY, SENDER, SURVEYS, mails, play
from tests.support.example_counts import examples

SURVEY = """
survey: ages
start: AGE
idle: 10m
expires: 1h
cooldown: 0s
again: restart
steps:
  - {id: hello, say: Hello.}
  - {id: age, ask: How old are you?, answer: {type: number, min: 0, max: 150}, remind: {after: 5m, text: Well?}}
  - {id: name, ask: And your name?, answer: {type: text}}
  - {id: bye, say: "Bye, {name}.", next: end}
"""
CHANGED = SURVEY.replace("max: 150", "max: 99").replace(
    "{id: bye, say: ", "{id: thanks, say: " + "ç" * 71 + ", next: end}\n  - {id: bye, say: "
)
POLICIES = {SIMULATED_CHANNEL: policy_for("ages")}


@pytest.fixture
def phone():
    return SimulatedPhone(surveys_of({"ages.yaml": SURVEY}), POLICIES[SIMULATED_CHANNEL])


def stored(phone):
    """The phone's sessions, as the archive would give them back."""
    return list(sessions_of(PHONE, decode_records(encode_event(phone.records))))


def the_session(phone):
    (session,) = stored(phone)
    return session


def version(text):
    (survey,) = (found := surveys_of({"ages.yaml": text})).current_names()
    return found.current(survey)


@settings(max_examples=examples(150), deadline=None)
@given(mails())
def test_any_session_comes_out_the_same(mail):
    steps = play(mail)
    records = [record for step in steps for record in step.effects.records]
    sessions = list(sessions_of(SENDER, records))
    assert sorted(session.id for session in sessions) == sorted(
        record.session for record in records if isinstance(record, SessionOpened)
    )
    for session in sessions:
        assert session.records[0] in records
        assert replay_session(session, SURVEYS, POLICY) == ReplayedSame()


@settings(max_examples=50, deadline=None)
@given(mails())
def test_on_its_own_version_nothing_differs(mail):
    records = [record for step in play(mail) for record in step.effects.records]
    for session in sessions_of(SENDER, records):
        survey = SURVEYS.by_version(session.opened.version)
        assert replay_on_version(session, survey, SURVEYS, POLICY).is_same


def as_0_1_0_recorded(record):
    """The record as a release has it that knew nothing of kinds and answers."""
    match record:
        case SmsDecided():
            return msgspec.structs.replace(record, kind="")
        case SmsReceived():
            return msgspec.structs.replace(record, step="", answer=None, answer_type="")
        case _:
            return record


@settings(max_examples=examples(100), deadline=None)
@given(mails(), st.randoms(use_true_random=False))
def test_a_session_that_0_1_0_had_a_part_in_comes_out_the_same(mail, dice):
    """Alone, or beside this release while one replaced the other: which recorded what is chance."""
    records = [record for each in play(mail) for record in each.effects.records]
    for share in (1.0, 0.5):
        mixed = [as_0_1_0_recorded(each) if dice.random() < share else each for each in records]
        for session in sessions_of(SENDER, decode_records(encode_event(mixed))):
            assert replay_session(session, SURVEYS, POLICY) == ReplayedSame()


ENDS = {
    "completed": ["AGE", "30", "Ann"],
    "stopped": ["AGE", "30", "stop"],
    "gave_up": ["AGE", "x", "x", "x"],
    "restarted": ["AGE", "30", "AGE"],
    "idle": ["AGE", 700_000, 700_000],
}


@pytest.mark.parametrize("how", ENDS)
def test_however_it_ended_it_comes_out_the_same(phone, how):
    for done in ENDS[how]:
        phone.wait(done) if isinstance(done, int) else phone.text(done, after_ms=1000)
    first = stored(phone)[0]
    assert first.ended.how == how
    assert replay_session(first, phone.surveys, POLICIES) == ReplayedSame()


def test_a_session_by_invitation_comes_out_the_same(phone):
    phone.invite(PersonInvited(content="Hi!", variables={"agentId": "7"}, expires_in=60_000))
    phone.wait(60_001)
    session = the_session(phone)
    assert session.ended.how == "expired"
    assert replay_session(session, phone.surveys, POLICIES) == ReplayedSame()


def test_a_stop_by_the_provider_comes_out_the_same(phone):
    phone.text("AGE")
    phone.provider_stop()
    session = the_session(phone)
    assert isinstance(session.records[-2], PersonOptedOut)
    assert replay_session(session, phone.surveys, POLICIES) == ReplayedSame()


def test_a_session_that_has_not_ended_runs_as_far_as_it_is_stored(phone):
    phone.text("AGE")
    phone.wait(400_000)
    session = the_session(phone)
    assert session.records[-1].text == "Well?"
    assert replay_session(session, phone.surveys, POLICIES) == ReplayedSame()


def test_what_is_told_outside_a_session_and_what_became_of_its_sms_are_no_part_of_it(phone):
    phone.text("hello")
    phone.text("AGE")
    phone.text("HELP")
    phone.text("30")
    session = the_session(phone)
    assert all(record.session == session.id for record in session.records)
    phone.records += [
        SmsSent(phone.now, SIMULATED_CHANNEL, session.id, "x", "t"),
        ReceiptRecorded(phone.now, SIMULATED_CHANNEL, "t", "OK"),
    ]
    assert the_session(phone).records == session.records
    assert replay_session(session, phone.surveys, POLICIES) == ReplayedSame()


@pytest.mark.parametrize(
    "limit",
    [
        {"surveys": ()},
        {"sessions_per_sender_per_day": 1},
        {"start_burst": 1, "start_per_minute": 0.001},
        {"closed": "sms_budget"},
    ],
    ids=lambda limit: next(iter(limit)),
)
def test_a_limit_of_today_does_not_hold_up_a_session_of_yesterday(phone, limit):
    for text in ("AGE", "30", "AGE", "30", "Ann", "AGE"):
        phone.text(text, after_ms=61_000)
    tight = {SIMULATED_CHANNEL: msgspec.structs.replace(POLICIES[SIMULATED_CHANNEL], **limit)}
    assert [replay_session(each, phone.surveys, tight) for each in stored(phone)] == [ReplayedSame()] * 3


def test_an_sms_that_was_forgotten_and_came_again_is_heard_again():
    lively = SURVEY.replace("idle: 10m", "idle: none").replace("expires: 1h", "expires: 3d")
    phone = SimulatedPhone(surveys_of({"ages.yaml": lively}), POLICIES[SIMULATED_CHANNEL])
    phone.text("AGE")
    phone.apply_event(InboundSms("a" * 16, SIMULATED_CHANNEL, "x"))
    phone.wait(90_000_000)
    forget_events(phone.lane, phone.now)  # whoever stores it does, after some days
    phone.apply_event(InboundSms("a" * 16, SIMULATED_CHANNEL, "x"))
    assert len(phone.records_of(AnswerRejected)) == 2
    assert replay_session(the_session(phone), phone.surveys, POLICIES) == ReplayedSame()


def test_a_restarted_session_runs_though_another_version_followed_it(phone):
    phone.text("AGE")
    phone.surveys.replace_current([version(CHANGED)])
    phone.text("AGE")
    first, second = stored(phone)
    assert first.opened.version != second.opened.version
    assert [replay_session(each, phone.surveys, POLICIES) for each in (first, second)] == [ReplayedSame()] * 2


def test_what_the_channel_told_of_the_person_is_told_again_though_it_would_be_told_otherwise_now():
    names = SURVEY.replace("say: Hello.", "say: 'Hello {$contact|you} from {$number}, {$messages}'")
    assert names != SURVEY
    known = msgspec.structs.replace(POLICIES[SIMULATED_CHANNEL], number="100", contacts={PHONE: "Rey"})
    phone = SimulatedPhone(surveys_of({"ages.yaml": names}), known)
    assert phone.text("AGE")[0].startswith("Hello Rey from 100, 1")
    phone.text("HELP")
    phone.text("30")
    session = the_session(phone)
    assert session.opened.variables == {"contact": "Rey", "number": "100"}
    assert session.records[-1].text != ""
    now = {SIMULATED_CHANNEL: msgspec.structs.replace(known, number="200", contacts={PHONE: "Finn"})}
    assert replay_session(session, phone.surveys, now) == ReplayedSame()
    phone.text("STOP")
    assert the_session(phone).ended.answers["$$messages"].value == 4
    assert replay_session(the_session(phone), phone.surveys, now) == ReplayedSame()


def test_a_stop_that_the_provider_handled_and_a_start_after_it_come_out_the_same(phone):
    phone.text("AGE")
    phone.text("end", handled="stop")
    phone.text("YES")
    phone.text("AGE", after_ms=60_000)
    phone.text("30")
    phone.provider_stop("", source="import march.csv")
    first, second = stored(phone)
    assert (first.ended.how, second.ended.how) == ("stopped", "stopped")
    assert [replay_session(each, phone.surveys, POLICIES) for each in (first, second)] == [ReplayedSame()] * 2


def test_a_reminder_that_waited_for_the_morning_comes_out_the_same():
    quiet = msgspec.structs.replace(POLICIES[SIMULATED_CHANNEL], quiet=QuietHours(9 * 60, 9 * 60 + 4))
    phone = SimulatedPhone(surveys_of({"ages.yaml": SURVEY}), quiet, now=1_800_000_000_000 - 3 * 60_000)
    phone.text("AGE")
    phone.wait(900_000)
    assert replay_session(the_session(phone), phone.surveys, {SIMULATED_CHANNEL: quiet}) == ReplayedSame()


# What differs


@pytest.fixture
def whole(phone):
    for text in ("AGE", "x", "30", "Ann"):
        phone.text(text, after_ms=5_000)
    return the_session(phone)


def tampered(session, place, **fields):
    records = list(session.records)
    records[place] = msgspec.structs.replace(records[place], **fields)
    (again,) = sessions_of(session.sender, records)
    return again


def test_each_tampered_record_is_found_where_it_is(phone, whole):
    found = 0
    for place, record in enumerate(whole.records):
        if isinstance(record, (SmsDecided, AnswerRejected, SessionEnded)):
            fields = {"how": "gave_up"} if isinstance(record, SessionEnded) else {"step": "other"}
            came = replay_session(tampered(whole, place, **fields), phone.surveys, POLICIES)
            assert came == ReplayedDifferent(place, msgspec.structs.replace(record, **fields), record)
            found += 1
    assert found == 7


@pytest.mark.parametrize(
    "kind_of_record, fields",
    [
        (SmsDecided, {"kind": "fixed"}),
        (SmsReceived, {"step": "name"}),
        (SmsReceived, {"answer": Answer("30", 31)}),
        (SmsReceived, {"answer_type": "scale"}),
    ],
)
def test_what_a_record_says_of_kinds_and_answers_is_compared(phone, whole, kind_of_record, fields):
    place = next(
        place
        for place, record in enumerate(whole.records)
        if isinstance(record, kind_of_record) and getattr(record, "answer", True) is not None
    )
    came = replay_session(tampered(whole, place, **fields), phone.surveys, POLICIES)
    stored = whole.records[place]
    assert came == ReplayedDifferent(place, msgspec.structs.replace(stored, **fields), stored)


@pytest.mark.parametrize("recorded_by", [as_0_1_0_recorded, lambda record: record])
def test_what_0_1_0_recorded_is_compared_but_for_what_it_did_not_know(phone, whole, recorded_by):
    records = [recorded_by(record) for record in whole.records]
    for place, record in enumerate(records):
        if isinstance(record, SmsDecided):
            session = msgspec.structs.replace(
                whole,
                records=[*records[:place], msgspec.structs.replace(record, text="?"), *records[place + 1 :]],
            )
            came = replay_session(session, phone.surveys, POLICIES)
            assert (came.place, came.came_out) == (place, record)


def test_an_answer_that_was_none_when_it_was_stored_shows_at_the_latest_in_what_follows_it(phone):
    """A record of today of an SMS that answered nothing looks like one of 0.1.0."""
    for text in ("AGE", "120"):
        phone.text(text)
    strict = surveys_of({"ages.yaml": CHANGED})
    other = SimulatedPhone(strict, POLICIES[SIMULATED_CHANNEL])
    for text in ("AGE", "120"):
        other.text(text)
    session = the_session(other)
    as_the_lax_version = [
        msgspec.structs.replace(record, version=phone.records_of(SessionOpened)[0].version)
        if isinstance(record, SessionOpened)
        else record
        for record in session.records
    ]
    (session,) = sessions_of(PHONE, as_the_lax_version)
    came = replay_session(session, phone.surveys, POLICIES)
    assert isinstance(came.stored, AnswerRejected)
    assert isinstance(came.came_out, SmsDecided)


def test_what_came_with_an_sms_comes_with_it_again(phone):
    phone.text("AGE")
    picture = Attachment("image/png", "https://media.example.org/1")
    phone.apply_event(InboundSms("a" * 16, SIMULATED_CHANNEL, "30", attachments=(picture,)))
    assert phone.records_of(SmsReceived)[-1].attachments == (picture,)
    assert replay_session(the_session(phone), phone.surveys, POLICIES) == ReplayedSame()


def test_a_tampered_sms_shows_in_how_it_was_read_and_of_0_1_0_in_what_follows_it(phone, whole):
    place = next(place for place, record in enumerate(whole.records) if getattr(record, "text", "") == "30")
    came = replay_session(tampered(whole, place, text="thirty"), phone.surveys, POLICIES)
    assert (came.place, came.came_out.answer) == (place, None)
    old = msgspec.structs.replace(whole, records=[as_0_1_0_recorded(record) for record in whole.records])
    came = replay_session(tampered(old, place, text="thirty"), phone.surveys, POLICIES)
    assert (came.place, type(came.came_out)) == (place + 1, AnswerRejected)


def test_a_missing_and_a_further_record_are_found(phone, whole):
    short = msgspec.structs.replace(whole, records=whole.records[:-1])
    assert replay_session(short, phone.surveys, POLICIES) == ReplayedDifferent(
        len(short.records), None, whole.records[-1]
    )
    long = msgspec.structs.replace(whole, records=[*whole.records, whole.records[-1]])
    assert replay_session(long, phone.surveys, POLICIES) == ReplayedDifferent(
        len(whole.records), whole.records[-1], None
    )


def test_a_deadline_at_another_time_is_told_both_ways(phone):
    phone.text("AGE")
    phone.wait(3_600_000)
    session = the_session(phone)
    place = len(session.records) - 1
    came = replay_session(tampered(session, place, at=session.ended.at - 1), phone.surveys, POLICIES)
    assert (came.place, came.stored.at, came.came_out.at) == (place, session.ended.at - 1, session.ended.at)


def test_the_pause_of_the_channel_counts(phone):
    phone.text("AGE")
    phone.wait(3_600_000)
    hasty = {SIMULATED_CHANNEL: msgspec.structs.replace(POLICIES[SIMULATED_CHANNEL], pause_ms=0)}
    assert isinstance(replay_session(the_session(phone), phone.surveys, hasty), ReplayedDifferent)


# What cannot be run


def test_a_session_whose_beginning_is_gone_cannot_be_run(phone, whole):
    for cut in range(1, len(whole.records)):
        (rest,) = sessions_of(whole.sender, whole.records[cut:])
        assert rest.id == whole.id
        assert replay_session(rest, phone.surveys, POLICIES) == ReplayImpossible(
            "its beginning is no longer stored"
        )
        assert replay_on_version(rest, version(CHANGED), phone.surveys, POLICIES) == ReplayImpossible(
            "its beginning is no longer stored"
        )


def test_a_version_or_a_channel_that_is_gone_is_named(phone, whole):
    gone = f"version {whole.opened.version} of the survey 'ages' is no longer stored"
    assert replay_session(whole, SurveyRegistry(), POLICIES) == ReplayImpossible(gone)
    assert replay_session(whole, phone.surveys, {}) == ReplayImpossible(
        f"its channel '{SIMULATED_CHANNEL}' is not in the settings any more"
    )


def test_a_session_that_breaks_the_engine_is_told_and_hides_no_other(phone, whole):
    survey = phone.surveys.current("ages")
    broken = msgspec.structs.replace(survey, steps=survey.steps[:1])
    came = replay_on_version(whole, broken, phone.surveys, POLICIES)
    assert isinstance(came, ReplayImpossible)
    assert came.why.startswith("the engine fails on it: ")


# In the archive


def test_only_sessions_that_have_not_ended_are_held():
    found, surveys = SessionCollector(), surveys_of({"ages.yaml": SURVEY})
    ended = []
    for number in range(20):
        phone = SimulatedPhone(surveys, POLICIES[SIMULATED_CHANNEL])
        for text in ("AGE", "30", "Ann")[: 3 if number % 5 else 2]:
            phone.text(text)
        for record in phone.records:
            ended += found.add_records(f"+{number}", [record])
    assert [session.sender for session in ended] == [f"+{number}" for number in range(20) if number % 5]
    assert [session.sender for session in found.unended_sessions()] == ["+0", "+5", "+10", "+15"]
    assert all(replay_session(session, surveys, POLICIES) == ReplayedSame() for session in ended)


# Against another version


def test_the_same_version_makes_no_difference(phone, whole):
    came = replay_on_version(whole, version(SURVEY), phone.surveys, POLICIES)
    assert came.is_same
    assert came.before.path == ("hello", "age", "age", "name", "bye")
    assert (came.before.outcome, came.before.sms, came.before.segments) == ("completed", 5, 5)
    assert list(came.before.misread.values()) == [("age", "not_a_number")]
    assert (came.diverges_at, came.no_longer_read) == (None, [])


def test_what_another_version_changes_is_named(phone):
    for text in ("AGE", "120", "Ann"):
        phone.text(text)
    came = replay_on_version(the_session(phone), version(CHANGED), phone.surveys, POLICIES)
    assert not came.is_same
    assert came.after.path == ("hello", "age", "age", "age", "age")
    assert came.diverges_at == 2
    assert came.no_longer_read == [("age", "too_high"), ("age", "not_a_number")]
    assert (came.before.outcome, came.after.outcome) == ("completed", "idle")
    for text in ("AGE", "30", "Ann"):
        phone.text(text, after_ms=1000)
    came = replay_on_version(stored(phone)[1], version(CHANGED), phone.surveys, POLICIES)
    assert (came.after.path[came.diverges_at], came.after.sms, came.after.segments) == ("thanks", 4, 5)
    assert (came.before.outcome, came.after.outcome) == ("completed", "completed")


def test_a_session_that_another_version_would_not_open(phone, whole):
    came = replay_on_version(
        whole, version(SURVEY.replace("start: AGE", "start: YEARS")), phone.surveys, POLICIES
    )
    assert (came.after.outcome, came.after.sms) == ("not opened", 0)


def test_an_open_session_is_compared_as_far_as_it_went(phone):
    phone.text("AGE")
    came = replay_on_version(the_session(phone), version(CHANGED), phone.surveys, POLICIES)
    assert came.is_same
    assert came.after.outcome == "open"


def test_a_restarted_session_is_restarted_on_the_other_version_too(phone):
    phone.text("AGE")
    phone.text("AGE")
    came = replay_on_version(stored(phone)[0], version(CHANGED), phone.surveys, POLICIES)
    assert came.after.outcome == "restarted"


def test_a_session_of_another_survey_is_not_compared(phone, whole):
    other = version(SURVEY.replace("survey: ages", "survey: years"))
    assert replay_on_version(whole, other, phone.surveys, POLICIES) == ReplayImpossible(
        "it is of the survey 'ages', not of 'years'"
    )


def test_a_course_counts_segments_and_not_only_sms():
    said = SmsDecided(0, SIMULATED_CHANNEL, "1", "1x0", "a", "ç" * 71)
    assert course_of([SmsReceived(0, SIMULATED_CHANNEL, "1", "1", "AGE"), said]).segments == 2
