"""What does each record come to, told to others? The data of no event, of one, or of two."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, assert_never

from msgspec import UNSET

from engine.hooks.event_context import EventContext, SmsContext, session_told_of, sms_of_receipt
from engine.hooks.event_data import (
    AnswerGivenData,
    DeadLetterAddedData,
    EventData,
    MessageDeliveredData,
    MessageFailedData,
    MessageReceivedData,
    MessageSentData,
    OptOutChangedData,
    SessionEndedData,
    SessionOpenedData,
    SessionRefusedData,
)
from engine.model.answer_view import view_answer
from engine.model.attachment_view import view_of_attachment
from engine.model.events import (
    Answer,
    AnswerRejected,
    ArchiveRecord,
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
)
from engine.surveys.variables import is_variable

_DEAD_LETTER_KINDS: Mapping[str, Literal["event", "sms"]] = {"event": "event", "sms": "sms"}


def tell_record(
    record: ArchiveRecord, entry: Sequence[ArchiveRecord], context: EventContext
) -> Sequence[EventData]:
    """Tell of a record, in the order in which it happened; `entry` are all records of its entry."""
    match record:
        case SessionOpened():
            return (_tell_opened(record, entry),)
        case OpeningRefused(invitation=invitation):
            return (_tell_refused(record, invitation),) if invitation is not None else ()
        case SmsReceived(answer=answer):
            received = _tell_received(record, context)
            return (received, _tell_answer(record, answer, context)) if answer is not None else (received,)
        case SessionEnded():
            return (_tell_ended(record, context),)
        case SmsSent():
            return (_tell_sent(record, context),)
        case SmsNotSent():
            return (_tell_unsent(record, context),)
        case ReceiptRecorded(state="delivered"):
            return (MessageDeliveredData(**_of_receipt(record, context)),)
        case ReceiptRecorded(state="failed"):
            return (_tell_undelivered(record, context),)
        case PersonOptedOut():
            return (_tell_opted_out(record),)
        case PersonOptedIn(channel=channel):
            return (OptOutChangedData(channel=channel, opted_out=False, by="person"),)
        case DeadLetterAdded():
            return (_tell_dead_letter(record, context),)
        case SessionInvited() | AnswerRejected() | SmsDecided() | ReceiptRecorded():
            return ()
        case _:
            assert_never(record)


def _of_session(record: ArchiveRecord, context: EventContext) -> dict[str, Any]:
    """The fields that all events of a session have; of no session, only the channel."""
    session = session_told_of(record, context)
    told: dict[str, Any] = {"channel": record.channel, "session": session or UNSET}
    known = context.sessions.get(session)
    if known is not None:
        told |= {
            "survey": known.survey or UNSET,
            "version": known.version or UNSET,
            "language": known.language or UNSET,
            "client_reference": known.reference,
            "campaign": known.campaign,
        }
    return told


def _tell_opened(record: SessionOpened, entry: Sequence[ArchiveRecord]) -> SessionOpenedData:
    """An invitation's record follows in the same entry."""
    invitations = (
        each.invitation
        for each in entry
        if isinstance(each, SessionInvited) and each.session == record.session
    )
    invitation = next(invitations, None)
    return SessionOpenedData(
        channel=record.channel,
        survey=record.survey or UNSET,
        version=record.version or UNSET,
        language=record.language or UNSET,
        session=record.session or UNSET,
        client_reference=invitation.reference if invitation is not None else "",
        campaign=invitation.campaign if invitation is not None else "",
        originator=record.originator,
        invited=invitation is not None,
        variables={f"${name}": value for name, value in record.variables.items()}
        | (invitation.variables if invitation is not None else {}),
    )


def _tell_refused(record: OpeningRefused, invitation: Invitation) -> SessionRefusedData:
    is_cancelled = record.reason == "cancelled"
    return SessionRefusedData(
        channel=record.channel,
        survey=invitation.survey or UNSET,
        language=invitation.language or UNSET,
        session=record.id or UNSET,
        client_reference=invitation.reference,
        campaign=invitation.campaign,
        state="cancelled" if is_cancelled else "refused",
        reason=UNSET if is_cancelled else record.reason,
        originator=invitation.originator,
        variables=invitation.variables,
    )


def _tell_received(record: SmsReceived, context: EventContext) -> MessageReceivedData:
    return MessageReceivedData(
        **_of_session(record, context),
        sms=record.id,
        text=record.text,
        attachments=list(map(view_of_attachment, record.attachments)),
        handled=record.handled or UNSET,
        originator=record.originator,
    )


def _tell_answer(record: SmsReceived, answer: Answer, context: EventContext) -> AnswerGivenData:
    read = view_answer(answer)
    return AnswerGivenData(
        **_of_session(record, context),
        sms=record.id,
        step=record.step,
        type=record.answer_type or UNSET,
        raw=read.raw,
        value=read.value,
        index=read.index,
        indexes=read.indexes,
    )


def _tell_ended(record: SessionEnded, context: EventContext) -> SessionEndedData:
    """As the API shows the session."""
    return SessionEndedData(
        **_of_session(record, context),
        state=record.how,
        why=record.why or UNSET,
        answers={
            step: view_answer(answer) for step, answer in record.answers.items() if not is_variable(step)
        },
        variables={place[1:]: answer.raw for place, answer in record.answers.items() if is_variable(place)},
    )


def _tell_sent(record: SmsSent, context: EventContext) -> MessageSentData:
    decided = context.sms.get(record.id, SmsContext())
    return MessageSentData(
        **_of_session(record, context),
        **_of_charge(record),
        sms=record.id,
        ticket=record.ticket or UNSET,
        step=decided.step or UNSET,
        kind=decided.kind or UNSET,
        text=decided.text or UNSET,
    )


def _tell_unsent(record: SmsNotSent, context: EventContext) -> MessageFailedData:
    return MessageFailedData(
        **_of_session(record, context),
        sms=record.id,
        code=record.code or UNSET,
        why=record.why or UNSET,
    )


def _tell_undelivered(record: ReceiptRecorded, context: EventContext) -> MessageFailedData:
    return MessageFailedData(
        **_of_receipt(record, context), code=record.code or UNSET, why=record.why or UNSET
    )


def _of_receipt(record: ReceiptRecorded, context: EventContext) -> dict[str, Any]:
    return {
        **_of_session(record, context),
        **_of_charge(record),
        "sms": sms_of_receipt(record, context) or UNSET,
        "ticket": record.ticket or UNSET,
        "status": record.status or UNSET,
    }


def _of_charge(record: SmsSent | ReceiptRecorded) -> dict[str, Any]:
    return {
        "segments": record.segments or UNSET,
        "cost_micros": record.cost_micros or UNSET,
        "currency": (record.cost_micros and record.currency) or UNSET,
    }


def _tell_opted_out(record: PersonOptedOut) -> OptOutChangedData:
    return OptOutChangedData(
        channel=record.channel,
        opted_out=True,
        by="list" if record.source else "provider" if record.by_provider else "person",
        source=record.source or UNSET,
        text=record.text or UNSET,
    )


def _tell_dead_letter(record: DeadLetterAdded, context: EventContext) -> DeadLetterAddedData:
    """It may be of a session that never opened, of which it alone knows the survey."""
    of_session = _of_session(record, context)
    return DeadLetterAddedData(
        **{**of_session, "survey": of_session.get("survey") or record.survey or UNSET},
        id=record.id,
        kind=_DEAD_LETTER_KINDS.get(record.kind, UNSET),
        reason=record.reason or UNSET,
        code=record.code or UNSET,
        why=record.why or UNSET,
    )
