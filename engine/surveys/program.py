"""A survey, compiled: what `advance` runs, and what is drawn and proved about.

Steps are known by their index, routes and texts are resolved; nothing is looked up by name in a turn.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from engine.answers import NO_MEDIA, AnswerReader, InvalidReason
from engine.model.events import Answer, InboundSms
from engine.model.patterns import CompiledPattern
from engine.surveys.conditions import Condition, condition_holds
from engine.surveys.texts import LocalizedText

END_INDEX = -1
"""The index that a route gives when the session is to end."""

MidSessionStart = Literal["ignore", "answer", "restart"]
"""What a START does to a session that is open already."""

FixedText = Literal[
    "completed",
    "gave_up",
    "unavailable",
    "not_found",
    "expired",
    "refused",
    "stopped",
    "help",
    "opted_in",
    "no_media",
]


class Route(msgspec.Struct, frozen=True):
    """Taken if `when` holds; always, if there is none. `go` is a step's index, or END.

    A session takes it at most `times` times (None: as often as it comes by), which it counts under `counter`. One that
    is `implied` is not written: it leads on where every written route may be closed.
    """

    when: Condition | None
    go: int
    times: int | None = None
    counter: int = -1
    implied: bool = False


class ReaskInvalid(msgspec.Struct, frozen=True):
    """After an invalid answer, send its `texts` and ask again; the `attempts`-th leads to the step `give_up`,
    or ends the session (None) with the fixed text `gave_up`. `texts` are by reason, one for each that the reader may give, and
    one for NO_MEDIA if the survey has a text for that and the reader takes no empty SMS."""

    texts: Mapping[InvalidReason, LocalizedText]
    attempts: int
    give_up: int | None = None


class IgnoreInvalid(msgspec.Struct, frozen=True):
    """An invalid answer changes nothing and is not told so."""


class ReminderRule(msgspec.Struct, frozen=True):
    """`after` is `after_ms` as the author wrote it, such as 90m."""

    after_ms: int
    times: int
    text: LocalizedText
    after: str = ""


class StatementStep(msgspec.Struct, frozen=True):
    """Sent, and the session goes on at once. The last of `routes` has no condition."""

    id: str
    text: LocalizedText
    routes: tuple[Route, ...]


class QuestionStep(msgspec.Struct, frozen=True):
    """Sent, and the session waits for an answer, which is of `answer_type` (the survey file's word). The last of `routes`
    has no condition."""

    id: str
    text: LocalizedText
    reader: AnswerReader
    invalid: ReaskInvalid | IgnoreInvalid
    routes: tuple[Route, ...]
    remind: ReminderRule | None = None
    answer_type: str = ""


SurveyStep = StatementStep | QuestionStep


_IMPLAUSIBLE_TEXTS = ("xqzjkvwx", "xqzj 7 kvwx, qjxz!")
"""Texts that no person writes: a pattern that matches one of them matches anything."""


class StartKeywords(msgspec.Struct, frozen=True):
    """What starts a survey, and in which language: folded words, and patterns that match all of a folded SMS.

    `any_sms_language` is the language in which an SMS starts it that nothing else is waiting for; empty: none does.
    """

    words: Mapping[str, str]
    patterns: tuple[tuple[CompiledPattern, str], ...] = ()
    any_sms_language: str = ""

    @property
    def languages(self) -> set[str]:
        """Those in which it starts."""
        of_patterns = {language for _, language in self.patterns}
        return {*self.words.values(), *of_patterns} | (
            {self.any_sms_language} if self.any_sms_language else set()
        )

    def match_language(self, folded: str, word: str) -> str | None:
        """The keyword's language, None if there is no such keyword. `word` is `folded` without the punctuation at
        its ends."""
        for spelling in (folded, word):
            if spelling in self.words:
                return self.words[spelling]
        spellings = (folded,) if folded == word else (folded, word)
        for pattern, language in self.patterns:
            if any(pattern.fullmatch(each) is not None for each in spellings):
                return language
        return None

    def names_survey(self, folded: str, word: str) -> bool:
        """Is an SMS that matches one that names the survey, and not just any SMS, which starts it too?"""
        if folded in self.words or word in self.words:
            return True
        return all(self.match_language(text, text) is None for text in _IMPLAUSIBLE_TEXTS)


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a survey.

    `source` is the file's content, `file` its name, `version` the hash of `source` as 16 hex digits. `idle_ms` is
    None where no silence ends a session. `most_sms` ends a session that has sent so many; None: its steps do.
    `variables` are the session variables that the texts and conditions know, in lower case, and how long their values
    can get, in characters; `told` are the places of those that Parley tells by itself (engine.surveys.variables.BUILTIN_VARIABLES).
    `keep_ms` is how long what was said is kept once a session is over; None: as long as the deployment keeps
    everything. `lenient`: what would be an error elsewhere is a warning. `durations` are `idle`, `expires`, `cooldown` and
    `keep` as the author wrote them, such as 24h.
    """

    name: str
    version: str
    source: bytes
    file: str
    title: str
    languages: tuple[str, ...]
    start: StartKeywords
    idle_ms: int | None
    expires_ms: int
    cooldown_ms: int
    again: MidSessionStart
    most_sms: int | None
    texts: Mapping[FixedText, LocalizedText]
    steps: tuple[SurveyStep, ...]
    variables: Mapping[str, int] = {}
    told: frozenset[str] = frozenset()
    keep_ms: int | None = None
    lenient: bool = False
    durations: Mapping[str, str] = {}


def choose_route(routes: Sequence[Route], answers: Mapping[str, Answer], taken: Mapping[int, int]) -> Route:
    """The first route that is open. `taken` counts those that may be taken a number of times only."""
    for route in routes:
        if (route.times is None or taken.get(route.counter, 0) < route.times) and (
            route.when is None or condition_holds(route.when, answers)
        ):
            return route
    raise AssertionError("the last route has no condition and no count")


def reask_texts(step: SurveyStep) -> list[LocalizedText]:
    """The different texts that an invalid answer to the step can be told; none, if the first one is the last."""
    if (
        not isinstance(step, QuestionStep)
        or not isinstance(step.invalid, ReaskInvalid)
        or step.invalid.attempts == 1
    ):
        return []
    return list({id(text): text for text in step.invalid.texts.values()}.values())


def rejection_reason(step: QuestionStep, sms: InboundSms, read: InvalidReason) -> InvalidReason:
    """Return why the SMS is no answer to the step, of which the reader says `read`: one that is nothing but attachments is told
    so, if the survey has a text for that."""
    only_media = bool(sms.attachments) and not sms.text.strip()
    told = only_media and isinstance(step.invalid, ReaskInvalid) and NO_MEDIA in step.invalid.texts
    return NO_MEDIA if told else read


def successor_indexes(step: SurveyStep) -> list[int]:
    """Every index that may follow `step`, END included."""
    went = [route.go for route in step.routes]
    if isinstance(step, QuestionStep) and isinstance(step.invalid, ReaskInvalid):
        went.append(END_INDEX if step.invalid.give_up is None else step.invalid.give_up)
    return went
