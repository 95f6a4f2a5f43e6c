"""How many shards are the lanes in this Redis divided into?

Law: a number that is not the one by which the lanes lie there never meets them: who has opted out would be known to
nobody. It is stored on the first start, whoever is first, and never changes; a process and a command compare it with
theirs before they do anything else. PARLEY_SHARDS, if it is set, must be it; if it is not set, it is what is stored.

Release 0.1.0 stored no number. Where it has left keys, they must lie as the number says that is taken: PARLEY_SHARDS, or
what was the default then.

`parley reshard` divides them anew, while nothing runs. From its first change to its last a *mark* stands in the place of the
number, `16 to 256`, which no release takes for one: nothing but that command starts.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import redis

from config.settings.config_errors import ConfigError
from config.settings.settings import MAX_SHARDS, Settings
from config.store import keyspace, redis_client

UNSTORED_SHARDS = 16
"""The default of 0.1.0, which stored no number."""

_MARK = re.compile(rb"(\d{1,9}) to (\d{1,9})")

_KEYS_LOOKED_AT, _SCAN_COUNT, _MAX_SCAN_STEPS = 1_000, 1_000, 1_000
"""Keys of shards by which a number that was never stored is judged; keys looked through in a step, and the most steps."""


def settle_shards(client: redis.Redis, settings: Settings) -> Settings:
    """Return the settings with the number of shards that the lanes in this Redis are divided into; it is stored if it was
    not. Raises ConfigError if PARLEY_SHARDS is another, and redis.RedisError."""
    stored = redis_client.run_command(client, ("GET", keyspace.SHARDS_KEY))
    if stored is None:
        chosen = _unstored_shards(client, settings)
        store = ("SET", keyspace.SHARDS_KEY, chosen, "NX")  # of several who start, the first
        try:
            _, stored = redis_client.run_commands(client, [store, ("GET", keyspace.SHARDS_KEY)])
        except redis.exceptions.OutOfMemoryError:  # whoever empties it must be able to start
            stored = b"%d" % chosen
    return _with_shards(settings, _parse_stored(stored))


def find_shards(client: redis.Redis, settings: Settings) -> Settings:
    """Return the same for whoever only looks, and stores nothing."""
    stored = redis_client.run_command(client, ("GET", keyspace.SHARDS_KEY))
    shards = _unstored_shards(client, settings) if stored is None else _parse_stored(stored)
    return _with_shards(settings, shards)


class ShardDivision(NamedTuple):
    """The number by which the lanes lie, and the one by which they are going to, while that is not done."""

    shards: int
    to: int | None = None


def read_division(client: redis.Redis, settings: Settings) -> ShardDivision:
    """Return the number of shards that the lanes in this Redis are divided into, whatever PARLEY_SHARDS says if one is stored.
    Raises ConfigError if what is stored is none, and redis.RedisError."""
    stored = redis_client.run_command(client, ("GET", keyspace.SHARDS_KEY))
    if stored is None:
        return ShardDivision(_unstored_shards(client, settings))
    if found := _MARK.fullmatch(stored):
        return ShardDivision(int(found[1]), int(found[2]))
    return ShardDivision(_parse_stored(stored))


def division_mark(shards: int, to: int) -> str:
    """What stands in the place of the number while the lanes are divided anew."""
    return f"{shards} to {to}"


def _with_shards(settings: Settings, shards: int) -> Settings:
    if settings.shards_are_set and settings.shards != shards:
        found = f"the lanes in this Redis are divided into {shards}"
        todo = f"set it to {shards}, or leave it unset (only `parley reshard` divides them anew)"
        raise ConfigError([f"PARLEY_SHARDS is {settings.shards}: {found}; {todo}"])
    return msgspec.structs.replace(settings, shards=shards)


def _parse_stored(stored: bytes) -> int:
    if stored.isdigit() and 1 <= int(stored[:9]) <= MAX_SHARDS:
        return int(stored)
    if mark := _MARK.fullmatch(stored):
        begun = (
            f"the lanes in this Redis are being divided anew, from {int(mark[1])} shards into {int(mark[2])}"
        )
        todo = f"run `parley reshard --to {int(mark[2])}` until it says that it is done"
        raise ConfigError([f"{begun}, and that is not done: {todo}"])
    found = f"the key {keyspace.SHARDS_KEY} in the Redis of the lanes is {stored!r}"
    expected = "expected the number of shards that they have been divided into since the first start"
    raise ConfigError([f"{found}: {expected}"])


def _unstored_shards(client: redis.Redis, settings: Settings) -> int:
    """Return the number to store: the settings', or that of the release whose keys there are. Raises ConfigError if keys
    lie otherwise."""
    keys = list(_shard_keys(client))
    shards = settings.shards if settings.shards_are_set or not keys else UNSTORED_SHARDS
    if misplaced := next((key for key in keys if not _lies_right(key, shards)), None):
        setting = f"PARLEY_SHARDS is {shards}" if settings.shards_are_set else "PARLEY_SHARDS is not set"
        shown = f"as what lies in shard {misplaced.k} shows"
        found = f"the lanes in this Redis are not divided into {shards}, {shown}"
        todo = "set it to the number that this deployment has had since its first start"
        raise ConfigError([f"{setting}: {found}; {todo}"])
    return shards


def _lies_right(key: keyspace.ShardKey, shards: int) -> bool:
    return key.k < shards and (key.owner is None or keyspace.shard_of(key.owner, shards) == key.k)


def _shard_keys(client: redis.Redis) -> Iterator[keyspace.ShardKey]:
    """Yield keys of shards, as many as tell, of each server."""
    for server in redis_client.servers_of(client):
        yield from _shard_keys_on(server)


def _shard_keys_on(server: redis.Redis) -> Iterator[keyspace.ShardKey]:
    cursor, seen = 0, 0
    for _ in range(_MAX_SCAN_STEPS):
        step = ("SCAN", cursor, "MATCH", keyspace.SHARD_KEY_PATTERN, "COUNT", _SCAN_COUNT)
        cursor, names = redis_client.run_command(server, step)
        for name in names:
            if key := keyspace.parse_shard_key(name.decode(errors="replace")):
                seen += 1
                yield key
        if not int(cursor) or seen >= _KEYS_LOOKED_AT:
            return
