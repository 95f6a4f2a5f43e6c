"""Runs turns: claims lanes, advances and commits them, many at a time.

The rate-limit worker turns the lanes whose head is a START, the conversation worker all others. Both do the same.
Sessions opened by STARTs need the channel's permission: they are drafted first, permits are taken for those that would
open, and the rest are drafted again with the channel closed. The engine is pure, so drafting twice costs microseconds and
spends no permit on a START that it refuses anyway. Invitations got their permits when they were released.

A lane whose worker died is taken up only by one that has made a turn: see self_test.py.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import prometheus_client
import redis
import structlog

from config.host import THIS_HOST, Host
from config.settings.channels import Channel, channel_policies
from config.store import keyspace, stored_values
from config.telemetry import metrics
from config.telemetry.logs import hash_sender
from engine.model.events import (
    AnswerRejected,
    OpeningRefused,
    PersonOptedOut,
    ReceiptRecorded,
    RefusalReason,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsReceived,
)
from engine.model.policy import ChannelPolicies
from engine.surveys.survey_registry import SurveyRegistry
from workers.store.channel_state import ChannelStore
from workers.store.lanes import CommitResult, LaneClaim, LaneDraft, LaneStore
from workers.turns.committing import (
    WorkerWaker,
    draft_with_versions,
    permit_drafts,
    wake_after_commit,
)
from workers.turns.self_test import run_self_test

log = structlog.get_logger()


class TurnRunner:
    """Claims, advances and commits the lanes of one worker. `handle_wakeup` is called with the senders of a wake-up."""

    def __init__(
        self,
        lanes: LaneStore,
        surveys: SurveyRegistry,
        channels: Mapping[str, Channel],
        channel_store: ChannelStore,
        waker: WorkerWaker,
        log_key: bytes,
        host: Host = THIS_HOST,
    ) -> None:
        self._lanes = lanes
        self._surveys = surveys
        self._policy: ChannelPolicies = channel_policies(channels)
        self._channel_store = channel_store
        self._waker = waker
        self._log_key = log_key
        self._host = host
        self._has_made_turn = False

    def handle_wakeup(self, queue: str, senders: Sequence[str]) -> None:
        """Turn each of these lanes whose oldest mail belongs to `queue`. Wake the other queue for lanes whose mail belongs
        there; claim a lane whose last holder died alone, once this worker is known to live through a turn."""
        begun_s = self._host.monotonic_s()
        claims = self._lanes.claim(queue, senders)
        self._turn_claims(queue, claims.claimed, begun_s)
        if claims.other_queue:
            self._waker.wake(_other_queue(queue), claims.other_queue)
        if claims.suspects and not self._has_made_turn:
            self._test_itself(queue)
        for sender in claims.suspects:
            begun_s = self._host.monotonic_s()
            suspect = self._lanes.claim_suspect(queue, sender)
            metrics.LEASES_LOST.labels(queue).inc(sum(claim.attempts > 1 for claim in suspect.claimed))
            self._turn_claims(queue, suspect.claimed, begun_s)

    def _test_itself(self, queue: str) -> None:
        """Make turns of nobody's. A worker that dies of any turn dies here, where no event is blamed for it."""
        log.warning(
            "a worker never came back from a lane: this one makes a turn of nobody's before it takes that "
            "up; if this is the last line of process after process, their release dies at whatever it does: "
            "take it back",
            queue=queue,
        )
        begun, passed = (metrics.SELF_TESTS.labels(queue, outcome) for outcome in ("begun", "passed"))
        begun.inc()
        surveys = self._surveys.snapshot()
        run_self_test(
            lambda claim: self._draft_claim(claim, surveys, self._policy), self._policy, self._host.wall_ms()
        )
        passed.inc()
        self._has_made_turn = True

    def _turn_claims(self, queue: str, claims: Sequence[LaneClaim], begun_s: float) -> None:
        if not claims:
            return
        surveys = self._surveys.snapshot()
        drafts = [self._draft_claim(claim, surveys, self._policy) for claim in claims]
        if any(each.effects.opened_by_channel for each in drafts):
            drafts = self._apply_session_limits(drafts, surveys)
        committed = self._lanes.commit(drafts)
        self._has_made_turn = True
        took_s = self._host.monotonic_s() - begun_s
        turned = [commit for each, commit in zip(drafts, committed, strict=True) if not each.given_back]
        wake_after_commit(self._waker, turned)
        self._report_commits(queue, drafts, committed, claims[0].now, took_s)

    def _draft_claim(self, claim: LaneClaim, surveys: SurveyRegistry, policy: ChannelPolicies) -> LaneDraft:
        try:
            return draft_with_versions(self._lanes.client, claim, surveys, policy)
        except redis.RedisError as e:
            log.warning("a lane waits, as its surveys cannot be read: Redis failed", error=type(e).__name__)
            return _give_back(claim)

    def _apply_session_limits(self, drafts: list[LaneDraft], surveys: SurveyRegistry) -> list[LaneDraft]:
        """Take session permits, and draft again, without opening sessions, each lane for which there was none. Lanes of a channel
        that cannot be asked wait for the next claim."""
        unasked: set[str] = set()

        def admit(channel: str, count: int, now: int) -> tuple[int, RefusalReason | None]:
            try:
                return self._channel_store.admit_sessions(channel, count, now)
            except redis.RedisError as e:
                log.warning("a channel opens nothing: Redis failed", channel=channel, error=type(e).__name__)
                unasked.add(channel)
                return count, None

        may, closed = permit_drafts(admit, drafts, drafts[0].claim.now)
        policy = dict(self._policy)
        for channel, reason in closed.items():
            policy[channel] = msgspec.structs.replace(policy[channel], closed=reason)
        permitted = [
            each if admitted else self._draft_claim(each.claim, surveys, policy)
            for each, admitted in zip(drafts, may, strict=True)
        ]
        return [
            _give_back(each.claim) if unasked & each.effects.opened_by_channel.keys() else each
            for each in permitted
        ]

    def _report_commits(
        self,
        queue: str,
        drafts: Sequence[LaneDraft],
        committed: Sequence[CommitResult],
        now: int,
        took_s: float,
    ) -> None:
        """Count and log what was committed, all lanes at once, as each number that is published costs a lock. Runs after
        the commit and changes no lane."""
        pairs = [
            (each, commit) for each, commit in zip(drafts, committed, strict=True) if not each.given_back
        ]
        stood = [each for each, commit in pairs if commit.succeeded]
        if unanswered := sum(commit.unknown for _, commit in pairs):
            log.warning(
                "turns are uncommitted, as a server is away; their leases end by themselves", turns=unanswered
            )
        metrics.TURNS.labels(queue, "committed").inc(len(stood))
        metrics.TURN_SECONDS.labels(queue).observe_times(took_s, len(stood))
        metrics.CLAIM_SECONDS.labels(queue).observe_many(_mail_waits_s(stood))
        if stale := sum(not commit.succeeded and not commit.unknown for _, commit in pairs):
            metrics.TURNS.labels(queue, "stale").inc(stale)
        if duplicates := sum(each.effects.duplicates for each in stood):
            metrics.DUPLICATES.inc(duplicates)
        decided = Counter(sms.channel for each in stood for sms in each.effects.outbox)
        for channel, count in decided.items():
            metrics.SMS_DECIDED.labels(channel).inc(count)
        unusual = [found for each in stood for found in _counter_increments(each)]
        for (counter, labels), count in Counter(unusual).items() if unusual else ():
            counter.labels(*labels).inc(count)
        for each in stood:
            if each.effects.opt_outs or each.dead_letters:
                self._log_opt_outs_and_dead_letters(each)
        for channel, count in decided.items():  # from here on Redis may fail
            self._count_sms(channel, count, now)

    def _count_sms(self, channel: str, count: int, now: int) -> None:
        try:
            self._channel_store.count_sms(channel, count, now)
        except redis.RedisError as e:
            log.warning(
                "SMS are not counted: Redis failed", channel=channel, sms=count, error=type(e).__name__
            )

    def _log_opt_outs_and_dead_letters(self, each: LaneDraft) -> None:
        for record in each.effects.records:
            if type(record) is PersonOptedOut:
                sender = hash_sender(self._log_key, each.claim.sender)
                log.info("opted out", channel=record.channel, sender=sender)
        for letter in each.dead_letters:
            log.error(
                "dead letter",
                id=letter.id, reason=letter.reason, attempts=letter.attempts, channel=letter.channel,
                sender=hash_sender(self._log_key, letter.sender), todo=f"parley dead show {letter.id}",
            )  # fmt: skip


def _give_back(claim: LaneClaim) -> LaneDraft:
    return LaneDraft(claim=claim, state=claim.state, given_back=True)


def _mail_waits_s(drafts: Sequence[LaneDraft]) -> Iterator[float]:
    """Yield, for each applied event, the seconds from its acceptance to its claim. Events whose header is damaged are left
    out."""
    for each in drafts:
        now = each.claim.now
        for entry in each.claim.mail:
            try:
                accepted = stored_values.mail_accepted_ms(entry)
            except ValueError:
                continue
            yield max(0, now - accepted) / 1_000


_UNCOUNTED_RECORDS = frozenset((SmsReceived, SmsDecided))
"""Records that increment no counter. Nearly all records are of these."""


def _counter_increments(each: LaneDraft) -> Iterator[tuple[prometheus_client.Counter, tuple[str, ...]]]:
    """Yield (counter, label values) for each record or dead letter of a lane that increments a counter."""
    survey_of = each.effects.survey_by_session
    for record in each.effects.records:
        if type(record) in _UNCOUNTED_RECORDS:
            continue
        match record:
            case SessionOpened(channel=channel, survey=survey):
                yield metrics.SESSIONS_OPENED, (channel, survey)
            case SessionEnded(channel=channel, session=session, how=how):
                yield metrics.SESSIONS_ENDED, (channel, survey_of.get(session, ""), how)
            case AnswerRejected(session=session, step=step):
                yield metrics.INVALID_ANSWERS, (survey_of.get(session, ""), step)
            case OpeningRefused(channel=channel, reason=reason):
                yield metrics.STARTS_REFUSED, (channel, reason)
            case ReceiptRecorded(channel=channel, state=state):
                yield metrics.RECEIPTS, (channel, state or "other")
            case _:
                pass
    for letter in each.dead_letters:
        yield metrics.DEAD_LETTERS, (letter.reason,)


def _other_queue(queue: str) -> str:
    return keyspace.REPLIES_QUEUE if queue == keyspace.STARTS_QUEUE else keyspace.STARTS_QUEUE
