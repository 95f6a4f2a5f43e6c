"""Rows of tables that people upload to the console, as they lie in Redis until they are sent: a list of chunks of rows.

Law: a row keeps its place, as what a check found is by place. So who is erased leaves an empty one, and a chunk changes by that alone:
replaced as a whole, if it is still the one that was read, so that of two who erase at once neither brings back whom the other took out.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import redis

from config.store import keyspace, redis_client
from config.store.function_calls import function_call
from config.store.server_functions import ReplaceUploadRows

_SCAN_COUNT = 1_000

UNREADABLE_ROWS_ERRORS = (zlib.error, msgspec.MsgspecError)


class UploadedRow(NamedTuple):
    """The line of the table on which it begins, and its invitation in JSON: empty, if its person was erased."""

    line: int
    invitation: bytes


def encode_rows(rows: Sequence[UploadedRow]) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(rows), 1)


def decode_rows(stored: bytes) -> list[UploadedRow]:
    """Raises UNREADABLE_ROWS_ERRORS."""
    return msgspec.msgpack.decode(zlib.decompress(stored), type=list[UploadedRow])


def find_tables(client: redis.Redis) -> list[bytes]:
    """The keys of all tables whose rows wait. Looks at all keys of their server. Raises redis.RedisError."""
    pattern = keyspace.console_upload_rows_key("*")
    return sorted(set(redis_client.server_of(client, pattern).scan_iter(pattern, count=_SCAN_COUNT)))


def read_chunk(client: redis.Redis, table: bytes, at: int) -> bytes | None:
    """The rows at this place, encoded; None beyond the last. The table is kept no longer for it. Raises redis.RedisError."""
    stored: bytes | None = redis_client.run_command(client, ("LINDEX", table, at))
    return stored


def replace_chunk(client: redis.Redis, table: bytes, at: int, before: bytes, rows: bytes) -> bool:
    """Put other rows in place of these. False if others are there by now, or none. Made twice, it is made once. Raises
    redis.RedisError."""
    call = ReplaceUploadRows(table=table.decode(), at=at, before=before, rows=rows)
    return bool(redis_client.run_command(client, function_call(call)))


def forget_table(client: redis.Redis, table: bytes) -> None:
    """Raises redis.RedisError."""
    redis_client.run_command(client, ("UNLINK", table))
