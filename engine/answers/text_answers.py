"""The answer type `text`: anything but a reaction, of so many characters, and like a pattern if the author gives one."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from typing import Any, ClassVar

from engine.answers.answer_type import (
    AnswerReader,
    AnswerSpec,
    ComparedValue,
    InvalidAnswer,
    InvalidReason,
    Refusal,
    ReportProblem,
    SlotWords,
    Today,
    ValueDescription,
)
from engine.answers.proof_terms import DEAREST_CHARACTER, FILLER, AskedConditions, TextWidth
from engine.answers.translations import Translated
from engine.model.events import Answer
from engine.model.patterns import BadPatternError, CompiledPattern, compile_pattern
from engine.model.text_normalization import clean_text, fold_text

_LONGEST_TRIED = 2_000
"""Characters of the longest answer that a proof tries: more than any text that we send, so that a longer one costs the
same."""

_COSTLY_CHARACTERS = (DEAREST_CHARACTER, "\U00010428", "я", "€", "x", "1")
"""Characters of different kinds, the dearest first: an emoji, a letter beyond the BMP, one of another script."""

_TOO_SHORT = Refusal(
    "too_short",
    Translated(en="That is too short.", fr="C'est trop court.", no="Det er for kort."),
    "it is too short",
)
_TOO_LONG = Refusal(
    "too_long",
    Translated(en="That is too long.", fr="C'est trop long.", no="Det er for langt."),
    "it is too long",
)
_UNLIKE_PATTERN = Refusal(
    "pattern",
    Translated(
        en="That is not written as we need it.",
        fr="Ce n'est pas écrit comme il le faut.",
        no="Det er ikke skrevet slik vi trenger det.",
    ),
    "it does not match the pattern",
)

_EXPECTED_SHORT_TEXT = Translated(
    en="Please answer in at most {max} characters.",
    fr="Veuillez répondre en {max} caractères au plus.",
    no="Svar med høyst {max} tegn.",
)
_EXPECTED_TEXT = Translated(
    en="Please answer in {min} to {max} characters.",
    fr="Veuillez répondre en {min} à {max} caractères.",
    no="Svar med {min} til {max} tegn.",
)
EXPECTED_OTHERWISE = Translated(
    en="Please check it and answer again.",
    fr="Veuillez vérifier et répondre encore.",
    no="Se over det og svar igjen.",
)
"""Where no words can say what is expected."""


class TextAnswer(AnswerSpec, frozen=True, tag="text"):
    min: int = 1
    max: int = 640
    pattern: str | None = None

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "Any text, as it was written.",
        "min": "How many characters it has at least (1).",
        "max": "How many characters it has at most (640).",
        "pattern": "A pattern (RE2) that matches the whole text.",
    }
    schema_limits: ClassVar[Mapping[str, Mapping[str, Any]]] = {"min": {"minimum": 0}, "max": {"minimum": 1}}

    def compile_reader(self, report: ReportProblem) -> "TextReader":
        if self.min < 0 or self.max < max(1, self.min):
            report(f"field answer: no text has from {self.min} to {self.max} characters")
        return TextReader(self.min, self.max, self._compile_pattern(report))

    def describe_values(self) -> ValueDescription:
        return ValueDescription("text", pattern=self.pattern or "")

    def _compile_pattern(self, report: ReportProblem) -> CompiledPattern | None:
        if self.pattern is None:
            return None
        try:
            return compile_pattern(self.pattern)
        except BadPatternError as e:
            report(f"field answer.pattern: RE2 refuses '{self.pattern}': {e}")
            return None

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        del step, report
        return fold_text(str(written))


class TextReader(AnswerReader, frozen=True):
    """Lengths in characters of the cleaned text; `pattern` matches all of it."""

    min: int
    max: int
    pattern: CompiledPattern | None = None

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        text = clean_text(sms)
        if len(text) < self.min:
            return InvalidAnswer(_TOO_SHORT.reason)
        if len(text) > self.max:
            return InvalidAnswer(_TOO_LONG.reason)
        if self.pattern is not None and self.pattern.fullmatch(text) is None:
            return InvalidAnswer(_UNLIKE_PATTERN.reason)
        return Answer(sms, text)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (
            *((_TOO_SHORT,) if self.min > 0 else ()),
            _TOO_LONG,
            *((_UNLIKE_PATTERN,) if self.pattern is not None else ()),
        )

    def expected_answer(self, language: str) -> str:
        expected = _EXPECTED_SHORT_TEXT if self.min <= 1 else _EXPECTED_TEXT
        return expected.say(language).format(min=self.min, max=self.max)

    def expected_after(self, reason: InvalidReason, language: str) -> str:
        if reason == _UNLIKE_PATTERN.reason:
            return EXPECTED_OTHERWISE.say(language)
        return self.expected_answer(language)

    def describe_answers(self) -> str:
        length = f"{self.min} to {self.max}" if self.min > 1 else f"up to {self.max}"
        return f"text, {length} characters" + (f", like /{self.pattern.pattern}/" if self.pattern else "")

    def named_answers(self, compared: Collection[str]) -> list[str]:
        return sorted(compared)

    def put_in_text(self, words: SlotWords) -> TextWidth:
        del words
        return TextWidth(min(self.max, _LONGEST_TRIED), self.min, DEAREST_CHARACTER, self.pattern)

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterator[str]:
        """The longest there are, then what conditions look for, alone and filled up to the longest."""
        del today
        longest = min(self.max, _LONGEST_TRIED)
        yield from (c * longest for c in _COSTLY_CHARACTERS)
        for each in (*map(str, asked.equals), *asked.words, *self._pattern_samples(asked.patterns)):
            yield each + FILLER * (longest - len(each))
            yield each
        yield "x"
        yield "1" * max(1, min(self.min, _LONGEST_TRIED))

    def _pattern_samples(self, patterns: Iterable[CompiledPattern]) -> Iterator[str]:
        """Texts that patterns are likely to match: each pattern itself, stripped of its punctuation."""
        for pattern in (*patterns, *((self.pattern,) if self.pattern is not None else ())):
            source = pattern.pattern
            yield from source.strip("^$").split("|")
            yield "".join(c for c in source if c.isalnum() or c == " ")

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return not asked.asks_of_spelling and self.pattern is None

    def invalid_replies(self) -> Iterable[str]:
        return ("x" * (min(self.max, _LONGEST_TRIED) + 1), "", "?", "0", "x")
