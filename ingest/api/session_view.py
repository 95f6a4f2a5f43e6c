"""What became of a session? Told from its records, as the archive has them. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.model.events import (
    Answer,
    Delivered,
    Ended,
    Ending,
    Heard,
    Invitation,
    Invited,
    Opened,
    Record,
    Refusal,
    Refused,
    Said,
    Sent,
    Unsent,
)
from engine.surveys.variables import is_variable
from ingest.api.invitation_parser import moment

State = Literal["held", "waiting", "open", "refused"] | Ending
"""`held`: the invitation waits for its turn. `waiting`: its turn has come, and it is about to be opened."""

SmsProgress = Literal["decided", "accepted", "sent", "delivered", "failed"]

_ORDER: tuple[SmsProgress, ...] = ("decided", "accepted", "sent", "failed", "delivered")
"""A state is followed by a later one only, in whatever order receipts come."""

_ENDINGS: frozenset[str] = frozenset(Ending.__args__)  # type: ignore[attr-defined]


class AnswerView(msgspec.Struct, kw_only=True, frozen=True):
    """An answer as it was written, and as it was read; an option's place counts from 0."""

    raw: str
    value: str | int | float | bool | list[str]
    index: int | UnsetType = UNSET
    indexes: list[int] | UnsetType = UNSET


class SmsView(msgspec.Struct, kw_only=True, rename="camel"):
    """One SMS; `state` says what became of one of ours."""

    at: datetime
    from_: Literal["person", "us"] = msgspec.field(name="from")
    text: str
    state: SmsProgress | UnsetType = UNSET
    why: str | UnsetType = UNSET


class SessionView(msgspec.Struct, kw_only=True, rename="camel"):
    """A session, or the invitation to it."""

    id: str
    state: State
    reason: Annotated[
        Refusal | Literal["dead_letter"] | UnsetType, Meta(description="Why nothing opened.")
    ] = UNSET
    channel: str
    identifier: Annotated[str, Meta(description="The person's number.")]
    survey: str = ""
    version: str = ""
    language: str = ""
    originator: str = ""
    client_reference: str = ""
    starts_after: datetime | UnsetType = UNSET
    opened_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET
    why: Annotated[
        str | UnsetType, Meta(description="What the provider said of a number that is unreachable.")
    ] = UNSET
    answers: dict[str, AnswerView] = {}
    variables: dict[str, Any] = {}
    transcript: list[SmsView] = []


def over(view: SessionView) -> bool:
    return view.state == "refused" or view.state in _ENDINGS


def invited(view: SessionView, invitation: Invitation) -> None:
    """What an invitation says of the session."""
    view.survey, view.language = invitation.survey, view.language or invitation.language
    view.originator = view.originator or invitation.originator
    view.client_reference = invitation.reference
    view.variables = dict(invitation.variables) | view.variables


def answered(view: SessionView, answers: Mapping[str, Answer]) -> None:
    """A session's answers, in which its variables are too."""
    view.answers = {step: _answer(answer) for step, answer in answers.items() if not is_variable(step)}
    view.variables = {place[1:]: answer.raw for place, answer in answers.items() if is_variable(place)}


def tell(session: str, sender: str, records: Iterable[Record]) -> SessionView | None:
    """The session as its records have it; None if none of them says that it opened, or why it did not.

    Records of other sessions among them are none of it.
    """
    story = _Story(session, sender)
    for record in records:
        story.add(record)
    return story.view


class _Story:
    def __init__(self, session: str, sender: str) -> None:
        self._session = session
        self._sender = sender
        self._sms: dict[str, SmsView] = {}
        self._tickets: dict[str, str] = {}
        self.view: SessionView | None = None

    def add(self, record: Record) -> None:
        match record:
            case Opened() if record.session == self._session:
                self._open(record)
            case Refused() if record.id == self._session and self.view is None:
                self._refuse(record)
            case Delivered():
                self._receive(record)
            case Invited() | Heard() | Said() | Sent() | Unsent() | Ended() if (
                record.session == self._session
            ):
                if self.view is not None:
                    self._go_on(self.view, record)
            case _:
                pass

    def _open(self, record: Opened) -> None:
        self.view = SessionView(
            id=self._session,
            state="open",
            channel=record.channel,
            identifier=self._sender,
            survey=record.survey,
            version=record.version,
            language=record.language,
            originator=record.originator,
            opened_at=moment(record.at),
        )

    def _refuse(self, record: Refused) -> None:
        cancelled = record.reason == "cancelled"
        self.view = SessionView(
            id=self._session,
            state="cancelled" if cancelled else "refused",
            reason=UNSET if cancelled else record.reason,
            channel=record.channel,
            identifier=self._sender,
            ended_at=moment(record.at),
        )

    def _go_on(self, view: SessionView, record: Invited | Heard | Said | Sent | Unsent | Ended) -> None:
        match record:
            case Invited(invitation=invitation):
                invited(view, invitation)
            case Heard(at=at, text=text):
                view.transcript.append(SmsView(at=moment(at), from_="person", text=text))
            case Said(at=at, id=sms, text=text):
                said = SmsView(at=moment(at), from_="us", text=text, state="decided")
                self._sms[sms] = said
                view.transcript.append(said)
            case Sent(id=sms, ticket=ticket):
                self._tickets[ticket] = sms
                self._progress(sms, "accepted")
            case Unsent(id=sms, code=code, why=why):
                self._progress(sms, "failed", f"{code} {why}".strip())
            case Ended(at=at, how=how, answers=answers, why=why):
                view.state, view.ended_at, view.why = how, moment(at), why or UNSET
                answered(view, answers)

    def _receive(self, record: Delivered) -> None:
        sms = record.sms or self._tickets.get(record.ticket, "")
        if record.state:
            self._progress(sms, record.state, f"{record.code} {record.why}".strip())

    def _progress(self, sms: str, state: SmsProgress, why: str = "") -> None:
        said = self._sms.get(sms)
        if said is not None and said.state is not UNSET and _ORDER.index(state) > _ORDER.index(said.state):
            said.state = state
            said.why = why if why and state == "failed" else UNSET


def _answer(answer: Answer) -> AnswerView:
    several = isinstance(answer.value, tuple)
    return AnswerView(
        raw=answer.raw,
        value=list(answer.value) if isinstance(answer.value, tuple) else answer.value,
        index=answer.index if answer.index >= 0 and not several else UNSET,
        indexes=list(answer.indexes) if several else UNSET,
    )
