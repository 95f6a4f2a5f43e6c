"""Replays dead letters, each as a turn of its own: the lane is claimed with the very lock that workers take, the letter's
event is the only mail, and the commit that applies it takes the letter away and writes the audit. So nothing interleaves,
neither a STOP nor a second operator; and a process that dies half-way leaves the letter, and a lease that ends.

Letters of one person are replayed in the order in which they fell, and none before an older one that is only held up.
People go side by side, many in a round trip.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec
import redis

from config.host import THIS_HOST, Host
from config.store import function_calls, keyspace, redis_client, stored_values
from engine.model.policy import ChannelPolicies
from engine.providers import Recourse
from engine.surveys.survey_registry import SurveyRegistry
from workers.dead_letters.crash_probe import CrashProbe, crash_reason
from workers.dead_letters.letter_result import LetterOutcome, LetterResult
from workers.dead_letters.replay_decision import (
    ReplayDecision,
    ReplayFinding,
    ReplayOption,
    claim_for_letter,
    decide_event_replay,
    decide_sms_replay,
    unchanged_draft,
)
from workers.dead_letters.replay_order import LetterReference, ReplayPacer, ReplayQueue
from workers.store import dead_letter_store
from workers.store.channel_state import ChannelStore
from workers.store.dead_letter_store import MAX_ATTEMPTS_KEPT, DeadLetter, FailedAttempt
from workers.store.lanes import (
    MAX_MAIL_INSPECTED,
    DeadLetterResolution,
    KeptDeadLetter,
    LaneDraft,
    LaneStore,
    ReplayClaim,
)
from workers.store.optouts import OptOutList, OptOutsByChannel, decode_opt_outs
from workers.turns.committing import (
    SessionAdmission,
    WorkerWaker,
    draft_with_versions,
    permit_drafts,
    wake_after_commit,
    wake_queues,
)

REPLAY_BATCH = 128
"""People in a round trip at the most."""

_OUTCOME_OF_FINDING: Mapping[ReplayFinding, LetterOutcome] = {
    "advance": "advanced", "duplicate": "duplicate", "stale": "stale", "opted_out": "opted_out",
    "failing": "failing", "uncertain": "uncertain", "busy": "busy",
}  # fmt: skip


_ClaimedLetter = tuple[DeadLetter, ReplayClaim, ReplayDecision]
"""A letter, its claimed lane, and the decision about it."""


class DeadLetterReplayer:
    """Replays letters in one Redis, in the name of `by`, with these `options`. What has killed workers meets `probe` first."""

    def __init__(
        self,
        lanes: LaneStore,
        optouts: OptOutList,
        surveys: SurveyRegistry,
        policy: ChannelPolicies,
        channels: ChannelStore,
        waker: WorkerWaker,
        recourses: Mapping[str, Recourse],
        shards: int,
        *,
        by: str,
        options: Collection[ReplayOption] = (),
        host: Host = THIS_HOST,
        probe: CrashProbe = crash_reason,
    ) -> None:
        self._lanes = lanes
        self._redis = lanes.client
        self._optouts = optouts
        self._surveys = surveys
        self._policy = policy
        self._channels = channels
        self._waker = waker
        self._recourses = recourses
        self._shards = shards
        self._operator = by
        self._options = options
        self.host = host
        self._probe = probe
        self._owner = f"replay-{host.token_hex(8)}"

    def preview(self, found: Sequence[DeadLetter]) -> list[ReplayDecision]:
        """Return what a replay of each would do, on the lane as it is now. Nothing is claimed, nothing changes."""
        judged: list[ReplayDecision] = []
        for at in range(0, len(found), REPLAY_BATCH):
            page = found[at : at + REPLAY_BATCH]
            pairs = zip(page, self._read_lanes(page), strict=True)
            held = [(letter, lane, self._decide_after_probe(letter, lane)) for letter, lane in pairs]
            judged += [each for _, _, each in self._hold_up_refused(held, self._channels.afford_sessions)]
        return judged

    def preview_then(self, letter: DeadLetter) -> ReplayDecision | None:
        """Return what would have become of an event, had today's program and surveys met the lane as it was then; None if that is
        not known, or may kill a process."""
        if letter.state is None or letter.kind != "event" or letter.reason == "worker_died":
            return None
        lane = ReplayClaim(letter.sender, 0, letter.at, letter.state, b"", [])
        draft = draft_with_versions(self._redis, claim_for_letter(letter, lane), self._surveys, self._policy)
        return decide_event_replay(letter, lane, draft, self._surveys, self._policy)

    def preview_by_id(self, chosen: Sequence[LetterReference]) -> dict[str, ReplayDecision]:
        """Return the same by id, of those that are still there."""
        if not chosen:
            return {}
        k_of = {each.id: keyspace.shard_of(each.sender, self._shards) for each in chosen}
        blobs = redis_client.run_commands(
            self._redis, [("HGET", keyspace.dead_letters_key(k), identity) for identity, k in k_of.items()]
        )
        there = [
            dead_letter_store.decode_or_placeholder(identity, blob)
            for identity, blob in zip(k_of, blobs, strict=True)
            if blob is not None
        ]
        return {letter.id: judged for letter, judged in zip(there, self.preview(there), strict=True)}

    def replay(
        self,
        chosen: Sequence[LetterReference],
        rate: float = 0.0,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> Iterator[LetterResult]:
        """Replay these letters, which are in the order in which they fell, `rate` a second if that is not 0, and yield the
        outcome of each. Ends before its next batch if it `is_stopping`.

        Raises redis.RedisError. What was done until then stays done, and the rest may be replayed again.
        """
        line = ReplayQueue(chosen, self.host)
        pace = ReplayPacer(rate, self.host)
        while (batch := line.next_batch(pace.wait_for_permits(REPLAY_BATCH))) is not None:
            if is_stopping():
                return
            pace.count_tried(len(batch))
            for each, done in zip(batch, self._replay_batch(batch), strict=True):
                if done.outcome == "busy" and line.put_off(each):
                    continue
                yield done
                if done.outcome == "busy":
                    self._audit_busy(each)
                    why = "an older letter of this person is held up"
                    yield from (LetterResult(later.id, "busy", why) for later in line.later_letters(each))
                else:
                    line.mark_done(each)

    def _replay_batch(self, batch: Sequence[LetterReference]) -> list[LetterResult]:
        """One letter each of several people."""
        if not batch:
            return []
        dead = self._crashing_letters([each for each in batch if each.reason == "worker_died"])
        lanes = self._lanes.claim_for_replay(self._owner, [(each.sender, each.id) for each in batch])
        outcomes: dict[str, LetterResult] = {}
        held: list[_ClaimedLetter] = []
        for each, lane in zip(batch, lanes, strict=True):
            match lane:
                case "gone":
                    outcomes[each.id] = self._result_of_gone(each)
                case "held":
                    outcomes[each.id] = LetterResult(
                        each.id, "busy", "a worker has the lane, or had it and died"
                    )
                case ReplayClaim():
                    letter = dead_letter_store.decode_or_placeholder(each.id, lane.letter)
                    judged = dead.get(each.id) or self._decide_replay(letter, lane)
                    held.append((letter, lane, judged))
        outcomes |= self._commit_or_release(held)
        return [outcomes[each.id] for each in batch]

    def _commit_or_release(self, held: Sequence[_ClaimedLetter]) -> dict[str, LetterResult]:
        """Commit the letters that go, and release the lanes of those that stay."""
        going: list[_ClaimedLetter] = []
        staying: list[_ClaimedLetter] = []
        for each in self._hold_up_refused(held, self._channels.admit_sessions):
            _, _, judged = each
            goes = judged.draft is not None and (
                judged.permits_replay(self._options) or judged.finding == "duplicate"
            )
            (going if goes else staying).append(each)
        outcomes = self._commit_letters(going) if going else {}
        if staying:
            outcomes |= self._release_kept(staying)
        return outcomes

    def _hold_up_refused(
        self, held: Sequence[_ClaimedLetter], admit: SessionAdmission
    ) -> Iterator[_ClaimedLetter]:
        """Replace the decision by `busy` for letters whose sessions `admit` has no permits for, so that no letter is
        spent on a refusal."""
        opening = [
            each.draft
            for _, _, each in held
            if each.draft and each.draft.effects.opened_by_channel and each.permits_replay(self._options)
        ]
        may, closed = permit_drafts(admit, opening, held[0][1].now) if opening else ([], {})
        refused = {id(draft) for draft, admitted in zip(opening, may, strict=True) if not admitted}
        why = f"no new session may open now: {', '.join(sorted(set(closed.values())))}"
        for letter, lane, judged in held:
            denied = id(judged.draft) in refused
            yield letter, lane, ReplayDecision(finding="busy", why=why) if denied else judged

    def _commit_letters(self, going: Sequence[_ClaimedLetter]) -> dict[str, LetterResult]:
        drafts = [self._resolving_draft(letter, judged) for letter, _, judged in going]
        committed = self._lanes.commit(drafts)
        stood = [each for each in committed if each.succeeded]
        with suppress(redis.RedisError):  # the lanes' alarms ring later
            wake_after_commit(self._waker, stood)
        outcomes = {}
        for (letter, lane, judged), draft, commit in zip(going, drafts, committed, strict=True):
            if not commit.succeeded:
                outcomes[letter.id] = LetterResult(letter.id, "busy", "another took the lane meanwhile")
                continue
            outcomes[letter.id] = LetterResult(
                letter.id,
                outcome_of(judged, self._options),
                judged.why,
                [sms.text for sms in draft.effects.outbox],
            )
            for sms in draft.effects.outbox:
                self._channels.count_sms(sms.channel, 1, lane.now)
        return outcomes

    def _resolving_draft(self, letter: DeadLetter, judged: ReplayDecision) -> LaneDraft:
        """Return what is committed when the letter goes: of a duplicate, nothing but that it goes."""
        assert judged.draft is not None  # noqa: S101 (whoever commits has looked)
        draft = unchanged_draft(judged.draft.claim) if judged.finding == "duplicate" else judged.draft
        resolution = DeadLetterResolution(letter.id, self._operator, outcome_of(judged, self._options))
        return msgspec.structs.replace(draft, resolutions=[resolution])

    def _release_kept(self, staying: Sequence[_ClaimedLetter]) -> dict[str, LetterResult]:
        stays = [
            KeptDeadLetter(
                lane.sender,
                lane.fence,
                letter.id,
                self._operator,
                "" if judged.finding == "busy" else judged.finding,
                dead_letter_store.encode_dead_letter(
                    _with_failed_attempt(letter, judged.failure, lane.now)
                ).content
                if judged.failure
                else b"",
            )
            for letter, lane, judged in staying
        ]
        wanted = [
            (lane.sender, queues)
            for (_, lane, _), queues in zip(staying, self._lanes.release_kept(stays), strict=True)
        ]
        with suppress(redis.RedisError):
            wake_queues(self._waker, wanted)
        return {
            letter.id: LetterResult(
                letter.id, _OUTCOME_OF_FINDING[judged.finding], judged.why, judged.sms_texts
            )
            for letter, _, judged in staying
        }

    def _audit_busy(self, each: LetterReference) -> None:
        self._lanes.release_kept([KeptDeadLetter(each.sender, 0, each.id, self._operator, "busy")])

    def _result_of_gone(self, each: LetterReference) -> LetterResult:
        """The result for a letter that is no longer stored, with its last audit entry: this very replayer may have
        taken it and lost the reply."""
        k = keyspace.shard_of(each.sender, self._shards)
        last = dead_letter_store.last_audit_entry(self._redis, k, each.id)
        return LetterResult(each.id, "gone", f"{last.outcome}, by {last.by}" if last else "")

    def _decide_replay(self, letter: DeadLetter, lane: ReplayClaim) -> ReplayDecision:
        if letter.kind == "sms":
            judged = decide_sms_replay(letter, lane, self._policy, self._recourses)
        else:
            (claim,) = self._lanes.mark_repeats([claim_for_letter(letter, lane)])
            draft = draft_with_versions(self._redis, claim, self._surveys, self._policy)
            judged = decide_event_replay(letter, lane, draft, self._surveys, self._policy)
        return judged.with_options(self._options)

    def _decide_after_probe(self, letter: DeadLetter, lane: ReplayClaim) -> ReplayDecision:
        """Decide a replay as `_decide_replay`, but try an event whose workers died in a process of its own first."""
        if letter.reason == "worker_died" and letter.kind == "event" and not letter.stopped:
            why = self._probe(lambda: self._decide_replay(letter, lane))
            if why:
                failure = msgspec.structs.replace(letter, why=why)
                return ReplayDecision(
                    finding="failing", why=f"with the same error, worker_died: {why}", failure=failure
                )
        return self._decide_replay(letter, lane)

    def _crashing_letters(self, suspects: Sequence[LetterReference]) -> dict[str, ReplayDecision]:
        """Of letters whose workers died, those whose event kills a process again. Tried before their lanes are claimed,
        as it may take longer than a lease."""
        judged = self.preview_by_id(suspects)
        return {
            identity: each
            for identity, each in judged.items()
            if each.failure is not None and each.failure.reason == "worker_died"
        }

    def _read_lanes(self, found: Sequence[DeadLetter]) -> list[ReplayClaim]:
        """The lanes of these letters as they stand, read without claiming them."""
        commands: list[function_calls.Command] = [("TIME",)]
        for letter in found:
            k = keyspace.shard_of(letter.sender, self._shards)
            commands += [
                ("GET", keyspace.lane_key(k, letter.sender)),
                ("HGET", keyspace.optouts_key(k), self._optouts.hash_number(letter.sender)),
                ("LRANGE", keyspace.mailbox_key(k, letter.sender), 0, MAX_MAIL_INSPECTED - 1),
            ]
        time, *answers = redis_client.run_commands(self._redis, commands)
        now = redis_client.time_reply_ms(time)
        return [
            ReplayClaim(
                letter.sender, 0, now, stored_values.lane_state(answers[3 * i]), b"", answers[3 * i + 2],
                self._decode_opt_outs(answers[3 * i + 1], now),
            )
            for i, letter in enumerate(found)
        ]  # fmt: skip

    def _decode_opt_outs(self, entry: bytes | None, now: int) -> OptOutsByChannel:
        """What an entry of the list says; of everything, if it cannot be read."""
        known = decode_opt_outs(entry) if entry else {}
        return dict.fromkeys(self._policy, (now, "unknown")) if known is None else known


def outcome_of(judged: ReplayDecision, options: Collection[ReplayOption]) -> LetterOutcome:
    """What a replay with these options comes to: what goes by an option has advanced."""
    return "advanced" if judged.permits_replay(options) else _OUTCOME_OF_FINDING[judged.finding]


def _with_failed_attempt(letter: DeadLetter, failure: DeadLetter, now: int) -> DeadLetter:
    """The letter after one more attempt, which failed."""
    return msgspec.structs.replace(
        letter,
        attempts=letter.attempts + 1,
        reason=failure.reason,
        why=failure.why,
        traceback=failure.traceback,
        tries=[*letter.tries, FailedAttempt(now, failure.reason, failure.why)][-MAX_ATTEMPTS_KEPT:],
    )
