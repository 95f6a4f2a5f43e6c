"""Uploaded tables, between their upload and the last invitation: in the Redis that has all else of people, so that any `console` process
goes on with one, and what is sent is what was checked.

Law: the invitations of a table are written once, before it is checked, each with a reference made of its own content. So whatever is
sent twice, by two who click at once or after a process died, is the same invitation. They are gone once all are sent, when somebody
forgets them, and two hours after the last step, and one who is erased before (workers/store/uploaded_rows.py); what was found, which tells of nobody, is kept for a week.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec
import redis

from config.invitations.invitation_cost import InvitationCost
from config.invitations.invitation_sums import InvitationSums
from config.store import keyspace, redis_client
from config.store.function_calls import function_call
from config.store.server_functions import ReleaseUpload
from workers.console.inviting.budget_view import BudgetView
from workers.console.inviting.upload_order import UploadOrder
from workers.store.uploaded_rows import UploadedRow, decode_rows

ROWS_KEPT_MS = 2 * 3_600_000
KEPT_MS = 7 * 86_400_000
CLAIMED_MS = 15_000
ROWS_IN_CHUNK = 1_000
_CHUNKS_AT_ONCE = 10


class UploadCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a table `at` a moment (ms): what would come of it by this `version` of the survey, what it would cost at most
    (None: nothing says), and what the campaign's budget says to that."""

    at: int
    version: str
    sums: InvitationSums
    cost: InvitationCost | None
    budget: BudgetView


class Upload(msgspec.Struct, frozen=True):
    """A table as it stands: `has_rows` until they are sent or forgotten. The jobs are those that were begun last."""

    id: str
    order: UploadOrder
    has_rows: bool
    check: UploadCheck | None
    sent: InvitationSums | None
    check_job: str
    send_job: str


class UploadStore:
    """Each method raises redis.RedisError."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def add(self, upload: str, order: UploadOrder, chunks: Iterable[bytes]) -> None:
        """Keep a table, as encode_rows has made it; the order last, so that no table is there in part."""
        rows = keyspace.console_upload_rows_key(upload)
        left = iter(chunks)
        while some := [*islice(left, _CHUNKS_AT_ONCE)]:
            redis_client.run_commands(self._redis, [("RPUSH", rows, *some), ("PEXPIRE", rows, ROWS_KEPT_MS)])
        key = keyspace.console_upload_key(upload)
        stored = msgspec.msgpack.encode(order)
        redis_client.run_commands(self._redis, [("HSET", key, "order", stored), ("PEXPIRE", key, KEPT_MS)])

    def find(self, upload: str) -> Upload | None:
        order, check, sent, check_job, send_job = redis_client.run_command(
            self._redis,
            ("HMGET", keyspace.console_upload_key(upload), "order", "check", "sent", "check_job", "send_job"),
        )
        has_rows = redis_client.run_command(self._redis, ("EXISTS", keyspace.console_upload_rows_key(upload)))
        if order is None:
            return None
        try:
            return Upload(
                upload,
                msgspec.msgpack.decode(order, type=UploadOrder),
                bool(has_rows),
                msgspec.msgpack.decode(check, type=UploadCheck) if check else None,
                msgspec.msgpack.decode(sent, type=InvitationSums) if sent else None,
                (check_job or b"").decode(),
                (send_job or b"").decode(),
            )
        except msgspec.MsgspecError:  # another release wrote it
            return None

    def read_rows(self, upload: str) -> Iterator[list[UploadedRow]]:
        """The invitations, some at a time, in the table's order; the table is kept for longer as it is read."""
        key, at = keyspace.console_upload_rows_key(upload), 0
        while True:
            stored, _ = redis_client.run_commands(
                self._redis, [("LRANGE", key, at, at), ("PEXPIRE", key, ROWS_KEPT_MS)]
            )
            if not stored:
                return
            yield decode_rows(stored[0])
            at += 1

    def forget_rows(self, upload: str) -> None:
        redis_client.run_command(self._redis, ("UNLINK", keyspace.console_upload_rows_key(upload)))

    def save_check(self, upload: str, check: UploadCheck, good: bytes) -> None:
        """Keep what was found, and which rows are `good`, as GoodRows has them."""
        stored = msgspec.msgpack.encode(check)
        key = keyspace.console_upload_key(upload)
        redis_client.run_command(self._redis, ("HSET", key, "check", stored, "good", good))

    def read_good(self, upload: str) -> "GoodRows":
        key = keyspace.console_upload_key(upload)
        return GoodRows(redis_client.run_command(self._redis, ("HGET", key, "good")) or b"")

    def save_sent(self, upload: str, sums: InvitationSums) -> None:
        key = keyspace.console_upload_key(upload)
        redis_client.run_command(self._redis, ("HSET", key, "sent", msgspec.msgpack.encode(sums)))

    def save_job(self, upload: str, field: str, job: str) -> None:
        redis_client.run_command(self._redis, ("HSET", keyspace.console_upload_key(upload), field, job))

    def claim(self, upload: str, token: str) -> bool:
        """Whether nobody else begins anything with this table at this moment. `token` is of this beginning alone."""
        key = keyspace.console_upload_claim_key(upload)
        return bool(redis_client.run_command(self._redis, ("SET", key, token, "NX", "PX", CLAIMED_MS)))

    def release(self, upload: str, token: str) -> None:
        """Let others begin, unless they do already, as the claim with this token was over."""
        call = ReleaseUpload(claim=keyspace.console_upload_claim_key(upload), token=token)
        redis_client.run_command(self._redis, function_call(call))


class GoodRows:
    """Which rows of a table would be invited: a bit for each."""

    def __init__(self, stored: bytes = b"") -> None:
        self._bits = bytearray(stored)

    def add(self, place: int) -> None:
        self._bits.extend(bytes(max(0, place // 8 + 1 - len(self._bits))))
        self._bits[place // 8] |= 1 << place % 8

    def __contains__(self, place: int) -> bool:
        return place // 8 < len(self._bits) and bool(self._bits[place // 8] & 1 << place % 8)

    @property
    def stored(self) -> bytes:
        return bytes(self._bits)
