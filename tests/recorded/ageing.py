"""A sample grows old as the days go by. Its times are moved, so that it is as old as a test wants it to be.

A release wrote moments, and what follows from them: ms since 1970 (headers, scores, ids of streams, msgpack), fencing
tokens in microseconds, days by their number, and the minutes and dates in keys' names. All are found in the raw values, by
where a number can stand in a value of that kind and by its size; each is moved by the same distance, and no other byte
changes. Nothing here is a type of today's: read and written again by today's code, a sample would prove nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from config.store import keyspace
from tests.recorded.reading import Sample, raw, text
from tests.support import audit
from workers.store import survey_versions

DAY_MS = 86_400_000

MOMENTS_MS = range(1_577_836_800_000, 13_569_465_600_000)
"""From 2020 to 2400: the scene has sessions that stay open for 99999 days."""

TOKENS = range(1_577_836_800_000_000, 4_102_444_800_000_000)
"""Fencing tokens, microseconds from 2020 to 2100."""

DAYS = range(date(2020, 1, 1).toordinal(), date(2100, 1, 1).toordinal())

_NUMBER = re.compile(rb"(?:(?<![\da-f+])|(?<=booked))\d{13,16}(?![\da-f])")
"""A moment or a token in text; not a part of a phone number, or of a hexadecimal id."""

_MAIL = re.compile(rb"[SR]\d{13}")


class Move:
    """Moves all of a value's times by the distance between two moments (ms)."""

    def __init__(self, start: int, end: int) -> None:
        self._ms = end - start
        self._days = _day(end).toordinal() - _day(start).toordinal()

    def moment(self, number: int) -> int:
        """The number, moved if its size is a moment's or a token's."""
        if number in MOMENTS_MS:
            return number + self._ms
        return number + self._ms * 1_000 if number in TOKENS else number

    def score(self, score: float) -> float:
        return score + self._ms if int(score) in MOMENTS_MS else score

    def stream_id(self, identity: str) -> str:
        ms, _, number = identity.partition("-")
        return f"{self.moment(int(ms))}-{number}"

    def text(self, value: bytes) -> bytes:
        """Whatever numbers in it are moments."""
        return _NUMBER.sub(lambda found: b"%d" % self.moment(int(found[0])), value)

    def packed(self, value: bytes) -> bytes:
        """msgpack, with the bytes in it; what is none stays as it is, and so does what follows it."""
        moved = bytearray(value)
        try:
            for start, end, kind in _pieces(value):
                piece = value[start:end]
                if kind == _UINT64:
                    piece = self.moment(int.from_bytes(piece)).to_bytes(8)
                elif kind == _UINT32 and int.from_bytes(piece) in DAYS:
                    piece = (int.from_bytes(piece) + self._days).to_bytes(4)
                elif kind in _BYTES:
                    piece = self.nested(piece)
                moved[start:end] = piece
        except IndexError:
            return value
        return bytes(moved)

    def nested(self, value: bytes) -> bytes:
        """Bytes of a dead letter: a mail entry, or msgpack."""
        return self.behind(_MAIL, value) if _MAIL.match(value) else self.packed(value)

    def behind(self, header: re.Pattern[bytes], value: bytes) -> bytes:
        """Text as far as `header` goes, and msgpack from there on."""
        found = header.match(value)
        end = found.end() if found else len(value)
        return self.text(value[:end]) + self.packed(value[end:])

    def minute(self, slot: str) -> str:
        return str((int(slot) * 60_000 + self._ms) // 60_000)

    def date(self, day: str) -> str:
        return (date.fromisoformat(day) + timedelta(days=self._days)).isoformat()


Layout = Callable[[Move, bytes], bytes]
"""How a value, an entry of a list, or what a field of a hash or stream holds is moved."""


def _headed(header: bytes) -> Layout:
    pattern = re.compile(header, re.DOTALL)
    return lambda move, value: move.behind(pattern, value)


def _timeless(_move: Move, value: bytes) -> bytes:
    return value


LAYOUTS: dict[str, Layout] = {
    "mailbox_key": _headed(rb"[SR]\d{13}"),
    "lane_key": _headed(rb"\d+ \d+ "),
    "outbox_key": _headed(rb"[^\0]*\0"),
    "held_invitations_key": _headed(rb"[^\0]*\0\d{13}"),
    **dict.fromkeys(("events_key", "dead_letters_key", "failed_attempts_key", keyspace.PROCESSES_KEY), Move.packed),
    **dict.fromkeys(
        (
            "archived_key", "fence_key", "lane_lock_key", "outbox_lock_key", "session_key", "optouts_key", "pause_key", "circuit_state_key", "server_key",
            "sms_bucket_key", "session_bucket_key", "invitation_bucket_key", "request_bucket_key",
            "hook_lease_key", "hook_fence_key", "hook_positions_key", "hook_circuit_key", "hook_pause_key", "webhooks_key",
            "campaigns_key",
            "campaign_pauses_key",
        ),
        Move.text,
    ),
    **dict.fromkeys(
        (
            "lane_alarms_key", "outbox_alarms_key", "dead_letter_index_key", "dead_letter_reasons_key", "dead_letter_audit_key", "held_ids_key", "reference_key", "tickets_key",
            "campaign_sessions_key", "console_session_key", "console_link_key", "console_attempts_key", "console_sign_in_key", "console_begun_key", "console_job_key", "console_job_alive_key",
            "console_upload_key", "console_upload_rows_key", "console_upload_claim_key", "campaign_budget_key",
            keyspace.CONSOLE_SESSIONS_KEY, keyspace.CONSOLE_SECRET_KEY, keyspace.CONSOLE_JOBS_KEY,
            "simulator_key", "applied_events_key", "wakeup_queue_key", "sms_counter_key", "released_sms_key", "forged_webhooks_key", "answers_key", "accepted_sms_key", keyspace.SURVEYS_KEY, keyspace.LIBRARIES_KEY, keyspace.RETENTION_KEY, keyspace.ARCHIVE_RETENTION_KEY, keyspace.AUDIT_KEY, keyspace.SHARDS_KEY,
            keyspace.OPTOUT_SECRET_KEY, keyspace.LOG_SECRET_KEY, keyspace.OPTOUT_SECRET_CHECK_KEY, keyspace.DEPLOYMENT_KEY, survey_versions.FIRST_STORED_KEY, survey_versions.LAST_USED_KEY,
        ),
        _timeless,
    ),
}  # fmt: skip
"""By kind of key (config/store/keyspace.py). Scores and ids of streams are moved whatever the kind is."""

NAMES: dict[str, Callable[[Move, str], str]] = {
    "released_sms_key": Move.minute,
    "forged_webhooks_key": Move.minute,
    "answers_key": Move.minute,
    "accepted_sms_key": Move.date,
    "sms_counter_key": Move.date,
}
"""Kinds whose names end with a time, behind the last colon."""


def aged(samples: Sequence[Sample], now: int, age_ms: int = 0) -> list[Sample]:
    """The samples as they would be, had they been recorded `age_ms` before `now`. What was to go until now is gone."""
    move, known = Move(recorded_at(samples), now - age_ms), audit.patterns()
    return [_moved(each, move, known) | left for each in samples if (left := _left(each, age_ms)) is not None]


def recorded_at(samples: Iterable[Sample]) -> int:
    """When (ms) the samples were recorded: the last thing that happened rang a bell, or is in the archive."""
    return max(_happened(samples))


def _happened(samples: Iterable[Sample]) -> Iterator[int]:
    for each in samples:
        if each["key"].startswith("bell:"):
            yield from (int(score) for _, score in each["value"])
        elif each["type"] == "stream":
            yield from (int(identity.partition("-")[0]) for identity, _ in each["value"])


def _left(sample: Sample, age_ms: int) -> Sample | None:
    ttl_ms = sample["ttl_ms"]
    if ttl_ms == -1:
        return {}
    return {"ttl_ms": ttl_ms - age_ms} if ttl_ms > age_ms else None


def _moved(sample: Sample, move: Move, known: Any) -> Sample:
    kind = audit.kind_of(sample["key"], known)
    assert kind is not None, f"nobody knows what {sample['key']} is"
    layout = LAYOUTS[kind]
    key = sample["key"]
    if kind in NAMES:
        head, colon, time = key.rpartition(":")
        key = head + colon + NAMES[kind](move, time)
    value = _value_moved(sample["type"], sample["value"], move, lambda held: text(layout(move, raw(held))))
    return {"db": sample["db"], "key": key, "type": sample["type"], "ttl_ms": -1, "value": value}


def _value_moved(kind: str, value: Any, move: Move, moved: Callable[[str], str]) -> Any:
    match kind:
        case "string":
            return moved(value)
        case "list":
            return [moved(entry) for entry in value]
        case "hash":
            return [[field, moved(held)] for field, held in value]
        case "zset":
            return [[member, move.score(score)] for member, score in value]
        case "stream":
            return [
                [move.stream_id(identity), [[field, moved(held)] for field, held in fields]]
                for identity, fields in value
            ]
    raise ValueError(f"nothing of ours is of the type {kind}")


def _day(ms: int) -> date:
    return datetime.fromtimestamp(ms / 1000, UTC).date()


# msgpack, as https://github.com/msgpack/msgpack/blob/master/spec.md lays it down: how long is what follows a first byte?

_BYTES = (0xC4, 0xC5, 0xC6)
_UINT32, _UINT64 = 0xCE, 0xCF
_FIXED = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
"""Numbers, and extensions of a fixed length."""
_COUNTED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes and text: digits (of 256) of their length."""
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
"""The same, with one byte more for their type."""
_HOLDING = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Arrays and maps: digits of their length, and pieces an entry."""


def _pieces(value: bytes) -> Iterator[tuple[int, int, int]]:
    """Of the first msgpack value in `value`, whatever holds nothing else: from where to where, and its first byte. Raises
    IndexError if the value is cut off."""
    at, wanted = 0, 1
    while wanted:
        wanted -= 1
        first, length = value[at], 0
        at += 1
        if first in range(0x80, 0xA0):
            wanted += (first & 0xF) * (2 if first < 0x90 else 1)
        elif first in range(0xA0, 0xC0):
            length = first & 0x1F
        elif first in _FIXED:
            length = _FIXED[first]
        elif digits := _COUNTED.get(first, 0) or _EXTENSIONS.get(first, 0):
            length = int.from_bytes(value[at : at + digits]) + (first in _EXTENSIONS)
            at += digits
        elif first in _HOLDING:
            digits, each = _HOLDING[first]
            wanted += int.from_bytes(value[at : at + digits]) * each
            at += digits
        if at + length > len(value):
            raise IndexError("the value is cut off")
        yield at, at + length, first
        at += length
