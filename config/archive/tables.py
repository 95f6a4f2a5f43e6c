"""The tables of the archive, the same on SQLite and PostgreSQL.

`entries` is the truth: the records as the event streams had them. `sessions`, `answers`, `variables`, `messages`, `sends`,
`receipts` and `refusals` are made of it, and `parley archive rebuild` makes them anew. Laws:

- Who writes holds the shard's row of `positions` (config/archive/database.py), so that each shard's entries are in order,
  each of them once.
- Tables and columns are only added, never changed or removed, so that two releases work on one archive.
- `(shard, entry_ms, entry_seq)` is an entry's place: the stream's id. Rows that a stable listing goes through carry the
  place of the entry that made them; below the watermark (database.py) none is added any more.
- Moments are UTC: `timestamptz` in PostgreSQL, texts such as 2026-01-31 08:00:00.000000 in SQLite, ms since 1970 in
  Python. What is not known is NULL.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Moment(TypeDecorator[int]):
    """A moment: ms since 1970 in Python, 0 or None for none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> datetime | None:
        if not value:
            return None
        moment = _EPOCH + value * _MS
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        if value is None:
            return None
        moment: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (moment - _EPOCH) // _MS


METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _table(name: str, *columns: Any) -> Table:
    return Table(name, METADATA, *columns)


def _text(name: str) -> "Column[str]":
    return Column(name, Text, nullable=False, server_default="")


def _number(name: str) -> "Column[int]":
    return Column(name, BigInteger, nullable=False, server_default="0")


deployment = _table(
    "deployment",
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
"""What the archive is of: `id`, which the Redis of the lanes has too; `pseudonym_key`, made once, which never changes."""

positions = _table(
    "positions",
    Column("source", Text, nullable=False),  # "events", or another stream that is moved here
    Column("shard", Integer, nullable=False),
    _number("last_ms"),  # the id of the last entry that is here; 0-0: none yet
    _number("last_seq"),
    _number("read_until_ms"),  # all that the stream had at this time (of Redis' clock) is here
    PrimaryKeyConstraint("source", "shard"),
)

entries = _table(
    "entries",
    Column("shard", Integer, nullable=False),
    Column("entry_ms", BigInteger, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("sender", Text, nullable=False),
    _text("session"),  # the session that its records are of; empty: of none
    Column("records", LargeBinary, nullable=False),  # as in the stream: engine.model.events
    PrimaryKeyConstraint("shard", "entry_ms", "entry_seq"),
    Index(None, "sender", "entry_ms"),
    Index(None, "session"),
)

sessions = _table(
    "sessions",
    Column("session", Text, primary_key=True),
    Column("shard", Integer, nullable=False),
    Column("sender", Text, nullable=False),
    Column("channel", Text, nullable=False),
    _text("originator"),
    _text("survey"),
    _text("version"),
    _text("language"),
    Column("state", Text, nullable=False),  # open, refused, or how it ended (SessionEnding)
    _text("why"),
    Column("opened_at", Moment),
    Column("ended_at", Moment),
    Column("last_at", Moment),  # the last that is known of it
    # how it was invited; a session that a START opened has none of this
    Column("invited", Boolean, nullable=False),
    _text("reference"),
    _text("campaign"),
    Column("asked_at", Moment),
    Column("not_before", Moment),
    # where it stands: the step that was asked last
    _text("step"),
    Column("step_asked_at", Moment),
    _number("step_misreads"),
    # counters
    _number("answers"),
    _number("misreads"),
    _number("received"),
    _number("sent"),  # SMS decided
    _number("segments"),  # of those, counted by us; what providers count is in `sends`
    _number("cost_micros"),  # as providers tell, in millionths of `currency`
    _text("currency"),
    # the places of the entries that opened and ended (or refused) it; ms 0: not yet
    _number("opened_ms"),
    _number("opened_seq"),
    _number("ended_ms"),
    _number("ended_seq"),
    Index(None, "survey", "ended_ms"),
    Index(None, "survey", "opened_ms"),
    Index(None, "survey", "opened_at"),  # by time; the latest
    Index(None, "survey", "state", "opened_at"),  # how many are in which state
    Index(None, "sender"),
    Index(None, "channel", "reference"),
    Index(None, "ended_at"),
)

answers = _table(
    "answers",
    Column("session", Text, nullable=False),
    Column("place", Integer, nullable=False),  # which of the session's answers, from 0
    Column("choice", Integer, nullable=False),  # which of several chosen options, from 0; else 0
    Column("survey", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("at", Moment),
    _text("sms"),  # the id of the SMS; empty: from a record of 0.1.0, which does not say
    _text("type"),  # the answer type in the survey's file; empty: the same
    Column("raw", Text, nullable=False),  # as the person wrote it
    Column("value", Text),  # as it was read, in one spelling
    Column("value_number", Double),
    Column("value_date", Date),
    Column("value_time", Text),  # HH:MM
    Column("value_yes", Boolean),
    Column("option", Text),  # the option's id
    Column("option_index", Integer),  # its place, from 0
    _number("misreads"),  # replies before it that could not be read
    Column("seconds", Double),  # from the question to the answer
    PrimaryKeyConstraint("session", "place", "choice"),
    Index(None, "survey", "step"),
)

variables = _table(
    "variables",
    Column("session", Text, nullable=False),
    Column("key", Text, nullable=False),  # in lower case, by which it is found
    Column("name", Text, nullable=False),  # in the spelling in which it came
    Column("value", Text, nullable=False),
    Column("value_number", Double),
    PrimaryKeyConstraint("session", "key"),
    Index(None, "key", "value"),
)

messages = _table(
    "messages",
    Column("shard", Integer, nullable=False),
    Column("entry_ms", BigInteger, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),  # which record of the entry
    Column("sms", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("channel", Text, nullable=False),
    _text("originator"),
    Column("direction", Text, nullable=False),  # in: from the person; out: to them
    Column("at", Moment),
    Column("text", Text, nullable=False),
    _text("step"),  # out: whose text it is; in: which step it answers, or fails to
    _text("kind"),  # out: SmsKind; in: answer, misread, or empty
    _text("why"),  # why it could not be read
    _number("segments"),  # out: as we count them
    _number("attachments"),
    PrimaryKeyConstraint("shard", "entry_ms", "entry_seq", "place"),
    Index(None, "session"),
    Index(None, "sms"),
    Index(None, "sender"),
)

sends = _table(
    "sends",
    Column("shard", Integer, nullable=False),
    Column("entry_ms", BigInteger, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),
    Column("sms", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("at", Moment),
    Column("outcome", Text, nullable=False),  # sent, or unsent: it will not leave
    _text("ticket"),
    _text("code"),
    _text("why"),
    _number("segments"),  # as the provider counts them; 0: it does not say
    _number("cost_micros"),
    _text("currency"),
    PrimaryKeyConstraint("shard", "entry_ms", "entry_seq", "place"),
    Index(None, "session"),
    Index(None, "sms"),
    Index(None, "ticket"),
    Index(None, "sender"),
)

receipts = _table(
    "receipts",
    Column("shard", Integer, nullable=False),
    Column("entry_ms", BigInteger, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),
    Column("sms", Text, nullable=False),  # empty: its ticket is not known here
    Column("session", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("at", Moment),
    _text("ticket"),
    _text("status"),  # the provider's word
    _text("state"),  # SmsState
    _text("code"),
    _text("why"),
    _number("segments"),
    _number("cost_micros"),
    _text("currency"),
    PrimaryKeyConstraint("shard", "entry_ms", "entry_seq", "place"),
    Index(None, "session"),
    Index(None, "sms"),
    Index(None, "sender"),
)

refusals = _table(
    "refusals",
    Column("shard", Integer, nullable=False),
    Column("entry_ms", BigInteger, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),
    Column("event", Text, nullable=False),  # the id of the START, or of the invitation
    Column("sender", Text, nullable=False),
    Column("channel", Text, nullable=False),
    _text("survey"),  # an invitation's; a START's is not recorded
    Column("at", Moment),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("shard", "entry_ms", "entry_seq", "place"),
    Index(None, "sender"),
)

opt_outs = _table(
    "opt_outs",
    Column("shard", Integer, nullable=False),
    Column("entry_ms", BigInteger, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),
    Column("number_hash", Text, nullable=False),  # as in Redis' list of opt-outs: no number
    Column("channel", Text, nullable=False),
    Column("at", Moment),
    Column("change", Text, nullable=False),  # out, or in again
    _text("source"),  # person, provider, or an operator's list
    PrimaryKeyConstraint("shard", "entry_ms", "entry_seq", "place"),
    Index(None, "number_hash"),
)

surveys = _table(
    "surveys",
    Column("version", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("source", LargeBinary, nullable=False),  # the file's content
    Column("first_at", Moment),
    Index(None, "name"),
)

audit = _table(
    "audit",
    Column("source", Text, nullable=False),  # the stream that it comes from, as in `positions`
    Column("shard", Integer, nullable=False),
    Column("entry_ms", BigInteger, nullable=False),
    Column("entry_seq", BigInteger, nullable=False),
    Column("at", Moment),
    Column("actor", Text, nullable=False),  # an operator, or `key <name>` of the API
    Column("action", Text, nullable=False),
    _text("subject"),  # whose data, or which letter: never a number
    _text("detail"),  # JSON
    PrimaryKeyConstraint("source", "shard", "entry_ms", "entry_seq"),
    Index(None, "at"),
)
