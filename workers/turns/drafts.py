"""What should become of a claimed lane? Drafted here, without I/O; committed elsewhere.

One bad event never takes another with it: when the engine fails on a lane's mail, its events are tried one at a
time, and only the ones that fail are given up, though a STOP among them holds. An event that kills its process is
known by the attempts that the claim counted; it is tried alone, and given up unread after MAX_ATTEMPTS.
"""

from collections.abc import Sequence
from hashlib import blake2b
from traceback import format_exc

import msgspec

from config.store import stored_values
from engine.model import lane as lane_format
from engine.model.events import Inbound, Mail, Opened, Outbound, Record, decode_inbound, encode
from engine.model.lane import Lane, Line, UnreadableLane
from engine.model.policy import Policy
from engine.surveys.survey_registry import Surveys
from engine.turns.advance import Advance, advance, stop_alone
from engine.turns.turn import UnknownVersion, Withdrawal
from workers.store.dead_letter_store import MOST_TRIED, DeadLetter, Reason, Tried, seal
from workers.store.lanes import Claim, Decision
from workers.store.optouts import opted_out_lines
from workers.store.session_records import by_session
from workers.turns.session_lookup import met

MAX_ATTEMPTS = 5
"""Claims of a lane that were never committed, after which its oldest event is given up."""


_MOST_TRACEBACK = 16_000  # characters, the innermost
_MOST_STATE = 4_096  # bytes of a state that cannot be read


class Draft(msgspec.Struct, kw_only=True):
    """What claimed mail came to, not yet committed. Fields as in engine.Advance, times as in Decision. `surveys` are those
    of the sessions that were open or opened, by session."""

    claim: Claim
    state: bytes
    deadline: int | None = None
    keep_until: int | None = None
    outbox: list[Outbound] = []
    records: list[Record] = []
    silenced: set[str] = set()
    withdrawn: dict[str, Withdrawal] = {}
    opt_outs: dict[str, tuple[int, str]] = {}
    sessions: list[tuple[str, int]] = []
    opened: dict[str, int] = {}
    surveys: dict[str, str] = {}
    duplicates: int = 0
    dead: list[DeadLetter] = []

    def decision(self) -> Decision:
        return Decision(
            sender=self.claim.sender,
            fence=self.claim.fence,
            applied=len(self.claim.mail),
            state=self.state,
            deadline=self.deadline,
            keep_until=self.keep_until,
            records=[encode(entry) for entry in by_session(self.records)],
            silenced=self.silenced,
            withdrawn=self.withdrawn,
            opt_outs=self.opt_outs,
            sessions=self.sessions,
            outbox=[(sms.channel, encode(sms)) for sms in self.outbox],
            dead=[seal(letter) for letter in self.dead],
        )

    def then(self, later: "Draft") -> None:
        """Take in what the same lane's next mail came to."""
        self.state, self.deadline, self.keep_until = later.state, later.deadline, later.keep_until
        self.outbox = [sms for sms in self.outbox if not later.withdraws(sms)] + later.outbox
        self.silenced |= later.silenced
        self.withdrawn |= later.withdrawn
        for channel, (at, source) in later.opt_outs.items():
            # what is only said again does not say by whose word it was
            if self.opt_outs.get(channel, (-1, ""))[0] != at:
                self.opt_outs[channel] = (at, source)
        self.sessions += later.sessions
        self.records += later.records
        for channel, count in later.opened.items():
            self.opened[channel] = self.opened.get(channel, 0) + count
        self.surveys = later.surveys | self.surveys
        self.duplicates += later.duplicates

    def withdraws(self, sms: Outbound) -> bool:
        """May this SMS, decided earlier, not leave any more?"""
        return sms.channel in self.silenced or sms.session in self.withdrawn


def read_entry(entry: bytes) -> Mail:
    """A mailbox's entry. Raises ValueError."""
    at, event = stored_values.event_in(entry)
    return Mail(at, decode_inbound(event))


def draft(claim: Claim, surveys: Surveys, policy: Policy) -> Draft:
    """Advance a claimed lane. Never raises for what a lane or an event holds, except UnknownVersion: whoever can look
    for that version does, and gives it to `surveys`, or calls draft_one_by_one."""
    if claim.attempts > 1:
        claim = msgspec.structs.replace(claim, mail=claim.mail[:1])
    if claim.attempts > MAX_ATTEMPTS:
        whole = _given_up(
            claim, "worker_died", f"{claim.attempts - 1} workers claimed this event and never came back"
        )
        if claim.attempts == MAX_ATTEMPTS + 1:  # should this be what kills, the next worker leaves it
            _tell_of(whole, claim, surveys, policy)
            _hold_stop(whole, claim)
        return whole
    try:
        return _advance(claim, surveys, policy)
    except UnknownVersion:
        raise
    except Exception:  # noqa: BLE001 (whatever it is, one event at a time will tell which)
        return draft_one_by_one(claim, surveys, policy)


def _advance(claim: Claim, surveys: Surveys, policy: Policy) -> Draft:
    lane = _lane_of(claim)
    surveys_of = _surveys_of(lane)
    mail = [read_entry(entry) for entry in claim.mail]
    step = advance(lane, claim.sender, mail, claim.now, surveys, policy)
    if step.sessions:
        surveys_of |= {each.session: each.survey for each in step.records if isinstance(each, Opened)}
    return Draft(
        claim=claim,
        state=lane_format.encode(step.lane),
        deadline=step.alarm or 0,
        keep_until=step.keep_until or 0,
        outbox=step.outbox,
        records=step.records,
        silenced=set(step.silenced),
        withdrawn=step.withdrawn,
        opt_outs=_opt_outs(step),
        sessions=step.sessions,
        opened=step.opened,
        surveys=surveys_of,
        duplicates=step.duplicates,
    )


def _surveys_of(lane: Lane) -> dict[str, str]:
    """Which survey each open session is of."""
    return {
        session.id: session.survey for line in lane.lines.values() if (session := line.session) is not None
    }


def _lane_of(claim: Claim) -> Lane:
    """The lane as it stands; a new one with what the list of opt-outs says. Raises UnreadableLane."""
    lane = lane_format.decode(claim.state)
    if not claim.state:
        lane.lines.update({channel: Line(opted_out_at=at) for channel, at in claim.opted_out.items()})
    return lane


def _opt_outs(step: Advance) -> dict[str, tuple[int, str]]:
    """What the list of opt-outs must say. What the lane knows is said again at every commit, as a lane of an earlier
    release is not in the list."""
    known = opted_out_lines(step.lane)
    return (
        {channel: (at, "unknown") for channel, at in known.items()} | step.opt_outs
        if known
        else step.opt_outs
    )


def draft_one_by_one(claim: Claim, surveys: Surveys, policy: Policy) -> Draft:
    """Advance a claimed lane by one event at a time; those that fail become dead letters. Never raises."""
    whole = Draft(claim=claim, state=claim.state)
    singles = [[entry] for entry in claim.mail] or [[]]
    for mail in singles:
        single = msgspec.structs.replace(claim, state=whole.state, mail=mail)
        try:
            whole.then(_advance(single, surveys, policy))
        except Exception as e:  # noqa: BLE001 (a dead letter keeps it)
            if not mail:
                whole.deadline = 0
            given_up = _given_up(single, _reason(e), str(e), format_exc())
            _tell_of(given_up, single, surveys, policy)
            whole.dead += given_up.dead
            _hold_stop(whole, single)
    return whole


def _hold_stop(whole: Draft, claim: Claim) -> None:
    """The claim's event is the last that is given up in `whole`; if it was a STOP, that holds all the same."""
    try:
        stop = stopped(claim)
    except Exception:  # noqa: BLE001 (its letter says what failed; neighbours do not wait for it)
        return
    if stop:
        stop.deadline, stop.keep_until = whole.deadline, whole.keep_until
        whole.then(stop)
        whole.dead[-1] = msgspec.structs.replace(whole.dead[-1], stopped=True)


def stopped(claim: Claim) -> Draft | None:
    """A claim of one event that cannot be applied as others are: a STOP holds all the same, in the list of opt-outs if
    not in the lane. None if it is no STOP."""
    try:
        (mail,) = map(read_entry, claim.mail)
    except (msgspec.MsgspecError, ValueError):
        return None
    try:
        lane, readable = _lane_of(claim), True
    except UnreadableLane:
        lane, readable = Lane(), False
    surveys_of = _surveys_of(lane)
    step = stop_alone(lane, claim.sender, mail)
    if step is None:
        return None
    return Draft(
        claim=claim,
        state=lane_format.encode(step.lane) if readable else claim.state,
        records=step.records,
        silenced=set(step.silenced),
        opt_outs=_opt_outs(step),
        surveys=surveys_of,
    )


def _reason(error: Exception) -> Reason:
    match error:
        case UnreadableLane():
            return "unreadable_state"
        case msgspec.MsgspecError() | ValueError() if not isinstance(error, UnicodeError):
            return "undecodable"
        case _:
            return "engine_error"


def _given_up(claim: Claim, reason: Reason, why: str, traceback: str = "") -> Draft:
    """The lane as it was, its mail a dead letter. A deadline that fails is given up by letting it pass."""
    what = claim.mail[0] if claim.mail else b""
    tries = [Tried(at, "worker_died", "the worker that claimed it never came back") for at in claim.before]
    if reason != "worker_died":
        tries.append(Tried(claim.now, reason, why))
    letter = DeadLetter(
        id="e" + blake2b(f"{claim.sender} {claim.fence} ".encode() + what, digest_size=8).hexdigest(),
        kind="event",
        reason=reason,
        sender=claim.sender,
        at=claim.now,
        attempts=claim.attempts,
        what=what,
        version=claim.fence,
        why=why,
        traceback=traceback[-_MOST_TRACEBACK:],
        tries=tries[-MOST_TRIED:],
    )
    return Draft(claim=claim, state=claim.state, dead=[letter])


def _tell_of(given_up: Draft, claim: Claim, surveys: Surveys, policy: Policy) -> None:
    """What else an operator needs of the last event that was given up, as far as it can be read: the lane that it met,
    and the session that was open where it belongs."""
    event = _event_in(claim.mail)
    try:
        found = met(_lane_of(claim), event, surveys, policy)
    except Exception:  # noqa: BLE001 (whatever failed before may fail here)
        found = None
    given_up.dead[-1] = msgspec.structs.replace(
        given_up.dead[-1],
        channel=event.channel if event else "",
        state=found.state if found else claim.state[:_MOST_STATE],
        session=found.session.id if found and found.session else "",
        survey=found.survey if found else "",
    )


def _event_in(mail: Sequence[bytes]) -> Inbound | None:
    try:
        return read_entry(mail[0]).event if mail else None
    except (msgspec.MsgspecError, ValueError):
        return None
