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
from engine.model.events import (
    ArchiveRecord,
    InboundEvent,
    Mail,
    OutboundSms,
    SessionOpened,
    decode_inbound,
    encode_event,
)
from engine.model.lane import ChannelLine, Lane, UnreadableLaneError
from engine.model.policy import ChannelPolicies
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import Effects, advance, apply_stop_only
from engine.turns.turn import UnknownVersionError, WithdrawalCode
from workers.store.dead_letter_store import (
    MAX_ATTEMPTS_KEPT,
    DeadLetter,
    DeadLetterReason,
    FailedAttempt,
    encode_dead_letter,
)
from workers.store.lanes import LaneClaim, LaneDecision
from workers.store.optouts import opt_outs_in_lane
from workers.store.session_records import group_by_session
from workers.turns.session_lookup import lane_at_failure

MAX_CLAIM_ATTEMPTS = 5
"""Claims of a lane that were never committed, after which its oldest event is given up."""


_MAX_TRACEBACK_CHARS = 16_000  # characters, the innermost
_MAX_STATE_BYTES = 4_096  # bytes of a state that cannot be read


class LaneDraft(msgspec.Struct, kw_only=True):
    """What claimed mail came to, not yet committed. Fields as in engine.Advance, times as in Decision. `surveys` are those
    of the sessions that were open or opened, by session."""

    claim: LaneClaim
    state: bytes
    deadline: int | None = None
    keep_until: int | None = None
    outbox: list[OutboundSms] = []
    records: list[ArchiveRecord] = []
    silenced: set[str] = set()
    withdrawn: dict[str, WithdrawalCode] = {}
    opt_outs: dict[str, tuple[int, str]] = {}
    sessions: list[tuple[str, int]] = []
    opened_by_channel: dict[str, int] = {}
    survey_by_session: dict[str, str] = {}
    duplicates: int = 0
    dead_letters: list[DeadLetter] = []

    def to_decision(self) -> LaneDecision:
        return LaneDecision(
            sender=self.claim.sender,
            fence=self.claim.fence,
            applied=len(self.claim.mail),
            state=self.state,
            deadline=self.deadline,
            keep_until=self.keep_until,
            records=[encode_event(entry) for entry in group_by_session(self.records)],
            silenced=self.silenced,
            withdrawn=self.withdrawn,
            opt_outs=self.opt_outs,
            sessions=self.sessions,
            outbox=[(sms.channel, encode_event(sms)) for sms in self.outbox],
            dead_letters=[encode_dead_letter(letter) for letter in self.dead_letters],
        )

    def merge_next(self, later: "LaneDraft") -> None:
        """Take in what the same lane's next mail came to."""
        self.state, self.deadline, self.keep_until = later.state, later.deadline, later.keep_until
        self.outbox = [sms for sms in self.outbox if not later.withdraws_sms(sms)] + later.outbox
        self.silenced |= later.silenced
        self.withdrawn |= later.withdrawn
        for channel, (at, source) in later.opt_outs.items():
            # what is only said again does not say by whose word it was
            if self.opt_outs.get(channel, (-1, ""))[0] != at:
                self.opt_outs[channel] = (at, source)
        self.sessions += later.sessions
        self.records += later.records
        for channel, count in later.opened_by_channel.items():
            self.opened_by_channel[channel] = self.opened_by_channel.get(channel, 0) + count
        self.survey_by_session = later.survey_by_session | self.survey_by_session
        self.duplicates += later.duplicates

    def withdraws_sms(self, sms: OutboundSms) -> bool:
        """May this SMS, decided earlier, not leave any more?"""
        return sms.channel in self.silenced or sms.session in self.withdrawn


def decode_mail(entry: bytes) -> Mail:
    """A mailbox's entry. Raises ValueError."""
    at, event = stored_values.parse_mail(entry)
    return Mail(at, decode_inbound(event))


def draft_lane(claim: LaneClaim, surveys: SurveyRegistry, policy: ChannelPolicies) -> LaneDraft:
    """Advance a claimed lane. Never raises for what a lane or an event holds, except UnknownVersion: whoever can look
    for that version does, and gives it to `surveys`, or calls draft_one_by_one."""
    if claim.attempts > 1:
        claim = msgspec.structs.replace(claim, mail=claim.mail[:1])
    if claim.attempts > MAX_CLAIM_ATTEMPTS:
        whole = _draft_dead_letter(
            claim, "worker_died", f"{claim.attempts - 1} workers claimed this event and never came back"
        )
        if claim.attempts == MAX_CLAIM_ATTEMPTS + 1:  # should this be what kills, the next worker leaves it
            _describe_dead_letter(whole, claim, surveys, policy)
            _merge_failed_stop(whole, claim)
        return whole
    try:
        return _draft_advance(claim, surveys, policy)
    except UnknownVersionError:
        raise
    except Exception:  # noqa: BLE001 (whatever it is, one event at a time will tell which)
        return draft_event_by_event(claim, surveys, policy)


def _draft_advance(claim: LaneClaim, surveys: SurveyRegistry, policy: ChannelPolicies) -> LaneDraft:
    lane = _decode_lane(claim)
    surveys_of = _open_session_surveys(lane)
    mail = [decode_mail(entry) for entry in claim.mail]
    step = advance(lane, claim.sender, mail, claim.now, surveys, policy)
    if step.sessions:
        surveys_of |= {each.session: each.survey for each in step.records if isinstance(each, SessionOpened)}
    return LaneDraft(
        claim=claim,
        state=lane_format.encode_lane(step.lane),
        deadline=step.alarm or 0,
        keep_until=step.keep_until or 0,
        outbox=step.outbox,
        records=step.records,
        silenced=set(step.silenced),
        withdrawn=step.withdrawn,
        opt_outs=_listed_opt_outs(step),
        sessions=step.sessions,
        opened_by_channel=step.opened,
        survey_by_session=surveys_of,
        duplicates=step.duplicates,
    )


def _open_session_surveys(lane: Lane) -> dict[str, str]:
    """Which survey each open session is of."""
    return {
        session.id: session.survey for line in lane.lines.values() if (session := line.session) is not None
    }


def _decode_lane(claim: LaneClaim) -> Lane:
    """The lane as it stands; a new one with what the list of opt-outs says. Raises UnreadableLane."""
    lane = lane_format.decode_lane(claim.state)
    if not claim.state:
        lane.lines.update({channel: ChannelLine(opted_out_at=at) for channel, at in claim.opted_out.items()})
    return lane


def _listed_opt_outs(step: Effects) -> dict[str, tuple[int, str]]:
    """What the list of opt-outs must say. What the lane knows is said again at every commit, as a lane of an earlier
    release is not in the list."""
    known = opt_outs_in_lane(step.lane)
    return (
        {channel: (at, "unknown") for channel, at in known.items()} | step.opt_outs
        if known
        else step.opt_outs
    )


def draft_event_by_event(claim: LaneClaim, surveys: SurveyRegistry, policy: ChannelPolicies) -> LaneDraft:
    """Advance a claimed lane by one event at a time; those that fail become dead letters. Never raises."""
    whole = LaneDraft(claim=claim, state=claim.state)
    singles = [[entry] for entry in claim.mail] or [[]]
    for mail in singles:
        single = msgspec.structs.replace(claim, state=whole.state, mail=mail)
        try:
            whole.merge_next(_draft_advance(single, surveys, policy))
        except Exception as e:  # noqa: BLE001 (a dead letter keeps it)
            if not mail:
                whole.deadline = 0
            given_up = _draft_dead_letter(single, _failure_reason(e), str(e), format_exc())
            _describe_dead_letter(given_up, single, surveys, policy)
            whole.dead_letters += given_up.dead_letters
            _merge_failed_stop(whole, single)
    return whole


def _merge_failed_stop(whole: LaneDraft, claim: LaneClaim) -> None:
    """The claim's event is the last that is given up in `whole`; if it was a STOP, that holds all the same."""
    try:
        stop = draft_stop_alone(claim)
    except Exception:  # noqa: BLE001 (its letter says what failed; neighbours do not wait for it)
        return
    if stop:
        stop.deadline, stop.keep_until = whole.deadline, whole.keep_until
        whole.merge_next(stop)
        whole.dead_letters[-1] = msgspec.structs.replace(whole.dead_letters[-1], stopped=True)


def draft_stop_alone(claim: LaneClaim) -> LaneDraft | None:
    """A claim of one event that cannot be applied as others are: a STOP holds all the same, in the list of opt-outs if
    not in the lane. None if it is no STOP."""
    try:
        (mail,) = map(decode_mail, claim.mail)
    except (msgspec.MsgspecError, ValueError):
        return None
    try:
        lane, readable = _decode_lane(claim), True
    except UnreadableLaneError:
        lane, readable = Lane(), False
    surveys_of = _open_session_surveys(lane)
    step = apply_stop_only(lane, claim.sender, mail)
    if step is None:
        return None
    return LaneDraft(
        claim=claim,
        state=lane_format.encode_lane(step.lane) if readable else claim.state,
        records=step.records,
        silenced=set(step.silenced),
        opt_outs=_listed_opt_outs(step),
        survey_by_session=surveys_of,
    )


def _failure_reason(error: Exception) -> DeadLetterReason:
    match error:
        case UnreadableLaneError():
            return "unreadable_state"
        case msgspec.MsgspecError() | ValueError() if not isinstance(error, UnicodeError):
            return "undecodable"
        case _:
            return "engine_error"


def _draft_dead_letter(
    claim: LaneClaim, reason: DeadLetterReason, why: str, traceback: str = ""
) -> LaneDraft:
    """The lane as it was, its mail a dead letter. A deadline that fails is given up by letting it pass."""
    what = claim.mail[0] if claim.mail else b""
    tries = [
        FailedAttempt(at, "worker_died", "the worker that claimed it never came back")
        for at in claim.earlier_claims_ms
    ]
    if reason != "worker_died":
        tries.append(FailedAttempt(claim.now, reason, why))
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
        traceback=traceback[-_MAX_TRACEBACK_CHARS:],
        tries=tries[-MAX_ATTEMPTS_KEPT:],
    )
    return LaneDraft(claim=claim, state=claim.state, dead_letters=[letter])


def _describe_dead_letter(
    given_up: LaneDraft, claim: LaneClaim, surveys: SurveyRegistry, policy: ChannelPolicies
) -> None:
    """What else an operator needs of the last event that was given up, as far as it can be read: the lane that it met,
    and the session that was open where it belongs."""
    event = _first_event(claim.mail)
    try:
        found = lane_at_failure(_decode_lane(claim), event, surveys, policy)
    except Exception:  # noqa: BLE001 (whatever failed before may fail here)
        found = None
    given_up.dead_letters[-1] = msgspec.structs.replace(
        given_up.dead_letters[-1],
        channel=event.channel if event else "",
        state=found.state if found else claim.state[:_MAX_STATE_BYTES],
        session=found.session.id if found and found.session else "",
        survey=found.survey if found else "",
    )


def _first_event(mail: Sequence[bytes]) -> InboundEvent | None:
    try:
        return decode_mail(mail[0]).event if mail else None
    except (msgspec.MsgspecError, ValueError):
        return None
