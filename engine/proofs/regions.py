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
    NO,
    YES,
    AnythingReader,
    ChoiceReader,
    ChoicesReader,
    DateReader,
    NumberReader,
    PhoneReader,
    PhpNumberReader,
    Reader,
    ScaleReader,
    TextReader,
    Unread,
    YesNoReader,
    read,
)
from engine.model.events import Answer
from engine.surveys.conditions import (
    Above,
    All,
    Answered,
    Any,
    AtLeast,
    AtMost,
    Atom,
    Below,
    Condition,
    Contains,
    Includes,
    Matches,
    Not,
    OneOf,
    holds,
)
from engine.surveys.program import Ask, Survey
from engine.surveys.variables import MESSAGES, MOST_MESSAGES, NUMBER, is_variable, read_variable

TODAY = date(2030, 6, 15)
"""The day on which conversations are tried out."""

FILLER = "\U0001e8d0"
"""A combining character that costs as much as a character can, and that folding removes."""

_FREE = 5
"""Of so many conditions about one free text, every combination is looked at; of more, none is known."""

_MANY_OPTIONS = 10

_DEAR = ("😀", "\U00010428", "я", "€", "x", "1")
"""Characters of different kinds, the dearest first: an emoji, a letter beyond the BMP, one of another script."""

_EXACT = Context(prec=700)
"""Holds every float to ten decimals."""

_LARGEST = 1e308

LONGEST_NUMBER = "+999999999999999"
"""A number that a channel might have."""

_A_NUMBER = re.compile(r"\+?[0-9]{3,15}")

_VARIABLE_DECIMALS = 6
"""With more of them, a variable is no number."""


class Region(msgspec.Struct, frozen=True):
    """Answers that make the atoms `true` hold and no others.

    `sms` is read as one of them, `answer`; None, if there may be such answers but none is known.
    """

    true: frozenset[Atom]
    answer: Answer | None = None
    sms: str | None = None


UNANSWERED = Region(frozenset())


class Regions(msgspec.Struct, frozen=True):
    """Those of one place (a step's id or a variable's). `known`: its `atoms` are exactly told apart by them."""

    atoms: tuple[Atom, ...]
    every: tuple[Region, ...]
    known: bool


def regions_of(survey: Survey) -> dict[str, Regions]:
    """The regions of every question's answers, and of every variable that a condition names."""
    atoms: dict[str, dict[Atom, None]] = {}
    for step in survey.steps:
        for route in step.routes:
            for atom in atoms_of(route.when):
                atoms.setdefault(atom.step, {})[atom] = None
    places = {step.id: step.reader for step in survey.steps if isinstance(step, Ask)}
    found = {place: _regions(reader, tuple(atoms.get(place, ()))) for place, reader in places.items()}
    return found | {
        place: _of_variable(place, tuple(of), survey.variables[place[1:]])
        for place, of in atoms.items()
        if is_variable(place)
    }


def atoms_of(condition: Condition | None) -> Iterator[Atom]:
    match condition:
        case None:
            return
        case All(conditions) | Any(conditions):
            for each in conditions:
                yield from atoms_of(each)
        case Not(condition=inner):
            yield from atoms_of(inner)
        case _:
            yield condition


def may_hold(
    condition: Condition | None, answers: Mapping[str, Region], regions: Mapping[str, Regions]
) -> bool | None:
    """Does the condition hold for answers in these regions? None: it may. A place not in `answers` may be anything."""
    match condition:
        case None:
            return True
        case All(conditions):
            held = [may_hold(each, answers, regions) for each in conditions]
            return False if False in held else None if None in held else True
        case Any(conditions):
            held = [may_hold(each, answers, regions) for each in conditions]
            return True if True in held else None if None in held else False
        case Not(condition=inner):
            return None if (held_inside := may_hold(inner, answers, regions)) is None else not held_inside
        case _:
            region = answers.get(condition.step)
            if region is None or (region is not UNANSWERED and not _tells(regions, condition.step)):
                return None
            return condition in region.true


def _tells(regions: Mapping[str, Regions], place: str) -> bool:
    return place in regions and regions[place].known


def _regions(reader: Reader, atoms: tuple[Atom, ...]) -> Regions:
    tried: dict[frozenset[Atom], Region] = {}
    for sms in _candidates(reader, atoms):
        answer = read(reader, sms, lambda: TODAY)
        if not isinstance(answer, Unread):
            region = Region(_true(atoms, answer), answer, sms)
            tried.setdefault(_kind(reader, region), region)
    every = [*tried.values(), *_untried(reader, atoms, {each.true for each in tried.values()})]
    return Regions(atoms, tuple(every), len(atoms) <= _FREE or _is_complete(reader, atoms))


def _kind(reader: Reader, region: Region) -> frozenset[Atom]:
    """Options are kept apart even where conditions don't, as texts show which it was."""
    if isinstance(reader, (ChoiceReader, YesNoReader)) and region.answer is not None:
        return region.true | {OneOf("", frozenset([str(region.answer.value)]))}
    return region.true


def _true(atoms: Iterable[Atom], answer: Answer) -> frozenset[Atom]:
    return frozenset(atom for atom in atoms if holds(atom, {atom.step: answer}))


def _is_complete(reader: Reader, atoms: Sequence[Atom]) -> bool:
    """Do the candidates reach every combination of conditions that any answer makes true?"""
    match reader:
        case TextReader(pattern=pattern):
            return all(isinstance(atom, (OneOf, Answered)) for atom in atoms) and pattern is None
        case PhoneReader():
            return all(isinstance(atom, Answered) for atom in atoms)
        case DateReader():
            return "today" not in (reader.min, reader.max) and _are_ordered(atoms)
        case NumberReader() | ScaleReader() | PhpNumberReader():
            return _are_ordered(atoms)
        case ChoicesReader():
            return len(_named(atoms)) <= _MANY_OPTIONS and not any(
                isinstance(atom, Matches) for atom in atoms
            )
        case YesNoReader():  # what was written is matched, not what it means
            return not any(isinstance(atom, (Matches, Contains)) for atom in atoms)
        case ChoiceReader():
            return True
        case AnythingReader():
            return not atoms
        case _:
            assert_never(reader)


def _are_ordered(atoms: Iterable[Atom]) -> bool:
    return not any(isinstance(atom, (Matches, Contains)) for atom in atoms)


def _untried(reader: Reader, atoms: Sequence[Atom], tried: set[frozenset[Atom]]) -> Iterator[Region]:
    """Every other combination of conditions, where one that was not met may exist all the same."""
    if _is_complete(reader, atoms):
        return
    if len(atoms) > _FREE:
        if not tried:  # somebody can answer, though we don't know how
            yield Region(frozenset())
        return
    for flags in product((False, True), repeat=len(atoms)):
        true = frozenset(atom for atom, flag in zip(atoms, flags, strict=True) if flag)
        if true not in tried and _is_thinkable(atoms, true):
            yield Region(true)


def _is_thinkable(atoms: Sequence[Atom], true: frozenset[Atom]) -> bool:
    """Not if the answer were to equal two values, or were not answered at all."""
    equal = [atom.values for atom in true if isinstance(atom, OneOf)]
    return (not equal or bool(frozenset.intersection(*equal))) and all(
        atom in true for atom in atoms if isinstance(atom, Answered)
    )


# -- candidates


def _candidates(reader: Reader, atoms: Sequence[Atom]) -> Iterable[str]:
    """SMS that between them are read into every region, as far as can be known. The dearest of a kind come first."""
    match reader:
        case TextReader():
            return _texts(reader, atoms)
        case NumberReader(min=low, max=high, decimals=decimals):
            return map(_written, _numbers(atoms, (low, high), decimals))
        case ScaleReader(low=low, high=high):
            return sorted(map(_written, _numbers(atoms, (low, high), 0)), key=len, reverse=True)
        case PhpNumberReader():
            return map(_written, _numbers(atoms, (), None))
        case YesNoReader():
            return ("no", "yes", *sorted(reader.no), *sorted(reader.yes), *sorted(NO), *sorted(YES))
        case ChoiceReader(ids=ids):
            return map(str, range(1, len(ids) + 1))
        case ChoicesReader():
            return _selections(reader, atoms)
        case DateReader():
            return _dates(reader, atoms)
        case PhoneReader():
            return ("+33612345678", *map(str, _values(atoms)))
        case AnythingReader():
            return ("x",)
        case _:
            assert_never(reader)


def _texts(reader: TextReader, atoms: Sequence[Atom]) -> Iterator[str]:
    """The longest there are, then what conditions look for, alone and filled up to the longest."""
    yield from (c * reader.max for c in _DEAR)
    looked_for = [*map(str, _values(atoms)), *_contained(atoms), *_samples(reader, atoms)]
    for each in looked_for:
        yield each + FILLER * (reader.max - len(each))
        yield each
    yield "x"
    yield "1" * max(1, reader.min)


def _contained(atoms: Iterable[Atom]) -> Iterator[str]:
    return chain.from_iterable(atom.words for atom in atoms if isinstance(atom, Contains))


def _samples(reader: TextReader, atoms: Iterable[Atom]) -> Iterator[str]:
    """Texts that patterns are likely to match: each pattern itself, stripped of its punctuation."""
    patterns = [atom.pattern for atom in atoms if isinstance(atom, Matches)]
    for pattern in (*patterns, *([reader.pattern] if reader.pattern is not None else ())):
        source = str(getattr(pattern, "pattern", ""))
        yield from source.strip("^$").split("|")
        yield "".join(c for c in source if c.isalnum() or c == " ")


def _values(atoms: Iterable[Atom]) -> Iterator[str | float | bool]:
    return chain.from_iterable(sorted(atom.values, key=str) for atom in atoms if isinstance(atom, OneOf))


def _written(number: Decimal) -> str:
    return f"{number.normalize(_EXACT):f}"


def _points(atoms: Iterable[Atom]) -> Iterator[str | float]:
    """Where a condition begins or ceases to hold."""
    for atom in atoms:
        match atom:
            case AtLeast(bound=bound) | AtMost(bound=bound) | Above(bound=bound) | Below(bound=bound):
                yield bound
            case OneOf(values=values):
                yield from sorted((value for value in values if not isinstance(value, bool)), key=str)
            case _:
                pass


def _numbers(
    atoms: Sequence[Atom], limits: Iterable[float | None], decimals: int | None
) -> Iterator[Decimal]:
    """Numbers of so many decimals at, between and beyond the points where something changes."""
    bounds = (*_points(atoms), *(limit for limit in limits if limit is not None))
    points = sorted(
        {
            Decimal(str(point))
            for point in bounds
            if isinstance(point, (int, float)) and -_LARGEST <= point <= _LARGEST
        }
    )
    unit = Decimal(1).scaleb(-decimals) if decimals is not None else Decimal("0.0000000001")
    for point in points:
        low = point.quantize(unit, ROUND_FLOOR, _EXACT)
        high = point.quantize(unit, ROUND_CEILING, _EXACT)
        step = max(unit, Decimal(ulp(float(point))).quantize(unit, ROUND_CEILING, _EXACT))  # the next float
        yield from (low, high, _EXACT.subtract(low, step), _EXACT.add(high, step))
        if decimals is None:
            yield point
    for one, other in pairwise(points):
        yield _EXACT.divide(_EXACT.add(one, other), Decimal(2)).quantize(unit, ROUND_FLOOR, _EXACT)
    yield from (Decimal(0), Decimal(1))


def _dates(reader: DateReader, atoms: Sequence[Atom]) -> Iterator[str]:
    limits = [day for each in (reader.min, reader.max) if each for day in _given(each)]
    points = dict.fromkeys((*limits, *map(str, _points(atoms)), TODAY.isoformat()))
    for point in points:
        try:
            day = date.fromisoformat(point)
        except ValueError:
            continue
        for offset in (-1, 0, 1):
            if date.min.toordinal() <= day.toordinal() + offset <= date.max.toordinal():
                yield (day + timedelta(days=offset)).isoformat()


def _given(limit: str) -> list[str]:
    """A limit as days; of today, days well away from it too, as a conversation can last beyond midnight."""
    if limit != "today":
        return [limit]
    return [(TODAY + timedelta(days=days)).isoformat() for days in (400, -400, 0)]


def _selections(reader: ChoicesReader, atoms: Sequence[Atom]) -> Iterator[str]:
    """The numbers of the options chosen, the most first; what conditions name is there or not, in every combination."""
    named = _named(atoms)
    varied = [place for place, each in enumerate(reader.ids) if each in named][:_MANY_OPTIONS]
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


def _named(atoms: Iterable[Atom]) -> set[str]:
    return {each for atom in atoms if isinstance(atom, Includes) for each in atom.options} | {
        str(value) for value in _values(atoms)
    }


def _of_variable(place: str, atoms: tuple[Atom, ...], longest: int) -> Regions:
    """What an inviter tells may be anything, or not there at all. What Parley tells is always there, but for names."""
    if place == MESSAGES:
        counts = {int(each) for each in _numbers(atoms, (0, MOST_MESSAGES), 0) if 0 <= each <= MOST_MESSAGES}
        return _told_apart(atoms, map(str, sorted(counts, reverse=True)), [])
    values = [str(int(each)) if isinstance(each, float) else str(each) for each in _values(atoms)]
    if place == NUMBER:
        return _told_apart(atoms, filter(_A_NUMBER.fullmatch, (*values, LONGEST_NUMBER)), [])
    looked_for = [*map(str, _values(atoms)), *_contained(atoms)]
    filled = (each + FILLER * (longest - len(each)) for each in looked_for)
    numbers = map(_written, _numbers(atoms, (), _VARIABLE_DECIMALS))
    return _told_apart(atoms, (*filled, *looked_for, *numbers, "x"), [UNANSWERED])


def _told_apart(atoms: tuple[Atom, ...], texts: Iterable[str], beside: Sequence[Region]) -> Regions:
    """The regions of a variable that holds one of `texts`, or what they stand for; `beside` are there besides."""
    tried: dict[frozenset[Atom], Region] = {}
    for text in texts:
        answer = read_variable(text)
        region = Region(_true(atoms, answer), answer, text)
        tried.setdefault(region.true, region)
    free = any(isinstance(atom, (Matches, Contains)) for atom in atoms)
    known = not free or len(atoms) <= _FREE
    if free and known:
        for flags in product((False, True), repeat=len(atoms)):
            true = frozenset(atom for atom, flag in zip(atoms, flags, strict=True) if flag)
            tried.setdefault(true, Region(true))
    return Regions(atoms, (*beside, *tried.values()), known)
