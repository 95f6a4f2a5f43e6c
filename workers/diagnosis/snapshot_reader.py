"""Reads all that is known of one person in a few round trips; nothing is claimed or changed.

What belongs together is read at once, so that the picture is of one moment. What cannot be read is reported as a
sentence, and hides nothing else.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import redis

from config.settings.channels import Channel, channel_policies
from config.settings.settings import ConfigError
from config.settings.survey_folder import read_survey_files
from config.store import function_calls, keyspace, redis_client, stored_values
from config.store.channel_readings import ChannelReading
from config.store.held_invitations import HeldInvitation
from config.telemetry import process_registry
from engine.model import lane as lane_format
from engine.model.events import InboundSms, decode_outbound, kind_of
from engine.model.lane import ChannelLine, Lane, Session, UnreadableLaneError
from engine.model.policy import ChannelPolicy
from engine.proofs.survey_loader import reload_surveys
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.admission import cooldown_until, sessions_opened_today, throttle_allowance
from engine.turns.deadlines import session_deadlines
from engine.turns.inbound_sms import may_opt_out
from engine.turns.multipart import PARTS_TIMEOUT_MS
from engine.turns.turn import Turn
from workers.clock import invitation_pacer
from workers.diagnosis.last_records import LastRecordsReader
from workers.diagnosis.sender_snapshot import (
    ChannelStatus,
    ConversationStatus,
    DeadLetterSummary,
    IncompleteSms,
    OpenSession,
    OptOutStatus,
    QueuedSms,
    QueuePosition,
    SenderSnapshot,
    UpcomingDeadline,
    WaitingInvitation,
    WaitingMail,
)
from workers.store import dead_letter_store, survey_versions
from workers.store.dead_letter_store import DeadLetter, FailedAttempt
from workers.store.deployment import Deployment
from workers.turns.drafts import decode_mail

ENTRIES_READ = 200
"""Entries of a mailbox or an outbox that are looked into; the others are counted."""


def read_snapshot(deployment: Deployment, sender: str) -> SenderSnapshot:
    """Read the snapshot. A broker that does not answer is a part of it; raises redis.RedisError for the lanes' server."""
    return _SnapshotReader(deployment, sender).read()


class _SnapshotReader:
    """One reading, while it is made."""

    def __init__(self, deployment: Deployment, sender: str) -> None:
        self._deployment = deployment
        self._settings = deployment.settings
        self._redis = deployment.lanes
        self._sender = sender
        self._k = keyspace.shard_of(sender, self._settings.shards)
        self._policy = channel_policies(self._settings.channels)

    def read(self) -> SenderSnapshot:
        found = self._read_live_state()
        self._read_queues(found, self._deployment.broker)
        self._read_channels(found)
        self._read_opt_outs(found)
        self._search_shard(found)
        return found

    # What is alive, all of one moment

    def _read_live_state(self) -> SenderSnapshot:
        k, sender = self._k, self._sender
        asked: dict[str, function_calls.Command] = {
            "time": ("TIME",),
            "mail": ("LRANGE", keyspace.mailbox_key(k, sender), 0, ENTRIES_READ - 1),
            "mail_count": ("LLEN", keyspace.mailbox_key(k, sender)),
            "lane": ("GET", keyspace.lane_key(k, sender)),
            "lock": ("GET", keyspace.lane_lock_key(k, sender)),
            "alarm": ("ZSCORE", keyspace.lane_alarms_key(k), sender),
            "outbox": ("LRANGE", keyspace.outbox_key(k, sender), 0, ENTRIES_READ - 1),
            "outbox_count": ("LLEN", keyspace.outbox_key(k, sender)),
            "outbox_lock": ("GET", keyspace.outbox_lock_key(k, sender)),
            "outbox_alarm": ("ZSCORE", keyspace.outbox_alarms_key(k), sender),
        }
        live = redis_client.run_commands(self._redis, [*asked.values()], transaction=True)
        answers = dict(zip(asked, live, strict=True))
        found = SenderSnapshot(sender=sender, shard=k, now=redis_client.time_reply_ms(answers["time"]))
        found.mail_count, found.outbox_count = answers["mail_count"], answers["outbox_count"]
        found.mail = [_waiting_mail(entry, found.unreadable) for entry in answers["mail"]]
        found.outbox = [_queued_sms(entry, found.unreadable) for entry in answers["outbox"]]
        found.lock = _decode_lock(answers["lock"], "the lane's lock", found.unreadable)
        found.outbox_lock = _decode_lock(answers["outbox_lock"], "the outbox's lock", found.unreadable)
        found.alarm, found.outbox_alarm = (
            _score_as_ms(answers["alarm"]),
            _score_as_ms(answers["outbox_alarm"]),
        )
        self._read_lane(found, answers["lane"])
        return found

    def _read_lane(self, found: SenderSnapshot, stored: bytes | None) -> None:
        said = redis_client.run_command(self._redis, process_registry.HEARTBEATS_COMMAND)
        living = process_registry.parse_living(said, found.now)
        found.alive = dict(process_registry.count_by_role(living))
        found.heard = process_registry.last_heard(said)
        if stored is None:
            return
        found.remembers = True
        found.deadline = stored_values.lane_deadline_ms(stored)
        try:
            lane = lane_format.decode_lane(stored_values.lane_state(stored))
        except (UnreadableLaneError, UnicodeDecodeError) as e:
            found.state_unreadable = str(e)
            return
        found.clock = lane.clock
        surveys, running = self._load_surveys(lane, living)
        turn = Turn(lane, self._sender, surveys, self._policy)
        found.threads = [
            self._conversation_status(turn, key, line, running, found.now) for key, line in lane.lines.items()
        ]
        found.gathered = [
            IncompleteSms(each.channel, len(each.parts), each.total, each.first_part_at + PARTS_TIMEOUT_MS)
            for each in lane.partial_sms
        ]
        found.opt_outs = [
            OptOutStatus(key, line.opted_out_at, in_lane=True)
            for key, line in lane.lines.items()
            if line.opted_out_at
        ]

    def _load_surveys(
        self, lane: Lane, living: Mapping[str, process_registry.ProcessHeartbeat]
    ) -> tuple[SurveyRegistry, dict[str, set[str]]]:
        """Load the versions that the lane's sessions are pinned to and those that a new session would begin with;
        return also the latter by survey name, from living processes, else from the folder."""
        surveys, running = SurveyRegistry(), dict[str, set[str]]()
        for process in living.values():
            for name, version in process.surveys.items():
                running.setdefault(name, set()).add(version)
        pinned = {line.session.version for line in lane.lines.values() if line.session is not None}
        unknown = set[str]()
        for version in pinned.union(*running.values()):
            if (
                known := self._deployment.surveys.by_version(version)
            ) is not None:  # need not be compiled again
                surveys.add_version(known)
            else:
                unknown.add(version)
        for file in survey_versions.stored_versions(self._redis, unknown).values():
            with suppress(
                InvalidSurveyError, msgspec.MsgspecError
            ):  # a session that needs it says that it is not known
                surveys.add_version(read_stored_survey(*survey_versions.decode_survey_file(file)))
        if not running:
            with suppress(OSError):
                files = read_survey_files(self._settings.surveys)
                folder = reload_surveys(files, self._deployment.surveys.snapshot(), ()).current
                surveys.replace_current(folder)
                running = {survey.name: {survey.version} for survey in folder}
        return surveys, running

    def _conversation_status(
        self, turn: Turn, key: str, line: ChannelLine, running: Mapping[str, set[str]], now: int
    ) -> ConversationStatus:
        channel, _, originator = key.partition(":")
        policy = self._policy.get(channel)
        thread = ConversationStatus(
            channel=channel,
            originator=originator,
            session=_open_session(turn, key, line, line.session, running)
            if line.session is not None
            else None,
            ended_at=line.ended_at,
            ended_how=line.ended_how,
            ended_survey=line.ended_survey,
        )
        return _with_limits(thread, turn, line, policy, running, now) if policy is not None else thread

    # What concerns others too

    def _read_queues(self, found: SenderSnapshot, broker: redis.Redis) -> None:
        commands: list[function_calls.Command] = [("TIME",)]
        for bell in map(keyspace.wakeup_queue_key, keyspace.QUEUES):
            commands += [
                ("ZCARD", bell), ("ZRANGE", bell, 0, 0, "WITHSCORES"),
                ("ZRANK", bell, self._sender), ("ZSCORE", bell, self._sender),
            ]  # fmt: skip
        try:
            time, *answers = redis_client.run_commands(broker, commands)
        except redis.RedisError as e:
            found.broker = type(e).__name__
            return
        now = redis_client.time_reply_ms(time)
        for place, queue in enumerate(keyspace.QUEUES):
            depth, first, rank, since = answers[4 * place : 4 * place + 4]
            found.queues[queue] = QueuePosition(
                depth=depth,
                oldest_ms=max(0, now - int(_first_score(first))) if first else 0,
                place=rank,
                since_ms=max(0, now - int(float(since))) if since is not None else 0,
            )

    def _read_channels(self, found: SenderSnapshot) -> None:
        readings = self._deployment.channel_store().read(found.now)
        found.channels = {
            name: self._channel_status(name, reading, found.now) for name, reading in readings.items()
        }

    def _channel_status(self, name: str, reading: ChannelReading, now: int) -> ChannelStatus:
        channel = self._settings.channels[name]
        rate, sessions = channel.limits.sms_per_second, channel.limits.new_sessions_per_minute
        opened = max(0.0, reading.session_bucket_full_at - now) * sessions / 60_000
        booked_ms = reading.sms_bucket_full_at - now - max(1, rate) * 1000 / rate if rate else 0
        paused = reading.pause
        return ChannelStatus(
            timezone=channel.timezone.key,
            pause=paused.pause if paused else None,
            pause_until=now + paused.left_ms if paused and paused.left_ms else 0,
            sms_today=reading.sms_today,
            sms_per_day=channel.limits.sms_per_day,
            sms_per_second=rate,
            behind_ms=max(0, round(booked_ms)),
            quiet_until=self._quiet_until(channel, now),
            sessions_per_minute=sessions,
            sessions_left=max(0, int(sessions - opened + 1e-6)),
        )

    def _quiet_until(self, channel: Channel, now: int) -> int:
        awake_at = channel.quiet.next_awake_at(self._sender, now, channel.timezone) if channel.quiet else now
        return awake_at if awake_at > now else 0

    def _read_opt_outs(self, found: SenderSnapshot) -> None:
        """Merge the list of opt-outs into the snapshot: the list has each opt-out's source, and those of senders
        without a lane."""
        try:
            optouts = self._deployment.find_opt_out_list()
            known = optouts.opt_outs_of(self._sender) if optouts is not None else {}
        except ConfigError:
            found.unreadable.append(
                "PARLEY_OPTOUT_KEY is not the list of opt-outs' key: what it says is not known"
            )
            return
        except msgspec.MsgspecError as e:
            found.unreadable.append(f"what the list of opt-outs has of this person cannot be read: {e}")
            return
        by_lane = {each.channel: each for each in found.opt_outs}
        listed = {
            channel: OptOutStatus(channel, at, source, channel in by_lane)
            for channel, (at, source) in known.items()
        }
        found.opt_outs = [each for _, each in sorted((by_lane | listed).items())]

    def _search_shard(self, found: SenderSnapshot) -> None:
        """Search what lies with that of others: invitations, dead letters, what happened last."""
        held = self._held_invitations(found.unreadable)
        moments = redis_client.run_commands(
            self._redis,
            [("ZSCORE", keyspace.held_ids_key(self._k, each.event.channel), each.id) for each in held],
        )
        found.invitations = [
            WaitingInvitation(
                each.id, each.event.channel, each.event.survey, each.at, _score_as_ms(moment) or 0
            )
            for each, moment in zip(held, moments, strict=True)
        ]
        found.dead = [
            _dead_letter_summary(letter)
            for letter in dead_letter_store.find_by_sender(self._redis, self._k, self._sender)
        ]
        if found.outbox and found.outbox[0].id:
            found.tries = self._failed_attempts(found.outbox[0].id, found.unreadable)
        records = LastRecordsReader(self._redis, self._k, self._sender, found.unreadable)
        found.records = records.read(self._settings.archive_url, found.clock)

    def _failed_attempts(self, sms: str, unreadable: list[str]) -> list[FailedAttempt]:
        try:
            return self._deployment.outbox_store().failed_attempts(self._sender, sms)
        except (msgspec.MsgspecError, ValueError) as e:
            unreadable.append(f"what earlier tries came to cannot be read: {e}")
            return []

    def _held_invitations(self, unreadable: list[str]) -> list[HeldInvitation]:
        held: dict[str, HeldInvitation] = {}  # HSCAN may show one twice
        try:
            for each in invitation_pacer.held_for(self._redis, self._k, self._sender):
                held[each.id] = each
        except ValueError as e:
            unreadable.append(f"an invitation that waits cannot be read: {e}")
        return list(held.values())


def _waiting_mail(entry: bytes, unreadable: list[str]) -> WaitingMail:
    queue = keyspace.STARTS_QUEUE if entry[:1] == keyspace.START_PREFIX else keyspace.REPLIES_QUEUE
    try:
        mail = decode_mail(entry)
    except (msgspec.MsgspecError, ValueError) as e:
        unreadable.append(f"an entry of the mailbox cannot be read: {e}")
        return WaitingMail("unreadable", _accepted_at(entry), queue=queue)
    event = mail.event
    kind = kind_of(event)
    if queue == keyspace.STARTS_QUEUE and isinstance(event, InboundSms):
        kind = "start"
    stops = event.may_be_stop if isinstance(event, InboundSms) else may_opt_out(event)
    return WaitingMail(kind, mail.at, event.channel, getattr(event, "text", ""), queue, stops)


def _accepted_at(entry: bytes) -> int:
    try:
        return stored_values.parse_mail(entry)[0]
    except ValueError:
        return 0


def _queued_sms(entry: bytes, unreadable: list[str]) -> QueuedSms:
    channel = entry.partition(b"\0")[0].decode(errors="replace")
    try:
        sms = decode_outbound(stored_values.outbox_sms(entry))
    except (msgspec.MsgspecError, ValueError) as e:
        unreadable.append(f"an SMS in the outbox cannot be read: {e}")
        return QueuedSms(channel)
    return QueuedSms(channel, sms.id, sms.text, sms.session, sms.decided, sms.uncertain, sms.unasked)


def _decode_lock(stored: bytes | None, what: str, unreadable: list[str]) -> stored_values.StoredLock | None:
    if stored is None:
        return None
    lock = stored_values.parse_lock(stored)
    if lock is None:
        unreadable.append(f"{what} cannot be read; workers take it for none")
    return lock


def _open_session(
    turn: Turn, key: str, line: ChannelLine, session: Session, running: Mapping[str, set[str]]
) -> OpenSession:
    survey = turn.surveys.by_version(session.version)
    step, ahead, problem = f"#{session.step}", list[UpcomingDeadline](), ""
    if survey is None:
        problem = f"version {session.version} of {session.survey} is not kept anywhere, or cannot be read"
    elif not 0 <= session.step < len(survey.steps):
        problem = f"it waits at a step that version {session.version} of {session.survey} does not have"
    else:
        step = survey.steps[session.step].id
        ahead = [UpcomingDeadline(each.at, each.kind) for each in session_deadlines(turn, key, line, session)]
    return OpenSession(
        id=session.id,
        survey=session.survey,
        version=session.version,
        current=session.version in running[session.survey] if session.survey in running else None,
        step=step,
        language=session.language,
        opened_at=session.opened_at,
        touched_at=session.last_sms_at,
        misread=session.invalid_answers,
        ahead=ahead,
        problem=problem,
    )


def _with_limits(
    thread: ConversationStatus,
    turn: Turn,
    line: ChannelLine,
    policy: ChannelPolicy,
    running: Mapping[str, set[str]],
    now: int,
) -> ConversationStatus:
    """`thread` with what is left of each limit. Limits are counted on the channel's own line, cooldowns on the
    sub-number's."""
    main = turn.lane.lines.get(thread.channel) or ChannelLine()
    throttle = throttle_allowance(main, policy, now)
    offered = (turn.surveys.by_version(each) for name in policy.surveys for each in running.get(name, ()))
    cools = {survey.name: cooldown_until(line, survey) for survey in offered if survey is not None}
    return msgspec.structs.replace(
        thread,
        opened_today=sessions_opened_today(main, policy, now),
        most_today=policy.sessions_per_sender_per_day,
        starts_left=throttle[0] if throttle else None,
        next_start_at=throttle[1] if throttle else 0,
        cools={name: until for name, until in cools.items() if until >= now},
    )


def _dead_letter_summary(letter: DeadLetter) -> DeadLetterSummary:
    why = f"{letter.code} {letter.why}".strip()
    kind = "deadline" if letter.kind == "event" and not letter.what else letter.kind
    return DeadLetterSummary(letter.id, kind, letter.reason, letter.at, letter.channel, letter.session, why)


def _score_as_ms(score: bytes | float | None) -> int | None:
    return None if score is None else int(float(score))


def _first_score(page: Sequence[Any]) -> float:
    """The score in what ZRANGE ... WITHSCORES 0 0 answers, flat or in pairs."""
    return float(page[0][1] if isinstance(page[0], tuple | list) else page[1])
