"""Invitations wait for their turn, and people in conversation go first.

What is accepted is held, in its person's shard, until it may be sent: at the channel's pace, within its day's SMS and
its new sessions a minute, while nothing else waits for workers or for the provider, and not in quiet hours where the
person is. Then it becomes mail, like a START. Any number of clocks may do this: an invitation is released once, and
permits come from buckets that all share. A permit taken and not used is lost.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from time import monotonic, sleep

import msgspec
import redis
import structlog

from config.settings.channels import Channel
from config.store import keyspace, stored_values
from config.telemetry import faults, metrics
from engine.model.events import Invitation, Refused, decode_inbound, encode
from engine.model.quiet_hours import quiet_hours
from engine.surveys.program import END, Say, Survey
from engine.surveys.survey_registry import Surveys
from workers.store.archive import forget_references
from workers.store.channel_state import Channels
from workers.turns.committing import Bell

log = structlog.get_logger()

MOST_WAITING = 64
"""With so many lanes waiting for a worker, nobody else is invited."""

USUAL_PACE = 100.0
"""Invitations a second on a channel whose SMS have no limit."""

ROUND_S = 0.05
"""Between two releases: many at once would be a crowd that a reply has to wait behind."""

TURN_S = 5.0
"""How long one turn lasts at the most, while there is anything to release."""

BURST_S = 0.1
"""The pace's permits gather for no longer, so that a backlog which had to stop does not catch up in a rush."""

SLOT_MS = 60_000
"""What was released in this and the last span counts against the day's SMS, as it may not be decided yet."""

PAGE = 1_000


class Held(msgspec.Struct, frozen=True):
    """An invitation that waits: for whom, since when (ms), and in which shard."""

    id: str
    k: int
    sender: str
    at: int
    event: Invitation


class Standing(msgspec.Struct, frozen=True):
    """A channel's backlog by shard, at `now` (ms): what is held in all, and what may be released by now."""

    now: int
    held: int
    due: Mapping[int, int]


class Campaigns:
    """What a clock does for invitations. `turn` once a while."""

    def __init__(
        self,
        lanes: redis.Redis,
        broker: redis.Redis,
        channels: Mapping[str, Channel],
        surveys: Surveys,
        bell: Bell,
        *,
        shards: int,
        keep_events_ms: int,
    ) -> None:
        self._lanes = lanes
        self._broker = broker
        self._channels = channels
        self._surveys = surveys
        self._bell = bell
        self._door = Channels(lanes, channels)
        self._shards = shards
        self._keep_ms = keep_events_ms
        self._first = 0  # whose turn it is to come first, where there is not room for all channels
        self._dues = [
            keyspace.call("due", [keyspace.held(k, name) for name in channels], ()) for k in range(shards)
        ]

    def turn(self) -> None:
        """Release what may be released, a little at a time, until nothing is due or it is time to be asked again."""
        until_s = monotonic() + TURN_S
        while self.tick() and monotonic() < until_s:
            sleep(ROUND_S)

    def tick(self) -> bool:
        """Release what may be released now. False if nothing is due on any channel."""
        standings = self._standings()
        if not any(any(each.due.values()) for each in standings.values()):
            return False
        room = MOST_WAITING - self._waiting()
        names = list(standings)
        self._first = (self._first + 1) % len(names)
        for name in names[self._first :] + names[: self._first]:
            due = sum(standings[name].due.values())
            if due and room > 0:
                room -= self._release(name, standings[name], min(due, room))
        return True

    def _standings(self) -> dict[str, Standing]:
        answers = keyspace.run(self._lanes, self._dues)
        standings: dict[str, Standing] = {}
        for place, name in enumerate(self._channels):
            held, due = 2 * place + 1, 2 * place + 2
            standing = Standing(
                answers[0][0],
                sum(each[held] for each in answers),
                {k: each[due] for k, each in enumerate(answers)},
            )
            standings[name] = standing
        return standings

    def _waiting(self) -> int:
        """Lanes that wait for the busiest kind of worker."""
        queues = (keyspace.STARTS, keyspace.REPLIES, keyspace.OUTBOUND)
        bells = [("ZCARD", keyspace.bell(queue)) for queue in queues]
        return max(int(waiting) for waiting in keyspace.run(self._broker, bells))

    def _release(self, name: str, standing: Standing, wanted: int) -> int:
        """Release up to `wanted` of a channel; how many were."""
        wanted = self._room_to_send(name, standing.now, wanted)
        awake = self._awake(name, standing.now, self._oldest(name, standing, wanted)) if wanted else []
        permitted = self._permitted(name, standing.now, awake)
        if not permitted:
            return 0
        faults.reach("before_release")
        rings = self._lanes_rung(name, permitted)
        faults.reach("after_release")
        metrics.INVITATIONS_RELEASED.labels(name, "released").inc(sum(ring >= 0 for _, ring in rings))
        for ring, queue in keyspace.QUEUE_OF.items():
            senders = [sender for sender, rung in rings if rung == ring]
            if senders:
                self._bell.ring(queue, senders)
        return len(permitted)

    def _room_to_send(self, name: str, now: int, wanted: int) -> int:
        """How many SMS the channel could send at once and keep half of its permits for replies; none if it pauses."""
        paused, full_at = keyspace.run(
            self._lanes, [("EXISTS", keyspace.pause(name)), ("GET", keyspace.sms_bucket(name))]
        )
        if paused:
            return 0
        rate = self._channels[name].limits.sms_per_second
        if not rate:
            return wanted
        burst = max(1.0, rate)
        used = max(0.0, float(full_at or 0) - now) * rate / 1000
        return max(0, min(wanted, int(burst - used + 1e-6 - burst // 2)))

    def _oldest(self, name: str, standing: Standing, wanted: int) -> list[Held]:
        """Up to `wanted` that are due, from each shard by its share of them."""
        shares = {k: share for k, share in _shares(standing.due, wanted).items() if share}
        answers = keyspace.run(
            self._lanes,
            [
                keyspace.call("oldest", [keyspace.held(k, name), keyspace.held_mail(k)], (share,))
                for k, share in shares.items()
            ],
        )
        return [each for k, answer in zip(shares, answers, strict=True) for each in _read(k, answer[1:])]

    def _awake(self, name: str, now: int, oldest: Sequence[Held]) -> list[Held]:
        """Those whose person may be texted now. The others are put off, or refused if they expired meanwhile."""
        channel = self._channels[name]
        quiet = quiet_hours(channel.quiet_minutes)
        awake = []
        later: list[keyspace.Command] = []
        expired: list[Held] = []
        for each in oldest:
            if _expired(each, now):
                expired.append(each)
            elif quiet and (moment := quiet.awake_at(each.sender, now, channel.timezone)) > now:
                later.append(("ZADD", keyspace.held(each.k, name), "XX", moment, each.id))
            else:
                awake.append(each)
        if later:
            keyspace.run(self._lanes, later)
        self._refuse(name, now, expired)
        return awake

    def _refuse(self, name: str, now: int, expired: Sequence[Held]) -> None:
        if expired:
            keyspace.run(
                self._lanes,
                [
                    _unhold(each, self._keep_ms, encode([Refused(now, name, each.id, "expired")]))
                    for each in expired
                ],
            )
            metrics.INVITATIONS_RELEASED.labels(name, "expired").inc(len(expired))

    def _permitted(self, name: str, now: int, awake: Sequence[Held]) -> Sequence[Held]:
        """As many as the channel's pace, its day's SMS and its new sessions a minute allow."""
        paced = self._paced(name, len(awake))
        admitted = self._door.admit(name, paced, now)[0] if paced else 0
        return awake[: self._reserved(name, now, awake[:admitted])]

    def _paced(self, name: str, wanted: int) -> int:
        limits = self._channels[name].limits
        pace = limits.invitations_per_second or limits.sms_per_second / 2 or USUAL_PACE
        if not wanted:
            return 0
        bucket = keyspace.invitation_bucket(name)
        granted: int = keyspace.ask(
            self._lanes, keyspace.call("grant", [bucket], (pace, max(1.0, pace * BURST_S), wanted))
        )
        return granted

    def _reserved(self, name: str, now: int, wanted: Sequence[Held]) -> int:
        """How many of these the day's SMS allow, if what was released a moment ago is not decided yet."""
        cap = self._channels[name].limits.sms_per_day
        if not cap or not wanted:
            return len(wanted)
        needs = [self._opening(each.event.survey) for each in wanted]
        slot = keyspace.released(name, now // SLOT_MS)
        before = keyspace.released(name, now // SLOT_MS - 1)
        reserved, _, earlier = keyspace.run(
            self._lanes, [("INCRBY", slot, sum(needs)), ("PEXPIRE", slot, 3 * SLOT_MS), ("GET", before)]
        )
        left = cap - self._door.sms_today(name, now) - int(earlier or 0) - (int(reserved) - sum(needs))
        fitting = 0
        while fitting < len(needs) and sum(needs[: fitting + 1]) <= left:
            fitting += 1
        if unused := sum(needs[fitting:]):
            keyspace.ask(self._lanes, ("DECRBY", slot, unused))
        return fitting

    def _opening(self, survey: str) -> int:
        known = self._surveys.current(survey)
        return opening_sms(known) if known else 1

    def _lanes_rung(self, name: str, permitted: Sequence[Held]) -> list[tuple[str, int]]:
        """Make them mail. Answers (sender, whom to wake) for each, as the function `release` does."""
        groups: dict[int, list[Held]] = {}
        for each in permitted:
            groups.setdefault(each.k, []).append(each)
        commands = []
        for k, group in groups.items():
            keys = [keyspace.alarms(k), keyspace.held(k, name), keyspace.held_mail(k)]
            keys += [keyspace.mailbox(k, each.sender) for each in group]
            args = chain.from_iterable((each.id, each.sender) for each in group)
            commands.append(keyspace.call("release", keys, args))
        rings = chain.from_iterable(keyspace.run(self._lanes, commands))
        return [
            (each.sender, ring)
            for each, ring in zip(chain.from_iterable(groups.values()), rings, strict=True)
        ]


def opening_sms(survey: Survey) -> int:
    """The most SMS that a session begins with, before it waits for an answer."""
    longest: dict[int, int] = {END: 1 if "completed" in survey.texts else 0}

    def from_(place: int) -> int:
        if place not in longest:
            step = survey.steps[place]
            longest[place] = 1  # should it lead back to itself
            if isinstance(step, Say):
                longest[place] = 1 + max(from_(route.go) for route in step.routes)
        return longest[place]

    return max(1, from_(0))


def forget(client: redis.Redis, shards: int, sender: str) -> int:
    """Drop whatever is held for a person, without a trace of it but that its references are taken; how many it was."""
    dropped = 0
    for held in held_for(client, keyspace.shard_of(sender, shards), sender):
        forget_references(client, shards, [held.id])
        dropped += keyspace.ask(client, _unhold(held, 0, b""))
    return dropped


def held_for(client: redis.Redis, k: int, sender: str) -> Iterator[Held]:
    """Whatever is held for a person of shard `k`."""
    for id_, mail in client.hscan_iter(keyspace.held_mail(k), count=PAGE):
        if mail.startswith(sender.encode() + b"\0"):
            yield from _read(k, [id_, mail])


def _unhold(held: Held, keep_ms: int, records: bytes) -> keyspace.Command:
    return keyspace.unhold_command(held.k, held.event.channel, held.id, held.sender, keep_ms, records)


def _read(k: int, answer: Sequence[bytes]) -> Iterator[Held]:
    """(id, mail) ... as the function `oldest` answers."""
    for id_, mail in zip(answer[::2], answer[1::2], strict=True):
        sender, at, encoded = stored_values.invitation_in(mail)
        yield Held(id_.decode(), k, sender, at, _event(id_.decode(), encoded))


def _event(identity: str, encoded: bytes) -> Invitation:
    """The invitation. One that cannot be read goes its way like others: the worker makes it a dead letter."""
    try:
        event = decode_inbound(encoded)
    except msgspec.MsgspecError:
        event = None
    return event if isinstance(event, Invitation) else Invitation(identity, "", "")


def _expired(held: Held, now: int) -> bool:
    return (
        bool(held.event.expires_at and held.event.expires_at <= now) or now - held.at > keyspace.MOST_HELD_MS
    )


def _shares(due: Mapping[int, int], wanted: int) -> dict[int, int]:
    """`wanted` spread over the shards as what is due is: the rests go to those with the largest."""
    total = sum(due.values())
    if total <= wanted:
        return dict(due)
    exact = {k: count * wanted / total for k, count in due.items()}
    shares = {k: int(share) for k, share in exact.items()}
    rests = sorted(exact, key=lambda k: (shares[k] - exact[k], k))
    for k in rests[: wanted - sum(shares.values())]:
        shares[k] += 1
    return shares
