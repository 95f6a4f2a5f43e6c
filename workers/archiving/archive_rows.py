"""The rows of the archive's tables, as they are written: each is a tuple of its table's columns, in their order, so that a
whole page goes to the database as it is. Moments are ms since 1970, 0 for none."""

from typing import NamedTuple

import msgspec


class EntryPlace(NamedTuple):
    """Where an entry stands: its shard, and its id in the stream."""

    shard: int
    entry_ms: int
    entry_seq: int


class EntryRow(NamedTuple):
    shard: int
    entry_ms: int
    entry_seq: int
    sender: str
    session: str
    records: bytes


class SessionRow(msgspec.Struct, array_like=True):
    """A row of `sessions`, while it is brought up to date."""

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


class AnswerRow(NamedTuple):
    session: str
    place: int
    choice: int
    survey: str
    version: str
    step: str
    at: int
    sms: str
    type: str
    raw: str
    value: str | None
    value_number: float | None
    value_date: str | None
    value_time: str | None
    value_yes: bool | None
    option: str | None
    option_index: int | None
    misreads: int
    seconds: float | None


class VariableRow(NamedTuple):
    session: str
    key: str
    name: str
    value: str
    value_number: float | None


class MessageRow(NamedTuple):
    shard: int
    entry_ms: int
    entry_seq: int
    place: int
    sms: str
    session: str
    sender: str
    channel: str
    originator: str
    direction: str
    at: int
    text: str
    step: str
    kind: str
    why: str
    segments: int
    attachments: int


class SendRow(NamedTuple):
    shard: int
    entry_ms: int
    entry_seq: int
    place: int
    sms: str
    session: str
    sender: str
    channel: str
    at: int
    outcome: str
    ticket: str = ""
    code: str = ""
    why: str = ""
    segments: int = 0
    cost_micros: int = 0
    currency: str = ""


class ReceiptRow(NamedTuple):
    shard: int
    entry_ms: int
    entry_seq: int
    place: int
    sms: str
    session: str
    sender: str
    channel: str
    at: int
    ticket: str
    status: str
    state: str
    code: str
    why: str
    segments: int
    cost_micros: int
    currency: str


class RefusalRow(NamedTuple):
    shard: int
    entry_ms: int
    entry_seq: int
    place: int
    event: str
    sender: str
    channel: str
    survey: str
    at: int
    reason: str


class OptOutRow(NamedTuple):
    shard: int
    entry_ms: int
    entry_seq: int
    place: int
    number_hash: str
    channel: str
    at: int
    change: str
    source: str


class PageRows(msgspec.Struct):
    """What a page comes to: rows to add, by table, and the sessions that it touches as they stand after it. A row of
    `variables` replaces an earlier one of the same session and key."""

    entries: list[EntryRow] = []
    answers: list[AnswerRow] = []
    variables: dict[tuple[str, str], VariableRow] = {}
    messages: list[MessageRow] = []
    sends: list[SendRow] = []
    receipts: list[ReceiptRow] = []
    refusals: list[RefusalRow] = []
    opt_outs: list[OptOutRow] = []
    sessions: dict[str, SessionRow] = {}
