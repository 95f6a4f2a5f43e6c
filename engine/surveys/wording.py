"""Conditions in words, as a person reads them: on a drawing, in a finding, in the terminal."""

from collections.abc import Collection, Sequence
from typing import assert_never

from engine.answers.range_wording import show_number
from engine.answers.type_registry import bound_preposition
from engine.model.durations import survey_duration
from engine.model.patterns import CompiledPattern
from engine.surveys.conditions import (
    Above,
    AllOf,
    AnyOf,
    AtLeast,
    AtMost,
    AtomicCondition,
    Below,
    Condition,
    ContainsText,
    ContainsWord,
    IncludesOption,
    MatchesPattern,
    Not,
    OneOf,
    StepAnswered,
)
from engine.surveys.program import ReminderRule, Survey
from engine.surveys.texts import TextTemplate
from engine.surveys.variables import KEY_PATTERN, PUZZEL_KEYS, is_variable

_USUAL_SPELLINGS = {each.lower(): each for each in PUZZEL_KEYS}


def describe_condition(condition: Condition, about: str) -> str:
    """`condition` in words: "at least 95", "is yes", "'fever' is no and agentId is 7".

    `about` is the id of the step whose route it is; the words leave it out. Empty: they leave nothing out.
    """
    match condition:
        case AllOf(conditions):
            return _describe_combined(conditions, " and ", "always", about)
        case AnyOf(conditions):
            return _describe_combined(conditions, " or ", "never", about)
        case Not(condition=inner):
            return _describe_negated(inner, about)
        case _:
            return _describe_atom(condition, about, negated=False)


def show_pattern(pattern: CompiledPattern) -> str:
    """Its source between slashes."""
    return f"/{getattr(pattern, 'pattern', '...')}/"


def show_value(value: str | float | bool) -> str:
    """As an author would write it: yes, 7, 98.6, pizza, 'a few words'."""
    match value:
        case bool(yes):
            return "yes" if yes else "no"
        case str(text):
            return text if KEY_PATTERN.fullmatch(text) else f"'{text}'"
        case number:
            return show_number(number)


def show_step_or_variable(place: str) -> str:
    """Name the subject of a condition: a session variable by its key, a step by its id in quotes."""
    return _place_name(place) if is_variable(place) else f"'{place}'"


def _place_name(place: str) -> str:
    key = place.removeprefix("$")
    return _USUAL_SPELLINGS.get(key, key) if is_variable(place) else place


def show_duration(survey: Survey, field: str, ms: int) -> str:
    """`idle`, `expires`, `cooldown` or `keep` as the author wrote it; `ms` is how long that is."""
    return survey.durations.get(field) or survey_duration(ms)


def show_delay(remind: ReminderRule) -> str:
    """The silence before a reminder, as the author wrote it."""
    return remind.after or survey_duration(remind.after_ms)


def show_template(template: TextTemplate) -> str:
    """A text with its placeholders as an author writes them: `Thanks, {name}`."""
    if isinstance(template, str):
        return template
    return "".join(part if isinstance(part, str) else f"{{{_place_name(part.step)}}}" for part in template)


def _describe_combined(conditions: Sequence[Condition], joint: str, empty: str, about: str) -> str:
    if len(conditions) == 1:
        return describe_condition(conditions[0], about)
    return joint.join(_describe_bracketed(each, about) for each in conditions) or empty


def _describe_bracketed(condition: Condition, about: str) -> str:
    words = describe_condition(condition, about)
    return f"({words})" if isinstance(condition, AllOf | AnyOf) and len(condition.conditions) > 1 else words


def _describe_negated(condition: Condition, about: str) -> str:
    match condition:
        case AllOf() | AnyOf():
            return f"not ({describe_condition(condition, about)})"
        case Not(condition=inner):
            return describe_condition(inner, about)
        case _:
            return _describe_atom(condition, about, negated=True)


def _describe_atom(atom: AtomicCondition, about: str, *, negated: bool) -> str:
    words = _atom_predicate(atom, negated=negated)
    if atom.step != about:
        return f"{show_step_or_variable(atom.step)} {words}"
    return words if isinstance(atom, OneOf) else words.removeprefix("is ")


def _atom_predicate(atom: AtomicCondition, *, negated: bool) -> str:
    """What `atom` says of the place that it looks at."""
    be = "is not" if negated else "is"
    match atom:
        case AtLeast(bound=bound):
            return f"{be} {_bound_phrase('at least', 'or after', bound)}"
        case AtMost(bound=bound):
            return f"{be} {_bound_phrase('at most', 'or before', bound)}"
        case Above(bound=bound):
            return f"{be} {_bound_phrase('above', 'after', bound)}"
        case Below(bound=bound):
            return f"{be} {_bound_phrase('below', 'before', bound)}"
        case OneOf(values=values) if negated and len(values) > 1:
            return f"is none of {_list_values(values, 'and')}"
        case OneOf(values=values):
            return f"{be} {_list_values(values, 'or')}"
        case MatchesPattern(pattern=pattern):
            return f"{'does not match' if negated else 'matches'} {show_pattern(pattern)}"
        case ContainsText(words=words):
            quoted = [f"'{each}'" for each in words]
            return f"{'does not contain' if negated else 'contains'} {_join_words(quoted, 'or')}"
        case ContainsWord(words=words):
            quoted = [f"'{each}'" for each in words]
            told = _join_words(quoted, "or")
            return f"{'does not contain' if negated else 'contains'} the word {told}"
        case IncludesOption(options=options):
            return f"{'does not include' if negated else 'includes'} {_list_values(options, 'or')}"
        case StepAnswered():
            return f"{be} answered"
        case _:
            assert_never(atom)


def _bound_phrase(number: str, moment: str, bound: float | str) -> str:
    """A bound that is a day or a time takes other words than a number: "on or after 2030-01-02", "before 14:30"."""
    if not isinstance(bound, str):
        return f"{number} {show_number(bound)}"
    return f"{bound_preposition(bound)} {moment} {bound}" if moment.startswith("or ") else f"{moment} {bound}"


def _list_values(values: Collection[str | int | float | bool], last: str) -> str:
    """In an order of their own, as a set has none: numbers by size, then words by the alphabet."""
    ordered = sorted(values, key=lambda each: (isinstance(each, str), each))
    return _join_words([show_value(each) for each in ordered], last) if ordered else "nothing"


def _join_words(words: Sequence[str], last: str) -> str:
    """ "a, b or c", where `last` is "or"."""
    *before, final = words
    return f"{', '.join(before)} {last} {final}" if before else final
