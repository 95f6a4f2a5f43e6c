"""What does a survey's file call its questions and options, in each language? For whoever reads answers, not for those who
give them: without the lines of options that follow the question in an SMS."""

from typing import Any

import msgspec

from engine.answers.answer_type import AnswerSpec, WrittenText
from engine.answers.options import Option, normalize_option
from engine.surveys.documents import NO_LIMITS, parse_document
from engine.surveys.program import QuestionStep, Survey
from engine.surveys.survey_file import AskStep, convert_with_problems
from engine.surveys.wording import show_template


class QuestionWording(msgspec.Struct, frozen=True):
    """`texts` by language; `labels` of its options, or of numbers of its scale, by language and then by their id."""

    texts: dict[str, str]
    labels: dict[str, dict[str, str]] = {}


def read_question_wordings(survey: Survey) -> dict[str, QuestionWording]:
    """By step, in the order of the file."""
    written = _written_steps(survey)
    return {
        step.id: _word_question(survey, step, written.get(step.id))
        for step in survey.steps
        if isinstance(step, QuestionStep)
    }


def _written_steps(survey: Survey) -> dict[str, AskStep]:
    """The questions as they stand in a file of Parley's own language; none for any other."""
    raw = parse_document(survey.file, survey.source, NO_LIMITS)
    steps = raw.get("steps", []) if isinstance(raw, dict) else []
    asked = [
        convert_with_problems(each, AskStep)[0] for each in steps if isinstance(each, dict) and "ask" in each
    ]
    return {each.id: each for each in asked if each is not None}


def _word_question(survey: Survey, step: QuestionStep, written: AskStep | None) -> QuestionWording:
    if written is None:
        return QuestionWording({language: show_template(text) for language, text in step.text.items()})
    options = _list_options(written.answer)
    return QuestionWording(
        {language: _in_language(written.ask, language) for language in survey.languages},
        {
            language: {option.id: _in_language(option.label, language) for option in options}
            for language in survey.languages
            if options
        },
    )


def _list_options(spec: AnswerSpec) -> list[Option]:
    """Options, or labelled numbers, in the order of the file."""
    listed: Any = getattr(spec, "options", None) or getattr(spec, "labels", None) or []
    if isinstance(listed, dict):
        return [Option(number, label) for number, label in listed.items()]
    return [normalize_option(each) for each in listed]


def _in_language(text: WrittenText, language: str) -> str:
    if isinstance(text, str):
        return text
    return text.get(language) or next(iter(text.values()), "")
