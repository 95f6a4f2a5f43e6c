"""A turn: lanes are claimed, advanced and committed, many at a time.

The rate-limit worker turns the lanes whose head is a START, the conversation worker all others. Both do the same.
Sessions opened by STARTs need the channel's permission: they are drafted first, permits are taken for those that would
open, and the rest are drafted again with the door closed. The engine is pure, so drafting twice costs microseconds and
spends no permit on a START that it refuses anyway. Invitations got their permits when they were released.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from config import headers, keyspace, metrics
from config.logs import hash_sender
from config.settings import Channel
from engine import ChannelPolicy, Policy, Surveys, UnknownVersion, missing_versions
from engine import lane as lane_format
from engine.events import (
    Delivered,
    Ended,
    Opened,
    OptedOut,
    Record,
    Refusal,
    Refused,
    Unsent,
    decode_outbound,
)
from engine.quiet import quiet_hours
from engine.turn import WITHDRAWN
from workers.channels import Channels
from workers.drafts import Draft, draft, draft_one_by_one
from workers.lanes import Claim, Committed, Lanes
from workers.versions import learn

log = structlog.get_logger()


class Bell(Protocol):
    def ring(self, queue: str, senders: Sequence[str]) -> None: ...


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
        claims = self._lanes.claim(queue, senders)
        self._turn(queue, claims.held)
        if claims.others:
            self._bell.ring(_other(queue), claims.others)
        for sender in claims.suspects:
            self._turn(queue, self._lanes.claim_alone(queue, sender).held)

    def _turn(self, queue: str, claims: Sequence[Claim]) -> None:
        if not claims:
            return
        surveys = self._surveys.still()
        drafts = [self._draft(claim, surveys, self._policy) for claim in claims]
        if any(each.opened for each in drafts):
            drafts = self._admitted(drafts, surveys)
        committed = self._lanes.commit([each.decision() for each in drafts])
        self._wake(committed)
        self._report(queue, drafts, committed, claims[0].now)

    def _draft(self, claim: Claim, surveys: Surveys, policy: Policy) -> Draft:
        try:
            return draft(claim, surveys, policy)
        except UnknownVersion:
            learn(self._lanes.client, surveys, missing_versions(lane_format.decode(claim.state), surveys))
        try:
            return draft(claim, surveys, policy)
        except UnknownVersion:
            return draft_one_by_one(claim, surveys, policy)

    def _admitted(self, drafts: list[Draft], surveys: Surveys) -> list[Draft]:
        """The drafts, those that may not open the sessions they would drafted again without."""
        now = drafts[0].claim.now
        wanted: Counter[str] = Counter()
        for each in drafts:
            wanted.update(each.opened)
        closed: dict[str, Refusal] = {}
        left: dict[str, int] = {}
        for channel, count in wanted.items():
            left[channel], reason = self._door.admit(channel, count, now)
            if reason:
                closed[channel] = reason
        return [self._admit(each, surveys, left, closed) for each in drafts] if closed else drafts

    def _admit(
        self, each: Draft, surveys: Surveys, left: dict[str, int], closed: Mapping[str, Refusal]
    ) -> Draft:
        if all(left[channel] >= count for channel, count in each.opened.items()):
            for channel, count in each.opened.items():
                left[channel] -= count
            return each
        policy = dict(self._policy)
        for channel, reason in closed.items():
            policy[channel] = msgspec.structs.replace(policy[channel], closed=reason)
        return self._draft(each.claim, surveys, policy)

    def _wake(self, committed: Sequence[Committed]) -> None:
        for queue in (keyspace.STARTS, keyspace.REPLIES):
            waiting = [each.sender for each in committed if each.wake == queue]
            if waiting:
                self._bell.ring(queue, waiting)
        speaking = [each.sender for each in committed if each.speak]
        if speaking:
            self._bell.ring(keyspace.OUTBOUND, speaking)

    def _report(self, queue: str, drafts: Sequence[Draft], committed: Sequence[Committed], now: int) -> None:
        """Count and log what stood. Nothing here can undo it."""
        stood = [each for each, commit in zip(drafts, committed, strict=True) if commit.stood]
        metrics.TURNS.labels(queue, "committed").inc(len(stood))
        if len(stood) < len(drafts):
            metrics.TURNS.labels(queue, "stale").inc(len(drafts) - len(stood))
        if duplicates := sum(each.duplicates for each in stood):
            metrics.DUPLICATES.inc(duplicates)
        for each, commit in zip(drafts, committed, strict=True):
            if commit.withdrawn:
                self._note_withdrawn(each, commit, now)
        for channel, count in Counter(sms.channel for each in stood for sms in each.outbox).items():
            metrics.SMS_DECIDED.labels(channel).inc(count)
            self._door.count_sms(channel, count, now)
        for each in stood:
            self._report_lane(each)

    def _note_withdrawn(self, each: Draft, committed: Committed, now: int) -> None:
        """SMS that were taken back before they left: the archive says so."""
        records: list[Record] = []
        for entry in committed.withdrawn:
            sms = decode_outbound(headers.sms_in(entry))
            code = "stopped" if sms.channel in each.silenced else each.withdrawn.get(sms.session, "stopped")
            records.append(Unsent(now, sms.channel, sms.session, sms.id, code, WITHDRAWN[code]))
        self._lanes.archive(committed.sender, records)

    def _report_lane(self, each: Draft) -> None:
        for record in each.records:
            match record:
                case Opened(channel=channel, survey=survey):
                    metrics.SESSIONS_OPENED.labels(channel, survey).inc()
                case Ended(channel=channel, how=how):
                    metrics.SESSIONS_ENDED.labels(channel, "", how).inc()
                case Refused(channel=channel, reason=reason):
                    metrics.STARTS_REFUSED.labels(channel, reason).inc()
                case Delivered(channel=channel, state=state):
                    metrics.RECEIPTS.labels(channel, state or "other").inc()
                case OptedOut(channel=channel):
                    log.info(
                        "opted out", channel=channel, sender=hash_sender(self._log_key, each.claim.sender)
                    )
                case _:
                    pass
        for letter in each.dead:
            metrics.DEAD_LETTERS.labels(letter.reason).inc()
            log.error(
                "dead letter",
                id=letter.id, reason=letter.reason, attempts=letter.attempts, channel=letter.channel,
                sender=hash_sender(self._log_key, letter.sender), todo=f"parley dead show {letter.id}",
            )  # fmt: skip


def _other(queue: str) -> str:
    return keyspace.REPLIES if queue == keyspace.STARTS else keyspace.STARTS
