"""What is known of one person, in lines: for the screen of a terminal, and for a page."""

from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

from config.service.pause_wording import pause_cause
from config.store import stored_values
from config.store.outbox_states import decode_owner
from config.store.stored_values import LANE_LEASE_MS
from engine.model.durations import format_duration
from engine.model.plurals import pluralize
from engine.model.timestamps import format_clock_time
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

ENTRIES_SHOWN = 10


def snapshot_rows(s: SenderSnapshot, last_events: Iterable[str]) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield what each part of the pipeline has of a person: its name, and lines. `last_events` are what happened last, in words."""
    yield "in logs", [f"sender={s.log_name}"]
    yield "lane", _lane_lines(s)
    yield "mailbox", _mailbox_lines(s)
    yield "next alarm", _alarm_lines(s)
    yield "sessions", _session_lines(s)
    yield "limits", _limit_lines(s)
    yield "channels", _channel_lines(s)
    yield (
        "opted out",
        (
            f"of {each.channel} {format_duration(s.now - each.since)} ago"
            + (f", by {each.source}" if each.source else "")
            + ("" if each.in_lane else ", as the list says")
            for each in s.opt_outs
        ),
    )
    yield (
        "invitations",
        (
            f"{each.id} to {each.survey} on {each.channel}, waiting for {format_duration(s.now - each.at)}"
            + (
                f", not before {format_duration(each.not_before - s.now)} from now"
                if each.not_before > s.now
                else ""
            )
            for each in s.invitations
        ),
    )
    yield "wake-ups", _wakeup_lines(s)
    yield (
        "dead letters",
        (
            f"{each.id}  {format_duration(s.now - each.at)} ago  {each.kind} {each.channel} {each.reason}: "
            f"{each.why}"
            for each in s.dead
        ),
    )
    yield "last events", last_events
    yield "unreadable", s.unreadable
    yield "outbox", _outbox_lock_lines(s)


def _lane_lines(s: SenderSnapshot) -> Iterator[str]:
    if s.state_unreadable:
        yield f"UNREADABLE: {s.state_unreadable}"
    elif s.remembers:
        yield f"in shard {s.shard}, last changed by what happened {format_duration(s.now - s.clock)} ago"
    else:
        yield f"none in shard {s.shard}: nothing is remembered of this number"
    if s.lock is not None:
        yield _lock_sentence(s, s.lock)


def _lock_sentence(s: SenderSnapshot, lock: stored_values.StoredLock) -> str:
    since = format_duration(s.now - lock.until + LANE_LEASE_MS)
    state = (
        f"for another {format_duration(lock.until - s.now)}" if lock.until > s.now else "whose lease is over"
    )
    return (
        f"locked by a worker that claimed it {since} ago, {state}; attempt {lock.attempts} of "
        f"{MAX_CLAIM_ATTEMPTS}"
    )


def _mailbox_lines(s: SenderSnapshot) -> Iterator[str]:
    for each in s.mail[:ENTRIES_SHOWN]:
        age = f"{format_duration(s.now - each.at)} ago" if each.at else "nobody knows when"
        yield f"{each.kind} on {each.channel or '?'}, {age}" + (
            f"  > {truncate_text(each.text)}" if each.text else ""
        )
    if s.mail_count > ENTRIES_SHOWN:
        yield f"and {s.mail_count - min(ENTRIES_SHOWN, len(s.mail))} more"


def _alarm_lines(s: SenderSnapshot) -> Iterator[str]:
    if s.alarm is not None:
        yield f"lane: {_format_moment(s, s.alarm)}, {_lane_alarm_reason(s)}"
    if s.outbox_alarm is not None:
        yield f"outbox: {_format_moment(s, s.outbox_alarm)}, {_outbox_alarm_reason(s)}"


def _format_moment(s: SenderSnapshot, at: int) -> str:
    return f"in {format_duration(at - s.now)}" if at > s.now else f"due for {format_duration(s.now - at)}"


def _lane_alarm_reason(s: SenderSnapshot) -> str:
    if s.lock is not None:
        return "when the lease of whoever claimed it is over"
    if s.mail_count:
        return "to look whether the mail has been seen to"
    ahead = [
        (each.at, f"{each.what} of {session.survey}")
        for _, session in s.open_sessions
        for each in session.ahead
    ]
    ahead += [(parts.until, "parts of an SMS that stayed alone") for parts in s.gathered]
    return min(ahead)[1] if ahead else "for a deadline"


def _outbox_alarm_reason(s: SenderSnapshot) -> str:
    lock = s.outbox_lock
    if lock is None:
        return "to look whether the SMS has been seen to"
    if lock.fence:
        return "when the lease of whoever sends is over"
    return "when the sender has rested"


def _session_lines(s: SenderSnapshot) -> Iterator[str]:
    for thread, session in s.open_sessions:
        yield from _open_session_lines(s, thread, session)
    for thread in s.threads:
        if thread.session is None and thread.ended_at:
            over = f" over {thread.originator}" if thread.originator else ""
            yield (
                f"{thread.channel}{over}: none open; the last, of {thread.ended_survey}, ended "
                f"{thread.ended_how} "
                f"{format_duration(s.now - thread.ended_at)} ago"
            )
    for parts in s.gathered:
        yield f"{parts.channel}: {parts.came} of {parts.total} parts of a long SMS"


def _open_session_lines(s: SenderSnapshot, thread: ConversationStatus, session: OpenSession) -> Iterator[str]:
    over = f" over {thread.originator}" if thread.originator else ""
    age = {True: "current", False: "OLDER than what runs", None: "nobody says what runs"}[session.current]
    yield (
        f"{thread.channel}{over}: {session.survey} at `{session.step}`, in {session.language}, opened "
        f"{format_duration(s.now - session.opened_at)} ago, last SMS "
        f"{format_duration(s.now - session.touched_at)} ago"
    )
    yield f"  id {session.id}, version {session.version} ({age})" + (
        f", {pluralize(session.misread, 'invalid answer')}" if session.misread else ""
    )
    if session.problem:
        yield f"  {session.problem}"
    elif session.ahead:
        yield "  if nobody writes: " + ", ".join(
            f"{each.what} {_format_moment(s, each.at)}" for each in session.ahead
        )


def _limit_lines(s: SenderSnapshot) -> Iterator[str]:
    for thread in s.threads:
        parts = []
        if thread.most_today:
            parts.append(f"{thread.opened_today} of {thread.most_today} sessions today")
        if thread.starts_left is not None:
            later = (
                f", the next in {format_duration(thread.next_start_at - s.now)}"
                if thread.next_start_at > s.now
                else ""
            )
            parts.append(f"{thread.starts_left} STARTs left{later}")
        parts += [
            f"{survey} cools down for {format_duration(until - s.now)}"
            for survey, until in thread.cools.items()
        ]
        if parts:
            yield (
                f"{thread.channel}{f' over {thread.originator}' if thread.originator else ''}: "
                f"{', '.join(parts)}"
            )


def _channel_lines(s: SenderSnapshot) -> Iterator[str]:
    concerned = {each.channel for each in s.threads} | {each.channel for each in s.mail}
    concerned |= {each.channel for each in s.outbox} | {each.channel for each in s.invitations}
    concerned |= {each.channel for each in s.opt_outs}
    for name, standing in s.channels.items():
        if name in concerned or not concerned:
            yield f"{name}: {', '.join(_channel_clauses(s, standing)) or 'no limits'}"


def _channel_clauses(s: SenderSnapshot, standing: ChannelStatus) -> Iterator[str]:
    if (pause := standing.pause) is not None:
        zone = ZoneInfo(standing.timezone)
        until = (
            f" until {format_clock_time(standing.pause_until, s.now, zone)}" if standing.pause_until else ""
        )
        since = f" since {format_clock_time(pause.since, s.now, zone)}" if pause.since else ""
        yield f"PAUSED {pause_cause(pause)}{since}{until} ({pause.why})"
    if standing.sms_per_day:
        yield f"{standing.sms_today} of {standing.sms_per_day} SMS today"
    if standing.sms_per_second:
        behind = f", booked for {format_duration(standing.behind_ms)} ahead" if standing.behind_ms else ""
        yield f"{standing.sms_per_second:g} SMS a second{behind}"
    if standing.sessions_per_minute:
        yield f"{standing.sessions_left} of {standing.sessions_per_minute} new sessions a minute left"
    if standing.quiet_until:
        yield f"quiet where they are for {format_duration(standing.quiet_until - s.now)}"


def _wakeup_lines(s: SenderSnapshot) -> Iterator[str]:
    if s.broker:
        yield f"the Redis of the wake-ups does not answer: {s.broker}"
    for queue, rung in s.queues.items():
        if rung.place is not None:
            yield f"{queue}: rung for {format_duration(rung.since_ms)}, {rung.place} of {rung.depth} before"


def _outbox_lock_lines(s: SenderSnapshot) -> Iterator[str]:
    if (lock := s.outbox_lock) is None:
        return
    if lock.fence:
        since = format_duration(s.now - lock.until + OUTBOX_LEASE_MS)
        state = (
            f"for another {format_duration(lock.until - s.now)}"
            if lock.until > s.now
            else "whose lease is over"
        )
        yield f"taken by a worker {since} ago, {state}; try {lock.attempts} of {MAX_SEND_ATTEMPTS}"
    else:
        tries = f" after {lock.attempts} of {MAX_SEND_ATTEMPTS} tries" if lock.attempts else ""
        owner = decode_owner(lock.fence, lock.owner)
        doubt = "?" if owner.uncertain else ""
        yield f"at rest ({owner.state}{doubt}){tries}, {_format_moment(s, lock.until)}"
    for tried in s.tries:
        yield (
            f"  tried {format_duration(s.now - tried.at)} ago: "
            f"{': '.join(filter(None, (tried.code, tried.why)))}"
        )


def sms_state(s: SenderSnapshot, place: int, sms: QueuedSms) -> str:
    lock = s.outbox_lock
    uncertain = sms.uncertain or (
        place == 0
        and lock is not None
        and (decode_owner(lock.fence, lock.owner).uncertain or (lock.fence > 0 and lock.until <= s.now))
    )
    told = ["uncertain"] if uncertain else []
    if place == 0 and lock is not None and lock.fence and lock.until > s.now:
        told.append("being sent")
    if sms.unasked:
        told.append("invitation")
    return ", ".join(told) or "waits"


def truncate_text(text: str, most: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
