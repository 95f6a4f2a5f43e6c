"""What is wrong, or dear, about how texts are written: characters that cost, texts that are cut, one wording for all."""

# ruff: noqa: RUF001 - the characters that editors put in are what this is about

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from engine.model.segments import count, is_gsm
from engine.model.suggestions import meant
from engine.proofs.costs import widest_words
from engine.proofs.regions import atoms_of
from engine.surveys.findings import Finding
from engine.surveys.program import Ask, Survey, repeats_of
from engine.surveys.texts import LONGEST_SMS, Template, Text, literal, literal_length, slots
from engine.surveys.variables import TOLD, place_of

_AS_TOLD = re.compile(r"\{(\$[A-Za-z_][\w-]*)")

_FEW = 4
"""So many different characters outside GSM-7 are an oversight; more are another script."""

_PLAIN = {
    "’": "'", "‘": "'", "‚": ",", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "–": "-", "—": "-", "…": "...",
    "\u00a0": " ", "\u202f": " ", "\t": " ", "`": "'", "´": "'", "œ": "oe", "Œ": "OE", "•": "-", "·": "-", "ð": "d",
    "þ": "th", "ł": "l", "đ": "d", "ı": "i", "×": "x", "°": "o", "→": "->",
}  # fmt: skip
"""How the characters that editors and phones put in are written in GSM-7."""

_TYPICAL = "x" * 8
"""Stands for an answer when a text is judged by what its author wrote."""


def spellings(survey: Survey) -> list[Finding]:
    """Findings about every text of the survey."""
    found: dict[Finding, None] = {}
    longest = _longest_values(survey)
    for where, name, text in _texts(survey):
        for language in survey.languages:
            for finding in (*_dear(where, name, text, language), *_cut(longest, where, name, text, language)):
                found[finding] = None
    return [*_once_of_titles(found), *_one_for_all(survey)]


def untold(survey: Survey) -> list[Finding]:
    """An error wherever something is named as if Parley told it, and it does not."""
    named: dict[tuple[str, str], None] = {}
    for where, _, text in _texts(survey):
        for template in text.values():
            named |= dict.fromkeys((where, found) for found in _AS_TOLD.findall(literal(template)))
    for step in survey.steps:
        places = (atom.step for route in step.routes for atom in atoms_of(route.when))
        named |= dict.fromkeys((step.id, place[1:]) for place in places if place.startswith("$$"))
    known = [place[1:] for place in TOLD]
    return [
        Finding(
            "error", "untold", where, f"{name} is nothing that Parley tells{meant(name, known)}",
            f"write {', '.join(known)}, or a session variable without the $",
        )
        for where, name in named
        if place_of(name) not in TOLD
    ]  # fmt: skip


def _once_of_titles(found: Iterable[Finding]) -> list[Finding]:
    """The title stands in several texts, in every language."""
    titles = [finding for finding in found if finding.reason.startswith("field title ")]
    return [finding for finding in found if finding not in titles[1:]]


def _texts(survey: Survey) -> Iterator[tuple[str, str, Text]]:
    """Step, field and text of each, as its author knows them."""
    for step in survey.steps:
        yield step.id, "ask" if isinstance(step, Ask) else "say", step.text
        for text in repeats_of(step):
            yield step.id, "invalid, with the question after it,", text
        if isinstance(step, Ask) and step.remind:
            yield step.id, "remind.text", step.remind.text
    for name, text in survey.texts.items():
        ours = name in ("stopped", "help", "opted_in") and _opens_with(text, survey.title)
        yield "", "title" if ours else f"texts.{name}", text


def _opens_with(text: Text, title: str) -> bool:
    """Is it one of ours, in which only the title is the author's?"""
    return bool(title) and all(str(template).startswith(f"{title}: ") for template in text.values())


def _dear(where: str, name: str, text: Text, language: str) -> Iterator[Finding]:
    """A few characters that more than halve what goes into a segment."""
    written = _typical(text[language])
    if is_gsm(written):
        return
    odd = sorted({c for c in written if not is_gsm(c)})
    if len(odd) > _FEW or name.startswith("invalid"):
        return
    plain = {c: _plain(c) for c in odd}
    mended = "".join(plain.get(c, c) for c in written)
    now, then = count(written).segments, count(mended).segments
    if then >= now and not _halves(written):
        return
    cost = f"{now} segments instead of {then}" if then < now else "70 characters a segment instead of 160"
    pairs = ", ".join(f"'{c}' as '{plain[c]}'" if plain[c] else f"no '{c}'" for c in odd)
    yield Finding(
        "warning",
        "ucs2",
        where,
        f"field {name} ({language}): {_listed(odd)} {'make' if len(odd) > 1 else 'makes'} it UCS-2, {cost}",
        f"write {pairs}",
    )


def _halves(written: str) -> bool:
    """Is it so near a segment's end that a slightly longer answer tips it over?"""
    return len(written) > 60


def _typical(template: Template) -> str:
    if isinstance(template, str):
        return template
    return "".join(part if isinstance(part, str) else _TYPICAL[: part.longest] for part in template)


def _plain(c: str) -> str:
    if c in _PLAIN:
        return _PLAIN[c]
    bare = "".join(each for each in unicodedata.normalize("NFKD", c) if not unicodedata.combining(each))
    return bare if bare and is_gsm(bare) else ""


def _listed(odd: list[str]) -> str:
    return " and ".join(f"'{c}' (U+{ord(c):04X})" for c in odd)


def _cut(longest: Mapping[str, int], where: str, name: str, text: Text, language: str) -> Iterator[Finding]:
    template = text[language]
    length = literal_length(template)
    for slot in slots(template):
        length += min(longest.get(slot.step, 0), slot.longest or LONGEST_SMS)
    if length > LONGEST_SMS:
        names = ", ".join(dict.fromkeys(f"{{{slot.step.removeprefix('$')}}}" for slot in slots(template)))
        yield Finding(
            "warning", "too_long", where,
            f"field {name} ({language}): it can get {length} characters, and is cut after {LONGEST_SMS}",
            f"give {names} a length, such as {{name:40}}",
        )  # fmt: skip


def _longest_values(survey: Survey) -> dict[str, int]:
    """Characters that a placeholder can get, options aside."""
    variables = {place_of(name): longest for name, longest in survey.variables.items()}
    return variables | {
        step.id: len(widest_words(step.reader)) for step in survey.steps if isinstance(step, Ask)
    }


def _one_for_all(survey: Survey) -> list[Finding]:
    """Texts that are the same in every language, which may be meant."""
    if len(survey.languages) == 1:
        return []
    same = [step.id for step in survey.steps if len(set(step.text.values())) == 1]
    if not same:
        return []
    languages = ", ".join(survey.languages)
    return [
        Finding(
            "warning", "one_language", same[0],
            f"one text stands for all of {languages} in {len(same)} of {len(survey.steps)} steps: {', '.join(same)}",
            f"write {{{survey.languages[0]}: …, {survey.languages[1]}: …}} where the words differ",
        )
    ]  # fmt: skip
