"""What does a text cost at most? Its segments when its placeholders hold the dearest values that they admit.

A text that is longer, or has a dearer character in the same place, never takes fewer segments; so the dearest value of
each placeholder makes the dearest text.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import assert_never

from engine.answers import (
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
    YesNoReader,
)
from engine.model.segments import EXTENSION, count, is_gsm
from engine.proofs.automata import dearest_character
from engine.proofs.regions import UNANSWERED, Region
from engine.surveys.program import Ask, Survey
from engine.surveys.texts import LONGEST_SMS, Slot, Template, Text, fill, slots
from engine.surveys.variables import MESSAGES, NUMBER, TOLD, is_variable

_LONGEST_NUMBER = 24
"""Characters of a float, such as -2.2250738585072014e-308."""

_COMBINATIONS = 32

_TOLD_APART = (ChoiceReader, YesNoReader, DateReader)
"""Readers of whose answers a region shows what is put into a text, or something as long."""

_KINDS = "x€я😀"
"""A character of each price, the cheapest first."""


class Costs:
    """Of one survey's texts in one language."""

    def __init__(self, survey: Survey, language: str) -> None:
        self._language = language
        self._readers = {step.id: step.reader for step in survey.steps if isinstance(step, Ask)}
        self._variables = survey.variables
        self._counted: dict[str, int] = {}

    def segments(self, text: Text, known: Mapping[str, Region]) -> int:
        """The most segments of `text` where the answers are as `known` tells, and others may be anything."""
        return self._count(self.dearest(text, known))

    def dearest(self, text: Text, known: Mapping[str, Region]) -> str:
        """`text` filled with the dearest values; of several possible combinations, the dearest one."""
        template = text[self._language]
        if isinstance(template, str):
            return template
        wanted = slots(template)
        options = [self._values(slot, known.get(slot.step)) for slot in wanted]
        if prod(map(len, options)) > _COMBINATIONS:
            options = [[_dominating(each)] for each in options]
        opening = template[0] if isinstance(template[0], str) else ""
        filled = [
            _fill(template, dict(zip(map(id, wanted), each, strict=True)), len(opening))
            for each in product(*options)
        ]
        return max(filled, key=self._count)

    def _values(self, slot: Slot, region: Region | None) -> list[str]:
        """What may stand in the slot: everything that could be the dearest."""
        if region is UNANSWERED:
            return [slot.default or ""]
        reader = self._readers.get(slot.step)
        if region is not None and region.answer is not None and isinstance(reader, _TOLD_APART):
            return [fill((slot,), {slot.step: region.answer})]
        widest = [each[: slot.longest] for each in self._widest(slot, reader)]
        if (region is None and slot.step not in (NUMBER, MESSAGES)) or _may_be_empty(slot, reader):
            widest.append(slot.default or "")
        return list(dict.fromkeys(widest))

    def _widest(self, slot: Slot, reader: Reader | None) -> list[str]:
        match reader:
            case None if slot.step in (NUMBER, MESSAGES):
                return ["0" * TOLD[slot.step]]
            case None if is_variable(slot.step):
                return ["😀" * self._variables.get(slot.step[1:], LONGEST_SMS)]
            case None:
                return [""]
            case ChoiceReader(ids=ids):
                return list(slot.labels or ids)
            case YesNoReader():
                return list(slot.labels)
            case ChoicesReader(ids=ids, most=most):
                labels = sorted(slot.labels or ids, key=len)[-most:]
                return [_dominating([", ".join(labels), *(slot.labels or ids)])]
            case _:
                return [widest_words(reader)]

    def _count(self, text: str) -> int:
        if text not in self._counted:
            self._counted[text] = count(text).segments
        return self._counted[text]


def widest_words(reader: Reader) -> str:
    """The dearest that an answer can be in a text, options aside."""
    match reader:
        case TextReader(max=longest, pattern=pattern):
            return ("😀" if pattern is None else dearest_character(pattern)) * longest
        case NumberReader(min=low, max=high, decimals=decimals):
            if low is None or high is None or decimals is None:
                return "0" * _LONGEST_NUMBER
            fraction = decimals + 1 if decimals else 0
            return "0" * min(_LONGEST_NUMBER, max(len(str(int(low))), len(str(int(high)))) + 1 + fraction)
        case ScaleReader(low=low, high=high):
            return "0" * max(len(str(low)), len(str(high)))
        case PhpNumberReader():
            return "0" * _LONGEST_NUMBER
        case DateReader():
            return "0000-00-00"
        case PhoneReader():
            return "+" + "0" * 15
        case AnythingReader():
            return "😀" * LONGEST_SMS
        case YesNoReader() | ChoiceReader() | ChoicesReader():
            return ""
        case _:
            assert_never(reader)


def _dominating(values: Sequence[str]) -> str:
    """A text at least as dear as each of `values`, wherever it stands."""
    longest, every = max(map(len, values)), "".join(values)
    if not is_gsm(every):
        return "😀" * longest
    return ("€" if EXTENSION.intersection(every) else "x") * longest


def _may_be_empty(slot: Slot, reader: Reader | None) -> bool:
    """Does the default stand there though there is an answer?"""
    match reader:
        case TextReader(min=shortest):
            return shortest == 0 or slot.longest == 0
        case _:
            always_there = slot.step in (NUMBER, MESSAGES)
            return (is_variable(slot.step) and not always_there) or slot.longest == 0


def _fill(template: Template, values: Mapping[int, str], opening: int) -> str:
    """The first `opening` characters are the author's. Shorter values would let in what is cut off here: where that
    is dearer than what it would replace, a text at least as dear as either."""
    text = "".join([part if isinstance(part, str) else values[id(part)] for part in template])
    if len(text) <= LONGEST_SMS:
        return text
    kept, cut_off = text[opening:LONGEST_SMS], text[max(opening, LONGEST_SMS) :]
    dearest = max(map(_kind, cut_off), default=0)
    if dearest > min(map(_kind, kept), default=0):
        return text[:opening] + _KINDS[max(dearest, *map(_kind, kept))] * len(kept)
    return text[:LONGEST_SMS]


def _kind(c: str) -> int:
    if is_gsm(c):
        return int(c in EXTENSION)
    return 3 if c > "\uffff" else 2
