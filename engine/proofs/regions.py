"""Which kinds of answers are there to a question, as far as the survey's conditions can tell them apart?

All answers in one region make the same conditions true. Numbers and dates fall into intervals between the bounds that
conditions name; options are told apart one by one; of free text only what conditions ask about is known. Regions are
found by trying answers where something changes, and are complete where it says so: no answer falls outside.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import islice, product
from typing import assert_never

import msgspec

from engine.answers import AnswerReader, InvalidAnswer, read_answer
from engine.answers.number_candidates import format_decimal, number_candidates
from engine.answers.proof_terms import FILLER, AskedConditions
from engine.model.events import Answer
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
"""The fixed date that readers take for today while the proofs try answers."""

_MAX_FREE_ATOMS = 5
"""Of so many conditions about one free text, every combination is looked at; of more, none is known."""

_MAX_CONDITIONS_TRIED = 10_000_000
"""Answers to one question times the conditions about it: a few seconds. Of more, some regions are not known."""

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
    """The regions of one place (a step's id or a variable's). `known`: every possible answer lies in one of `every`,
    as far as `atoms` tell answers apart."""

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


def _answer_regions(reader: AnswerReader, atoms: tuple[AtomicCondition, ...]) -> RegionSet:
    asked = _asked_conditions(atoms)
    complete = reader.reaches_every_region(asked)
    tried: dict[frozenset[AtomicCondition], AnswerRegion] = {}
    candidates = iter(reader.candidate_replies(asked, PROOF_DAY))
    for sms in islice(candidates, _MAX_CONDITIONS_TRIED // max(1, len(atoms))):
        answer = read_answer(reader, sms, lambda: PROOF_DAY)
        if not isinstance(answer, InvalidAnswer):
            region = AnswerRegion(_true_atoms(atoms, answer), answer, sms)
            tried.setdefault(_region_key(reader, region), region)
    complete = complete and next(candidates, None) is None
    untried = () if complete else _untried_regions(atoms, {each.true for each in tried.values()})
    return RegionSet(atoms, (*tried.values(), *untried), len(atoms) <= _MAX_FREE_ATOMS or complete)


def _region_key(reader: AnswerReader, region: AnswerRegion) -> frozenset[AtomicCondition]:
    """Single values are kept apart even where conditions don't, as texts show which it was."""
    if reader.region_values == "single" and region.answer is not None:
        return region.true | {OneOf("", frozenset([str(region.answer.value)]))}
    return region.true


def _asked_conditions(atoms: Iterable[AtomicCondition]) -> AskedConditions:
    """The conditions in terms that readers know."""
    bounds: list[str | float] = []
    equals: list[str | float | bool] = []
    words: list[str] = []
    patterns: list[CompiledPattern] = []
    options: list[str] = []
    for atom in atoms:
        match atom:
            case AtLeast(bound=bound) | AtMost(bound=bound) | Above(bound=bound) | Below(bound=bound):
                bounds.append(bound)
            case OneOf(values=values):
                ordered = sorted(values, key=str)
                bounds += (value for value in ordered if not isinstance(value, bool))
                equals += ordered
            case ContainsText(words=looked_for) | ContainsWord(words=looked_for):
                words += looked_for
            case MatchesPattern(pattern=pattern):
                patterns.append(pattern)
            case IncludesOption(options=included):
                options += sorted(included)
            case StepAnswered():
                pass
            case _:
                assert_never(atom)
    return AskedConditions(tuple(bounds), tuple(equals), tuple(words), tuple(patterns), tuple(options))


def _true_atoms(atoms: Iterable[AtomicCondition], answer: Answer) -> frozenset[AtomicCondition]:
    return frozenset(atom for atom in atoms if condition_holds(atom, {atom.step: answer}))


def _untried_regions(
    atoms: Sequence[AtomicCondition], tried: set[frozenset[AtomicCondition]]
) -> Iterator[AnswerRegion]:
    """Yield a region for every other combination of atoms that may exist though no candidate reached it. Yields none
    if the candidates are complete."""
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


# -- variables


def _variable_regions(place: str, atoms: tuple[AtomicCondition, ...], longest: int) -> RegionSet:
    """Return the regions of a variable. An inviter's may hold anything or be absent; of Parley's own, $number and
    $messages are always there, $contact need not be."""
    asked = _asked_conditions(atoms)
    if place == MESSAGES_KEY:
        counts = {
            int(each)
            for each in number_candidates(asked.bounds, (0, MOST_COUNTED_MESSAGES), 0)
            if 0 <= each <= MOST_COUNTED_MESSAGES
        }
        return _regions_of_texts(atoms, map(str, sorted(counts, reverse=True)), [])
    values = [str(int(each)) if isinstance(each, float) else str(each) for each in asked.equals]
    if place == NUMBER_KEY:
        return _regions_of_texts(
            atoms, filter(_PHONE_NUMBER.fullmatch, (*values, LONGEST_CHANNEL_NUMBER)), []
        )
    looked_for = [*map(str, asked.equals), *asked.words]
    filled = (each + FILLER * (longest - len(each)) for each in looked_for)
    numbers = map(format_decimal, number_candidates(asked.bounds, (), _VARIABLE_DECIMALS))
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
    free = _asked_conditions(atoms).asks_of_spelling
    known = not free or len(atoms) <= _MAX_FREE_ATOMS
    if free and known:
        for flags in product((False, True), repeat=len(atoms)):
            true = frozenset(atom for atom, flag in zip(atoms, flags, strict=True) if flag)
            tried.setdefault(true, AnswerRegion(true))
    return RegionSet(atoms, (*beside, *tried.values()), known)
