"""How is a lane claimed and committed? Between the two, its holder is the only one who may change it.

Many lanes travel in one round trip, and nothing here looks inside a state, an event or an SMS.
"""

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Literal

import msgspec
import redis
import structlog

from config.store import keyspace, stored_values
from config.telemetry import faults
from engine.model.events import ArchiveRecord, encode_event
from workers.store.optouts import OptOutList, decode_opt_out_times
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

    `attempts` counts this claim and those before it that were never committed, which were made at `before` (ms); `now`
    is the server's time in ms. `opted_out` is what the list of opt-outs says of someone who has no state: channel ->
    since when (ms).
    """

    sender: str
    fence: int
    attempts: int
    now: int
    state: bytes
    mail: list[bytes]
    opted_out: dict[str, int] = {}
    earlier_claims_ms: Sequence[int] = ()


class ReplayClaim(msgspec.Struct, frozen=True):
    """A lane that is ours for one of its dead letters. Fields as in Claim, but that `mail` waits for others and is only
    looked at, and that `opted_out` is what the list says whatever the state is."""

    sender: str
    fence: int
    now: int
    state: bytes
    letter: bytes
    mail: list[bytes]
    opted_out: dict[str, int] = {}


class KeptDeadLetter(msgspec.Struct, frozen=True):
    """Of a dead letter that stays: by whom it was tried, with what outcome for the audit (empty: none yet), and itself if
    it has changed. `fence` is 0 if its lane could not be claimed."""

    sender: str
    fence: int
    id: str
    by: str
    outcome: str
    letter: bytes = b""


class ClaimResult(msgspec.Struct):
    """What came of claiming: `suspects` must be claimed alone, `other_queue` belong to the other queue."""

    claimed: list[LaneClaim] = []
    suspects: list[str] = []
    other_queue: list[str] = []


class EncodedDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter: its id, and its encoded content."""

    id: str
    content: bytes


class DeadLetterResolution(msgspec.Struct, frozen=True):
    """What the audit says of a dead letter that goes."""

    id: str
    by: str
    outcome: str


class LaneDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane becomes, in one commit. `applied` mail entries leave the mailbox. `deadline` and `keep_until` are ms:
    0 for none and for ever, None for as they were. `silenced` channels and `withdrawn` sessions lose their queued SMS
    before `outbox` is added. Each of `records` becomes an entry of the archive. `sessions` (id, since when) are found by
    their ids from now on; `opt_outs` are as in engine.Advance. Nothing is committed unless each letter of `dealt` is still
    there; it goes."""

    sender: str
    fence: int
    applied: int
    state: bytes
    deadline: int | None = None
    keep_until: int | None = None
    records: Sequence[bytes] = ()
    silenced: Collection[str] = ()
    withdrawn: Collection[str] = ()
    opt_outs: Mapping[str, tuple[int, str]] = {}
    sessions: Sequence[tuple[str, int]] = ()
    outbox: Sequence[tuple[str, bytes]] = ()
    dead_letters: Sequence[EncodedDeadLetter] = ()
    resolutions: Sequence[DeadLetterResolution] = ()

    @property
    def has_rare_effects(self) -> bool:
        """Has it anything that most decisions have nothing of?"""
        return bool(
            self.sessions
            or self.silenced
            or self.withdrawn
            or self.dead_letters
            or self.opt_outs
            or self.resolutions
        )


class CommitResult(msgspec.Struct, frozen=True):
    """What came of a commit. If not `succeeded`, another had claimed the lane, and nothing has changed.

    `wake_queue` is the queue that its remaining mail wants, `wake_delivery` whether its outbox wants a delivery worker.
    """

    sender: str
    succeeded: bool
    wake_queue: str | None = None
    wake_delivery: bool = False
    withdrawn_entries: Sequence[bytes] = ()


class LaneStore:
    """The lanes in one Redis, `shards` of them to a slot."""

    def __init__(
        self,
        client: redis.Redis,
        shards: int,
        keep_events_ms: int,
        optouts: OptOutList,
        lease_ms: int = stored_values.LANE_LEASE_MS,
    ) -> None:
        self.client = client
        self._optouts = optouts
        self._shards = shards
        self._keep_events_ms = keep_events_ms
        self._lease_ms = lease_ms

    def archive_records(self, sender: str, records: Sequence[ArchiveRecord]) -> None:
        """Add records to the archive that no commit carries, unless the person has been erased since."""
        k = keyspace.shard_of(sender, self._shards)
        keys = [keyspace.events_key(k), keyspace.lane_key(k, sender)]
        keyspace.run_commands(
            self.client,
            [
                keyspace.function_call("note", keys, (sender, self._keep_events_ms, encode_event(entry)))
                for entry in group_by_session(records)
            ],
        )

    def claim(self, queue: str, senders: Sequence[str]) -> ClaimResult:
        """Claim what can be claimed of these lanes, each with its oldest mail for `queue`."""
        return self._claim_lanes(queue, senders, suspects=False)

    def claim_suspect(self, queue: str, sender: str) -> ClaimResult:
        """Claim a lane whose last holder never came back."""
        return self._claim_lanes(queue, [sender], suspects=True)

    def _claim_lanes(self, queue: str, senders: Sequence[str], *, suspects: bool) -> ClaimResult:
        options = (
            secrets.token_hex(8),
            _MAIL_KIND_OF_QUEUE[queue],
            MAX_CLAIMED_MAIL,
            self._lease_ms,
            int(suspects),
        )
        groups = keyspace.group_by_shard(senders, str, self._shards)
        answers = keyspace.run_commands(
            self.client,
            [
                keyspace.function_call(
                    "claim", _claim_keys(k, group), chain(options, self._claim_arguments(group))
                )
                for k, group in groups.items()
            ],
        )
        claims = ClaimResult()
        for sender, answer in zip(
            chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True
        ):
            _add_claim_answer(claims, sender, answer)
        faults.reach("after_claim")
        return claims

    def _claim_arguments(self, senders: Iterable[str]) -> Iterator[str]:
        """Each by number, and as the list of opt-outs has them."""
        for sender in senders:
            yield sender
            yield self._optouts.hash_number(sender)

    def claim_for_replay(
        self, owner: str, letters: Sequence[tuple[str, str]]
    ) -> list[ReplayClaim | Literal["gone", "held"]]:
        """Claim lanes for these (sender, id) dead letters, one a sender. Answers in their order."""
        faults.reach("before_reopen")
        options = (owner, self._lease_ms, MAX_MAIL_INSPECTED)
        groups = keyspace.group_by_shard(letters, itemgetter(0), self._shards)
        answers = keyspace.run_commands(
            self.client,
            [
                keyspace.function_call(
                    "reopen",
                    _replay_claim_keys(k, group),
                    chain(options, self._replay_claim_arguments(group)),
                )
                for k, group in groups.items()
            ],
        )
        faults.reach("after_reopen")
        in_groups = zip(chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True)
        reopened = {sender: _parse_replay_claim(sender, answer) for (sender, _), answer in in_groups}
        return [reopened[sender] for sender, _ in letters]

    def _replay_claim_arguments(self, letters: Iterable[tuple[str, str]]) -> Iterator[str]:
        for sender, letter in letters:
            yield from (sender, self._optouts.hash_number(sender), letter)

    def release_kept(self, stays: Sequence[KeptDeadLetter]) -> list[str | None]:
        """Let go of lanes whose dead letters stay. Answers, for each, the queue that its mail wants now."""
        if not stays:
            return []
        faults.reach("before_stay")
        answers = keyspace.run_commands(self.client, [self._release_kept_command(each) for each in stays])
        faults.reach("after_stay")
        return [keyspace.QUEUE_BY_NUMBER.get(answer) for answer in answers]

    def _release_kept_command(self, each: KeptDeadLetter) -> keyspace.Command:
        k = keyspace.shard_of(each.sender, self._shards)
        keys = [
            keyspace.lane_alarms_key(k), keyspace.dead_letters_key(k), keyspace.dead_letter_index_key(k), keyspace.dead_letter_reasons_key(k),
            keyspace.dead_letter_audit_key(k), keyspace.mailbox_key(k, each.sender), keyspace.lane_key(k, each.sender),
            keyspace.lane_lock_key(k, each.sender),
        ]  # fmt: skip
        return keyspace.function_call(
            "stay", keys, (each.sender, each.fence, each.id, each.by, each.outcome, each.letter)
        )

    def commit(self, decisions: Sequence[LaneDecision]) -> list[CommitResult]:
        """Commit each lane, all of its decision or nothing of it. Answers in the order of the decisions."""
        faults.reach("before_commit")
        groups = keyspace.group_by_shard(decisions, attrgetter("sender"), self._shards)
        answers = keyspace.run_commands(
            self.client, [self._commit_command(k, group) for k, group in groups.items()]
        )
        faults.reach("after_commit")
        in_groups = zip(chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True)
        committed = {
            decision.sender: _parse_commit_result(decision.sender, answer) for decision, answer in in_groups
        }
        return [committed[decision.sender] for decision in decisions]

    def _commit_command(self, k: int, decisions: Sequence[LaneDecision]) -> keyspace.Command:
        args: list[Any] = [self._keep_events_ms]
        for decision in decisions:
            args += (
                decision.sender, decision.fence, decision.applied, _ms_or_unchanged(decision.deadline),
                _ms_or_unchanged(decision.keep_until), decision.state,
                len(decision.records), *decision.records,
                len(decision.outbox), *(stored_values.outbox_entry(*each) for each in decision.outbox),
            )  # fmt: skip
            args += self._rare_arguments(decision) if decision.has_rare_effects else (0,)
        return keyspace.function_call("commit", _commit_keys(k, decisions), args)

    def _rare_arguments(self, decision: LaneDecision) -> Iterator[Any]:
        """What most commits have nothing of. Redis clients charge for every argument."""
        yield from (1, len(decision.sessions), *self._session_index_arguments(decision))
        yield from (len(decision.silenced), *decision.silenced)
        yield from (len(decision.withdrawn), *decision.withdrawn)
        yield len(decision.dead_letters)
        for letter in decision.dead_letters:
            yield from (letter.id, letter.content)
        yield self._optouts.hash_number(decision.sender) if decision.opt_outs else ""
        yield len(decision.opt_outs)
        for channel, (at, source) in decision.opt_outs.items():
            yield from (channel, at, source)
        yield len(decision.resolutions)
        for dealt in decision.resolutions:
            yield from (dealt.id, dealt.by, dealt.outcome)

    def _session_index_arguments(self, decision: LaneDecision) -> Iterator[str | int]:
        """What each session's id leads to, and until when: as long as the archive has something of it."""
        for _, at in decision.sessions:
            yield f"{at} {decision.sender}"
            yield (decision.keep_until or at + DEFAULT_SESSION_MS) + self._keep_events_ms


@cache
def _claim_indexes(k: int) -> tuple[str, ...]:
    return keyspace.fence_key(k), keyspace.lane_alarms_key(k), keyspace.optouts_key(k)


@cache
def _commit_indexes(k: int) -> tuple[str, ...]:
    return (
        keyspace.lane_alarms_key(k), keyspace.outbox_alarms_key(k), keyspace.events_key(k), keyspace.dead_letters_key(k), keyspace.dead_letter_index_key(k),
        keyspace.optouts_key(k), keyspace.dead_letter_reasons_key(k), keyspace.dead_letter_audit_key(k),
    )  # fmt: skip


def _claim_keys(k: int, senders: Iterable[str]) -> list[str]:
    keys = [*_claim_indexes(k)]
    for sender in senders:
        keys += (
            keyspace.mailbox_key(k, sender),
            keyspace.lane_key(k, sender),
            keyspace.lane_lock_key(k, sender),
        )
    return keys


def _replay_claim_keys(k: int, letters: Iterable[tuple[str, str]]) -> list[str]:
    keys = [*_claim_indexes(k), keyspace.dead_letters_key(k)]
    for sender, _ in letters:
        keys += (
            keyspace.mailbox_key(k, sender),
            keyspace.lane_key(k, sender),
            keyspace.lane_lock_key(k, sender),
        )
    return keys


def _commit_keys(k: int, decisions: Iterable[LaneDecision]) -> list[str]:
    keys = [*_commit_indexes(k)]
    for decision in decisions:
        sender = decision.sender
        keys += (
            keyspace.mailbox_key(k, sender), keyspace.lane_key(k, sender), keyspace.lane_lock_key(k, sender),
            keyspace.outbox_key(k, sender), keyspace.outbox_lock_key(k, sender),
        )  # fmt: skip
        for identity, _ in decision.sessions:
            keys.append(keyspace.session_key(k, identity))
    return keys


def _add_claim_answer(claims: ClaimResult, sender: str, answer: Any) -> None:
    """One of whose opt-outs nothing can be read is left: the lease ends, and it is tried again and given up like any
    that fails."""
    match answer:
        case 0 | 1:
            pass
        case 2:
            claims.other_queue.append(sender)
        case 3:
            claims.suspects.append(sender)
        case [fence, attempts, now, state, opt_outs, before, *mail]:
            known = decode_opt_out_times(opt_outs) if opt_outs else {}
            if known is not None:
                claims.claimed.append(
                    LaneClaim(sender, fence, attempts, now, state, mail, known, _parse_claim_times(before))
                )


def _parse_claim_times(before: bytes) -> Sequence[int]:
    """Of claims; one by an earlier release, which did not say when it was, is left out."""
    return [int(ms) for ms in before.split(b",") if int(ms)] if before else ()


def _parse_replay_claim(sender: str, answer: Any) -> ReplayClaim | Literal["gone", "held"]:
    """One of whose opt-outs nothing can be read is taken for one who is held."""
    match answer:
        case 0:
            return "gone"
        case [fence, now, state, opt_outs, letter, *mail]:
            known = decode_opt_out_times(opt_outs) if opt_outs else {}
            return "held" if known is None else ReplayClaim(sender, fence, now, state, letter, mail, known)
        case _:
            return "held"


def _ms_or_unchanged(ms: int | None) -> int | str:
    return "-" if ms is None else ms


def _parse_commit_result(sender: str, answer: list[Any] | redis.ResponseError) -> CommitResult:
    if isinstance(answer, redis.ResponseError):
        log.error("a lane cannot be committed; it is tried again when its lease ends", error=str(answer))
        return CommitResult(sender, succeeded=False)
    if not answer[0]:
        return CommitResult(sender, succeeded=False)
    return CommitResult(sender, True, keyspace.QUEUE_BY_NUMBER.get(answer[1]), bool(answer[2]), answer[3:])
