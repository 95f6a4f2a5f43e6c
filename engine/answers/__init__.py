"""How a reply is read: one reader per answer type, and what it makes of an SMS.

A reader takes an SMS as it came and gives an Answer, whose `raw` is that SMS unchanged, or says why it cannot. It
takes what has one meaning, however it is spelled, and guesses nothing: who wrote something else is asked again,
which costs less than a wrong answer. No SMS raises, or costs more than a millisecond.
"""

from typing import assert_never

from engine.answers.dates import read_date
from engine.answers.numbers import is_numeric, read_number, read_php_number, read_scale
from engine.answers.options import read_choice, read_choices
from engine.answers.phones import read_phone
from engine.answers.reactions import is_reaction
from engine.answers.readers import (
    AnythingReader,
    ChoiceReader,
    ChoicesReader,
    DateReader,
    InvalidAnswer,
    InvalidReason,
    NumberReader,
    PhoneReader,
    PhpNumberReader,
    Reader,
    ScaleReader,
    TextReader,
    Today,
    YesNoReader,
)
from engine.answers.yes_no import NO_WORDS, YES_WORDS, read_yes_no
from engine.model.events import Answer
from engine.model.text_normalization import clean_text

__all__ = [
    "NO_WORDS",
    "YES_WORDS",
    "AnythingReader",
    "ChoiceReader",
    "ChoicesReader",
    "DateReader",
    "InvalidAnswer",
    "InvalidReason",
    "NumberReader",
    "PhoneReader",
    "PhpNumberReader",
    "Reader",
    "ScaleReader",
    "TextReader",
    "Today",
    "YesNoReader",
    "is_numeric",
    "read_answer",
]  # fmt: skip

_PHP_READERS = (AnythingReader, PhpNumberReader)
"""questions.json knows nothing of reactions."""


def read_answer(reader: Reader, sms: str, today: Today) -> Answer | InvalidAnswer:
    """The answer, or why there is none. `today` is called for a date only."""
    if (not sms.isascii() or '"' in sms) and not isinstance(reader, _PHP_READERS) and is_reaction(sms):
        return InvalidAnswer("reaction")
    match reader:
        case TextReader():
            return _read_text(reader, sms)
        case NumberReader():
            return read_number(reader, sms)
        case ChoiceReader():
            return read_choice(reader, sms)
        case YesNoReader():
            return read_yes_no(reader, sms)
        case ScaleReader():
            return read_scale(reader, sms)
        case PhpNumberReader():
            return read_php_number(sms)
        case AnythingReader():
            return Answer(sms, sms)
        case ChoicesReader():
            return read_choices(reader, sms)
        case DateReader():
            return read_date(reader, sms, today)
        case PhoneReader():
            return read_phone(reader, sms)
        case _:
            assert_never(reader)


def _read_text(reader: TextReader, sms: str) -> Answer | InvalidAnswer:
    text = clean_text(sms)
    if len(text) < reader.min:
        return InvalidAnswer("too_short")
    if len(text) > reader.max:
        return InvalidAnswer("too_long")
    if reader.pattern is not None and reader.pattern.fullmatch(text) is None:
        return InvalidAnswer("pattern")
    return Answer(sms, text)
