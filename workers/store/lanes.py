"""Claims lanes and commits drafts of them. Between the two, the holder of the claim is the only one who may change a lane.

Many lanes travel in one round trip. `_commit_command` packs what a turn came to, effect by effect; a lane's state and
its mail stay opaque bytes here.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, Literal

import msgspec
import redis
import structlog

from config.store import keyspace, stored_values
from config.telemetry import faults
from engine.model.effects import Effects
from engine.model.events import ArchiveRecord, encode_event
from workers.store.dead_letter_store import DeadLetter, encode_dead_letter
from workers.store.optouts import OptOutList, decode_opt_out_times
from workers.store.session_records import group_by_session

log = structlog.get_logger()

LANE_LEASE_MS = 5_000
"""How long a claim holds: after a kill -9, a lane waits this long and a tick of the clock."""

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
    `now` is the server's time in ms. `opted_out` is what the list of opt-outs says of someone who has no state: channel ->
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
    """A lane claimed to replay one of its dead letters. Fields as in LaneClaim, except: `mail` is only inspected and
    stays in the mailbox, and `opted_out` is the list's entry even if the lane has state."""

    sender: str
    fence: int
    now: int
    state: bytes
    letter: bytes
    mail: list[bytes]
    opted_out: dict[str, int] = {}


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
    `dead_letters` are added; nothing is committed unless each letter of `resolutions` is still there, which goes."""

    claim: LaneClaim
    state: bytes
    effects: Effects = msgspec.field(default_factory=Effects)
    dead_letters: list[DeadLetter] = []
    resolutions: list[DeadLetterResolution] = []

    @property
    def applied(self) -> int:
        """How many entries leave the mailbox: those claimed. The event of a dead letter is in no mailbox."""
        return 0 if self.resolutions else len(self.claim.mail)

    @property
    def has_rare_effects(self) -> bool:
        """Return whether there is anything that most drafts have nothing of: what `_rare_arguments` packs."""
        effects = self.effects
        return bool(
            effects.sessions
            or effects.silenced
            or effects.withdrawn
            or effects.opt_outs
            or self.dead_letters
            or self.resolutions
        )

    def merge_later(self, later: "LaneDraft") -> None:
        """Take in what the same lane's next mail came to."""
        self.state = later.state
        self.effects.merge_later(later.effects)
        self.dead_letters += later.dead_letters


class CommitResult(msgspec.Struct, frozen=True):
    """The answer to a commit. If not `succeeded`, another had claimed the lane, and nothing has changed.

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
        lease_ms: int = LANE_LEASE_MS,
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
        """Release the claims of lanes whose dead letters are kept. Return for each the queue that its mail needs now, or
        None."""
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

    def commit(self, drafts: Sequence[LaneDraft]) -> list[CommitResult]:
        """Commit each lane, all of its draft or nothing of it. Answers in the order of the drafts."""
        faults.reach("before_commit")
        groups = keyspace.group_by_shard(drafts, _sender_of, self._shards)
        answers = keyspace.run_commands(
            self.client, [self._commit_command(k, group) for k, group in groups.items()]
        )
        faults.reach("after_commit")
        in_groups = zip(chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True)
        committed = {
            draft.claim.sender: _parse_commit_result(draft.claim.sender, answer)
            for draft, answer in in_groups
        }
        return [committed[draft.claim.sender] for draft in drafts]

    def _commit_command(self, k: int, drafts: Sequence[LaneDraft]) -> keyspace.Command:
        args: list[Any] = [self._keep_events_ms]
        for draft in drafts:
            claim, effects = draft.claim, draft.effects
            records = group_by_session(effects.records)
            args += (
                claim.sender, claim.fence, draft.applied, _ms_or_unchanged(effects.alarm),
                _ms_or_unchanged(effects.keep_until), draft.state,
                len(records), *map(encode_event, records),
                len(effects.outbox), *(stored_values.outbox_entry(sms.channel, encode_event(sms)) for sms in effects.outbox),
            )  # fmt: skip
            args += self._rare_arguments(draft) if draft.has_rare_effects else (0,)
        return keyspace.function_call("commit", _commit_keys(k, drafts), args)

    def _rare_arguments(self, draft: LaneDraft) -> Iterator[Any]:
        """Yield what most commits have nothing of; a commit without any sends 0 instead, as Redis clients charge for
        every argument."""
        effects = draft.effects
        yield from (1, len(effects.sessions), *self._session_index_arguments(draft))
        yield from (len(effects.silenced), *effects.silenced)
        yield from (len(effects.withdrawn), *effects.withdrawn)
        yield len(draft.dead_letters)
        for letter in map(encode_dead_letter, draft.dead_letters):
            yield from (letter.id, letter.content)
        yield self._optouts.hash_number(draft.claim.sender) if effects.opt_outs else ""
        yield len(effects.opt_outs)
        for channel, (at, source) in effects.opt_outs.items():
            yield from (channel, at, source)
        yield len(draft.resolutions)
        for resolution in draft.resolutions:
            yield from (resolution.id, resolution.by, resolution.outcome)

    def _session_index_arguments(self, draft: LaneDraft) -> Iterator[str | int]:
        """Yield for each session its index value ("since sender") and its expiry (ms): when the archive has nothing of it
        any more."""
        for _, at in draft.effects.sessions:
            yield f"{at} {draft.claim.sender}"
            yield (draft.effects.keep_until or at + DEFAULT_SESSION_MS) + self._keep_events_ms


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


def _sender_of(draft: LaneDraft) -> str:
    return draft.claim.sender


def _commit_keys(k: int, drafts: Iterable[LaneDraft]) -> list[str]:
    keys = [*_commit_indexes(k)]
    for draft in drafts:
        sender = draft.claim.sender
        keys += (
            keyspace.mailbox_key(k, sender), keyspace.lane_key(k, sender), keyspace.lane_lock_key(k, sender),
            keyspace.outbox_key(k, sender), keyspace.outbox_lock_key(k, sender),
        )  # fmt: skip
        for identity, _ in draft.effects.sessions:
            keys.append(keyspace.session_key(k, identity))
    return keys


def _add_claim_answer(claims: ClaimResult, sender: str, answer: Any) -> None:
    """Add the server's answer for one lane to `claims`. A lane whose opt-out entry cannot be read is not claimed: its
    lease runs out, and after MAX_CLAIM_ATTEMPTS it is given up like any lane that fails."""
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
