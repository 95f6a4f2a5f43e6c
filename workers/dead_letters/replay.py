"""How is a dead letter replayed? As a turn of its own: the lane is claimed with the very lock that workers take, the
letter's event is the only mail, and the commit that applies it takes the letter away and writes the audit. So nothing
interleaves, a STOP and a second operator neither; and whoever dies half-way leaves the letter, and a lease that ends.

Letters of one person are replayed in the order in which they fell, and none before an older one that is only held up.
People go side by side, many in a round trip.
"""

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import msgspec
import redis

from config.store import keyspace, stored_values
from engine.model.policy import Policy
from engine.providers import Recourse
from engine.surveys.survey_registry import Surveys
from workers.dead_letters.crash_probe import dies
from workers.dead_letters.replay_decision import (
    Finding,
    Judged,
    Option,
    as_it_is,
    claim_for,
    judge_event,
    judge_sms,
)
from workers.dead_letters.replay_order import Chosen, Order, Pace
from workers.store import dead_letter_store
from workers.store.channel_state import Channels
from workers.store.dead_letter_store import MOST_TRIED, DeadLetter, Tried
from workers.store.lanes import LOOKED_AT, Dealt, Decision, Lanes, Reopened, Stay
from workers.store.optouts import OptOuts, opted_out_since
from workers.turns.committing import Admit, Bell, draft_knowing, note_withdrawn, permitted, wake
from workers.turns.drafts import Draft

BATCH = 128
"""People in a round trip at the most."""

Outcome = Literal[
    "advanced", "duplicate", "stale", "opted_out", "failing", "uncertain", "busy", "gone", "missing", "dropped", "requeued",
]  # fmt: skip
"""What came of a letter. `gone`: another dealt with it before its turn came. `missing`: nobody knows of one."""

GONE: Collection[Outcome] = ("advanced", "duplicate", "gone", "dropped", "requeued")
"""Outcomes after which the letter is there no more."""

_OUTCOME: Mapping[Finding, Outcome] = {
    "advance": "advanced", "duplicate": "duplicate", "stale": "stale", "opted_out": "opted_out",
    "failing": "failing", "uncertain": "uncertain", "busy": "busy",
}  # fmt: skip


class Done(msgspec.Struct, frozen=True):
    """What came of a letter, or would: `why`, and the SMS that leave."""

    id: str
    outcome: Outcome
    why: str = ""
    sms: Sequence[str] = ()


_Held = tuple[DeadLetter, Reopened, Judged]
"""A letter, its lane, which is ours, and what was judged."""


class Redress:
    """What replays letters in one Redis, in the name of `by`. `options` are replayed too."""

    def __init__(
        self, lanes: Lanes, optouts: OptOuts, surveys: Surveys, policy: Policy, door: Channels, bell: Bell,
        recourses: Mapping[str, Recourse], shards: int, *, by: str, options: Collection[Option] = (),
    ) -> None:  # fmt: skip
        self._lanes = lanes
        self._redis = lanes.client
        self._optouts = optouts
        self._surveys = surveys
        self._policy = policy
        self._door = door
        self._bell = bell
        self._recourses = recourses
        self._shards = shards
        self._by = by
        self._options = options
        self._owner = f"replay-{secrets.token_hex(8)}"

    def look(self, found: Sequence[DeadLetter]) -> list[Judged]:
        """What a replay of each would do, on the lane as it is now. Nothing is claimed, nothing changes."""
        judged: list[Judged] = []
        for at in range(0, len(found), BATCH):
            page = found[at : at + BATCH]
            pairs = zip(page, self._lanes_of(page), strict=True)
            held = [(letter, lane, self._judge_safely(letter, lane)) for letter, lane in pairs]
            judged += [each for _, _, each in self._admitted(held, self._door.afford)]
        return judged

    def look_at(self, chosen: Sequence[Chosen]) -> dict[str, Judged]:
        """The same by id, of those that are still there."""
        if not chosen:
            return {}
        k_of = {each.id: keyspace.shard_of(each.sender, self._shards) for each in chosen}
        blobs = keyspace.run(
            self._redis, [("HGET", keyspace.dead(k), identity) for identity, k in k_of.items()]
        )
        there = [
            dead_letter_store.read(identity, blob)
            for identity, blob in zip(k_of, blobs, strict=True)
            if blob is not None
        ]
        return {letter.id: judged for letter, judged in zip(there, self.look(there), strict=True)}

    def run(self, chosen: Sequence[Chosen], rate: float = 0.0) -> Iterator[Done]:
        """Replay these letters, `rate` a second if that is not 0, and tell of each. They are in the order of their fall.

        Raises redis.RedisError. What was done until then stays done, and the rest may be replayed again.
        """
        line = Order(chosen)
        pace = Pace(rate)
        while (batch := line.next(pace.wait(BATCH))) is not None:
            pace.spend(len(batch))
            for each, done in zip(batch, self._replay(batch), strict=True):
                if done.outcome == "busy" and line.put_off(each):
                    continue
                yield done
                if done.outcome == "busy":
                    self._note_busy(each)
                    why = "an older letter of this person is held up"
                    yield from (Done(later.id, "busy", why) for later in line.give_up(each))
                else:
                    line.done(each)

    def _replay(self, batch: Sequence[Chosen]) -> list[Done]:
        """One letter each of several people."""
        if not batch:
            return []
        dead = self._probed([each for each in batch if each.reason == "worker_died"])
        lanes = self._lanes.reopen(self._owner, [(each.sender, each.id) for each in batch])
        outcomes: dict[str, Done] = {}
        held: list[_Held] = []
        for each, lane in zip(batch, lanes, strict=True):
            match lane:
                case "gone":
                    outcomes[each.id] = self._gone(each)
                case "held":
                    outcomes[each.id] = Done(each.id, "busy", "a worker has the lane, or had it and died")
                case Reopened():
                    letter = dead_letter_store.read(each.id, lane.letter)
                    judged = dead.get(each.id) or self._judge(letter, lane)
                    held.append((letter, lane, judged))
        outcomes |= self._settle(held)
        return [outcomes[each.id] for each in batch]

    def _settle(self, held: Sequence[_Held]) -> dict[str, Done]:
        """Commit what goes, and let the lanes go of what stays."""
        going: list[_Held] = []
        staying: list[_Held] = []
        for each in self._admitted(held, self._door.admit):
            _, _, judged = each
            goes = judged.draft is not None and (judged.goes(self._options) or judged.finding == "duplicate")
            (going if goes else staying).append(each)
        outcomes = self._commit(going) if going else {}
        if staying:
            outcomes |= self._stay(staying)
        return outcomes

    def _admitted(self, held: Sequence[_Held], admit: Admit) -> Iterator[_Held]:
        """Those that may not open the sessions that they would are held up: their letters are not spent on a refusal."""
        opening = [
            each.draft for _, _, each in held if each.draft and each.draft.opened and each.goes(self._options)
        ]
        may, closed = permitted(admit, opening, held[0][1].now) if opening else ([], {})
        refused = {id(draft) for draft, admitted in zip(opening, may, strict=True) if not admitted}
        why = f"no new session may open now: {', '.join(sorted(set(closed.values())))}"
        for letter, lane, judged in held:
            denied = id(judged.draft) in refused
            yield letter, lane, Judged(finding="busy", why=why) if denied else judged

    def _commit(self, going: Sequence[_Held]) -> dict[str, Done]:
        drafts = [_committed_of(judged) for _, _, judged in going]
        decisions = [
            self._decision(letter, judged, draft)
            for (letter, _, judged), draft in zip(going, drafts, strict=True)
        ]
        committed = self._lanes.commit(decisions)
        stood = [each for each in committed if each.stood]
        with suppress(redis.RedisError):  # the lanes' alarms ring later
            wake(self._bell, stood)
        outcomes = {}
        for (letter, lane, judged), draft, commit in zip(going, drafts, committed, strict=True):
            if not commit.stood:
                outcomes[letter.id] = Done(letter.id, "busy", "another took the lane meanwhile")
                continue
            outcomes[letter.id] = Done(
                letter.id, outcome_of(judged, self._options), judged.why, [sms.text for sms in draft.outbox]
            )
            if commit.withdrawn:
                note_withdrawn(self._lanes, draft, commit, lane.now)
            for sms in draft.outbox:
                self._door.count_sms(sms.channel, 1, lane.now)
        return outcomes

    def _decision(self, letter: DeadLetter, judged: Judged, draft: Draft) -> Decision:
        dealt = Dealt(letter.id, self._by, outcome_of(judged, self._options))
        return msgspec.structs.replace(draft.decision(), applied=0, dealt=[dealt])

    def _stay(self, staying: Sequence[_Held]) -> dict[str, Done]:
        stays = [
            Stay(
                lane.sender, lane.fence, letter.id, self._by, "" if judged.finding == "busy" else judged.finding,
                dead_letter_store.seal(_failed(letter, judged.failure, lane.now)).content if judged.failure else b"",
            )
            for letter, lane, judged in staying
        ]  # fmt: skip
        wanted: dict[str, list[str]] = {}
        for (_, lane, _), queue in zip(staying, self._lanes.stay(stays), strict=True):
            if queue is not None:
                wanted.setdefault(queue, []).append(lane.sender)
        with suppress(redis.RedisError):
            for queue, senders in wanted.items():
                self._bell.ring(queue, senders)
        return {
            letter.id: Done(letter.id, _OUTCOME[judged.finding], judged.why, judged.says)
            for letter, _, judged in staying
        }

    def _note_busy(self, each: Chosen) -> None:
        self._lanes.stay([Stay(each.sender, 0, each.id, self._by, "busy")])

    def _gone(self, each: Chosen) -> Done:
        """It is there no more. Perhaps we have dealt with it, and the reply was lost."""
        k = keyspace.shard_of(each.sender, self._shards)
        last = dead_letter_store.last_audit(self._redis, k, each.id)
        return Done(each.id, "gone", f"{last.outcome}, by {last.by}" if last else "")

    def _judge(self, letter: DeadLetter, lane: Reopened) -> Judged:
        if letter.kind == "sms":
            judged = judge_sms(letter, lane, self._policy, self._recourses)
        else:
            draft = draft_knowing(self._redis, claim_for(letter, lane), self._surveys, self._policy)
            judged = judge_event(letter, lane, draft, self._surveys, self._policy)
        return judged.under(self._options)

    def _judge_safely(self, letter: DeadLetter, lane: Reopened) -> Judged:
        """The same; an event whose workers died is tried in a process of its own first."""
        if letter.reason == "worker_died" and letter.kind == "event" and not letter.stopped:
            why = dies(lambda: self._judge(letter, lane))
            if why:
                failure = msgspec.structs.replace(letter, why=why)
                return Judged(
                    finding="failing", why=f"with the same error, worker_died: {why}", failure=failure
                )
        return self._judge(letter, lane)

    def _probed(self, suspects: Sequence[Chosen]) -> dict[str, Judged]:
        """Of letters whose workers died, those whose event kills a process again. Tried before their lanes are claimed,
        as it may take longer than a lease."""
        judged = self.look_at(suspects)
        return {
            identity: each
            for identity, each in judged.items()
            if each.failure is not None and each.failure.reason == "worker_died"
        }

    def _lanes_of(self, found: Sequence[DeadLetter]) -> list[Reopened]:
        """The lanes of these letters as they stand, read without claiming them."""
        commands: list[keyspace.Command] = [("TIME",)]
        for letter in found:
            k = keyspace.shard_of(letter.sender, self._shards)
            commands += [
                ("GET", keyspace.lane(k, letter.sender)),
                ("HGET", keyspace.optouts(k), self._optouts.hash(letter.sender)),
                ("LRANGE", keyspace.mailbox(k, letter.sender), 0, LOOKED_AT - 1),
            ]
        time, *answers = keyspace.run(self._redis, commands)
        now = keyspace.ms_of(time)
        return [
            Reopened(
                letter.sender, 0, now, stored_values.state_in(answers[3 * i]), b"", answers[3 * i + 2],
                self._opted_out(answers[3 * i + 1], now),
            )
            for i, letter in enumerate(found)
        ]  # fmt: skip

    def _opted_out(self, entry: bytes | None, now: int) -> dict[str, int]:
        """What an entry of the list says; of everything, if it cannot be read."""
        known = opted_out_since(entry) if entry else {}
        return dict.fromkeys(self._policy, now) if known is None else known


def outcome_of(judged: Judged, options: Collection[Option]) -> Outcome:
    """What a replay with these options comes to: what goes by an option has advanced."""
    return "advanced" if judged.goes(options) else _OUTCOME[judged.finding]


def _committed_of(judged: Judged) -> Draft:
    """What is committed: of a duplicate, nothing but that the letter goes."""
    assert judged.draft is not None  # noqa: S101 (whoever commits has looked)
    return as_it_is(judged.draft.claim) if judged.finding == "duplicate" else judged.draft


def _failed(letter: DeadLetter, failure: DeadLetter, now: int) -> DeadLetter:
    """The letter after one more attempt, which failed."""
    return msgspec.structs.replace(
        letter,
        attempts=letter.attempts + 1,
        reason=failure.reason,
        why=failure.why,
        traceback=failure.traceback,
        tries=[*letter.tries, Tried(now, failure.reason, failure.why)][-MOST_TRIED:],
    )
