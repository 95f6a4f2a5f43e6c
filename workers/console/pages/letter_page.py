"""One dead letter: what it is, the lane then and now, and what a replay would do and say; to be replayed or dropped."""

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal

import falcon
import msgspec
from falcon.asgi import Request, Response

from config.settings.settings import ConfigError
from engine.model import lane as lane_format
from engine.model.lane import UnreadableLaneError
from engine.model.timestamps import format_utc
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import missing_survey_versions
from workers.console.console_state import Console
from workers.console.person_address import hide_all_numbers, hide_number, mask_number
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.dead_letters.actions import ReplayerBuilder
from workers.dead_letters.filters import DeadLetterFilter, find_dead_letters
from workers.dead_letters.letter_reading import details_of, last_audit_entry_of, read_lane_now
from workers.dead_letters.replay_decision import ReplayDecision
from workers.dead_letters.view import dramatiq_letter_details, lane_state_lines
from workers.store import survey_versions
from workers.store.dead_letter_store import DeadLetter, FailedAttempt
from workers.store.deployment import Deployment
from workers.store.dramatiq_letters import DramatiqLetter

DiffMark = Literal["same", "then", "now"]

_SHOWN_APART = ("when", "tries", "traceback", "then", "now", "replay", "what", "sender", "id")

FINDING_SENTENCES = {
    "advance": "It would be applied, and go.",
    "duplicate": "It would only go: there is nothing to apply.",
    "stale": "It would stay, as it is stale, unless stale ones are wanted too.",
    "opted_out": "It would stay: nobody who has opted out is texted.",
    "failing": "It would fail again, and stay.",
    "uncertain": "It would stay, as it may come twice, unless uncertain ones are wanted too.",
    "busy": "Not now: it would stay.",
    "unknown": "That cannot be told.",
    "requeue": "It would be put back into its queue.",
    "delivered": "It would be sent again.",
}


class SaidLine(msgspec.Struct, frozen=True):
    """An SMS that would have been sent `then`, would be `now`, or both."""

    mark: DiffMark
    text: str


class LetterView(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows of a letter, with numbers masked for who may not see them."""

    id: str
    number: str
    person: str
    at: int
    fields: list[tuple[str, str]]
    what: str
    tries: list[FailedAttempt]
    traceback: str
    then: list[str]
    now: list[str]
    finding: str
    sentence: str
    why: str
    said: list[SaidLine]
    knows_then: bool


class LetterPage:
    def __init__(self, console: Console, build_replayer: ReplayerBuilder) -> None:
        self._console = console
        self._build_replayer = build_replayer

    async def on_get(self, req: Request, resp: Response, letter_id: str) -> None:
        console = self._console
        view = await console.calls.run(
            read_letter, console, self._build_replayer, req.context.user, letter_id
        )
        console.templates.respond(req, resp, "letter.html", view=view)


def read_letter(
    console: Console, build_replayer: ReplayerBuilder, user: ConsoleUser, letter_id: str
) -> LetterView:
    """Tell the audit, and read all that is known. Raises HTTPNotFound, with what became of it, and redis.RedisError."""
    deployment = console.deployment
    found = next(find_dead_letters(deployment, DeadLetterFilter(ids=(letter_id,))), None)
    if found is None:
        raise falcon.HTTPNotFound(description=_gone_sentence(deployment, letter_id))
    letter = found.letter
    console.record(user, "read dead letter", letter.id)
    if isinstance(letter, DramatiqLetter):
        return _view(console, user, letter, dramatiq_letter_details(letter), None)
    surveys = _known_surveys(deployment, letter)
    judged, then = _judge(deployment, build_replayer, letter) if letter.kind != "hook" else (None, None)
    details = details_of(deployment, letter, judged, surveys)
    return _view(console, user, letter, details, then.sms_texts if then is not None else None)


def _view(
    console: Console,
    user: ConsoleUser,
    letter: DeadLetter | DramatiqLetter,
    details: dict[str, Any],
    then: Sequence[str] | None,
) -> LetterView:
    sender = getattr(letter, "sender", "")
    hide = _hider(user, sender, is_raw=details["kind"] not in ("event", "sms"))
    replay = details["replay"]
    kind = details["kind"]
    return LetterView(
        id=details["id"],
        number=(sender if user.may("privacy") else mask_number(sender)) if sender else "",
        person=console.addresses.address_of(sender) if sender else "",
        at=letter.at,
        fields=[
            (name, hide(str(value)))
            for name, value in details.items()
            if name not in _SHOWN_APART and value not in ("", None)
        ],
        what=hide(details["what"]),
        tries=[FailedAttempt(each.at, each.code, hide(each.why)) for each in getattr(letter, "tries", ())],
        traceback=hide(details.get("traceback", "")),
        then=_state_lines(details.get("then"), kind, hide),
        now=_state_lines(details.get("now"), kind, hide),
        finding=replay["finding"],
        sentence=FINDING_SENTENCES[replay["finding"]],
        why=hide(replay["why"]),
        said=diff_of_said([*map(hide, then or ())], [*map(hide, replay["sms"])]),
        knows_then=then is not None and kind == "event",
    )


def _hider(user: ConsoleUser, sender: str, *, is_raw: bool) -> Callable[[str], str]:
    if user.may("privacy"):
        return str
    if is_raw:
        return hide_all_numbers
    return lambda text: hide_number(text, sender)


def _state_lines(state: Any, kind: str, hide: Callable[[str], str]) -> list[str]:
    return [hide(line.strip()) for line in lane_state_lines("", state, kind) if line.strip()]


def diff_of_said(then: Sequence[str], now: Sequence[str]) -> list[SaidLine]:
    """What would have been said `then` and would be said `now`, one SMS a line."""
    lines: list[SaidLine] = []
    for tag, a, b, c, d in SequenceMatcher(None, then, now, autojunk=False).get_opcodes():
        if tag == "equal":
            lines += [SaidLine("same", text) for text in then[a:b]]
        else:
            lines += [SaidLine("then", text) for text in then[a:b]]
            lines += [SaidLine("now", text) for text in now[c:d]]
    return lines


def _judge(
    deployment: Deployment, build_replayer: ReplayerBuilder, letter: DeadLetter
) -> tuple[ReplayDecision | None, ReplayDecision | None]:
    """What a replay would do now, and what would have come of it then. None: that is not known."""
    try:
        replayer = build_replayer(deployment, "", ())
    except ConfigError:
        return None, None
    (judged,) = replayer.preview([letter])
    return judged, replayer.preview_then(letter)


def _known_surveys(deployment: Deployment, letter: DeadLetter) -> SurveyRegistry:
    """The surveys that run, and the versions that the lane names, then or now."""
    surveys = deployment.surveys.snapshot()
    missing: set[str] = set()
    for state in (letter.state, read_lane_now(deployment, letter.sender) if letter.sender else None):
        if state:
            try:
                missing |= missing_survey_versions(lane_format.decode_lane(state), surveys)
            except UnreadableLaneError:
                continue
    if missing:
        survey_versions.load_versions(deployment.lanes, surveys, missing)
    return surveys


def _gone_sentence(deployment: Deployment, letter_id: str) -> str:
    last = last_audit_entry_of(deployment, letter_id)
    if last is None:
        return "There is no dead letter with this id."
    return f"This dead letter is gone: {last.outcome} by {last.by}, {format_utc(last.at)} UTC."
