"""What became of a session? Told from its records, as the archive has them. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from config.invitations.line_result import NoOpeningReason
from engine.model.answer_view import AnswerView, view_answer
from engine.model.attachment_view import AttachmentView, view_of_attachment
from engine.model.events import (
    Answer,
    ArchiveRecord,
    Invitation,
    OpeningRefused,
    ReceiptRecorded,
    RefusalReason,
    SessionEnded,
    SessionEnding,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
)
from engine.surveys.variables import is_variable
from ingest.api.invitation_parser import utc_datetime

SessionState = Literal["held", "waiting", "open", "refused"] | SessionEnding

STATE_MEANINGS: Mapping[str, str] = {
    "held": "the invitation waits for its turn",
    "waiting": "its turn has come, and it is about to be opened",
    "open": "the person has been asked, or began by themselves",
    "refused": "it opened nothing: `reason` says why",
    "completed": "the person answered to the end",
    "expired": "its time was up",
    "idle": "the person was silent for too long",
    "gave_up": "the person's answers could not be read, too often in a row",
    "stopped": "the person opted out",
    "restarted": "the person began anew, which is another session",
    "exhausted": "it went round more often than its survey lets it",
    "cancelled": "whoever invited cancelled it, open or before",
    "unreachable": "the provider says that the number gets no SMS",
}
"""What each state of a session, or of the invitation to it, means."""

REASON_MEANINGS: Mapping[str, str] = {
    "throttled": "the person began too often in a row",
    "daily_cap": "the person has had as many sessions as a day allows",
    "cooldown": "the survey is not asked again so soon",
    "new_sessions": "the channel may begin no more sessions in this minute",
    "sms_budget": "the channel's SMS of the day are used up",
    "already_open": "the person is in a conversation on this channel",
    "opted_out": "the person has opted out",
    "unknown_survey": "there was no such survey when its turn came",
    "expired": "its time was up before its turn came, or it was held for 30 days",
    "cancelled": "it was cancelled",
    "dead_letter": "it could not be handled, and was put aside for an operator",
}
"""What each reason for which nothing opened means."""

NO_OPENING_REASONS: tuple[str, ...] = (*get_args(RefusalReason), "dead_letter")

SmsProgress = Literal["decided", "accepted", "sent", "delivered", "failed"]

_PROGRESS_ORDER: tuple[SmsProgress, ...] = ("decided", "accepted", "sent", "failed", "delivered")
"""A state is followed by a later one only, in whatever order receipts come."""

_ENDED_STATES: frozenset[str] = frozenset(SessionEnding.__args__)  # type: ignore[attr-defined]


class SmsView(msgspec.Struct, kw_only=True, rename="camel"):
    """One SMS; `state` says what became of one of ours. `attachments` are there if it came with any."""

    at: datetime
    from_: Literal["person", "us"] = msgspec.field(name="from")
    text: str
    state: SmsProgress | UnsetType = UNSET
    why: str | UnsetType = UNSET
    attachments: list[AttachmentView] | UnsetType = UNSET


class SessionView(msgspec.Struct, kw_only=True, rename="camel"):
    """A session, or the invitation to it."""

    id: str
    state: SessionState
    reason: Annotated[NoOpeningReason | UnsetType, Meta(description="Why nothing opened.")] = UNSET
    channel: str
    identifier: Annotated[
        str | UnsetType, Meta(description="The person's number, for keys that may see numbers.")
    ] = UNSET
    pseudonym: Annotated[
        str | UnsetType,
        Meta(description="The person's, for keys that may not; left out while the archive is away."),
    ] = UNSET
    survey: str = ""
    version: str = ""
    language: str = ""
    originator: str = ""
    client_reference: str = ""
    campaign: str = ""
    starts_after: Annotated[
        datetime | UnsetType, Meta(description="As it was answered when the invitation was accepted.")
    ] = UNSET
    opened_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET
    why: Annotated[
        str | UnsetType, Meta(description="What the provider said of a number that is unreachable.")
    ] = UNSET
    answers: dict[str, AnswerView] = {}
    variables: dict[str, Any] = {}
    transcript: list[SmsView] = []


def is_over(view: SessionView) -> bool:
    return view.state == "refused" or view.state in _ENDED_STATES


def add_invitation(view: SessionView, invitation: Invitation) -> None:
    """What an invitation says of the session."""
    view.survey, view.language = invitation.survey, view.language or invitation.language
    view.originator = view.originator or invitation.originator
    view.client_reference = invitation.reference
    view.campaign = invitation.campaign
    if invitation.starts_after:
        view.starts_after = utc_datetime(invitation.starts_after)
    view.variables = dict(invitation.variables) | view.variables


def add_answers(view: SessionView, answers: Mapping[str, Answer]) -> None:
    """A session's answers, in which its variables are too."""
    view.answers = {step: view_answer(answer) for step, answer in answers.items() if not is_variable(step)}
    view.variables = {place[1:]: answer.raw for place, answer in answers.items() if is_variable(place)}


def build_view(session: str, sender: str, records: Iterable[ArchiveRecord]) -> SessionView | None:
    """Build the session's view from the sender's records; None if none opens or refuses it. Ignores records of other
    sessions."""
    story = _ViewBuilder(session, sender)
    for record in records:
        story.add_record(record)
    return story.view


class _ViewBuilder:
    def __init__(self, session: str, sender: str) -> None:
        self._session = session
        self._sender = sender
        self._sms: dict[str, SmsView] = {}
        self._tickets: dict[str, str] = {}
        self.view: SessionView | None = None

    def add_record(self, record: ArchiveRecord) -> None:
        match record:
            case SessionOpened() if record.session == self._session:
                self._add_opened(record)
            case OpeningRefused() if record.id == self._session and self.view is None:
                self._add_refused(record)
            case ReceiptRecorded():
                self._add_receipt(record)
            case (
                SessionInvited() | SmsReceived() | SmsDecided() | SmsSent() | SmsNotSent() | SessionEnded()
            ) if record.session == self._session:
                if self.view is not None:
                    self._add_event(self.view, record)
            case _:
                pass

    def _add_opened(self, record: SessionOpened) -> None:
        self.view = SessionView(
            id=self._session,
            state="open",
            channel=record.channel,
            identifier=self._sender,
            survey=record.survey,
            version=record.version,
            language=record.language,
            originator=record.originator,
            opened_at=utc_datetime(record.at),
        )

    def _add_refused(self, record: OpeningRefused) -> None:
        cancelled = record.reason == "cancelled"
        self.view = SessionView(
            id=self._session,
            state="cancelled" if cancelled else "refused",
            reason=UNSET if cancelled else record.reason,
            channel=record.channel,
            identifier=self._sender,
            ended_at=utc_datetime(record.at),
        )
        if record.invitation is not None:
            add_invitation(self.view, record.invitation)

    def _add_event(
        self,
        view: SessionView,
        record: SessionInvited | SmsReceived | SmsDecided | SmsSent | SmsNotSent | SessionEnded,
    ) -> None:
        match record:
            case SessionInvited(invitation=invitation):
                add_invitation(view, invitation)
            case SmsReceived(at=at, text=text, attachments=attached):
                attachments = list(map(view_of_attachment, attached))
                view.transcript.append(
                    SmsView(at=utc_datetime(at), from_="person", text=text, attachments=attachments or UNSET)
                )
            case SmsDecided(at=at, id=sms, text=text):
                said = SmsView(at=utc_datetime(at), from_="us", text=text, state="decided")
                self._sms[sms] = said
                view.transcript.append(said)
            case SmsSent(id=sms, ticket=ticket):
                self._tickets[ticket] = sms
                self._advance_sms(sms, "accepted")
            case SmsNotSent(id=sms, code=code, why=why):
                self._advance_sms(sms, "failed", f"{code} {why}".strip())
            case SessionEnded(at=at, how=how, answers=answers, why=why):
                view.state, view.ended_at, view.why = how, utc_datetime(at), why or UNSET
                add_answers(view, answers)

    def _add_receipt(self, record: ReceiptRecorded) -> None:
        sms = record.sms or self._tickets.get(record.ticket, "")
        if record.state:
            self._advance_sms(sms, record.state, f"{record.code} {record.why}".strip())

    def _advance_sms(self, sms: str, state: SmsProgress, why: str = "") -> None:
        said = self._sms.get(sms)
        if (
            said is not None
            and said.state is not UNSET
            and _PROGRESS_ORDER.index(state) > _PROGRESS_ORDER.index(said.state)
        ):
            said.state = state
            said.why = why if why and state == "failed" else UNSET
