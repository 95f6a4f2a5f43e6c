"""What is wrong, or dear, about how texts are written: characters that cost, texts that are cut, one wording for all."""

# ruff: noqa: RUF001 - the characters that editors put in are what this is about

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from engine.answers import NO_MEDIA
from engine.model.segments import LONGEST_SMS, count_segments, is_gsm
from engine.model.suggestions import did_you_mean
from engine.proofs.costs import longest_answer
from engine.proofs.regions import atoms_of
from engine.surveys.findings import SurveyFinding
from engine.surveys.program import QuestionStep, ReaskInvalid, Survey, SurveyStep, reask_texts
from engine.surveys.texts import LocalizedText, TextTemplate, literal_length, literal_text, template_slots
from engine.surveys.variables import BUILTIN_VARIABLES, answer_key

_BUILTIN_NAME = re.compile(r"\{(\$[A-Za-z_][\w-]*)")

_MAX_ODD_CHARACTERS = 4
"""So many different characters outside GSM-7 are an oversight; more are another script."""

_GSM_SPELLINGS = {
    "’": "'",
    "‘": "'",
    "‚": ",",
    "“": '"',
    "”": '"',
    "„": '"',
    "«": '"',
    "»": '"',
    "–": "-",
    "—": "-",
    "…": "...",
    "\u00a0": " ",
    "\u202f": " ",
    "\t": " ",
    "`": "'",
    "´": "'",
    "œ": "oe",
    "Œ": "OE",
    "•": "-",
    "·": "-",
    "ð": "d",
    "þ": "th",
    "ł": "l",
    "đ": "d",
    "ı": "i",
    "×": "x",
    "°": "o",
    "→": "->",
}
"""How the characters that editors and phones put in are written in GSM-7."""

_TYPICAL_ANSWER = "x" * 8
"""Stands for an answer when a text is judged by what its author wrote."""


def spelling_findings(survey: Survey) -> list[SurveyFinding]:
    """Findings about every text of the survey."""
    found: dict[SurveyFinding, None] = {}
    longest = _longest_values(survey)
    for where, name, text in _located_texts(survey):
        for language in survey.languages:
            for finding in (
                *_costly_characters(where, name, text, language),
                *_truncated_texts(longest, where, name, text, language),
            ):
                found[finding] = None
    return [*_keep_one_title(found), *_untranslated_texts(survey)]


def texts_without(survey: Survey, mention: str) -> list[str]:
    """The fields whose text, in one language or another, does not hold the word `mention`, each with its step."""
    lacking = (
        f"{name} of '{where}'" if where else name
        for where, name, text in _located_texts(survey)
        if not all(mention in literal_text(template) for template in text.values())
    )
    return list(dict.fromkeys(lacking))


def unknown_builtin_variables(survey: Survey) -> list[SurveyFinding]:
    """Report each `{$name}` in a text or condition that is none of the variables Parley supplies (see
    variables.BUILTIN_VARIABLES)."""
    named: dict[tuple[str, str], None] = {}
    for where, _, text in _located_texts(survey):
        for template in text.values():
            named |= dict.fromkeys((where, found) for found in _BUILTIN_NAME.findall(literal_text(template)))
    for step in survey.steps:
        places = (atom.step for route in step.routes for atom in atoms_of(route.when))
        named |= dict.fromkeys((step.id, place[1:]) for place in places if place.startswith("$$"))
    known = [place[1:] for place in BUILTIN_VARIABLES]
    return [
        SurveyFinding(
            "error", "untold", where, f"{name} is nothing that Parley tells{did_you_mean(name, known)}",
            f"write {', '.join(known)}, or a session variable without the $",
        )
        for where, name in named
        if answer_key(name) not in BUILTIN_VARIABLES
    ]  # fmt: skip


def _keep_one_title(found: Iterable[SurveyFinding]) -> list[SurveyFinding]:
    """The title stands in several texts, in every language."""
    titles = [finding for finding in found if finding.reason.startswith("field title ")]
    return [finding for finding in found if finding not in titles[1:]]


def _located_texts(survey: Survey) -> Iterator[tuple[str, str, LocalizedText]]:
    """Step, field and text of each, as its author knows them."""
    for step in survey.steps:
        yield step.id, "ask" if isinstance(step, QuestionStep) else "say", step.text
        for text in reask_texts(step):
            yield step.id, f"{_complaint_field(step, text)}, with the question after it,", text
        if isinstance(step, QuestionStep) and step.remind:
            yield step.id, "remind.text", step.remind.text
    for name, text in survey.texts.items():
        ours = name in ("stopped", "help", "opted_in") and _opens_with_title(text, survey.title)
        yield "", "title" if ours else f"texts.{name}", text


def _complaint_field(step: SurveyStep, text: LocalizedText) -> str:
    told = (
        step.invalid.texts
        if isinstance(step, QuestionStep) and isinstance(step.invalid, ReaskInvalid)
        else {}
    )
    return "texts.no_media" if told.get(NO_MEDIA) is text else "invalid"


def _opens_with_title(text: LocalizedText, title: str) -> bool:
    """Is it one of ours, in which only the title is the author's?"""
    return bool(title) and all(str(template).startswith(f"{title}: ") for template in text.values())


def _costly_characters(where: str, name: str, text: LocalizedText, language: str) -> Iterator[SurveyFinding]:
    """A few characters that more than halve what goes into a segment."""
    written = _typical_text(text[language])
    if is_gsm(written):
        return
    odd = sorted({c for c in written if not is_gsm(c)})
    if len(odd) > _MAX_ODD_CHARACTERS or name.endswith("with the question after it,"):
        return
    plain = {c: _gsm_spelling(c) for c in odd}
    mended = "".join(plain.get(c, c) for c in written)
    now, then = count_segments(written).segments, count_segments(mended).segments
    if then >= now and not _is_near_limit(written):
        return
    cost = f"{now} segments instead of {then}" if then < now else "70 characters a segment instead of 160"
    pairs = ", ".join(f"'{c}' as '{plain[c]}'" if plain[c] else f"no '{c}'" for c in odd)
    yield SurveyFinding(
        "warning",
        "ucs2",
        where,
        f"field {name} ({language}): {_list_characters(odd)} "
        f"{'make' if len(odd) > 1 else 'makes'} it UCS-2, {cost}",
        f"write {pairs}",
    )


def _is_near_limit(written: str) -> bool:
    """Is it so near a segment's end that a slightly longer answer tips it over?"""
    return len(written) > 60


def _typical_text(template: TextTemplate) -> str:
    if isinstance(template, str):
        return template
    return "".join(part if isinstance(part, str) else _TYPICAL_ANSWER[: part.max_length] for part in template)


def _gsm_spelling(c: str) -> str:
    if c in _GSM_SPELLINGS:
        return _GSM_SPELLINGS[c]
    bare = "".join(each for each in unicodedata.normalize("NFKD", c) if not unicodedata.combining(each))
    return bare if bare and is_gsm(bare) else ""


def _list_characters(odd: list[str]) -> str:
    return " and ".join(f"'{c}' (U+{ord(c):04X})" for c in odd)


def _truncated_texts(
    longest: Mapping[str, int], where: str, name: str, text: LocalizedText, language: str
) -> Iterator[SurveyFinding]:
    template = text[language]
    length = literal_length(template)
    for slot in template_slots(template):
        length += min(longest.get(slot.step, 0), slot.max_length or LONGEST_SMS)
    if length > LONGEST_SMS:
        names = ", ".join(
            dict.fromkeys(f"{{{slot.step.removeprefix('$')}}}" for slot in template_slots(template))
        )
        yield SurveyFinding(
            "warning", "too_long", where,
            f"field {name} ({language}): it can get {length} characters, and is cut after {LONGEST_SMS}",
            f"give {names} a length, such as {{name:40}}",
        )  # fmt: skip


def _longest_values(survey: Survey) -> dict[str, int]:
    """Characters that a placeholder can get, options aside."""
    variables = {answer_key(name): longest for name, longest in survey.variables.items()}
    return variables | {
        step.id: longest_answer(step.reader) for step in survey.steps if isinstance(step, QuestionStep)
    }


def _untranslated_texts(survey: Survey) -> list[SurveyFinding]:
    """Warn once if steps have the same text in every language, which may be intended."""
    if len(survey.languages) == 1:
        return []
    same = [step.id for step in survey.steps if len(set(step.text.values())) == 1]
    if not same:
        return []
    languages = ", ".join(survey.languages)
    return [
        SurveyFinding(
            "warning", "one_language", same[0],
            f"one text stands for all of {languages} in {len(same)} of {len(survey.steps)} steps: "
            f"{', '.join(same)}",
            f"write {{{survey.languages[0]}: …, {survey.languages[1]}: …}} where the words differ",
        )
    ]  # fmt: skip
