"""Which answer types are there? A new one is a file like dates.py, and its spec in this union."""

from typing import get_args

from engine.answers.answer_type import AnswerSpec
from engine.answers.dates import DateAnswer
from engine.answers.numbers import NumberAnswer
from engine.answers.octopush_answers import AnythingAnswer, NumericAnswer
from engine.answers.phones import PhoneAnswer
from engine.answers.scales import ScaleAnswer
from engine.answers.several_choices import ChoicesAnswer
from engine.answers.single_choice import ChoiceAnswer
from engine.answers.text_answers import TextAnswer
from engine.answers.times_of_day import TimeAnswer
from engine.answers.yes_no import YesNoAnswer

AnyAnswerSpec = (
    TextAnswer
    | NumberAnswer
    | ScaleAnswer
    | YesNoAnswer
    | ChoiceAnswer
    | ChoicesAnswer
    | DateAnswer
    | TimeAnswer
    | PhoneAnswer
    | AnythingAnswer
    | NumericAnswer
)
"""What an author may write under `answer`."""

ANSWER_SPECS: tuple[type[AnswerSpec], ...] = get_args(AnyAnswerSpec)
"""In the order in which they are listed to an author."""


def bound_preposition(bound: str) -> str:
    """ "on" for a day that conditions compare answers with, "at" for a time."""
    return next((word for spec in ANSWER_SPECS if (word := spec.bound_preposition(bound))), "on")
