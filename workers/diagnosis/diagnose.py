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

from config.store import keyspace, pauses, stored_values
from config.telemetry import process_registry
from engine.model.events import Refused
from engine.simulator.explanations import ENDING, REFUSAL
from workers.clock.alarm_clock import AGAIN_MS
from workers.clock.invitation_pacer import MOST_WAITING
from workers.diagnosis.sender_snapshot import Open, Queued, Situation, Standing, Thread
from workers.runtime.formatting import clock_time, rough
from workers.sending.delivery import LEASE_MS as SENDING_MS
from workers.sending.send_policy import MAX_TRIES
from workers.store.lanes import LEASE_MS
from workers.turns.drafts import MAX_ATTEMPTS

ROLE = {keyspace.STARTS: "ratelimit", keyspace.REPLIES: "conversation", keyspace.OUTBOUND: "delivery"}
"""Who works on a queue."""

_LATE_MS = 2_000
"""A clock that ticks leaves no alarm due for so long."""

_LONG_MS = 10_000
"""What somebody is rung for does not wait for so long where workers keep up."""

_SILENT_MS = 12_000
"""A process says every five seconds that it lives."""

_SOON_MS = 1_000
"""A worker has a lane in its hands for less than this."""


class Weight(IntEnum):
    """`WRONG`: somebody must do something. `HELD_UP`: it waits for longer than an SMS does on a good day."""

    QUIET = 0
    NORMAL = 1
    HELD_UP = 2
    WRONG = 3


class Finding(NamedTuple):
    weight: Weight
    sentence: str


class Diagnosis(msgspec.Struct, frozen=True):
    """The sentence, how grave it is, and what else is to be said."""

    sentence: str
    weight: Weight
    also: list[str] = []


def diagnose(s: Situation) -> Diagnosis:
    found = list(_findings(s))
    first = max(found, key=lambda finding: finding.weight)  # the first of those that weigh as much
    also = [each.sentence for each in found if each is not first and each.weight > Weight.QUIET]
    return Diagnosis(first.sentence, first.weight, also)


def _findings(s: Situation) -> Iterator[Finding]:
    if s.broker:
        yield Finding(
            Weight.WRONG,
            f"The Redis of the wake-ups does not answer ({s.broker}): no worker is rung for until it does.",
        )
    yield from _of_unreadable(s)
    yield from _of_lane(s)
    yield from _of_outbox(s)
    for thread, session in s.sessions:
        yield _of_session(s, thread, session)
    yield from _of_dead(s)
    yield from _of_pauses(s)
    yield from _of_parts(s)
    yield from _of_invitations(s)
    yield from _of_opt_outs(s)
    yield from _of_refusal(s)
    yield _of_the_past(s)


def _of_unreadable(s: Situation) -> Iterator[Finding]:
    if s.state_unreadable:
        yield Finding(
            Weight.WRONG,
            f"What is remembered of this person cannot be read by this release ({s.state_unreadable}), so whatever "
            "they send becomes a dead letter: run the release that wrote it, then `parley dead replay`.",
        )
    for what in s.unreadable:
        yield Finding(Weight.HELD_UP, f"Something is damaged: {what}.")


# The lane: who has it, and what waits for them


def _of_lane(s: Situation) -> Iterator[Finding]:
    waits = _mail(s)
    overdue = not s.mail_count and 0 < s.deadline <= s.now
    if s.lock is not None and s.lock.until > s.now:
        yield _in_hands(s, s.lock, waits)
    elif s.lock is not None and s.lock.attempts and (s.mail_count or overdue):
        ago = rough(s.now - s.lock.until + LEASE_MS)
        coming = _coming(s, s.alarm, *_queues(s))
        yield Finding(
            max(Weight.HELD_UP, coming.weight),
            f"A worker that claimed it {ago} ago never came back{_attempt(s.lock)}; {waits}{coming.sentence}.",
        )
    elif s.mail_count:
        coming = _coming(s, s.alarm, *_queues(s))
        weight = coming.weight
        if weight == Weight.NORMAL and s.now - s.mail[0].at > _LONG_MS:
            weight = Weight.HELD_UP
        yield Finding(weight, f"{waits[:1].upper()}{waits[1:]}{coming.sentence}.")
    elif overdue:
        coming = _coming(s, s.alarm, *_queues(s))
        yield Finding(
            coming.weight, f"What was to happen {rough(s.now - s.deadline)} ago is due; {coming.sentence}."
        )
    elif s.deadline > s.now and (s.alarm is None or s.alarm > s.deadline + AGAIN_MS):
        alarm = (
            "no alarm is set"
            if s.alarm is None
            else f"its alarm is set for {rough(s.alarm - s.now)} from now"
        )
        what = f"Something is to happen in {rough(s.deadline - s.now)}, but {alarm}"
        found = _without_alarm(s, what, keyspace.alarms(s.shard))
        yield Finding(found.weight, f"{found.sentence}.")


def _in_hands(s: Situation, lock: stored_values.Lock, waits: str) -> Finding:
    """Whether the holder lives cannot be told until its lease ends."""
    since, left = s.now - (lock.until - LEASE_MS), rough(lock.until - s.now)
    if lock.owner.startswith("replay-"):
        return Finding(Weight.NORMAL, f"An operator replays a dead letter of theirs, for {left} at most.")
    if lock.attempts > MAX_ATTEMPTS:
        return Finding(
            Weight.HELD_UP,
            f"Its oldest event has outlived {lock.attempts - 1} workers and is being given up.",
        )
    if since < _SOON_MS and lock.attempts == 1:
        return Finding(Weight.NORMAL, "A worker has it in its hands at this moment.")
    return Finding(
        Weight.HELD_UP,
        f"A worker that claimed it {rough(since)} ago has not come back{_attempt(lock)}; {waits}"
        f"it is taken up again in {left}.",
    )


def _attempt(lock: stored_values.Lock) -> str:
    return f" (attempt {lock.attempts} of {MAX_ATTEMPTS})" if lock.attempts > 1 else ""


_KIND = {"start": "a START", "sms": "an SMS", "invitation": "an invitation", "receipt": "a receipt"}


def _mail(s: Situation) -> str:
    """`2 events wait in the mailbox, the oldest for 40 s; `"""
    if not s.mail_count:
        return ""
    oldest = s.mail[0] if s.mail else None
    what = _KIND.get(oldest.kind, "an event") if oldest is not None else "an event"
    count = f"{what} waits" if s.mail_count == 1 else f"{s.mail_count} events wait"
    if oldest is None or not oldest.at:
        return f"{count} in the mailbox; "
    of = "" if s.mail_count == 1 else "the oldest "
    return f"{count} in the mailbox, {of}for {rough(s.now - oldest.at)}; "


def _queues(s: Situation) -> tuple[str, ...]:
    """Whose work it is, first. The clock rings `replies` for any lane, and that worker passes a START on."""
    if s.mail and s.mail[0].queue == keyspace.STARTS:
        return (keyspace.STARTS, keyspace.REPLIES)
    return (keyspace.REPLIES, keyspace.STARTS)


def _coming(s: Situation, alarm: int | None, *queues: str) -> Finding:
    """Who comes for what waits, and when; a clause."""
    for queue in queues:
        if (rung := s.queues.get(queue)) is not None and rung.place is not None:
            return _rung(s, ROLE[queue], rung.since_ms, rung.place)
    role = ROLE[queues[0]]
    if alarm is None:
        index = keyspace.outbox_alarms if queues[0] == keyspace.OUTBOUND else keyspace.alarms
        return _without_alarm(
            s, "nobody is rung for, and no alarm is set, so nobody will come", index(s.shard)
        )
    if alarm <= s.now - _LATE_MS:
        return Finding(
            Weight.WRONG,
            f"the clock should have rung {rough(s.now - alarm)} ago and has not: is `clock` running? {_heard(s, 'clock')}",
        )
    when = f"in {rough(alarm - s.now)}" if alarm > s.now else "now"
    if _gone(s, role):
        return Finding(
            Weight.WRONG,
            f"the clock rings again {when}, but nobody comes: is `{role}` running? {_heard(s, role)}",
        )
    if _gone(s, "clock"):
        return Finding(
            Weight.WRONG, f"the clock should ring {when}: is `clock` running? {_heard(s, 'clock')}"
        )
    return Finding(Weight.NORMAL, f"a worker is rung for, or the clock rings {when}")


def _rung(s: Situation, role: str, since_ms: int, before: int) -> Finding:
    alive = s.alive.get(role, 0)
    ahead = (
        f"behind {before} others" if before > 1 else "behind one other" if before else "first in its queue"
    )
    if not alive and not _unheard(s, role):
        return Finding(
            Weight.WRONG,
            f"a worker has been rung for {rough(since_ms)}: is `{role}` running? {_heard(s, role)}",
        )
    silent_ms = s.now - s.heard.get(role, s.now)
    if since_ms > _LONG_MS and alive and silent_ms > _SILENT_MS:
        return Finding(
            Weight.HELD_UP,
            f"a worker has been rung for {rough(since_ms)}, {ahead}: no `{role}` has been heard of for "
            f"{rough(silent_ms)}, it may be gone",
        )
    if since_ms > _LONG_MS:
        who = (
            f"{alive} `{role}` {'lives, and is' if alive == 1 else 'live, and are'}"
            if alive
            else f"`{role}` is"
        )
        return Finding(
            Weight.HELD_UP,
            f"a worker has been rung for {rough(since_ms)}, {ahead}: {who} busy with others, or stuck (see its log)",
        )
    return Finding(Weight.NORMAL, f"a worker is rung for, {ahead}")


def _unheard(s: Situation, role: str) -> bool:
    """May one live that does not say so?"""
    return s.earlier and role in process_registry.UNHEARD


def _gone(s: Situation, role: str) -> bool:
    """Is there none that lives?"""
    return not s.alive.get(role) and not _unheard(s, role)


def _heard(s: Situation, role: str) -> str:
    last = s.heard.get(role)
    return f"No such process has been heard of{f' for {rough(s.now - last)}' if last else ''}"


def _without_alarm(s: Situation, what: str, index: str) -> Finding:
    """A clause for what Parley never does by itself."""
    return Finding(
        Weight.WRONG, f"{what}, which cannot be explained; `redis-cli ZADD '{index}' 0 {s.sender}` sets one"
    )


# The outbox: what keeps the oldest SMS


def _of_outbox(s: Situation) -> Iterator[Finding]:
    if not s.outbox_count:
        return
    head = s.outbox[0] if s.outbox else Queued("")
    standing = s.channels.get(head.channel)
    wait = f"{s.outbox_count} SMS waits" if s.outbox_count == 1 else f"{s.outbox_count} SMS wait"
    lock = s.outbox_lock
    if lock is not None and lock.fence and lock.until > s.now:
        yield _being_sent(s, lock, wait)
    elif standing is None:
        coming = _coming(s, s.outbox_alarm, keyspace.OUTBOUND)
        yield Finding(
            Weight.WRONG,
            f"{wait} for the channel {head.channel or '?'}, which is not configured: it becomes a dead letter; "
            f"{coming.sentence}.",
        )
    elif standing.pause is not None:
        yield _paused(s, head.channel, standing, standing.pause, wait)
    else:
        yield _resting(s, lock, standing, wait)
    if lock is not None and lock.until > s.now and s.outbox_alarm is None:
        found = _without_alarm(s, f"{wait} to leave, but no alarm is set", keyspace.outbox_alarms(s.shard))
        yield Finding(found.weight, f"{found.sentence}.")


def _being_sent(s: Situation, lock: stored_values.Lock, wait: str) -> Finding:
    since, left = s.now - (lock.until - SENDING_MS), rough(lock.until - s.now)
    tries = f" (try {lock.attempts} of {MAX_TRIES})" if lock.attempts > 1 else ""
    if since < _LONG_MS:
        return Finding(Weight.NORMAL, f"An SMS is being sent, for {rough(since)} now{tries}; {wait}.")
    return Finding(
        Weight.HELD_UP,
        f"A worker that began to send an SMS {rough(since)} ago has not come back{tries}; {wait}; it is taken up "
        f"again in {left}.",
    )


def _paused(s: Situation, channel: str, standing: Standing, pause: pauses.Pause, wait: str) -> Finding:
    zone = ZoneInfo(standing.timezone)
    since = f" since {clock_time(pause.since, s.now, zone)}" if pause.since else ""
    until = f" until {clock_time(standing.pause_until, s.now, zone)}" if standing.pause_until else ""
    why = f' ("{pause.why}")' if pause.why else ""
    match pause.by:
        case "operator":
            end, who = f"`parley channel resume {channel}`", f" ({pause.who})" if pause.who else ""
            return Finding(
                Weight.HELD_UP,
                f"The {channel} channel is paused by an operator{who}{since}{until}{why}; {wait}; {end}.",
            )
        case "account":
            what, end = (
                "as the provider refuses its account",
                f" by itself, or at once by `parley channel resume {channel}`",
            )
        case "circuit":
            what, end = "as its provider fails", ""
    again = f" in {rough(standing.pause_until - s.now)}" if standing.pause_until else ""
    return Finding(
        Weight.HELD_UP,
        f"The {channel} channel is paused{since}, {what}{why}; {wait}; one SMS tries again{again}{end}.",
    )


def _resting(s: Situation, lock: stored_values.Lock | None, standing: Standing, wait: str) -> Finding:
    """Nobody is sending. What kept the SMS until now says how it was left."""
    if lock is None or lock.until <= s.now:
        return _awaited(s, lock, wait)
    left = rough(lock.until - s.now)
    verdict, unsure = lock.owner.removesuffix("?"), lock.owner.endswith("?")
    doubt = "; the provider may have it, and is asked first, or sent the same id" if unsure else ""
    match verdict.split(" ")[0].rstrip("0123456789"):
        case "again":
            return Finding(
                Weight.HELD_UP,
                f"{wait}: the last try failed{_last_error(s)}; try {lock.attempts + 1} of {MAX_TRIES} is in "
                f"{left}{doubt}.",
            )
        case "booked":
            rate = f"{standing.sms_per_second:g} SMS a second"
            weight = Weight.HELD_UP if lock.until - s.now > _LONG_MS else Weight.NORMAL
            return Finding(weight, f"{wait} for a turn at the channel's {rate}: the next leaves in {left}.")
        case "done":
            return Finding(
                Weight.NORMAL, f"{wait} for the pause after the last SMS: the next leaves in {left}."
            )
        case "untried":
            return Finding(
                Weight.HELD_UP,
                f"{wait}: the channel held it back, as it was paused or behind; it is looked at again in {left}{doubt}.",
            )
        case "reserved":
            return Finding(
                Weight.NORMAL, f"{wait} for the answer to a webhook, which may hold it, for {left} at most."
            )
        case "entrusted":
            return Finding(
                Weight.HELD_UP,
                f"{wait}: the answer to a webhook held it, and the provider has not confirmed it; it is asked in {left}.",
            )
        case _:
            return Finding(
                Weight.HELD_UP,
                f"{wait}, at rest for another {left}; why cannot be explained (it was left as {verdict!r}).",
            )


def _awaited(s: Situation, lock: stored_values.Lock | None, wait: str) -> Finding:
    coming = _coming(s, s.outbox_alarm, keyspace.OUTBOUND)
    if lock is not None and lock.fence:
        ago = rough(s.now - lock.until + SENDING_MS)
        return Finding(
            max(Weight.HELD_UP, coming.weight),
            f"A worker that began to send an SMS {ago} ago never came back, so the provider may have it; {wait}; "
            f"{coming.sentence}.",
        )
    return Finding(coming.weight, f"{wait} to leave; {coming.sentence}.")


def _last_error(s: Situation) -> str:
    if not s.tries:
        return ""
    last = s.tries[-1]
    return f" {rough(s.now - last.at)} ago ({': '.join(filter(None, (last.code, last.why)))})"


# What waits for the person, or for a moment


def _of_dead(s: Situation) -> Iterator[Finding]:
    if not s.dead:
        return
    last = s.dead[-1]
    since = max([s.clock, *(session.touched_at for _, session in s.sessions)])
    count = "A dead letter is" if len(s.dead) == 1 else f"{len(s.dead)} dead letters are"
    what = {"sms": "an SMS to them", "event": "what they sent"}.get(last.kind, "a deadline")
    sentence = (
        f"{count} theirs, the last {rough(s.now - last.at)} ago: {what} could not be handled ({last.reason}); "
        f"`parley dead show {last.id}`."
    )
    yield Finding(Weight.HELD_UP if last.at >= since else Weight.NORMAL, sentence)


_COMES_TO = {
    "idle": "ends by silence",
    "expired": "its time is over",
    "remind": "they are reminded",
}


def _of_session(s: Situation, thread: Thread, session: Open) -> Finding:
    where = f"`{session.step}` of {session.survey}"
    if thread.originator:
        where += f", over {thread.originator}"
    if session.problem:
        return Finding(
            Weight.WRONG,
            f"A session of {session.survey} is open, but {session.problem}: whatever they send becomes a dead letter.",
        )
    first = session.ahead[0]
    if first.at <= s.now:
        return Finding(Weight.NORMAL, f"Waits for an answer to {where}; {_COMES_TO[first.what]} about now.")
    clock = ""
    weight = Weight.NORMAL
    if _gone(s, "clock"):
        weight, clock = Weight.HELD_UP, f", if `clock` runs by then. {_heard(s, 'clock')}"
    return Finding(
        weight,
        f"Waits for an answer to {where}; {_COMES_TO[first.what]} in {rough(first.at - s.now)}{clock}.",
    )


def _of_pauses(s: Situation) -> Iterator[Finding]:
    """What their sessions will decide has to wait."""
    for channel in sorted({thread.channel for thread, _ in s.sessions}):
        standing = s.channels.get(channel)
        if not s.outbox_count and standing is not None and standing.pause is not None:
            paused = _paused(s, channel, standing, standing.pause, "nothing of theirs waits for it yet")
            yield Finding(Weight.NORMAL, paused.sentence)


def _of_parts(s: Situation) -> Iterator[Finding]:
    for parts in s.gathered:
        left = f"in {rough(parts.until - s.now)}" if parts.until > s.now else "now"
        yield Finding(
            Weight.NORMAL,
            f"{parts.came} of {parts.total} parts of a long SMS have come; without the others it is taken as it is {left}.",
        )


def _of_invitations(s: Situation) -> Iterator[Finding]:
    for each in s.invitations:
        standing = s.channels.get(each.channel)
        about = f"An invitation to {each.survey or '?'} on {each.channel or '?'} has waited for {rough(s.now - each.at)}"
        if standing is None:
            yield Finding(Weight.WRONG, f"{about}, but no channel is called so: nobody will release it.")
        elif each.not_before > s.now:
            yield Finding(
                Weight.NORMAL, f"{about}; it is not sent before {rough(each.not_before - s.now)} from now."
            )
        elif standing.pause is not None:
            paused = _paused(s, each.channel, standing, standing.pause, about[:1].lower() + about[1:])
            yield Finding(Weight.HELD_UP, paused.sentence)
        elif standing.quiet_until:
            yield Finding(
                Weight.NORMAL,
                f"{about}; it is quiet where they are, for {rough(standing.quiet_until - s.now)}.",
            )
        elif standing.sms_per_day and standing.sms_today >= standing.sms_per_day:
            yield Finding(
                Weight.HELD_UP,
                f"{about}; the channel has spent the day's SMS ({standing.sms_today} of {standing.sms_per_day}).",
            )
        elif _gone(s, "clock"):
            yield Finding(
                Weight.WRONG, f"{about}; is `clock` running, which releases it? {_heard(s, 'clock')}."
            )
        elif (busiest := max((each.depth for each in s.queues.values()), default=0)) >= MOST_WAITING:
            yield Finding(
                Weight.HELD_UP,
                f"{about}; {busiest} lanes wait for workers or for the provider, and go first.",
            )
        else:
            yield Finding(Weight.NORMAL, f"{about}; its turn comes at the channel's pace.")


def _of_opt_outs(s: Situation) -> Iterator[Finding]:
    for each in s.opt_outs:
        if s.remembers and not each.in_lane and not s.state_unreadable:
            mail = "; it may be in the mail that waits" if s.mail_count else ""
            yield Finding(
                Weight.HELD_UP,
                f"The list of opt-outs has them for {each.channel}, but their lane does not know it{mail}: what is open "
                "goes on.",
            )
            continue
        by = f", by the word of {each.source}" if each.source not in ("", "person", "unknown") else ""
        yield Finding(
            Weight.NORMAL,
            f"They opted out of {each.channel} {rough(s.now - each.since)} ago{by}: nothing is sent on it until they "
            "say START.",
        )


def _of_refusal(s: Situation) -> Iterator[Finding]:
    """Their last START or invitation, if nothing has opened since."""
    last = next((each for each in reversed(s.records) if isinstance(each, Refused)), None)
    if last is None or (last.reason == "opted_out" and s.opt_outs):
        return
    threads = [each for each in s.threads if each.channel == last.channel]
    if any(each.session is not None or each.ended_at > last.at for each in threads):
        return
    again = _next_start(s, last, threads)
    yield Finding(
        Weight.NORMAL,
        f"The last START or invitation on {last.channel}, {rough(s.now - last.at)} ago, opened nothing: "
        f"{REFUSAL[last.reason]}{again}.",
    )


def _next_start(s: Situation, refused: Refused, threads: list[Thread]) -> str:
    if refused.reason == "sms_budget" and (standing := s.channels.get(refused.channel)) is not None:
        spent = f"{standing.sms_today} of {standing.sms_per_day}"
        return f" ({spent}); the day ends at midnight of the channel's time zone"
    for thread in threads:
        if refused.reason == "throttled" and thread.starts_left is not None:
            wait = thread.next_start_at - s.now
            return f"; the next START is let through {f'in {rough(wait)}' if wait > 0 else 'by now'}"
        if refused.reason == "daily_cap" and thread.most_today:
            return f" ({thread.opened_today} of {thread.most_today}); the day ends at midnight of the channel's time zone"
        if refused.reason == "cooldown" and thread.cools:
            return "; " + ", ".join(
                f"{survey} may begin again in {rough(until - s.now)}"
                for survey, until in thread.cools.items()
            )
    return ""


def _of_the_past(s: Situation) -> Finding:
    """What is to be said if nothing waits and nothing is under way."""
    if s.nothing:
        return Finding(
            Weight.QUIET,
            "Nothing is known of this number: nothing of it waits, and neither the lanes nor the latest of the archive "
            "have it. If it has written, look whether its webhooks arrive (parley_webhooks_total).",
        )
    ended = max((each for each in s.threads if each.ended_at), key=lambda each: each.ended_at, default=None)
    if ended is None or ended.ended_how is None:
        return Finding(Weight.QUIET, "Nothing waits and nothing is under way; no session is open.")
    cools = ", ".join(
        f"{survey} not for another {rough(until - s.now)}"
        for survey, until in ended.cools.items()
        if until > s.now
    )
    return Finding(
        Weight.QUIET,
        f"Nothing waits and nothing is under way: the last session, of {ended.ended_survey}, ended "
        f"{rough(s.now - ended.ended_at)} ago, as {ENDING[ended.ended_how]}. A START begins another"
        f"{f' ({cools})' if cools else ''}.",
    )
