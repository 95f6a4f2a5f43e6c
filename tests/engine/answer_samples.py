"""Every answer type, by samples: what an author writes, the readers that it becomes, and what those refuse. A new type
has its rows here, and then holds what test_replies.py, test_phrases.py and the random surveys say of every type.
"""

from datetime import date, time

import msgspec

from engine.answers.dates import DateReader
from engine.answers.numbers import NumberReader
from engine.answers.octopush_answers import AnythingReader, PhpNumberReader
from engine.answers.phones import PhoneReader
from engine.answers.scales import ScaleReader
from engine.answers.several_choices import ChoicesReader
from engine.answers.single_choice import ChoiceReader
from engine.answers.text_answers import TextReader
from engine.answers.times_of_day import TimeReader
from engine.answers.yes_no import YesNoReader
from engine.model.patterns import compile_pattern

TODAY = date(2026, 11, 21)


def today():
    return TODAY


WRITTEN = [
    {"type": "yes_no"},
    {"type": "choice", "options": ["red", "ça", "a long label"]},
    {"type": "choices", "options": ["x", "y", "zoo"], "min": 1, "max": 2},
    {"type": "choices", "options": ["x", "y", {"id": "zoo", "label": "none", "exclusive": True}]},
    {"type": "number", "min": 0, "max": 3, "decimals": 0},
    {"type": "number", "min": 0, "max": 2},
    {"type": "scale", "from": 1, "to": 3, "labels": {"1": "bad", "3": "good"}},
    {"type": "text", "max": 5},
    {"type": "date", "min": "2030-01-01", "max": "2030-01-03"},
    {"type": "time", "min": "09:00", "max": "17:00"},
    {"type": "anything"},
    {"type": "numeric"},
]  # fmt: skip
"""Answers as an author writes them: of which random surveys are made."""

COMPARED = {
    "yes_no": [{"equals": "yes"}, {"equals": "no"}],
    "choice": [{"equals": "red"}, {"one_of": ["red", "ça"]}],
    "choices": [{"contains": "x"}, {"equals": "y"}, {"contains": ["y", "zoo"]}],
    "number": [{"at_least": 2}, {"below": 1}, {"above": 1, "at_most": 2}, {"equals": 0}],
    "scale": [{"at_least": 2}, {"below": 2}, {"equals": 3}],
    "text": [{"equals": "yes"}, {"contains": "a"}, {"contains_word": "ab"}, {"matches": "[0-9]+"}],
    "date": [{"at_least": "2030-01-02"}, {"below": "2030-01-02"}],
    "time": [{"at_least": "12:00"}, {"below": "12:00"}, {"equals": "17:00"}],
    "anything": [{"equals": "yes"}, {"contains": "a"}, {"answered": True}],
    "numeric": [{"at_least": 2}, {"below": 1}, {"above": 1, "at_most": 2}],
}
"""By type, conditions on such answers."""

REPLIES = [
    "yes", "no", "1", "2", "3", "0", "1.5", "1 2", "2 3", "1 3", "2030-01-01", "2030-01-02", "2030-01-03",
    "😀" * 5, "a" + "😀" * 4, "ab", "12", "yes" + "\U0001e8d0" * 2, "12" + "\U0001e8d0" * 3, "?", "", "xxxxxx", "99", "-1", "1 2 3", "0.001",
    "1.99999999999999", "1,250", "31/02/2030", "31/12", "2031-01-01", "2029-01-01",
    "09:00", "12:00", "17:00", "08:59", "17:01", "8:30", "25:00", "14:30 or 15:00",
]  # fmt: skip
"""An answer of each region that COMPARED makes of WRITTEN, the dearest among them, and an SMS that is none for each
reason."""

NAME = TextReader(2, 8, compile_pattern("[A-Za-zé -]+"))
TEMPERATURE = NumberReader(min=80, max=115)
STARS = ScaleReader(1, 10, {"awful": 1, "very good": 10})
COLOURS = ChoiceReader(
    ("red", "green"),
    {"1": 0, "2": 1, "red": 0, "green": 1, "rouge": 0, "deep green": 1, "c++": 1, "i'm blue": 0},
)
TOPPINGS = ChoicesReader(
    ("tomato", "basil", "oil", "years"),
    dict.fromkeys(["1", "tomato", "tomatoes"], 0)
    | dict.fromkeys(["2", "basil", "salt"], 1)
    | dict.fromkeys(["3", "oil", "salt and oil"], 2)
    | dict.fromkeys(["4", "oil, red", "3-4 years", "c++"], 3),
    2,
    3,
)

READERS = {
    "text": TextReader(1, 640),
    "name": NAME,
    "number": NumberReader(),
    "temperature": TEMPERATURE,
    "decimals": NumberReader(0, 1, 2),
    "scale": STARS,
    "yes_no": YesNoReader(frozenset({"sim"}), frozenset({"nunca"})),
    "choice": COLOURS,
    "choices": TOPPINGS,
    "choices or none": msgspec.structs.replace(TOPPINGS, exclusive=(1,)),
    "birthday": DateReader(max="today"),
    "appointment": DateReader(min="today", max="2030-12-31", order="mdy"),
    "any time": TimeReader(),
    "office hours": TimeReader("09:00", "17:00"),
    "phone": PhoneReader("FR"),
    "world phone": PhoneReader(),
    "anything": AnythingReader(),
    "php": PhpNumberReader(),
}
"""By which test_replies.py tries every SMS."""


def is_answer_of(reader, answer):
    """Is it an answer that `reader` may give?"""
    value = answer.value
    match reader:
        case TextReader():
            return reader.min <= len(value) <= reader.max
        case NumberReader(low, high):
            return (low is None or value >= low) and (high is None or value <= high)
        case ScaleReader(low, high):
            return type(value) is int and low <= value <= high
        case YesNoReader():
            return type(value) is bool
        case ChoiceReader(ids):
            return value == ids[answer.index]
        case ChoicesReader(ids, _, least, most, exclusive):
            alone = len(value) == 1 and answer.indexes[0] in exclusive
            together = least <= len(value) <= most and not {*answer.indexes} & {*exclusive}
            return (alone or together) and value == tuple(ids[place] for place in answer.indexes)
        case DateReader():
            return date.fromisoformat(value).isoformat() == value
        case TimeReader(low, high):
            return time.fromisoformat(value).strftime("%H:%M") == value and (low or "") <= value <= (
                high or "24"
            )
        case PhoneReader():
            return value[0] == "+" and value[1:].isdecimal() and value.isascii()
        case AnythingReader():
            return value == answer.raw
        case PhpNumberReader():
            return type(value) is float


COLOUR_IDS = ("red", "green", "blue", "pink")
COLOUR_PLACES = {"1": 0, "2": 1, "3": 2, "4": 3}

NO_TIME = {"not_a_time": "soon", "ambiguous": "14:30 or 15:00", "am_or_pm": "8:30", "no_such_time": "25:00"}
NO_DATE = {"not_a_date": "soon", "no_year": "21 nov", "no_such_day": "0/0/2020"}

# Each reader, and for each of its whys an SMS that it refuses for it.
REFUSED = [
    (TextReader(0, 40), {"too_long": "a" * 41}),
    (TextReader(1, 640), {"too_short": "", "too_long": "a" * 641}),
    (TextReader(3, 5, compile_pattern("[A-Z]+")), {"too_short": "A", "too_long": "A" * 6, "pattern": "abc"}),
    (NumberReader(), {"not_a_number": "hot", "ambiguous": "1,250"}),
    (NumberReader(decimals=0), {"not_a_number": "", "ambiguous": "1 or 2", "decimals": "1.5"}),
    (NumberReader(min=18, decimals=1), {"not_a_number": "", "ambiguous": "9/9", "decimals": "20.55", "too_low": "17"}),
    (NumberReader(max=4.5, decimals=2), {"not_a_number": "", "ambiguous": "½", "decimals": "0.123", "too_high": "5"}),
    (NumberReader(80, 115), {"not_a_number": "", "ambiguous": "1,250", "too_low": "79", "too_high": "116"}),
    (ScaleReader(1, 10), {"not_a_number": "?", "too_low": "0", "too_high": "11"}),
    (YesNoReader(), {"not_yes_or_no": "perhaps"}),
    (ChoiceReader(COLOUR_IDS, COLOUR_PLACES), {"no_such_option": "5"}),
    (ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 1, 4), {"no_such_option": "5"}),
    (ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 1, 1), {"no_such_option": "5", "too_many": "1 2"}),
    (ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 2, 3), {"no_such_option": "5", "too_few": "1", "too_many": "all"}),
    (ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 1, 3, (3,)), {"no_such_option": "5", "combined": "2, 4"}),
    (ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 2, 2, (0, 3)), {"no_such_option": "5", "too_few": "2", "combined": "4 1"}),
    (ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 2, 2), {"no_such_option": "5", "too_few": "1", "too_many": "all"}),
    (DateReader(), NO_DATE),
    (DateReader("2020-01-01", "today"), NO_DATE | {"too_early": "31/12/2019", "too_late": "tomorrow"}),
    (DateReader("today", "2030-12-31", "mdy"), NO_DATE | {"too_early": "hier", "too_late": "01/01/2031"}),
    (DateReader(max="today"), NO_DATE | {"too_late": "22/11/2026"}),
    (DateReader(min="today"), NO_DATE | {"too_early": "20/11/2026"}),
    (TimeReader(), NO_TIME),
    (TimeReader("09:00"), NO_TIME | {"too_early": "08:59"}),
    (TimeReader(max="17:00"), NO_TIME | {"too_late": "17:01"}),
    (TimeReader("09:00", "17:00"), NO_TIME | {"too_early": "8 am", "too_late": "23h"}),
    (PhoneReader(), {"not_a_phone": "06 12 34 56 78"}),
    (PhoneReader("FR"), {"not_a_phone": "12"}),
    (PhpNumberReader(), {"not_a_number": "hot"}),
    (AnythingReader(), {}),
]  # fmt: skip
