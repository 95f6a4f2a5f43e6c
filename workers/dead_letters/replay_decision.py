"""Decides what a replay of a dead letter would do now, without I/O, by running the engine on the lane as it is.

An event is applied as if it came in now: to apply it in the past would let deadlines pass that nobody has waited for. So
what was said to another question is stale: the session that was open where it belongs is over, or another is. An SMS is
stale once its session is over, but for the words that a session ends with. Nobody who has opted out is texted, whatever
an operator wants: not by a letter older than the opt-out, nor on the word of the list alone, nor while a STOP waits.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Literal, assert_never

import msgspec

from config.store import stored_values
from engine.model import lane as lane_format
from engine.model.events import (
    InboundEvent,
    InboundSms,
    OpeningRefused,
    OutboundSms,
    SmsPart,
    decode_outbound,
)
from engine.model.lane import ChannelLine, Lane, UnreadableLaneError
from engine.model.policy import ChannelPolicies
from engine.providers import Recourse
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.inbound_sms import may_be_stop, may_opt_out
from engine.turns.receipts import known_sms_state
from engine.turns.session_routing import channel_of_key
from workers.sending.send_policy import REPEATABLE_FOR_MS
from workers.store.dead_letter_store import DeadLetter
from workers.store.lanes import MAX_MAIL_INSPECTED, LaneClaim, LaneDraft, ReplayClaim
from workers.store.optouts import opt_outs_in_lane
from workers.turns.drafts import decode_mail, draft_stop_alone
from workers.turns.session_lookup import line_of_event

ReplayFinding = Literal["advance", "duplicate", "stale", "opted_out", "failing", "uncertain", "busy"]
"""`advance`: it would be applied, or the SMS put into its outbox. `duplicate`: it has been applied, or changes nothing.
`busy`: not now. The others are in the module's docstring, or `uncertain`: the provider may have the SMS."""

ReplayOption = Literal["stale", "uncertain"]
"""What is replayed only if the operator says so."""


class ReplayDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a replay, and `why`. `draft` is what it would commit, unless it would fail; `failure` what it would
    fail with. `needs` are the options without which the letter is not replayed, and `held_up` is why it must not be
    committed now, whatever the options."""

    finding: ReplayFinding
    why: str = ""
    draft: LaneDraft | None = None
    failure: DeadLetter | None = None
    needs: tuple[ReplayOption, ...] = ()
    held_up: str = ""

    def permits_replay(self, options: Collection[ReplayOption]) -> bool:
        """Return whether the letter is replayed with these options."""
        return self.finding in ("advance", "stale", "uncertain") and set(self.needs) <= {*options}

    def with_options(self, options: Collection[ReplayOption]) -> "ReplayDecision":
        """Return the decision under the operator's options: one that must not be committed now is `busy`."""
        if self.held_up and self.permits_replay(options):
            return ReplayDecision(finding="busy", why=self.held_up)
        return self

    @property
    def sms_texts(self) -> list[str]:
        """Return the texts of the SMS that would leave, with the options that it needs."""
        if self.draft is None or self.finding in ("duplicate", "opted_out"):
            return []
        return [sms.text for sms in self.draft.effects.outbox]


def claim_for_letter(letter: DeadLetter, lane: ReplayClaim) -> LaneClaim:
    """Return the claim that the engine is to see: the letter is the only mail, accepted now. What the list of opt-outs has and
    the lane has not is judged beside (_opt_out_reason): it is for a worker's turn to tell the lane."""
    what = letter.what
    if what:
        with suppress(ValueError):  # whoever reads it will say so
            what = stored_values.with_accepted_ms(what, lane.now)
    return LaneClaim(
        lane.sender, lane.fence, 1, lane.now, lane.state, [what] if what else [],
        {} if lane.state else lane.opted_out, clock=lane.clock,
    )  # fmt: skip


def unchanged_draft(claim: LaneClaim) -> LaneDraft:
    """Draft the lane as it is."""
    return LaneDraft(claim=claim, state=claim.state)


def decide_event_replay(
    letter: DeadLetter, lane: ReplayClaim, draft: LaneDraft, surveys: SurveyRegistry, policy: ChannelPolicies
) -> ReplayDecision:
    """Decide about an event. `draft` is what the engine makes of it now."""
    if letter.stopped:
        return _decide_stop_replay(letter, lane, draft, surveys, policy)
    if draft.dead_letters:
        return _failing_decision(letter, draft.dead_letters[0])
    event, accepted = _decode_letter_event(letter)
    before = lane_format.decode_lane(lane.state)
    if draft.effects.duplicates:
        return ReplayDecision(finding="duplicate", why="it has been applied", draft=draft)
    if why := _opt_out_reason(lane, before, draft, event, accepted):
        return ReplayDecision(finding="opted_out", why=why, draft=draft)
    held_up = _waiting_stop_reason(lane) if draft.effects.outbox else ""
    if why := _stale_event_reason(letter, before, event, surveys, policy) or _late_invitation_reason(draft):
        return ReplayDecision(finding="stale", why=why, draft=draft, needs=("stale",), held_up=held_up)
    if _changes_nothing(draft, event):
        return ReplayDecision(finding="duplicate", why="nothing is left for it to change", draft=draft)
    return ReplayDecision(finding="advance", why=_refusal_sentence(draft), draft=draft, held_up=held_up)


def _decide_stop_replay(
    letter: DeadLetter, lane: ReplayClaim, draft: LaneDraft, surveys: SurveyRegistry, policy: ChannelPolicies
) -> ReplayDecision:
    """Decide about a STOP that was given up. One that fell where the lane could not be read holds in the list alone, and
    the lane must get it once it can be read, as its state is what the engine goes by."""
    holds = ReplayDecision(finding="duplicate", why="the STOP in it holds already", draft=draft)
    if not lane.state or letter.channel not in lane.opted_out:
        return holds
    try:
        before = lane_format.decode_lane(lane.state)
    except UnreadableLaneError:
        return _failing_decision(letter, draft.dead_letters[0]) if draft.dead_letters else holds
    heard = letter.channel in opt_outs_in_lane(before)
    stop = None if heard else draft_stop_alone(draft.claim)
    if stop is None:
        return holds
    event, _ = _decode_letter_event(letter)
    if why := _stale_event_reason(letter, before, event, surveys, policy):
        return ReplayDecision(finding="stale", why=why, draft=stop, needs=("stale",))
    return ReplayDecision(
        finding="advance", why="the STOP in it holds, but the lane did not hear of it", draft=stop
    )


def decide_sms_replay(
    letter: DeadLetter, lane: ReplayClaim, policy: ChannelPolicies, recourses: Mapping[str, Recourse]
) -> ReplayDecision:
    """Decide about an SMS. `recourses` say by channel what may be done about one that the provider may have."""
    claim = claim_for_letter(letter, lane)
    try:
        sms = decode_outbound(letter.what)
        before = lane_format.decode_lane(lane.state)
    except (msgspec.MsgspecError, UnreadableLaneError) as e:
        unreadable = isinstance(e, UnreadableLaneError)
        reason: Literal["unreadable_state", "undecodable"] = (
            "unreadable_state" if unreadable else "undecodable"
        )
        return _failing_decision(
            letter, msgspec.structs.replace(letter, reason=reason, why=str(e), traceback="")
        )
    if sms.channel not in policy:
        why = f"no channel is called '{sms.channel}'"
        return _failing_decision(letter, msgspec.structs.replace(letter, reason="unknown_channel", why=why))
    recourse = recourses.get(sms.channel, "none")
    draft = unchanged_draft(claim)
    draft.effects.outbox = [_prepare_resend(sms, recourse, letter, lane.now)]
    if _opted_out_since(lane, before, sms.channel):
        return ReplayDecision(finding="opted_out", why=f"they have opted out of {sms.channel}", draft=draft)
    if known_sms_state(before, sms) in ("sent", "delivered"):
        why = "a receipt says that the provider has it"
        return ReplayDecision(finding="duplicate", why=why, draft=unchanged_draft(claim))
    held_up = _waiting_stop_reason(lane)
    stale = _stale_sms_reason(before, sms)
    if _provider_may_have(letter, recourse, lane.now):
        why = "the provider may have it" + (f", and {stale}" if stale else "")
        needs: tuple[ReplayOption, ...] = ("uncertain", "stale") if stale else ("uncertain",)
        return ReplayDecision(finding="uncertain", why=why, draft=draft, needs=needs, held_up=held_up)
    if stale:
        return ReplayDecision(finding="stale", why=stale, draft=draft, needs=("stale",), held_up=held_up)
    return ReplayDecision(finding="advance", draft=draft, held_up=held_up)


def _decode_letter_event(letter: DeadLetter) -> tuple[InboundEvent | None, int]:
    """Return the event (None: a deadline), and when it was accepted (ms)."""
    if not letter.what:
        return None, letter.at
    mail = decode_mail(letter.what)
    return mail.event, mail.at


def _failing_decision(letter: DeadLetter, failure: DeadLetter) -> ReplayDecision:
    same = (letter.reason, letter.why) == (failure.reason, failure.why)
    why = f"{failure.reason}: {failure.why}"
    return ReplayDecision(
        finding="failing", why=f"with the same error, {why}" if same else f"now with {why}", failure=failure
    )


def _opted_out_since(lane: ReplayClaim, before: Lane, channel: str) -> int:
    """Return since when (ms) the person has opted out of the channel, as the lane or the list says; 0: they have not."""
    return max(opt_outs_in_lane(before).get(channel, 0), _listed_since(lane, channel))


def _listed_since(lane: ReplayClaim, channel: str) -> int:
    since, _ = lane.opted_out.get(channel, (0, ""))
    return since


def _opt_out_reason(
    lane: ReplayClaim, before: Lane, draft: LaneDraft, event: InboundEvent | None, accepted: int
) -> str:
    """Return why the event must not be applied, or its SMS not be sent, as the person has opted out; empty if they may."""
    if isinstance(event, InboundSms | SmsPart) or any(
        type(record) is OpeningRefused for record in draft.effects.records
    ):
        channel = event.channel if event is not None else ""
        since = _opted_out_since(lane, before, channel)
        stops = isinstance(event, InboundSms) and may_be_stop(event) and not draft.effects.outbox
        if since and not stops and not _opts_in(lane, before, draft, channel, accepted):
            return f"they have opted out of {channel}"
        if any(
            type(record) is OpeningRefused and record.reason == "opted_out"
            for record in draft.effects.records
        ):
            return f"they have opted out of {channel}"
    for sms in draft.effects.outbox:
        since = _opted_out_since(lane, before, sms.channel)
        if since and not _opts_in(lane, before, draft, sms.channel, accepted):
            return f"they have opted out of {sms.channel}"
    return ""


def _opts_in(lane: ReplayClaim, before: Lane, draft: LaneDraft, channel: str, accepted: int) -> bool:
    """Return whether the person opts in again by this very event, which they sent after they had opted out. Only if the
    lane knows of the opt-out: one that the list alone has is still on its way there."""
    at, _ = draft.effects.opt_outs.get(channel, (-1, ""))
    listed = _listed_since(lane, channel)
    since = opt_outs_in_lane(before).get(channel, 0) if before.lines else listed
    return at == 0 and 0 < since < accepted and listed <= since


def _stale_event_reason(
    letter: DeadLetter,
    before: Lane,
    event: InboundEvent | None,
    surveys: SurveyRegistry,
    policy: ChannelPolicies,
) -> str:
    if event is None:
        return _stale_deadline_reason(letter, before)
    line = line_of_event(before, event, surveys, policy)
    if line is None or (isinstance(event, InboundSms) and may_be_stop(event) and line.session is None):
        return ""  # a STOP that nobody has gone back on holds, however late
    then = _line_at_failure(letter, event, surveys, policy)
    return _stale_time_reason(letter, line) if then is None else _stale_session_reason(letter, then, line)


def _line_at_failure(
    letter: DeadLetter, event: InboundEvent, surveys: SurveyRegistry, policy: ChannelPolicies
) -> ChannelLine | None:
    """Return the line that the event met when it was given up; None if that is not known."""
    if letter.state is None:
        return None
    try:
        return line_of_event(lane_format.decode_lane(letter.state), event, surveys, policy)
    except UnreadableLaneError:
        return None


def _stale_session_reason(letter: DeadLetter, then: ChannelLine, line: ChannelLine) -> str:
    """Return why a session's event is stale, where the letter has what was open when it was given up; empty if it is not."""
    was, session = then.session, line.session
    if session is None:
        if was is not None:
            return f"session {was.id} is over" + _ending_clause(line)
        return "a session has begun and ended there since" if line.ended_at > letter.at else ""
    if was is None or session.id != was.id:
        return f"another session is open there, {session.id}"
    if was.version != session.version:
        return f"its session is on another version of its survey, {session.version}"
    return ""


def _stale_time_reason(letter: DeadLetter, line: ChannelLine) -> str:
    """What was open where it belongs, when it fell, is not known: to look would have killed the worker, say."""
    if line.session is not None and line.session.opened_at > letter.at:
        return f"another session is open there, {line.session.id}"
    if line.ended_at > letter.at:
        return "the session that was open there is over" + _ending_clause(line)
    return ""


def _stale_deadline_reason(letter: DeadLetter, before: Lane) -> str:
    if letter.state is None or any(line.session is not None for line in before.lines.values()):
        return ""
    return "no session is open any more"


def _stale_sms_reason(before: Lane, sms: OutboundSms) -> str:
    """The words that a session ended with are not stale: they were decided when it was over, and no other was since."""
    if not sms.session:
        return ""
    lines = [line for key, line in before.lines.items() if channel_of_key(key) == sms.channel]
    if any(line.session is not None and line.session.id == sms.session for line in lines):
        return ""
    if any(line.session is not None for line in lines):
        return "another session is open"
    last = max((line.ended_at for line in lines), default=0)
    if last and sms.decided and last <= sms.decided:
        return ""
    return f"session {sms.session} is over"


def _ending_clause(line: ChannelLine) -> str:
    return f", {line.ended_how}" if line.ended_how else ""


def _late_invitation_reason(draft: LaneDraft) -> str:
    """An invitation that comes too late opens nothing, and would be gone."""
    late = {"already_open": "a session is open there", "expired": "the invitation has expired"}
    reasons = (record.reason for record in draft.effects.records if type(record) is OpeningRefused)
    return next((late[reason] for reason in reasons if reason in late), "")


def _refusal_sentence(draft: LaneDraft) -> str:
    reasons = [record.reason for record in draft.effects.records if type(record) is OpeningRefused]
    return f"it would be refused: {', '.join(reasons)}" if reasons else ""


def _changes_nothing(draft: LaneDraft, event: InboundEvent | None) -> bool:
    """A deadline that is not due yet is set again, and so changes something."""
    if event is None and draft.effects.alarm:
        return False
    return draft.effects.changes_only_times


def _waiting_stop_reason(lane: ReplayClaim) -> str:
    """Why no SMS may be sent now: mail waits that may be a STOP, or more of it than is looked at; empty if none does."""
    if len(lane.mail) >= MAX_MAIL_INSPECTED:
        return "much mail waits to be applied first"
    if any(map(may_opt_out, _readable_events(lane.mail))):
        return "mail waits that may be a STOP"
    return ""


def _readable_events(mail: Iterable[bytes]) -> Iterable[InboundEvent]:
    for entry in mail:
        try:
            yield decode_mail(entry).event
        except (msgspec.MsgspecError, ValueError):
            continue


def _provider_may_have(letter: DeadLetter, recourse: Recourse, now: int) -> bool:
    """May the provider have the SMS, so that it would leave twice? One that drops an id that it has had does not, for as
    long as it knows it."""
    match recourse:
        case "repeat":
            since = letter.since or letter.at - _MAX_TRYING_MS
            known = now - since < REPEATABLE_FOR_MS
            return (letter.uncertain or letter.reason in _UNSURE_REASONS) and not known
        case "look_up" | "none":
            return letter.uncertain or letter.reason in _UNSURE_REASONS
        case _:
            assert_never(recourse)


_UNSURE_REASONS = ("uncertain", "worker_died")
_MAX_TRYING_MS = 4 * 3_600_000  # longer than all tries of an SMS take, by send_policy.MAX_SEND_ATTEMPTS


def _prepare_resend(sms: OutboundSms, recourse: Recourse, letter: DeadLetter, now: int) -> OutboundSms:
    """The SMS as it is put into its outbox: a provider that can be asked is asked for it first, if it may have it."""
    unsure = recourse == "look_up" and _provider_may_have(letter, recourse, now)
    return msgspec.structs.replace(sms, uncertain=unsure, decided=now, heard=0)
