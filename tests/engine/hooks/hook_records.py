"""What tests of events share: records of every kind, their entries, and the events that are told of them."""

import json
from collections.abc import Sequence

import msgspec
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from engine.hooks.cloud_events import render_event
from engine.hooks.event_context import EventContext, note_context
from engine.hooks.event_data import EVENT_TYPES
from engine.hooks.event_schemas import event_schema, event_schema_name
from engine.hooks.hook_events import HookEntry, HookEvent, StreamPlace, events_of_entry, read_entry
from engine.model.events import (
    Answer,
    AnswerRejected,
    ArchiveRecord,
    Attachment,
    DeadLetterAdded,
    Invitation,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ReceiptRecorded,
    SessionEnded,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
    encode_event,
)

AT = 1_764_403_200_000  # 2025-11-29T08:00:00Z
PERSON = "+33612345678"
PSEUDONYM = "5b1d8e4f0a6c4c0f9f6d3e2b1a008877"
PLACE = StreamPlace(3, AT, 7)
SESSION = "1f0c52a7b1e94d03"
SMS = "00000000000000aa"

INVITATION = Invitation(
    SESSION, "clinic", "clinic", "fr", variables={"agentId": "7"}, reference="visit-4711", campaign="autumn"
)
OPENED = SessionOpened(AT, "clinic", SESSION, "clinic", "8c7dd922ad47494f", "en", "33700", {"contact": "Ada"})
DEAD = DeadLetterAdded(
    AT, "clinic", SESSION, f"s{SESSION}x0", "sms", "rejected", "clinic", "151", "Not served"
)
INVITED = SessionInvited(AT, "clinic", SESSION, INVITATION)


def entry_of(*records: ArchiveRecord, place: StreamPlace = PLACE) -> HookEntry:
    return read_entry(place, PERSON, encode_event(list(records)))


def context_of(*records: ArchiveRecord) -> EventContext:
    context = EventContext()
    note_context(records, context)
    return context


def events_of(*records: ArchiveRecord, context: EventContext | None = None) -> list[HookEvent]:
    """The events of one entry; what it says itself is known, unless something else is."""
    return events_of_entry(entry_of(*records), context_of(*records) if context is None else context)


def rendered(
    event: HookEvent,
    pseudonym: str = PSEUDONYM,
    number: str = "",
    public_url: str = "https://sms.example.org",
):
    """An event as its receiver decodes it; it is as the schema says."""
    written = render_event(event, pseudonym, number, public_url)
    decoded = json.loads(written, parse_constant=refuse_constant)
    CLOSED[event.type].validate(decoded)
    return decoded


def refuse_constant(name):
    raise AssertionError(f"{name} is no JSON")


def data_of(*records: ArchiveRecord, context: EventContext | None = None) -> list[tuple[str, dict]]:
    """Type and data of each event, without the person."""
    told = [rendered(event, "") for event in events_of(*records, context=context)]
    return [(each["type"], each["data"]) for each in told]


def closed_schema():
    """The schema of events, in which nothing may be that it does not name."""
    schema = json.loads(json.dumps(event_schema()))
    for name, part in schema["$defs"].items():
        if name.endswith("Data") and name != "EventData":
            part["additionalProperties"] = False
        if name.endswith("Event") and "allOf" in part:
            part["unevaluatedProperties"] = False
    return schema


def closed_validator(name):
    schema = CLOSED_SCHEMA | {"$ref": f"#/$defs/{name}"}
    return Draft202012Validator(schema, format_checker=FormatChecker())


CLOSED_SCHEMA = closed_schema()
CLOSED = {each: closed_validator(event_schema_name(each)) for each in EVENT_TYPES}
"""For each type of event, what its events may be and nothing more."""

_IDS = st.integers(0, 3).map("{:016x}".format)
_SESSIONS = _IDS | st.just("")
_SMS_IDS = _IDS.map("{}x0".format) | _IDS.map("{}r0".format)
_TEXTS = st.text(max_size=12)
_NAMES = st.sampled_from(["", "clinic", "tutorial"])
_CHANNELS = st.sampled_from(["clinic", "a b/ü", ""])
_TICKETS = st.sampled_from(["", "t0", "t1"])
_TIMES = st.integers(0, 2**53) | st.integers(-(2**63), 2**63 - 1)
_AMOUNTS = st.integers(0, 3) | st.integers(-(2**63), 2**63 - 1)
_VARIABLES = st.dictionaries(_TEXTS, _TEXTS, max_size=2)
_ANSWERS = st.builds(
    Answer,
    _TEXTS,
    _TEXTS | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans() | st.lists(_TEXTS).map(tuple),
    st.integers(-1, 3),
    st.lists(st.integers(0, 3)).map(tuple),
)
_INVITATIONS = st.builds(
    Invitation, _IDS, _CHANNELS, _NAMES, _NAMES, _TEXTS, _VARIABLES, _AMOUNTS, _TEXTS, _TEXTS, _TEXTS
)
_CHARGES = (_AMOUNTS, _AMOUNTS, _TEXTS)


def _choice_of(literal):
    return st.sampled_from(literal.__args__)


def _field_type(kind, name):
    return next(each.type for each in msgspec.structs.fields(kind) if each.name == name)


RECORDS = st.one_of(
    st.builds(SessionOpened, _TIMES, _CHANNELS, _IDS, _NAMES, _NAMES, _NAMES, _TEXTS, _VARIABLES),
    st.builds(SessionInvited, _TIMES, _CHANNELS, _IDS, _INVITATIONS),
    st.builds(
        SmsReceived, _TIMES, _CHANNELS, _SESSIONS, _IDS, _TEXTS, _TEXTS,
        _choice_of(_field_type(SmsReceived, "handled")), _TEXTS, _TEXTS, st.none() | _ANSWERS, _TEXTS,
        st.lists(st.builds(Attachment, _TEXTS, _TEXTS), max_size=2).map(tuple),
    ),
    st.builds(AnswerRejected, _TIMES, _CHANNELS, _SESSIONS, _TEXTS, _TEXTS),
    st.builds(
        SmsDecided, _TIMES, _CHANNELS, _SESSIONS, _SMS_IDS, _TEXTS, _TEXTS,
        _choice_of(_field_type(SmsDecided, "kind")),
    ),
    st.builds(SmsSent, _TIMES, _CHANNELS, _SESSIONS, _SMS_IDS, _TICKETS, *_CHARGES),
    st.builds(SmsNotSent, _TIMES, _CHANNELS, _SESSIONS, _SMS_IDS, _TEXTS, _TEXTS),
    st.builds(
        OpeningRefused, _TIMES, _CHANNELS, _IDS, _choice_of(_field_type(OpeningRefused, "reason")),
        st.none() | _INVITATIONS,
    ),
    st.builds(
        SessionEnded, _TIMES, _CHANNELS, _IDS, _choice_of(_field_type(SessionEnded, "how")),
        st.dictionaries(_TEXTS | _TEXTS.map("${}".format), _ANSWERS, max_size=2), _TEXTS,
    ),
    st.builds(PersonOptedOut, _TIMES, _CHANNELS, _IDS, _TEXTS, st.booleans(), _TEXTS),
    st.builds(PersonOptedIn, _TIMES, _CHANNELS, _IDS),
    st.builds(
        ReceiptRecorded, _TIMES, _CHANNELS, _TICKETS, _TEXTS, _choice_of(_field_type(ReceiptRecorded, "state")),
        _TEXTS, _TEXTS, _SMS_IDS | st.just(""), *_CHARGES,
    ),
    st.builds(
        DeadLetterAdded, _TIMES, _CHANNELS, _SESSIONS, _TEXTS, st.sampled_from(["event", "sms", "", "x"]), _TEXTS, _NAMES,
        _TEXTS, _TEXTS,
    ),
)  # fmt: skip
"""A record of any kind, of whatever its types allow."""

RECORD_LISTS: st.SearchStrategy[Sequence[ArchiveRecord]] = st.lists(RECORDS, max_size=8)
