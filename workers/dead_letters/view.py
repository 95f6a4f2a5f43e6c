"""How is a dead letter shown? What it is, every attempt, and the lane then and now, in words; the same as JSON."""

from collections.abc import Iterator
from typing import Any

import msgspec

from engine.model import lane as lane_format
from engine.model.events import PUBLISHED_NAMES, InboundEvent, OutboundSms, decode_outbound
from engine.model.lane import ChannelLine, UnreadableLaneError
from engine.model.timestamps import format_utc
from engine.surveys.survey_registry import SurveyRegistry
from workers.dead_letters.filters import DRAMATIQ_REASON, survey_of_dead_letter
from workers.dead_letters.letter_result import LetterResult
from workers.dead_letters.replay_decision import ReplayDecision
from workers.store.dead_letter_store import DeadLetter
from workers.store.dramatiq_letters import DramatiqLetter
from workers.turns.drafts import decode_mail

JsonObject = dict[str, Any]

REPLAY_UNKNOWN = "no worker would start with these settings and surveys; `parley check` says why"
"""What a replay would do cannot be told."""


def letter_summary(letter: DeadLetter | DramatiqLetter) -> JsonObject:
    """A letter's identifying fields as a JSON object: no content, state, attempts or traceback."""
    if isinstance(letter, DramatiqLetter):
        return {
            "id": letter.id, "when": format_utc(letter.at), "kind": DRAMATIQ_REASON, "queue": letter.queue,
            "actor": letter.actor, "reason": DRAMATIQ_REASON, "why": letter.why, "retries": letter.retries,
        }  # fmt: skip
    return {
        "id": letter.id, "when": format_utc(letter.at), "kind": letter.kind, "queue": letter.queue,
        "channel": letter.channel, "survey": survey_of_dead_letter(letter), "session": letter.session,
        "sender": letter.sender,
        "reason": letter.reason, "code": letter.code, "why": letter.why, "attempts": letter.attempts,
        "version": letter.version,
    } | ({"hook": letter.hook} if letter.kind == "hook" else {})  # fmt: skip


def letter_details(
    letter: DeadLetter, lane: bytes, judged: ReplayDecision | None, surveys: SurveyRegistry
) -> JsonObject:
    """All fields of a letter as a JSON object. `lane` is the lane's state now, `judged` the decision of a replay (None: no
    worker would start)."""
    plain = letter_summary(letter) | {
        "accepted": _accepted_time(letter),
        "what": _content_in_words(letter),
        "tries": _attempts_of(letter),
        "traceback": letter.traceback,
        "then": None if letter.state is None else describe_lane_state(letter.state, surveys),
        "now": describe_lane_state(lane, surveys),
    }
    if judged is None:
        plain["replay"] = {"finding": "unknown", "why": REPLAY_UNKNOWN, "sms": []}
    else:
        plain["replay"] = {"finding": judged.finding, "why": judged.why, "sms": judged.sms_texts}
    return plain


def event_letter_details(letter: DeadLetter, preview: LetterResult) -> JsonObject:
    """All fields of the letter of an event that an endpoint refused; `preview`: what a replay would come to."""
    return letter_summary(letter) | {
        "what": _content_in_words(letter),
        "tries": _attempts_of(letter),
        "replay": {"finding": preview.outcome, "why": preview.why, "sms": []},
    }


def _attempts_of(letter: DeadLetter) -> list[JsonObject]:
    return [{"when": format_utc(tried.at), "code": tried.code, "why": tried.why} for tried in letter.tries]


def dramatiq_letter_details(letter: DramatiqLetter) -> JsonObject:
    return letter_summary(letter) | {
        "what": letter.message.decode(errors="replace"),
        "traceback": letter.traceback,
        "replay": {"finding": "requeue" if letter.readable else "failing", "why": "", "sms": []},
    }


def describe_lane_state(state: bytes, surveys: SurveyRegistry) -> list[JsonObject] | str:
    """The lines of a stored lane as JSON objects; a sentence if it cannot be read."""
    try:
        lane = lane_format.decode_lane(state)
    except UnreadableLaneError as e:
        return str(e)
    return [_line_details(key, line, surveys) for key, line in lane.lines.items()]


def detail_lines(plain: JsonObject) -> Iterator[str]:
    """Format a letter's details for a terminal, line by line."""
    for name, value in plain.items():
        match name:
            case "tries":
                yield from _attempt_lines(value)
            case "traceback" if value:
                yield name
                yield from (f"  {line}" for line in value.rstrip().splitlines())
            case "then" | "now":
                yield from lane_state_lines(f"lane {name}", value, plain["kind"])
            case "replay":
                yield from _replay_lines(value)
            case _ if value not in ("", None):
                yield f"{name:10} {value}"


def _accepted_time(letter: DeadLetter) -> str:
    if letter.kind != "event" or not letter.what:
        return ""
    try:
        return format_utc(decode_mail(letter.what).at)
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return ""


def _content_in_words(letter: DeadLetter) -> str:
    """The event or SMS in it, or its bytes if they are neither."""
    if letter.kind == "hook":
        return letter.what.decode(errors="replace")
    if not letter.what:
        return "a deadline that was due"
    try:
        return _fields_in_words(
            decode_outbound(letter.what) if letter.kind == "sms" else decode_mail(letter.what).event
        )
    except (msgspec.MsgspecError, ValueError):
        return str(letter.what)


def _fields_in_words(what: InboundEvent | OutboundSms) -> str:
    fields = {
        name: value
        for name, value in msgspec.structs.asdict(what).items()
        if value not in ("", 0, False) and value != {}
    }
    return (
        f"{PUBLISHED_NAMES[type(what)]}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
    )


def _line_details(key: str, line: ChannelLine, surveys: SurveyRegistry) -> JsonObject:
    plain: JsonObject = {"line": key}
    if line.opted_out_at:
        plain["opted_out"] = format_utc(line.opted_out_at)
    if line.ended_at:
        plain["ended"] = f"{line.ended_survey} {line.ended_how} at {format_utc(line.ended_at)}"
    if session := line.session:
        survey = surveys.by_version(session.version)
        known = survey is not None and 0 <= session.step < len(survey.steps)
        plain["session"] = {
            "id": session.id,
            "survey": session.survey,
            "version": session.version,
            "step": survey.steps[session.step].id if survey is not None and known else session.step,
            "opened": format_utc(session.opened_at),
            "touched": format_utc(session.last_sms_at),
            "answers": {name: answer.raw for name, answer in session.answers.items()},
        }
    return plain


def _attempt_lines(tries: list[JsonObject]) -> Iterator[str]:
    if tries:
        yield "tries"
        for tried in tries:
            yield f"  {tried['when']}  {tried['code']} {tried['why']}".rstrip()


def lane_state_lines(name: str, state: list[JsonObject] | str | None, kind: str) -> Iterator[str]:
    """Format what is known of a lane, line by line; the first begins with its `name`."""
    if state is None and kind == "sms":
        yield f"{name:10} not kept of an SMS; `parley transcript` has what was said"
        return
    if not isinstance(state, list):
        yield f"{name:10} {'not known' if state is None else state}"
        return
    yield f"{name:10} {'nothing is known of them' if not state else ''}".rstrip()
    for line in state:
        rest = [
            f"{field.replace('_', ' ')} {line[field]}" for field in ("opted_out", "ended") if field in line
        ]
        yield f"  {line['line']}: {'; '.join(rest)}".rstrip(": ")
        if session := line.get("session"):
            answers = ", ".join(f"{name}={raw!r}" for name, raw in session["answers"].items())
            yield (
                f"    session {session['id']} of {session['survey']} ({session['version']}), at step "
                f"{session['step']}, "
                f"last SMS {session['touched']}"
            )
            if answers:
                yield f"    answers: {answers}"


def _replay_lines(replay: JsonObject) -> Iterator[str]:
    yield f"{'a replay':10} {replay['finding']}" + (f": {replay['why']}" if replay["why"] else "")
    yield from (f"  < {text}" for text in replay["sms"])
