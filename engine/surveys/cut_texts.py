"""Is a text cut by a comment? In YAML, `ask: Dial #5 now` asks "Dial": what follows a blank and # is a comment, unless the
text is in quotation marks.

A comment is told by the blank after its #, so that only one without is warned of.
"""

import re
from collections.abc import Iterator, Sequence

from engine.surveys.findings import SurveyFinding
from engine.surveys.survey_file import FixedTexts

_PLAIN_FIELD = re.compile(r"[ \t-]*(?P<key>[A-Za-z][\w-]*)\"?:[ \t]+(?P<text>[^\s'\"|>&*!%@`{\[].*)")
_LONGEST_SHOWN = 40
_TEXT_FIELDS = frozenset(FixedTexts.__struct_fields__).union(
    ("title", "say", "ask", "invalid", "text", "label")
)


def cut_text_warnings(source: str, raw: object, languages: Sequence[str]) -> Iterator[SurveyFinding]:
    """Yield a warning for each line of the YAML `source`, parsed `raw`, whose text a comment seems to cut."""
    if "#" not in source:
        return
    fields = _TEXT_FIELDS.union(languages)
    texts = set(_texts_in(raw))
    for number, line in enumerate(source.splitlines(), 1):
        written, mark, comment = line.partition("#")
        if not mark or written[-1:] not in (" ", "\t") or comment[:1] in ("", " ", "\t", "#", "!"):
            continue
        found = _PLAIN_FIELD.fullmatch(written.rstrip())
        if found and found["key"] in fields and found["text"] in texts:
            shown = comment if len(comment) < _LONGEST_SHOWN else f"{comment[: _LONGEST_SHOWN - 3]}..."
            yield SurveyFinding(
                "warning",
                "cut_text",
                "",
                f"field {found['key']}: '#{shown}' is a comment in YAML, and is not sent",
                "put the text into quotation marks, or a blank after the #",
                line=number,
            )


def _texts_in(raw: object) -> Iterator[str]:
    match raw:
        case str():
            yield raw
        case dict():
            for each in raw.values():
                yield from _texts_in(each)
        case list():
            for each in raw:
                yield from _texts_in(each)
        case _:
            pass
