"""Why is nothing happening with this person, or what happens next, and when? One sentence, decided without I/O.

Each part of the pipeline says what it knows: how grave it is, and a sentence. The gravest is the answer, of equals the
one that comes first on an SMS's way; the others are told too. Whatever does not fit what Parley does is said to be
unexplained, never passed over.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from config.service.pause_wording import pause_cause
from config.store import keyspace, pauses, stored_values
from config.store.outbox_states import decode_owner
from config.store.stored_values import LANE_LEASE_MS
from config.telemetry.process_registry import ROLE_OF_QUEUE
from engine.model.durations import format_duration
from engine.model.events import OpeningRefused
from engine.model.timestamps import format_clock_time
from engine.simulator.explanations import ENDING_REASONS, REFUSAL_REASONS
from workers.clock.alarm_clock import ALARM_REPEAT_MS
from workers.clock.invitation_pacer import MAX_LANES_WAITING
from workers.diagnosis.sender_snapshot import (
    ChannelStatus,
    ConversationStatus,
    OpenSession,
    QueuedSms,
    SenderSnapshot,
)
from workers.sending.send_policy import MAX_SEND_ATTEMPTS
from workers.store.outboxes import OUTBOX_LEASE_MS
from workers.turns.drafts import MAX_CLAIM_ATTEMPTS

_ALARM_LATE_MS = 2_000
"""A clock that ticks leaves no alarm due for so long."""

_LONG_WAIT_MS = 10_000
"""What somebody is rung for does not wait for so long where workers keep up."""

_SILENT_PROCESS_MS = 12_000
"""A process says every five seconds that it lives."""

_BRIEF_CLAIM_MS = 1_000
"""A worker has a lane in its hands for less than this."""


class Severity(IntEnum):
    """`WRONG`: somebody must do something. `HELD_UP`: it waits for longer than an SMS does on a good day."""

    QUIET = 0
    NORMAL = 1
    HELD_UP = 2
    WRONG = 3


class DiagnosticFinding(NamedTuple):
    severity: Severity
    sentence: str


class Diagnosis(msgspec.Struct, frozen=True):
    """The sentence, how grave it is, and what else is to be said."""

    sentence: str
    severity: Severity
    also: list[str] = []


def diagnose(s: SenderSnapshot) -> Diagnosis:
    found = list(_all_findings(s))
    first = max(found, key=lambda finding: finding.severity)  # the first of those that weigh as much
    also = [each.sentence for each in found if each is not first and each.severity > Severity.QUIET]
    return Diagnosis(first.sentence, first.severity, also)


def _all_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    if s.broker:
        yield DiagnosticFinding(
            Severity.WRONG,
            f"The Redis of the wake-ups does not answer ({s.broker}): no worker is rung for until it does.",
        )
    yield from _unreadable_findings(s)
    yield from _lane_findings(s)
    yield from _outbox_findings(s)
    for thread, session in s.open_sessions:
        yield _session_finding(s, thread, session)
    yield from _dead_letter_findings(s)
    yield from _pause_findings(s)
    yield from _multipart_findings(s)
    yield from _invitation_findings(s)
    yield from _opt_out_findings(s)
    yield from _refusal_findings(s)
    yield _idle_finding(s)


def _unreadable_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    if s.state_unreadable:
        yield DiagnosticFinding(
            Severity.WRONG,
            "What is remembered of this person cannot be read by this "
            f"release ({s.state_unreadable}), so whatever "
            "they send becomes a dead letter: run the release that wrote it, then `parley dead replay`.",
        )
    for what in s.unreadable:
        yield DiagnosticFinding(Severity.HELD_UP, f"Something is damaged: {what}.")


# The lane: who has it, and what waits for them


def _lane_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    waits = _mailbox_clause(s)
    overdue = not s.mail_count and 0 < s.deadline <= s.now
    if s.lock is not None and s.lock.until > s.now:
        yield _claimed_lane_finding(s, s.lock, waits)
    elif s.lock is not None and s.lock.attempts and (s.mail_count or overdue):
        ago = format_duration(s.now - s.lock.until + LANE_LEASE_MS)
        coming = _pickup_finding(s, s.alarm, *_queues_for_mail(s))
        yield DiagnosticFinding(
            max(Severity.HELD_UP, coming.severity),
            f"A worker that claimed it {ago} ago never came back{_attempt_clause(s.lock)}; "
            f"{waits}{coming.sentence}.",
        )
    elif s.mail_count:
        coming = _pickup_finding(s, s.alarm, *_queues_for_mail(s))
        weight = coming.severity
        if weight == Severity.NORMAL and s.now - s.mail[0].at > _LONG_WAIT_MS:
            weight = Severity.HELD_UP
        yield DiagnosticFinding(weight, f"{waits[:1].upper()}{waits[1:]}{coming.sentence}.")
    elif overdue:
        coming = _pickup_finding(s, s.alarm, *_queues_for_mail(s))
        yield DiagnosticFinding(
            coming.severity,
            f"What was to happen {format_duration(s.now - s.deadline)} ago is due; {coming.sentence}.",
        )
    elif s.deadline > s.now and (s.alarm is None or s.alarm > s.deadline + ALARM_REPEAT_MS):
        alarm = (
            "no alarm is set"
            if s.alarm is None
            else f"its alarm is set for {format_duration(s.alarm - s.now)} from now"
        )
        what = f"Something is to happen in {format_duration(s.deadline - s.now)}, but {alarm}"
        found = _missing_alarm_finding(s, what, keyspace.lane_alarms_key(s.shard))
        yield DiagnosticFinding(found.severity, f"{found.sentence}.")


def _claimed_lane_finding(s: SenderSnapshot, lock: stored_values.StoredLock, waits: str) -> DiagnosticFinding:
    """Whether the holder lives cannot be told until its lease ends."""
    since, left = s.now - (lock.until - LANE_LEASE_MS), format_duration(lock.until - s.now)
    if lock.owner.startswith("replay-"):
        return DiagnosticFinding(
            Severity.NORMAL, f"An operator replays a dead letter of theirs, for {left} at most."
        )
    if lock.attempts > MAX_CLAIM_ATTEMPTS:
        return DiagnosticFinding(
            Severity.HELD_UP,
            f"Its oldest event has outlived {lock.attempts - 1} workers and is being given up.",
        )
    if since < _BRIEF_CLAIM_MS and lock.attempts == 1:
        return DiagnosticFinding(Severity.NORMAL, "A worker has it in its hands at this moment.")
    return DiagnosticFinding(
        Severity.HELD_UP,
        f"A worker that claimed it {format_duration(since)} ago has "
        f"not come back{_attempt_clause(lock)}; {waits}"
        f"it is taken up again in {left}.",
    )


def _attempt_clause(lock: stored_values.StoredLock) -> str:
    return f" (attempt {lock.attempts} of {MAX_CLAIM_ATTEMPTS})" if lock.attempts > 1 else ""


_MAIL_PHRASE = {"start": "a START", "sms": "an SMS", "invitation": "an invitation", "receipt": "a receipt"}


def _mailbox_clause(s: SenderSnapshot) -> str:
    """`2 events wait in the mailbox, the oldest for 40 s; `"""
    if not s.mail_count:
        return ""
    oldest = s.mail[0] if s.mail else None
    what = _MAIL_PHRASE.get(oldest.kind, "an event") if oldest is not None else "an event"
    count = f"{what} waits" if s.mail_count == 1 else f"{s.mail_count} events wait"
    if oldest is None or not oldest.at:
        return f"{count} in the mailbox; "
    of = "" if s.mail_count == 1 else "the oldest "
    return f"{count} in the mailbox, {of}for {format_duration(s.now - oldest.at)}; "


def _queues_for_mail(s: SenderSnapshot) -> tuple[str, ...]:
    """Whose work it is, first; of mail that may be a STOP, who lives. The clock rings `replies` for any lane, and that worker
    passes a START on."""
    starts_first = bool(s.mail) and s.mail[0].queue == keyspace.STARTS_QUEUE
    queues = (keyspace.STARTS_QUEUE, keyspace.REPLIES_QUEUE)
    if not starts_first:
        queues = queues[::-1]
    if not s.stop_may_wait:
        return queues
    return tuple(queue for queue in queues if not _is_role_missing(s, ROLE_OF_QUEUE[queue])) or queues


def _pickup_finding(s: SenderSnapshot, alarm: int | None, *queues: str) -> DiagnosticFinding:
    """Who comes for what waits, and when; a clause."""
    for queue in queues:
        if (rung := s.queues.get(queue)) is not None and rung.place is not None:
            return _wakeup_finding(s, ROLE_OF_QUEUE[queue], rung.since_ms, rung.place)
    role = ROLE_OF_QUEUE[queues[0]]
    if alarm is None:
        index = (
            keyspace.outbox_alarms_key if queues[0] == keyspace.OUTBOUND_QUEUE else keyspace.lane_alarms_key
        )
        return _missing_alarm_finding(
            s, "nobody is rung for, and no alarm is set, so nobody will come", index(s.shard)
        )
    if alarm <= s.now - _ALARM_LATE_MS:
        return DiagnosticFinding(
            Severity.WRONG,
            f"the clock should have rung {format_duration(s.now - alarm)} ago and has not: is `clock` "
            f"running? {_last_heard_sentence(s, 'clock')}",
        )
    when = f"in {format_duration(alarm - s.now)}" if alarm > s.now else "now"
    if _is_role_missing(s, role):
        return DiagnosticFinding(
            Severity.WRONG,
            f"the clock rings again {when}, but nobody comes: is `{role}` running? "
            f"{_last_heard_sentence(s, role)}",
        )
    if _is_role_missing(s, "clock"):
        return DiagnosticFinding(
            Severity.WRONG,
            f"the clock should ring {when}: is `clock` running? {_last_heard_sentence(s, 'clock')}",
        )
    return DiagnosticFinding(Severity.NORMAL, f"a worker is rung for, or the clock rings {when}")


def _wakeup_finding(s: SenderSnapshot, role: str, since_ms: int, before: int) -> DiagnosticFinding:
    alive = s.alive.get(role, 0)
    ahead = (
        f"behind {before} others" if before > 1 else "behind one other" if before else "first in its queue"
    )
    if not alive:
        return DiagnosticFinding(
            Severity.WRONG,
            f"a worker has been rung for {format_duration(since_ms)}: is `{role}` running? "
            f"{_last_heard_sentence(s, role)}",
        )
    silent_ms = s.now - s.heard.get(role, s.now)
    if since_ms > _LONG_WAIT_MS and alive and silent_ms > _SILENT_PROCESS_MS:
        return DiagnosticFinding(
            Severity.HELD_UP,
            f"a worker has been rung for {format_duration(since_ms)}, {ahead}: no `{role}` has "
            "been heard of for "
            f"{format_duration(silent_ms)}, it may be gone",
        )
    if since_ms > _LONG_WAIT_MS:
        who = (
            f"{alive} `{role}` {'lives, and is' if alive == 1 else 'live, and are'}"
            if alive
            else f"`{role}` is"
        )
        return DiagnosticFinding(
            Severity.HELD_UP,
            f"a worker has been rung for {format_duration(since_ms)}, {ahead}: {who} busy with others, or "
            "stuck (see its log)",
        )
    return DiagnosticFinding(Severity.NORMAL, f"a worker is rung for, {ahead}")


def _is_role_missing(s: SenderSnapshot, role: str) -> bool:
    """Is there none that lives?"""
    return not s.alive.get(role)


def _last_heard_sentence(s: SenderSnapshot, role: str) -> str:
    last = s.heard.get(role)
    return f"No such process has been heard of{f' for {format_duration(s.now - last)}' if last else ''}"


def _missing_alarm_finding(s: SenderSnapshot, what: str, index: str) -> DiagnosticFinding:
    """A clause for what Parley never does by itself."""
    return DiagnosticFinding(
        Severity.WRONG, f"{what}, which cannot be explained; `redis-cli ZADD '{index}' 0 {s.sender}` sets one"
    )


# The outbox: what keeps the oldest SMS


def _outbox_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    if not s.outbox_count:
        return
    head = s.outbox[0] if s.outbox else QueuedSms("")
    standing = s.channels.get(head.channel)
    wait = f"{s.outbox_count} SMS waits" if s.outbox_count == 1 else f"{s.outbox_count} SMS wait"
    lock = s.outbox_lock
    if lock is not None and lock.fence and lock.until > s.now:
        yield _sending_finding(s, lock, wait)
    elif standing is None:
        coming = _pickup_finding(s, s.outbox_alarm, keyspace.OUTBOUND_QUEUE)
        yield DiagnosticFinding(
            Severity.WRONG,
            f"{wait} for the channel {head.channel or '?'}, which is not configured: it "
            "becomes a dead letter; "
            f"{coming.sentence}.",
        )
    elif standing.pause is not None:
        yield _paused_channel_finding(s, head.channel, standing, standing.pause, wait)
    else:
        yield _resting_outbox_finding(s, lock, standing, wait)
    if lock is not None and lock.until > s.now and s.outbox_alarm is None:
        found = _missing_alarm_finding(
            s, f"{wait} to leave, but no alarm is set", keyspace.outbox_alarms_key(s.shard)
        )
        yield DiagnosticFinding(found.severity, f"{found.sentence}.")


def _sending_finding(s: SenderSnapshot, lock: stored_values.StoredLock, wait: str) -> DiagnosticFinding:
    since, left = s.now - (lock.until - OUTBOX_LEASE_MS), format_duration(lock.until - s.now)
    tries = f" (try {lock.attempts} of {MAX_SEND_ATTEMPTS})" if lock.attempts > 1 else ""
    if since < _LONG_WAIT_MS:
        return DiagnosticFinding(
            Severity.NORMAL, f"An SMS is being sent, for {format_duration(since)} now{tries}; {wait}."
        )
    return DiagnosticFinding(
        Severity.HELD_UP,
        f"A worker that began to send an SMS {format_duration(since)} ago has not "
        f"come back{tries}; {wait}; it is taken up "
        f"again in {left}.",
    )


def _paused_channel_finding(
    s: SenderSnapshot, channel: str, standing: ChannelStatus, pause: pauses.StoredPause, wait: str
) -> DiagnosticFinding:
    zone = ZoneInfo(standing.timezone)
    since = f" since {format_clock_time(pause.since, s.now, zone)}" if pause.since else ""
    until = f" until {format_clock_time(standing.pause_until, s.now, zone)}" if standing.pause_until else ""
    why = f' ("{pause.why}")' if pause.why else ""
    match pause.by:
        case "operator":
            return DiagnosticFinding(
                Severity.HELD_UP,
                f"The {channel} channel is paused {pause_cause(pause)}{since}{until}{why}; {wait}; "
                f"`parley channel resume {channel}`.",
            )
        case "account":
            end = f" by itself, or at once by `parley channel resume {channel}`"
        case "circuit":
            end = ""
    again = f" in {format_duration(standing.pause_until - s.now)}" if standing.pause_until else ""
    return DiagnosticFinding(
        Severity.HELD_UP,
        f"The {channel} channel is paused{since}, {pause_cause(pause)}{why}; {wait}; one SMS tries "
        f"again{again}{end}.",
    )


def _resting_outbox_finding(
    s: SenderSnapshot, lock: stored_values.StoredLock | None, standing: ChannelStatus, wait: str
) -> DiagnosticFinding:
    """The finding for an outbox that nobody is sending from: its lock's owner says why the oldest SMS rests."""
    if lock is None or lock.until <= s.now:
        return _unclaimed_outbox_finding(s, lock, wait)
    left = format_duration(lock.until - s.now)
    owner = decode_owner(lock.fence, lock.owner)
    doubt = "; the provider may have it, and is asked first, or sent the same id" if owner.uncertain else ""
    match owner.state:
        case "again":
            return DiagnosticFinding(
                Severity.HELD_UP,
                f"{wait}: the last try failed{_last_error_clause(s)}; try {lock.attempts + 1} of "
                f"{MAX_SEND_ATTEMPTS} is in "
                f"{left}{doubt}.",
            )
        case "booked":
            rate = f"{standing.sms_per_second:g} SMS a second"
            weight = Severity.HELD_UP if lock.until - s.now > _LONG_WAIT_MS else Severity.NORMAL
            return DiagnosticFinding(
                weight, f"{wait} for a turn at the channel's {rate}: the next leaves in {left}."
            )
        case "done":
            return DiagnosticFinding(
                Severity.NORMAL, f"{wait} for the pause after the last SMS: the next leaves in {left}."
            )
        case "untried":
            return DiagnosticFinding(
                Severity.HELD_UP,
                f"{wait}: the channel held it back, as it was paused or behind; it is looked "
                f"at again in {left}{doubt}.",
            )
        case "reserved":
            return DiagnosticFinding(
                Severity.NORMAL, f"{wait} for the answer to a webhook, which may hold it, for {left} at most."
            )
        case "entrusted":
            return DiagnosticFinding(
                Severity.HELD_UP,
                f"{wait}: the answer to a webhook held it, and the provider has not confirmed it; it is "
                f"asked in {left}.",
            )
        case _:
            return DiagnosticFinding(
                Severity.HELD_UP,
                f"{wait}, at rest for another {left}; why cannot be explained (it was left as "
                f"{lock.owner.removesuffix('?')!r}).",
            )


def _unclaimed_outbox_finding(
    s: SenderSnapshot, lock: stored_values.StoredLock | None, wait: str
) -> DiagnosticFinding:
    coming = _pickup_finding(s, s.outbox_alarm, keyspace.OUTBOUND_QUEUE)
    if lock is not None and lock.fence:
        ago = format_duration(s.now - lock.until + OUTBOX_LEASE_MS)
        return DiagnosticFinding(
            max(Severity.HELD_UP, coming.severity),
            f"A worker that began to send an SMS {ago} ago never came back, so the provider "
            f"may have it; {wait}; "
            f"{coming.sentence}.",
        )
    if s.stop_may_wait:
        return DiagnosticFinding(
            coming.severity, f"{wait} until their mail is read, which may be a STOP; {coming.sentence}."
        )
    return DiagnosticFinding(coming.severity, f"{wait} to leave; {coming.sentence}.")


def _last_error_clause(s: SenderSnapshot) -> str:
    if not s.tries:
        return ""
    last = s.tries[-1]
    return f" {format_duration(s.now - last.at)} ago ({': '.join(filter(None, (last.code, last.why)))})"


# What waits for the person, or for a moment


def _dead_letter_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    if not s.dead:
        return
    last = s.dead[-1]
    since = max([s.clock, *(session.touched_at for _, session in s.open_sessions)])
    count = "A dead letter is" if len(s.dead) == 1 else f"{len(s.dead)} dead letters are"
    what = {
        "sms": "an SMS to them",
        "event": "what they sent",
        "hook": "what an endpoint was told of them",
    }.get(last.kind, "a deadline")
    sentence = (
        f"{count} theirs, the last {format_duration(s.now - last.at)} ago: {what} could not be handled "
        f"({last.reason}); "
        f"`parley dead show {last.id}`."
    )
    holds_up = last.at >= since and last.kind != "hook"
    yield DiagnosticFinding(Severity.HELD_UP if holds_up else Severity.NORMAL, sentence)


_DEADLINE_PHRASE = {
    "idle": "ends by silence",
    "expired": "its time is over",
    "remind": "they are reminded",
}


def _session_finding(
    s: SenderSnapshot, thread: ConversationStatus, session: OpenSession
) -> DiagnosticFinding:
    where = f"`{session.step}` of {session.survey}"
    if thread.originator:
        where += f", over {thread.originator}"
    if session.problem:
        return DiagnosticFinding(
            Severity.WRONG,
            f"A session of {session.survey} is open, but {session.problem}: whatever they "
            "send becomes a dead letter.",
        )
    first = session.ahead[0]
    if first.at <= s.now:
        return DiagnosticFinding(
            Severity.NORMAL, f"Waits for an answer to {where}; {_DEADLINE_PHRASE[first.what]} about now."
        )
    clock = ""
    weight = Severity.NORMAL
    if _is_role_missing(s, "clock"):
        weight, clock = Severity.HELD_UP, f", if `clock` runs by then. {_last_heard_sentence(s, 'clock')}"
    return DiagnosticFinding(
        weight,
        f"Waits for an answer to {where}; {_DEADLINE_PHRASE[first.what]} in "
        f"{format_duration(first.at - s.now)}{clock}.",
    )


def _pause_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    """What their sessions will decide has to wait."""
    for channel in sorted({thread.channel for thread, _ in s.open_sessions}):
        standing = s.channels.get(channel)
        if not s.outbox_count and standing is not None and standing.pause is not None:
            paused = _paused_channel_finding(
                s, channel, standing, standing.pause, "nothing of theirs waits for it yet"
            )
            yield DiagnosticFinding(Severity.NORMAL, paused.sentence)


def _multipart_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    for parts in s.gathered:
        left = f"in {format_duration(parts.until - s.now)}" if parts.until > s.now else "now"
        yield DiagnosticFinding(
            Severity.NORMAL,
            f"{parts.came} of {parts.total} parts of a long SMS have come; without the others it "
            f"is taken as it is {left}.",
        )


def _invitation_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    for each in s.invitations:
        standing = s.channels.get(each.channel)
        waited = format_duration(s.now - each.at)
        about = f"An invitation to {each.survey or '?'} on {each.channel or '?'} has waited for {waited}"
        if standing is None:
            yield DiagnosticFinding(
                Severity.WRONG, f"{about}, but no channel is called so: nobody will release it."
            )
        elif each.not_before > s.now:
            yield DiagnosticFinding(
                Severity.NORMAL,
                f"{about}; it is not sent before {format_duration(each.not_before - s.now)} from now.",
            )
        elif standing.pause is not None:
            paused = _paused_channel_finding(
                s, each.channel, standing, standing.pause, about[:1].lower() + about[1:]
            )
            yield DiagnosticFinding(Severity.HELD_UP, paused.sentence)
        elif standing.quiet_until:
            yield DiagnosticFinding(
                Severity.NORMAL,
                f"{about}; it is quiet where they are, for {format_duration(standing.quiet_until - s.now)}.",
            )
        elif standing.sms_per_day and standing.sms_today >= standing.sms_per_day:
            yield DiagnosticFinding(
                Severity.HELD_UP,
                f"{about}; the channel has spent the day's SMS ({standing.sms_today} of "
                f"{standing.sms_per_day}).",
            )
        elif _is_role_missing(s, "clock"):
            yield DiagnosticFinding(
                Severity.WRONG,
                f"{about}; is `clock` running, which releases it? {_last_heard_sentence(s, 'clock')}.",
            )
        elif (busiest := max((each.depth for each in s.queues.values()), default=0)) >= MAX_LANES_WAITING:
            yield DiagnosticFinding(
                Severity.HELD_UP,
                f"{about}; {busiest} lanes wait for workers or for the provider, and go first.",
            )
        else:
            yield DiagnosticFinding(Severity.NORMAL, f"{about}; its turn comes at the channel's pace.")


def _opt_out_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    for each in s.opt_outs:
        if s.remembers and not each.in_lane and not s.state_unreadable:
            mail = "; it may be in the mail that waits" if s.mail_count else ""
            yield DiagnosticFinding(
                Severity.HELD_UP,
                f"The list of opt-outs has them for {each.channel}, but their lane does "
                f"not know it{mail}: what is open "
                "goes on.",
            )
            continue
        by = f", by the word of {each.source}" if each.source not in ("", "person", "unknown") else ""
        yield DiagnosticFinding(
            Severity.NORMAL,
            f"They opted out of {each.channel} {format_duration(s.now - each.since)} ago{by}: nothing is "
            "sent on it until they "
            "say START.",
        )


def _refusal_findings(s: SenderSnapshot) -> Iterator[DiagnosticFinding]:
    """Their last START or invitation, if nothing has opened since."""
    last = next((each for each in reversed(s.records) if isinstance(each, OpeningRefused)), None)
    if last is None or (last.reason == "opted_out" and s.opt_outs):
        return
    threads = [each for each in s.threads if each.channel == last.channel]
    if any(each.session is not None or each.ended_at > last.at for each in threads):
        return
    again = _next_start_clause(s, last, threads)
    yield DiagnosticFinding(
        Severity.NORMAL,
        f"The last START or invitation on {last.channel}, "
        f"{format_duration(s.now - last.at)} ago, opened nothing: "
        f"{REFUSAL_REASONS[last.reason]}{again}.",
    )


def _next_start_clause(s: SenderSnapshot, refused: OpeningRefused, threads: list[ConversationStatus]) -> str:
    if refused.reason == "sms_budget" and (standing := s.channels.get(refused.channel)) is not None:
        spent = f"{standing.sms_today} of {standing.sms_per_day}"
        return f" ({spent}); the day ends at midnight of the channel's time zone"
    for thread in threads:
        if refused.reason == "throttled" and thread.starts_left is not None:
            wait = thread.next_start_at - s.now
            return (
                f"; the next START is let through {f'in {format_duration(wait)}' if wait > 0 else 'by now'}"
            )
        if refused.reason == "daily_cap" and thread.most_today:
            count = f" ({thread.opened_today} of {thread.most_today})"
            return f"{count}; the day ends at midnight of the channel's time zone"
        if refused.reason == "cooldown" and thread.cools:
            return "; " + ", ".join(
                f"{survey} may begin again in {format_duration(until - s.now)}"
                for survey, until in thread.cools.items()
            )
    return ""


def _idle_finding(s: SenderSnapshot) -> DiagnosticFinding:
    """What is to be said if nothing waits and nothing is under way."""
    if s.is_unknown:
        return DiagnosticFinding(
            Severity.QUIET,
            "Nothing is known of this number: nothing of it waits, and neither the lanes nor "
            "the latest records "
            "have it. If it has written, look whether its webhooks arrive (parley_webhooks_total).",
        )
    ended = max((each for each in s.threads if each.ended_at), key=lambda each: each.ended_at, default=None)
    if ended is None or ended.ended_how is None:
        return DiagnosticFinding(
            Severity.QUIET, "Nothing waits and nothing is under way; no session is open."
        )
    cools = ", ".join(
        f"{survey} not for another {format_duration(until - s.now)}"
        for survey, until in ended.cools.items()
        if until > s.now
    )
    return DiagnosticFinding(
        Severity.QUIET,
        f"Nothing waits and nothing is under way: the last session, of {ended.ended_survey}, ended "
        f"{format_duration(s.now - ended.ended_at)} ago, as "
        f"{ENDING_REASONS[ended.ended_how]}. A START begins another"
        f"{f' ({cools})' if cools else ''}.",
    )
