"""What we say for an author who wrote nothing: in every language of ours, shortly, and in GSM-7."""

import re
from datetime import date

import pytest

from engine.answers import (
    AnythingReader,
    ChoiceReader,
    ChoicesReader,
    DateReader,
    InvalidAnswer,
    NumberReader,
    PhoneReader,
    PhpNumberReader,
    ScaleReader,
    TextReader,
    YesNoReader,
    read_answer,
)
from engine.model.patterns import compile_pattern
from engine.model.segments import count_segments
from engine.surveys import phrases
from engine.surveys.phrases import fixed_text, invalid_answer_text, invalid_reasons, yes_no_words

LANGUAGES = ["en", "fr", "no"]
FIXED = ["unavailable", "not_found", "expired", "stopped", "help", "opted_in"]
TABLES = {"en": phrases._ENGLISH, "fr": phrases._FRENCH, "no": phrases._NORWEGIAN}

COLOURS = ("red", "green", "blue", "pink")
PLACES = {"1": 0, "2": 1, "3": 2, "4": 3}

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
    (ChoiceReader(COLOURS, PLACES), {"no_such_option": "5"}),
    (ChoicesReader(COLOURS, PLACES, 1, 4), {"no_such_option": "5"}),
    (ChoicesReader(COLOURS, PLACES, 1, 1), {"no_such_option": "5", "too_many": "1 2"}),
    (ChoicesReader(COLOURS, PLACES, 2, 3), {"no_such_option": "5", "too_few": "1", "too_many": "all"}),
    (ChoicesReader(COLOURS, PLACES, 2, 2), {"no_such_option": "5", "too_few": "1", "too_many": "all"}),
    (DateReader(), NO_DATE),
    (DateReader("2020-01-01", "today"), NO_DATE | {"too_early": "31/12/2019", "too_late": "tomorrow"}),
    (DateReader("today", "2030-12-31", "mdy"), NO_DATE | {"too_early": "hier", "too_late": "01/01/2031"}),
    (DateReader(max="today"), NO_DATE | {"too_late": "22/11/2026"}),
    (DateReader(min="today"), NO_DATE | {"too_early": "20/11/2026"}),
    (PhoneReader(), {"not_a_phone": "06 12 34 56 78"}),
    (PhoneReader("FR"), {"not_a_phone": "12"}),
    (PhpNumberReader(), {"not_a_number": "hot"}),
    (AnythingReader(), {}),
]  # fmt: skip


def today():
    return date(2026, 11, 21)


@pytest.mark.parametrize("reader, refused", REFUSED)
def test_a_reader_has_the_whys_that_it_gives_and_no_others(reader, refused):
    assert set(invalid_reasons(reader)) == set(refused)
    for why, sms in refused.items():
        assert read_answer(reader, sms, today) == InvalidAnswer(why)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reader, refused", REFUSED)
def test_every_refusal_is_one_segment_of_whole_sentences(reader, refused, language):
    for why in refused:
        sentence = invalid_answer_text(reader, why, language)
        assert (count_segments(sentence).encoding, count_segments(sentence).segments) == ("GSM-7", 1), (
            sentence
        )
        assert re.fullmatch(r"[A-ZÅÆØ][^{}]+\. [A-ZÅÆØ][^{}]+\.", sentence), sentence
        assert "None" not in sentence


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", FIXED)
def test_every_fixed_text_is_one_segment(name, language):
    sentence = fixed_text(name, language, "UNDERSØK", "Online clinic check-up")
    assert (count_segments(sentence).encoding, count_segments(sentence).segments) == ("GSM-7", 1), sentence
    assert "UNDERSØK" in sentence


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_sentence_with_the_same_places_in_it(language):
    table, english = TABLES[language], TABLES["en"]
    for field in ("fixed", "wrong", "expected", "number_limits", "date_limits", "dates"):
        assert _places(getattr(table, field)) == _places(getattr(english, field)), field


def _places(sentences):
    return {name: set(re.findall(r"\{\w+\}", sentence)) for name, sentence in sentences.items()}


def test_there_is_a_sentence_for_every_why_but_a_reaction():
    given = {why for _, refused in REFUSED for why in refused}
    assert given == set(TABLES["en"].wrong)


@pytest.mark.parametrize("one, other", [("en", "fr"), ("fr", "no"), ("no", "en")])
def test_no_language_borrows_a_sentence(one, other):
    for field in ("fixed", "wrong", "expected"):
        sentences = getattr(TABLES[one], field)
        assert not set(sentences.values()) & set(getattr(TABLES[other], field).values())


@pytest.mark.parametrize(
    "reader, why, language, sentence",
    [
        (
            NumberReader(80, 115),
            "too_low",
            "en",
            "That is too low. Please answer with a number from 80 to 115.",
        ),
        (
            *(NumberReader(38.5, None), "too_low", "fr"),
            "Ce nombre est trop petit. Veuillez répondre par un nombre d'au moins 38,5.",
        ),
        (NumberReader(max=1e6), "too_high", "no", "Det er for høyt. Svar med et tall på høyst 1000000."),
        (
            *(NumberReader(0, 1, 2), "decimals", "en"),
            "That has too many decimals. Please answer with a number from 0 to 1, with at most 2 decimals.",
        ),
        (ScaleReader(1, 10), "too_high", "no", "Det er for høyt. Svar med et helt tall fra 1 til 10."),
        (
            *(TextReader(2, 5, compile_pattern("[A-Z]+")), "pattern", "en"),
            "That is not written as we need it. Please check it and answer again.",
        ),
        (TextReader(1, 40), "too_long", "en", "That is too long. Please answer in at most 40 characters."),
        (TextReader(2, 40), "too_short", "fr", "C'est trop court. Veuillez répondre en 2 à 40 caractères."),
        (
            *(ChoicesReader(COLOURS, PLACES, 1, 1), "too_many", "no"),
            "Det er for mange. Svar med ett tall fra 1 til 4.",
        ),
        (
            *(PhoneReader(), "not_a_phone", "no"),
            "Vi fant ikke noe telefonnummer i det. Svar med et telefonnummer som begynner med + og landskoden.",
        ),
        (
            *(PhoneReader("FR"), "not_a_phone", "en"),
            "We found no phone number in that. Please answer with a phone number.",
        ),
        (YesNoReader(), "not_yes_or_no", "fr", "Ce n'est ni oui ni non. Veuillez répondre oui ou non."),
        (
            *(ChoicesReader(COLOURS, PLACES, 1, 3), "too_many", "en"),
            "That is too many. Please answer with 1 to 3 numbers from 1 to 4, such as 1 2.",
        ),
        (
            *(ChoicesReader(COLOURS, PLACES, 3, 3), "too_few", "en"),
            "That is too few. Please answer with 3 numbers from 1 to 4, such as 1 2 3.",
        ),
        (
            *(DateReader(order="mdy"), "no_year", "en"),
            "The year is missing. Please answer with a date such as 12/31/2030.",
        ),
        (
            *(DateReader("2020-01-01", "today"), "too_late", "no"),
            "Det er for sent. Svar med en dato, for eksempel 01.01.2020, fra 01.01.2020 til i dag.",
        ),
    ],
)
def test_a_refusal_says_why_and_what_is_expected(reader, why, language, sentence):
    assert invalid_answer_text(reader, why, language) == sentence


@pytest.mark.parametrize("reader", [reader for reader, _ in REFUSED if isinstance(reader, DateReader)])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_date_that_a_refusal_shows_is_one_that_is_taken(reader, language):
    shown = re.search(r"\d+[./]\d+[./]\d+", invalid_answer_text(reader, "not_a_date", language))
    assert not isinstance(read_answer(reader, shown.group(), today), InvalidAnswer)


@pytest.mark.parametrize("reader", [reader for reader, _ in REFUSED if isinstance(reader, ChoicesReader)])
def test_the_choice_that_a_refusal_shows_is_one_that_is_taken(reader):
    shown = re.search(r"such as ([\d ]+)", invalid_answer_text(reader, "no_such_option", "en"))
    if shown:
        assert not isinstance(read_answer(reader, shown[1], today), InvalidAnswer)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_words_for_no_and_yes_are_read_as_such(language):
    no, yes = yes_no_words(language)
    assert read_answer(YesNoReader(), no, today).value is False
    assert read_answer(YesNoReader(), yes, today).value is True


@pytest.mark.parametrize(
    "language, yes",
    [("en-GB", "yes"), ("fr-CA", "oui"), ("nb", "ja"), ("nb-NO", "ja"), ("nn", "ja"), ("de", "yes")],
)
def test_a_variety_of_a_language_has_its_sentences_and_a_foreign_one_has_the_english(language, yes):
    assert yes_no_words(language)[1] == yes


def test_only_what_answers_a_command_says_who_answers():
    told = [name for name in FIXED if "Clinic: " in fixed_text(name, "en", "START", "Clinic")]
    assert told == ["stopped", "help", "opted_in"]
    assert fixed_text("help", "en", "START").startswith("Text START to begin")


def test_nothing_is_said_by_default_at_the_end_or_to_whom_is_refused():
    assert [fixed_text(name, "en", "START") for name in ("completed", "refused")] == [None, None]
