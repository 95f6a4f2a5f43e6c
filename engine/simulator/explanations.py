"""Why did the engine do that? One moment of a conversation in sentences, for whoever writes the survey.

What happened is read from the records; why, from the lane as it was before and the very steps that were run.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, assert_never

from engine.answers import Unread, Why, read
from engine.model.events import (
    Answer,
    Cancel,
    Delivered,
    Ended,
    Ending,
    Heard,
    Invitation,
    Invited,
    Opened,
    OptedIn,
    OptedOut,
    Part,
    ProviderStop,
    Receipt,
    Refusal,
    Refused,
    Said,
    Sms,
)
from engine.model.lane import Line, Session
from engine.model.policy import ChannelPolicy
from engine.model.text_normalization import fold_word
from engine.proofs.transcripts import lasting
from engine.simulator.simulator import Moment
from engine.surveys.conditions import Not
from engine.surveys.keywords import AGAIN, HELP, is_stop, survey_started
from engine.surveys.program import END, Ask, Reask, Route, Step, Survey, follow
from engine.surveys.survey_registry import Surveys
from engine.surveys.variables import MESSAGES, count_of, place_of, read_variable
from engine.surveys.wording import describe, describe_reader
from engine.turns.conversation import answers_told

WHY: dict[Why, str] = {
    "reaction": "it is a phone's reaction to an SMS, which answers nothing, and is passed over in silence",
    "too_short": "it is too short",
    "too_long": "it is too long",
    "pattern": "it does not match the pattern",
    "not_a_number": "it is no number",
    "ambiguous": "it can be read as more than one number",
    "decimals": "it has too many decimals",
    "too_low": "it is too low",
    "too_high": "it is too high",
    "no_such_option": "it is none of the options",
    "too_few": "it names too few of the options",
    "too_many": "it names too many of the options",
    "not_yes_or_no": "it is neither a yes nor a no",
    "not_a_date": "it is no date",
    "no_year": "it is a date without a year",
    "no_such_day": "there is no such day",
    "too_early": "it is too early",
    "too_late": "it is too late",
    "not_a_phone": "it is no phone number",
}
"""Why a reply was no answer."""

REFUSAL: dict[Refusal, str] = {
    "throttled": "too many STARTs came in a short while",
    "daily_cap": "this person has begun as many sessions today as the channel allows",
    "cooldown": "the last session ended less than the survey's `cooldown` ago",
    "new_sessions": "the channel opens no more sessions this minute",
    "sms_budget": "the channel has spent the day's SMS",
    "already_open": "a session is open, and it goes on",
    "opted_out": "this person has opted out",
    "unknown_survey": "the channel does not offer that survey",
    "expired": "the invitation's time was over",
    "cancelled": "whoever invited took the invitation back before it went",
}
"""Why nothing opened."""

ENDING: dict[Ending, str] = {
    "completed": "its last step was reached",
    "expired": "its time was over (`expires`, or the invitation's)",
    "idle": "there was silence for longer than `idle`",
    "gave_up": "there were too many invalid answers",
    "stopped": "this person opted out",
    "restarted": "a START began it anew",
    "exhausted": "it had sent as many SMS as `most_sms` allows",
    "cancelled": "whoever invited wants no more of it",
    "unreachable": "the number gets no SMS",
}
"""Why a session ended."""


_UNTOLD = "Nothing is said: the survey has no fixed text for this, or it was told less than an hour ago."


def explain(moment: Moment, channel: str, surveys: Surveys, policy: ChannelPolicy) -> list[str]:
    """What the engine made of the moment on `channel`, and why, a sentence a line."""
    return list(_Moment(moment, channel, surveys, policy).sentences())


class _Moment:
    """A moment, and what is known about it."""

    def __init__(self, moment: Moment, channel: str, surveys: Surveys, policy: ChannelPolicy) -> None:
        self._moment = moment
        self._surveys = surveys
        self._policy = policy
        self._line = moment.before.lines.get(channel) or Line()

    def sentences(self) -> Iterator[str]:
        match self._moment.event:
            case None:
                yield from self._alarm()
            case Sms() as sms:
                yield from self._sms(sms)
            case Invitation():
                yield from self._invitation()
            case ProviderStop():
                yield from self._stop()
            case Cancel():
                yield from self._cancel()
            case Receipt():
                yield from self._receipt()
            case Part():
                yield from self._part()
            case other:
                assert_never(other)

    def _sms(self, sms: Sms) -> Iterator[str]:
        session = self._line.session
        if sms.handled:
            yield f"The provider took it for a {sms.handled.upper()} and has answered it."
            if sms.handled == "help":
                return
        if self._first(OptedIn):
            kind = "as good as a START" if fold_word(sms.text) in AGAIN else "a START"
            yield f"It is {kind}: they are opted in again."
        if self._first(OptedOut):
            yield from self._stop()
        elif opened := self._first(Opened):
            yield from self._opened(opened)
        elif refused := self._first(Refused):
            yield f"It is a START, which opened nothing: {REFUSAL[refused.reason]}."
            yield from self._told()
        elif self._first(OptedIn):
            yield from self._told()
        elif self._is_help(sms):
            yield "It is a HELP, whatever is being asked."
            yield from self._told("" if self._line.opted_out_at else _UNTOLD)
        elif session is not None and (heard := self._first(Heard)) and heard.session == session.id:
            yield from self._answered(session, sms)
        else:
            yield from self._outside(sms)

    def _stop(self) -> Iterator[str]:
        if self._first(OptedOut) is None:
            yield "They had opted out already: nothing changes, and nothing is said."
            return
        yield "It is a STOP, whatever is being asked: they are opted out, and hear nothing until they say START."
        yield from self._over()
        yield from self._told()

    def _cancel(self) -> Iterator[str]:
        yield "Whoever invited wants no more of the session: what has not left of it is withdrawn."
        yield from self._over()

    def _receipt(self) -> Iterator[str]:
        told = self._first(Delivered)
        if told is None:
            yield "It tells nothing new of its SMS."
            return
        yield f"The provider tells of an SMS: {told.state or told.status}{f', {told.why}' if told.why else ''}."
        yield from self._over()

    def _part(self) -> Iterator[str]:
        """What the whole SMS came to is explained as if it had come in one."""
        heard = [record for record in self._moment.records if isinstance(record, Heard)]
        if not heard:
            yield "It is a part of an SMS: the others are waited for."
        for whole in heard:
            yield "With it an SMS is whole, or as whole as it will be."
            yield from self._sms(Sms(whole.id, whole.channel, whole.text, originator=whole.originator))

    def _outside(self, sms: Sms) -> Iterator[str]:
        if self._line.opted_out_at and self._first(OptedIn) is None:
            again = " again" if is_stop(fold_word(sms.text)) else ""
            yield f"They have opted out{again}: nothing is said until they say START."
            return
        how = self._line.ended_how
        last = f" The last one ended: {ENDING[how]}." if how else ""
        yield f"No session is open, and it is no keyword.{last}"
        yield from self._told(_UNTOLD)

    def _told(self, otherwise: str = "") -> Iterator[str]:
        """Which fixed texts were sent; `otherwise` if none was."""
        said = (record for record in self._moment.records if isinstance(record, Said) and not record.session)
        told = [f"The fixed text `{record.step}` answers." for record in said]
        yield from told or ([otherwise] if otherwise else [])

    def _invitation(self) -> Iterator[str]:
        if refused := self._first(Refused):
            yield f"The invitation opened nothing: {REFUSAL[refused.reason]}."
        elif opened := self._first(Opened):
            yield from self._opened(opened)

    def _opened(self, opened: Opened) -> Iterator[str]:
        survey = self._surveys.version(opened.version)
        if self._line.session is not None and (restarted := self._first(Ended)):
            yield f"The open session ended: {ENDING[restarted.how]}."
        invited = self._first(Invited)
        by = "It is a keyword that" if self._is_keyword() else "Nothing else waits for it, so it"
        by = "The invitation" if invited else by
        first = f", '{survey.steps[0].id}'" if survey is not None else ""
        yield f"{by} opened a session of '{opened.survey}' in {opened.language}, at its first step{first}."
        if survey is not None:
            yield from self._way(survey, 0, self._after_opening(opened, invited), {})
        yield from self._over(opened.session)

    def _is_keyword(self) -> bool:
        """Or did it start a survey that any SMS starts?"""
        event = self._moment.event
        started = (
            survey_started(event.text, self._policy.surveys, self._surveys)
            if isinstance(event, Sms)
            else None
        )
        return started is None or started.named

    def _after_opening(self, opened: Opened, invited: Invited | None) -> dict[str, Answer]:
        variables = invited.invitation.variables if invited is not None else {}
        return {
            **{place_of(key): read_variable(value) for key, value in variables.items()},
            **answers_told(opened.variables),
            MESSAGES: count_of(0 if invited is not None else 1),
        }

    def _answered(self, session: Session, sms: Sms) -> Iterator[str]:
        survey = self._surveys.version(session.version)
        step = survey.steps[session.step] if survey is not None else None
        if survey is None or not isinstance(step, Ask):
            return
        yield f"'{step.id}' was asked: {describe_reader(step.reader)}."
        answer = read(step.reader, sms.text, self._today)
        if isinstance(answer, Unread):
            yield from self._misread(survey, session, step, answer.why)
        else:
            yield f"It was read as {_value(answer)}."
            answers, taken = {**session.answers, step.id: answer}, dict(session.taken)
            if (messages := answers.get(MESSAGES)) is not None:
                answers[MESSAGES] = count_of(int(messages.raw) + 1)
            route = follow(step.routes, answers, taken)
            yield from _route(step, route, taken, survey)
            yield from self._way(survey, route.go, answers, taken)
        yield from self._over()

    def _misread(self, survey: Survey, session: Session, step: Ask, why: Why) -> Iterator[str]:
        yield f"It was not read: {WHY[why]}."
        if why == "reaction":
            return
        if not isinstance(step.invalid, Reask):
            yield "Such a reply changes nothing here, and nothing is said."
            return
        nth, attempts = session.misread + 1, step.invalid.attempts
        if nth < attempts:
            yield f"That is invalid answer {nth} of {attempts}, so it is asked again."
        elif step.invalid.give_up is None:
            yield f"That is invalid answer {nth} of {attempts}, and there is no `give_up`."
        else:
            go = step.invalid.give_up
            yield f"That is invalid answer {nth} of {attempts}, so `give_up` leads to {_named(survey, go)}."
            yield from self._way(survey, go, session.answers, dict(session.taken))

    def _way(
        self, survey: Survey, place: int, answers: dict[str, Answer], taken: dict[int, int]
    ) -> Iterator[str]:
        """From `place` through statements to the next question, as far as it was said."""
        said = [record.step for record in self._moment.records if isinstance(record, Said) and record.session]
        while place != END and said:
            step = survey.steps[place]
            said.pop(0)
            if isinstance(step, Ask):
                yield f"'{step.id}' asks for {describe_reader(step.reader)}, and waits."
                return
            route = follow(step.routes, answers, taken)
            yield from _route(step, route, taken, survey)
            place = route.go

    def _over(self, session: str = "") -> Iterator[str]:
        """How the session ended; by default the one that was open before."""
        session = session or (self._line.session.id if self._line.session is not None else "")
        for record in self._moment.records:
            if isinstance(record, Said) and record.session == session and record.step == "completed":
                yield "The fixed text `completed` is said."
            if isinstance(record, Ended) and record.session == session:
                yield f"The session ended: {ENDING[record.how]}."

    def _alarm(self) -> Iterator[str]:
        session = self._line.session
        waited = f" {lasting(self._moment.at - session.touched_at)} after the last SMS" if session else ""
        for record in self._moment.records:
            match record:
                case Said(step=step):
                    yield f"Nobody wrote:{waited} a reminder of '{step}' was due."
                case Ended(how=how):
                    yield f"Nobody wrote:{waited} the session ended: {ENDING[how]}."
                case _:
                    pass

    def _first(self, kind: type[Any]) -> Any:
        return next((record for record in self._moment.records if isinstance(record, kind)), None)

    def _is_help(self, sms: Sms) -> bool:
        """Words for help may also be answers, which say or end something in the session."""
        said = (record for record in self._moment.records if not isinstance(record, Heard))
        told_only = all(isinstance(record, Said) and not record.session for record in said)
        return fold_word(sms.text) in HELP and told_only

    def _today(self) -> date:
        moment = datetime.fromtimestamp(self._moment.at / 1000, UTC)
        return moment.astimezone(self._policy.timezone).date()


def _route(step: Step, route: Route, taken: dict[int, int], survey: Survey) -> Iterator[str]:
    """Why this route of the step, which is counted in `taken`."""
    passed_over = step.routes[: next(place for place, each in enumerate(step.routes) if each is route)]
    for each in passed_over:
        yield f"  not to {_named(survey, each.go)}: {_closed(each, step, taken)}"
    if route.times is not None:
        taken[route.counter] = taken.get(route.counter, 0) + 1
    if route.when is not None:
        because = f": {describe(route.when, step.id)}"
    else:
        because = ": otherwise" if passed_over else ", which follows"
    times = f" (time {taken[route.counter]} of {route.times})" if route.times is not None else ""
    yield f"  on to {_named(survey, route.go)}{because}{times}"


def _closed(route: Route, step: Step, taken: dict[int, int]) -> str:
    if route.times is not None and taken.get(route.counter, 0) >= route.times:
        return f"it was taken {_times(route.times)} already"
    return describe(Not(route.when), step.id) if route.when is not None else "it is not open"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _named(survey: Survey, place: int) -> str:
    return "the end" if place == END else f"'{survey.steps[place].id}'"


def _value(answer: Answer) -> str:
    match answer.value:
        case bool(value):
            return "yes" if value else "no"
        case float(value):
            return f"{value:.15g}"
        case int(value):
            return str(value)
        case str(value):
            return f"'{value}'"
        case values:
            return _list(values)


def _list(values: Sequence[str]) -> str:
    return " and ".join(f"'{value}'" for value in values) or "nothing"
