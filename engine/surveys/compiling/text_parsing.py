"""Texts: in every language, with their placeholders resolved."""

import re
from collections.abc import Iterable, Sequence
from typing import cast

from engine.answers.answer_type import OptionLine, WrittenText
from engine.model.segments import LONGEST_SMS
from engine.surveys.compiling.scope import CompilerScope
from engine.surveys.phrases import fixed_text
from engine.surveys.program import FixedText
from engine.surveys.survey_file import FixedTexts, WrittenKeywords
from engine.surveys.texts import (
    LocalizedText,
    TemplateSlot,
    TextTemplate,
    join_templates,
    literal_length,
    map_slots,
    parse_template,
    plain_braces,
    template_slots,
)
from engine.surveys.variables import BUILTIN_VARIABLES, answer_key

_MALFORMED_PLACEHOLDER = re.compile(r"\{(?!\$[A-Za-z_])[^{}\n]{0,40}\}|\{[A-Za-z_][\w-]*")
"""Text in braces that resembles a placeholder and is none. An unknown `{$name}` is left to the proofs."""

_LONGEST_WRITTEN = 10 * LONGEST_SMS
"""Characters of a text with its placeholders: of a longer one nothing is made."""

_IN_SESSION = ("completed", "gave_up", "no_media")
"""Fixed texts in which answers may stand."""

PLAIN_KEYWORD = re.compile(r"[\w ]+")
"""A keyword that is no pattern."""


class TextCompiler:
    def __init__(self, scope: CompilerScope) -> None:
        self._scope = scope

    def compile_text(
        self, field: str, written: WrittenText, *, options: Sequence[LocalizedText] = (), plain: bool = False
    ) -> LocalizedText:
        """Compile a text for every language of the survey; a missing translation is replaced by the first language's.
        A `plain` text has no placeholders. `options` follow the text, a line each."""
        scope = self._scope
        by_language = dict.fromkeys(scope.languages, written) if isinstance(written, str) else written
        for language in by_language:
            if language not in scope.languages:
                scope.add_error(f"field {field}: '{language}' is none of the survey's languages")
        if scope.default_language not in by_language:
            scope.add_error(
                f"field {field}: there is no text in '{scope.default_language}', the survey's first language"
            )
        text: dict[str, TextTemplate] = {}
        for language in scope.languages:
            if language not in by_language:
                scope.add_warning(
                    "language_missing",
                    f"field {field} has no text in '{language}', and is sent in '{scope.default_language}'",
                    f"write one under '{language}'",
                )
            wording = by_language.get(language) or by_language.get(scope.default_language) or ""
            listed = "".join(f"\n{option[language]}" for option in options)
            text[language] = self._compile_template(field, wording, language, listed, plain)
        return text

    def compile_option_lines(self, lines: Iterable[OptionLine]) -> list[LocalizedText]:
        """The lines that follow a question."""
        return [
            {
                language: f"{line.lead} {words}"
                for language, words in self.compile_text(line.field, line.label, plain=True).items()
            }
            for line in lines
        ]

    def compile_fixed_texts(
        self, written: FixedTexts, start: WrittenKeywords, title: str
    ) -> dict[FixedText, LocalizedText]:
        """Compile the fixed texts: the author's, Parley's default where there is none, nothing for those set to
        `none`."""
        texts: dict[FixedText, LocalizedText] = {}
        for field in written.__struct_fields__:
            name = cast(FixedText, field)
            wording: WrittenText | None = getattr(written, field)
            if wording == "none":
                continue
            if wording is not None:
                texts[name] = self.compile_text(f"texts.{field}", wording)
                if field not in _IN_SESSION and any(map(template_slots, texts[name].values())):
                    self._scope.add_error(
                        f"field texts.{field}: it is sent outside a session, where no answer is known"
                    )
            elif text := fixed_text_by_language(name, self._scope.languages, start, title):
                texts[name] = text
        return texts

    def _compile_template(
        self, field: str, wording: str, language: str, listed: str, plain: bool
    ) -> TextTemplate:
        if not wording.strip():
            self._scope.add_error(f"field {field}: it is empty")
        if len(wording) > _LONGEST_WRITTEN:
            self._scope.add_error(
                f"field {field}: it has {len(wording)} characters, at most {LONGEST_SMS} are expected"
            )
            return ""
        template: TextTemplate = wording
        if not plain:
            resolved = map_slots(
                parse_template(wording), lambda slot: self._resolve_slot(field, slot, language)
            )
            template = join_templates(resolved, listed)
        if not plain and (odd := _MALFORMED_PLACEHOLDER.search(plain_braces(wording) + listed)):
            self._scope.add_warning(
                "braces",
                f"field {field}: '{odd[0]}' is sent as it is written",
                "write {name}, {name|default} or {name:20}, if an answer is to stand there, else \\{",
            )
        if (length := literal_length(template)) > LONGEST_SMS:
            self._scope.add_error(
                f"field {field}: it has {length} characters, at most {LONGEST_SMS} are expected"
            )
        return template

    def _resolve_slot(self, field: str, slot: TemplateSlot, language: str) -> TemplateSlot:
        scope = self._scope
        asked = scope.questions_by_id.get(slot.step)
        if asked is not None:
            return slot.with_words(asked.answer.slot_words(language))
        if slot.step in scope.index_by_id:
            if scope.is_statement(slot.step):
                scope.add_error(f"field {field}: {{{slot.step}}} names a statement, which has no answer")
            return slot
        if slot.step.lower() not in scope.variables and answer_key(slot.step) not in BUILTIN_VARIABLES:
            self._report_undeclared(field, slot)
        scope.use_variable(slot.step)
        return slot.for_variable(answer_key(slot.step), scope.variables[slot.step.lower()])

    def _report_undeclared(self, field: str, slot: TemplateSlot) -> None:
        reason = f"field {field}: {{{slot.step}}} names no question and no session variable"
        mend = f"correct it, or declare it with `variables: [{slot.step}]`"
        if slot.default is None:
            self._scope.add_error(f"{reason}: {mend}")
        else:
            self._scope.add_warning(
                "undeclared_variable", f"{reason} that is declared, and is taken for one", mend
            )


def fixed_text_by_language(
    name: FixedText, languages: Iterable[str], start: WrittenKeywords, title: str = ""
) -> LocalizedText | None:
    wordings = {each: fixed_text(name, each, main_keyword(start, each), title) for each in languages}
    return {each: wording for each, wording in wordings.items() if wording is not None} or None


def main_keyword(start: WrittenKeywords, language: str = "") -> str:
    """Return the keyword that texts tell a person to send: the first that is a plain word, of `language` if it has
    one, else "START"."""
    by_language = start if isinstance(start, dict) else {language: start}
    order = [by_language[language]] if language in by_language else []
    for written in (*order, *by_language.values()):
        for each in [written] if isinstance(written, str) else written:
            if PLAIN_KEYWORD.fullmatch(each):
                return each
    return "START"
