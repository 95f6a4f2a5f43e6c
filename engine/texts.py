"""What we say: texts per language, with places where earlier answers go.

A text is split once, when its survey is read, into literal parts and slots. What a sender wrote goes into a slot as
it is and is never interpreted.
"""

import re
from collections.abc import Mapping

import msgspec

from engine.lane import Answer

LONGEST_SMS = 1224
"""Characters: eight GSM-7 segments of 153, the most that Octopush accepts."""


class Slot(msgspec.Struct, frozen=True):
    """Where a step's answer goes. `labels` are a choice's, in the text's language; `longest` cuts what is put in."""

    step: str
    default: str = ""
    longest: int | None = None
    labels: tuple[str, ...] = ()


Template = str | tuple[str | Slot, ...]
Text = Mapping[str, Template]
"""Language -> template, complete for the survey's languages."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][\w-]*)(?:\|([^{}]*?))?(?::(\d+))?\}")


def split(text: str) -> Template:
    """`text` with its placeholders `{name}`, `{name|default}`, `{name:20}` as slots. Other braces are literal."""
    parts: list[str | Slot] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        name, default, longest = found.groups()
        parts += [text[end : found.start()], Slot(name, default or "", int(longest) if longest else None)]
        end = found.end()
    if not parts:
        return text
    return tuple(part for part in (*parts, text[end:]) if part != "")


def slots(template: Template) -> list[Slot]:
    return [] if isinstance(template, str) else [part for part in template if isinstance(part, Slot)]


def join(*templates: Template) -> Template:
    """One template after the other."""
    parts: list[str | Slot] = []
    for template in templates:
        parts += [template] if isinstance(template, str) else template
    return "".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else tuple(parts)


def literal_length(template: Template) -> int:
    """Characters of `template` without what its slots hold."""
    if isinstance(template, str):
        return len(template)
    return sum(len(part) for part in template if isinstance(part, str))


def fill(template: Template, answers: Mapping[str, Answer]) -> str:
    """The text to send, cut to LONGEST_SMS."""
    if isinstance(template, str):
        return template
    return "".join([part if isinstance(part, str) else _put_in(part, answers) for part in template])[
        :LONGEST_SMS
    ]


def _put_in(slot: Slot, answers: Mapping[str, Answer]) -> str:
    answer = answers.get(slot.step)
    if answer is None:
        return slot.default
    return _words_of(answer, slot.labels)[: slot.longest] or slot.default


def _words_of(answer: Answer, labels: tuple[str, ...]) -> str:
    if 0 <= answer.index < len(labels):
        return labels[answer.index]
    return answer.value if isinstance(answer.value, str) else answer.raw.strip()
