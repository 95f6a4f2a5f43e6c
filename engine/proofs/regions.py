"""Which kinds of answers are there to a question, as far as the survey's conditions can tell them apart?

All answers in one region make the same conditions true. Numbers and dates fall into intervals between the bounds that
conditions name; options are told apart one by one; of free text only what conditions ask about is known. Regions are
found by trying answers where something changes, and are complete where it says so: no answer falls outside.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from itertools import chain, combinations, pairwise, product
from math import ulp
from typing import assert_never

import msgspec

from engine.answers import (
    NO_WORDS,
    YES_WORDS,
    AnythingReader,
    ChoiceReader,
    ChoicesReader,
    DateReader,
    InvalidAnswer,
    NumberReader,
    PhoneReader,
    PhpNumberReader,
    Reader,
    ScaleReader,
    TextReader,
    YesNoReader,
    read_answer,
)
from engine.model.events import Answer
from engine.surveys.conditions import (
    Above,
    AllOf,
    AnyOf,
    AtLeast,
    AtMost,
    AtomicCondition,
    Below,
    Condition,
    ContainsWord,
    IncludesOption,
    MatchesPattern,
    Not,
    OneOf,
    StepAnswered,
    condition_holds,
)
from engine.surveys.program import QuestionStep, Survey
from engine.surveys.variables import (
    MESSAGES_KEY,
    MOST_COUNTED_MESSAGES,
    NUMBER_KEY,
    is_variable,
    read_variable,
)

PROOF_DAY = date(2030, 6, 15)
"""The day on which conversations are tried out."""

FILLER = "\U0001e8d0"
"""A combining character that costs as much as a character can, and that folding removes."""

_MAX_FREE_ATOMS = 5
"""Of so many conditions about one free text, every combination is looked at; of more, none is known."""

_MAX_VARIED_OPTIONS = 10

_COSTLY_CHARACTERS = ("😀", "\U00010428", "я", "€", "x", "1")
"""Characters of different kinds, the dearest first: an emoji, a letter beyond the BMP, one of another script."""

_EXACT_CONTEXT = Context(prec=700)
"""Holds every float to ten decimals."""

_LARGEST_FLOAT = 1e308

LONGEST_CHANNEL_NUMBER = "+999999999999999"
"""A number that a channel might have."""

_PHONE_NUMBER = re.compile(r"\+?[0-9]{3,15}")

_VARIABLE_DECIMALS = 6
"""With more of them, a variable is no number."""


class AnswerRegion(msgspec.Struct, frozen=True):
    """Answers that make the atoms `true` hold and no others.

    `sms` is read as one of them, `answer`; None, if there may be such answers but none is known.
    """

    true: frozenset[AtomicCondition]
    answer: Answer | None = None
    sms: str | None = None


UNANSWERED = AnswerRegion(frozenset())


class RegionSet(msgspec.Struct, frozen=True):
    """Those of one place (a step's id or a variable's). `known`: its `atoms` are exactly told apart by them."""

    atoms: tuple[AtomicCondition, ...]
    every: tuple[AnswerRegion, ...]
    known: bool


def regions_of(survey: Survey) -> dict[str, RegionSet]:
    """The regions of every question's answers, and of every variable that a condition names."""
    atoms: dict[str, dict[AtomicCondition, None]] = {}
    for step in survey.steps:
        for route in step.routes:
            for atom in atoms_of(route.when):
                atoms.setdefault(atom.step, {})[atom] = None
    places = {step.id: step.reader for step in survey.steps if isinstance(step, QuestionStep)}
    found = {place: _answer_regions(reader, tuple(atoms.get(place, ()))) for place, reader in places.items()}
    return found | {
        place: _variable_regions(place, tuple(of), survey.variables[place[1:]])
        for place, of in atoms.items()
        if is_variable(place)
    }


def atoms_of(condition: Condition | None) -> Iterator[AtomicCondition]:
    match condition:
        case None:
            return
        case AllOf(conditions) | AnyOf(conditions):
            for each in conditions:
                yield from atoms_of(each)
        case Not(condition=inner):
            yield from atoms_of(inner)
        case _:
            yield condition


def may_hold(
    condition: Condition | None, answers: Mapping[str, AnswerRegion], regions: Mapping[str, RegionSet]
) -> bool | None:
    """Does the condition hold for answers in these regions? None: it may. A place not in `answers` may be anything."""
    match condition:
        case None:
            return True
        case AllOf(conditions):
            held = [may_hold(each, answers, regions) for each in conditions]
            return False if False in held else None if None in held else True
        case AnyOf(conditions):
            held = [may_hold(each, answers, regions) for each in conditions]
            return True if True in held else None if None in held else False
        case Not(condition=inner):
            return None if (held_inside := may_hold(inner, answers, regions)) is None else not held_inside
        case _:
            region = answers.get(condition.step)
            if region is None or (region is not UNANSWERED and not _regions_known(regions, condition.step)):
                return None
            return condition in region.true


def _regions_known(regions: Mapping[str, RegionSet], place: str) -> bool:
    return place in regions and regions[place].known


def _answer_regions(reader: Reader, atoms: tuple[AtomicCondition, ...]) -> RegionSet:
    tried: dict[frozenset[AtomicCondition], AnswerRegion] = {}
    for sms in _candidate_texts(reader, atoms):
        answer = read_answer(reader, sms, lambda: PROOF_DAY)
        if not isinstance(answer, InvalidAnswer):
            region = AnswerRegion(_true_atoms(atoms, answer), answer, sms)
            tried.setdefault(_region_key(reader, region), region)
    every = [*tried.values(), *_untried_regions(reader, atoms, {each.true for each in tried.values()})]
    return RegionSet(atoms, tuple(every), len(atoms) <= _MAX_FREE_ATOMS or _is_complete(reader, atoms))


def _region_key(reader: Reader, region: AnswerRegion) -> frozenset[AtomicCondition]:
    """Options are kept apart even where conditions don't, as texts show which it was."""
    if isinstance(reader, (ChoiceReader, YesNoReader)) and region.answer is not None:
        return region.true | {OneOf("", frozenset([str(region.answer.value)]))}
    return region.true


def _true_atoms(atoms: Iterable[AtomicCondition], answer: Answer) -> frozenset[AtomicCondition]:
    return frozenset(atom for atom in atoms if condition_holds(atom, {atom.step: answer}))


def _is_complete(reader: Reader, atoms: Sequence[AtomicCondition]) -> bool:
    """Do the candidates reach every combination of conditions that any answer makes true?"""
    match reader:
        case TextReader(pattern=pattern):
            return all(isinstance(atom, (OneOf, StepAnswered)) for atom in atoms) and pattern is None
        case PhoneReader():
            return all(isinstance(atom, StepAnswered) for atom in atoms)
        case DateReader():
            return "today" not in (reader.min, reader.max) and _are_ordered(atoms)
        case NumberReader() | ScaleReader() | PhpNumberReader():
            return _are_ordered(atoms)
        case ChoicesReader():
            return len(_named_options(atoms)) <= _MAX_VARIED_OPTIONS and not any(
                isinstance(atom, MatchesPattern) for atom in atoms
            )
        case YesNoReader():  # what was written is matched, not what it means
            return not any(isinstance(atom, (MatchesPattern, ContainsWord)) for atom in atoms)
        case ChoiceReader():
            return True
        case AnythingReader():
            return not atoms
        case _:
            assert_never(reader)


def _are_ordered(atoms: Iterable[AtomicCondition]) -> bool:
    return not any(isinstance(atom, (MatchesPattern, ContainsWord)) for atom in atoms)


def _untried_regions(
    reader: Reader, atoms: Sequence[AtomicCondition], tried: set[frozenset[AtomicCondition]]
) -> Iterator[AnswerRegion]:
    """Every other combination of conditions, where one that was not met may exist all the same."""
    if _is_complete(reader, atoms):
        return
    if len(atoms) > _MAX_FREE_ATOMS:
        if not tried:  # somebody can answer, though we don't know how
            yield AnswerRegion(frozenset())
        return
    for flags in product((False, True), repeat=len(atoms)):
        true = frozenset(atom for atom, flag in zip(atoms, flags, strict=True) if flag)
        if true not in tried and _is_thinkable(atoms, true):
            yield AnswerRegion(true)


def _is_thinkable(atoms: Sequence[AtomicCondition], true: frozenset[AtomicCondition]) -> bool:
    """Not if the answer were to equal two values, or were not answered at all."""
    equal = [atom.values for atom in true if isinstance(atom, OneOf)]
    return (not equal or bool(frozenset.intersection(*equal))) and all(
        atom in true for atom in atoms if isinstance(atom, StepAnswered)
    )


# -- candidates


def _candidate_texts(reader: Reader, atoms: Sequence[AtomicCondition]) -> Iterable[str]:
    """SMS that between them are read into every region, as far as can be known. The dearest of a kind come first."""
    match reader:
        case TextReader():
            return _text_candidates(reader, atoms)
        case NumberReader(min=low, max=high, decimals=decimals):
            return map(_format_decimal, _number_candidates(atoms, (low, high), decimals))
        case ScaleReader(low=low, high=high):
            return sorted(
                map(_format_decimal, _number_candidates(atoms, (low, high), 0)), key=len, reverse=True
            )
        case PhpNumberReader():
            return map(_format_decimal, _number_candidates(atoms, (), None))
        case YesNoReader():
            return (
                "no",
                "yes",
                *sorted(reader.no),
                *sorted(reader.yes),
                *sorted(NO_WORDS),
                *sorted(YES_WORDS),
            )
        case ChoiceReader(ids=ids):
            return map(str, range(1, len(ids) + 1))
        case ChoicesReader():
            return _selection_candidates(reader, atoms)
        case DateReader():
            return _date_candidates(reader, atoms)
        case PhoneReader():
            return ("+33612345678", *map(str, _compared_values(atoms)))
        case AnythingReader():
            return ("x",)
        case _:
            assert_never(reader)


def _text_candidates(reader: TextReader, atoms: Sequence[AtomicCondition]) -> Iterator[str]:
    """The longest there are, then what conditions look for, alone and filled up to the longest."""
    yield from (c * reader.max for c in _COSTLY_CHARACTERS)
    looked_for = [
        *map(str, _compared_values(atoms)),
        *_contained_words(atoms),
        *_pattern_samples(reader, atoms),
    ]
    for each in looked_for:
        yield each + FILLER * (reader.max - len(each))
        yield each
    yield "x"
    yield "1" * max(1, reader.min)


def _contained_words(atoms: Iterable[AtomicCondition]) -> Iterator[str]:
    return chain.from_iterable(atom.words for atom in atoms if isinstance(atom, ContainsWord))


def _pattern_samples(reader: TextReader, atoms: Iterable[AtomicCondition]) -> Iterator[str]:
    """Texts that patterns are likely to match: each pattern itself, stripped of its punctuation."""
    patterns = [atom.pattern for atom in atoms if isinstance(atom, MatchesPattern)]
    for pattern in (*patterns, *([reader.pattern] if reader.pattern is not None else ())):
        source = str(getattr(pattern, "pattern", ""))
        yield from source.strip("^$").split("|")
        yield "".join(c for c in source if c.isalnum() or c == " ")


def _compared_values(atoms: Iterable[AtomicCondition]) -> Iterator[str | float | bool]:
    return chain.from_iterable(sorted(atom.values, key=str) for atom in atoms if isinstance(atom, OneOf))


def _format_decimal(number: Decimal) -> str:
    return f"{number.normalize(_EXACT_CONTEXT):f}"


def _boundary_values(atoms: Iterable[AtomicCondition]) -> Iterator[str | float]:
    """Where a condition begins or ceases to hold."""
    for atom in atoms:
        match atom:
            case AtLeast(bound=bound) | AtMost(bound=bound) | Above(bound=bound) | Below(bound=bound):
                yield bound
            case OneOf(values=values):
                yield from sorted((value for value in values if not isinstance(value, bool)), key=str)
            case _:
                pass


def _number_candidates(
    atoms: Sequence[AtomicCondition], limits: Iterable[float | None], decimals: int | None
) -> Iterator[Decimal]:
    """Numbers of so many decimals at, between and beyond the points where something changes."""
    bounds = (*_boundary_values(atoms), *(limit for limit in limits if limit is not None))
    points = sorted(
        {
            Decimal(str(point))
            for point in bounds
            if isinstance(point, (int, float)) and -_LARGEST_FLOAT <= point <= _LARGEST_FLOAT
        }
    )
    unit = Decimal(1).scaleb(-decimals) if decimals is not None else Decimal("0.0000000001")
    for point in points:
        low = point.quantize(unit, ROUND_FLOOR, _EXACT_CONTEXT)
        high = point.quantize(unit, ROUND_CEILING, _EXACT_CONTEXT)
        step = max(
            unit, Decimal(ulp(float(point))).quantize(unit, ROUND_CEILING, _EXACT_CONTEXT)
        )  # the next float
        yield from (low, high, _EXACT_CONTEXT.subtract(low, step), _EXACT_CONTEXT.add(high, step))
        if decimals is None:
            yield point
    for one, other in pairwise(points):
        yield _EXACT_CONTEXT.divide(_EXACT_CONTEXT.add(one, other), Decimal(2)).quantize(
            unit, ROUND_FLOOR, _EXACT_CONTEXT
        )
    yield from (Decimal(0), Decimal(1))


def _date_candidates(reader: DateReader, atoms: Sequence[AtomicCondition]) -> Iterator[str]:
    limits = [day for each in (reader.min, reader.max) if each for day in _limit_days(each)]
    points = dict.fromkeys((*limits, *map(str, _boundary_values(atoms)), PROOF_DAY.isoformat()))
    for point in points:
        try:
            day = date.fromisoformat(point)
        except ValueError:
            continue
        for offset in (-1, 0, 1):
            if date.min.toordinal() <= day.toordinal() + offset <= date.max.toordinal():
                yield (day + timedelta(days=offset)).isoformat()


def _limit_days(limit: str) -> list[str]:
    """A limit as days; of today, days well away from it too, as a conversation can last beyond midnight."""
    if limit != "today":
        return [limit]
    return [(PROOF_DAY + timedelta(days=days)).isoformat() for days in (400, -400, 0)]


def _selection_candidates(reader: ChoicesReader, atoms: Sequence[AtomicCondition]) -> Iterator[str]:
    """The numbers of the options chosen, the most first; what conditions name is there or not, in every combination."""
    named = _named_options(atoms)
    varied = [place for place, each in enumerate(reader.ids) if each in named][:_MAX_VARIED_OPTIONS]
    length = {
        place: len(name) for name, place in sorted(reader.places.items(), key=lambda item: len(item[0]))
    }
    others = [place for place in range(len(reader.ids)) if place not in varied]
    others.sort(key=lambda place: length[place], reverse=True)
    for size in range(len(varied), -1, -1):
        for chosen in combinations(varied, size):
            for more in {
                min(len(others), max(0, reader.most - size)),
                min(len(others), max(0, reader.least - size)),
            }:
                yield " ".join(str(place + 1) for place in sorted((*chosen, *others[:more])))


def _named_options(atoms: Iterable[AtomicCondition]) -> set[str]:
    return {each for atom in atoms if isinstance(atom, IncludesOption) for each in atom.options} | {
        str(value) for value in _compared_values(atoms)
    }


def _variable_regions(place: str, atoms: tuple[AtomicCondition, ...], longest: int) -> RegionSet:
    """What an inviter tells may be anything, or not there at all. What Parley tells is always there, but for names."""
    if place == MESSAGES_KEY:
        counts = {
            int(each)
            for each in _number_candidates(atoms, (0, MOST_COUNTED_MESSAGES), 0)
            if 0 <= each <= MOST_COUNTED_MESSAGES
        }
        return _regions_of_texts(atoms, map(str, sorted(counts, reverse=True)), [])
    values = [str(int(each)) if isinstance(each, float) else str(each) for each in _compared_values(atoms)]
    if place == NUMBER_KEY:
        return _regions_of_texts(
            atoms, filter(_PHONE_NUMBER.fullmatch, (*values, LONGEST_CHANNEL_NUMBER)), []
        )
    looked_for = [*map(str, _compared_values(atoms)), *_contained_words(atoms)]
    filled = (each + FILLER * (longest - len(each)) for each in looked_for)
    numbers = map(_format_decimal, _number_candidates(atoms, (), _VARIABLE_DECIMALS))
    return _regions_of_texts(atoms, (*filled, *looked_for, *numbers, "x"), [UNANSWERED])


def _regions_of_texts(
    atoms: tuple[AtomicCondition, ...], texts: Iterable[str], beside: Sequence[AnswerRegion]
) -> RegionSet:
    """The regions of a variable that holds one of `texts`, or what they stand for; `beside` are there besides."""
    tried: dict[frozenset[AtomicCondition], AnswerRegion] = {}
    for text in texts:
        answer = read_variable(text)
        region = AnswerRegion(_true_atoms(atoms, answer), answer, text)
        tried.setdefault(region.true, region)
    free = any(isinstance(atom, (MatchesPattern, ContainsWord)) for atom in atoms)
    known = not free or len(atoms) <= _MAX_FREE_ATOMS
    if free and known:
        for flags in product((False, True), repeat=len(atoms)):
            true = frozenset(atom for atom, flag in zip(atoms, flags, strict=True) if flag)
            tried.setdefault(true, AnswerRegion(true))
    return RegionSet(atoms, (*beside, *tried.values()), known)
