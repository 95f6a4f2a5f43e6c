"""Why did the engine do that? One moment of a conversation in sentences, for whoever writes the survey.

What happened is read from the records; why, from the lane as it was before and the very steps that were run.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, assert_never

from engine.answers import REACTION, InvalidAnswer, InvalidReason, explain_invalid_answer, read_answer
from engine.model.durations import compact_duration
from engine.model.events import (
    Answer,
    CancelSession,
    DeliveryReceipt,
    InboundSms,
    Invitation,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ProviderStop,
    ReceiptRecorded,
    RefusalReason,
    SessionEnded,
    SessionEnding,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsPart,
    SmsReceived,
)
from engine.model.lane import ChannelLine, Session
from engine.model.policy import ChannelPolicy
from engine.model.text_normalization import fold_word
from engine.simulator.simulator import LaneMoment
from engine.surveys.conditions import Not
from engine.surveys.keywords import HELP_WORDS, OPT_IN_YES_WORDS, is_stop, match_start
from engine.surveys.program import (
    END_INDEX,
    QuestionStep,
    ReaskInvalid,
    Route,
    Survey,
    SurveyStep,
    choose_route,
    rejection_reason,
)
from engine.surveys.survey_registry import SurveyRegistry
from engine.surveys.variables import MESSAGES_KEY, answer_key, message_count, read_variable
from engine.surveys.wording import describe_condition
from engine.turns.conversation import builtin_answers

REFUSAL_REASONS: dict[RefusalReason, str] = {
    "throttled": "too many STARTs came in a short while",
    "daily_cap": "this person has begun as many sessions today as the channel allows",
    "cooldown": "the survey was completed less than its `cooldown` ago",
    "new_sessions": "the channel opens no more sessions this minute",
    "sms_budget": "the channel has spent the day's SMS",
    "already_open": "a session is open, and it goes on",
    "opted_out": "this person has opted out",
    "unknown_survey": "the channel does not offer that survey",
    "expired": "the invitation's time was over",
    "cancelled": "whoever invited took the invitation back before it went",
}
"""Why nothing opened."""

ENDING_REASONS: dict[SessionEnding, str] = {
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


_NOTHING_SAID = (
    "Nothing is said: the survey has no fixed text for this, or it was told less than an hour ago."
)


def explain_moment(
    moment: LaneMoment, channel: str, surveys: SurveyRegistry, policy: ChannelPolicy
) -> list[str]:
    """What the engine made of the moment on `channel`, and why, a sentence a line."""
    return list(_MomentExplainer(moment, channel, surveys, policy).sentences())


class _MomentExplainer:
    """A moment, and what is known about it."""

    def __init__(
        self, moment: LaneMoment, channel: str, surveys: SurveyRegistry, policy: ChannelPolicy
    ) -> None:
        self._moment = moment
        self._surveys = surveys
        self._policy = policy
        self._line = moment.before.lines.get(channel) or ChannelLine()

    def sentences(self) -> Iterator[str]:
        match self._moment.event:
            case None:
                yield from self._explain_alarm()
            case InboundSms() as sms:
                yield from self._explain_sms(sms)
            case Invitation():
                yield from self._explain_invitation()
            case ProviderStop():
                yield from self._explain_stop()
            case CancelSession():
                yield from self._explain_cancel()
            case DeliveryReceipt():
                yield from self._explain_receipt()
            case SmsPart():
                yield from self._explain_part()
            case other:
                assert_never(other)

    def _explain_sms(self, sms: InboundSms) -> Iterator[str]:
        session = self._line.session
        if sms.handled:
            yield f"The provider took it for a {sms.handled.upper()} and has answered it."
            if sms.handled == "help":
                return
        if self._first_record(PersonOptedIn):
            kind = "as good as a START" if fold_word(sms.text) in OPT_IN_YES_WORDS else "a START"
            yield f"It is {kind}: they are opted in again."
        if self._first_record(PersonOptedOut):
            yield from self._explain_stop()
        elif opened := self._first_record(SessionOpened):
            yield from self._explain_opening(opened)
        elif refused := self._first_record(OpeningRefused):
            yield f"It is a START, which opened nothing: {REFUSAL_REASONS[refused.reason]}."
            yield from self._fixed_texts_sent()
        elif self._first_record(PersonOptedIn):
            yield from self._fixed_texts_sent()
        elif self._is_help(sms):
            yield "It is a HELP, whatever is being asked."
            yield from self._fixed_texts_sent("" if self._line.opted_out_at else _NOTHING_SAID)
        elif (
            session is not None and (heard := self._first_record(SmsReceived)) and heard.session == session.id
        ):
            yield from self._explain_answer(session, sms)
        else:
            yield from self._explain_without_session(sms)

    def _explain_stop(self) -> Iterator[str]:
        if self._first_record(PersonOptedOut) is None:
            yield "They had opted out already: nothing changes, and nothing is said."
            return
        yield (
            "It is a STOP, whatever is being asked: they are opted out, and hear nothing until they say "
            "START."
        )
        yield from self._explain_ending()
        yield from self._fixed_texts_sent()

    def _explain_cancel(self) -> Iterator[str]:
        yield "Whoever invited wants no more of the session: what has not left of it is withdrawn."
        yield from self._explain_ending()

    def _explain_receipt(self) -> Iterator[str]:
        told = self._first_record(ReceiptRecorded)
        if told is None:
            yield "It tells nothing new of its SMS."
            return
        yield (
            f"The provider tells of an SMS: {told.state or told.status}{f', {told.why}' if told.why else ''}."
        )
        yield from self._explain_ending()

    def _explain_part(self) -> Iterator[str]:
        """What the whole SMS came to is explained as if it had come in one."""
        heard = [record for record in self._moment.records if isinstance(record, SmsReceived)]
        if not heard:
            yield "It is a part of an SMS: the others are waited for."
        for whole in heard:
            yield "With it an SMS is whole, or as whole as it will be."
            yield from self._explain_sms(
                InboundSms(whole.id, whole.channel, whole.text, originator=whole.originator)
            )

    def _explain_without_session(self, sms: InboundSms) -> Iterator[str]:
        if self._line.opted_out_at and self._first_record(PersonOptedIn) is None:
            again = " again" if is_stop(fold_word(sms.text)) else ""
            yield f"They have opted out{again}: nothing is said until they say START."
            return
        how = self._line.ended_how
        last = f" The last one ended: {ENDING_REASONS[how]}." if how else ""
        yield f"No session is open, and it is no keyword.{last}"
        yield from self._fixed_texts_sent(_NOTHING_SAID)

    def _fixed_texts_sent(self, otherwise: str = "") -> Iterator[str]:
        """Which fixed texts were sent; `otherwise` if none was."""
        said = (
            record for record in self._moment.records if isinstance(record, SmsDecided) and not record.session
        )
        told = [f"The fixed text `{record.step}` answers." for record in said]
        yield from told or ([otherwise] if otherwise else [])

    def _explain_invitation(self) -> Iterator[str]:
        if refused := self._first_record(OpeningRefused):
            yield f"The invitation opened nothing: {REFUSAL_REASONS[refused.reason]}."
        elif opened := self._first_record(SessionOpened):
            yield from self._explain_opening(opened)

    def _explain_opening(self, opened: SessionOpened) -> Iterator[str]:
        survey = self._surveys.by_version(opened.version)
        if self._line.session is not None and (restarted := self._first_record(SessionEnded)):
            yield f"The open session ended: {ENDING_REASONS[restarted.how]}."
        invited = self._first_record(SessionInvited)
        by = "It is a keyword that" if self._is_keyword() else "Nothing else waits for it, so it"
        by = "The invitation" if invited else by
        first = f", '{survey.steps[0].id}'" if survey is not None else ""
        yield f"{by} opened a session of '{opened.survey}' in {opened.language}, at its first step{first}."
        if survey is not None:
            yield from self._explain_path(survey, 0, self._after_opening(opened, invited), {})
        yield from self._explain_ending(opened.session)

    def _is_keyword(self) -> bool:
        """Or did it start a survey that any SMS starts?"""
        event = self._moment.event
        started = (
            match_start(event.text, self._policy.surveys, self._surveys)
            if isinstance(event, InboundSms)
            else None
        )
        return started is None or started.names_survey

    def _after_opening(self, opened: SessionOpened, invited: SessionInvited | None) -> dict[str, Answer]:
        variables = invited.invitation.variables if invited is not None else {}
        return {
            **{answer_key(key): read_variable(value) for key, value in variables.items()},
            **builtin_answers(opened.variables),
            MESSAGES_KEY: message_count(0 if invited is not None else 1),
        }

    def _explain_answer(self, session: Session, sms: InboundSms) -> Iterator[str]:
        survey = self._surveys.by_version(session.version)
        step = survey.steps[session.step] if survey is not None else None
        if survey is None or not isinstance(step, QuestionStep):
            return
        yield f"'{step.id}' was asked: {step.reader.describe_answers()}."
        answer = read_answer(step.reader, sms.text, self._local_date)
        if isinstance(answer, InvalidAnswer):
            why = rejection_reason(step, sms, answer.reason)
            yield from self._explain_invalid_answer(survey, session, step, why)
        else:
            yield f"It was read as {_format_value(answer)}."
            answers, taken = {**session.answers, step.id: answer}, dict(session.routes_taken)
            if (messages := answers.get(MESSAGES_KEY)) is not None:
                answers[MESSAGES_KEY] = message_count(int(messages.raw) + 1)
            route = choose_route(step.routes, answers, taken)
            yield from _explain_route(step, route, taken, survey)
            yield from self._explain_path(survey, route.go, answers, taken)
        yield from self._explain_ending()

    def _explain_invalid_answer(
        self, survey: Survey, session: Session, step: QuestionStep, why: InvalidReason
    ) -> Iterator[str]:
        yield f"It was not read: {explain_invalid_answer(step.reader, why)}."
        if why == REACTION:
            return
        if not isinstance(step.invalid, ReaskInvalid):
            yield "Such a reply changes nothing here, and nothing is said."
            return
        nth, attempts = session.invalid_answers + 1, step.invalid.attempts
        if nth < attempts:
            yield f"That is invalid answer {nth} of {attempts}, so it is asked again."
        elif step.invalid.give_up is None:
            yield f"That is invalid answer {nth} of {attempts}, and there is no `give_up`."
        else:
            go = step.invalid.give_up
            yield (
                f"That is invalid answer {nth} of {attempts}, so `give_up` leads to {_step_name(survey, go)}."
            )
            yield from self._explain_path(survey, go, session.answers, dict(session.routes_taken))

    def _explain_path(
        self, survey: Survey, place: int, answers: dict[str, Answer], taken: dict[int, int]
    ) -> Iterator[str]:
        """From `place` through statements to the next question, as far as it was said."""
        said = [
            record.step
            for record in self._moment.records
            if isinstance(record, SmsDecided) and record.session
        ]
        while place != END_INDEX and said:
            step = survey.steps[place]
            said.pop(0)
            if isinstance(step, QuestionStep):
                yield f"'{step.id}' asks for {step.reader.describe_answers()}, and waits."
                return
            route = choose_route(step.routes, answers, taken)
            yield from _explain_route(step, route, taken, survey)
            place = route.go

    def _explain_ending(self, session: str = "") -> Iterator[str]:
        """Explain how the session ended, if it did; `session` defaults to the one that was open before the moment."""
        session = session or (self._line.session.id if self._line.session is not None else "")
        for record in self._moment.records:
            if isinstance(record, SmsDecided) and record.session == session and record.kind == "fixed":
                yield f"The fixed text `{record.step}` is said."
            if isinstance(record, SessionEnded) and record.session == session:
                yield f"The session ended: {ENDING_REASONS[record.how]}."

    def _explain_alarm(self) -> Iterator[str]:
        session = self._line.session
        waited = (
            f" {compact_duration(self._moment.at - session.last_sms_at)} after the last SMS"
            if session
            else ""
        )
        for record in self._moment.records:
            match record:
                case SmsDecided(step=step):
                    yield f"Nobody wrote:{waited} a reminder of '{step}' was due."
                case SessionEnded(how=how):
                    yield f"Nobody wrote:{waited} the session ended: {ENDING_REASONS[how]}."
                case _:
                    pass

    def _first_record(self, kind: type[Any]) -> Any:
        return next((record for record in self._moment.records if isinstance(record, kind)), None)

    def _is_help(self, sms: InboundSms) -> bool:
        """Words for help may also be answers, which say or end something in the session."""
        said = (record for record in self._moment.records if not isinstance(record, SmsReceived))
        told_only = all(isinstance(record, SmsDecided) and not record.session for record in said)
        return fold_word(sms.text) in HELP_WORDS and told_only

    def _local_date(self) -> date:
        moment = datetime.fromtimestamp(self._moment.at / 1000, UTC)
        return moment.astimezone(self._policy.timezone).date()


def _explain_route(step: SurveyStep, route: Route, taken: dict[int, int], survey: Survey) -> Iterator[str]:
    """Why this route of the step, which is counted in `taken`."""
    passed_over = step.routes[: next(place for place, each in enumerate(step.routes) if each is route)]
    for each in passed_over:
        yield f"  not to {_step_name(survey, each.go)}: {_closed_reason(each, step, taken)}"
    if route.times is not None:
        taken[route.counter] = taken.get(route.counter, 0) + 1
    if route.when is not None:
        because = f": {describe_condition(route.when, step.id)}"
    else:
        because = ": otherwise" if passed_over else ", which follows"
    times = f" (time {taken[route.counter]} of {route.times})" if route.times is not None else ""
    yield f"  on to {_step_name(survey, route.go)}{because}{times}"


def _closed_reason(route: Route, step: SurveyStep, taken: dict[int, int]) -> str:
    if route.times is not None and taken.get(route.counter, 0) >= route.times:
        return f"it was taken {_format_times(route.times)} already"
    return describe_condition(Not(route.when), step.id) if route.when is not None else "it is not open"


def _format_times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _step_name(survey: Survey, place: int) -> str:
    return "the end" if place == END_INDEX else f"'{survey.steps[place].id}'"


def _format_value(answer: Answer) -> str:
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
            return _join_options(values)


def _join_options(values: Sequence[str]) -> str:
    return " and ".join(f"'{value}'" for value in values) or "nothing"
