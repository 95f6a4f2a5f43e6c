"""What we say: texts per language, with places where earlier answers go.

A text is split once, when its survey is read, into literal parts and slots. What a sender wrote goes into a slot as
it is and is never interpreted.
"""

import re
from collections.abc import Callable, Mapping

import msgspec

from engine.answers.answer_type import SlotWords
from engine.model.events import Answer
from engine.model.local_formats import format_day
from engine.model.segments import LONGEST_SMS
from engine.surveys.variables import BUILTIN_VARIABLES, is_variable


class TemplateSlot(msgspec.Struct, frozen=True):
    """Where a step's answer goes, or a session variable ("$key").

    `words` are how the text's language puts the answer. `max_length` cuts what is put in. `default` stands where there is
    nothing to put in; None: nothing does, and nobody said that it may be so.
    """

    step: str
    default: str | None = None
    max_length: int | None = None
    words: SlotWords = SlotWords()

    def with_words(self, words: SlotWords) -> "TemplateSlot":
        """The slot of an answer, as its type puts it."""
        return msgspec.structs.replace(self, words=words)

    def for_variable(self, step: str, longest: int) -> "TemplateSlot":
        """The slot of a session variable, which is cut to `longest` at any rate."""
        cut_to = longest if self.max_length is None else min(longest, self.max_length)
        return msgspec.structs.replace(self, step=step, max_length=cut_to)


TextTemplate = str | tuple[str | TemplateSlot, ...]
LocalizedText = Mapping[str, TextTemplate]
"""Language -> template, complete for the survey's languages."""

_BUILTIN_NAMES = "|".join(re.escape(place[1:]) for place in BUILTIN_VARIABLES)
_PLACEHOLDER = re.compile(
    rf"(?<!\\)\{{((?i:{_BUILTIN_NAMES})|[A-Za-z_][\w-]*)(?:\|([^{{}}]*?))?(?::(\d+))?\}}"
)


def parse_template(text: str) -> TextTemplate:
    """`text` with its placeholders as slots: `{name}`, `{name|default}`, `{name:20}`, and what Parley tells, `{$contact}`.
    Other braces are literal, and so is `\\{`, which becomes `{`."""
    parts: list[str | TemplateSlot] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        name, default, longest = found.groups()
        parts += [
            _unescape(text[end : found.start()]),
            TemplateSlot(name, default, int(longest) if longest else None),
        ]
        end = found.end()
    if not parts:
        return _unescape(text)
    return tuple(part for part in (*parts, _unescape(text[end:])) if part != "")


def escape_braces(text: str) -> str:
    """`text` as an author writes it who means each of its braces literally."""
    return text.replace("{", "\\{")


def plain_braces(text: str) -> str:
    """`text` without its placeholders, and without braces that are meant literally."""
    return _PLACEHOLDER.sub("", text).replace("\\{", "")


def _unescape(text: str) -> str:
    return text.replace("\\{", "{")


def template_slots(template: TextTemplate) -> list[TemplateSlot]:
    return [] if isinstance(template, str) else [part for part in template if isinstance(part, TemplateSlot)]


def map_slots(template: TextTemplate, resolved: Callable[[TemplateSlot], TemplateSlot]) -> TextTemplate:
    """`template`, each of its slots as `resolved` gives it."""
    if isinstance(template, str):
        return template
    return tuple(part if isinstance(part, str) else resolved(part) for part in template)


def join_templates(*templates: TextTemplate) -> TextTemplate:
    """One template after the other."""
    parts: list[str | TemplateSlot] = []
    for template in templates:
        parts += [template] if isinstance(template, str) else template
    return "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else tuple(parts)


def literal_text(template: TextTemplate) -> str:
    """`template` without what its slots hold."""
    return "".join(part for part in template if isinstance(part, str))


def literal_length(template: TextTemplate) -> int:
    """Characters of `template` without what its slots hold."""
    return len(literal_text(template))


def prepend_content(content: str, text: str) -> str:
    """The first SMS of an invited session, whose inviter gave it an opening of its own; cut to LONGEST_SMS."""
    return f"{content} {text}"[:LONGEST_SMS]


def fill_template(template: TextTemplate, answers: Mapping[str, Answer]) -> str:
    """The text to send, cut to LONGEST_SMS."""
    if isinstance(template, str):
        return template
    return "".join([part if isinstance(part, str) else _fill_slot(part, answers) for part in template])[
        :LONGEST_SMS
    ]


def _fill_slot(slot: TemplateSlot, answers: Mapping[str, Answer]) -> str:
    answer = answers.get(slot.step)
    words = "" if answer is None else _answer_words(answer, slot)[: slot.max_length]
    return words or slot.default or ""


def _answer_words(answer: Answer, slot: TemplateSlot) -> str:
    """A number or a day as the language writes it, a label for an option; what an inviter wrote, as it was written."""
    labels = slot.words.labels
    match answer.value:
        case _ if is_variable(slot.step):
            return answer.raw
        case bool(yes):
            return labels[yes] if labels else answer.raw.strip()
        case str(day) if slot.words.day_form:
            return format_day(day, slot.words.day_form)
        case str(value):
            return labels[answer.index] if 0 <= answer.index < len(labels) else value
        case tuple(values):
            return ", ".join(labels[place] for place in answer.indexes) if labels else ", ".join(values)
        case number:
            return str(number).replace(".", slot.words.decimal_point)
