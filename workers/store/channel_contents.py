"""What lies on each channel, and how what is left of one that is not configured any more is ended.

Nobody releases the invitations that a removed channel holds, or hears the people in its sessions. Each open session has a
deadline, so its lane has an alarm, as each outbox has: only what has an alarm is looked at.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import redis

from config.service.channel_leftovers import ChannelLeftovers
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


def count_waiting_sms(
    client: redis.Redis, shards: Collection[int], max_alarms: int | None = None
) -> Counter[str]:
    """Count the SMS in outboxes of these shards by channel: in all, or in those with the `max_alarms` nearest alarms."""
    found: Counter[str] = Counter()
    for page in _pages(_senders_with_alarm(client, shards, keyspace.outbox_alarms_key, max_alarms)):
        outboxes = [("LRANGE", keyspace.outbox_key(k, sender), 0, -1) for k, sender in page]
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
    for k in _shards_that_hold_for_others(client, shards, configured):
        for held in _held_invitations(client, k):
            if left := of_removed(held.event.channel):
                left.invitations += 1
    for _, channel, _ in _open_sessions(client, shards, max_alarms):
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
    return function_calls.withdraw_invitation_command(
        held.k, channel, held.id, held.sender, records, "cancelled"
    )


def _cancel_sessions(client: redis.Redis, wake: _Wake, shards: int, k: int, channel: str) -> int:
    """Put cancellations into the mailboxes of a shard; how many."""
    sessions = [
        (sender, session) for sender, on, session in _open_sessions(client, [k], None) if on == channel
    ]
    for page in _pages(sessions):
        cancellations = [
            (sender, False, encode_event(CancelSession(cancel_event_id(session), channel, session)))
            for sender, session in page
        ]
        commands, _ = function_calls.accept_commands(shards, cancellations)
        redis_client.run_commands(client, commands)
        wake(keyspace.REPLIES_QUEUE, [sender for sender, _ in page])
    return len(sessions)


def _shards_that_hold_for_others(
    client: redis.Redis, shards: Collection[int], configured: Collection[str]
) -> list[int]:
    """The shards that hold more invitations than those of the `configured` channels, asked for at once."""
    questions: list[Command] = []
    for k in shards:
        questions.append(("HLEN", keyspace.held_invitations_key(k)))
        questions += [("ZCARD", keyspace.held_ids_key(k, channel)) for channel in configured]
    answers = iter(redis_client.run_commands(client, questions))
    return [k for k in shards if int(next(answers)) > sum(int(next(answers)) for _ in configured)]


def _held_invitations(client: redis.Redis, k: int) -> Iterator[HeldInvitation]:
    for identity, stored in client.hscan_iter(keyspace.held_invitations_key(k), count=_PAGE):
        yield decode_held_invitation(identity.decode(), k, stored)


def _open_sessions(
    client: redis.Redis, shards: Collection[int], max_alarms: int | None
) -> Iterator[tuple[str, str, str]]:
    """Yield (sender, channel, session) of each open session of these shards. A lane that cannot be read is left out."""
    for page in _pages(_senders_with_alarm(client, shards, keyspace.lane_alarms_key, max_alarms)):
        stored = redis_client.run_commands(client, [("GET", keyspace.lane_key(*each)) for each in page])
        for (_, sender), blob in zip(page, stored, strict=True):
            try:
                lane = lane_format.decode_lane(stored_values.lane_state(blob))
            except UnreadableLaneError:
                continue
            for key, line in lane.lines.items():
                if line.session is not None:
                    yield sender, channel_of_key(key), line.session.id


def _senders_with_alarm(
    client: redis.Redis, shards: Collection[int], alarms_key: Callable[[int], str], most: int | None
) -> Iterator[tuple[int, str]]:
    """Yield the senders of these shards' alarms, each with its shard: all, each once; or those of the `most` nearest, of each shard
    as many, asked for at once."""
    if most is None:
        for k in shards:
            senders = {sender for sender, _ in client.zscan_iter(alarms_key(k), count=_PAGE)}
            yield from ((k, sender.decode()) for sender in senders)
        return
    share = max(1, most // max(1, len(shards)))
    nearest = redis_client.run_commands(client, [("ZRANGE", alarms_key(k), 0, share - 1) for k in shards])
    for k, found in zip(shards, nearest, strict=True):
        yield from ((k, sender.decode()) for sender in found)


def _pages(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while page := list(islice(remaining, _PAGE)):
        yield page
