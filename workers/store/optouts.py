"""Who has said stop? The list of opt-outs, which survives every lane: a keyed hash of each number, and for each channel
since when and by whose word. Whoever reads the list without its key learns no number.

A commit writes it together with the lane. A lane that has state knows for itself; a new one is begun with what the
list says. The key is PARLEY_OPTOUT_KEY, or made once and kept in Redis; a process with another key would know nobody
who opted out, so it does not start.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain

import msgspec
import redis
import structlog

from config.host import THIS_HOST, Host
from config.settings.settings import ConfigError
from config.store import keyspace, redis_client
from config.store.function_calls import Command, accept_commands, function_call
from config.store.opt_out_hashes import OptOutHashes
from config.store.server_functions import AddedOptOut, AddOptOuts, InformedLane, RemoveOptOuts
from config.store.stored_secret import get_or_set
from engine.model import lane as lane_format
from engine.model.events import PersonOptedIn, ProviderStop, encode_event

log = structlog.get_logger()

OPT_OUT_SCAN_COUNT = 500

_WRONG_KEY_MESSAGE = (
    "PARLEY_OPTOUT_KEY is not the key that the list of opt-outs in this Redis was made "
    "with: expected that key, or no "
    "PARLEY_OPTOUT_KEY if there was none; with another, people who said stop would not be known. "
    "If the key is lost, "
    f"so is the list: delete the Redis key {keyspace.OPTOUT_SECRET_CHECK_KEY}, and "
    "import the opted-out numbers anew"
)

OptOutsByChannel = dict[str, tuple[int, str]]
"""Channel -> since when (ms), and whose word it was: `person`, `provider`, or where an operator had it from."""

_decode_opt_outs = msgspec.json.Decoder(OptOutsByChannel).decode


class OptOutEntry(msgspec.Struct, frozen=True):
    """One person's opt-out from one channel, by hash; `shard` is the person's."""

    shard: int
    hash: str
    channel: str
    at: int
    source: str


class OptOutList:
    """The list in one Redis, read and written with its key."""

    def __init__(
        self, client: redis.Redis, shards: int, hashes: OptOutHashes, host: Host = THIS_HOST
    ) -> None:
        self._redis = client
        self._shards = shards
        self._hashes = hashes
        self._token_hex = host.token_hex
        self._event = blake2b(digest_size=8, key=hashes.key, person=b"parley event")

    @property
    def key_fingerprint(self) -> str:
        """Return a fingerprint of the key, from which the key cannot be derived."""
        return self._hashes.fingerprint

    def hash_number(self, sender: str) -> str:
        return self._hashes.of_number(sender)

    def hash_event(self, sender: str, event: str) -> bytes:
        """Return a keyed hash of an event of this sender, from which neither can be derived."""
        hashed = self._event.copy()
        hashed.update(f"{sender} {event}".encode())
        return hashed.digest()

    def opt_outs_of(self, sender: str) -> OptOutsByChannel:
        """All that the list has of one person. Raises msgspec.MsgspecError if it cannot be read."""
        name = keyspace.optouts_key(keyspace.shard_of(sender, self._shards))
        entry = redis_client.run_command(self._redis, ("HGET", name, self.hash_number(sender)))
        return _decode_opt_outs(entry) if entry else {}

    def entries(self) -> Iterator[OptOutEntry]:
        """The whole list. Where lanes were divided anew (`parley reshard`), each part of a shard has what the shard had, of which
        that in the person's own shard counts."""
        for k in range(self._shards):
            for field, entry in self._redis.hscan_iter(keyspace.optouts_key(k), count=OPT_OUT_SCAN_COUNT):
                for channel, (at, source) in _decode_opt_outs(entry).items():
                    yield OptOutEntry(k, field.decode(), channel, at, source)

    def add_opt_outs(self, people: Sequence[tuple[str, str]], source: str) -> int:
        """Opt these (sender, channel) out, as of now; answers how many were not yet. Open sessions end."""
        run = self._token_hex(8)
        commands = []
        for k, group in keyspace.group_by_shard(people, lambda each: each[0], self._shards).items():
            opt_outs = [
                AddedOptOut(number_hash=self.hash_number(sender), channel=channel, at_ms=0, source=source)
                for sender, channel in group
            ]
            lanes = [
                _informed_lane(k, sender, _stop_event(run, sender, channel, source))
                for sender, channel in group
            ]
            commands.append(_add_command(k, opt_outs, lanes))
        return sum(chain.from_iterable(redis_client.run_commands(self._redis, commands)))

    def restore(self, entries: Sequence[OptOutEntry]) -> int:
        """Take over entries of another list that was made with the same key; answers how many are new. Lanes are not
        told: see `opt_out_lanes`."""
        commands = []
        for k, group in _group_by_shard(entries).items():
            opt_outs = [
                AddedOptOut(number_hash=each.hash, channel=each.channel, at_ms=each.at, source=each.source)
                for each in group
            ]
            commands.append(_add_command(k, opt_outs))
        return sum(chain.from_iterable(redis_client.run_commands(self._redis, commands)))

    def opt_out_lanes(self, entries: Iterable[OptOutEntry]) -> int:
        """Opt out the lanes of those of these people who have one; answers how many."""
        run = self._token_hex(8)
        by_hash: dict[str, list[OptOutEntry]] = {}
        for entry in entries:
            by_hash.setdefault(entry.hash, []).append(entry)
        told = 0
        for name in self._redis.scan_iter(keyspace.lane_key_pattern(), count=OPT_OUT_SCAN_COUNT):
            sender = keyspace.sender_of_key(name.decode())
            mine = keyspace.shard_of(sender, self._shards)
            for entry in (each for each in by_hash.get(self.hash_number(sender), ()) if each.shard == mine):
                stop = encode_event(_stop_event(run, sender, entry.channel, entry.source))
                commands, _ = accept_commands(self._shards, [(sender, False, stop)], ages_ms=[0])
                redis_client.run_commands(self._redis, commands)
                told += 1
        return told

    def remove_opt_outs(self, sender: str, channels: Sequence[str]) -> int | None:
        """Forget that this person opted out of these channels: they may be texted again. Answers of how many of them
        they had; None if a worker has their lane in its hands, again and again."""
        k = keyspace.shard_of(sender, self._shards)
        for _ in range(_REMOVE_ATTEMPTS):
            stored = redis_client.run_command(self._redis, ("GET", keyspace.lane_key(k, sender))) or b""
            amended, released = _without_opt_outs(stored, channels)
            now = redis_client.server_time_ms(self._redis)
            records = [PersonOptedIn(now, channel, self._token_hex(8)) for channel in released]
            known: int = redis_client.run_command(
                self._redis,
                function_call(
                    RemoveOptOuts(
                        optouts=keyspace.optouts_key(k),
                        lane=keyspace.lane_key(k, sender),
                        lane_lock=keyspace.lane_lock_key(k, sender),
                        events=keyspace.events_key(k),
                        sender=sender,
                        number_hash=self.hash_number(sender),
                        lane_before=stored,
                        lane_after=amended,
                        records=encode_event(records) if records else b"",
                        channels=channels,
                    )
                ),
            )
            if known >= 0:
                return max(known, len(released))
        return None


_REMOVE_ATTEMPTS = 50


def open_opt_out_list(client: redis.Redis, shards: int, secret: str, host: Host = THIS_HOST) -> OptOutList:
    """The list, with `secret` for its key or else the one that is kept in Redis. Raises ConfigError."""
    if not secret:
        secret = get_or_set(client, keyspace.OPTOUT_SECRET_KEY, host.token_hex(32))
    optouts = _list_with_secret(client, shards, secret, host)
    if (
        get_or_set(client, keyspace.OPTOUT_SECRET_CHECK_KEY, optouts.key_fingerprint)
        != optouts.key_fingerprint
    ):
        raise ConfigError([_WRONG_KEY_MESSAGE])
    return optouts


def find_opt_out_list(
    client: redis.Redis, shards: int, secret: str, host: Host = THIS_HOST
) -> OptOutList | None:
    """The same for whoever only looks: nothing is made. None if there is no list yet. Raises ConfigError."""
    kept, check = redis_client.run_commands(
        client, [("GET", keyspace.OPTOUT_SECRET_KEY), ("GET", keyspace.OPTOUT_SECRET_CHECK_KEY)]
    )
    if check is None or not (secret or kept):
        return None
    optouts = _list_with_secret(client, shards, secret or kept.decode(), host)
    if check != optouts.key_fingerprint.encode():
        raise ConfigError([_WRONG_KEY_MESSAGE])
    return optouts


def _list_with_secret(client: redis.Redis, shards: int, secret: str, host: Host) -> OptOutList:
    return OptOutList(client, shards, OptOutHashes(secret), host)


def opt_outs_in_lane(lane: lane_format.Lane) -> dict[str, int]:
    """What a lane knows by itself: channel -> since when (ms). Only a channel's own line knows of opt-outs."""
    return {channel: line.opted_out_at for channel, line in lane.lines.items() if line.opted_out_at}


def decode_opt_outs(entry: bytes) -> OptOutsByChannel | None:
    """What an entry of the list says; None if it cannot be read."""
    try:
        return _decode_opt_outs(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.exception("an entry of the list of opt-outs cannot be read; its person gets no SMS")
        return None


def _add_command(k: int, opt_outs: Sequence[AddedOptOut], lanes: Sequence[InformedLane] = ()) -> Command:
    return function_call(
        AddOptOuts(
            optouts=keyspace.optouts_key(k),
            lane_alarms=keyspace.lane_alarms_key(k),
            lanes=lanes,
            opt_outs=opt_outs,
        )
    )


def _informed_lane(k: int, sender: str, stop: ProviderStop) -> InformedLane:
    """A sender who has one of these keys has a lane, or is getting one."""
    return InformedLane(
        mailbox=keyspace.mailbox_key(k, sender),
        lane=keyspace.lane_key(k, sender),
        lane_lock=keyspace.lane_lock_key(k, sender),
        outbox=keyspace.outbox_key(k, sender),
        sender=sender,
        lane_mail=keyspace.REPLY_PREFIX + encode_event(stop),
    )


def _stop_event(run: str, sender: str, channel: str, source: str) -> ProviderStop:
    """The same for all calls of one run, so that a call whose reply was lost may be repeated."""
    identity = blake2b(f"{run} {sender} {channel}".encode(), digest_size=8).hexdigest()
    return ProviderStop(identity, channel, source=source)


def _group_by_shard(entries: Iterable[OptOutEntry]) -> Mapping[int, list[OptOutEntry]]:
    groups: dict[int, list[OptOutEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.shard, []).append(entry)
    return groups


def _without_opt_outs(stored: bytes, channels: Sequence[str]) -> tuple[bytes, list[str]]:
    """A stored lane with these channels' opt-outs taken from it, and which it had. Raises UnreadableLaneError."""
    fence, deadline, state = stored.split(b" ", 2) if stored else (b"", b"", b"")
    lane = lane_format.decode_lane(state)
    released = [channel for channel in opt_outs_in_lane(lane) if channel in channels]
    for channel in released:
        lane.lines[channel].opted_out_at = 0
    if not released:
        return stored, []
    return b" ".join([fence, deadline, lane_format.encode_lane(lane)]), released
