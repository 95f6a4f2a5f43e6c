"""Who is erased goes from tables that were uploaded to the console and wait there to be sent. The others of such a table stay."""

import re
from collections.abc import Iterator

import msgspec
import phonenumbers
import redis

from engine.model.sender_numbers import normalize_number
from workers.store import uploaded_rows
from workers.store.uploaded_rows import UNREADABLE_ROWS_ERRORS, UploadedRow

FEWEST_DIGITS = 6
"""So many of a number that is not in full must be the end of the person's, to be taken for it."""

_DIGITS = re.compile(r"[0-9]+")


class _Addressee(msgspec.Struct):
    identifier: str = ""


_decode_addressee = msgspec.json.Decoder(_Addressee).decode


def count_rows(client: redis.Redis, sender: str) -> int:
    """How many rows of `sender` wait. Raises redis.RedisError."""
    return sum(
        row != kept
        for table in uploaded_rows.find_tables(client)
        for rows in _readable_chunks(client, table)
        for row, kept in zip(rows, _without(rows, sender), strict=True)
    )


def erase_rows(client: redis.Redis, sender: str) -> int:
    """Empty the rows of `sender` in all tables, and count them. A table that cannot be read, which may have them, goes. Raises
    redis.RedisError."""
    return sum(_erase_from(client, table, sender) for table in uploaded_rows.find_tables(client))


def _erase_from(client: redis.Redis, table: bytes, sender: str) -> int:
    erased = at = 0
    while stored := uploaded_rows.read_chunk(client, table, at):
        try:
            rows = uploaded_rows.decode_rows(stored)
        except UNREADABLE_ROWS_ERRORS:
            uploaded_rows.forget_table(client, table)
            return erased
        kept = _without(rows, sender)
        theirs = sum(row != left for row, left in zip(rows, kept, strict=True))
        if theirs and not uploaded_rows.replace_chunk(
            client, table, at, stored, uploaded_rows.encode_rows(kept)
        ):
            continue  # somebody else was erased from it meanwhile, or it is gone
        erased += theirs
        at += 1
    return erased


def _readable_chunks(client: redis.Redis, table: bytes) -> Iterator[list[UploadedRow]]:
    at = 0
    while stored := uploaded_rows.read_chunk(client, table, at):
        try:
            yield uploaded_rows.decode_rows(stored)
        except UNREADABLE_ROWS_ERRORS:
            return
        at += 1


def _without(rows: list[UploadedRow], sender: str) -> list[UploadedRow]:
    return [UploadedRow(row.line, b"") if _is_to(row, sender) else row for row in rows]


def _is_to(row: UploadedRow, sender: str) -> bool:
    return bool(row.invitation) and is_number_of(_decode_addressee(row.invitation).identifier, sender)


def is_number_of(written: str, sender: str) -> bool:
    """Whether a number, as a table may have it, is that of `sender`. One without its country is refused when it is sent, and is
    taken for theirs if it is the end of theirs."""
    if written.lstrip().startswith(("+", "00")):
        number = normalize_number(written)
        return number is not None and sender in (number, _as_dialled(number))
    digits = "".join(_DIGITS.findall(written)).lstrip("0")
    return len(digits) >= FEWEST_DIGITS and sender.endswith(digits)


def _as_dialled(number: str) -> str:
    """As the API names who is invited: without what is dialled within their country alone."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return number
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
