"""What does a text cost at most? Its segments when its placeholders hold the dearest values that they admit.

A text that is longer, or has a dearer character in the same place, never takes fewer segments; so the dearest value of
each placeholder makes the dearest text.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod

from engine.answers import AnswerReader
from engine.answers.answer_type import SlotWords
from engine.answers.proof_terms import DEAREST_CHARACTER, TextWidth, dominating_text
from engine.model.segments import GSM_EXTENSION, LONGEST_SMS, is_gsm, most_segments
from engine.proofs.automata import dearest_character
from engine.proofs.regions import UNANSWERED, AnswerRegion
from engine.surveys.program import QuestionStep, Survey
from engine.surveys.texts import LocalizedText, TemplateSlot, TextTemplate, fill_template, template_slots
from engine.surveys.variables import BUILTIN_VARIABLES, MESSAGES_KEY, NUMBER_KEY, is_variable

_MAX_COMBINATIONS = 32

_CHARACTERS_BY_COST = "x€я😀"
"""A character of each price, the cheapest first."""


class TextCosts:
    """Computes the most segments of one survey's texts in one language."""

    def __init__(self, survey: Survey, language: str) -> None:
        self._language = language
        self._readers = {step.id: step.reader for step in survey.steps if isinstance(step, QuestionStep)}
        self._variables = survey.variables
        self._counted: dict[str, int] = {}

    def most_segments(self, text: LocalizedText, known: Mapping[str, AnswerRegion]) -> int:
        """Return the most segments of `text` if the answers lie in the regions `known`, and other places hold
        anything."""
        return self._count_segments(self.dearest_text(text, known))

    def dearest_text(self, text: LocalizedText, known: Mapping[str, AnswerRegion]) -> str:
        """`text` filled with the dearest values; of several possible combinations, the dearest one."""
        template = text[self._language]
        if isinstance(template, str):
            return template
        wanted = template_slots(template)
        options = [self._slot_values(slot, known.get(slot.step)) for slot in wanted]
        if prod(map(len, options)) > _MAX_COMBINATIONS:
            options = [[dominating_text(each)] for each in options]
        opening = template[0] if isinstance(template[0], str) else ""
        filled = [
            _fill_costliest(template, dict(zip(map(id, wanted), each, strict=True)), len(opening))
            for each in product(*options)
        ]
        return max(filled, key=self._count_segments)

    def _slot_values(self, slot: TemplateSlot, region: AnswerRegion | None) -> list[str]:
        """Return the values that could make the slot costliest: the default of an unanswered one, the region's
        answer, or the longest values its reader admits."""
        if region is UNANSWERED:
            return [slot.default or ""]
        reader = self._readers.get(slot.step)
        if region is not None and region.answer is not None and _shows_dearest(reader):
            return [fill_template((slot,), {slot.step: region.answer})]
        widest = [each[: slot.max_length] for each in self._widest_values(slot, reader)]
        if (region is None and slot.step not in (NUMBER_KEY, MESSAGES_KEY)) or _may_be_empty(slot, reader):
            widest.append(slot.default or "")
        return list(dict.fromkeys(widest))

    def _widest_values(self, slot: TemplateSlot, reader: AnswerReader | None) -> Sequence[str]:
        match None if reader is None else reader.put_in_text(slot.words):
            case TextWidth() as width:
                return [_widest_text(width)]
            case tuple(texts):
                return texts
            case None if slot.step in (NUMBER_KEY, MESSAGES_KEY):
                return ["0" * BUILTIN_VARIABLES[slot.step]]
            case None if is_variable(slot.step):
                return [DEAREST_CHARACTER * self._variables.get(slot.step[1:], LONGEST_SMS)]
            case None:
                return [""]

    def _count_segments(self, text: str) -> int:
        if text not in self._counted:
            self._counted[text] = most_segments(text)
        return self._counted[text]


def longest_answer(reader: AnswerReader) -> int:
    """Characters that an answer can get in a text, options aside."""
    width = reader.put_in_text(SlotWords())
    return width.most if isinstance(width, TextWidth) else 0


def _widest_text(width: TextWidth) -> str:
    """A text as dear as any of such a width."""
    dearest = width.character if width.pattern is None else dearest_character(width.pattern)
    return dearest * width.most


def _shows_dearest(reader: AnswerReader | None) -> bool:
    """Does a region's answer show what is put into a text, or something as dear?"""
    return reader is not None and reader.region_values != "various"


def _may_be_empty(slot: TemplateSlot, reader: AnswerReader | None) -> bool:
    """Does the default stand there though there is an answer?"""
    if slot.max_length == 0:
        return True
    if reader is None:
        return is_variable(slot.step) and slot.step not in (NUMBER_KEY, MESSAGES_KEY)
    width = reader.put_in_text(slot.words)
    return isinstance(width, TextWidth) and width.least == 0


def _fill_costliest(template: TextTemplate, values: Mapping[int, str], opening: int) -> str:
    """Fill the template and cut it to LONGEST_SMS. A shorter value would let characters back in that are cut off
    here: if one of them costs more than a character that it would replace, return a text of the costlier kind
    instead. The first `opening` characters are the author's and never replaced."""
    text = "".join([part if isinstance(part, str) else values[id(part)] for part in template])
    if len(text) <= LONGEST_SMS:
        return text
    kept, cut_off = text[opening:LONGEST_SMS], text[max(opening, LONGEST_SMS) :]
    dearest = max(map(_cost_rank, cut_off), default=0)
    if dearest > min(map(_cost_rank, kept), default=0):
        return text[:opening] + _CHARACTERS_BY_COST[max(dearest, *map(_cost_rank, kept))] * len(kept)
    return text[:LONGEST_SMS]


def _cost_rank(c: str) -> int:
    """Rank a character by cost: 0 GSM-7 basic, 1 GSM-7 extension, 2 UCS-2, 3 UCS-2 surrogate pair."""
    if is_gsm(c):
        return int(c in GSM_EXTENSION)
    return 3 if c > "\uffff" else 2
