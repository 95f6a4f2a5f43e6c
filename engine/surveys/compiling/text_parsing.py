"""Texts: in every language, with their placeholders resolved."""

import re
from collections.abc import Iterable, Sequence
from typing import cast

from engine.surveys.compiling.scope import Scope
from engine.surveys.phrases import decimal_point, fixed_text, yes_no_words
from engine.surveys.program import FixedText
from engine.surveys.survey_file import (
    ChoiceAnswer,
    ChoicesAnswer,
    FixedTexts,
    Keywords,
    NumberAnswer,
    Option,
    Texts,
    YesNoAnswer,
)
from engine.surveys.texts import (
    LONGEST_SMS,
    Slot,
    Template,
    Text,
    join,
    literal,
    literal_length,
    slots,
    split,
    with_slots,
)
from engine.surveys.variables import TOLD, place_of

_ODD = re.compile(r"\{(?!\$[A-Za-z_])[^{}\n]{0,40}\}|\{[A-Za-z_][\w-]*")
"""What looks like a placeholder, and is none. One for what Parley tells, and does not, is the proofs' to find."""

WORD = re.compile(r"[\w ]+")
"""A keyword that is no pattern."""


class TextCompiler:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def text(self, field: str, written: Texts, *, options: Sequence[Text] = (), plain: bool = False) -> Text:
        """A text in every language; where one is missing, in the first. A `plain` text has no placeholders.

        `options` follow it, a line each.
        """
        scope = self._scope
        by_language = dict.fromkeys(scope.languages, written) if isinstance(written, str) else written
        for language in by_language:
            if language not in scope.languages:
                scope.problem(f"field {field}: '{language}' is none of the survey's languages")
        if scope.language not in by_language:
            scope.problem(
                f"field {field}: there is no text in '{scope.language}', the survey's first language"
            )
        text: dict[str, Template] = {}
        for language in scope.languages:
            if language not in by_language:
                scope.warn(
                    "language_missing",
                    f"field {field} has no text in '{language}', and is sent in '{scope.language}'",
                    f"write one under '{language}'",
                )
            wording = by_language.get(language) or by_language.get(scope.language) or ""
            listed = "".join(f"\n{option[language]}" for option in options)
            text[language] = self._template(field, wording, language, listed, plain)
        return text

    def fixed(self, written: FixedTexts, start: Keywords, title: str) -> dict[FixedText, Text]:
        """Every fixed text that is not silenced, the author's or ours."""
        texts: dict[FixedText, Text] = {}
        for field in written.__struct_fields__:
            name = cast(FixedText, field)
            wording: Texts | None = getattr(written, field)
            if wording == "none":
                continue
            if wording is not None:
                texts[name] = self.text(f"texts.{field}", wording)
                if field != "completed" and any(map(slots, texts[name].values())):
                    self._scope.problem(
                        f"field texts.{field}: it is sent outside a session, where no answer is known"
                    )
            elif text := default_text(name, self._scope.languages, start, title):
                texts[name] = text
        return texts

    def _template(self, field: str, wording: str, language: str, listed: str, plain: bool) -> Template:
        if not wording.strip():
            self._scope.problem(f"field {field}: it is empty")
        template: Template = wording
        if not plain:
            resolved = with_slots(split(wording), lambda slot: self._slot(field, slot, language))
            template = join(resolved, listed)
        if not plain and (odd := _ODD.search(literal(template))):
            self._scope.warn(
                "braces",
                f"field {field}: '{odd[0]}' is sent as it is written",
                "write {name}, {name|default} or {name:20}, if an answer is to stand there",
            )
        if (length := literal_length(template)) > LONGEST_SMS:
            self._scope.problem(
                f"field {field}: it has {length} characters, at most {LONGEST_SMS} are expected"
            )
        return template

    def _slot(self, field: str, slot: Slot, language: str) -> Slot:
        scope = self._scope
        asked = scope.asks.get(slot.step)
        if asked is not None:
            match asked.answer:
                case ChoiceAnswer(options=options) | ChoicesAnswer(options=options):
                    return slot.labelled(label(option_of(each), language) for each in options)
                case YesNoAnswer():
                    return slot.labelled(yes_no_words(language))
                case NumberAnswer():
                    return slot.pointed(decimal_point(language))
                case _:
                    return slot
        if slot.step in scope.ids:
            if scope.says(slot.step):
                scope.problem(f"field {field}: {{{slot.step}}} names a statement, which has no answer")
            return slot
        if slot.step.lower() not in scope.variables and place_of(slot.step) not in TOLD:
            self._undeclared(field, slot)
        scope.variable(slot.step)
        return slot.about(place_of(slot.step), scope.variables[slot.step.lower()])

    def _undeclared(self, field: str, slot: Slot) -> None:
        reason = f"field {field}: {{{slot.step}}} names no question and no session variable"
        mend = f"correct it, or declare it with `variables: [{slot.step}]`"
        if slot.default is None:
            self._scope.problem(f"{reason}: {mend}")
        else:
            self._scope.warn("undeclared_variable", f"{reason} that is declared, and is taken for one", mend)


def default_text(name: FixedText, languages: Iterable[str], start: Keywords, title: str = "") -> Text | None:
    wordings = {each: fixed_text(name, each, main_keyword(start, each), title) for each in languages}
    return {each: wording for each, wording in wordings.items() if wording is not None} or None


def main_keyword(start: Keywords, language: str = "") -> str:
    """The keyword that a person is told to send: the first one that is a plain word, if possible in `language`."""
    by_language = start if isinstance(start, dict) else {language: start}
    order = [by_language[language]] if language in by_language else []
    for written in (*order, *by_language.values()):
        for each in [written] if isinstance(written, str) else written:
            if WORD.fullmatch(each):
                return each
    return "START"


def option_of(written: str | Option) -> Option:
    return Option(written, written) if isinstance(written, str) else written


def label(option: Option, language: str) -> str:
    if isinstance(option.label, str):
        return option.label
    return option.label.get(language) or next(iter(option.label.values()), "")


def in_all_languages(text: Texts) -> list[str]:
    return [text] if isinstance(text, str) else list(text.values())
