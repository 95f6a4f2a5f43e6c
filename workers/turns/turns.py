"""A turn: lanes are claimed, advanced and committed, many at a time.

The rate-limit worker turns the lanes whose head is a START, the conversation worker all others. Both do the same.
Sessions opened by STARTs need the channel's permission: they are drafted first, permits are taken for those that would
open, and the rest are drafted again with the door closed. The engine is pure, so drafting twice costs microseconds and
spends no permit on a START that it refuses anyway. Invitations got their permits when they were released.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from time import perf_counter

import msgspec
import prometheus_client
import structlog

from config.settings.settings import Channel
from config.store import keyspace, stored_values
from config.telemetry import metrics
from config.telemetry.logs import hash_sender
from engine.model.events import Delivered, Ended, Heard, Misread, Opened, OptedOut, Refused, Said
from engine.model.policy import ChannelPolicy, Policy
from engine.model.quiet_hours import quiet_hours
from engine.surveys.survey_registry import Surveys
from workers.store.channel_state import Channels
from workers.store.lanes import Claim, Committed, Lanes
from workers.turns.committing import Bell, draft_knowing, note_withdrawn, permitted, wake
from workers.turns.drafts import Draft

log = structlog.get_logger()


def policy_of(channels: Mapping[str, Channel]) -> dict[str, ChannelPolicy]:
    """The engine's view of the channels."""
    return {
        name: ChannelPolicy(
            surveys=tuple(channel.surveys),
            timezone=channel.timezone,
            sessions_per_sender_per_day=channel.limits.sessions_per_sender_per_day,
            start_burst=channel.limits.start_burst,
            start_per_minute=channel.limits.start_per_minute,
            pause_ms=round(channel.limits.pause_s * 1000),
            number=channel.number,
            originators=channel.originators,
            quiet=quiet_hours(channel.quiet_minutes),
            contacts=channel.contacts,
        )
        for name, channel in channels.items()
    }


class Turns:
    """One worker's turns. `run` is called with the senders of a wake-up."""

    def __init__(
        self, lanes: Lanes, surveys: Surveys, channels: Mapping[str, Channel], door: Channels, bell: Bell,
        log_key: bytes,
    ) -> None:  # fmt: skip
        self._lanes = lanes
        self._surveys = surveys
        self._policy: Policy = policy_of(channels)
        self._door = door
        self._bell = bell
        self._log_key = log_key

    def run(self, queue: str, senders: Sequence[str]) -> None:
        """Turn every one of these lanes that has something for `queue`; wake whoever is wanted next."""
        begun_s = perf_counter()
        claims = self._lanes.claim(queue, senders)
        self._turn(queue, claims.held, begun_s)
        if claims.others:
            self._bell.ring(_other(queue), claims.others)
        for sender in claims.suspects:
            begun_s = perf_counter()
            suspect = self._lanes.claim_alone(queue, sender)
            metrics.LEASES_LOST.labels(queue).inc(sum(claim.attempts > 1 for claim in suspect.held))
            self._turn(queue, suspect.held, begun_s)

    def _turn(self, queue: str, claims: Sequence[Claim], begun_s: float) -> None:
        if not claims:
            return
        surveys = self._surveys.still()
        drafts = [self._draft(claim, surveys, self._policy) for claim in claims]
        if any(each.opened for each in drafts):
            drafts = self._admitted(drafts, surveys)
        committed = self._lanes.commit([each.decision() for each in drafts])
        took_s = perf_counter() - begun_s
        wake(self._bell, committed)
        self._report(queue, drafts, committed, claims[0].now, took_s)

    def _draft(self, claim: Claim, surveys: Surveys, policy: Policy) -> Draft:
        return draft_knowing(self._lanes.client, claim, surveys, policy)

    def _admitted(self, drafts: list[Draft], surveys: Surveys) -> list[Draft]:
        """The drafts, those that may not open the sessions they would drafted again without."""
        may, closed = permitted(self._door.admit, drafts, drafts[0].claim.now)
        policy = dict(self._policy)
        for channel, reason in closed.items():
            policy[channel] = msgspec.structs.replace(policy[channel], closed=reason)
        return [
            each if admitted else self._draft(each.claim, surveys, policy)
            for each, admitted in zip(drafts, may, strict=True)
        ]

    def _report(
        self, queue: str, drafts: Sequence[Draft], committed: Sequence[Committed], now: int, took_s: float
    ) -> None:
        """Count and log what stood, many lanes at once: each number that is published costs a lock. Nothing here can
        undo it."""
        stood = [each for each, commit in zip(drafts, committed, strict=True) if commit.stood]
        of_queue = _of_queue(queue)
        of_queue.committed.inc(len(stood))
        of_queue.took.observe_times(took_s, len(stood))
        of_queue.waited.observe_many(_waited_s(stood))
        if len(stood) < len(drafts):
            metrics.TURNS.labels(queue, "stale").inc(len(drafts) - len(stood))
        if duplicates := sum(each.duplicates for each in stood):
            metrics.DUPLICATES.inc(duplicates)
        decided = Counter(sms.channel for each in stood for sms in each.outbox)
        for channel, count in decided.items():
            metrics.SMS_DECIDED.labels(channel).inc(count)
        unusual = [found for each in stood for found in _counts(each)]
        for (counter, labels), count in Counter(unusual).items() if unusual else ():
            counter.labels(*labels).inc(count)
        for each in stood:
            if each.opt_outs or each.dead:
                self._log_lane(each)
        for channel, count in decided.items():  # from here on Redis may fail
            self._door.count_sms(channel, count, now)
        for each, commit in zip(drafts, committed, strict=True):
            if commit.withdrawn:
                note_withdrawn(self._lanes, each, commit, now)

    def _log_lane(self, each: Draft) -> None:
        for record in each.records:
            if type(record) is OptedOut:
                sender = hash_sender(self._log_key, each.claim.sender)
                log.info("opted out", channel=record.channel, sender=sender)
        for letter in each.dead:
            log.error(
                "dead letter",
                id=letter.id, reason=letter.reason, attempts=letter.attempts, channel=letter.channel,
                sender=hash_sender(self._log_key, letter.sender), todo=f"parley dead show {letter.id}",
            )  # fmt: skip


class _OfQueue:
    """What every turn of a queue counts; to find it by its labels each time costs as much as to count."""

    def __init__(self, queue: str) -> None:
        self.committed = metrics.TURNS.labels(queue, "committed")
        self.took = metrics.TURN_SECONDS.labels(queue)
        self.waited = metrics.CLAIM_SECONDS.labels(queue)


_of_queue = cache(_OfQueue)


def _waited_s(drafts: Sequence[Draft]) -> Iterator[float]:
    """For each event that was applied, how long it had waited to be claimed; nothing if its header is damaged."""
    for each in drafts:
        now = each.claim.now
        for entry in each.claim.mail:
            try:
                accepted = stored_values.accepted_at(entry)
            except ValueError:
                continue
            yield max(0, now - accepted) / 1_000


_USUAL = frozenset((Heard, Said))
"""Records of which there is nothing to count, and which nearly all are."""


def _counts(each: Draft) -> Iterator[tuple[prometheus_client.Counter, tuple[str, ...]]]:
    """What there is to count of a lane: counters, and the values of their labels."""
    for record in each.records:
        if type(record) in _USUAL:
            continue
        match record:
            case Opened(channel=channel, survey=survey):
                yield metrics.SESSIONS_OPENED, (channel, survey)
            case Ended(channel=channel, session=session, how=how):
                yield metrics.SESSIONS_ENDED, (channel, each.surveys.get(session, ""), how)
            case Misread(session=session, step=step):
                yield metrics.INVALID_ANSWERS, (each.surveys.get(session, ""), step)
            case Refused(channel=channel, reason=reason):
                yield metrics.STARTS_REFUSED, (channel, reason)
            case Delivered(channel=channel, state=state):
                yield metrics.RECEIPTS, (channel, state or "other")
            case _:
                pass
    for letter in each.dead:
        yield metrics.DEAD_LETTERS, (letter.reason,)


def _other(queue: str) -> str:
    return keyspace.REPLIES if queue == keyspace.STARTS else keyspace.STARTS
