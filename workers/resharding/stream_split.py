"""Splits the event stream of a shard: each of its parts gets the entries of its people, under the ids that they have, in the
order that they have.

Laws:

- The stream stays whole until all its parts are there, on as many replicas as it takes. Entries are added in order, so that
  whoever dies leaves a beginning of each part, and the next run adds what is missing.
- Each part goes on behind the last id that the stream has given out, and takes for deleted what it has not up to there: so
  positions of the archive and of endpoints hold in each, and nothing of it is taken for lost (workers/archiving/lost_tail.py).
- Of the first part, which bears the name of the whole, a new stream is written too: entries taken out of the midst of one
  would leave its memory as large as it was.
"""

from collections import Counter
from collections.abc import Mapping

import redis

from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from config.store.function_calls import Command
from config.telemetry import faults
from workers.archiving.stream_reader import read_state
from workers.resharding.shard_split import ShardSplit

ENTRIES_A_STEP = 1_000

_IS_THERE = "equal or smaller than the target stream top item"
"""What a stream says of an entry that was added before."""


def copy_stream(client: redis.Redis, split: ShardSplit, k: int, replicas: int) -> None:
    """Write the parts of the event stream of shard `k` beside it. Raises redis.RedisError."""
    events, stored = keyspace.events_key(k), _read_archived(client, k)
    archived = stored or BEGINNING
    names = {part: keyspace.events_key(part) for part in split.parts(k)} | {
        k: keyspace.dividing_events_key(k)
    }
    last = read_state(client, k).last
    unarchived: Counter[int] = Counter()
    after = "-"
    while page := redis_client.run_command(client, ("XRANGE", events, after, "+", "COUNT", ENTRIES_A_STEP)):
        commands: list[Command] = []
        for entry_id, fields in page:
            part = _part_of_entry(split, k, fields)
            unarchived[part] += EntryId.parse(entry_id) > archived
            words = [word for pair in fields.items() for word in pair]
            commands.append(("XADD", names[part], entry_id, *words))
        _add_entries(client, commands, replicas)
        faults.reach("after_reshard_copy")
        after = f"({page[-1][0].decode()}"
    for part, name in names.items():
        if last != BEGINNING:
            _end_stream(client, name, last, replicas)
        if stored is not None:
            there = redis_client.run_command(client, ("XLEN", name))
            by_then = f"{stored} {there - unarchived[part]}"
            noted: Command = ("SET", keyspace.archived_key(part), by_then)
            redis_client.run_commands(client, [noted], replicas=replicas)
    faults.reach("after_reshard_stream")


def replace_stream(client: redis.Redis, k: int) -> None:
    """Put the first part, which was written beside it, in the place of the stream of shard `k`; again, it changes nothing."""
    written = keyspace.dividing_events_key(k)
    if redis_client.run_command(client, ("EXISTS", written)):
        redis_client.run_command(client, ("RENAME", written, keyspace.events_key(k)))


def _read_archived(client: redis.Redis, k: int) -> EntryId | None:
    """The last entry that an archive has; None if none was ever seen."""
    stored = redis_client.run_command(client, ("GET", keyspace.archived_key(k)))
    return EntryId.parse(stored.partition(b" ")[0]) if stored else None


def _part_of_entry(split: ShardSplit, k: int, fields: Mapping[bytes, bytes]) -> int:
    """What says nobody's name stays."""
    sender = fields.get(b"to", b"")
    return split.part_of(k, sender.decode(errors="replace")) if sender else k


def _add_entries(client: redis.Redis, commands: list[Command], replicas: int) -> None:
    answers = redis_client.try_commands(client, commands, replicas=replicas)
    redis_client.raise_first_error([each for each in answers if _IS_THERE not in str(each)])


def _end_stream(client: redis.Redis, name: str, last: EntryId, replicas: int) -> None:
    """Have a stream, made if there is none, give out ids behind `last`, up to which nothing is missing there."""
    (there,) = redis_client.run_commands(client, [("EXISTS", name)])
    if not there:
        mark: list[Command] = [("XADD", name, str(last), "to", "", "e", ""), ("XDEL", name, str(last))]
        answers = redis_client.try_commands(client, mark, transaction=True)
        redis_client.raise_first_error([each for each in answers if _IS_THERE not in str(each)])
    many = redis_client.run_command(client, ("XLEN", name))
    ended: Command = ("XSETID", name, str(last), "ENTRIESADDED", many, "MAXDELETEDID", str(last))
    redis_client.run_commands(client, [ended], replicas=replicas)
