"""What would an upgrade change? Two versions of a survey, step by step, in words.

The compiled versions are compared, so that a difference is one of behaviour: a step that is put in changes where the
step before it leads, though nobody wrote that down.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from engine.answers import NO_MEDIA
from engine.surveys.program import (
    END_INDEX,
    QuestionStep,
    ReaskInvalid,
    ReminderRule,
    Route,
    StartKeywords,
    StatementStep,
    Survey,
)
from engine.surveys.texts import LocalizedText
from engine.surveys.wording import describe_condition, show_delay, show_duration, show_template


class FieldDifference(msgspec.Struct, frozen=True):
    """`field` is what authors call it. `was` and `now` say what it holds, "" for nothing; they are alike if words do
    not tell the difference."""

    field: str
    was: str
    now: str


class StepChange(msgspec.Struct, frozen=True):
    step: str
    kind: Literal["added", "removed", "changed"]
    differences: tuple[FieldDifference, ...] = ()


class SurveyDiff(msgspec.Struct, frozen=True):
    """Everything that differs: in the survey as a whole, and step by step in the order of the new version."""

    whole: tuple[FieldDifference, ...]
    steps: tuple[StepChange, ...]

    def __bool__(self) -> bool:
        return bool(self.whole or self.steps)


def diff_versions(old: Survey, new: Survey) -> SurveyDiff:
    """What differs between two versions of a survey. What comes of their other fields alone is left out."""
    return SurveyDiff(
        tuple(_field_differences(_header_fields(old), _header_fields(new))), tuple(_step_changes(old, new))
    )


class _ComparedField(NamedTuple):
    """One thing about a survey or a step: what is compared, and the words for it."""

    what: object
    words: str


_ComparedFields = dict[str, _ComparedField]


def _step_changes(old: Survey, new: Survey) -> Iterator[StepChange]:
    were = {step.id: _step_fields(old, step) for step in old.steps}
    are = {step.id: _step_fields(new, step) for step in new.steps}
    for step, facets in are.items():
        if step not in were:
            yield StepChange(step, "added")
        elif found := tuple(_field_differences(were[step], facets)):
            yield StepChange(step, "changed", found)
    yield from (StepChange(step, "removed") for step in were if step not in are)


def _field_differences(were: _ComparedFields, are: _ComparedFields) -> Iterator[FieldDifference]:
    nothing = _ComparedField(None, "")
    for field in dict.fromkeys((*were, *are)):
        was, now = were.get(field, nothing), are.get(field, nothing)
        if was.what != now.what:
            yield FieldDifference(field, was.words, now.words)


def _header_fields(survey: Survey) -> _ComparedFields:
    """The survey as a whole. A field of Survey that is not known here is compared, and shown as it is."""
    apart = ("name", "version", "source", "file", "steps", "start", "texts", "variables", "durations")
    facets = {
        field.removesuffix("_ms"): _header_field(survey, field, getattr(survey, field))
        for field in Survey.__struct_fields__
        if field not in apart
    }
    facets["start"] = _ComparedField(_comparable_value(survey.start), _list_keywords(survey.start))
    for name, text in survey.texts.items():
        facets |= _text_fields(f"texts.{name}", text, survey)
    return facets


def _header_field(survey: Survey, name: str, value: object) -> _ComparedField:
    match value:
        case tuple():
            return _ComparedField(value, ", ".join(map(str, value)))
        case int(ms) if name.endswith("_ms"):
            return _ComparedField(value, show_duration(survey, name.removesuffix("_ms"), ms))
        case _:
            return _ComparedField(value, _format_scalar(value))


def _step_fields(survey: Survey, step: StatementStep | QuestionStep) -> _ComparedFields:
    """What a step is made of, as authors call it; where it leads, by the ids of steps."""
    facets = _text_fields("ask" if isinstance(step, QuestionStep) else "say", step.text, survey)
    if isinstance(step, QuestionStep):
        facets["answer"] = _ComparedField(_comparable_value(step.reader), step.reader.describe_answers())
        facets |= _invalid_fields(step, survey)
        if step.remind is not None:
            facets |= _reminder_fields(step.remind, survey)
    routes = [
        (_comparable_value(route.when), _step_id(survey, route.go), route.times) for route in step.routes
    ]
    facets["next"] = _ComparedField(
        routes, "; ".join(_describe_route(survey, step.id, route) for route in step.routes)
    )
    return facets


def _invalid_fields(step: QuestionStep, survey: Survey) -> _ComparedFields:
    """What is said to an invalid answer, whatever is wrong with it, before the question is asked again."""
    if not isinstance(step.invalid, ReaskInvalid):
        return {"invalid": _ComparedField("none", "none")}
    asked = _text_fields("invalid", step.text, survey)
    said: dict[str, dict[str, None]] = {}
    complaints = [
        text for why, text in step.invalid.texts.items() if why != NO_MEDIA
    ]  # that is a field of its own
    for text in complaints:
        for field, facet in _text_fields("invalid", text, survey).items():
            said.setdefault(field, {})[facet.words.removesuffix(asked[field].words).strip()] = None
    facets = {field: _ComparedField(tuple(words), " / ".join(words)) for field, words in said.items()}
    facets["attempts"] = _ComparedField(step.invalid.attempts, str(step.invalid.attempts))
    if step.invalid.give_up is not None:
        give_up = _step_id(survey, step.invalid.give_up)
        facets["give_up"] = _ComparedField(give_up, give_up)
    return facets


def _reminder_fields(remind: ReminderRule, survey: Survey) -> _ComparedFields:
    when = f"after {show_delay(remind)}" + (f", {remind.times} times" if remind.times > 1 else "")
    compared = _ComparedField((remind.after_ms, remind.times), when)
    return {"remind": compared} | _text_fields("remind text", remind.text, survey)


def _describe_route(survey: Survey, step: str, route: Route) -> str:
    go = _step_id(survey, route.go)
    when = "" if route.when is None else f" if {describe_condition(route.when, step)}"
    return go + when + ("" if route.times is None else f", {route.times} times at most")


def _step_id(survey: Survey, place: int) -> str:
    return "end" if place == END_INDEX else survey.steps[place].id


def _text_fields(field: str, text: LocalizedText, survey: Survey) -> _ComparedFields:
    """A text in each language, which is only named where there are several."""
    several = len(survey.languages) > 1
    return {
        f"{field} ({language})" if several else field: _ComparedField(
            _comparable_value(template), show_template(template)
        )
        for language, template in text.items()
    }


def _list_keywords(start: StartKeywords) -> str:
    anything = ["*"] if start.any_sms_language else []
    return ", ".join(
        [*sorted(start.words), *(_pattern_source(pattern) for pattern, _ in start.patterns), *anything]
    )


def _comparable_value(value: object) -> object:
    """`value` in values that are equal if they mean the same: patterns by their source."""
    match value:
        case msgspec.Struct():
            fields = {name: _comparable_value(getattr(value, name)) for name in value.__struct_fields__}
            return type(value).__name__, fields
        case Mapping():
            return {key: _comparable_value(each) for key, each in value.items()}
        case tuple() | list():
            return [_comparable_value(each) for each in value]
        case _ if hasattr(value, "fullmatch"):
            return _pattern_source(value)
        case _:
            return value


def _pattern_source(pattern: object) -> str:
    return str(getattr(pattern, "pattern", pattern))


def _format_scalar(value: object) -> str:
    return "none" if value is None else str(value)
