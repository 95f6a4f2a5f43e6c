"""What is missing is named, so that who finds it can tell everything; what nobody tells of is not asked for."""

import pytest
from hypothesis import given, settings

from engine.hooks.event_context import (
    EventContext,
    MissingContext,
    SessionContext,
    SmsContext,
    SmsTicket,
    missing_context,
    note_context,
)
from engine.hooks.hook_events import events_of_entry
from engine.model.events import (
    AnswerRejected,
    OpeningRefused,
    PersonOptedIn,
    ReceiptRecorded,
    SessionEnded,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
)
from tests.engine.hooks.hook_records import (
    AT,
    DEAD,
    INVITATION,
    INVITED,
    OPENED,
    RECORD_LISTS,
    SESSION,
    SMS,
    context_of,
    entry_of,
)
from tests.support.example_counts import examples

OURS = f"{SESSION}x0"
DECIDED = SmsDecided(AT, "clinic", SESSION, OURS, "temperature", "Your temperature?", "ask")
SENT = SmsSent(AT, "clinic", SESSION, OURS, "t1")


def receipt(state, ticket="t1", sms=""):
    return ReceiptRecorded(AT, "clinic", ticket, "S", state, sms=sms)


def missing(sessions=(), sms=(), tickets=()):
    return MissingContext(set(sessions), set(sms), set(tickets))


def test_records_tell_what_later_ones_name():
    assert context_of(OPENED, INVITED, DECIDED, SENT) == EventContext(
        sessions={SESSION: SessionContext("clinic", "8c7dd922ad47494f", "en", "visit-4711", "autumn")},
        sms={OURS: SmsContext("temperature", "ask", "Your temperature?")},
        tickets={SmsTicket("clinic", "t1"): OURS},
    )


def test_an_invitation_alone_says_too_little_of_its_session():
    """It would be taken for all that is known."""
    assert context_of(INVITED) == EventContext()


@pytest.mark.parametrize("record, needed", [
    (OPENED, missing()),
    (INVITED, missing()),
    (SmsReceived(AT, "clinic", SESSION, SMS, "98"), missing([SESSION])),
    (SmsReceived(AT, "clinic", "", SMS, "98"), missing()),
    (AnswerRejected(AT, "clinic", SESSION, "a", "range"), missing()),
    (DECIDED, missing()),
    (SENT, missing([SESSION], [OURS])),
    (SmsNotSent(AT, "clinic", SESSION, OURS, "stopped", ""), missing([SESSION])),
    (OpeningRefused(AT, "clinic", SESSION, "expired", INVITATION), missing()),
    (SessionEnded(AT, "clinic", SESSION, "completed"), missing([SESSION])),
    (PersonOptedIn(AT, "clinic", SMS), missing()),
    (DEAD, missing([SESSION])),
    (receipt("delivered"), missing(tickets=[SmsTicket("clinic", "t1")])),
    (receipt("failed", sms=OURS), missing([SESSION])),
    (receipt("delivered", sms=f"{SMS}r0"), missing()),
    (receipt("delivered", ticket=""), missing()),
    (receipt("sent"), missing()),
    (receipt(""), missing()),
])  # fmt: skip
def test_what_a_record_needs_is_what_its_events_would_say(record, needed):
    assert missing_context([record], EventContext()) == needed


def test_nothing_that_is_known_is_missing():
    records = [
        OPENED,
        INVITED,
        DECIDED,
        SENT,
        receipt("delivered"),
        SessionEnded(AT, "clinic", SESSION, "idle"),
    ]
    assert missing_context(records, context_of(*records)) == missing()


def test_a_ticket_that_is_found_leads_to_its_session():
    context = EventContext(tickets={SmsTicket("clinic", "t1"): OURS})
    assert missing_context([receipt("failed")], context) == missing([SESSION])


TOLD_ALONE = ("session.opened", "session.refused", "dead_letter.added")
"""They know their survey themselves."""


@settings(max_examples=examples(100), deadline=None)
@given(RECORD_LISTS)
def test_with_what_was_missing_every_event_of_a_session_has_its_survey(records):
    """It takes two rounds at most: a ticket leads to an SMS, and so to a session."""
    context = EventContext()
    note_context(records, context)
    for _ in range(2):
        sessions, sms, tickets = missing_context(records, context)
        context.sessions |= dict.fromkeys(sessions, SessionContext("found"))
        context.sms |= dict.fromkeys(sms, SmsContext("found", "ask", "found"))
        context.tickets |= dict.fromkeys(tickets, "0000000000000001x9")
    assert missing_context(records, context) == missing()
    for event in events_of_entry(entry_of(*records), context):
        if event.session and event.type not in TOLD_ALONE:
            assert event.survey == context.sessions[event.session].survey
        if event.type in ("message.delivered", "message.failed"):
            assert event.data.sms or not event.data.ticket
