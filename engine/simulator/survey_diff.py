"""What would an upgrade change? Two versions of a survey, step by step, in words.

The compiled versions are compared, so that a difference is one of behaviour: a step that is put in changes where the
step before it leads, though nobody wrote that down.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from engine.surveys.program import END, Ask, Keywords, Reask, Remind, Route, Say, Survey
from engine.surveys.texts import Template, Text
from engine.surveys.wording import describe, describe_reader


class Difference(msgspec.Struct, frozen=True):
    """`field` is what authors call it. `was` and `now` say what it holds, "" for nothing; they are alike if words do
    not tell the difference."""

    field: str
    was: str
    now: str


class StepChange(msgspec.Struct, frozen=True):
    step: str
    kind: Literal["added", "removed", "changed"]
    differences: tuple[Difference, ...] = ()


class Upgrade(msgspec.Struct, frozen=True):
    """Everything that differs: in the survey as a whole, and step by step in the order of the new version."""

    whole: tuple[Difference, ...]
    steps: tuple[StepChange, ...]

    def __bool__(self) -> bool:
        return bool(self.whole or self.steps)


def compare(old: Survey, new: Survey) -> Upgrade:
    """What differs between two versions of a survey. What comes of their other fields alone is left out."""
    return Upgrade(tuple(_differences(_whole(old), _whole(new))), tuple(_steps(old, new)))


class _Facet(NamedTuple):
    """One thing about a survey or a step: what is compared, and the words for it."""

    what: object
    words: str


_Facets = dict[str, _Facet]


def _steps(old: Survey, new: Survey) -> Iterator[StepChange]:
    were = {step.id: _facets(old, step) for step in old.steps}
    are = {step.id: _facets(new, step) for step in new.steps}
    for step, facets in are.items():
        if step not in were:
            yield StepChange(step, "added")
        elif found := tuple(_differences(were[step], facets)):
            yield StepChange(step, "changed", found)
    yield from (StepChange(step, "removed") for step in were if step not in are)


def _differences(were: _Facets, are: _Facets) -> Iterator[Difference]:
    nothing = _Facet(None, "")
    for field in dict.fromkeys((*were, *are)):
        was, now = were.get(field, nothing), are.get(field, nothing)
        if was.what != now.what:
            yield Difference(field, was.words, now.words)


def _whole(survey: Survey) -> _Facets:
    """The survey as a whole. A field of Survey that is not known here is compared, and shown as it is."""
    apart = ("name", "version", "source", "file", "steps", "start", "texts", "variables")
    facets = {
        field.removesuffix("_ms"): _field(field, getattr(survey, field))
        for field in Survey.__struct_fields__
        if field not in apart
    }
    facets["start"] = _Facet(_plain(survey.start), _keywords(survey.start))
    for name, text in survey.texts.items():
        facets |= _texts(f"texts.{name}", text, survey)
    return facets


def _field(name: str, value: object) -> _Facet:
    if isinstance(value, tuple):
        return _Facet(value, ", ".join(map(str, value)))
    return _Facet(value, _time(value) if name.endswith("_ms") and isinstance(value, int) else _word(value))


def _facets(survey: Survey, step: Say | Ask) -> _Facets:
    """What a step is made of, as authors call it; where it leads, by the ids of steps."""
    facets = _texts("ask" if isinstance(step, Ask) else "say", step.text, survey)
    if isinstance(step, Ask):
        facets["answer"] = _Facet(_plain(step.reader), describe_reader(step.reader))
        facets |= _invalid(step, survey)
        if step.remind is not None:
            facets |= _remind(step.remind, survey)
    routes = [(_plain(route.when), _id(survey, route.go), route.times) for route in step.routes]
    facets["next"] = _Facet(routes, "; ".join(_route(survey, step.id, route) for route in step.routes))
    return facets


def _invalid(step: Ask, survey: Survey) -> _Facets:
    """What is said to an invalid answer, whatever is wrong with it, before the question is asked again."""
    if not isinstance(step.invalid, Reask):
        return {"invalid": _Facet("none", "none")}
    asked = _texts("invalid", step.text, survey)
    said: dict[str, dict[str, None]] = {}
    for text in step.invalid.texts.values():
        for field, facet in _texts("invalid", text, survey).items():
            said.setdefault(field, {})[facet.words.removesuffix(asked[field].words).strip()] = None
    facets = {field: _Facet(tuple(words), " / ".join(words)) for field, words in said.items()}
    facets["attempts"] = _Facet(step.invalid.attempts, str(step.invalid.attempts))
    if step.invalid.give_up is not None:
        give_up = _id(survey, step.invalid.give_up)
        facets["give_up"] = _Facet(give_up, give_up)
    return facets


def _remind(remind: Remind, survey: Survey) -> _Facets:
    when = f"after {_time(remind.after_ms)}" + (f", {remind.times} times" if remind.times > 1 else "")
    return {"remind": _Facet(when, when)} | _texts("remind text", remind.text, survey)


def _route(survey: Survey, step: str, route: Route) -> str:
    go = _id(survey, route.go)
    when = "" if route.when is None else f" if {describe(route.when, step)}"
    return go + when + ("" if route.times is None else f", {route.times} times at most")


def _id(survey: Survey, place: int) -> str:
    return "end" if place == END else survey.steps[place].id


def _texts(field: str, text: Text, survey: Survey) -> _Facets:
    """A text in each language, which is only named where there are several."""
    several = len(survey.languages) > 1
    return {
        f"{field} ({language})" if several else field: _Facet(_plain(template), _template(template))
        for language, template in text.items()
    }


def _template(template: Template) -> str:
    if isinstance(template, str):
        return template
    return "".join(part if isinstance(part, str) else f"{{{part.step}}}" for part in template)


def _keywords(start: Keywords) -> str:
    anything = ["*"] if start.anything else []
    return ", ".join([*sorted(start.words), *(_source(pattern) for pattern, _ in start.patterns), *anything])


def _plain(value: object) -> object:
    """`value` in values that are equal if they mean the same: patterns by their source."""
    match value:
        case msgspec.Struct():
            fields = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
            return type(value).__name__, fields
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case tuple() | list():
            return [_plain(each) for each in value]
        case _ if hasattr(value, "fullmatch"):
            return _source(value)
        case _:
            return value


def _source(pattern: object) -> str:
    return str(getattr(pattern, "pattern", pattern))


_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))


def _time(ms: int) -> str:
    """As authors write it: 90 minutes are 90m."""
    unit_ms, unit = next((each for each in _UNITS if ms and ms % each[0] == 0), (1_000, "s"))
    return f"{ms / unit_ms:g}{unit}"


def _word(value: object) -> str:
    return "none" if value is None else str(value)
