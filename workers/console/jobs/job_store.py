"""How far is what the console does for someone? Kept in Redis, so that any `console` process shows it, after a reload too.

Nobody goes on with what a process did that was killed: what it had not dealt with is as it was. That it is gone is known by a key
that only a process that lives renews; the counts are of its last word, and what it did after that the audit of dead letters has.

Nothing here tells of a person: no number, no text, no address. It is forgotten after KEPT_MS.
"""

from typing import Literal

import msgspec
import redis

from config.store import keyspace, redis_client
from workers.dead_letters.letter_result import LetterResult

KEPT_MS = 7 * 86_400_000
ALIVE_MS = 15_000
"""So long after its last word a process is taken for dead."""

MAX_RESULTS_KEPT = 200
"""Letters of which a job tells one by one."""

JobKind = Literal["replay", "preview", "drop", "erase", "check", "invite"]

JobState = Literal["running", "done", "stopped", "failed"]


class JobOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done: `subject` in words, of whom `by`, since `at` (ms). `letter` is the one letter that it is about, if it is one;
    `upload` the table of people."""

    id: str
    kind: JobKind
    subject: str
    by: str
    at: int
    letter: str = ""
    upload: str = ""


class JobProgress(msgspec.Struct, kw_only=True):
    """`total` letters are to be dealt with (0: not known yet); `counts` are what came of those that were. `results` are single ones,
    without what was said; `why` it failed, or what else is to be said."""

    state: JobState = "running"
    total: int = 0
    counts: dict[str, int] = {}
    results: list[LetterResult] = []
    why: str = ""

    @property
    def counted(self) -> int:
        return sum(self.counts.values())


class JobStatus(msgspec.Struct, frozen=True):
    """A job as it is known. `is_lost`: it was under way, and its process is gone. `stopped_by` has asked for its end."""

    order: JobOrder
    progress: JobProgress
    is_lost: bool
    stopped_by: str

    @property
    def is_over(self) -> bool:
        return self.is_lost or self.progress.state != "running"


class JobStore:
    """The jobs in one Redis. Each method raises redis.RedisError."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def add(self, order: JobOrder) -> None:
        key = keyspace.console_job_key(order.id)
        redis_client.run_commands(
            self._redis,
            [
                ("SET", keyspace.console_job_alive_key(order.id), order.by, "PX", ALIVE_MS),
                (
                    "HSET", key, "order", msgspec.msgpack.encode(order),
                    "progress", msgspec.msgpack.encode(JobProgress()),
                ),
                ("PEXPIRE", key, KEPT_MS),
                ("ZADD", keyspace.CONSOLE_JOBS_KEY, order.at, order.id),
                ("ZREMRANGEBYSCORE", keyspace.CONSOLE_JOBS_KEY, "-inf", order.at - KEPT_MS),
            ],
        )  # fmt: skip

    def save(self, job: str, progress: JobProgress) -> None:
        stored = msgspec.msgpack.encode(progress)
        redis_client.run_command(self._redis, ("HSET", keyspace.console_job_key(job), "progress", stored))

    def stay_alive(self, job: str) -> bool:
        """Say that the job's process lives; answers whether someone wants its end."""
        _, stopped_by = redis_client.run_commands(
            self._redis,
            [
                ("SET", keyspace.console_job_alive_key(job), "1", "PX", ALIVE_MS),
                ("HGET", keyspace.console_job_key(job), "stop"),
            ],
        )
        return stopped_by is not None

    def ask_to_stop(self, job: str, by: str) -> None:
        """Nothing, if there is no such job."""
        key = keyspace.console_job_key(job)
        if redis_client.run_command(self._redis, ("EXISTS", key)):
            redis_client.run_command(self._redis, ("HSETNX", key, "stop", by))

    def find(self, job: str) -> JobStatus | None:
        return self._read([job])[0]

    def list_recent(self, limit: int) -> list[JobStatus]:
        """The newest first."""
        stored = redis_client.run_command(
            self._redis, ("ZRANGE", keyspace.CONSOLE_JOBS_KEY, 0, limit - 1, "REV")
        )
        return [each for each in self._read([job.decode() for job in stored]) if each is not None]

    def _read(self, jobs: list[str]) -> list[JobStatus | None]:
        commands = [
            command
            for job in jobs
            for command in (
                ("EXISTS", keyspace.console_job_alive_key(job)),  # first: a job ends before its process does
                ("HMGET", keyspace.console_job_key(job), "order", "progress", "stop"),
            )
        ]
        answers = redis_client.run_commands(self._redis, commands) if commands else []
        return [
            _decode_status(bool(alive), *fields)
            for alive, fields in zip(answers[::2], answers[1::2], strict=True)
        ]


def _decode_status(
    alive: bool, order: bytes | None, progress: bytes | None, stop: bytes | None
) -> JobStatus | None:
    if order is None or progress is None:
        return None
    try:
        found = msgspec.msgpack.decode(progress, type=JobProgress)
        is_lost = found.state == "running" and not alive
        return JobStatus(
            msgspec.msgpack.decode(order, type=JobOrder),
            found,
            is_lost,
            (stop or b"").decode(errors="replace"),
        )
    except msgspec.MsgspecError:  # another release wrote it
        return None
