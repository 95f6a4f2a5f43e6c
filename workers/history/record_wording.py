"""How is told what happened with a person? A record in words, for a line of a terminal or of a page, and as JSON."""

from zoneinfo import ZoneInfo

import msgspec

from engine.model.events import (
    AnswerRejected,
    ArchiveRecord,
    DeadLetterAdded,
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
    kind_of,
)  # fmt: skip
from engine.model.timestamps import format_local


def format_record(record: ArchiveRecord) -> str:
    """Format a record for a terminal: `> ` before an inbound SMS, `< ` before an outbound one, `-- ` before anything else."""
    match record:
        case SmsReceived(text=text, handled=handled, attachments=attachments):
            answered = f"  (a {handled.upper()}, which the provider answered)" if handled else ""
            attached = "".join(f"  [{each.media_type or 'attachment'}]" for each in attachments)
            return f"> {text}{attached}{answered}"
        case SmsDecided(text=text):
            return f"< {text}".replace("\n", "\n" + " " * 29)
        case SessionOpened(session=session, survey=survey, version=version, originator=originator):
            over = f", from {originator}" if originator else ""
            return f"-- session {session} opened: {survey}, version {version}{over}"
        case SessionInvited(invitation=invitation):
            return f"-- by an invitation {invitation.reference}".rstrip()
        case SessionEnded(session=session, how=how, why=why):
            return f"-- session {session} ended: {how}" + (f", {why}" if why else "")
        case AnswerRejected(step=step, why=why):
            return f"-- no answer to {step}: {why}"
        case SmsSent(id=id, ticket=ticket):
            return f"-- {id} accepted by the provider" + (f" as {ticket}" if ticket else " at an earlier try")
        case SmsNotSent(id=id, code=code, why=why):
            return f"-- {id} will not be sent: {code} {why}".rstrip()
        case OpeningRefused(id=id, reason=reason):
            return f"-- refused, {id}: {reason}"
        case PersonOptedOut(by_provider=by_provider, source=source):
            teller = source or "the provider"
            return "-- opted out" + (f", as {teller} tells" if by_provider else "")
        case PersonOptedIn():
            return "-- opted in again"
        case ReceiptRecorded(ticket=ticket, status=status, state=state, code=code, why=why, sms=sms):
            because = " ".join(each for each in (code, why) if each)
            return f"-- {sms or ticket} {state or status}" + (f": {because}" if because else "")
        case DeadLetterAdded(id=id, kind=kind, reason=reason, code=code, why=why):
            because = " ".join(each for each in (code, why) if each)
            return f"-- {kind} put aside as the dead letter {id}: {reason}" + (
                f", {because}" if because else ""
            )


def session_of_record(record: ArchiveRecord) -> str:
    """The record's session id. A refused invitation's own id is the id that its session would have had."""
    return record.id if isinstance(record, OpeningRefused) else getattr(record, "session", "")


def record_fields(record: ArchiveRecord) -> dict[str, object]:
    """The record's fields as a dict for JSON, with `event` naming its type."""
    fields: dict[str, object] = {"event": kind_of(record)}
    return fields | msgspec.structs.asdict(record)


def format_record_time(record: ArchiveRecord, zones: dict[str, ZoneInfo]) -> str:
    zone = zones.get(record.channel, ZoneInfo("UTC"))
    return format_local(record.at, zone)
