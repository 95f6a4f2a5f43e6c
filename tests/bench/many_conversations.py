"""A deployment with very many conversations behind it, in minutes: a few are real, and are copied by the servers themselves.

Redis gets lanes with an open session, what the event streams tell of them, invitations that are held, and dead letters; the archive
(SQLite) gets sessions with all their rows, and an audit. Numbers, ids, moments and answers of copies differ as those of people do;
what an archive's entry has of its session is that of the one that it was copied from.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from time import time
from typing import Literal

import msgspec
import redis

from config.store import keyspace, redis_client
from engine.model.events import Answer, Invitation, SessionEnding, encode_event
from engine.surveys.survey_reader import read_survey
from tests.bench.parley_side import BATCH, SHARDS, batches
from tests.support import clinic
from tests.support.archive_writer import T0, ArchiveWriter
from tests.support.octopush import FakeOctopush
from tests.support.person import Crowd, Person
from tests.support.processes import SURVEYS
from tests.support.waiting import until
from workers.store.dead_letter_store import DeadLetter, encode_dead_letter

OPENED_S = 60.0

PATTERNS = 40
"""Sessions that are written one by one, and copied."""

DAY_MS = 86_400_000
KEPT_MS = 30 * DAY_MS
ID_PRIME = 2_654_435_761
"""Spreads ids as those of sessions are, so that an index of them grows everywhere."""


class Crowdedness(msgspec.Struct, frozen=True):
    """How much of everything."""

    conversations: int = 1_000_000
    held: int = 200_000
    dead_letters: int = 20_000
    audited: int = 1_000_000


_COPY_LANES = """
local prefix, fence, state, session, now, due, till = unpack(ARGV, 1, 7)
for i = 8, #ARGV, 2 do
  local at = string.format('%.0f', due + i)
  local copied = string.gsub(state, session, ARGV[i + 1])
  redis.call('SET', prefix .. 'lane:' .. ARGV[i], fence .. ' ' .. at .. ' ' .. copied)
  redis.call('SET', prefix .. 'session:' .. ARGV[i + 1], now .. ' ' .. ARGV[i], 'PXAT', till)
  redis.call('ZADD', KEYS[1], at, ARGV[i])
end
"""

_COPY_ENTRIES = """
local session, many = ARGV[1], tonumber(ARGV[2])
for i = 3 + many, #ARGV, 2 do
  for entry = 3, 2 + many do
    local copied = string.gsub(ARGV[entry], session, ARGV[i + 1])
    redis.call('XADD', KEYS[1], '*', 'to', ARGV[i], 'e', copied)
  end
end
"""


class Conversation(msgspec.Struct, frozen=True):
    """What Redis has of a conversation that is open: fence and state of its lane, its session's id, and its records in the
    event stream, by entry."""

    fence: bytes
    state: bytes
    session: bytes
    entries: list[bytes]


def open_conversation(client: redis.Redis, webhook: str, octopush: FakeOctopush, turns: int) -> Conversation:
    """Let the first person of a deployment talk for so many turns, until what the provider answered last is recorded."""
    play = clinic.feverish("Ada")
    talked = clinic.Play(play.says[:turns], play.hears[:turns])
    person = Person(clinic.number(0), talked.says[0], talked.answers().get)
    Crowd(webhook, octopush).talk([person], OPENED_S)
    k = keyspace.shard_of(person.number, SHARDS)
    outbox = keyspace.outbox_key(k, person.number)
    until(lambda: not client.exists(outbox), OPENED_S, "the last SMS is recorded as sent")
    fence, _, state = redis_client.run_command(client, ("GET", keyspace.lane_key(k, person.number))).split(
        b" ", 2
    )
    (session,) = client.scan_iter(keyspace.session_key(k, "*"), count=1_000)
    told = redis_client.run_command(client, ("XRANGE", keyspace.events_key(k), "-", "+"))
    return Conversation(fence, state, session.rpartition(b":")[2], [fields[b"e"] for _, fields in told])


def copy_lane(client: redis.Redis, original: Conversation, people: int) -> None:
    """Give so many people its lane, each with a session of their own, which the engine looks at in a day."""
    now = round(time() * 1_000)
    words = (original.fence, original.state, original.session, now, now + DAY_MS, now + KEPT_MS)
    for k, pairs in _copies(people):
        client.eval(_COPY_LANES, 1, keyspace.lane_alarms_key(k), f"{{{k}}}:", *words, *pairs)


def copy_entries(client: redis.Redis, original: Conversation, people: int) -> None:
    """Let the event streams tell of these people what they tell of it."""
    words: tuple[bytes | int, ...] = (original.session, len(original.entries), *original.entries)
    for k, pairs in _copies(people):
        client.eval(_COPY_ENTRIES, 1, keyspace.events_key(k), *words, *pairs)


def _copies(people: int) -> Iterator[tuple[int, list[str]]]:
    """Shard, and the number and session of each of some of its people, one after the other."""
    senders = [clinic.number(1 + person) for person in range(people)]
    for k, of_shard in keyspace.group_by_shard(senders, str, SHARDS).items():
        for batch in batches(of_shard, BATCH):
            yield k, [word for sender in batch for word in (sender, session_id(int(sender[4:])))]


def session_id(number: int) -> str:
    return f"{number * ID_PRIME % 2**32:08x}{number:08x}"


def hold_invitations(client: redis.Redis, many: int) -> None:
    """Let so many people wait for an invitation, as `hold_invitations` of lua/invitations.lua leaves them."""
    now = round(time() * 1_000)
    for batch in batches(range(many), BATCH):
        commands = []
        for each in batch:
            sender, identity = clinic.number(50_000_000 + each), session_id(50_000_000 + each)
            k = keyspace.shard_of(sender, SHARDS)
            event = encode_event(
                Invitation(identity, clinic.CHANNEL, "clinic", variables={"agentId": str(each)})
            )
            mail = sender.encode() + b"\0" + str(now).encode() + event
            commands += [
                ("HSET", keyspace.held_invitations_key(k), identity, mail),
                ("ZADD", keyspace.held_ids_key(k, clinic.CHANNEL), now + each, identity),
            ]
        redis_client.run_commands(client, commands)


def bury_letters(client: redis.Redis, many: int) -> None:
    """Put so many dead letters there: of three kinds of failures, each with numbers of its own in it."""
    begun = round(time() * 1_000) - DAY_MS
    for batch in batches(range(many), BATCH):
        commands = []
        for each in batch:
            sender = clinic.number(1 + each)
            k = keyspace.shard_of(sender, SHARDS)
            letter = encode_dead_letter(_letter(each, sender, begun + each))
            commands += [
                ("HSET", keyspace.dead_letters_key(k), letter.id, letter.content),
                ("ZADD", keyspace.dead_letter_index_key(k), begun + each, letter.id),
                ("HINCRBY", keyspace.dead_letter_reasons_key(k), "rejected", 1),
            ]
        redis_client.run_commands(client, commands)


def _letter(each: int, sender: str, at: int) -> DeadLetter:
    return DeadLetter(
        id=session_id(each), kind="event", reason="rejected", sender=sender, at=at, attempts=5, what=b"",
        channel=clinic.CHANNEL, code=("timeout", "refused", "broken")[each % 3], why=f"after {each} ms",
        traceback="Traceback\n" + "  somewhere in what was called\n" * 20,
    )  # fmt: skip


# The archive

_ENDINGS: tuple[SessionEnding | Literal[""], ...] = (
    "completed",
    "completed",
    "completed",
    "idle",
    "",
    "cancelled",
)


def fill_archive(url: str, many: Crowdedness) -> None:
    """Make the archive at this URL of SQLite, with all that it is to have."""
    survey, _ = read_survey("clinic.yaml", (SURVEYS / "clinic.yaml").read_bytes())
    with ArchiveWriter(url, SHARDS) as archive:
        archive.keep_survey(survey)
        for n in range(PATTERNS):
            given = _answers(n)
            how = _ENDINGS[n % len(_ENDINGS)]
            archive.add_session(
                given if how == "completed" else given[: 1 + n % 2], sender=clinic.number(n), version=survey.version,
                language=survey.languages[n % 2], how=how, misread="rather warm" if n % 5 == 0 else "",
            )  # fmt: skip
    path = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous=OFF", "journal_mode=MEMORY", "cache_size=-500000", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        indexes = _drop_indexes(connection)
        for table in ("sessions", "answers", "entries", "messages", "sends"):
            _copy_rows(connection, table, many.conversations // PATTERNS)
        _fill_audit(connection, many.audited)
        for statement in indexes:
            connection.execute(statement)
        connection.execute("UPDATE positions SET last_ms = (SELECT max(entry_ms) FROM entries)")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")


def _answers(n: int) -> list[tuple[str, Answer, str]]:
    degrees = 94 + n % 12 + n % 10 / 10
    return [
        ("name", Answer(f"Ada{n}", f"Ada{n}"), "text"),
        ("temperature", Answer(f"{degrees}", degrees), "number"),
        ("fever", Answer("yes", n % 3 > 0), "yes_no"),
    ]


def _drop_indexes(connection: sqlite3.Connection) -> list[str]:
    """Answer what makes them again: at the end, that is much quicker."""
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}")
    return [statement for _, statement in found]


_MOMENTS = ("opened_at", "ended_at", "last_at", "asked_at", "not_before", "step_asked_at", "at")
_PLACES = ("entry_ms", "opened_ms", "ended_ms")
_SEQUENCES = ("entry_seq", "opened_seq", "ended_seq")


def _copy_rows(connection: sqlite3.Connection, table: str, copies: int) -> None:
    """Copy each row of a table, a little later each time, so that the newest are of now."""
    step_ms = (round(time() * 1_000) - T0) // copies
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    connection.execute(
        f"""WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < {copies - 1})
        INSERT INTO {table} ({", ".join(f'"{each}"' for each in columns)})
        SELECT {", ".join(_copied(each, step_ms) for each in columns)}
        FROM copies CROSS JOIN (SELECT * FROM {table})"""
    )


def _copied(column: str, step_ms: int) -> str:
    """What a copy has in this column, in SQL."""
    spread = f"printf('%08x', n * {ID_PRIME} % 4294967296)"
    if column in ("session", "sms", "ticket", "event"):
        return f"CASE WHEN length({column}) < 9 THEN {column} ELSE {spread} || substr({column}, 9) END"
    if column == "sender":
        return f"printf('+336%08d', n * {PATTERNS} + substr(sender, 5))"
    if column in _MOMENTS:
        return f"strftime('%Y-%m-%d %H:%M:%f000', {column}, '+' || (n * {step_ms} / 1000) || ' seconds')"
    if column in _PLACES:
        return f"CASE {column} WHEN 0 THEN 0 ELSE {column} + n * {step_ms} END"
    if column in _SEQUENCES:
        return "n"
    if column == "shard":
        return f"n % {SHARDS}"
    if column in ("raw", "value"):
        return f"CASE step WHEN 'name' THEN {column} || n ELSE {column} END"
    return f'"{column}"'


def _fill_audit(connection: sqlite3.Connection, many: int) -> None:
    """Operators who look at people; and one who did something once, long ago."""
    connection.execute(
        f"""WITH RECURSIVE acts(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM acts WHERE n < {many})
        INSERT INTO audit (source, shard, entry_ms, entry_seq, at, actor, action, subject, detail)
        SELECT 'audit', 0, {T0} + n * 1000, 0, strftime('%Y-%m-%d %H:%M:%f000', {T0 // 1000} + n * 20, 'unixepoch'),
        CASE n WHEN 1 THEN 'console zoe' ELSE 'console ada' END,
        CASE n WHEN 1 THEN 'erase' ELSE 'read lane' END, printf('%010x', n), '{{}}' FROM acts"""
    )


def archive_rows(url: str) -> Iterator[tuple[str, int]]:
    """How many rows each table has."""
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as connection:
        tables: Iterable[tuple[str]] = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        ).fetchall()
        for (name,) in tables:
            yield name, connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
