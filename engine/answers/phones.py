"""The answer type `phone`: which phone number does a reply give? As E.164.

Only the number's length and its leading 0 are checked against its country's: which numbers are in use changes from one
release of phonenumbers to the next, and a stored conversation has to come out the same.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any, ClassVar

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

from engine.answers.answer_type import (
    AnswerReader,
    AnswerSpec,
    InvalidAnswer,
    Refusal,
    ReportProblem,
    SlotWords,
    Today,
    ValueDescription,
)
from engine.answers.proof_terms import AskedConditions, TextWidth
from engine.answers.translations import Translated
from engine.model.events import Answer
from engine.model.text_normalization import clean_text

_LONGEST_PHONE = 80
"""Characters in which a number is looked for."""

_PHONE_AMONG_WORDS = re.compile(r"[^\d+*#]*?(\+|\(\+)?(\d[\d\s().,/'\u2010-\u2015\u2212-]*)[^\d+*#]*")
"""One number, among words that have no digits. What dials (`*31#`) is none."""

_NON_DIGITS = re.compile(r"\D+")


_LONGEST_E164 = len("+") + 15

_NOT_A_PHONE = Refusal(
    "not_a_phone",
    Translated(
        en="We found no phone number in that.",
        fr="Nous n'y trouvons pas de numéro de téléphone.",
        no="Vi fant ikke noe telefonnummer i det.",
    ),
    "it is no phone number",
)
_EXPECTED_PHONE = Translated(
    en="Please answer with a phone number.",
    fr="Veuillez répondre par un numéro de téléphone.",
    no="Svar med et telefonnummer.",
)
_EXPECTED_INTERNATIONAL_PHONE = Translated(
    en="Please answer with a phone number that begins with + and the country code.",
    fr="Veuillez répondre par un numéro de téléphone qui commence par + et l'indicatif du pays.",
    no="Svar med et telefonnummer som begynner med + og landskoden.",
)


class PhoneAnswer(AnswerSpec, frozen=True, tag="phone"):
    """`country`, two letters, is whose a number without a country code is."""

    country: str | None = None

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "A phone number; stored as E.164, such as +33612345678.",
        "country": "Whose a number without a country code is: two capital letters such as FR.",
    }
    schema_limits: ClassVar[Mapping[str, Mapping[str, Any]]] = {"country": {"pattern": "^[A-Z]{2}$"}}

    def compile_reader(self, report: ReportProblem) -> "PhoneReader":
        if self.country is not None and not re.fullmatch(r"[A-Z]{2}", self.country):
            report(f"field answer.country: found '{self.country}', expected two capital letters such as FR")
        return PhoneReader(self.country)

    def describe_values(self) -> ValueDescription:
        return ValueDescription("text", country=self.country or "")


class PhoneReader(AnswerReader, frozen=True):
    """`country` (two capital letters) is whose a number without a country code is; None: it must have one."""

    country: str | None = None

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        text = clean_text(sms) if len(sms) <= _LONGEST_PHONE else ""
        found = _PHONE_AMONG_WORDS.fullmatch(text)
        if found is None:
            return InvalidAnswer(_NOT_A_PHONE.reason)
        digits = _NON_DIGITS.sub("", found[2])
        international = found[1] is not None or digits.startswith("00")
        number = _to_e164(f"+{digits.removeprefix('00')}" if international else digits, self.country)
        return InvalidAnswer(_NOT_A_PHONE.reason) if number is None else Answer(sms, number)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (_NOT_A_PHONE,)

    def expected_answer(self, language: str) -> str:
        expected = _EXPECTED_INTERNATIONAL_PHONE if self.country is None else _EXPECTED_PHONE
        return expected.say(language)

    def describe_answers(self) -> str:
        return f"phone number ({self.country})" if self.country else "phone number"

    def put_in_text(self, words: SlotWords) -> TextWidth:
        del words
        return TextWidth(_LONGEST_E164)

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        del today
        return ("+33612345678", *map(str, asked.equals))

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        return asked.asks_nothing_but_presence

    def invalid_replies(self) -> Iterable[str]:
        return ("?", "0")


def _to_e164(digits: str, country: str | None) -> str | None:
    """The number in E.164; None if its country, or its length, cannot be one's."""
    try:
        number = phonenumbers.parse(digits, country)
    except NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
        return None
    if number.italian_leading_zero and not phonenumbers.is_valid_number(number):
        return None  # in Italy and few other countries a number begins with 0; elsewhere a digit is missing
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)
