"""Which events are told of an entry of the event stream? Decided here, without I/O.

The same record gives the same events with the same ids, wherever its entry lies: after a failover an entry may be written
again at a later place. A record that this release cannot decode gives none; it is counted, and takes no other with it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from engine.hooks.event_context import EventContext
from engine.hooks.event_data import EVENT_DATA, EventData
from engine.hooks.event_narration import tell_record
from engine.model.events import ArchiveRecord

_EVENT_TYPES = {data: event_type for event_type, data in EVENT_DATA.items()}
_ID_BYTES = 16

_split_records = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_decode_record = msgspec.msgpack.Decoder(ArchiveRecord).decode

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: the second of text that is not UTF-8, the third of deep nesting."""


class StreamPlace(NamedTuple):
    """Where an entry stands: its shard, and its id in the stream."""

    k: int
    ms: int
    seq: int


class StoredRecord(msgspec.Struct, frozen=True):
    """A record of an entry: which it is, from 0, as it is stored, and decoded."""

    number: int
    stored: bytes
    record: ArchiveRecord


class HookEntry(msgspec.Struct, frozen=True):
    """An entry of an event stream: its place, whose it is, its records, and how many of them cannot be decoded."""

    place: StreamPlace
    sender: str
    stored: Sequence[StoredRecord]
    unreadable: int = 0

    @property
    def records(self) -> list[ArchiveRecord]:
        return [each.record for each in self.stored]


class HookEvent(msgspec.Struct, frozen=True):
    """An event, before it is known who may read it: the person is `sender` alone. `survey` and `session` are empty if it is
    of none; `at` is ms."""

    type: str
    id: str
    at: int
    channel: str
    survey: str
    session: str
    sender: str
    sequence: str
    data: EventData


def read_entry(place: StreamPlace, sender: str, content: bytes) -> HookEntry:
    """Decode an entry, as its stream has it. Never raises."""
    try:
        blobs = _split_records(content)
    except _UNREADABLE:
        return HookEntry(place, sender, (), unreadable=1)
    stored = [each for number, blob in enumerate(blobs) if (each := _read_record(number, bytes(blob)))]
    return HookEntry(place, sender, stored, unreadable=len(blobs) - len(stored))


def _read_record(number: int, blob: bytes) -> StoredRecord | None:
    try:
        return StoredRecord(number, blob, _decode_record(blob))
    except _UNREADABLE:
        return None


def events_of_entry(entry: HookEntry, context: EventContext) -> list[HookEvent]:
    """The events of an entry, in their order. What `context` cannot tell is absent from their data."""
    return list(_events_of(entry, context))


def _events_of(entry: HookEntry, context: EventContext) -> Iterator[HookEvent]:
    seen: Counter[bytes] = Counter()
    records = entry.records
    for each in entry.stored:
        for nth, data in enumerate(tell_record(each.record, records, context)):
            event_type = _EVENT_TYPES[type(data)]
            yield HookEvent(
                event_type,
                _event_id(event_type, each.stored, seen[each.stored]),
                each.record.at,
                data.channel,
                data.survey or "",
                data.session or "",
                entry.sender,
                _sequence(entry.place, each.number, nth),
                data,
            )
        seen[each.stored] += 1


def _event_id(event_type: str, stored: bytes, repetition: int) -> str:
    """32 hex digits. `repetition`: how many records that are alike the entry has before this one. No number of a person's is
    in it, which could be found by trying all."""
    hashed = blake2b(event_type.encode() + b"\0", digest_size=_ID_BYTES, person=b"parley event")
    hashed.update(stored)
    if repetition:
        hashed.update(b"%d" % repetition)
    return hashed.hexdigest()


def _sequence(place: StreamPlace, number: int, nth: int) -> str:
    """A text that sorts as the events of a shard, and so of a person, are ordered. As wide as Redis' ids may get."""
    return f"{place.ms:020d}-{place.seq:020d}-{number:06d}-{nth}"
