"""Claims lanes and commits drafts of them. Between the two, the holder of the claim is the only one who may change a lane.

Many lanes travel in one round trip. `_commit_command` packs what a turn came to, effect by effect; a lane's state and
its mail stay opaque bytes here.
"""

from collections.abc import Collection, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Literal

import msgspec
import redis
import structlog

from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client, stored_values
from config.store.counts.campaigns import DEAD_LETTER, states_by_session
from config.store.event_entries import compact_records
from config.store.function_calls import Command, function_call
from config.store.missing_rights import explain_refusal
from config.store.server_functions import (
    AddedDeadLetter,
    ChangedOptOut,
    Claim,
    ClaimedLane,
    ClaimForReplay,
    Commit,
    CommitLane,
    IndexedSession,
    RareEffects,
    ReleaseKept,
    ReplayedLane,
    ResolvedDeadLetter,
    SessionStateChange,
    Withdrawal,
)
from config.telemetry import faults
from engine.model.effects import WITHDRAWAL_REASONS, Effects, WithdrawalCode
from engine.model.events import ArchiveRecord, Invitation, OutboundSms, decode_inbound, encode_event
from workers.store import applied_events
from workers.store.clock_difference import AGREED, ClockVerdict, ServerClockJudge
from workers.store.dead_letter_store import DeadLetter, encode_dead_letter
from workers.store.failovers import FailoverGuard
from workers.store.optouts import OptOutList, OptOutsByChannel, decode_opt_outs
from workers.store.session_records import group_by_session

log = structlog.get_logger()

MAX_CLAIMED_MAIL = 64
"""Entries of one mailbox a claim takes at the most, so that a hot sender does not keep others waiting."""

MAX_MAIL_INSPECTED = 1_000
"""Entries of a mailbox that are looked at, for a STOP among them, before a dead letter is replayed."""

DEFAULT_SESSION_MS = 48 * 3_600_000
"""How long a session is taken to last if nothing says how long its lane is kept."""

_MAIL_KIND_OF_QUEUE = {
    keyspace.STARTS_QUEUE: keyspace.START_PREFIX,
    keyspace.REPLIES_QUEUE: keyspace.REPLY_PREFIX,
}


class LaneClaim(msgspec.Struct, frozen=True):
    """A lane that is ours until the lease ends: its state as stored, and its oldest mail.

    `attempts` counts this claim and those before it that were never committed, which were made at `earlier_claims_ms`;
    `now` is the server's time in ms. `opted_out` is what the list of opt-outs says, which the state may not know. Events that
    were applied before `forget_before` (ms) need not be remembered any more; `repeated` are those in the mail, by id, that
    were applied before, though the state may not remember them. `loss_possible`: a server that has lost its tail may have
    applied the mail before, so that SMS which are decided now may have left.
    """

    sender: str
    fence: int
    attempts: int
    now: int
    state: bytes
    mail: list[bytes]
    opted_out: OptOutsByChannel = {}
    earlier_claims_ms: Sequence[int] = ()
    forget_before: int = 0
    repeated: frozenset[str] = frozenset()
    clock: ClockVerdict = AGREED
    loss_possible: bool = False


class ReplayClaim(msgspec.Struct, frozen=True):
    """A lane claimed to replay one of its dead letters. Fields as in LaneClaim, except: `mail` is only inspected and
    stays in the mailbox."""

    sender: str
    fence: int
    now: int
    state: bytes
    letter: bytes
    mail: list[bytes]
    opted_out: OptOutsByChannel = {}
    clock: ClockVerdict = AGREED


class KeptDeadLetter(msgspec.Struct, frozen=True):
    """An update of a dead letter that is kept after an attempt to replay it. `by` and `outcome` go to the audit (empty
    outcome: no entry); `letter` replaces its content unless empty; `fence` is 0 if its lane was not claimed."""

    sender: str
    fence: int
    id: str
    by: str
    outcome: str
    letter: bytes = b""


class ClaimResult(msgspec.Struct):
    """The answer to a claim: `suspects` must be claimed alone, the mail of `other_queue` belongs to the other queue."""

    claimed: list[LaneClaim] = []
    suspects: list[str] = []
    other_queue: list[str] = []


class DeadLetterResolution(msgspec.Struct, frozen=True):
    """The audit entry of a dead letter that the commit removes."""

    id: str
    by: str
    outcome: str


class LaneDraft(msgspec.Struct, kw_only=True):
    """What a claimed lane is to become, in one commit, all of it or nothing: its `state`, and the `effects` of the turn.
    `dead_letters` are added; nothing is committed unless each letter of `resolutions` is still there, which goes. A lane that is
    `given_back` stays what it is, and its mail waits for the next claim."""

    claim: LaneClaim
    state: bytes
    effects: Effects = msgspec.field(default_factory=Effects)
    dead_letters: list[DeadLetter] = []
    resolutions: list[DeadLetterResolution] = []
    given_back: bool = False

    @property
    def applied(self) -> int:
        """How many entries leave the mailbox: those claimed. The event of a dead letter is in no mailbox."""
        return 0 if self.resolutions or self.given_back else len(self.claim.mail)

    @property
    def has_rare_effects(self) -> bool:
        """Return whether there is anything that most drafts have nothing of: what `_rare_effects` packs."""
        effects = self.effects
        return bool(
            effects.sessions
            or effects.silenced
            or effects.withdrawn
            or effects.opt_outs
            or effects.displaced_events
            or self.dead_letters
            or self.resolutions
            or self.session_states
        )

    @property
    def session_states(self) -> dict[str, str]:
        """The states of the sessions that it changes, as campaigns count them."""
        put_aside = dict.fromkeys(filter(None, map(_invited_by, self.dead_letters)), DEAD_LETTER)
        return put_aside | states_by_session(self.effects.records)

    def merge_later(self, later: "LaneDraft") -> None:
        """Take in what the same lane's next mail came to."""
        self.state = later.state
        self.effects.merge_later(later.effects)
        self.dead_letters += later.dead_letters


class CommitResult(msgspec.Struct, frozen=True):
    """The answer to a commit. If not `succeeded`, another had claimed the lane, and nothing has changed; if `unknown`, nobody
    has said whether it did.

    `wake_queues` are those that its remaining mail wants, `wake_delivery` whether its outbox wants a delivery worker, unless the commit
    itself has rung for them.
    """

    sender: str
    succeeded: bool
    wake_queues: Sequence[str] = ()
    wake_delivery: bool = False
    unknown: bool = False


class LaneStore:
    """The lanes in one Redis, `shards` of them to a slot, which rings bells in `bells_database` itself. An event is known for `repeat_ms` after it was applied; the event
    stream may have what happened for `longest_stream_ms`, and has it compact if this `compacts_records`."""

    def __init__(
        self,
        client: redis.Redis,
        shards: int,
        optouts: OptOutList,
        lease_ms: int = stored_values.LANE_LEASE_MS,
        repeat_ms: int = stored_values.REPEAT_MS,
        longest_stream_ms: int = keyspace.UNARCHIVED_STREAM_MS,
        channels: Collection[str] = (),
        host: Host = THIS_HOST,
        bells_database: keyspace.BellsDatabase = "",
        *,
        compacts_records: bool = False,
    ) -> None:
        self.client = client
        self._compacts_records = compacts_records
        self._bells_database = bells_database
        self._failovers = FailoverGuard(client, channels)
        self._optouts = optouts
        self._shards = shards
        self._longest_stream_ms = longest_stream_ms
        self._lease_ms = lease_ms
        self._repeat_ms = repeat_ms
        self._clock = ServerClockJudge(host)
        self._token_hex = host.token_hex

    def look_at_clock(self) -> None:
        """Compare the server's clock with this machine's: from now on a step of the server's is known for one. Raises
        RedisError."""
        asked_s = self._clock.asked_at_s()
        self._clock.judge(redis_client.server_time_ms(self.client), asked_s)

    def claim(self, queue: str, senders: Sequence[str]) -> ClaimResult:
        """Claim what can be claimed of these lanes, each with its oldest mail for `queue`. Those whose server is away, while
        others of a cluster are not, are left to their alarms."""
        return self._claim_lanes(queue, senders, suspects=False)

    def claim_suspect(self, queue: str, sender: str) -> ClaimResult:
        """Claim a lane whose last holder never came back."""
        return self._claim_lanes(queue, [sender], suspects=True)

    def _claim_lanes(self, queue: str, senders: Sequence[str], *, suspects: bool) -> ClaimResult:
        owner = self._token_hex(8)
        groups = keyspace.group_by_shard(senders, str, self._shards)
        asked_s = self._clock.asked_at_s()
        answers = self._failovers.run_commands(
            groups,
            [
                function_call(
                    Claim(
                        fence=keyspace.fence_key(k),
                        lane_alarms=keyspace.lane_alarms_key(k),
                        optouts=keyspace.optouts_key(k),
                        server=keyspace.server_key(k),
                        owner=owner,
                        mail_kind=_MAIL_KIND_OF_QUEUE[queue],
                        max_mail=MAX_CLAIMED_MAIL,
                        lease_ms=self._lease_ms,
                        take_suspects=1 if suspects else 0,
                        lanes=[self._claimed_lane(k, sender) for sender in group],
                    )
                )
                for k, group in groups.items()
            ],
        )
        claims = ClaimResult()
        with_older_events: list[LaneClaim] = []
        for (k, group), of_shard in zip(groups.items(), answers, strict=True):
            if isinstance(of_shard, Exception):
                continue
            self._failovers.remember_fences(k, of_shard)
            for sender, answer in zip(group, of_shard, strict=True):
                claim = self._add_claim_answer(claims, sender, answer, asked_s)
                if claim is not None:
                    with_older_events.append(claim)
        if with_older_events:
            claims.claimed += self.mark_repeats(with_older_events)
        faults.reach("after_claim")
        return claims

    def _add_claim_answer(
        self, claims: ClaimResult, sender: str, answer: Any, asked_s: float
    ) -> LaneClaim | None:
        """Add the server's answer for one lane to `claims`, or return the claim if its mail may be known. A lane whose opt-out
        entry cannot be read is not claimed: its lease runs out, and after MAX_CLAIM_ATTEMPTS it is given up like any lane
        that fails."""
        match answer:
            case 0 | 1:
                pass
            case 2:
                claims.other_queue.append(sender)
            case 3:
                claims.suspects.append(sender)
            case [fence, attempts, now, state, opt_outs, before, older_events, loss_possible, *mail]:
                known = decode_opt_outs(opt_outs) if opt_outs else {}
                if known is None:
                    return None
                clock = self._clock.judge(now, asked_s)
                claim = LaneClaim(
                    sender,
                    fence,
                    attempts,
                    now,
                    state,
                    mail,
                    known,
                    _parse_claim_times(before),
                    self._forget_before(now, clock),
                    clock=clock,
                    loss_possible=bool(loss_possible),
                )
                if older_events:
                    return claim
                claims.claimed.append(claim)
        return None

    def _forget_before(self, now: int, clock: ClockVerdict) -> int:
        """Return before when (ms) an applied event is forgotten: none while a clock is wrong, which may be ahead by days."""
        return 0 if clock.hold_deadlines else now - self._repeat_ms

    def mark_repeats(self, claims: Sequence[LaneClaim]) -> list[LaneClaim]:
        """Look up which of the mail was applied before, though no lane's state says so. A claim is left out, and its lease runs
        out, whose server has gone away meanwhile."""
        found = applied_events.find_repeats(
            self.client, self._shards, self._optouts, [(each.sender, each.mail) for each in claims]
        )
        return [
            msgspec.structs.replace(claim, repeated=repeated) if repeated else claim
            for claim, repeated in zip(claims, found, strict=True)
            if repeated is not None
        ]

    def _claimed_lane(self, k: int, sender: str) -> ClaimedLane:
        number_hash = self._optouts.hash_number(sender)
        return ClaimedLane(
            mailbox=keyspace.mailbox_key(k, sender),
            lane=keyspace.lane_key(k, sender),
            lane_lock=keyspace.lane_lock_key(k, sender),
            applied_events=keyspace.applied_events_key(k, number_hash),
            sender=sender,
            number_hash=number_hash,
        )

    def claim_for_replay(
        self, owner: str, letters: Sequence[tuple[str, str]]
    ) -> list[ReplayClaim | Literal["gone", "held"]]:
        """Claim lanes for these (sender, id) dead letters, one a sender. Answers in their order."""
        faults.reach("before_reopen")
        groups = keyspace.group_by_shard(letters, itemgetter(0), self._shards)
        asked_s = self._clock.asked_at_s()
        answers = redis_client.run_commands(
            self.client,
            [
                function_call(
                    ClaimForReplay(
                        fence=keyspace.fence_key(k),
                        lane_alarms=keyspace.lane_alarms_key(k),
                        optouts=keyspace.optouts_key(k),
                        dead_letters=keyspace.dead_letters_key(k),
                        owner=owner,
                        lease_ms=self._lease_ms,
                        max_mail=MAX_MAIL_INSPECTED,
                        lanes=[self._replayed_lane(k, *each) for each in group],
                    )
                )
                for k, group in groups.items()
            ],
        )
        faults.reach("after_reopen")
        in_groups = zip(chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True)
        reopened = {
            sender: _parse_replay_claim(sender, answer, self._clock, asked_s)
            for (sender, _), answer in in_groups
        }
        return [reopened[sender] for sender, _ in letters]

    def _replayed_lane(self, k: int, sender: str, letter_id: str) -> ReplayedLane:
        return ReplayedLane(
            mailbox=keyspace.mailbox_key(k, sender),
            lane=keyspace.lane_key(k, sender),
            lane_lock=keyspace.lane_lock_key(k, sender),
            sender=sender,
            number_hash=self._optouts.hash_number(sender),
            letter_id=letter_id,
        )

    def release_kept(self, stays: Sequence[KeptDeadLetter]) -> list[Sequence[str]]:
        """Release the claims of lanes whose dead letters are kept. Return for each the queues that its mail needs now."""
        if not stays:
            return []
        faults.reach("before_stay")
        answers = redis_client.run_commands(self.client, [self._release_kept_command(each) for each in stays])
        faults.reach("after_stay")
        return [keyspace.QUEUES_BY_NUMBER.get(answer, ()) for answer in answers]

    def _release_kept_command(self, each: KeptDeadLetter) -> Command:
        k = keyspace.shard_of(each.sender, self._shards)
        return function_call(
            ReleaseKept(
                lane_alarms=keyspace.lane_alarms_key(k),
                dead_letters=keyspace.dead_letters_key(k),
                dead_letter_index=keyspace.dead_letter_index_key(k),
                dead_letter_reasons=keyspace.dead_letter_reasons_key(k),
                dead_letter_audit=keyspace.dead_letter_audit_key(k),
                mailbox=keyspace.mailbox_key(k, each.sender),
                lane=keyspace.lane_key(k, each.sender),
                lane_lock=keyspace.lane_lock_key(k, each.sender),
                sender=each.sender,
                fence=each.fence,
                letter_id=each.id,
                by=each.by,
                outcome=each.outcome,
                letter=each.letter,
                call=self._token_hex(8),
            )
        )

    def commit(self, drafts: Sequence[LaneDraft]) -> list[CommitResult]:
        """Commit each lane, all of its draft or nothing of it. Answers in the order of the drafts, `unknown` for those whose server
        is away, while others of a cluster are not."""
        faults.reach("before_commit")
        groups = keyspace.group_by_shard(drafts, _sender_of, self._shards)
        answers = self._failovers.run_commands(
            groups, [self._commit_command(k, group) for k, group in groups.items()]
        )
        faults.reach("after_commit")
        committed: dict[str, CommitResult] = {}
        for group, of_shard in zip(groups.values(), answers, strict=True):
            for at, draft in enumerate(group):
                sender = draft.claim.sender
                committed[sender] = (
                    CommitResult(sender, succeeded=False, unknown=True)
                    if isinstance(of_shard, Exception)
                    else _parse_commit_result(sender, of_shard[at])
                )
        return [committed[draft.claim.sender] for draft in drafts]

    def _commit_command(self, k: int, drafts: Sequence[LaneDraft]) -> Command:
        return function_call(
            Commit(
                lane_alarms=keyspace.lane_alarms_key(k),
                outbox_alarms=keyspace.outbox_alarms_key(k),
                events=keyspace.events_key(k),
                dead_letters=keyspace.dead_letters_key(k),
                dead_letter_index=keyspace.dead_letter_index_key(k),
                optouts=keyspace.optouts_key(k),
                dead_letter_reasons=keyspace.dead_letter_reasons_key(k),
                dead_letter_audit=keyspace.dead_letter_audit_key(k),
                server=keyspace.server_key(k),
                campaigns=keyspace.campaigns_key(k),
                campaign_sessions=keyspace.campaign_sessions_key(k),
                keep_applied_ms=self._repeat_ms,
                bells_database=self._bells_database,
                lanes=[self._commit_lane(k, draft) for draft in drafts],
            )
        )

    def _commit_lane(self, k: int, draft: LaneDraft) -> CommitLane:
        claim, effects = draft.claim, draft.effects
        sender = claim.sender
        return CommitLane(
            mailbox=keyspace.mailbox_key(k, sender),
            lane=keyspace.lane_key(k, sender),
            lane_lock=keyspace.lane_lock_key(k, sender),
            outbox=keyspace.outbox_key(k, sender),
            outbox_lock=keyspace.outbox_lock_key(k, sender),
            sender=sender,
            fence=claim.fence,
            applied=draft.applied,
            deadline=_ms_or_unchanged(effects.alarm),
            keep_until=self._keep_lane_until(draft),
            state=draft.state,
            records=[self._write_records(each) for each in group_by_session(effects.records)],
            outbox_entries=[
                stored_values.outbox_entry(sms.channel, encode_event(sms)) for sms in _outbox_of(draft)
            ],
            rare=self._rare_effects(k, draft) if draft.has_rare_effects else None,
        )

    def _write_records(self, records: Sequence[ArchiveRecord]) -> bytes:
        written: bytes = encode_event(records)
        return compact_records(written) if self._compacts_records else written

    def _keep_lane_until(self, draft: LaneDraft) -> int | Literal["-"]:
        """Return until when (ms) the lane is kept, with the events that it remembers; 0 is for ever, as while anything is
        open."""
        if draft.effects.has_open:
            return 0
        until = draft.effects.keep_until
        return max(until, draft.claim.now + self._repeat_ms) if until else _ms_or_unchanged(until)

    def _rare_effects(self, k: int, draft: LaneDraft) -> RareEffects:
        """Gather what most commits have nothing of; a commit without any sends none of it, as Redis clients charge for
        every argument."""
        effects, sender = draft.effects, draft.claim.sender
        number_hash = self._optouts.hash_number(sender)
        return RareEffects(
            applied_events=keyspace.applied_events_key(k, number_hash),
            number_hash=number_hash if effects.opt_outs else "",
            displaced_events=applied_events.pack_events(self._optouts, sender, effects.displaced_events),
            sessions=[self._indexed_session(k, draft, *each) for each in effects.sessions],
            silenced_channels=[_withdrawal(channel, "stopped") for channel in effects.silenced],
            withdrawn_sessions=[_withdrawal(*each) for each in effects.withdrawn.items()],
            dead_letters=[
                AddedDeadLetter(id=each.id, content=each.content)
                for each in map(encode_dead_letter, draft.dead_letters)
            ],
            opt_outs=[
                ChangedOptOut(channel=channel, at_ms=at, source=source)
                for channel, (at, source) in effects.opt_outs.items()
            ],
            resolutions=[
                ResolvedDeadLetter(id=each.id, by=each.by, outcome=each.outcome) for each in draft.resolutions
            ],
            session_states=[
                SessionStateChange(id=session, state=state) for session, state in draft.session_states.items()
            ],
        )

    def _indexed_session(self, k: int, draft: LaneDraft, identity: str, at: int) -> IndexedSession:
        """Index a session ("since sender") until its expiry (ms): when the event stream has nothing of it any more, unless
        its archive is behind."""
        return IndexedSession(
            session=keyspace.session_key(k, identity),
            location=f"{at} {draft.claim.sender}",
            until_ms=(draft.effects.keep_until or at + DEFAULT_SESSION_MS) + self._longest_stream_ms,
        )


def _invited_by(letter: DeadLetter) -> str:
    """The session that the event of a dead letter invites to; empty if it is no invitation, or cannot be read."""
    try:
        event = decode_inbound(stored_values.parse_mail(letter.what)[1]) if letter.kind == "event" else None
    except (msgspec.MsgspecError, ValueError):
        return ""
    return event.id if isinstance(event, Invitation) else ""


def _sender_of(draft: LaneDraft) -> str:
    return draft.claim.sender


def _outbox_of(draft: LaneDraft) -> Sequence[OutboundSms]:
    """The SMS to send; each marked as uncertain if it may have been decided, and have left, before."""
    sms = draft.effects.outbox
    return (
        [msgspec.structs.replace(each, uncertain=True) for each in sms] if draft.claim.loss_possible else sms
    )


def _withdrawal(name: str, code: WithdrawalCode) -> Withdrawal:
    return Withdrawal(name=name, code=code, why=WITHDRAWAL_REASONS[code])


def _parse_claim_times(before: bytes) -> Sequence[int]:
    """Of claims."""
    return [int(ms) for ms in before.split(b",")] if before else ()


def _parse_replay_claim(
    sender: str, answer: Any, clock: ServerClockJudge, asked_s: float
) -> ReplayClaim | Literal["gone", "held"]:
    """One of whose opt-outs nothing can be read is taken for one who is held."""
    match answer:
        case 0:
            return "gone"
        case [fence, now, state, opt_outs, letter, *mail]:
            known = decode_opt_outs(opt_outs) if opt_outs else {}
            if known is None:
                return "held"
            return ReplayClaim(sender, fence, now, state, letter, mail, known, clock.judge(now, asked_s))
        case _:
            return "held"


def _ms_or_unchanged(ms: int | None) -> int | Literal["-"]:
    return "-" if ms is None else ms


def _parse_commit_result(sender: str, answer: list[Any] | redis.ResponseError) -> CommitResult:
    if isinstance(answer, redis.ResponseError):
        log.error(
            "a lane cannot be committed; it is tried again when its lease ends",
            error=str(explain_refusal(answer)),
        )
        return CommitResult(sender, succeeded=False)
    if not answer[0]:
        return CommitResult(sender, succeeded=False)
    return CommitResult(sender, True, keyspace.QUEUES_BY_NUMBER[answer[1]], bool(answer[2]))
