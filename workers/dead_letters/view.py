"""How is a dead letter shown? What it is, every attempt, and the lane then and now, in words; the same as JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.model import lane as lane_format
from engine.model.events import Inbound, Outbound, decode_outbound
from engine.model.lane import Line, UnreadableLane
from engine.surveys.survey_registry import Surveys
from workers.dead_letters.filters import DRAMATIQ, survey_of
from workers.dead_letters.replay_decision import Judged
from workers.store.dead_letter_store import DeadLetter
from workers.store.dramatiq_letters import DramatiqLetter
from workers.turns.drafts import read_entry

Plain = dict[str, Any]

UNTOLD = "no worker would start with these settings and surveys; `parley check` says why"
"""What a replay would do cannot be told."""


def when(ms: int) -> str:
    """A moment, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def brief(letter: DeadLetter | DramatiqLetter) -> Plain:
    """A letter without what fills screens."""
    if isinstance(letter, DramatiqLetter):
        return {
            "id": letter.id, "when": when(letter.at), "kind": DRAMATIQ, "queue": letter.queue,
            "actor": letter.actor, "reason": DRAMATIQ, "why": letter.why, "retries": letter.retries,
        }  # fmt: skip
    return {
        "id": letter.id, "when": when(letter.at), "kind": letter.kind, "queue": letter.queue,
        "channel": letter.channel, "survey": survey_of(letter), "session": letter.session, "sender": letter.sender,
        "reason": letter.reason, "code": letter.code, "why": letter.why, "attempts": letter.attempts,
        "version": letter.version,
    }  # fmt: skip


def full(letter: DeadLetter, lane: bytes, judged: Judged | None, surveys: Surveys) -> Plain:
    """All that is known of a letter of ours: `lane` is its lane's state now, `judged` what a replay would do."""
    plain = brief(letter) | {
        "accepted": _accepted(letter),
        "what": _what(letter),
        "tries": [{"when": when(tried.at), "code": tried.code, "why": tried.why} for tried in letter.tries],
        "traceback": letter.traceback,
        "then": None if letter.state is None else state_in_words(letter.state, surveys),
        "now": state_in_words(lane, surveys),
    }
    if judged is None:
        plain["replay"] = {"finding": "unknown", "why": UNTOLD, "sms": []}
    else:
        plain["replay"] = {"finding": judged.finding, "why": judged.why, "sms": judged.says}
    return plain


def full_dramatiq(letter: DramatiqLetter) -> Plain:
    return brief(letter) | {
        "what": letter.message.decode(errors="replace"),
        "traceback": letter.traceback,
        "replay": {"finding": "requeue" if letter.readable else "failing", "why": "", "sms": []},
    }


def state_in_words(state: bytes, surveys: Surveys) -> list[Plain] | str:
    """What a lane knows, a line each; a sentence if it cannot be read."""
    try:
        lane = lane_format.decode(state)
    except UnreadableLane as e:
        return str(e)
    return [_line(key, line, surveys) for key, line in lane.lines.items()]


def lines_of(plain: Plain) -> Iterator[str]:
    """A letter, as it is printed."""
    for name, value in plain.items():
        match name:
            case "tries":
                yield from _tries(value)
            case "traceback" if value:
                yield name
                yield from (f"  {line}" for line in value.rstrip().splitlines())
            case "then" | "now":
                yield from _state(f"lane {name}", value, plain["kind"])
            case "replay":
                yield from _replay(value)
            case _ if value not in ("", None):
                yield f"{name:10} {value}"


def _accepted(letter: DeadLetter) -> str:
    if letter.kind == "sms" or not letter.what:
        return ""
    try:
        return when(read_entry(letter.what).at)
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return ""


def _what(letter: DeadLetter) -> str:
    """The event or SMS in it, or its bytes if they are neither."""
    if not letter.what:
        return "a deadline that was due"
    try:
        return _in_words(
            decode_outbound(letter.what) if letter.kind == "sms" else read_entry(letter.what).event
        )
    except (msgspec.MsgspecError, ValueError):
        return str(letter.what)


def _in_words(what: Inbound | Outbound) -> str:
    fields = {
        name: value
        for name, value in msgspec.structs.asdict(what).items()
        if value not in ("", 0, False) and value != {}
    }
    return f"{type(what).__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


def _line(key: str, line: Line, surveys: Surveys) -> Plain:
    plain: Plain = {"line": key}
    if line.opted_out_at:
        plain["opted_out"] = when(line.opted_out_at)
    if line.ended_at:
        plain["ended"] = f"{line.ended_survey} {line.ended_how} at {when(line.ended_at)}"
    if session := line.session:
        survey = surveys.version(session.version)
        known = survey is not None and 0 <= session.step < len(survey.steps)
        plain["session"] = {
            "id": session.id,
            "survey": session.survey,
            "version": session.version,
            "step": survey.steps[session.step].id if survey is not None and known else session.step,
            "opened": when(session.opened_at),
            "touched": when(session.touched_at),
            "answers": {name: answer.raw for name, answer in session.answers.items()},
        }
    return plain


def _tries(tries: list[Plain]) -> Iterator[str]:
    if tries:
        yield "tries"
        for tried in tries:
            yield f"  {tried['when']}  {tried['code']} {tried['why']}".rstrip()


def _state(name: str, state: list[Plain] | str | None, kind: str) -> Iterator[str]:
    if state is None and kind == "sms":
        yield f"{name:10} not kept of an SMS; `parley transcript` has what was said"
        return
    if not isinstance(state, list):
        yield f"{name:10} {'not known: an earlier release did not say' if state is None else state}"
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
                f"    session {session['id']} of {session['survey']} ({session['version']}), at step {session['step']}, "
                f"last SMS {session['touched']}"
            )
            if answers:
                yield f"    answers: {answers}"


def _replay(replay: Plain) -> Iterator[str]:
    yield f"{'a replay':10} {replay['finding']}" + (f": {replay['why']}" if replay["why"] else "")
    yield from (f"  < {text}" for text in replay["sms"])
