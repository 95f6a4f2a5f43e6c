"""What must be known beside a record to tell of it? Records name a session, an SMS or a ticket; what these are was said by
earlier records. Whoever tells notes what it reads, asks what is missing, and finds that elsewhere or does without."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from engine.model.events import (
    ArchiveRecord,
    DeadLetterAdded,
    ReceiptRecorded,
    SessionEnded,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsKind,
    SmsNotSent,
    SmsReceived,
    SmsSent,
    session_of_sms_id,
)


class SessionContext(msgspec.Struct, frozen=True):
    """What its opening says of a session; `reference` and `campaign` are the inviter's, empty if it has none."""

    survey: str = ""
    version: str = ""
    language: str = ""
    reference: str = ""
    campaign: str = ""


class SmsContext(msgspec.Struct, frozen=True):
    """What was decided of an SMS to the person. Its session is in its id."""

    step: str = ""
    kind: SmsKind = ""
    text: str = ""


class SmsTicket(NamedTuple):
    """What a channel's provider calls an SMS: two providers may use the same ticket."""

    channel: str
    ticket: str


class EventContext(msgspec.Struct):
    """What is known: sessions and SMS to people by their ids, and the SMS that have tickets."""

    sessions: dict[str, SessionContext] = {}
    sms: dict[str, SmsContext] = {}
    tickets: dict[SmsTicket, str] = {}


class MissingContext(NamedTuple):
    """What is not known, and would have to be to tell everything."""

    sessions: set[str]
    sms: set[str]
    tickets: set[SmsTicket]


def note_context(records: Iterable[ArchiveRecord], context: EventContext) -> None:
    """Note what records, in their order, tell of what later ones name."""
    for record in records:
        match record:
            case SessionOpened(session=session, survey=survey, version=version, language=language):
                context.sessions[session] = SessionContext(survey, version, language)
            case SessionInvited(session=session, invitation=invitation) if session in context.sessions:
                context.sessions[session] = msgspec.structs.replace(
                    context.sessions[session], reference=invitation.reference, campaign=invitation.campaign
                )
            case SmsDecided(id=sms, step=step, kind=kind, text=text):
                context.sms[sms] = SmsContext(step, kind, text)
            case SmsSent(channel=channel, ticket=ticket, id=sms) if ticket:
                context.tickets[SmsTicket(channel, ticket)] = sms
            case _:
                pass


def missing_context(records: Iterable[ArchiveRecord], context: EventContext) -> MissingContext:
    """Say what events of these records need that the context, into which they are noted, has not."""
    missing = MissingContext(set(), set(), set())
    for record in records:
        session = session_told_of(record, context)
        if session and session not in context.sessions:
            missing.sessions.add(session)
        match record:
            case SmsSent(id=sms) if sms not in context.sms:
                missing.sms.add(sms)
            case ReceiptRecorded(channel=channel, ticket=ticket) if is_told_of(record):
                if not sms_of_receipt(record, context) and ticket:
                    missing.tickets.add(SmsTicket(channel, ticket))
            case _:
                pass
    return missing


def is_told_of(receipt: ReceiptRecorded) -> bool:
    """Whether there is an event of it: of one that says nothing new, or only that an SMS is on its way, there is none."""
    return receipt.state in ("delivered", "failed")


def sms_of_receipt(receipt: ReceiptRecorded, context: EventContext) -> str:
    """The id of the SMS; empty if it is not known."""
    return receipt.sms or context.tickets.get(SmsTicket(receipt.channel, receipt.ticket), "")


def session_told_of(record: ArchiveRecord, context: EventContext) -> str:
    """The session of the record's events that its own opening has to tell more of; empty if there is none."""
    match record:
        case SmsReceived(session=session) | SmsSent(session=session) | SmsNotSent(session=session):
            return session
        case SessionEnded(session=session) | DeadLetterAdded(session=session):
            return session
        case ReceiptRecorded() if is_told_of(record):
            return session_of_sms_id(sms_of_receipt(record, context))
        case _:
            return ""
