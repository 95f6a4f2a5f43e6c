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
from engine.model.segments import GSM_EXTENSION, count_segments, is_gsm
from engine.proofs.automata import dearest_character
from engine.proofs.regions import UNANSWERED, AnswerRegion
from engine.surveys.program import QuestionStep, Survey
from engine.surveys.texts import (
    LONGEST_SMS,
    LocalizedText,
    TemplateSlot,
    TextTemplate,
    fill_template,
    template_slots,
)
from engine.surveys.variables import BUILTIN_VARIABLES, MESSAGES_KEY, NUMBER_KEY, is_variable

_LONGEST_FLOAT = 24
"""Characters of a float, such as -2.2250738585072014e-308."""

_MAX_COMBINATIONS = 32

_EXACT_READERS = (ChoiceReader, YesNoReader, DateReader)
"""Readers of whose answers a region shows what is put into a text, or something as long."""

_CHARACTERS_BY_COST = "x€я😀"
"""A character of each price, the cheapest first."""


class TextCosts:
    """Of one survey's texts in one language."""

    def __init__(self, survey: Survey, language: str) -> None:
        self._language = language
        self._readers = {step.id: step.reader for step in survey.steps if isinstance(step, QuestionStep)}
        self._variables = survey.variables
        self._counted: dict[str, int] = {}

    def most_segments(self, text: LocalizedText, known: Mapping[str, AnswerRegion]) -> int:
        """The most segments of `text` where the answers are as `known` tells, and others may be anything."""
        return self._count_segments(self.dearest_text(text, known))

    def dearest_text(self, text: LocalizedText, known: Mapping[str, AnswerRegion]) -> str:
        """`text` filled with the dearest values; of several possible combinations, the dearest one."""
        template = text[self._language]
        if isinstance(template, str):
            return template
        wanted = template_slots(template)
        options = [self._slot_values(slot, known.get(slot.step)) for slot in wanted]
        if prod(map(len, options)) > _MAX_COMBINATIONS:
            options = [[_dominating_text(each)] for each in options]
        opening = template[0] if isinstance(template[0], str) else ""
        filled = [
            _fill_costliest(template, dict(zip(map(id, wanted), each, strict=True)), len(opening))
            for each in product(*options)
        ]
        return max(filled, key=self._count_segments)

    def _slot_values(self, slot: TemplateSlot, region: AnswerRegion | None) -> list[str]:
        """What may stand in the slot: everything that could be the dearest."""
        if region is UNANSWERED:
            return [slot.default or ""]
        reader = self._readers.get(slot.step)
        if region is not None and region.answer is not None and isinstance(reader, _EXACT_READERS):
            return [fill_template((slot,), {slot.step: region.answer})]
        widest = [each[: slot.max_length] for each in self._widest_values(slot, reader)]
        if (region is None and slot.step not in (NUMBER_KEY, MESSAGES_KEY)) or _may_be_empty(slot, reader):
            widest.append(slot.default or "")
        return list(dict.fromkeys(widest))

    def _widest_values(self, slot: TemplateSlot, reader: Reader | None) -> list[str]:
        match reader:
            case None if slot.step in (NUMBER_KEY, MESSAGES_KEY):
                return ["0" * BUILTIN_VARIABLES[slot.step]]
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
                return [_dominating_text([", ".join(labels), *(slot.labels or ids)])]
            case _:
                return [widest_words(reader)]

    def _count_segments(self, text: str) -> int:
        if text not in self._counted:
            self._counted[text] = count_segments(text).segments
        return self._counted[text]


def widest_words(reader: Reader) -> str:
    """The dearest that an answer can be in a text, options aside."""
    match reader:
        case TextReader(max=longest, pattern=pattern):
            return ("😀" if pattern is None else dearest_character(pattern)) * longest
        case NumberReader(min=low, max=high, decimals=decimals):
            if low is None or high is None or decimals is None:
                return "0" * _LONGEST_FLOAT
            fraction = decimals + 1 if decimals else 0
            return "0" * min(_LONGEST_FLOAT, max(len(str(int(low))), len(str(int(high)))) + 1 + fraction)
        case ScaleReader(low=low, high=high):
            return "0" * max(len(str(low)), len(str(high)))
        case PhpNumberReader():
            return "0" * _LONGEST_FLOAT
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


def _dominating_text(values: Sequence[str]) -> str:
    """A text at least as dear as each of `values`, wherever it stands."""
    longest, every = max(map(len, values)), "".join(values)
    if not is_gsm(every):
        return "😀" * longest
    return ("€" if GSM_EXTENSION.intersection(every) else "x") * longest


def _may_be_empty(slot: TemplateSlot, reader: Reader | None) -> bool:
    """Does the default stand there though there is an answer?"""
    match reader:
        case TextReader(min=shortest):
            return shortest == 0 or slot.max_length == 0
        case _:
            always_there = slot.step in (NUMBER_KEY, MESSAGES_KEY)
            return (is_variable(slot.step) and not always_there) or slot.max_length == 0


def _fill_costliest(template: TextTemplate, values: Mapping[int, str], opening: int) -> str:
    """The first `opening` characters are the author's. Shorter values would let in what is cut off here: where that
    is dearer than what it would replace, a text at least as dear as either."""
    text = "".join([part if isinstance(part, str) else values[id(part)] for part in template])
    if len(text) <= LONGEST_SMS:
        return text
    kept, cut_off = text[opening:LONGEST_SMS], text[max(opening, LONGEST_SMS) :]
    dearest = max(map(_cost_rank, cut_off), default=0)
    if dearest > min(map(_cost_rank, kept), default=0):
        return text[:opening] + _CHARACTERS_BY_COST[max(dearest, *map(_cost_rank, kept))] * len(kept)
    return text[:LONGEST_SMS]


def _cost_rank(c: str) -> int:
    if is_gsm(c):
        return int(c in GSM_EXTENSION)
    return 3 if c > "\uffff" else 2
