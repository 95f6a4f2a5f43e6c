"""What we say for an author who wrote nothing: in every language of ours, shortly, and in GSM-7."""

import re
from importlib import import_module
from pkgutil import iter_modules

import msgspec
import pytest

from engine import answers
from engine.answers import (
    AnswerReader,
    InvalidAnswer,
    explain_invalid_answer,
    invalid_answer_text,
    invalid_reasons,
    read_answer,
)
from engine.answers.answer_type import Refusal
from engine.answers.dates import DateReader
from engine.answers.numbers import NumberReader
from engine.answers.phones import PhoneReader
from engine.answers.scales import ScaleReader
from engine.answers.several_choices import ChoicesReader
from engine.answers.text_answers import TextReader
from engine.answers.translations import Translated, TranslatedLimits
from engine.answers.type_registry import ANSWER_SPECS
from engine.answers.yes_no import YesNoAnswer, YesNoReader
from engine.model.patterns import compile_pattern
from engine.model.segments import count_segments
from engine.surveys import phrases
from engine.surveys.phrases import fixed_text
from tests.engine.answer_samples import COLOUR_IDS, COLOUR_PLACES, READERS, REFUSED, WRITTEN, today

LANGUAGES = ["en", "fr", "no"]
FIXED = ["gave_up", "unavailable", "not_found", "expired", "stopped", "help", "opted_in"]


def _translations():
    """Everything that answer types say in three languages, and where it stands."""
    for module in (import_module(f"engine.answers.{each.name}") for each in iter_modules(answers.__path__)):
        yield from _translations_within(vars(module), module.__name__)


def _translations_within(value, where):
    if isinstance(value, Translated):
        yield where, value
    elif isinstance(value, Refusal | TranslatedLimits):
        yield from _translations_within(msgspec.structs.asdict(value), where)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _translations_within(each, f"{where}.{name}")


TRANSLATIONS = dict(_translations())


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


def test_every_language_has_every_fixed_text_with_the_same_places_in_it():
    english = _places(phrases._FIXED_TEXTS["en"])
    assert all(_places(texts) == english for texts in phrases._FIXED_TEXTS.values())
    assert set(phrases._FIXED_TEXTS) == set(LANGUAGES)


@pytest.mark.parametrize("where", TRANSLATIONS)
def test_every_translation_has_the_same_places(where):
    said = _places(msgspec.structs.asdict(TRANSLATIONS[where]))
    assert list(said) == LANGUAGES
    assert len(set(map(frozenset, said.values()))) == 1


def _places(sentences):
    return {name: set(re.findall(r"\{\w+\}", sentence)) for name, sentence in sentences.items()}


def test_every_reader_is_tried():
    assert {type(reader) for reader, _ in REFUSED} == set(AnswerReader.__subclasses__())
    assert {type(reader) for reader in READERS.values()} == set(AnswerReader.__subclasses__())
    assert {written["type"] for written in WRITTEN} | {"phone"} == {
        spec.__struct_config__.tag for spec in ANSWER_SPECS
    }


@pytest.mark.parametrize("reader, refused", REFUSED)
def test_an_author_is_told_in_words_why_an_answer_was_refused(reader, refused):
    words = [explain_invalid_answer(reader, why) for why in [*refused, "reaction"]]
    assert len(set(words)) == len(words)
    assert all(each.split()[0] in ("it", "there") for each in words)


@pytest.mark.parametrize("one, other", [("en", "fr"), ("fr", "no"), ("no", "en")])
def test_no_language_borrows_a_sentence(one, other):
    assert not set(phrases._FIXED_TEXTS[one].values()) & set(phrases._FIXED_TEXTS[other].values())
    said = [msgspec.structs.asdict(each) for each in TRANSLATIONS.values()]
    sentences = [each for each in said if each["en"].endswith(".") and each["en"] != "."]
    assert len(sentences) > 30
    assert not {each[one] for each in sentences} & {each[other] for each in sentences}


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
            *(ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 1, 1), "too_many", "no"),
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
            *(ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 1, 3), "too_many", "en"),
            "That is too many. Please answer with 1 to 3 numbers from 1 to 4, such as 1 2.",
        ),
        (
            *(ChoicesReader(COLOUR_IDS, COLOUR_PLACES, 3, 3), "too_few", "en"),
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
    no, yes = YesNoAnswer().slot_words(language).labels
    assert read_answer(YesNoReader(), no, today).value is False
    assert read_answer(YesNoReader(), yes, today).value is True


@pytest.mark.parametrize(
    "language, yes",
    [("en-GB", "yes"), ("fr-CA", "oui"), ("nb", "ja"), ("nb-NO", "ja"), ("nn", "ja"), ("de", "yes")],
)
def test_a_variety_of_a_language_has_its_sentences_and_a_foreign_one_has_the_english(language, yes):
    assert YesNoAnswer().slot_words(language).labels[1] == yes


def test_only_what_answers_a_command_says_who_answers():
    told = [name for name in FIXED if "Clinic: " in fixed_text(name, "en", "START", "Clinic")]
    assert told == ["stopped", "help", "opted_in"]
    assert fixed_text("help", "en", "START").startswith("Text START to begin")


def test_nothing_is_said_by_default_at_the_end_or_to_whom_is_refused():
    assert [fixed_text(name, "en", "START") for name in ("completed", "refused")] == [None, None]
