"""Erases a person: every trace of them goes, but that they said stop, and keyed hashes of the events that were applied, so that a
copy of one does not bring them back.

One server-side function removes what a commit or a delivery under way would need, so that whatever is under way can add
nothing afterwards; dead letters go before that, as one that is replayed makes a lane, and so does a row of a table that waits in
the console. What is only read, the event stream and indexes, goes after that, and the archive last (workers/archiving/erasing.py
says why); erasing twice, or again after a death half-way, does no harm. Mail that nobody has applied is looked at first, for a STOP
in it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from config.archive.archive_schema import has_schema
from config.archive.database import ArchiveDatabase, describe_failure
from config.settings.channels import SIMULATOR, channel_policies
from config.store import keyspace, redis_client, stored_values
from config.store.function_calls import function_call
from config.store.server_functions import ChangedOptOut, EraseLane
from engine.model import lane as lane_format
from engine.model.errors import ParleyError
from engine.model.lane import UnreadableLaneError
from engine.surveys.survey_registry import SurveyRegistry
from workers.archiving.deployment_pairing import is_of_another_deployment
from workers.archiving.erasing import ArchivedTraces, count_sender, erase_sender
from workers.clock import invitation_pacer
from workers.erasure import uploaded_tables
from workers.store import applied_events, dead_letter_store, event_stream
from workers.store.deployment import Deployment
from workers.store.lanes import LaneClaim
from workers.store.optouts import OptOutList, OptOutsByChannel, opt_outs_in_lane
from workers.turns.drafts import draft_event_by_event

_MAX_ERASE_ATTEMPTS = 100
_SCAN_COUNT = 1_000


class ErasureCounts(msgspec.Struct):
    """How many of each kind of trace were removed, or would be. `opt_outs` are kept, as hashes."""

    lanes: int = 0
    mail: int = 0
    sms: int = 0
    other_keys: int = 0
    alarms: int = 0
    stream_entries: int = 0
    dead_letters: int = 0
    sessions: int = 0
    invitations: int = 0
    uploaded_rows: int = 0
    simulated: int = 0
    archive_entries: int = 0
    archive_sessions: int = 0
    archive_answers: int = 0
    archive_variables: int = 0
    archive_messages: int = 0
    archive_sends: int = 0
    archive_receipts: int = 0
    archive_refusals: int = 0
    opt_outs: int = 0

    def add_archived(self, traces: ArchivedTraces) -> None:
        for name, rows in msgspec.structs.asdict(traces).items():
            setattr(self, f"archive_{name}", rows)


COUNT_LABELS = {
    "lanes": "what the lane knew",
    "mail": "SMS and events from them, not yet applied",
    "sms": "SMS to them, not yet sent",
    "other_keys": "locks and tickets",
    "alarms": "alarms and wake-ups",
    "stream_entries": "entries of the event stream",
    "dead_letters": "dead letters",
    "sessions": "sessions that were found by their ids",
    "invitations": "invitations that waited",
    "uploaded_rows": "rows of tables in the console",
    "simulated": "what the simulated phone got",
    "archive_entries": "of the archive: entries",
    "archive_sessions": "of the archive: sessions",
    "archive_answers": "of the archive: answers",
    "archive_variables": "of the archive: variables",
    "archive_messages": "of the archive: SMS",
    "archive_sends": "of the archive: tries to send",
    "archive_receipts": "of the archive: receipts",
    "archive_refusals": "of the archive: refusals",
    "opt_outs": "opt-outs, KEPT as a hash",
}
"""What each count is of."""


LOG_HELD_SENTENCE = (
    "the archive is being read: some bytes of what was removed stay in its -wal file until the next "
    "erasure, or until the archive's process writes over them"
)
"""What `SenderEraser.log_is_held` means."""


class LaneBusyError(ParleyError):
    """The lane changed each time that it was looked at."""


class ArchiveNotErasedError(ParleyError):
    """The archive could not be reached, read or written: what it has of the person is still there, though Redis may have
    nothing of them any more. The text says why."""


def unfinished_sentence(error: ArchiveNotErasedError) -> str:
    """What was erased and what was not, and what to do."""
    return (
        f"Redis has nothing of them any more, but the archive has what it had: {error}. "
        "Type this again once it can be reached; erasing twice does no harm."
    )


class SenderEraser:
    """Finds and removes every trace of a sender in one deployment. Raises ConfigError if its archive's URL cannot be used.
    `log_is_held` says after an erasure that bytes of what was removed are in the log of SQLite still, as somebody reads."""

    def __init__(self, deployment: Deployment, optouts: OptOutList) -> None:
        self._archive = ArchiveDatabase(deployment.settings.archive_url)
        self.log_is_held = False
        self._deployment = deployment
        self._redis = deployment.lanes
        self._broker = deployment.broker
        self._settings = deployment.settings
        self._optouts = optouts

    def erase(self, sender: str) -> ErasureCounts:
        """Remove every trace of `sender`, and count them. Raises LaneBusyError, and ArchiveNotErasedError once Redis has
        nothing of them any more."""
        erased = self._erase_from_redis(sender)
        with self._reaching_archive():
            if self._find_archive():
                k = keyspace.shard_of(sender, self._settings.shards)
                erased.add_archived(erase_sender(self._archive, k, sender))
                self.log_is_held = not self._archive.checkpoint()
        return erased

    def _erase_from_redis(self, sender: str) -> ErasureCounts:
        rows = self._erase_uploaded_rows(sender)  # before what is made of them
        invitations = self._remove_invitations(sender)
        dead_letters = self._erase_dead_letters(sender)  # first, or a replay gives them a lane again
        erased, at = self._erase_lane(sender)
        erased.uploaded_rows = rows
        erased.dead_letters = dead_letters
        erased.alarms += self._remove_wakeups(sender)
        self._erase_history(erased, sender, at)
        erased.invitations = invitations + self._remove_invitations(sender)
        erased.opt_outs = len(self._optouts.opt_outs_of(sender))
        return erased

    def count_traces(self, sender: str) -> ErasureCounts:
        """Count what `erase` would remove. Raises ArchiveNotErasedError if the archive cannot be read."""
        counts = self._count_in_redis(sender)
        with self._reaching_archive():
            if self._find_archive():
                with self._archive.reading() as connection:
                    counts.add_archived(count_sender(connection, sender))
        return counts

    @contextmanager
    def _reaching_archive(self) -> Iterator[None]:
        """Raise ArchiveNotErasedError for what a database raises, and leave no connection open."""
        try:
            yield
        except SQLAlchemyError as e:
            raise ArchiveNotErasedError(describe_failure(e)) from e
        finally:
            self._archive.close()

    def _find_archive(self) -> bool:
        """Whether there is an archive. Raises ArchiveNotErasedError if there is one somewhere else."""
        if has_schema(self._archive):
            with self._archive.reading() as connection:
                if is_of_another_deployment(self._redis, connection):
                    raise ArchiveNotErasedError("the one at PARLEY_ARCHIVE_URL is of another deployment")
            return True
        if event_stream.is_archived(self._redis, self._settings.shards):
            raise ArchiveNotErasedError("there is one, but not where PARLEY_ARCHIVE_URL says")
        return False

    def _count_in_redis(self, sender: str) -> ErasureCounts:
        k = keyspace.shard_of(sender, self._settings.shards)
        mail, sms = redis_client.run_commands(
            self._redis, [("LLEN", name(k, sender)) for name in (keyspace.mailbox_key, keyspace.outbox_key)]
        )
        (lanes,) = redis_client.run_commands(self._redis, [("EXISTS", keyspace.lane_key(k, sender))])
        (other_keys,) = redis_client.run_commands(self._redis, [("EXISTS", *_other_keys(k, sender))])
        invitations = self._count_invitations(k, sender)  # each has its session's id already
        return ErasureCounts(
            lanes=lanes,
            mail=mail,
            sms=sms,
            other_keys=other_keys,
            alarms=self._count_alarms(k, sender),
            stream_entries=sum(entry.sender == sender for entry in event_stream.scan_entries(self._redis, k)),
            dead_letters=sum(
                letter.sender == sender for letter in dead_letter_store.scan_unordered(self._redis, k)
            ),
            sessions=len(self._session_ids_of(k, sender)) - invitations,
            invitations=invitations,
            uploaded_rows=uploaded_tables.count_rows(self._redis, sender),
            simulated=len(self._simulated_keys(sender)),
            opt_outs=len(self._optouts.opt_outs_of(sender)),
        )

    def _erase_lane(self, sender: str) -> tuple[ErasureCounts, int]:
        """Remove the lane's own keys in one call. Returns the counts, and the server's time of the removal (ms). Raises
        LaneBusyError if the lane changed at each attempt."""
        k = keyspace.shard_of(sender, self._settings.shards)
        for _ in range(_MAX_ERASE_ATTEMPTS):
            mail, stored = self._read_mail_and_state(k, sender)
            kept = self._opt_outs_to_keep(sender, stored, mail)
            call = EraseLane(
                optouts=keyspace.optouts_key(k),
                lane_alarms=keyspace.lane_alarms_key(k),
                outbox_alarms=keyspace.outbox_alarms_key(k),
                mailbox=keyspace.mailbox_key(k, sender),
                lane=keyspace.lane_key(k, sender),
                outbox=keyspace.outbox_key(k, sender),
                applied_events=keyspace.applied_events_key(k, self._optouts.hash_number(sender)),
                known_events=applied_events.pack_events(self._optouts, sender, _known_events(stored, mail)),
                keep_applied_ms=self._settings.repeat_ms,
                other_keys=[*_other_keys(k, sender)],
                sender=sender,
                number_hash=self._optouts.hash_number(sender),
                mail_before=b"".join(mail),
                lane_before=stored,
                opt_outs=[
                    ChangedOptOut(channel=channel, at_ms=at, source=source)
                    for channel, (at, source) in kept.items()
                ],
            )
            answer = redis_client.run_command(self._redis, function_call(call))
            if answer:
                now, mails, lanes, sms, other_keys, alarms = answer
                return ErasureCounts(
                    mail=mails, lanes=lanes, sms=sms, other_keys=other_keys, alarms=alarms
                ), now
        raise LaneBusyError("their lane changes faster than it can be read: stop the workers, or try again")

    def _read_mail_and_state(self, k: int, sender: str) -> tuple[list[bytes], bytes]:
        mail, stored = redis_client.run_commands(
            self._redis,
            [("LRANGE", keyspace.mailbox_key(k, sender), 0, -1), ("GET", keyspace.lane_key(k, sender))],
        )
        return mail, stored or b""

    def _opt_outs_to_keep(self, sender: str, stored: bytes, mail: list[bytes]) -> dict[str, tuple[int, str]]:
        """Return the opt-outs to keep (channel -> (ms, source)): those known, and those that unapplied mail adds. What the
        lane alone knows goes to the list with it: where the list's key was lost, it is in no list yet. The mail is
        applied to a lane that holds opt-outs only, so that a survey which cannot be loaded loses no STOP."""
        known = _opt_outs_in_state(stored) if stored else self._optouts.opt_outs_of(sender)
        claim = LaneClaim(sender, 0, 1, redis_client.server_time_ms(self._redis), b"", mail, known)
        applied = draft_event_by_event(claim, SurveyRegistry(), channel_policies(self._settings.channels))
        return known | applied.effects.opt_outs

    def _erase_history(self, erased: ErasureCounts, sender: str, at: int) -> None:
        """Remove the entries of the event stream, the session ids and the dead letters written until `at` (ms), and add them to `erased`."""
        k = keyspace.shard_of(sender, self._settings.shards)
        theirs = (
            entry.id for entry in event_stream.scan_entries(self._redis, k, str(at)) if entry.sender == sender
        )
        sessions = self._session_ids_of(k, sender)
        event_stream.forget_references(self._redis, self._settings.shards, sessions)
        erased.sessions = event_stream.forget_sessions(self._redis, k, sessions)
        erased.stream_entries = event_stream.delete_entries(self._redis, k, theirs)
        if names := self._simulated_keys(sender):
            erased.simulated = redis_client.run_command(self._redis, ("UNLINK", *names))
        erased.dead_letters += self._erase_dead_letters(sender, at)

    def _erase_dead_letters(self, sender: str, at: float = inf) -> int:
        """Remove the dead letters that fell until `at` (ms); answers how many there were."""
        k = keyspace.shard_of(sender, self._settings.shards)
        return dead_letter_store.delete_matching(
            self._redis,
            k,
            lambda letter: letter.sender == sender and letter.at <= at,
            "parley erase",
            "erased",
        )

    def _session_ids_of(self, k: int, sender: str) -> list[str]:
        """The session ids of shard `k` that are indexed to `sender`. Scans every session key of the shard."""
        names = list(set(self._redis.scan_iter(keyspace.session_key(k, "*"), count=_SCAN_COUNT)))
        found = []
        for at in range(0, len(names), _SCAN_COUNT):
            page = names[at : at + _SCAN_COUNT]
            for name, value in zip(page, redis_client.run_command(self._redis, ("MGET", *page)), strict=True):
                if value and value.partition(b" ")[2] == sender.encode():
                    found.append(name.decode().rpartition(":")[2])
        return found

    def _simulated_keys(self, sender: str) -> list[bytes]:
        """The keys of SMS that the simulator delivered to `sender`, kept for a day for `parley phone`; none without a simulator
        channel."""
        if all(channel.provider != SIMULATOR for channel in self._settings.channels.values()):
            return []
        return list(set(self._redis.scan_iter(keyspace.simulator_key(sender, "*"), count=_SCAN_COUNT)))

    def _count_alarms(self, k: int, sender: str) -> int:
        commands = [
            ("ZSCORE", alarms, sender)
            for alarms in (keyspace.lane_alarms_key(k), keyspace.outbox_alarms_key(k))
        ]
        rung = [("ZSCORE", keyspace.wakeup_queue_key(queue), sender) for queue in _QUEUES]
        found = redis_client.run_commands(self._redis, commands) + redis_client.run_commands(
            self._broker, rung
        )
        return sum(score is not None for score in found)

    def _count_invitations(self, k: int, sender: str) -> int:
        held = self._redis.hscan_iter(keyspace.held_invitations_key(k), count=_SCAN_COUNT)
        return sum(stored_values.parse_held_invitation(mail)[0] == sender for _, mail in held)

    def _remove_wakeups(self, sender: str) -> int:
        rung: Sequence[int] = redis_client.run_commands(
            self._broker, [("ZREM", keyspace.wakeup_queue_key(queue), sender) for queue in _QUEUES]
        )
        return sum(rung)

    def _erase_uploaded_rows(self, sender: str) -> int:
        return uploaded_tables.erase_rows(self._redis, sender)

    def _remove_invitations(self, sender: str) -> int:
        return invitation_pacer.forget_invitations(self._redis, self._settings.shards, sender)


_QUEUES = (keyspace.STARTS_QUEUE, keyspace.REPLIES_QUEUE, keyspace.OUTBOUND_QUEUE)


def _opt_outs_in_state(stored: bytes) -> OptOutsByChannel:
    """The opt-outs in a stored lane, which does not say by whose word; none if it cannot be read."""
    try:
        lane = lane_format.decode_lane(stored_values.lane_state(stored))
    except UnreadableLaneError:
        return {}
    return {channel: (at, "unknown") for channel, at in opt_outs_in_lane(lane).items()}


def _known_events(stored: bytes, mail: Sequence[bytes]) -> dict[str, int]:
    """The events, id -> ms, that a stored lane has applied, if it can be read, and those that wait to be."""
    try:
        known = dict(lane_format.decode_lane(stored_values.lane_state(stored)).applied_events)
    except UnreadableLaneError:
        known = {}
    for entry in mail:
        with suppress(ValueError):
            known |= dict.fromkeys(applied_events.event_ids([entry]), stored_values.mail_accepted_ms(entry))
    return known


def _other_keys(k: int, sender: str) -> list[str]:
    return [
        name(k, sender)
        for name in (
            keyspace.lane_lock_key,
            keyspace.outbox_lock_key,
            keyspace.tickets_key,
            keyspace.failed_attempts_key,
        )
    ]
