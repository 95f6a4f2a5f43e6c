"""How replies are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.answers import (
    ChoiceReader,
    NumberReader,
    PhpNumberReader,
    TextReader,
    Unread,
    YesNoReader,
    is_numeric,
    read,
)
from engine.folding import clean, fold, fold_word
from engine.lane import Answer
from engine.patterns import compile_pattern

TEMPERATURE = NumberReader(min=80, max=115)
COLOURS = ChoiceReader(
    ("red", "green"), {"1": 0, "2": 1, "red": 0, "green": 1, "rouge": 0, "deep green": 1, "c++": 1}
)


@pytest.mark.parametrize(
    "sms, value",
    [
        ("98.6", 98.6),
        ("98,6", 98.6),
        (" 98.6 ", 98.6),
        ("９８．６", 98.6),
        ("98.6.", 98.6),
        ("98.6!", 98.6),
        ("+98", 98),
        ("98.0", 98.0),
        ("٩٨", 98),
        ("9\u200b8", 98),
        ("(98)", 98),
    ],
)
def test_a_number_is_read_as_people_write_it(sms, value):
    answer = read(TEMPERATURE, sms)
    assert isinstance(answer, Answer)
    assert (answer.value, answer.raw) == (value, sms)
    assert type(answer.value) is type(value)


@pytest.mark.parametrize(
    "sms, why",
    [
        ("", "not_a_number"),
        ("hot", "not_a_number"),
        ("98.6F", "not_a_number"),
        ("98 6", "not_a_number"),
        ("1e2", "not_a_number"),
        ("9" * 400, "not_a_number"),
        ("-", "not_a_number"),
        ("1,250", "ambiguous"),
        ("79.9", "too_low"),
        ("\u221298", "too_low"),
        ("115.1", "too_high"),
    ],
)
def test_what_is_no_number_here_is_refused_and_said_why(sms, why):
    assert read(TEMPERATURE, sms) == Unread(why)


def test_decimals_are_counted():
    whole = NumberReader(decimals=0)
    assert read(whole, "7") == Answer("7", 7)
    assert read(whole, "7.5") == Unread("decimals")


@pytest.mark.parametrize("sms", ["yes", "Y", "YES!", "oui", "Ja.", "ｏｋ", " y e s ".replace(" ", "\u200b")])
def test_yes_in_many_words(sms):
    assert read(YesNoReader(), sms) == Answer(sms, True)


@pytest.mark.parametrize("sms", ["no", "N", "nei", "Non.", "nope", "«no»"])
def test_no_in_many_words(sms):
    assert read(YesNoReader(), sms) == Answer(sms, False)


@pytest.mark.parametrize("sms", ["", "maybe", "yes and no", "1"])
def test_neither_yes_nor_no(sms):
    assert read(YesNoReader(), sms) == Unread("not_yes_or_no")


@pytest.mark.parametrize(
    "sms, place",
    [
        ("1", 0),
        ("2.", 1),
        ("2)", 1),
        ("Red", 0),
        ("RÖUGE", 0),
        ("deep   green", 1),
        ("“Green”", 1),
        ("２", 1),
        ("C++", 1),
    ],
)
def test_an_option_is_chosen_by_number_label_or_alias(sms, place):
    assert read(COLOURS, sms) == Answer(sms, COLOURS.ids[place], place)


@pytest.mark.parametrize("sms", ["", "0", "3", "blue", "1 2", "?"])
def test_no_such_option(sms):
    assert read(COLOURS, sms) == Unread("no_such_option")


def test_a_text_has_a_length_and_a_pattern():
    reader = TextReader(2, 5, compile_pattern("[a-z]+"))
    assert read(reader, " abc\n") == Answer(" abc\n", "abc")
    assert [read(reader, sms) for sms in ("a", "abcdef", "ABC")] == [
        Unread("too_short"),
        Unread("too_long"),
        Unread("pattern"),
    ]


# PHP 8: https://www.php.net/manual/en/language.types.numeric-strings.php
@pytest.mark.parametrize(
    "sms", [" 98.6", "98.6 ", "1e2", "1E-2", ".5", "1.", "+1", "-1.5", "\n1\t", "0123", "1e1000"]
)
def test_php_takes_it_for_a_number(sms):
    assert is_numeric(sms)
    assert isinstance(read(PhpNumberReader(), sms), Answer)


@pytest.mark.parametrize(
    "sms",
    ["", " ", ".", "98,6", "98.6F", "1e", "e1", "0x1A", "1_000", "- 5", "inf", "nan", "９８", "1\xa0", "--1"],
)
def test_php_does_not_take_it_for_a_number(sms):
    assert read(PhpNumberReader(), sms) == Unread("not_a_number")


@given(st.text())
def test_folding_is_idempotent(text):
    assert clean(clean(text)) == clean(text)
    assert fold(fold(text)) == fold(text)
    assert fold_word(fold_word(text)) == fold_word(text)


@given(st.text(), st.sampled_from([TEMPERATURE, COLOURS, YesNoReader(), PhpNumberReader(), TextReader(0, 9)]))
def test_what_was_written_is_kept_unchanged(sms, reader):
    answer = read(reader, sms)
    assert isinstance(answer, Unread) or answer.raw == sms


@given(st.floats(min_value=80, max_value=115))
def test_a_number_is_read_as_it_was_printed(number):
    answer = read(TEMPERATURE, f"{number:.6f}")
    assert isinstance(answer, Answer)
    assert answer.value == float(f"{number:.6f}")
