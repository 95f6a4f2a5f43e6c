"""What lies on each channel, and how what is left of one that is not configured any more is ended.

Nobody releases the invitations that a removed channel holds, or hears the people in its sessions. Each open session has a
deadline, so its lane has an alarm, as each outbox has: only what has an alarm is looked at.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import msgspec
import redis

from config.store import function_calls, keyspace, redis_client, stored_values
from config.store.function_calls import Command
from config.store.held_invitations import HeldInvitation, decode_held_invitation
from engine.model import lane as lane_format
from engine.model.events import CancelSession, OpeningRefused, cancel_event_id, encode_event
from engine.model.lane import UnreadableLaneError
from engine.turns.session_routing import channel_of_key

_PAGE = 500

T = TypeVar("T")

_Wake = Callable[[str, Sequence[str]], None]
"""Wakes a queue's workers for senders."""


class ChannelLeftovers(msgspec.Struct):
    """Held `invitations`, open `sessions`, and `sms` in outboxes."""

    invitations: int = 0
    sessions: int = 0
    sms: int = 0


def count_waiting_sms(
    client: redis.Redis, shards: Collection[int], max_alarms: int | None = None
) -> Counter[str]:
    """Count the SMS in outboxes of these shards by channel: in all, or in those with the `max_alarms` nearest alarms."""
    found: Counter[str] = Counter()
    for k in shards:
        for page in _pages(
            _senders_with_alarm(client, keyspace.outbox_alarms_key(k), _share(max_alarms, shards))
        ):
            outboxes = [("LRANGE", keyspace.outbox_key(k, sender), 0, -1) for sender in page]
            for entries in redis_client.run_commands(client, outboxes):
                found.update(entry.partition(b"\0")[0].decode(errors="replace") for entry in entries)
    return found


def count_leftovers(
    client: redis.Redis,
    shards: Collection[int],
    configured: Collection[str],
    max_alarms: int | None = None,
) -> dict[str, ChannelLeftovers]:
    """Count what is left in these shards on channels other than `configured`, by channel. Of lanes and outboxes, only those with the
    `max_alarms` nearest alarms are looked at, if that is said."""
    found: dict[str, ChannelLeftovers] = {}

    def of_removed(channel: str) -> ChannelLeftovers | None:
        return None if channel in configured or not channel else found.setdefault(channel, ChannelLeftovers())

    for channel, sms in count_waiting_sms(client, shards, max_alarms).items():
        if left := of_removed(channel):
            left.sms += sms
    for k in shards:
        if _holds_for_others(client, k, configured):
            for held in _held_invitations(client, k):
                if left := of_removed(held.event.channel):
                    left.invitations += 1
        for _, channel, _ in _open_sessions(client, k, _share(max_alarms, shards)):
            if left := of_removed(channel):
                left.sessions += 1
    return found


def close_channel(client: redis.Redis, wake: _Wake, shards: int, channel: str) -> ChannelLeftovers:
    """Withdraw the invitations that the channel holds, and let workers cancel its open sessions, whose SMS are withdrawn
    with them. Return what was ended; done twice, it ends nothing twice."""
    ended = ChannelLeftovers()
    for k in range(shards):
        ended.invitations += _withdraw_held(client, k, channel)
        ended.sessions += _cancel_sessions(client, wake, shards, k, channel)
    return ended


def _withdraw_held(client: redis.Redis, k: int, channel: str) -> int:
    withdrawn = 0
    for page in _pages([each for each in _held_invitations(client, k) if each.event.channel == channel]):
        now = redis_client.server_time_ms(client)
        withdrawals = [_withdraw_command(each, now) for each in page]
        withdrawn += sum(redis_client.run_commands(client, withdrawals))
    return withdrawn


def _withdraw_command(held: HeldInvitation, now: int) -> Command:
    channel = held.event.channel
    records = encode_event([OpeningRefused(now, channel, held.id, "cancelled")])
    return function_calls.withdraw_invitation_command(held.k, channel, held.id, held.sender, records)


def _cancel_sessions(client: redis.Redis, wake: _Wake, shards: int, k: int, channel: str) -> int:
    """Put cancellations into the mailboxes of a shard; how many."""
    sessions = [(sender, session) for sender, on, session in _open_sessions(client, k, None) if on == channel]
    for page in _pages(sessions):
        cancellations = [
            (sender, False, encode_event(CancelSession(cancel_event_id(session), channel, session)))
            for sender, session in page
        ]
        commands, _ = function_calls.accept_commands(shards, cancellations)
        redis_client.run_commands(client, commands)
        wake(keyspace.REPLIES_QUEUE, [sender for sender, _ in page])
    return len(sessions)


def _holds_for_others(client: redis.Redis, k: int, configured: Collection[str]) -> bool:
    held, *of_configured = redis_client.run_commands(
        client,
        [
            ("HLEN", keyspace.held_invitations_key(k)),
            *(("ZCARD", keyspace.held_ids_key(k, channel)) for channel in configured),
        ],
    )
    return int(held) > sum(map(int, of_configured))


def _held_invitations(client: redis.Redis, k: int) -> Iterator[HeldInvitation]:
    for identity, stored in client.hscan_iter(keyspace.held_invitations_key(k), count=_PAGE):
        yield decode_held_invitation(identity.decode(), k, stored)


def _open_sessions(client: redis.Redis, k: int, most: int | None) -> Iterator[tuple[str, str, str]]:
    """Yield (sender, channel, session) of each open session of a shard. A lane that cannot be read is left out."""
    for page in _pages(_senders_with_alarm(client, keyspace.lane_alarms_key(k), most)):
        stored = redis_client.run_commands(client, [("GET", keyspace.lane_key(k, each)) for each in page])
        for sender, blob in zip(page, stored, strict=True):
            try:
                lane = lane_format.decode_lane(stored_values.lane_state(blob))
            except UnreadableLaneError:
                continue
            for key, line in lane.lines.items():
                if line.session is not None:
                    yield sender, channel_of_key(key), line.session.id


def _senders_with_alarm(client: redis.Redis, alarms: str, most: int | None) -> Iterator[str]:
    """Yield the senders of a shard's alarms: all, each once, or those of the `most` nearest."""
    senders: Iterable[bytes]
    if most is None:
        senders = {sender for sender, _ in client.zscan_iter(alarms, count=_PAGE)}
    else:
        senders = redis_client.run_command(client, ("ZRANGE", alarms, 0, most - 1))
    yield from (sender.decode() for sender in senders)


def _share(max_alarms: int | None, shards: Collection[int]) -> int | None:
    """Return how many alarms of one shard may be looked at."""
    return None if max_alarms is None else max(1, max_alarms // max(1, len(shards)))


def _pages(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while page := list(islice(remaining, _PAGE)):
        yield page
