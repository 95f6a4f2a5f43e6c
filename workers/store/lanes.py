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
from engine.model.events import Record, encode
from workers.store.optouts import OptOuts, opted_out_since
from workers.store.session_records import by_session

log = structlog.get_logger()

LEASE_MS = 5_000
"""How long a claim holds: after a kill -9, a lane waits this long and a tick of the clock."""

MAIL_LIMIT = 64
"""Entries of one mailbox a claim takes at the most, so that a hot sender does not keep others waiting."""

LOOKED_AT = 1_000
"""Entries of a mailbox that are looked at, for a STOP among them, before a dead letter is replayed."""

SESSION_MS = 48 * 3_600_000
"""How long a session is taken to last if nothing says how long its lane is kept."""

_KIND = {keyspace.STARTS: keyspace.START, keyspace.REPLIES: keyspace.REPLY}


class Claim(msgspec.Struct, frozen=True):
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
    before: Sequence[int] = ()


class Reopened(msgspec.Struct, frozen=True):
    """A lane that is ours for one of its dead letters. Fields as in Claim, but that `mail` waits for others and is only
    looked at, and that `opted_out` is what the list says whatever the state is."""

    sender: str
    fence: int
    now: int
    state: bytes
    letter: bytes
    mail: list[bytes]
    opted_out: dict[str, int] = {}


class Stay(msgspec.Struct, frozen=True):
    """Of a dead letter that stays: by whom it was tried, with what outcome for the audit (empty: none yet), and itself if
    it has changed. `fence` is 0 if its lane could not be claimed."""

    sender: str
    fence: int
    id: str
    by: str
    outcome: str
    letter: bytes = b""


class Claims(msgspec.Struct):
    """What came of claiming: `suspects` must be claimed alone, `others` belong to the other queue."""

    held: list[Claim] = []
    suspects: list[str] = []
    others: list[str] = []


class Letter(msgspec.Struct, frozen=True):
    """A dead letter: its id, and its encoded content."""

    id: str
    content: bytes


class Dealt(msgspec.Struct, frozen=True):
    """What the audit says of a dead letter that goes."""

    id: str
    by: str
    outcome: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
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
    dead: Sequence[Letter] = ()
    dealt: Sequence[Dealt] = ()

    @property
    def rare(self) -> bool:
        """Has it anything that most decisions have nothing of?"""
        return bool(
            self.sessions or self.silenced or self.withdrawn or self.dead or self.opt_outs or self.dealt
        )


class Committed(msgspec.Struct, frozen=True):
    """What came of a commit. If not `stood`, another had claimed the lane, and nothing has changed.

    `wake` is the queue that its remaining mail wants, `speak` whether its outbox wants a delivery worker.
    """

    sender: str
    stood: bool
    wake: str | None = None
    speak: bool = False
    withdrawn: Sequence[bytes] = ()


class Lanes:
    """The lanes in one Redis, `shards` of them to a slot."""

    def __init__(
        self,
        client: redis.Redis,
        shards: int,
        keep_events_ms: int,
        optouts: OptOuts,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self.client = client
        self._optouts = optouts
        self._shards = shards
        self._keep_events_ms = keep_events_ms
        self._lease_ms = lease_ms

    def archive(self, sender: str, records: Sequence[Record]) -> None:
        """Add records to the archive that no commit carries, unless the person has been erased since."""
        k = keyspace.shard_of(sender, self._shards)
        keys = [keyspace.events(k), keyspace.lane(k, sender)]
        keyspace.run(
            self.client,
            [
                keyspace.call("note", keys, (sender, self._keep_events_ms, encode(entry)))
                for entry in by_session(records)
            ],
        )

    def claim(self, queue: str, senders: Sequence[str]) -> Claims:
        """Claim what can be claimed of these lanes, each with its oldest mail for `queue`."""
        return self._claim(queue, senders, suspects=False)

    def claim_alone(self, queue: str, sender: str) -> Claims:
        """Claim a lane whose last holder never came back."""
        return self._claim(queue, [sender], suspects=True)

    def _claim(self, queue: str, senders: Sequence[str], *, suspects: bool) -> Claims:
        options = (secrets.token_hex(8), _KIND[queue], MAIL_LIMIT, self._lease_ms, int(suspects))
        groups = keyspace.by_shard(senders, str, self._shards)
        answers = keyspace.run(
            self.client,
            [
                keyspace.call("claim", _claim_keys(k, group), chain(options, self._named(group)))
                for k, group in groups.items()
            ],
        )
        claims = Claims()
        for sender, answer in zip(
            chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True
        ):
            _sort_claim(claims, sender, answer)
        faults.reach("after_claim")
        return claims

    def _named(self, senders: Iterable[str]) -> Iterator[str]:
        """Each by number, and as the list of opt-outs has them."""
        for sender in senders:
            yield sender
            yield self._optouts.hash(sender)

    def reopen(
        self, owner: str, letters: Sequence[tuple[str, str]]
    ) -> list[Reopened | Literal["gone", "held"]]:
        """Claim lanes for these (sender, id) dead letters, one a sender. Answers in their order."""
        faults.reach("before_reopen")
        options = (owner, self._lease_ms, LOOKED_AT)
        groups = keyspace.by_shard(letters, itemgetter(0), self._shards)
        answers = keyspace.run(
            self.client,
            [
                keyspace.call("reopen", _reopen_keys(k, group), chain(options, self._lettered(group)))
                for k, group in groups.items()
            ],
        )
        faults.reach("after_reopen")
        in_groups = zip(chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True)
        reopened = {sender: _reopened(sender, answer) for (sender, _), answer in in_groups}
        return [reopened[sender] for sender, _ in letters]

    def _lettered(self, letters: Iterable[tuple[str, str]]) -> Iterator[str]:
        for sender, letter in letters:
            yield from (sender, self._optouts.hash(sender), letter)

    def stay(self, stays: Sequence[Stay]) -> list[str | None]:
        """Let go of lanes whose dead letters stay. Answers, for each, the queue that its mail wants now."""
        if not stays:
            return []
        faults.reach("before_stay")
        answers = keyspace.run(self.client, [self._stay(each) for each in stays])
        faults.reach("after_stay")
        return [keyspace.QUEUE_OF.get(answer) for answer in answers]

    def _stay(self, each: Stay) -> keyspace.Command:
        k = keyspace.shard_of(each.sender, self._shards)
        keys = [
            keyspace.alarms(k), keyspace.dead(k), keyspace.dead_index(k), keyspace.dead_reasons(k),
            keyspace.dead_audit(k), keyspace.mailbox(k, each.sender), keyspace.lane(k, each.sender),
            keyspace.lock(k, each.sender),
        ]  # fmt: skip
        return keyspace.call(
            "stay", keys, (each.sender, each.fence, each.id, each.by, each.outcome, each.letter)
        )

    def commit(self, decisions: Sequence[Decision]) -> list[Committed]:
        """Commit each lane, all of its decision or nothing of it. Answers in the order of the decisions."""
        faults.reach("before_commit")
        groups = keyspace.by_shard(decisions, attrgetter("sender"), self._shards)
        answers = keyspace.run(self.client, [self._commit(k, group) for k, group in groups.items()])
        faults.reach("after_commit")
        in_groups = zip(chain.from_iterable(groups.values()), chain.from_iterable(answers), strict=True)
        committed = {decision.sender: _committed(decision.sender, answer) for decision, answer in in_groups}
        return [committed[decision.sender] for decision in decisions]

    def _commit(self, k: int, decisions: Sequence[Decision]) -> keyspace.Command:
        args: list[Any] = [self._keep_events_ms]
        for decision in decisions:
            args += (
                decision.sender, decision.fence, decision.applied, _or_same(decision.deadline),
                _or_same(decision.keep_until), decision.state,
                len(decision.records), *decision.records,
                len(decision.outbox), *(stored_values.outbox_entry(*each) for each in decision.outbox),
            )  # fmt: skip
            args += self._rare(decision) if decision.rare else (0,)
        return keyspace.call("commit", _commit_keys(k, decisions), args)

    def _rare(self, decision: Decision) -> Iterator[Any]:
        """What most commits have nothing of. Redis clients charge for every argument."""
        yield from (1, len(decision.sessions), *self._indexed(decision))
        yield from (len(decision.silenced), *decision.silenced)
        yield from (len(decision.withdrawn), *decision.withdrawn)
        yield len(decision.dead)
        for letter in decision.dead:
            yield from (letter.id, letter.content)
        yield self._optouts.hash(decision.sender) if decision.opt_outs else ""
        yield len(decision.opt_outs)
        for channel, (at, source) in decision.opt_outs.items():
            yield from (channel, at, source)
        yield len(decision.dealt)
        for dealt in decision.dealt:
            yield from (dealt.id, dealt.by, dealt.outcome)

    def _indexed(self, decision: Decision) -> Iterator[str | int]:
        """What each session's id leads to, and until when: as long as the archive has something of it."""
        for _, at in decision.sessions:
            yield f"{at} {decision.sender}"
            yield (decision.keep_until or at + SESSION_MS) + self._keep_events_ms


@cache
def _claim_indexes(k: int) -> tuple[str, ...]:
    return keyspace.fence(k), keyspace.alarms(k), keyspace.optouts(k)


@cache
def _commit_indexes(k: int) -> tuple[str, ...]:
    return (
        keyspace.alarms(k), keyspace.outbox_alarms(k), keyspace.events(k), keyspace.dead(k), keyspace.dead_index(k),
        keyspace.optouts(k), keyspace.dead_reasons(k), keyspace.dead_audit(k),
    )  # fmt: skip


def _claim_keys(k: int, senders: Iterable[str]) -> list[str]:
    keys = [*_claim_indexes(k)]
    for sender in senders:
        keys += (keyspace.mailbox(k, sender), keyspace.lane(k, sender), keyspace.lock(k, sender))
    return keys


def _reopen_keys(k: int, letters: Iterable[tuple[str, str]]) -> list[str]:
    keys = [*_claim_indexes(k), keyspace.dead(k)]
    for sender, _ in letters:
        keys += (keyspace.mailbox(k, sender), keyspace.lane(k, sender), keyspace.lock(k, sender))
    return keys


def _commit_keys(k: int, decisions: Iterable[Decision]) -> list[str]:
    keys = [*_commit_indexes(k)]
    for decision in decisions:
        sender = decision.sender
        keys += (
            keyspace.mailbox(k, sender), keyspace.lane(k, sender), keyspace.lock(k, sender),
            keyspace.outbox(k, sender), keyspace.outbox_lock(k, sender),
        )  # fmt: skip
        for identity, _ in decision.sessions:
            keys.append(keyspace.session(k, identity))
    return keys


def _sort_claim(claims: Claims, sender: str, answer: Any) -> None:
    """One of whose opt-outs nothing can be read is left: the lease ends, and it is tried again and given up like any
    that fails."""
    match answer:
        case 0 | 1:
            pass
        case 2:
            claims.others.append(sender)
        case 3:
            claims.suspects.append(sender)
        case [fence, attempts, now, state, opt_outs, before, *mail]:
            known = opted_out_since(opt_outs) if opt_outs else {}
            if known is not None:
                claims.held.append(Claim(sender, fence, attempts, now, state, mail, known, _moments(before)))


def _moments(before: bytes) -> Sequence[int]:
    """Of claims; one by an earlier release, which did not say when it was, is left out."""
    return [int(ms) for ms in before.split(b",") if int(ms)] if before else ()


def _reopened(sender: str, answer: Any) -> Reopened | Literal["gone", "held"]:
    """One of whose opt-outs nothing can be read is taken for one who is held."""
    match answer:
        case 0:
            return "gone"
        case [fence, now, state, opt_outs, letter, *mail]:
            known = opted_out_since(opt_outs) if opt_outs else {}
            return "held" if known is None else Reopened(sender, fence, now, state, letter, mail, known)
        case _:
            return "held"


def _or_same(ms: int | None) -> int | str:
    return "-" if ms is None else ms


def _committed(sender: str, answer: list[Any] | redis.ResponseError) -> Committed:
    if isinstance(answer, redis.ResponseError):
        log.error("a lane cannot be committed; it is tried again when its lease ends", error=str(answer))
        return Committed(sender, stood=False)
    if not answer[0]:
        return Committed(sender, stood=False)
    return Committed(sender, True, keyspace.QUEUE_OF.get(answer[1]), bool(answer[2]), answer[3:])
