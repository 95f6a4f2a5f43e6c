"""Has anything leaked? What must be true of Redis once everything that was accepted is done.

An alarm has a lane or an outbox to ring for, and whatever waits has an alarm; nothing is locked; nothing waits for
a worker; every key is one that config/store/keyspace.py names, and goes by itself in the end unless it must not.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import redis

from config.connections import replication
from config.store import keyspace, stored_values
from engine.model import lane as lane_format
from engine.model.lane import UnreadableLaneError
from tests.support.waiting import until
from workers.store import survey_versions

NO_KEYS = {
    "key_shape", "lane_key_pattern", "sender_of_key", "hook_key_pattern", "hook_of_key", "dividing_events_key"
}  # fmt: skip
"""Functions of keyspace.py that answer text which is no key's name, or that of a key which no process leaves."""

FIXED = {
    keyspace.SURVEYS_KEY, keyspace.PROCESSES_KEY, keyspace.LIBRARIES_KEY, keyspace.SHARDS_KEY, keyspace.OPTOUT_SECRET_KEY, keyspace.LOG_SECRET_KEY, keyspace.OPTOUT_SECRET_CHECK_KEY, keyspace.RETENTION_KEY, keyspace.ARCHIVE_RETENTION_KEY, keyspace.AUDIT_KEY,
    survey_versions.FIRST_STORED_KEY, survey_versions.LAST_USED_KEY,
    keyspace.DEPLOYMENT_KEY, keyspace.CONSOLE_SESSIONS_KEY, keyspace.CONSOLE_SECRET_KEY, keyspace.CONSOLE_JOBS_KEY,
}  # fmt: skip
"""Keys of one name."""

PASSING = {
    "lane_lock_key", "tickets_key", "session_key", "reference_key", "sms_bucket_key", "session_bucket_key", "sms_counter_key",
    "invitation_bucket_key", "released_sms_key", "request_bucket_key", "circuit_state_key", "failed_attempts_key", "applied_events_key",
    replication.WRITTEN_KEY,
    "webhooks_key", "forged_webhooks_key", "console_session_key", "console_link_key", "console_attempts_key", "console_sign_in_key", "console_begun_key", "console_job_key", "console_job_alive_key",
    "console_upload_key", "console_upload_rows_key", "console_upload_claim_key", "campaign_budget_key",
}  # fmt: skip
"""Kinds of keys that go by themselves, whatever happens."""

PAGE = 1_000
_INT, _TEXT = 987_654, "qqqq"


def patterns(module: ModuleType = keyspace) -> Mapping[str, re.Pattern[str]]:
    """Kind of key -> what its names are like, of each function of `module` that makes one."""
    found = {}
    for name, function in inspect.getmembers(module, inspect.isfunction):
        signature = inspect.signature(function)
        if function.__module__ != module.__name__ or signature.return_annotation is not str:
            continue
        if not name.startswith("_") and name not in NO_KEYS:
            args = [_INT if each.annotation is int else _TEXT for each in signature.parameters.values()]
            found[name] = _pattern(function(*args))
    return found


def _pattern(example: str) -> re.Pattern[str]:
    name = re.sub(r"\\{\d+\\}", r"\\{\\d+\\}", re.escape(example))  # the hash tag of a shard
    return re.compile(name.replace(str(_INT), r"-?\d+").replace(_TEXT, ".+"), re.DOTALL)


def kind_of(name: str, known: Mapping[str, re.Pattern[str]]) -> str | None:
    """Which kind of key this is; the name itself of one of a kind, None for a stray one."""
    if name in FIXED:
        return name
    return next((kind for kind, pattern in known.items() if pattern.fullmatch(name)), None)


def wrongs(lanes: redis.Redis, broker: redis.Redis) -> list[str]:
    """What is amiss, in words, if nothing is under way any more."""
    shelves = _Shelves(lanes)
    return [*shelves.strays(), *shelves.lane_wrongs(), *shelves.outbox_wrongs(), *shelves.letter_wrongs(),
            *shelves.invitation_wrongs(), *_broker_wrongs(broker)]  # fmt: skip


def settle(lanes: redis.Redis, broker: redis.Redis, deadline_s: float = 30.0) -> None:
    """Wait until nothing is amiss, at two looks: one takes its time, and misses what moves meanwhile. Raises
    AssertionError, with what is."""

    def calm() -> bool:
        return not (wrongs(lanes, broker) or wrongs(lanes, broker))

    try:
        until(calm, deadline_s, "nothing is under way and nothing has leaked")
    except TimeoutError:
        raise AssertionError("\n".join(wrongs(lanes, broker)) or "it took too long to settle") from None


class _Shelves:
    """Every key of the lanes' Redis, by kind."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._known = {**patterns(), replication.WRITTEN_KEY: _pattern(replication.mark_in_cluster(_TEXT)[1])}
        self._stray: list[str] = []
        self._of: dict[str, list[str]] = {}
        for raw in set(client.scan_iter(count=PAGE)):
            name = raw.decode(errors="replace")
            kind = kind_of(name, self._known)
            if kind is None:
                self._stray.append(name)
            else:
                self._of.setdefault(kind, []).append(name)

    def _names(self, kind: str) -> list[str]:
        """The keys of one kind. A kind that keyspace.py does not know is a mistake here, and no audit."""
        assert kind in self._known, kind
        return self._of.get(kind, [])

    def strays(self) -> Iterator[str]:
        for name in sorted(self._stray):
            yield f"nobody knows what {name} is"
        for kind in sorted(PASSING):
            for name in self._names(kind):
                if self._redis.pttl(name) == -1:
                    yield f"{name} would stay for ever"

    def lane_wrongs(self) -> Iterator[str]:
        deadlines = {}
        for name in self._names("lane_key"):
            stored = self._bytes(name)
            if stored is None:
                continue
            if deadline := int(stored.split(b" ", 2)[1]):
                deadlines[keyspace.sender_of_key(name)] = deadline
            if self._redis.pttl(name) == -1 and not _is_open(stored):
                yield f"{name} would stay for ever"
        alarms = self._scores("lane_alarms_key")
        for name in self._names("mailbox_key"):
            yield f"{name} has mail, and its alarm is {alarms.get(keyspace.sender_of_key(name))}"
        for name in self._names("lane_lock_key"):
            yield f"{name} is locked: {self._bytes(name)!r}"
        for sender in sorted(alarms.keys() | deadlines.keys()):
            if alarms.get(sender) != deadlines.get(sender):
                yield f"lane of {sender}: alarm {alarms.get(sender)}, deadline {deadlines.get(sender)}"

    def outbox_wrongs(self) -> Iterator[str]:
        alarms = self._scores("outbox_alarms_key")
        for name in self._names("outbox_key"):
            sender = keyspace.sender_of_key(name)
            yield f"{name} has {self._redis.llen(name)} SMS, and its alarm is {alarms.pop(sender, None)}"
        for sender in sorted(alarms):
            yield f"an alarm for the outbox of {sender}, which is empty"
        for name in self._names("outbox_lock_key"):
            yield f"{name} is locked: {self._bytes(name)!r}"

    def letter_wrongs(self) -> Iterator[str]:
        """A dead letter is in its index, and the reverse."""
        for name in {
            *self._names("dead_letters_key"),
            *(n.removesuffix("-index") for n in self._names("dead_letter_index_key")),
        }:
            letters: Any = self._redis.hkeys(name)
            index: Any = self._redis.zrange(f"{name}-index", 0, -1)
            for identity in set(letters) ^ set(index):
                yield f"{name}: letter {identity.decode()} is in one of the letters and their index alone"

    def invitation_wrongs(self) -> Iterator[str]:
        for name in self._names("held_ids_key"):
            yield f"{name} holds {self._redis.zcard(name)} invitations"
        for name in self._names("held_invitations_key"):
            yield f"{name} has the mail of {self._redis.hlen(name)} invitations"

    def _scores(self, kind: str) -> dict[str, int]:
        """Sender -> ms, of all shards."""
        found = {}
        for name in self._names(kind):
            pairs: Any = self._redis.zrange(name, 0, -1, withscores=True)
            found.update({sender.decode(): int(at) for sender, at in pairs})
        return found

    def _bytes(self, name: str) -> bytes | None:
        stored: Any = self._redis.get(name)
        return None if stored is None else bytes(stored)


def _is_open(stored: bytes) -> bool:
    """Whether something is open in a lane, or nobody can tell."""
    try:
        lane = lane_format.decode_lane(stored_values.lane_state(stored))
    except UnreadableLaneError:
        return True
    return bool(lane.partial_sms) or any(line.session for line in lane.lines.values())


def _broker_wrongs(client: redis.Redis) -> Iterator[str]:
    """Bells alone, and nobody rung for."""
    bells = {
        keyspace.wakeup_queue_key(queue)
        for queue in (keyspace.STARTS_QUEUE, keyspace.REPLIES_QUEUE, keyspace.OUTBOUND_QUEUE)
    }
    for raw in client.scan_iter(count=PAGE):
        name = raw.decode(errors="replace")
        if name not in bells:
            yield f"the broker has a key {name}, which is no bell"
        else:
            yield f"{name} is rung for {client.zcard(name)}"
