"""What do records come to in the archive's tables? Decided here, without I/O.

A page of entries of one shard is projected in one go: what is known of the sessions that it is about comes in, and the rows
to add and the sessions as they then stand come out. The same entries give the same rows, however they are cut into pages.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Any, NamedTuple, assert_never

import msgspec

from engine.model.events import (
    Answer,
    AnswerRejected,
    ArchiveRecord,
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
    session_of_sms_id,
)
from engine.model.segments import count_segments
from engine.surveys.variables import is_variable, read_variable

Row = dict[str, Any]


class EntryPlace(NamedTuple):
    """Where an entry stands: its shard, and its id in the stream."""

    shard: int
    entry_ms: int
    entry_seq: int


class SessionRow(msgspec.Struct, array_like=True):
    """A row of `sessions`, while it is brought up to date. Moments are ms, 0 for none."""

    session: str
    shard: int
    sender: str
    channel: str
    originator: str = ""
    survey: str = ""
    version: str = ""
    language: str = ""
    state: str = "open"
    why: str = ""
    opened_at: int = 0
    ended_at: int = 0
    last_at: int = 0
    invited: bool = False
    reference: str = ""
    campaign: str = ""
    asked_at: int = 0
    not_before: int = 0
    step: str = ""
    step_asked_at: int = 0
    step_misreads: int = 0
    answers: int = 0
    misreads: int = 0
    received: int = 0
    sent: int = 0
    segments: int = 0
    cost_micros: int = 0
    currency: str = ""
    opened_ms: int = 0
    opened_seq: int = 0
    ended_ms: int = 0
    ended_seq: int = 0


class PageRows(msgspec.Struct):
    """What a page comes to: rows to add, by table, and the sessions that it touches. Of `variables` a later row of the same
    session and key replaces an earlier one, also one that the archive has."""

    entries: list[Row] = []
    answers: list[Row] = []
    variables: dict[tuple[str, str], Row] = {}
    messages: list[Row] = []
    sends: list[Row] = []
    receipts: list[Row] = []
    refusals: list[Row] = []
    opt_outs: list[Row] = []
    sessions: dict[str, SessionRow] = {}


class KnownBefore(msgspec.Struct):
    """What the archive has already of what a page is about: its sessions, the SMS (id, session) of tickets that receipts name,
    which steps have answers in the sessions that end in it, and in which spelling their variables came, by key."""

    sessions: dict[str, SessionRow] = {}
    sms_by_ticket: dict[str, tuple[str, str]] = {}
    answered_steps: dict[str, set[str]] = {}
    variable_names: dict[str, dict[str, str]] = {}


class PageProjection:
    """Projects the entries of one page, in their order."""

    def __init__(self, known: KnownBefore, hash_number: Callable[[str], str]) -> None:
        self._known = known
        self._hash_number = hash_number
        self.rows = PageRows(sessions={})
        self._place = EntryPlace(0, 0, 0)
        self._sender = ""
        self._number = 0
        self._received: Row | None = None

    def add_entry(self, place: EntryPlace, sender: str, records: Iterable[ArchiveRecord]) -> None:
        self._place, self._sender, self._received = place, sender, None
        for self._number, record in enumerate(records):
            self._add_record(record)

    def _add_record(self, record: ArchiveRecord) -> None:
        match record:
            case SessionOpened():
                self._open_session(record)
            case SessionInvited(session=session, channel=channel, invitation=invitation):
                self._add_invitation(self._session(session, channel, record.at), invitation)
            case SmsReceived():
                self._add_received(record)
            case AnswerRejected():
                self._add_rejected(record)
            case SmsDecided():
                self._add_decided(record)
            case SmsSent() | SmsNotSent():
                self._add_send(record)
            case ReceiptRecorded():
                self._add_receipt(record)
            case OpeningRefused():
                self._add_refusal(record)
            case SessionEnded():
                self._end_session(record)
            case PersonOptedOut(channel=channel, at=at, by_provider=by_provider, source=source):
                told_by = source or ("provider" if by_provider else "person")
                self._add_opt_out(channel, at, "out", told_by)
            case PersonOptedIn(channel=channel, at=at):
                self._add_opt_out(channel, at, "in", "")
            case _:
                assert_never(record)

    # Sessions

    def _session(self, session: str, channel: str, at: int) -> SessionRow:
        """The session as it stands. One whose beginning the archive has not is made of what is known of it."""
        row = self.rows.sessions.get(session)
        if row is None:
            row = self._known.sessions.get(session) or SessionRow(
                session=session, shard=self._place.shard, sender=self._sender, channel=channel
            )
            self.rows.sessions[session] = row
        row.last_at = max(row.last_at, at)
        return row

    def _open_session(self, record: SessionOpened) -> None:
        row = self._session(record.session, record.channel, record.at)
        row.survey, row.version, row.language = record.survey, record.version, record.language
        row.originator, row.opened_at, row.state = record.originator, record.at, "open"
        row.opened_ms, row.opened_seq = self._place.entry_ms, self._place.entry_seq
        for name, value in record.variables.items():
            self._set_variable(row.session, f"${name}", value)

    def _add_invitation(self, row: SessionRow, invitation: Invitation) -> None:
        row.invited = True
        row.reference, row.campaign = invitation.reference, invitation.campaign
        row.asked_at, row.not_before = invitation.asked_at, invitation.not_before
        row.survey, row.language = row.survey or invitation.survey, row.language or invitation.language
        row.originator = row.originator or invitation.originator
        for name, value in invitation.variables.items():
            self._set_variable(row.session, name, value)

    def _end_session(self, record: SessionEnded) -> None:
        row = self._session(record.session, record.channel, record.at)
        row.state, row.why, row.ended_at = record.how, record.why, record.at
        row.ended_ms, row.ended_seq = self._place.entry_ms, self._place.entry_seq
        for step, answer in record.answers.items():
            if is_variable(step):
                self._set_variable(row.session, step[1:], answer.raw)
            elif step not in self._answered(row.session):
                self._add_answer(row, step, answer)

    def _answered(self, session: str) -> set[str]:
        return self._known.answered_steps.setdefault(session, set())

    def _set_variable(self, session: str, name: str, value: str) -> None:
        key = name.lower()
        names = self._known.variable_names.setdefault(session, {})
        if name != key:
            names[key] = name
        number = read_variable(value).value
        self.rows.variables[session, key] = {
            "session": session,
            "key": key,
            "name": names.get(key, name),
            "value": value,
            "value_number": float(number) if isinstance(number, int | float) else None,
        }

    # SMS

    def _add_received(self, record: SmsReceived) -> None:
        row = self._session(record.session, record.channel, record.at) if record.session else None
        self._received = self._event_row(
            record,
            sms=record.id,
            originator=record.originator,
            direction="in",
            text=record.text,
            step=record.step,
            kind="answer" if record.answer is not None else "",
            why="",
            segments=0,
            attachments=len(record.attachments),
        )
        self.rows.messages.append(self._received)
        if row is None:
            return
        row.received += 1
        if record.answer is not None:
            self._add_answer(row, record.step, record.answer, record)

    def _add_rejected(self, record: AnswerRejected) -> None:
        row = self._session(record.session, record.channel, record.at)
        row.misreads += 1
        row.step_misreads += 1
        if self._received is not None:
            self._received |= {"kind": "misread", "step": record.step, "why": record.why}

    def _add_decided(self, record: SmsDecided) -> None:
        segments = count_segments(record.text).segments
        self.rows.messages.append(
            self._event_row(
                record,
                sms=record.id,
                originator="",
                direction="out",
                text=record.text,
                step=record.step,
                kind=record.kind,
                why="",
                segments=segments,
                attachments=0,
            )
        )
        if not record.session:
            return
        row = self._session(record.session, record.channel, record.at)
        row.sent += 1
        row.segments += segments
        if record.kind == "ask" or (record.kind == "" and record.step != row.step):
            row.step, row.step_asked_at, row.step_misreads = record.step, record.at, 0

    def _add_send(self, record: SmsSent | SmsNotSent) -> None:
        self.rows.sends.append(self._event_row(record, sms=record.id, **_send_columns(record)))
        if isinstance(record, SmsSent):
            if record.ticket:
                self._known.sms_by_ticket[record.ticket] = (record.id, record.session)
            self._add_cost(record.session, record.cost_micros, record.currency)

    def _add_receipt(self, record: ReceiptRecorded) -> None:
        sms, session = self._known.sms_by_ticket.get(record.ticket, ("", ""))
        if record.sms:
            sms, session = record.sms, session_of_sms_id(record.sms)
        row = self._event_row(
            record,
            sms=sms,
            session=session,
            ticket=record.ticket,
            status=record.status,
            state=record.state,
            code=record.code,
            why=record.why,
            segments=record.segments,
            cost_micros=record.cost_micros,
            currency=record.currency,
        )
        self.rows.receipts.append(row)
        if record.state in ("delivered", "failed"):
            self._add_cost(session, record.cost_micros, record.currency)

    def _add_cost(self, session: str, cost_micros: int, currency: str) -> None:
        known = self.rows.sessions.get(session) or self._known.sessions.get(session)
        if known is not None and cost_micros:
            known.cost_micros += cost_micros
            known.currency = currency or known.currency
            self.rows.sessions[session] = known

    # Answers

    def _add_answer(self, row: SessionRow, step: str, answer: Answer, sms: SmsReceived | None = None) -> None:
        """Add an answer, a row for each chosen option; without its `sms`, as SessionEnded has it."""
        asked = sms is not None and row.step == step and row.step_asked_at > 0
        common: Row = {
            "session": row.session,
            "place": row.answers,
            "survey": row.survey,
            "version": row.version,
            "step": step,
            "at": sms.at if sms is not None else 0,
            "sms": sms.id if sms is not None else "",
            "type": sms.answer_type if sms is not None else "",
            "raw": answer.raw,
            "misreads": row.step_misreads if asked else 0,
            "seconds": (sms.at - row.step_asked_at) / 1000 if asked and sms is not None else None,
        }
        row.answers += 1
        row.step_misreads = 0
        self._answered(row.session).add(step)
        self.rows.answers += [common | value for value in answer_values(answer, common["type"])]

    # Others

    def _add_refusal(self, record: OpeningRefused) -> None:
        invitation = record.invitation
        self.rows.refusals.append(
            {
                **self._place._asdict(),
                "place": self._number,
                "event": record.id,
                "sender": self._sender,
                "channel": record.channel,
                "survey": invitation.survey if invitation is not None else "",
                "at": record.at,
                "reason": record.reason,
            }
        )
        if invitation is not None:
            row = self._session(record.id, record.channel, record.at)
            row.state = "cancelled" if record.reason == "cancelled" else "refused"
            row.why, row.ended_at = record.reason, record.at
            row.ended_ms, row.ended_seq = self._place.entry_ms, self._place.entry_seq
            self._add_invitation(row, invitation)

    def _add_opt_out(self, channel: str, at: int, change: str, source: str) -> None:
        self.rows.opt_outs.append(
            {
                **self._place._asdict(),
                "place": self._number,
                "number_hash": self._hash_number(self._sender),
                "channel": channel,
                "at": at,
                "change": change,
                "source": source,
            }
        )

    def _event_row(
        self, record: SmsReceived | SmsDecided | SmsSent | SmsNotSent | ReceiptRecorded, **columns: Any
    ) -> Row:
        return {
            **self._place._asdict(),
            "place": self._number,
            "session": getattr(record, "session", ""),
            "sender": self._sender,
            "channel": record.channel,
            "at": record.at,
        } | columns


def _send_columns(record: SmsSent | SmsNotSent) -> Row:
    nothing = {"ticket": "", "code": "", "why": "", "segments": 0, "cost_micros": 0, "currency": ""}
    match record:
        case SmsSent(ticket=ticket, segments=segments, cost_micros=cost_micros, currency=currency):
            return nothing | {
                "outcome": "sent",
                "ticket": ticket,
                "segments": segments,
                "cost_micros": cost_micros,
                "currency": currency,
            }
        case SmsNotSent(code=code, why=why):
            return nothing | {"outcome": "unsent", "code": code, "why": why}


_NO_VALUE: Mapping[str, Any] = {
    "choice": 0,
    "value": None,
    "value_number": None,
    "value_date": None,
    "value_time": None,
    "value_yes": None,
    "option": None,
    "option_index": None,
}
_TIME = re.compile(r"[0-2][0-9]:[0-5][0-9]")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def answer_values(answer: Answer, answer_type: str) -> list[Row]:
    """The columns that hold how an answer was read: one row, or one for each of several options. Where the record does not
    say what type it is, its form does."""
    value = answer.value
    match value:
        case tuple():
            pairs = zip(value, answer.indexes, strict=False)
            return [
                {**_NO_VALUE, "choice": n, "value": option, "option": option, "option_index": index}
                for n, (option, index) in enumerate(pairs)
            ]
        case bool():
            return [{**_NO_VALUE, "value": "yes" if value else "no", "value_yes": value}]
        case int() | float():
            return [{**_NO_VALUE, "value": str(value), "value_number": float(value)}]
        case str() if answer.index >= 0:
            return [{**_NO_VALUE, "value": value, "option": value, "option_index": answer.index}]
        case str():
            return [{**_NO_VALUE, "value": value, **_read_form(value, answer_type)}]
        case _:
            assert_never(value)


def _read_form(value: str, answer_type: str) -> Row:
    if answer_type in ("date", "") and _DAY.fullmatch(value):
        try:
            return {"value_date": date.fromisoformat(value)}
        except ValueError:
            return {}
    if answer_type in ("time", "") and _TIME.fullmatch(value):
        return {"value_time": value}
    return {}
