"""What would become of a dead letter, were it replayed now? Judged here without I/O, by running the engine on the lane as
it is.

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
from engine.model.events import Inbound, Outbound, Part, ProviderStop, Refused, Sms, decode_outbound
from engine.model.lane import Lane, Line, UnreadableLane
from engine.model.policy import Policy
from engine.providers import Recourse
from engine.surveys.survey_registry import Surveys
from engine.turns.inbound_sms import may_be_stop
from engine.turns.receipts import known_of
from engine.turns.session_routing import channel_of
from workers.sending.send_policy import CERTAIN_MS
from workers.store.dead_letter_store import DeadLetter
from workers.store.lanes import LOOKED_AT, Claim, Reopened
from workers.store.optouts import opted_out_lines
from workers.turns.drafts import Draft, read_entry, stopped
from workers.turns.session_lookup import line_of

Finding = Literal["advance", "duplicate", "stale", "opted_out", "failing", "uncertain", "busy"]
"""`advance`: it would be applied, or the SMS put into its outbox. `duplicate`: it has been applied, or changes nothing.
`busy`: not now. The others are in the module's docstring, or `uncertain`: the provider may have the SMS."""

Option = Literal["stale", "uncertain"]
"""What is replayed only if the operator says so."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay would come to, and `why`. `draft` is what it would commit, unless it would fail; `failure` what it
    would fail with. `needs` are the options without which it is not replayed, and `held_up` is why it must not be
    committed now, whatever they are."""

    finding: Finding
    why: str = ""
    draft: Draft | None = None
    failure: DeadLetter | None = None
    needs: tuple[Option, ...] = ()
    held_up: str = ""

    def goes(self, options: Collection[Option]) -> bool:
        """Is the letter replayed, with these options?"""
        return self.finding in ("advance", "stale", "uncertain") and set(self.needs) <= {*options}

    def under(self, options: Collection[Option]) -> "Judged":
        """The same, once it is known what the operator wants."""
        if self.held_up and self.goes(options):
            return Judged(finding="busy", why=self.held_up)
        return self

    @property
    def says(self) -> list[str]:
        """The SMS that would leave, with the options that it needs."""
        if self.draft is None or self.finding in ("duplicate", "opted_out"):
            return []
        return [sms.text for sms in self.draft.outbox]


def claim_for(letter: DeadLetter, lane: Reopened) -> Claim:
    """The lane as the engine is to see it, the letter its only mail, accepted now."""
    what = letter.what
    if what:
        with suppress(ValueError):  # whoever reads it will say so
            what = stored_values.accepted_anew(what, lane.now)
    return Claim(lane.sender, lane.fence, 1, lane.now, lane.state, [what] if what else [], lane.opted_out)


def as_it_is(claim: Claim) -> Draft:
    """The lane left as it is."""
    return Draft(claim=claim, state=claim.state)


def judge_event(letter: DeadLetter, lane: Reopened, draft: Draft, surveys: Surveys, policy: Policy) -> Judged:
    """`draft` is what the engine makes of the letter's event now."""
    if letter.stopped:
        return _judge_stopped(letter, lane, draft, surveys, policy)
    if draft.dead:
        return _failing(letter, draft.dead[0])
    event, accepted = _event_in(letter)
    before = lane_format.decode(lane.state)
    if draft.duplicates:
        return Judged(finding="duplicate", why="it has been applied", draft=draft)
    if why := _opted_out(lane, before, draft, event, accepted):
        return Judged(finding="opted_out", why=why, draft=draft)
    held_up = _stop_waits(lane) if draft.outbox else ""
    if why := _stale_event(letter, before, event, surveys, policy) or _refused(draft):
        return Judged(finding="stale", why=why, draft=draft, needs=("stale",), held_up=held_up)
    if _changes_nothing(draft, event):
        return Judged(finding="duplicate", why="nothing is left for it to change", draft=draft)
    return Judged(finding="advance", why=_refusals(draft), draft=draft, held_up=held_up)


def _judge_stopped(
    letter: DeadLetter, lane: Reopened, draft: Draft, surveys: Surveys, policy: Policy
) -> Judged:
    """A STOP that fell where the lane could not be read holds in the list alone. The lane must hear of it, once it can be
    read: it goes by what it knows."""
    holds = Judged(finding="duplicate", why="the STOP in it holds already", draft=draft)
    if not lane.state or letter.channel not in lane.opted_out:
        return holds
    try:
        before = lane_format.decode(lane.state)
    except UnreadableLane:
        return _failing(letter, draft.dead[0]) if draft.dead else holds
    heard = letter.channel in opted_out_lines(before)
    stop = None if heard else stopped(draft.claim)
    if stop is None:
        return holds
    event, _ = _event_in(letter)
    if why := _stale_event(letter, before, event, surveys, policy):
        return Judged(finding="stale", why=why, draft=stop, needs=("stale",))
    return Judged(finding="advance", why="the STOP in it holds, but the lane did not hear of it", draft=stop)


def judge_sms(
    letter: DeadLetter, lane: Reopened, policy: Policy, recourses: Mapping[str, Recourse]
) -> Judged:
    """`recourses` say by channel what may be done about an SMS that the provider may have."""
    claim = claim_for(letter, lane)
    try:
        sms = decode_outbound(letter.what)
        before = lane_format.decode(lane.state)
    except (msgspec.MsgspecError, UnreadableLane) as e:
        unreadable = isinstance(e, UnreadableLane)
        reason: Literal["unreadable_state", "undecodable"] = (
            "unreadable_state" if unreadable else "undecodable"
        )
        return _failing(letter, msgspec.structs.replace(letter, reason=reason, why=str(e), traceback=""))
    if sms.channel not in policy:
        why = f"no channel is called '{sms.channel}'"
        return _failing(letter, msgspec.structs.replace(letter, reason="unknown_channel", why=why))
    recourse = recourses.get(sms.channel, "none")
    draft = as_it_is(claim)
    draft.outbox = [_sent_again(sms, recourse, letter, lane.now)]
    if _opted_out_since(lane, before, sms.channel):
        return Judged(finding="opted_out", why=f"they have opted out of {sms.channel}", draft=draft)
    if known_of(before, sms) in ("sent", "delivered"):
        why = "a receipt says that the provider has it"
        return Judged(finding="duplicate", why=why, draft=as_it_is(claim))
    held_up = _stop_waits(lane)
    stale = _stale_sms(before, sms)
    if _may_be_there(letter, recourse, lane.now):
        why = "the provider may have it" + (f", and {stale}" if stale else "")
        needs: tuple[Option, ...] = ("uncertain", "stale") if stale else ("uncertain",)
        return Judged(finding="uncertain", why=why, draft=draft, needs=needs, held_up=held_up)
    if stale:
        return Judged(finding="stale", why=stale, draft=draft, needs=("stale",), held_up=held_up)
    return Judged(finding="advance", draft=draft, held_up=held_up)


def _event_in(letter: DeadLetter) -> tuple[Inbound | None, int]:
    """The event (None: a deadline), and when it was accepted (ms)."""
    if not letter.what:
        return None, letter.at
    mail = read_entry(letter.what)
    return mail.event, mail.at


def _failing(letter: DeadLetter, failure: DeadLetter) -> Judged:
    same = (letter.reason, letter.why) == (failure.reason, failure.why)
    why = f"{failure.reason}: {failure.why}"
    return Judged(
        finding="failing", why=f"with the same error, {why}" if same else f"now with {why}", failure=failure
    )


def _opted_out_since(lane: Reopened, before: Lane, channel: str) -> int:
    """Since when (ms) the person has opted out of the channel, as the lane or the list says; 0: they have not."""
    return max(opted_out_lines(before).get(channel, 0), lane.opted_out.get(channel, 0))


def _opted_out(lane: Reopened, before: Lane, draft: Draft, event: Inbound | None, accepted: int) -> str:
    """Why the event must not be applied, or its SMS not be sent, to somebody who opted out; empty if they may."""
    if isinstance(event, Sms | Part) or any(type(record) is Refused for record in draft.records):
        channel = event.channel if event is not None else ""
        since = _opted_out_since(lane, before, channel)
        stops = isinstance(event, Sms) and may_be_stop(event) and not draft.outbox
        if since and not stops and not _opts_in(lane, before, draft, channel, accepted):
            return f"they have opted out of {channel}"
        if any(type(record) is Refused and record.reason == "opted_out" for record in draft.records):
            return f"they have opted out of {channel}"
    for sms in draft.outbox:
        since = _opted_out_since(lane, before, sms.channel)
        if since and not _opts_in(lane, before, draft, sms.channel, accepted):
            return f"they have opted out of {sms.channel}"
    return ""


def _opts_in(lane: Reopened, before: Lane, draft: Draft, channel: str, accepted: int) -> bool:
    """Do they opt in again by this very event, which they sent after they had opted out? Only if the lane knows of the
    opt-out: what the list alone says is still on its way there."""
    at, _ = draft.opt_outs.get(channel, (-1, ""))
    since = opted_out_lines(before).get(channel, 0) if before.lines else lane.opted_out.get(channel, 0)
    return at == 0 and 0 < since < accepted and lane.opted_out.get(channel, since) <= since


def _stale_event(
    letter: DeadLetter, before: Lane, event: Inbound | None, surveys: Surveys, policy: Policy
) -> str:
    if event is None:
        return _stale_deadline(letter, before)
    line = line_of(before, event, surveys, policy)
    if line is None or (isinstance(event, Sms) and may_be_stop(event) and line.session is None):
        return ""  # a STOP that nobody has gone back on holds, however late
    then = _line_then(letter, event, surveys, policy)
    return _stale_by_time(letter, line) if then is None else _stale_by_session(letter, then, line)


def _line_then(letter: DeadLetter, event: Inbound, surveys: Surveys, policy: Policy) -> Line | None:
    """What the event met when it was given up; None if that is not known."""
    if letter.state is None:
        return None
    try:
        return line_of(lane_format.decode(letter.state), event, surveys, policy)
    except UnreadableLane:
        return None


def _stale_by_session(letter: DeadLetter, then: Line, line: Line) -> str:
    """What was open there when it fell is known."""
    was, session = then.session, line.session
    if session is None:
        if was is not None:
            return f"session {was.id} is over" + _how(line)
        return "a session has begun and ended there since" if line.ended_at > letter.at else ""
    if was is None or session.id != was.id:
        return f"another session is open there, {session.id}"
    if was.version != session.version:
        return f"its session is on another version of its survey, {session.version}"
    return ""


def _stale_by_time(letter: DeadLetter, line: Line) -> str:
    """A letter of an earlier release does not say what was open."""
    if line.session is not None and line.session.opened_at > letter.at:
        return f"another session is open there, {line.session.id}"
    if line.ended_at > letter.at:
        return "the session that was open there is over" + _how(line)
    return ""


def _stale_deadline(letter: DeadLetter, before: Lane) -> str:
    if letter.state is None or any(line.session is not None for line in before.lines.values()):
        return ""
    return "no session is open any more"


def _stale_sms(before: Lane, sms: Outbound) -> str:
    """The words that a session ended with are not stale: they were decided when it was over, and no other was since."""
    if not sms.session:
        return ""
    lines = [line for key, line in before.lines.items() if channel_of(key) == sms.channel]
    if any(line.session is not None and line.session.id == sms.session for line in lines):
        return ""
    if any(line.session is not None for line in lines):
        return "another session is open"
    last = max((line.ended_at for line in lines), default=0)
    if last and sms.decided and last <= sms.decided:
        return ""
    return f"session {sms.session} is over"


def _how(line: Line) -> str:
    return f", {line.ended_how}" if line.ended_how else ""


def _refused(draft: Draft) -> str:
    """An invitation that comes too late opens nothing, and would be gone."""
    late = {"already_open": "a session is open there", "expired": "the invitation has expired"}
    reasons = (record.reason for record in draft.records if type(record) is Refused)
    return next((late[reason] for reason in reasons if reason in late), "")


def _refusals(draft: Draft) -> str:
    reasons = [record.reason for record in draft.records if type(record) is Refused]
    return f"it would be refused: {', '.join(reasons)}" if reasons else ""


def _changes_nothing(draft: Draft, event: Inbound | None) -> bool:
    """A deadline that is not due yet is set again, and so changes something."""
    if event is None and draft.deadline:
        return False
    return not (
        draft.records or draft.outbox or draft.silenced or draft.withdrawn or draft.opt_outs or draft.sessions
    )


def _stop_waits(lane: Reopened) -> str:
    """Nothing is sent while a STOP may be about to be applied."""
    if len(lane.mail) >= LOOKED_AT:
        return "much mail waits to be applied first"
    if any(map(_may_stop, _readable(lane.mail))):
        return "mail waits that may be a STOP"
    return ""


def _readable(mail: Iterable[bytes]) -> Iterable[Inbound]:
    for entry in mail:
        try:
            yield read_entry(entry).event
        except (msgspec.MsgspecError, ValueError):
            continue


def _may_stop(event: Inbound) -> bool:
    match event:
        case ProviderStop():
            return True
        case Sms():
            return may_be_stop(event)
        case Part():
            return True  # who knows what the others say
        case _:
            return False


def _may_be_there(letter: DeadLetter, recourse: Recourse, now: int) -> bool:
    """May the provider have the SMS, so that it would leave twice? One that drops an id that it has had does not, for as
    long as it knows it. An earlier release did not say how the last tries ended."""
    exhausted = letter.reason == "tries_exhausted" and not letter.since
    match recourse:
        case "repeat":
            since = letter.since or letter.at - _TRIED_FOR_MS
            known = now - since < CERTAIN_MS
            return (letter.uncertain or exhausted or letter.reason in _UNSURE) and not known
        case "look_up" | "none":
            return letter.uncertain or letter.reason in _UNSURE
        case _:
            assert_never(recourse)


_UNSURE = ("uncertain", "worker_died")
_TRIED_FOR_MS = 4 * 3_600_000  # longer than all tries of an SMS take, by verdicts.MAX_TRIES


def _sent_again(sms: Outbound, recourse: Recourse, letter: DeadLetter, now: int) -> Outbound:
    """The SMS as it is put into its outbox: a provider that can be asked is asked for it first, if it may have it."""
    unsure = recourse == "look_up" and _may_be_there(letter, recourse, now)
    return msgspec.structs.replace(sms, uncertain=unsure, decided=now, heard=0)
