"""A phone that the engine answers, without a server: what is typed, and time that is skipped.

The conversation so far is a transcript of what the person did, in the form that `parley chat --script` plays: the page carries it,
and each time all of it is played again, in some milliseconds. So nothing is kept here, and a survey that was edited meanwhile is
talked to as it is now.
"""

from collections.abc import Iterator
from typing import Literal, assert_never, get_args

import msgspec

from engine.commands.chat_screen import describe_state
from engine.model.durations import format_duration
from engine.model.errors import ParleyError
from engine.model.events import (
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    SessionEnded,
    SmsDecided,
)
from engine.model.segments import count_segments
from engine.proofs.transcripts import (
    PersonInvited,
    SmsIn,
    TimePassed,
    Transcript,
    TranscriptAction,
    TranscriptEntry,
    TranscriptError,
    TranscriptStart,
    format_transcript,
    parse_transcript,
)
from engine.simulator.explanations import explain_moment
from engine.simulator.simulator import SimulatedPhone, decision_notes, phone_for
from engine.surveys.program import Survey
from engine.surveys.survey_registry import SurveyRegistry
from workers.console.surveys.phone_lines import LONGEST_TEXT, PhoneLine

LONGEST_SCRIPT = 20_000
"""Characters of the transcript that a page carries."""

MOST_ACTIONS = 100
MOST_SHOWN = 300
"""SMS and remarks of one conversation, the newest."""

_HOUR_MS = 3_600_000

PhoneDeed = Literal["send", "skip", "hour", "invite", "back", "restart", ""]
"""Text it; let time go by until something is due, or for an hour; invite this phone; take the last thing back; begin anew."""

PHONE_DEEDS: tuple[PhoneDeed, ...] = get_args(PhoneDeed)


class BadConversationError(ParleyError):
    """What a page carried is no conversation, or one that is too long. The message is for whoever looks."""


class PhoneState(msgspec.Struct, frozen=True, kw_only=True):
    """How a conversation stands. `script` is what to carry on. `now_at` is the step that is asked now, or was said last; `been` are
    all that were said. `next_due` is how long it is until something is due, in words; empty: nothing is."""

    script: str
    lines: list[PhoneLine]
    now: int
    now_at: str
    been: list[str]
    next_due: str
    segments: int
    standing: list[str]
    explained: list[str]
    has_session: bool
    problem: str = ""


def begin_script(at: int, timezone: str) -> str:
    """A conversation in which nothing has happened, at a moment (ms, to the minute)."""
    return format_transcript(Transcript((), "", (), TranscriptStart(at // 60_000 * 60_000, timezone)))


def play_phone(
    survey: Survey, script: str, deed: PhoneDeed = "", text: str = "", language: str = ""
) -> PhoneState:
    """Play a conversation, and what is done next. Raises BadConversationError."""
    transcript = _read_script(script)
    surveys = SurveyRegistry([survey])
    actions = [*transcript.entries]
    try:
        phone = phone_for(transcript, surveys, (survey.name,))
    except TranscriptError as e:
        raise BadConversationError(str(e)) from e
    lines = [line for action in actions for line in _play(phone, action)]
    problem, following = _next_action(phone, deed, text, language)
    if deed == "restart":
        return play_phone(survey, format_transcript(msgspec.structs.replace(transcript, entries=())))
    if deed == "back" and actions:
        kept = msgspec.structs.replace(transcript, entries=tuple(actions[:-1]))
        return play_phone(survey, format_transcript(kept))
    if following is not None and len(actions) >= MOST_ACTIONS:
        problem, following = "This conversation is long enough: begin anew, or take something back.", None
    if following is not None:
        lines += _play(phone, following)
        actions.append(following)
    played = msgspec.structs.replace(transcript, entries=tuple(actions))
    return _state_of(phone, survey, format_transcript(played), lines[-MOST_SHOWN:], problem)


def _read_script(script: str) -> Transcript:
    if len(script) > LONGEST_SCRIPT:
        raise BadConversationError("This conversation is too long to be carried on")
    try:
        transcript = parse_transcript(script)
    except TranscriptError as e:
        raise BadConversationError(f"The page carried what is no conversation: {e}") from e
    if transcript.surveys or not all(map(_is_ours, transcript.entries)) or transcript.begins is None:
        raise BadConversationError("The page carried another kind of conversation")
    if len(transcript.entries) > MOST_ACTIONS:
        raise BadConversationError("This conversation is too long to be carried on")
    return transcript


def _is_ours(entry: TranscriptEntry) -> bool:
    """What this page does; time goes by at most until what is due."""
    match entry:
        case SmsIn(text):
            return len(text) <= LONGEST_TEXT
        case TimePassed(ms):
            return ms <= _LONGEST_SKIP_MS
        case PersonInvited():
            return True
        case _:
            return False


_LONGEST_SKIP_MS = 400 * 24 * _HOUR_MS


def _next_action(
    phone: SimulatedPhone, deed: PhoneDeed, text: str, language: str
) -> tuple[str, TranscriptAction | None]:
    """What is done, or why it cannot be."""
    match deed:
        case "send":
            if len(text) > LONGEST_TEXT:
                return f"An SMS has at most {LONGEST_TEXT:,} characters here.", None
            return ("", SmsIn(text)) if text.strip() else ("Write something first.", None)
        case "skip":
            if phone.alarm is None:
                return "Nothing is due, however long you wait.", None
            return "", TimePassed(min(_LONGEST_SKIP_MS, max(0, phone.alarm - phone.now)))
        case "hour":
            return "", TimePassed(_HOUR_MS)
        case "invite":
            return "", PersonInvited(language=language)
        case "back" | "restart" | "":
            return "", None
        case _:
            assert_never(deed)


def _play(phone: SimulatedPhone, action: TranscriptEntry) -> Iterator[PhoneLine]:
    """Do it, and say what came of it, in its order."""
    known = len(phone.records)
    begun = phone.now
    match action:
        case SmsIn(text):
            yield PhoneLine("sent", text, begun)
            phone.play_action(action)
        case TimePassed(ms):
            _wait(phone, ms)
        case PersonInvited():
            yield PhoneLine("noted", "this phone is invited", begun)
            phone.play_action(action)
        case _:
            return
    for record in phone.records[known:]:
        if isinstance(record, SmsDecided):
            yield PhoneLine("received", record.text, record.at, count_segments(record.text).segments)
        if isinstance(record, (SessionEnded, OpeningRefused, PersonOptedOut, PersonOptedIn)):
            for note in decision_notes([record]):
                yield PhoneLine("noted", note.what, record.at)
    if isinstance(action, TimePassed):
        yield PhoneLine("noted", f"{format_duration(action.ms)} later", phone.now)


def _wait(phone: SimulatedPhone, ms: int) -> None:
    """Let time go by. What a page carries may say more of it than anybody would skip."""
    until = phone.now + ms
    for _ in range(_MOST_ALARMS):
        if phone.alarm is None or phone.alarm > until:
            phone.wait(until - phone.now)
            return
        phone.wait(max(0, phone.alarm - phone.now))
    raise BadConversationError("Too much happens in this conversation while time goes by")


_MOST_ALARMS = 1_000


def _state_of(
    phone: SimulatedPhone, survey: Survey, script: str, lines: list[PhoneLine], problem: str
) -> PhoneState:
    steps = {step.id for step in survey.steps}
    been = [record.step for record in phone.records_of(SmsDecided) if record.step in steps]
    session = phone.channel_state.session
    now_at = survey.steps[session.step].id if session is not None else been[-1] if been else ""
    due = format_duration(max(0, phone.alarm - phone.now)) if phone.alarm is not None else ""
    return PhoneState(
        script=script,
        lines=lines,
        now=phone.now,
        now_at=now_at,
        been=list(dict.fromkeys(been)),
        next_due=due,
        segments=sum(count_segments(record.text).segments for record in phone.records_of(SmsDecided)),
        standing=list(describe_state(phone)),
        explained=_explain(phone),
        has_session=session is not None,
        problem=problem,
    )


def _explain(phone: SimulatedPhone) -> list[str]:
    """What the engine made of the last thing, and why."""
    return [
        line
        for moment in phone.moments
        for line in explain_moment(moment, phone.channel, phone.surveys, phone.policy)
    ]
