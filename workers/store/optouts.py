"""Who has said stop? The list of opt-outs, which survives every lane: a keyed hash of each number, and for each channel
since when and by whose word. Whoever reads the list without its key learns no number.

A commit writes it together with the lane. A lane that has state knows for itself; a new one is begun with what the
list says. The key is PARLEY_OPTOUT_KEY, or made once and kept in Redis; a process with another key would know nobody
who opted out, so it does not start.
"""

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain

import msgspec
import redis
import structlog

from config.settings.settings import Mistakes
from config.store import keyspace
from engine.model import lane as lane_format
from engine.model.events import OptedIn, ProviderStop, encode

log = structlog.get_logger()

PAGE = 500

_ANOTHER_KEY = (
    "PARLEY_OPTOUT_KEY is not the key that the list of opt-outs in this Redis was made with: expected that key, or no "
    "PARLEY_OPTOUT_KEY if there was none; with another, people who said stop would not be known. If the key is lost, "
    f"so is the list: delete the Redis key {keyspace.OPTOUT_CHECK}, and import the opted-out numbers anew"
)

Known = dict[str, tuple[int, str]]
"""Channel -> since when (ms), and whose word it was: `person`, `provider`, or where an operator had it from."""

_decode = msgspec.json.Decoder(Known).decode


class Entry(msgspec.Struct, frozen=True):
    """One person's opt-out from one channel, by hash; `shard` is the person's."""

    shard: int
    hash: str
    channel: str
    at: int
    source: str


class OptOuts:
    """The list in one Redis, read and written with its key."""

    def __init__(self, client: redis.Redis, shards: int, key: bytes) -> None:
        self._redis = client
        self._shards = shards
        self._key = key
        self._number = blake2b(digest_size=16, key=key, person=b"parley number")

    @property
    def mark(self) -> str:
        """By what the key is known."""
        return blake2b(key=self._key, digest_size=8, person=b"parley check").hexdigest()

    def hash(self, sender: str) -> str:
        hashed = self._number.copy()
        hashed.update(sender.encode())
        return hashed.hexdigest()

    def known(self, sender: str) -> Known:
        """All that the list has of one person. Raises msgspec.MsgspecError if it cannot be read."""
        name = keyspace.optouts(keyspace.shard_of(sender, self._shards))
        entry = keyspace.ask(self._redis, ("HGET", name, self.hash(sender)))
        return _decode(entry) if entry else {}

    def entries(self) -> Iterator[Entry]:
        """The whole list."""
        for k in range(self._shards):
            for field, entry in self._redis.hscan_iter(keyspace.optouts(k), count=PAGE):
                for channel, (at, source) in _decode(entry).items():
                    yield Entry(k, field.decode(), channel, at, source)

    def add(self, people: Sequence[tuple[str, str]], source: str) -> int:
        """Opt these (sender, channel) out, as of now; answers how many were not yet. Open sessions end."""
        run = secrets.token_hex(8)
        commands = []
        for k, group in keyspace.by_shard(people, lambda each: each[0], self._shards).items():
            keys, args = [keyspace.optouts(k), keyspace.alarms(k)], []
            for sender, channel in group:
                mail = keyspace.REPLY + encode(_stop(run, sender, channel, source))
                keys += [each(k, sender) for each in _LIVING]
                args += [sender, self.hash(sender), channel, 0, source, mail]
            commands.append(keyspace.call("opt_out", keys, args))
        return sum(chain.from_iterable(keyspace.run(self._redis, commands)))

    def restore(self, entries: Sequence[Entry]) -> int:
        """Take over entries of another list that was made with the same key; answers how many are new. Lanes are not
        told: see `tell`."""
        commands = []
        for k, group in _by_shard(entries).items():
            keys = [keyspace.optouts(k), keyspace.alarms(k)]
            args = [("", each.hash, each.channel, each.at, each.source, "") for each in group]
            commands.append(keyspace.call("opt_out", keys, chain.from_iterable(args)))
        return sum(chain.from_iterable(keyspace.run(self._redis, commands)))

    def tell(self, entries: Iterable[Entry]) -> int:
        """Opt out the lanes of those of these people who have one; answers how many."""
        run = secrets.token_hex(8)
        by_hash: dict[str, list[Entry]] = {}
        for entry in entries:
            by_hash.setdefault(entry.hash, []).append(entry)
        told = 0
        for name in self._redis.scan_iter(keyspace.lane_pattern(), count=PAGE):
            sender = keyspace.sender_of(name.decode())
            for entry in by_hash.get(self.hash(sender), ()):
                stop = encode(_stop(run, sender, entry.channel, entry.source))
                commands, _ = keyspace.accept_commands(self._shards, [(sender, False, stop)])
                keyspace.run(self._redis, commands)
                told += 1
        return told

    def remove(self, sender: str, channels: Sequence[str], keep_events_ms: int) -> int | None:
        """Forget that this person opted out of these channels: they may be texted again. Answers of how many of them
        they had; None if a worker has their lane in its hands, again and again."""
        k = keyspace.shard_of(sender, self._shards)
        keys = [keyspace.optouts(k), keyspace.lane(k, sender), keyspace.lock(k, sender)]
        for _ in range(_TRIES):
            stored = keyspace.ask(self._redis, ("GET", keyspace.lane(k, sender))) or b""
            amended, released = _released(stored, channels)
            known: int = keyspace.ask(
                self._redis, keyspace.call("opt_in", keys, (self.hash(sender), stored, amended, *channels))
            )
            if known >= 0:
                now = keyspace.server_ms(self._redis)
                records = encode([OptedIn(now, channel, "") for channel in released])
                if released:
                    note = (sender, keep_events_ms, records)
                    keyspace.ask(
                        self._redis,
                        keyspace.call("note", [keyspace.events(k), keyspace.lane(k, sender)], note),
                    )
                return max(known, len(released))
        return None


_TRIES = 50
_LIVING = (keyspace.mailbox, keyspace.lane, keyspace.lock, keyspace.outbox)
"""A sender who has one of these keys has a lane, or is getting one."""


def open_list(client: redis.Redis, shards: int, secret: str) -> OptOuts:
    """The list, with `secret` for its key or else the one that is kept in Redis. Raises Mistakes."""
    if not secret:
        secret = _agreed(client, keyspace.OPTOUT_KEY, secrets.token_hex(32))
    optouts = _keyed(client, shards, secret)
    if _agreed(client, keyspace.OPTOUT_CHECK, optouts.mark) != optouts.mark:
        raise Mistakes([_ANOTHER_KEY])
    return optouts


def _agreed(client: redis.Redis, name: str, mine: str) -> str:
    """What is kept there, or from now on `mine`. Read first: a server whose memory is full takes nothing."""
    kept: bytes | None = keyspace.ask(client, ("GET", name))
    if kept is None:
        client.set(name, mine, nx=True)
        kept = keyspace.ask(client, ("GET", name))
    return (kept or b"").decode()


def read_list(client: redis.Redis, shards: int, secret: str) -> OptOuts | None:
    """The same for whoever only looks: nothing is made. None if there is no list yet. Raises Mistakes."""
    kept, check = keyspace.run(client, [("GET", keyspace.OPTOUT_KEY), ("GET", keyspace.OPTOUT_CHECK)])
    if check is None or not (secret or kept):
        return None
    optouts = _keyed(client, shards, secret or kept.decode())
    if check != optouts.mark.encode():
        raise Mistakes([_ANOTHER_KEY])
    return optouts


def _keyed(client: redis.Redis, shards: int, secret: str) -> OptOuts:
    return OptOuts(
        client, shards, blake2b(secret.encode(), digest_size=32, person=b"parley opt-outs").digest()
    )


def opted_out_lines(lane: lane_format.Lane) -> dict[str, int]:
    """What a lane knows by itself: channel -> since when (ms). Only a channel's own line knows of opt-outs."""
    return {channel: line.opted_out_at for channel, line in lane.lines.items() if line.opted_out_at}


def opted_out_since(entry: bytes) -> dict[str, int] | None:
    """What an entry of the list says: channel -> since when (ms); None if it cannot be read."""
    try:
        return {channel: at for channel, (at, _) in _decode(entry).items()}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.exception("an entry of the list of opt-outs cannot be read; its person gets no SMS")
        return None


def _stop(run: str, sender: str, channel: str, source: str) -> ProviderStop:
    """The same for all calls of one run, so that a call whose reply was lost may be repeated."""
    identity = blake2b(f"{run} {sender} {channel}".encode(), digest_size=8).hexdigest()
    return ProviderStop(identity, channel, source=source)


def _by_shard(entries: Iterable[Entry]) -> Mapping[int, list[Entry]]:
    groups: dict[int, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.shard, []).append(entry)
    return groups


def _released(stored: bytes, channels: Sequence[str]) -> tuple[bytes, list[str]]:
    """A stored lane with these channels' opt-outs taken from it, and which it had. Raises UnreadableLane."""
    fence, deadline, state = stored.split(b" ", 2) if stored else (b"", b"", b"")
    lane = lane_format.decode(state)
    released = [channel for channel in opted_out_lines(lane) if channel in channels]
    for channel in released:
        lane.lines[channel].opted_out_at = 0
    if not released:
        return stored, []
    return b" ".join([fence, deadline, lane_format.encode(lane)]), released
