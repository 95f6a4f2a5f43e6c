"""What did the author of a survey write? The questions and variables of its file, which compiling resolves and forgets:
labels of options, spellings, texts with their placeholders.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engine.answers.answer_type import AnswerSpec, WrittenText
from engine.answers.octopush_answers import AnythingAnswer, NumericAnswer, PhpNumberReader
from engine.surveys.documents import NO_LIMITS, parse_document
from engine.surveys.program import QuestionStep, Survey
from engine.surveys.survey_file import AskStep, convert_with_problems


class WrittenQuestion(msgspec.Struct, frozen=True):
    """A question as its author wrote it, its text by language."""

    step: str
    texts: Mapping[str, str]
    answer: AnswerSpec


def written_questions(survey: Survey) -> list[WrittenQuestion]:
    """The survey's questions, in its order."""
    raw = parse_document(survey.file, survey.source, NO_LIMITS)
    if isinstance(raw, list):
        return [
            WrittenQuestion(step.id, _plain_texts(step), _answer_of_item(step))
            for step in survey.steps
            if isinstance(step, QuestionStep)
        ]
    converted = [convert_with_problems(each, AskStep)[0] for each in _asked_steps(raw)]
    return [
        WrittenQuestion(each.id, text_by_language(each.ask, survey.languages), each.answer)
        for each in converted
        if each is not None
    ]


def written_variables(survey: Survey) -> list[str]:
    """The variables that the survey's file declares, as they are spelled there."""
    raw = parse_document(survey.file, survey.source, NO_LIMITS)
    declared = raw.get("variables", []) if isinstance(raw, dict) else []
    return list(map(str, declared))


def text_by_language(written: WrittenText, languages: Sequence[str]) -> dict[str, str]:
    """The text in each language, in which it is sent: a missing translation is the first language's."""
    if isinstance(written, str):
        return dict.fromkeys(languages, written)
    missing = written.get(languages[0]) or next(iter(written.values()), "")
    return {language: written.get(language) or missing for language in languages}


def _asked_steps(raw: Any) -> list[Mapping[str, object]]:
    return [each for each in raw["steps"] if "ask" in each]


def _plain_texts(step: QuestionStep) -> dict[str, str]:
    """The text of an item of questions.json, which has no placeholders."""
    return {language: str(text) for language, text in step.text.items()}


def _answer_of_item(step: QuestionStep) -> AnswerSpec:
    return NumericAnswer() if isinstance(step.reader, PhpNumberReader) else AnythingAnswer()
