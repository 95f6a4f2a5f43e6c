"""Which events were applied, that a lane does not remember?

A lane remembers the latest that it applied, in its state, and is kept for as long. Those that it has no room for, and all that
were known of a person who is erased, are here: keyed hashes by time, in a key that bears no number (config/store/lua/applied_events.lua).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import redis

from config.store import keyspace, redis_client, stored_values
from engine.model.events import decode_inbound
from workers.store.optouts import OptOutList


def pack_events(optouts: OptOutList, sender: str, events: Mapping[str, int]) -> bytes:
    """Pack events, id -> when they were applied (ms), to be remembered by their hashes."""
    return b"".join(
        stored_values.pack_applied_event(optouts.hash_event(sender, event), at)
        for event, at in events.items()
    )


def find_repeats(
    client: redis.Redis, shards: int, optouts: OptOutList, mail: Sequence[tuple[str, Sequence[bytes]]]
) -> list[frozenset[str] | None]:
    """Of each (sender, entries of the mailbox), the ids of events that are remembered here: they were applied before. None if the
    sender's server is away, while others of a cluster are not."""
    asked = [(sender, event_ids(entries)) for sender, entries in mail]
    looked_up = [(sender, events) for sender, events in asked if events]
    commands = [
        (
            "ZMSCORE",
            keyspace.applied_events_key(keyspace.shard_of(sender, shards), optouts.hash_number(sender)),
            *(optouts.hash_event(sender, event) for event in events),
        )
        for sender, events in looked_up
    ]
    found = redis_client.try_commands(client, commands) if commands else []
    redis_client.raise_refusals(found)
    answers = iter(found)
    return [_remembered(events, next(answers) if events else ()) for _, events in asked]


def _remembered(events: Sequence[str], answer: Any) -> frozenset[str] | None:
    if isinstance(answer, Exception):
        return None
    return frozenset(event for event, at in zip(events, answer, strict=True) if at is not None)


def event_ids(entries: Sequence[bytes]) -> list[str]:
    """The ids of the events in these entries of a mailbox, but those that cannot be read."""
    found = []
    for entry in entries:
        try:
            found.append(decode_inbound(stored_values.parse_mail(entry)[1]).id)
        except (msgspec.MsgspecError, ValueError):
            continue
    return found
