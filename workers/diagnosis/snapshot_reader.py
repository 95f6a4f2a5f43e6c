"""How is all that is known of one person read? In a few round trips; nothing is claimed or changed.

What belongs together is read at once, so that the picture is of one moment. What cannot be read is told in words, and
hides nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import redis

from config.settings.settings import Channel, Mistakes, Settings
from config.settings.survey_folder import survey_files
from config.store import keyspace, pauses, stored_values
from config.telemetry import process_registry
from engine.model import lane as lane_format
from engine.model.events import Record, Sms, decode_outbound, decode_records
from engine.model.lane import Lane, Line, Session, UnreadableLane
from engine.model.policy import ChannelPolicy
from engine.model.quiet_hours import quiet_hours
from engine.proofs.survey_loader import reread_surveys
from engine.surveys.findings import Rejected
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import Surveys
from engine.turns.admission import cools_until, opened_today, starts_left
from engine.turns.deadlines import ahead_of
from engine.turns.multipart import PATIENCE_MS
from engine.turns.turn import Turn
from workers.clock import invitation_pacer
from workers.diagnosis.sender_snapshot import (
    Ahead,
    Dead,
    Failed,
    Invited,
    Open,
    OptedOut,
    Parts,
    Queued,
    Rung,
    Situation,
    Standing,
    Thread,
    Waiting,
)
from workers.store import dead_letter_store, survey_versions
from workers.store.dead_letter_store import DeadLetter
from workers.store.optouts import read_list
from workers.store.outboxes import Outboxes
from workers.turns.drafts import read_entry
from workers.turns.turns import policy_of

MOST = 200
"""Entries of a mailbox or an outbox that are looked into; the others are counted."""

RECORDS = 10
_PAGE = 1_000
_PAGES = 20
"""Pages of a shard's archive that are looked through for a person's last records."""


def read(settings: Settings, lanes: redis.Redis, broker: redis.Redis, sender: str) -> Situation:
    """The situation. A broker that does not answer is a part of it; raises redis.RedisError for the lanes' server."""
    return _Reading(settings, lanes, sender).read(broker)


class _Reading:
    """One reading, while it is made."""

    def __init__(self, settings: Settings, client: redis.Redis, sender: str) -> None:
        self._settings = settings
        self._redis = client
        self._sender = sender
        self._k = keyspace.shard_of(sender, settings.shards)
        self._policy = policy_of(settings.channels)

    def read(self, broker: redis.Redis) -> Situation:
        found = self._alive()
        self._read_queues(found, broker)
        self._read_channels(found)
        self._read_opt_outs(found)
        self._read_rest(found)
        return found

    # What is alive, all of one moment

    def _alive(self) -> Situation:
        k, sender = self._k, self._sender
        asked: dict[str, keyspace.Command] = {
            "time": ("TIME",),
            "mail": ("LRANGE", keyspace.mailbox(k, sender), 0, MOST - 1),
            "mail_count": ("LLEN", keyspace.mailbox(k, sender)),
            "lane": ("GET", keyspace.lane(k, sender)),
            "lock": ("GET", keyspace.lock(k, sender)),
            "alarm": ("ZSCORE", keyspace.alarms(k), sender),
            "outbox": ("LRANGE", keyspace.outbox(k, sender), 0, MOST - 1),
            "outbox_count": ("LLEN", keyspace.outbox(k, sender)),
            "outbox_lock": ("GET", keyspace.outbox_lock(k, sender)),
            "outbox_alarm": ("ZSCORE", keyspace.outbox_alarms(k), sender),
        }
        pipeline = self._redis.pipeline(transaction=True)
        for command in asked.values():
            pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
        answers = dict(zip(asked, pipeline.execute(), strict=True))
        found = Situation(sender=sender, shard=k, now=keyspace.ms_of(answers["time"]))
        found.mail_count, found.outbox_count = answers["mail_count"], answers["outbox_count"]
        found.mail = [_waiting(entry, found.unreadable) for entry in answers["mail"]]
        found.outbox = [_queued(entry, found.unreadable) for entry in answers["outbox"]]
        found.lock = _lock(answers["lock"], "the lane's lock", found.unreadable)
        found.outbox_lock = _lock(answers["outbox_lock"], "the outbox's lock", found.unreadable)
        found.alarm, found.outbox_alarm = _ms(answers["alarm"]), _ms(answers["outbox_alarm"])
        self._read_lane(found, answers["lane"])
        return found

    def _read_lane(self, found: Situation, stored: bytes | None) -> None:
        said = keyspace.ask(self._redis, process_registry.SAID)
        living = process_registry.living(said, found.now)
        found.alive = dict(process_registry.by_role(living))
        found.heard = process_registry.last_heard(said)
        found.earlier = any(not each.library for each in living.values())
        if stored is None:
            return
        found.remembers = True
        found.deadline = stored_values.deadline_in(stored)
        try:
            lane = lane_format.decode(stored_values.state_in(stored))
        except (UnreadableLane, UnicodeDecodeError) as e:
            found.state_unreadable = str(e)
            return
        found.clock = lane.clock
        surveys, running = self._surveys(lane, living)
        turn = Turn(lane, self._sender, surveys, self._policy)
        found.threads = [
            self._thread(turn, key, line, running, found.now) for key, line in lane.lines.items()
        ]
        found.gathered = [
            Parts(each.channel, len(each.parts), each.total, each.since + PATIENCE_MS)
            for each in lane.gathered
        ]
        found.opt_outs = [
            OptedOut(key, line.opted_out_at, in_lane=True)
            for key, line in lane.lines.items()
            if line.opted_out_at
        ]

    def _surveys(
        self, lane: Lane, living: Mapping[str, process_registry.Process]
    ) -> tuple[Surveys, dict[str, set[str]]]:
        """The versions that the lane's sessions need and those that new ones would begin with; and the latter by name:
        what workers say that they run, else what is in the folder."""
        surveys, running = Surveys(), dict[str, set[str]]()
        for process in living.values():
            for name, version in process.surveys.items():
                running.setdefault(name, set()).add(version)
        pinned = {line.session.version for line in lane.lines.values() if line.session is not None}
        for file in survey_versions.stored(self._redis, pinned.union(*running.values())).values():
            with suppress(
                Rejected, msgspec.MsgspecError
            ):  # a session that needs it says that it is not known
                surveys.add(read_stored_survey(*survey_versions.decode(file)))
        if not running:
            with suppress(OSError):
                folder = reread_surveys(survey_files(self._settings.surveys), surveys, ()).current
                surveys.replace(folder)
                running = {survey.name: {survey.version} for survey in folder}
        return surveys, running

    def _thread(self, turn: Turn, key: str, line: Line, running: Mapping[str, set[str]], now: int) -> Thread:
        channel, _, originator = key.partition(":")
        policy = self._policy.get(channel)
        thread = Thread(
            channel=channel,
            originator=originator,
            session=_open(turn, key, line, line.session, running) if line.session is not None else None,
            ended_at=line.ended_at,
            ended_how=line.ended_how,
            ended_survey=line.ended_survey,
        )
        return _limited(thread, turn, line, policy, running, now) if policy is not None else thread

    # What concerns others too

    def _read_queues(self, found: Situation, broker: redis.Redis) -> None:
        commands: list[keyspace.Command] = [("TIME",)]
        for bell in map(keyspace.bell, keyspace.QUEUES):
            commands += [
                ("ZCARD", bell), ("ZRANGE", bell, 0, 0, "WITHSCORES"),
                ("ZRANK", bell, self._sender), ("ZSCORE", bell, self._sender),
            ]  # fmt: skip
        try:
            time, *answers = keyspace.run(broker, commands)
        except redis.RedisError as e:
            found.broker = type(e).__name__
            return
        now = keyspace.ms_of(time)
        for place, queue in enumerate(keyspace.QUEUES):
            depth, first, rank, since = answers[4 * place : 4 * place + 4]
            found.queues[queue] = Rung(
                depth=depth,
                oldest_ms=max(0, now - int(_first_score(first))) if first else 0,
                place=rank,
                since_ms=max(0, now - int(float(since))) if since is not None else 0,
            )

    def _read_channels(self, found: Situation) -> None:
        names = list(self._settings.channels)
        commands: list[keyspace.Command] = []
        for name, channel in self._settings.channels.items():
            day = datetime.fromtimestamp(found.now / 1000, UTC).astimezone(channel.timezone).date()
            commands += [
                ("GET", keyspace.pause(name)), ("PTTL", keyspace.pause(name)),
                ("GET", keyspace.sms_counter(name, day.isoformat())), ("GET", keyspace.sms_bucket(name)),
                ("GET", keyspace.session_bucket(name)),
            ]  # fmt: skip
        answers = keyspace.run(self._redis, commands)
        for place, name in enumerate(names):
            found.channels[name] = self._standing(name, answers[5 * place : 5 * place + 5], found.now)

    def _standing(self, name: str, answers: Sequence[Any], now: int) -> Standing:
        paused, pttl, sms_today, full_at, sessions_full_at = answers
        channel = self._settings.channels[name]
        rate, sessions = channel.limits.sms_per_second, channel.limits.new_sessions_per_minute
        opened = max(0.0, float(sessions_full_at or 0) - now) * sessions / 60_000
        return Standing(
            timezone=channel.timezone.key,
            pause=pauses.decode(paused) if paused is not None else None,
            pause_until=now + left_ms if (left_ms := pauses.left_ms(pttl)) else 0,
            sms_today=int(sms_today or 0),
            sms_per_day=channel.limits.sms_per_day,
            sms_per_second=rate,
            behind_ms=max(0, round(float(full_at or 0) - now - max(1, rate) * 1000 / rate)) if rate else 0,
            quiet_until=self._quiet_until(channel, now),
            sessions_per_minute=sessions,
            sessions_left=max(0, int(sessions - opened + 1e-6)),
        )

    def _quiet_until(self, channel: Channel, now: int) -> int:
        quiet = quiet_hours(channel.quiet_minutes)
        awake_at = quiet.awake_at(self._sender, now, channel.timezone) if quiet else now
        return awake_at if awake_at > now else 0

    def _read_opt_outs(self, found: Situation) -> None:
        """The list of opt-outs knows by whose word, and those of people who have no lane."""
        try:
            optouts = read_list(self._redis, self._settings.shards, self._settings.optout_key)
            known = optouts.known(self._sender) if optouts is not None else {}
        except Mistakes:
            found.unreadable.append(
                "PARLEY_OPTOUT_KEY is not the list of opt-outs' key: what it says is not known"
            )
            return
        except msgspec.MsgspecError as e:
            found.unreadable.append(f"what the list of opt-outs has of this person cannot be read: {e}")
            return
        by_lane = {each.channel: each for each in found.opt_outs}
        listed = {
            channel: OptedOut(channel, at, source, channel in by_lane)
            for channel, (at, source) in known.items()
        }
        found.opt_outs = [each for _, each in sorted((by_lane | listed).items())]

    def _read_rest(self, found: Situation) -> None:
        """What is looked for among that of others: invitations, dead letters, the archive."""
        held = self._held(found.unreadable)
        moments = keyspace.run(
            self._redis,
            [("ZSCORE", keyspace.held(self._k, each.event.channel), each.id) for each in held],
        )
        found.invitations = [
            Invited(each.id, each.event.channel, each.event.survey, each.at, _ms(moment) or 0)
            for each, moment in zip(held, moments, strict=True)
        ]
        found.dead = [
            _dead(letter) for letter in dead_letter_store.of_sender(self._redis, self._k, self._sender)
        ]
        if found.outbox and found.outbox[0].id:
            found.tries = self._tries(found.outbox[0].id, found.unreadable)
        found.records = self._last_records(found.clock, found.unreadable)

    def _tries(self, sms: str, unreadable: list[str]) -> list[Failed]:
        outboxes = Outboxes(self._redis, self._settings.shards, 0, 0)
        try:
            return [Failed(each.at, each.code, each.why) for each in outboxes.tries(self._sender, sms)]
        except (msgspec.MsgspecError, ValueError) as e:
            unreadable.append(f"what earlier tries came to cannot be read: {e}")
            return []

    def _held(self, unreadable: list[str]) -> list[invitation_pacer.Held]:
        held: dict[str, invitation_pacer.Held] = {}  # HSCAN may show one twice
        try:
            for each in invitation_pacer.held_for(self._redis, self._k, self._sender):
                held[each.id] = each
        except ValueError as e:
            unreadable.append(f"an invitation that waits cannot be read: {e}")
        return list(held.values())

    def _last_records(self, clock: int, unreadable: list[str]) -> list[Record]:
        """Their last records, oldest first: among the shard's latest, else about when their lane last changed."""
        found = self._records_before("+", _PAGES // 2, unreadable)
        if not found and clock:
            found = self._records_before(str(clock + 5_000), _PAGES // 2, unreadable)
        return found[-RECORDS:]

    def _records_before(self, until: str, pages: int, unreadable: list[str]) -> list[Record]:
        found: list[list[Record]] = []
        for _ in range(pages):
            page = keyspace.ask(
                self._redis, ("XREVRANGE", keyspace.events(self._k), until, "-", "COUNT", _PAGE)
            )
            found += _records_of(self._sender, page, unreadable)
            if len(page) < _PAGE or sum(map(len, found)) >= RECORDS:
                break
            until = "(" + page[-1][0].decode()
        return [record for records in reversed(found) for record in records]


def _waiting(entry: bytes, unreadable: list[str]) -> Waiting:
    queue = keyspace.STARTS if entry[:1] == keyspace.START else keyspace.REPLIES
    try:
        mail = read_entry(entry)
    except (msgspec.MsgspecError, ValueError) as e:
        unreadable.append(f"an entry of the mailbox cannot be read: {e}")
        return Waiting("unreadable", _accepted_at(entry), queue=queue)
    event = mail.event
    kind = type(event).__name__.lower()
    if queue == keyspace.STARTS and isinstance(event, Sms):
        kind = "start"
    return Waiting(kind, mail.at, event.channel, getattr(event, "text", ""), queue)


def _accepted_at(entry: bytes) -> int:
    try:
        return stored_values.event_in(entry)[0]
    except ValueError:
        return 0


def _queued(entry: bytes, unreadable: list[str]) -> Queued:
    channel = entry.partition(b"\0")[0].decode(errors="replace")
    try:
        sms = decode_outbound(stored_values.sms_in(entry))
    except (msgspec.MsgspecError, ValueError) as e:
        unreadable.append(f"an SMS in the outbox cannot be read: {e}")
        return Queued(channel)
    return Queued(channel, sms.id, sms.text, sms.session, sms.decided, sms.uncertain, sms.unasked)


def _lock(stored: bytes | None, what: str, unreadable: list[str]) -> stored_values.Lock | None:
    if stored is None:
        return None
    lock = stored_values.lock_in(stored)
    if lock is None:
        unreadable.append(f"{what} cannot be read; workers take it for none")
    return lock


def _open(turn: Turn, key: str, line: Line, session: Session, running: Mapping[str, set[str]]) -> Open:
    survey = turn.surveys.version(session.version)
    step, ahead, problem = f"#{session.step}", list[Ahead](), ""
    if survey is None:
        problem = f"version {session.version} of {session.survey} is not kept anywhere, or cannot be read"
    elif not 0 <= session.step < len(survey.steps):
        problem = f"it waits at a step that version {session.version} of {session.survey} does not have"
    else:
        step = survey.steps[session.step].id
        ahead = [Ahead(each.at, each.what) for each in ahead_of(turn, key, line, session)]
    return Open(
        id=session.id,
        survey=session.survey,
        version=session.version,
        current=session.version in running[session.survey] if session.survey in running else None,
        step=step,
        language=session.language,
        opened_at=session.opened_at,
        touched_at=session.touched_at,
        misread=session.misread,
        ahead=ahead,
        problem=problem,
    )


def _limited(
    thread: Thread, turn: Turn, line: Line, policy: ChannelPolicy, running: Mapping[str, set[str]], now: int
) -> Thread:
    """With what is left of the limits. They are the channel's own line's, but for cooling down."""
    main = turn.lane.lines.get(thread.channel) or Line()
    throttle = starts_left(main, policy, now)
    offered = (turn.surveys.version(each) for name in policy.surveys for each in running.get(name, ()))
    cools = {survey.name: cools_until(line, survey) for survey in offered if survey is not None}
    return msgspec.structs.replace(
        thread,
        opened_today=opened_today(main, policy, now),
        most_today=policy.sessions_per_sender_per_day,
        starts_left=throttle[0] if throttle else None,
        next_start_at=throttle[1] if throttle else 0,
        cools={name: until for name, until in cools.items() if until >= now},
    )


def _dead(letter: DeadLetter) -> Dead:
    why = f"{letter.code} {letter.why}".strip()
    kind = "deadline" if letter.kind == "event" and not letter.what else letter.kind
    return Dead(letter.id, kind, letter.reason, letter.at, letter.channel, letter.session, why)


def _records_of(
    sender: str, page: Iterable[tuple[bytes, Mapping[bytes, bytes]]], unreadable: list[str]
) -> Iterator[list[Record]]:
    for identity, fields in page:
        if fields.get(b"to") == sender.encode():
            try:
                yield decode_records(fields[b"e"])
            except (msgspec.MsgspecError, ValueError, KeyError) as e:
                unreadable.append(f"the entry {identity.decode()} of the archive cannot be read: {e}")


def _ms(score: bytes | float | None) -> int | None:
    return None if score is None else int(float(score))


def _first_score(page: Sequence[Any]) -> float:
    """The score in what ZRANGE ... WITHSCORES 0 0 answers, flat or in pairs."""
    return float(page[0][1] if isinstance(page[0], tuple | list) else page[1])
