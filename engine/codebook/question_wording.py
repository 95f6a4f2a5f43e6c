"""What does a survey's file call its questions and options, in each language? For whoever reads answers, not for those who
give them: without the lines of options that follow the question in an SMS."""

from typing import Any

import msgspec

from engine.answers.answer_type import AnswerSpec
from engine.answers.options import Option, normalize_option
from engine.surveys.program import Survey
from engine.surveys.written_questions import WrittenQuestion, text_by_language, written_questions


class QuestionWording(msgspec.Struct, frozen=True):
    """`texts` by language; `labels` of its options, or of numbers of its scale, by language and then by their id."""

    texts: dict[str, str]
    labels: dict[str, dict[str, str]] = {}


def read_question_wordings(survey: Survey) -> dict[str, QuestionWording]:
    """By step, in the order of the file."""
    return {question.step: _word_question(survey, question) for question in written_questions(survey)}


def _word_question(survey: Survey, question: WrittenQuestion) -> QuestionWording:
    options = _list_options(question.answer)
    worded = {option.id: text_by_language(option.label, survey.languages) for option in options}
    labels = {
        language: {identity: texts[language] for identity, texts in worded.items()}
        for language in survey.languages
        if options
    }
    return QuestionWording(dict(question.texts), labels)


def _list_options(spec: AnswerSpec) -> list[Option]:
    """Options, or labelled numbers, in the order of the file."""
    listed: Any = getattr(spec, "options", None) or getattr(spec, "labels", None) or []
    if isinstance(listed, dict):
        return [Option(number, label) for number, label in listed.items()]
    return [normalize_option(each) for each in listed]
