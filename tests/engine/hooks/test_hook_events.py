"""Each record is told as what it is; an event keeps its id, and a person's events their order; nothing that comes raises."""

import json
import re
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.hooks.cloud_events import render_batch, render_event
from engine.hooks.event_context import EventContext, SessionContext, note_context
from engine.hooks.event_data import EVENT_TYPES
from engine.hooks.event_filter import EventFilter
from engine.hooks.hook_events import StreamPlace, events_of_entry, read_entry
from engine.model.events import (
    Answer,
    AnswerRejected,
    ArchiveRecord,
    Attachment,
    DeadLetterAdded,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ReceiptRecorded,
    SessionEnded,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
    encode_event,
)
from ingest.api.session_view import build_view
from tests.engine.hooks.hook_records import (
    AT,
    DEAD,
    INVITATION,
    INVITED,
    OPENED,
    PERSON,
    PLACE,
    PSEUDONYM,
    RECORD_LISTS,
    RECORDS,
    SESSION,
    SMS,
    context_of,
    data_of,
    entry_of,
    events_of,
    rendered,
)
from tests.engine.test_any_sequence import SENDER, mails, play
from tests.support.example_counts import examples

OF_SESSION = {
    "channel": "clinic",
    "survey": "clinic",
    "version": "8c7dd922ad47494f",
    "language": "en",
    "session": SESSION,
    "clientReference": "visit-4711",
    "campaign": "autumn",
}
KNOWN = context_of(OPENED, INVITED)
NOTHING = EventContext()


# What each record comes to


def test_a_session_that_opens_tells_who_began_it_and_with_what():
    began = {"originator": "33700", "variables": {"$contact": "Ada"}}
    by_person = OF_SESSION | {"clientReference": "", "campaign": "", "invited": False} | began
    assert data_of(OPENED) == [("session.opened", by_person)]
    invited = OF_SESSION | began | {"invited": True, "variables": {"$contact": "Ada", "agentId": "7"}}
    assert data_of(OPENED, INVITED) == [("session.opened", invited)]
    assert data_of(OPENED, INVITED, context=NOTHING) == [("session.opened", invited)]


def test_an_invitation_is_its_sessions_alone():
    """An entry of 0.1.0 may hold several sessions."""
    other = msgspec.structs.replace(OPENED, session=SMS)
    assert [data["invited"] for _, data in data_of(other, OPENED, INVITED)] == [False, True]


def test_an_invitation_that_opens_nothing_is_told_and_a_start_that_does_is_not():
    ((told, data),) = data_of(OpeningRefused(AT, "clinic", SESSION, "opted_out", INVITATION))
    assert told == "session.refused"
    asked = OF_SESSION | {"language": "fr", "originator": "", "variables": {"agentId": "7"}}
    del asked["version"]
    assert data == asked | {"state": "refused", "reason": "opted_out"}
    ((_, data),) = data_of(OpeningRefused(AT, "clinic", SESSION, "cancelled", INVITATION))
    assert data == asked | {"state": "cancelled"}
    assert data_of(OpeningRefused(AT, "clinic", SMS, "throttled")) == []


ANSWERS = [
    (Answer("about 98.6", 98.6), "number", {"value": 98.6}),
    (Answer("yes", True), "yes_no", {"value": True}),
    (Answer("2", "blue", 1), "choice", {"value": "blue", "index": 1}),
    (Answer("1 and 2", ("red", "blue"), -1, (0, 1)), "choices", {"value": ["red", "blue"], "indexes": [0, 1]}),
    (Answer("none", (), -1, ()), "choices", {"value": [], "indexes": []}),
    (Answer("24/12", "2031-12-24"), "date", {"value": "2031-12-24"}),
    (Answer("1e999", float("inf")), "numeric", {"value": "inf"}),
]  # fmt: skip


@pytest.mark.parametrize("answer, answer_type, read", ANSWERS)
def test_an_sms_that_answers_is_told_as_both_the_message_first(answer, answer_type, read):
    heard = SmsReceived(
        AT, "clinic", SESSION, SMS, answer.raw, step="temperature", answer=answer, answer_type=answer_type
    )
    (received, message), (given_type, given_data) = data_of(heard, context=KNOWN)
    assert (received, given_type) == ("message.received", "answer.given")
    assert message == OF_SESSION | {"sms": SMS, "text": answer.raw, "attachments": [], "originator": ""}
    told = {"sms": SMS, "step": "temperature", "type": answer_type, "raw": answer.raw}
    assert given_data == OF_SESSION | told | read


def test_an_sms_that_answers_nothing_is_told_with_all_that_came_with_it():
    heard = SmsReceived(
        AT, "clinic", "", SMS, "STOP", "t9", "stop", "33700", attachments=(Attachment("image/png", "https://p/1"),)
    )  # fmt: skip
    assert data_of(heard, AnswerRejected(AT, "clinic", SESSION, "a", "range")) == [
        ("message.received", {
            "channel": "clinic", "sms": SMS, "text": "STOP", "handled": "stop", "originator": "33700",
            "attachments": [{"mediaType": "image/png", "url": "https://p/1"}],
        }),
    ]  # fmt: skip


def test_a_session_that_ends_is_told_as_the_api_shows_it():
    answers = {"t": Answer("98", 98), "c": Answer("2", "blue", 1), "$agentid": Answer("7", 7)}
    ended = SessionEnded(AT, "clinic", SESSION, "unreachable", answers, "30003 gone")
    ((told, data),) = data_of(ended, context=KNOWN)
    view = json.loads(msgspec.json.encode(build_view(SESSION, PERSON, [OPENED, INVITED, ended])))
    assert told == "session.ended"
    for name in (
        "state",
        "why",
        "answers",
        "variables",
        "survey",
        "version",
        "language",
        "clientReference",
        "campaign",
    ):
        assert data[name] == view[name], name
    assert data["answers"] == {
        "t": {"raw": "98", "value": 98},
        "c": {"raw": "2", "value": "blue", "index": 1},
    }
    assert data["variables"] == {"agentid": "7"}


DECIDED = SmsDecided(AT, "clinic", SESSION, f"{SESSION}x0", "temperature", "Your temperature?", "ask")
SENT = SmsSent(AT, "clinic", SESSION, f"{SESSION}x0", "t1", 2, 50_000, "EUR")
CHARGE = {"segments": 2, "costMicros": 50_000, "currency": "EUR"}
OUR_SMS = {"sms": f"{SESSION}x0", "ticket": "t1"}


def test_an_sms_that_leaves_is_told_with_what_was_decided_of_it():
    said = OUR_SMS | {"step": "temperature", "kind": "ask", "text": "Your temperature?"}
    context = context_of(OPENED, INVITED, DECIDED)
    assert data_of(SENT, context=context) == [("message.sent", OF_SESSION | said | CHARGE)]
    assert data_of(DECIDED, context=context) == []
    assert data_of(SENT, context=KNOWN) == [("message.sent", OF_SESSION | OUR_SMS | CHARGE)]
    bare = msgspec.structs.replace(SENT, ticket="", segments=0, cost_micros=0)
    assert data_of(bare, context=KNOWN) == [("message.sent", OF_SESSION | {"sms": f"{SESSION}x0"})]


def receipt(state, ticket="t1", **told):
    return ReceiptRecorded(AT, "clinic", ticket, state.upper(), state, **told)


def test_a_receipt_is_told_if_it_says_what_became_of_the_sms():
    context = context_of(OPENED, INVITED, SENT)
    delivered = OF_SESSION | OUR_SMS | {"status": "DELIVERED"}
    assert data_of(receipt("delivered"), context=context) == [("message.delivered", delivered)]
    failed = receipt("failed", code="30003", why="gone", segments=2, cost_micros=50_000, currency="EUR")
    told = OF_SESSION | OUR_SMS | CHARGE | {"status": "FAILED", "code": "30003", "why": "gone"}
    assert data_of(failed, context=context) == [("message.failed", told)]
    assert data_of(receipt("sent"), receipt(""), context=context) == []


def test_a_receipt_names_its_sms_itself_or_by_its_ticket_with_the_same_provider():
    named = receipt("delivered", "other", sms=f"{SESSION}x0")
    assert data_of(named, context=KNOWN)[0][1].items() >= (OF_SESSION | {"sms": f"{SESSION}x0"}).items()
    unknown = {"channel": "clinic", "ticket": "t1", "status": "DELIVERED"}
    assert data_of(receipt("delivered"), context=KNOWN) == [("message.delivered", unknown)]
    elsewhere = context_of(OPENED, msgspec.structs.replace(SENT, channel="tutorial"))
    assert data_of(receipt("delivered"), context=elsewhere) == [("message.delivered", unknown)]


def test_an_sms_that_will_not_leave_has_failed():
    unsent = SmsNotSent(AT, "clinic", SESSION, f"{SESSION}x0", "stopped", "The person opted out.")
    told = {"sms": f"{SESSION}x0", "code": "stopped", "why": "The person opted out."}
    assert data_of(unsent, context=KNOWN) == [("message.failed", OF_SESSION | told)]


def test_opt_outs_are_told_with_who_said_so():
    records = [
        PersonOptedOut(AT, "clinic", SMS, "stop it"),
        PersonOptedOut(AT, "clinic", SMS, "", by_provider=True),
        PersonOptedOut(AT, "clinic", SMS, "", by_provider=True, source="import"),
        PersonOptedIn(AT, "clinic", SMS),
    ]
    assert [data for _, data in data_of(*records)] == [
        {"channel": "clinic", "optedOut": True, "by": "person", "text": "stop it"},
        {"channel": "clinic", "optedOut": True, "by": "provider"},
        {"channel": "clinic", "optedOut": True, "by": "list", "source": "import"},
        {"channel": "clinic", "optedOut": False, "by": "person"},
    ]
    assert {told for told, _ in data_of(*records)} == {"optout.changed"}


def test_a_dead_letter_is_told_with_what_an_operator_would_ask():
    told = {"id": f"s{SESSION}x0", "kind": "sms", "reason": "rejected", "code": "151", "why": "Not served"}
    assert data_of(DEAD, context=KNOWN) == [("dead_letter.added", OF_SESSION | told)]
    alone = {"channel": "clinic", "survey": "clinic", "session": SESSION}
    assert data_of(DEAD, context=NOTHING) == [("dead_letter.added", alone | told)]
    unreadable = DeadLetterAdded(AT, "", "", "x", "", "")
    assert data_of(unreadable) == [("dead_letter.added", {"channel": "", "id": "x"})]


def test_what_the_context_does_not_know_is_absent():
    ended = SessionEnded(AT, "clinic", SESSION, "completed")
    told = {"channel": "clinic", "session": SESSION, "state": "completed", "answers": {}, "variables": {}}
    assert data_of(ended, context=NOTHING) == [("session.ended", told)]


# The envelope


def test_the_envelope_is_a_cloud_event():
    (event,) = events_of(OPENED)
    told = rendered(event, PSEUDONYM, public_url="https://sms.example.org/")
    data = told.pop("data")
    assert told == {
        "specversion": "1.0",
        "id": event.id,
        "source": "https://sms.example.org/channels/clinic",
        "type": "session.opened",
        "subject": SESSION,
        "time": "2025-11-29T08:00:00.000Z",
        "datacontenttype": "application/json",
        "partitionkey": PSEUDONYM,
        "sequence": event.sequence,
    }
    assert (data["pseudonym"], "identifier" in data) == (PSEUDONYM, False)
    assert rendered(event, public_url="")["source"] == "/channels/clinic"
    odd = msgspec.structs.replace(event, channel="a b/ü")
    assert rendered(odd, public_url="")["source"] == "/channels/a%20b%2F%C3%BC"


def test_a_number_is_told_to_who_may_see_it_alone():
    (event,) = events_of(PersonOptedIn(AT, "clinic", SMS))
    hidden, shown = rendered(event), rendered(event, number=PERSON)
    assert PERSON not in json.dumps(hidden)
    assert (shown["partitionkey"], shown["data"]["identifier"]) == (PERSON, PERSON)
    assert shown["data"]["pseudonym"] == hidden["data"]["pseudonym"] == hidden["partitionkey"] == PSEUDONYM
    assert shown["id"] == hidden["id"]


def test_a_batch_is_an_array_of_what_was_written():
    events = events_of(OPENED, PersonOptedIn(AT, "clinic", SMS))
    written = [render_event(each, PSEUDONYM) for each in events]
    assert json.loads(render_batch(written)) == [json.loads(each) for each in written]
    assert render_batch([]) == b"[]"


ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,20}")
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def check_attributes(told):
    """The rules of CloudEvents 1.0.2 for names and values of attributes, and for those of two extensions."""
    attributes = {name: value for name, value in told.items() if name != "data"}
    assert attributes.keys() >= {"specversion", "id", "source", "type"}
    for name, value in attributes.items():
        assert ATTRIBUTE_NAME.fullmatch(name), name
        assert isinstance(value, str), name
        assert value, name
        assert not FORBIDDEN.search(value), (name, value)
    if "time" in told:
        assert datetime.fromisoformat(told["time"]).tzinfo is UTC


# Ids and order


def test_an_event_keeps_its_id_wherever_its_entry_lies_and_whatever_is_known():
    records = [OPENED, SmsReceived(AT, "clinic", SESSION, SMS, "98", step="t", answer=Answer("98", 98))]
    moved = StreamPlace(5, AT + 60_000, 0)
    first = events_of_entry(entry_of(*records), KNOWN)
    again = events_of_entry(entry_of(*records, place=moved), NOTHING)
    regrouped = [event for each in records for event in events_of(each)]
    assert [each.id for each in first] == [each.id for each in again] == [each.id for each in regrouped]
    assert len({each.id for each in first}) == 3


def test_ids_are_of_what_is_stored_though_another_release_knows_more_of_it():
    """A field that this release does not know is in the stored record, and so in the id."""
    stored = msgspec.msgpack.encode([[*msgspec.msgpack.decode(msgspec.msgpack.encode(OPENED)), "new"]])
    newer = events_of_entry(read_entry(PLACE, PERSON, stored), NOTHING)
    assert newer[0].data == events_of(OPENED)[0].data
    assert newer[0].id != events_of(OPENED)[0].id


def test_records_that_are_alike_are_several_events():
    alike = [receipt("delivered"), receipt("delivered"), receipt("delivered")]
    ids = [each.id for each in events_of(*alike)]
    assert len(set(ids)) == 3
    assert [each.id for each in events_of(*alike[:2])] == ids[:2]


def test_an_id_does_not_hide_a_number():
    """Who knows the record could find the number by trying all, were it hashed with it."""
    content = encode_event([OPENED])
    ids = {events_of_entry(read_entry(PLACE, sender, content), NOTHING)[0].id for sender in (PERSON, "+4479")}
    assert len(ids) == 1


def test_sequences_sort_as_entries_and_records_do():
    parts = (0, 1, 9, 10, AT, 10 * AT, 2**63, 2**64 - 1)  # as Redis' ids may be
    places = [StreamPlace(0, ms, seq) for ms in parts for seq in parts]
    heard = SmsReceived(AT, "clinic", SESSION, SMS, "98", step="t", answer=Answer("98", 98))
    records = [heard, *[PersonOptedIn(AT, "clinic", SMS)] * 10]
    entries = [entry_of(*records, place=place) for place in sorted(places)]
    sequences = [event.sequence for entry in entries for event in events_of_entry(entry, NOTHING)]
    assert len(sequences) == len(places) * 12
    assert sequences == sorted(set(sequences))


# Whatever comes


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(RECORD_LISTS, max_size=3), st.booleans())
def test_whatever_is_recorded_is_told_as_described(entries, is_noted):
    context = EventContext()
    for number, records in enumerate(entries):
        if is_noted:
            note_context(records, context)
        content = encode_event(records)
        entry = read_entry(StreamPlace(0, AT, number), PERSON, content)
        assert (entry.records == records or "nan" in repr(records), entry.unreadable) == (True, 0)
        events = events_of_entry(entry, context)
        moved = events_of_entry(read_entry(StreamPlace(1, AT + 9, number), PERSON, content), context)
        assert len({event.id for event in events}) == len(events)
        assert [event.id for event in moved] == [event.id for event in events]
        for event, elsewhere in zip(events, moved, strict=True):
            told, again = rendered(event), rendered(elsewhere)
            check_attributes(told)
            assert told | {"sequence": ""} == again | {"sequence": ""}
            assert PERSON not in json.dumps(told)
            assert event.type in EVENT_TYPES


@settings(max_examples=examples(60), deadline=None)
@given(mails())
def test_whatever_is_said_in_conversations_is_told_with_its_survey(mail):
    """Records as the engine makes them: every event of a session has what the session is."""
    context = EventContext()
    ids = []
    for each in play(mail):
        records: list[ArchiveRecord] = each.effects.records
        note_context(records, context)
        events = events_of_entry(read_entry(PLACE, SENDER, encode_event(records)), context)
        ids += [event.id for event in events]
        for event in events:
            told = rendered(event)["data"]
            known = "session" not in told or "survey" in told
            assert known or event.type in ("message.delivered", "message.failed"), told
    assert len(ids) == len(set(ids))


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=40), RECORDS, RECORDS)
def test_what_cannot_be_decoded_is_no_event_and_takes_no_other_with_it(junk, before, after):
    assert read_entry(PLACE, PERSON, junk).records == []
    stranger = ["a_tag_of_a_later_release", AT, "clinic"]
    one, other = (msgspec.msgpack.decode(msgspec.msgpack.encode(each)) for each in (before, after))
    entry = read_entry(PLACE, PERSON, msgspec.msgpack.encode([one, stranger, other]))
    assert (len(entry.records), entry.unreadable) == (2, 1)
    beside = [event.id for event in events_of_entry(entry, NOTHING)]
    assert beside == [event.id for event in events_of_entry(entry_of(before, after), NOTHING)]


@pytest.mark.parametrize(
    "junk", [b"", b"\xc1", b"\x91" * 5_000, b"\x91\xa1\xff", b"\x91\x94\xa8opted_in\x01\xa1\xff\xa1a"]
)
def test_an_entry_of_junk_is_counted(junk):
    entry = read_entry(PLACE, PERSON, junk)
    assert (entry.records, entry.unreadable) == ([], 1)


# Filters


def test_a_filter_passes_what_meets_all_that_it_gives():
    opened, opted_in = events_of(OPENED, PersonOptedIn(AT, "clinic", SMS))
    assert EventFilter().passes(opened)
    assert EventFilter().passes(opted_in)
    clinic = EventFilter(frozenset({"clinic"}), frozenset({"clinic"}), frozenset({"session.opened"}))
    assert clinic.passes(opened)
    for changed in ({"channels": {"other"}}, {"surveys": {"other"}}, {"events": {"session.ended"}}):
        assert not msgspec.structs.replace(clinic, **changed).passes(opened), changed
    assert EventFilter(channels=frozenset({"clinic"})).passes(opted_in)
    assert not EventFilter(surveys=frozenset({"clinic"})).passes(opted_in), "it is of no survey"
    ended = SessionEnded(AT, "clinic", SESSION, "completed")
    known = EventContext(sessions={SESSION: SessionContext("clinic")})
    assert EventFilter(surveys=frozenset({"clinic"})).passes(events_of(ended, context=known)[0])
    assert not EventFilter(surveys=frozenset({"clinic"})).passes(events_of(ended, context=NOTHING)[0])
