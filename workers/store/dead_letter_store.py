"""What is a dead letter? An event or an SMS that could not be handled, with all that an operator needs to judge it.

A letter stays until an operator deals with it, its person is erased, or the survey that it belongs to says how long what
was said is kept; whatever takes it away writes the audit in the same call. Each shard has its letters in the order in
which they fell. How many there are of each reason is counted in that call too.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any, Literal

import msgspec
import redis

from config.store import keyspace, redis_client
from config.store.dead_letter_reasons import DeadLetterReason
from config.store.entry_id import EntryId
from config.store.function_calls import Command, function_call
from config.store.server_functions import DiscardDeadLetters

DEAD_LETTER_PAGE_SIZE = 500

MAX_ATTEMPTS_KEPT = 20
"""Attempts that a letter tells of, the newest ones."""


class FailedAttempt(msgspec.Struct, frozen=True, array_like=True):
    """An attempt at `at` (ms) to apply an event or to send an SMS, and why it failed."""

    at: int
    code: str = ""
    why: str = ""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`what` is an event (mail entry, empty for a deadline), an SMS (outbound), or a CloudEvent, as bytes; `at` ms when it was given up;
    `attempts` how often it was tried, and `tries` the attempts that are known, oldest first; `version` the fencing token
    of the state that it met.

    Of an event, `state` is the lane then, without what no operator needs (None: not known), `session` and `survey` what
    was open where it belongs, and `stopped` says that it is a STOP, which holds all the same. Of an SMS, `survey` is whose
    text it is, `since` (ms) when it was first tried, and `uncertain` says that the provider may have it. Of what the endpoint `hook` refused, `what` is the CloudEvent that was sent to it.
    """

    id: str
    kind: Literal["event", "sms", "hook"]
    reason: DeadLetterReason
    sender: str
    at: int
    attempts: int
    what: bytes
    channel: str = ""
    session: str = ""
    version: int = 0
    code: str = ""
    why: str = ""
    traceback: str = ""
    tries: list[FailedAttempt] = []
    state: bytes | None = None
    survey: str = ""
    uncertain: bool = False
    since: int = 0
    stopped: bool = False
    hook: str = ""

    @property
    def queue(self) -> str:
        """Return the queue of the worker that gave it up; `hooks` has none, and is named itself."""
        if self.kind == "hook":
            return "hooks"
        if self.kind == "sms":
            return keyspace.OUTBOUND_QUEUE
        return keyspace.STARTS_QUEUE if self.what[:1] == keyspace.START_PREFIX else keyspace.REPLIES_QUEUE


class IndexedDeadLetter(msgspec.Struct, frozen=True):
    """A letter in its place: in the order of `index_score` those of a shard fell. It is the ms at which each did, and
    thousandths where several did at once."""

    index_score: float
    letter: DeadLetter


class AuditEntry(msgspec.Struct, frozen=True):
    """What was done with a letter at `at` (ms), by whom, and what came of it."""

    at: int
    id: str
    by: str
    outcome: str
    kind: str
    reason: str
    channel: str


_dead_letter_encoder = msgspec.msgpack.Encoder()
decode_dead_letter = msgspec.msgpack.Decoder(DeadLetter).decode


def decode_or_placeholder(identity: str, blob: bytes) -> DeadLetter:
    """Decode a dead letter. One that this release cannot decode is returned as an `undecodable` letter with `blob` as
    its content, so that it can be shown and dropped."""
    try:
        return decode_dead_letter(blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        why = f"this letter cannot be read by this release: {e}"
        return DeadLetter(
            id=identity, kind="event", reason="undecodable", sender="", at=0, attempts=0, what=blob, why=why
        )


class EncodedDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter as it is stored: its id, and its encoded content."""

    id: str
    content: bytes


def encode_dead_letter(letter: DeadLetter) -> EncodedDeadLetter:
    """Encode a dead letter for a commit."""
    return EncodedDeadLetter(letter.id, _dead_letter_encoder.encode(letter))


def scan_unordered(client: redis.Redis, k: int) -> Iterator[DeadLetter]:
    """Every dead letter of shard `k`, in no order."""
    for identity, blob in client.hscan_iter(keyspace.dead_letters_key(k), count=DEAD_LETTER_PAGE_SIZE):
        yield decode_or_placeholder(identity.decode(), blob)


def scan_in_order(client: redis.Redis, k: int) -> Iterator[IndexedDeadLetter]:
    """Yield the dead letters of shard `k` in the order in which they were given up, page by page. Letters that vanish
    meanwhile are left out."""
    places = sorted(
        {
            (place, identity)
            for identity, place in client.zscan_iter(
                keyspace.dead_letter_index_key(k), count=DEAD_LETTER_PAGE_SIZE
            )
        }
    )
    waiting = iter(places)
    while page := list(islice(waiting, DEAD_LETTER_PAGE_SIZE)):
        blobs = redis_client.run_command(
            client, ("HMGET", keyspace.dead_letters_key(k), *(identity for _, identity in page))
        )
        for (place, identity), blob in zip(page, blobs, strict=True):
            if blob is not None:
                yield IndexedDeadLetter(place, decode_or_placeholder(identity.decode(), blob))


def index_page_command(k: int, place: float, at: int, limit: int) -> Command:
    """Ask for places of letters of shard `k`, `limit` of them from the `at`th on, of those that fell at this place or after it."""
    return (
        "ZRANGE", keyspace.dead_letter_index_key(k), place, "+inf",
        "BYSCORE", "LIMIT", at, limit, "WITHSCORES",
    )  # fmt: skip


def parse_index_page(answer: Sequence[Any]) -> list[tuple[float, str]]:
    """Read the places and ids that such a command answers, flat or in pairs."""
    if answer and isinstance(answer[0], tuple | list):
        return [(float(place), identity.decode()) for identity, place in answer]
    pairs = zip(answer[::2], answer[1::2], strict=True)
    return [(float(place), identity.decode()) for identity, place in pairs]


def read_letters(client: redis.Redis, places: Sequence[tuple[int, str]]) -> list[DeadLetter | None]:
    """Return the letters of these shards and ids, in one round trip; None where there is none any more."""
    commands = [("HGET", keyspace.dead_letters_key(k), identity) for k, identity in places]
    blobs = redis_client.run_commands(client, commands)
    return [
        None if blob is None else decode_or_placeholder(identity, blob)
        for (_, identity), blob in zip(places, blobs, strict=True)
    ]


def count_by_reason(client: redis.Redis, shards: Iterable[int]) -> Counter[str]:
    """How many dead letters there are of each reason, as is counted beside them."""
    counts: Counter[str] = Counter()
    commands = [("HGETALL", keyspace.dead_letter_reasons_key(k)) for k in shards]
    for answer in redis_client.run_commands(client, commands):
        counts.update({reason.decode(): int(count) for reason, count in answer.items() if int(count) > 0})
    return counts


def find_by_sender(client: redis.Redis, k: int, sender: str) -> list[DeadLetter]:
    """One person's dead letters, in the order in which they fell."""
    return [each.letter for each in scan_in_order(client, k) if each.letter.sender == sender]


def find_by_ids(client: redis.Redis, shards: int, ids: Sequence[str]) -> dict[str, tuple[int, DeadLetter]]:
    """Those of these letters that are there, with their shards, in the order in which they fell."""
    if not ids:
        return {}
    commands: list[Command] = []
    for k in range(shards):
        commands += [
            ("HMGET", keyspace.dead_letters_key(k), *ids),
            ("ZMSCORE", keyspace.dead_letter_index_key(k), *ids),
        ]
    answers = redis_client.run_commands(client, commands)
    found = []
    for k, (blobs, places) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
        for each, blob, place in zip(ids, blobs, places, strict=True):
            if blob is not None:
                found.append((float(place or 0), each, k, decode_or_placeholder(each, blob)))
    found.sort(key=itemgetter(0))
    return {each: (k, letter) for _, each, k, letter in found}


def discard(client: redis.Redis, k: int, ids: Sequence[str], by: str, outcome: str) -> list[bool]:
    """Let these letters of shard `k` go; the audit says by whom and why. Answers, for each, whether it was there."""
    if not ids:
        return []
    call = DiscardDeadLetters(
        dead_letters=keyspace.dead_letters_key(k),
        dead_letter_index=keyspace.dead_letter_index_key(k),
        dead_letter_reasons=keyspace.dead_letter_reasons_key(k),
        dead_letter_audit=keyspace.dead_letter_audit_key(k),
        by=by,
        outcome=outcome,
        ids=ids,
    )
    there = redis_client.run_command(client, function_call(call))
    return [bool(each) for each in there]


def delete_matching(
    client: redis.Redis, k: int, concerned: Callable[[DeadLetter], bool], by: str, outcome: str
) -> int:
    """Let the dead letters of shard `k` go that are `concerned`; answers how many there were."""
    ids = [letter.id for letter in scan_unordered(client, k) if concerned(letter)]
    return sum(
        sum(discard(client, k, ids[at : at + DEAD_LETTER_PAGE_SIZE], by, outcome))
        for at in range(0, len(ids), DEAD_LETTER_PAGE_SIZE)
    )


def scan_audit(client: redis.Redis, k: int, since: int = 0) -> Iterator[AuditEntry]:
    """What was done with letters of shard `k` from `since` (ms) on, oldest first."""
    after = str(since)
    while page := redis_client.run_command(
        client, ("XRANGE", keyspace.dead_letter_audit_key(k), after, "+", "COUNT", DEAD_LETTER_PAGE_SIZE)
    ):
        for entry in page:
            yield _parse_audit_entry(*entry)
        after = "(" + page[-1][0].decode()


def newest_audit_entries(client: redis.Redis, shards: Sequence[int], limit: int) -> list[AuditEntry]:
    """The last things that were done with letters of these shards, the newest first, in one round trip: of each shard `limit` are
    read, and what may be incomplete for that is left out."""
    commands = [("XREVRANGE", keyspace.dead_letter_audit_key(k), "+", "-", "COUNT", limit) for k in shards]
    by_shard = [
        [_parse_audit_entry(*entry) for entry in answer]
        for answer in redis_client.run_commands(client, commands)
    ]
    complete_from = max((entries[-1].at for entries in by_shard if len(entries) == limit), default=0)
    found = [entry for entries in by_shard for entry in entries if entry.at >= complete_from]
    return sorted(found, key=attrgetter("at"), reverse=True)


def last_audit_entry(client: redis.Redis, k: int, identity: str) -> AuditEntry | None:
    """The last thing that was done with this letter, if it is among the last of its shard."""
    entries = newest_audit_entries(client, [k], DEAD_LETTER_PAGE_SIZE)
    return next((each for each in entries if each.id == identity), None)


def _parse_audit_entry(entry_id: bytes, fields: dict[bytes, bytes]) -> AuditEntry:
    words = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
    at = EntryId.parse(entry_id).ms
    return AuditEntry(
        at, *(words.get(name, "") for name in ("id", "by", "outcome", "kind", "reason", "channel"))
    )
