"""What do records come to in the archive's tables? Decided here, without I/O.

A page of entries of some shards is projected in one go: what is known of the sessions that it is about comes in, and the rows
to add and the sessions as they then stand come out. The same entries give the same rows, however they are cut into pages.
A receipt that comes before the record of its SMS is the one thing that finds nothing: its row says of no SMS.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple, assert_never

import msgspec

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
    session_of_sms_id,
)
from engine.model.segments import count_segments
from engine.surveys.variables import is_variable, read_variable
from workers.archiving.archive_rows import (
    AnswerRow,
    EntryPlace,
    EntryRow,
    MessageRow,
    OptOutRow,
    PageRows,
    ReceiptRow,
    RefusalRow,
    SendRow,
    SessionRow,
    VariableRow,
)
from workers.store.session_records import session_of_record

TEXTS_COUNTED = 2_000
"""Texts whose segments are remembered: the same question goes to many people."""


class ProviderTicket(NamedTuple):
    """What a channel's provider calls an SMS to somebody of a shard."""

    shard: int
    channel: str
    ticket: str


class TicketedSms(NamedTuple):
    """The SMS that has a ticket, and its session."""

    sms: str = ""
    session: str = ""


class KnownBefore(msgspec.Struct):
    """What the archive has already of what a page is about: its sessions, the SMS of tickets that receipts name, which steps
    have answers in the sessions that end in it, and in which spelling the variables came of those that say more of them."""

    sessions: dict[str, SessionRow] = {}
    sms_by_ticket: dict[ProviderTicket, TicketedSms] = {}
    answered_steps: dict[str, set[str]] = {}
    variable_names: dict[str, dict[str, str]] = {}


class PageEntry(msgspec.Struct, frozen=True):
    """An entry of a stream: its place, whose it is, and its records, decoded and as they are stored. One that cannot be read
    has none, and is kept as it is."""

    place: EntryPlace
    sender: str
    records: Sequence[ArchiveRecord]
    stored: bytes


class PageProjection:
    """Projects the entries of one page, those of a shard in their order."""

    def __init__(self, known: KnownBefore, hash_number: Callable[[str], str]) -> None:
        self._known = known
        self._hash_number = hash_number
        self.rows = PageRows()
        self._place = EntryPlace(0, 0, 0)
        self._sender = ""
        self._number = 0

    def add_entry(self, entry: PageEntry) -> None:
        self._place, self._sender = entry.place, entry.sender
        session = self._session_of_entry(entry)
        self.rows.entries.append(EntryRow(*entry.place, entry.sender, session, entry.stored))
        for self._number, record in enumerate(entry.records):
            self._add_record(record)

    def _session_of_entry(self, entry: PageEntry) -> str:
        """An entry's records are all of one session, or of none."""
        if not entry.records:
            return ""
        first = entry.records[0]
        return (
            self._sms_of_receipt(first).session
            if isinstance(first, ReceiptRecorded)
            else session_of_record(first)
        )

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
            case SmsSent():
                self._add_sent(record)
            case SmsNotSent():
                self._add_unsent(record)
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
            case DeadLetterAdded():
                pass  # in `entries` alone: Redis has the letter, and what is done with it is in the audit
            case _:
                assert_never(record)

    # Sessions

    def _session(self, session: str, channel: str, at: int) -> SessionRow:
        """The session as it stands. One whose beginning the archive has not is made of what is known of it."""
        row = self._known_session(session)
        if row is None:
            row = SessionRow(session, self._place.shard, self._sender, channel)
        self.rows.sessions[session] = row
        row.last_at = max(row.last_at, at)
        return row

    def _known_session(self, session: str) -> SessionRow | None:
        return self.rows.sessions.get(session) or self._known.sessions.get(session)

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
        self.rows.variables[session, key] = VariableRow(
            session,
            key,
            names.get(key, name),
            value,
            float(number) if isinstance(number, int | float) else None,
        )

    # SMS

    def _add_received(self, record: SmsReceived) -> None:
        kind = "answer" if record.answer is not None else ""
        self.rows.messages.append(MessageRow(
            *self._place, self._number, record.id, record.session, self._sender, record.channel,
            record.originator, "in", record.at, record.text, record.step, kind, "", 0,
            len(record.attachments),
        ))  # fmt: skip
        if not record.session:
            return
        row = self._session(record.session, record.channel, record.at)
        row.received += 1
        if record.answer is not None:
            self._add_answer(row, record.step, record.answer, record)

    def _add_rejected(self, record: AnswerRejected) -> None:
        row = self._session(record.session, record.channel, record.at)
        row.misreads += 1
        row.step_misreads += 1
        messages = self.rows.messages
        for at in range(len(messages) - 1, -1, -1):
            message = messages[at]
            if message[:3] != self._place:
                return
            if message.direction == "in":  # the SMS just received
                messages[at] = message._replace(kind="misread", step=record.step, why=record.why)
                return

    def _add_decided(self, record: SmsDecided) -> None:
        segments = _count_segments(record.text)
        self.rows.messages.append(MessageRow(
            *self._place, self._number, record.id, record.session, self._sender, record.channel,
            "", "out", record.at, record.text, record.step, record.kind, "", segments, 0,
        ))  # fmt: skip
        if not record.session:
            return
        row = self._session(record.session, record.channel, record.at)
        row.sent += 1
        row.segments += segments
        if record.kind == "ask" or (record.kind == "" and record.step != row.step):
            row.step, row.step_asked_at, row.step_misreads = record.step, record.at, 0

    def _add_sent(self, record: SmsSent) -> None:
        self.rows.sends.append(SendRow(
            *self._place, self._number, record.id, record.session, self._sender, record.channel, record.at,
            "sent", record.ticket, "", "", record.segments, record.cost_micros, record.currency,
        ))  # fmt: skip
        if record.ticket:
            named = ProviderTicket(self._place.shard, record.channel, record.ticket)
            self._known.sms_by_ticket[named] = TicketedSms(record.id, record.session)
        self._add_cost(record.session, record.cost_micros, record.currency)

    def _add_unsent(self, record: SmsNotSent) -> None:
        self.rows.sends.append(SendRow(
            *self._place, self._number, record.id, record.session, self._sender, record.channel, record.at,
            "unsent", code=record.code, why=record.why,
        ))  # fmt: skip

    def _sms_of_receipt(self, record: ReceiptRecorded) -> TicketedSms:
        if record.sms:
            return TicketedSms(record.sms, session_of_sms_id(record.sms))
        named = ProviderTicket(self._place.shard, record.channel, record.ticket)
        return self._known.sms_by_ticket.get(named, TicketedSms())

    def _add_receipt(self, record: ReceiptRecorded) -> None:
        sms, session = self._sms_of_receipt(record)
        self.rows.receipts.append(ReceiptRow(
            *self._place, self._number, sms, session, self._sender, record.channel, record.at,
            record.ticket, record.status, record.state, record.code, record.why,
            record.segments, record.cost_micros, record.currency,
        ))  # fmt: skip
        if record.state in ("delivered", "failed"):
            self._add_cost(session, record.cost_micros, record.currency)

    def _add_cost(self, session: str, cost_micros: int, currency: str) -> None:
        row = self._known_session(session)
        if row is not None and cost_micros:
            row.cost_micros += cost_micros
            row.currency = currency or row.currency
            self.rows.sessions[session] = row

    # Answers

    def _add_answer(self, row: SessionRow, step: str, answer: Answer, sms: SmsReceived | None = None) -> None:
        """Add an answer, a row for each chosen option; without its `sms`, as SessionEnded has it."""
        at, identity, answer_type = (sms.at, sms.id, sms.answer_type) if sms is not None else (0, "", "")
        asked = sms is not None and row.step == step and row.step_asked_at > 0
        misreads = row.step_misreads if asked else 0
        seconds = (at - row.step_asked_at) / 1_000 if asked else None
        self.rows.answers += [
            AnswerRow(
                row.session, row.answers, choice, row.survey, row.version, step, at, identity, answer_type,
                answer.raw, *read, misreads, seconds,
            )
            for choice, read in enumerate(read_answer(answer, answer_type))
        ]  # fmt: skip
        row.answers += 1
        row.step_misreads = 0
        self._answered(row.session).add(step)

    # Others

    def _add_refusal(self, record: OpeningRefused) -> None:
        invitation = record.invitation
        survey = invitation.survey if invitation is not None else ""
        self.rows.refusals.append(
            RefusalRow(
                *self._place,
                self._number,
                record.id,
                self._sender,
                record.channel,
                survey,
                record.at,
                record.reason,
            )
        )
        if invitation is not None:
            row = self._session(record.id, record.channel, record.at)
            row.state = "cancelled" if record.reason == "cancelled" else "refused"
            row.why, row.ended_at = record.reason, record.at
            row.ended_ms, row.ended_seq = self._place.entry_ms, self._place.entry_seq
            self._add_invitation(row, invitation)

    def _add_opt_out(self, channel: str, at: int, change: str, source: str) -> None:
        hashed = self._hash_number(self._sender)
        self.rows.opt_outs.append(OptOutRow(*self._place, self._number, hashed, channel, at, change, source))


@lru_cache(maxsize=TEXTS_COUNTED)
def _count_segments(text: str) -> int:
    return count_segments(text).segments


class AnswerValues(NamedTuple):
    """The columns of an answer that hold how it was read."""

    value: str | None = None
    value_number: float | None = None
    value_date: str | None = None
    value_time: str | None = None
    value_yes: bool | None = None
    option: str | None = None
    option_index: int | None = None


_TIME = re.compile(r"[0-2][0-9]:[0-5][0-9]")
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def read_answer(answer: Answer, answer_type: str) -> list[AnswerValues]:
    """How an answer was read, or each of several options. Where the record does not say what type it is, its form does."""
    value = answer.value
    match value:
        case tuple():
            places = (*answer.indexes, *[None] * len(value))
            return [_chosen_option(option, index) for option, index in zip(value, places, strict=False)]
        case bool():
            return [AnswerValues("yes" if value else "no", value_yes=value)]
        case int() | float():
            return [AnswerValues(str(value), value_number=float(value))]
        case str() if answer.index >= 0:
            return [_chosen_option(value, answer.index)]
        case str():
            return [_read_form(value, answer_type)]
        case _:
            assert_never(value)


def _chosen_option(option: str, index: int | None) -> AnswerValues:
    return AnswerValues(option, option=option, option_index=index)


def _read_form(value: str, answer_type: str) -> AnswerValues:
    if answer_type in ("date", "") and _is_date(value):
        return AnswerValues(value, value_date=value)
    if answer_type in ("time", "") and _TIME.fullmatch(value):
        return AnswerValues(value, value_time=value)
    return AnswerValues(value)


def _is_date(text: str) -> bool:
    try:
        return bool(_DAY.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False
