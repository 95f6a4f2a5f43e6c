"""The archive, filled from streams of conversations; and the same entries as raw rows, by the driver's executemany."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import psycopg
import redis

from config.archive import archive_schema
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.store import keyspace, redis_client
from config.store.function_calls import Command
from engine.model.events import encode_event
from tests.bench.parley_side import BATCH, SHARDS, batches
from tests.support import clinic
from tests.support.archiving import count_archived, hash_number, shard_groups, stream_entries, talk
from tests.support.postgresql import PostgreSql
from workers.archiving.deployment_pairing import pair_with_redis
from workers.archiving.stream_archiver import ENTRIES_A_PAGE, StreamArchiver

AT = 1_700_000_000_000

_TABLE = "CREATE TABLE raw (shard integer, ms bigint, seq bigint, sender text, records {blob}, PRIMARY KEY (shard, ms, seq))"


def fill_streams(client: redis.Redis, sessions: int) -> int:
    """Let so many people talk; answer how many entries that are."""
    told = (_commands(clinic.number(n), f"{n:016x}", AT + n) for n in range(sessions))
    commands = [command for each in told for command in each]
    for batch in batches(commands, BATCH):
        redis_client.run_commands(client, batch)
    return len(commands)


def _commands(sender: str, session: str, at: int) -> Iterable[Command]:
    key = keyspace.events_key(keyspace.shard_of(sender, SHARDS))
    return [
        ("XADD", key, "*", "to", sender, "e", encode_event(list(records))) for records in talk(session, at)
    ]


@contextmanager
def database_urls(server: PostgreSql | None) -> Iterator[str]:
    """An empty database on `server`, or in a file, for as long as the block lasts."""
    with TemporaryDirectory() as folder:
        if server is None:
            yield f"sqlite:///{Path(folder) / 'archive.db'}"
            return
        name = server.create_database()
        yield server.url(name)
        server.drop_database(name)


def archiving_rate(client: redis.Redis, server: PostgreSql | None, entries: int) -> float:
    """Entries a second that one process moves into an empty archive."""
    with database_urls(server) as url:
        database = ArchiveDatabase(url)
        archive_schema.migrate(database)
        client.delete(keyspace.DEPLOYMENT_KEY)
        deployment = pair_with_redis(client, database, SHARDS)
        with database.writing() as connection:
            database.make_positions(connection, EVENTS_SOURCE, SHARDS)
        archiver = StreamArchiver(client, database, shard_groups(client, SHARDS), deployment, hash_number)
        begun_s = monotonic()
        while archiver.run_round():
            pass
        took_s = monotonic() - begun_s
        assert count_archived(database) == entries
        database.close()
    return entries / took_s


def raw_rate(client: redis.Redis, server: PostgreSql | None) -> float:
    """Entries a second that the driver writes of the same, as rows without an index but their key, as many in a transaction."""
    rows = stream_entries(client, SHARDS)
    with database_urls(server) as url:
        took_s = _write_to_file(url, rows) if server is None else _write_to_server(url, rows)
    return len(rows) / took_s


def _write_to_file(url: str, rows: Sequence[Any]) -> float:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _TABLE.format(blob="blob")):
            connection.execute(statement)
        begun_s = monotonic()
        for page in batches(rows, ENTRIES_A_PAGE):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO raw VALUES (?, ?, ?, ?, ?)", page)
            connection.execute("COMMIT")
        return monotonic() - begun_s


def _write_to_server(url: str, rows: Sequence[Any]) -> float:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(_TABLE.format(blob="bytea").encode())
        connection.commit()
        begun_s = monotonic()
        for page in batches(rows, ENTRIES_A_PAGE):
            cursor.executemany("INSERT INTO raw VALUES (%s, %s, %s, %s, %s)", page)
            connection.commit()
        return monotonic() - begun_s
