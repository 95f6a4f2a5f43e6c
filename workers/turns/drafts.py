"""Drafts what a claimed lane becomes, without I/O. committing.py and the store's lanes.py commit it.

One bad event never takes another with it: when the engine fails on a lane's mail, its events are tried one at a
time, and only the ones that fail are given up, though a STOP among them holds. An event that kills its process is
known by the attempts that the claim counted; it is tried alone, and given up unread after MAX_CLAIM_ATTEMPTS.
"""

from collections.abc import Sequence
from hashlib import blake2b
from traceback import format_exc

import msgspec

from config.store import stored_values
from config.store.dead_letter_reasons import DeadLetterReason
from engine.model import lane as lane_format
from engine.model.effects import Effects
from engine.model.events import (
    InboundEvent,
    Mail,
    decode_inbound,
)
from engine.model.lane import ChannelLine, Lane, UnreadableLaneError
from engine.model.policy import ChannelPolicies
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import advance, apply_stop_only
from engine.turns.turn import UnknownVersionError
from workers.store.dead_letter_store import (
    MAX_ATTEMPTS_KEPT,
    DeadLetter,
    FailedAttempt,
)
from workers.store.lanes import LaneClaim, LaneDraft
from workers.turns.session_lookup import lane_at_failure

MAX_CLAIM_ATTEMPTS = 5
"""Claims of a lane that were never committed, after which its oldest event is given up."""


_MAX_TRACEBACK_CHARS = 16_000  # characters, the innermost
_MAX_STATE_BYTES = 4_096  # bytes of a state that cannot be read


def decode_mail(entry: bytes) -> Mail:
    """Decode a mailbox's entry. Raises ValueError (msgspec's errors are ValueErrors)."""
    at, event = stored_values.parse_mail(entry)
    return Mail(at, decode_inbound(event))


def draft_lane(claim: LaneClaim, surveys: SurveyRegistry, policy: ChannelPolicies) -> LaneDraft:
    """Advance a claimed lane. Raises UnknownVersionError if a session needs a survey version that `surveys` lacks: load it
    and call again, or call draft_event_by_event. Raises nothing else for what a lane or an event holds."""
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
    mail = [decode_mail(entry) for entry in claim.mail]
    new = [each for each in mail if each.event.id not in claim.repeated]
    repeats = len(mail) - len(new)
    if repeats and not new and not claim.state:  # of someone erased: they are not remembered anew
        return LaneDraft(claim=claim, state=b"", effects=Effects(duplicates=repeats))
    now = claim.now
    if claim.clock.correction_ms:
        new = [claim.clock.corrected(each, now) for each in new]
        now += claim.clock.correction_ms
    new = [_no_later(each, now) for each in new]
    hold = claim.clock.hold_deadlines
    effects = advance(
        lane, claim.sender, new, now, surveys, policy, hold_deadlines=hold, opted_out=claim.opted_out
    )
    effects.duplicates += repeats
    return LaneDraft(claim=claim, state=lane_format.encode_lane(lane), effects=effects)


def _no_later(mail: Mail, now: int) -> Mail:
    """Return an event as accepted at `now` (ms) if it bears a later time: the server's clock has been set back since, and no
    deadline before that time is due."""
    return mail if mail.at <= now else Mail(now, mail.event)


def _decode_lane(claim: LaneClaim) -> Lane:
    """Decode the claimed lane; a new one has what the list of opt-outs says. Raises UnreadableLaneError."""
    lane = lane_format.decode_lane(claim.state)
    lane_format.forget_events(lane, claim.forget_before)
    if not claim.state:
        lane.lines.update(
            {channel: ChannelLine(opted_out_at=at) for channel, (at, _) in claim.opted_out.items()}
        )
    return lane


def draft_event_by_event(claim: LaneClaim, surveys: SurveyRegistry, policy: ChannelPolicies) -> LaneDraft:
    """Advance a claimed lane by one event at a time; those that fail become dead letters. Never raises."""
    whole = LaneDraft(claim=claim, state=claim.state)
    singles = [[entry] for entry in claim.mail] or [[]]
    for mail in singles:
        repeated = claim.repeated | whole.effects.displaced_events.keys()
        said = whole.effects.opt_outs  # by the mail before, which is later than what the list had
        listed = {channel: each for channel, each in claim.opted_out.items() if channel not in said}
        single = msgspec.structs.replace(
            claim, state=whole.state, mail=mail, repeated=repeated, opted_out=listed
        )
        try:
            whole.merge_later(_draft_advance(single, surveys, policy))
        except Exception as e:  # noqa: BLE001 (a dead letter keeps it)
            if not mail:
                whole.effects.alarm = 0
            given_up = _draft_dead_letter(single, _failure_reason(e), str(e), format_exc())
            _describe_dead_letter(given_up, single, surveys, policy)
            whole.merge_later(given_up)
            _merge_failed_stop(whole, single)
    return whole


def _merge_failed_stop(whole: LaneDraft, claim: LaneClaim) -> None:
    """Apply the STOP in `claim`'s event, the last that was given up in `whole`, and mark its dead letter `stopped`. Do
    nothing if the event is no STOP."""
    try:
        stop = draft_stop_alone(claim)
    except Exception:  # noqa: BLE001 (its letter says what failed; neighbours do not wait for it)
        return
    if stop:
        whole.merge_later(stop)
        whole.dead_letters[-1] = msgspec.structs.replace(whole.dead_letters[-1], stopped=True)


def draft_stop_alone(claim: LaneClaim) -> LaneDraft | None:
    """Draft nothing but the STOP in a claim of one event that cannot be applied otherwise. If the lane's state cannot be
    read it is kept, and only the list of opt-outs changes. Return None if the event is no STOP or cannot be read."""
    try:
        (mail,) = map(decode_mail, claim.mail)
    except (msgspec.MsgspecError, ValueError):
        return None
    try:
        lane, readable = _decode_lane(claim), True
    except UnreadableLaneError:
        lane, readable = Lane(), False
    effects = apply_stop_only(lane, claim.sender, mail)
    if effects is None:
        return None
    state = lane_format.encode_lane(lane) if readable else claim.state
    return LaneDraft(claim=claim, state=state, effects=effects)


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
    """Draft the lane as it is, its mail a dead letter. A deadline that fails is given up by letting it pass."""
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
    """Add the lane's state, session, survey and channel to the last dead letter of `given_up`, as far as they can be
    read."""
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
