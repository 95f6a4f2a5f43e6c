"""Which phone number does a reply give? As E.164.

Only the number's length and its leading 0 are checked against its country's: which numbers are in use changes from one release of
phonenumbers to the next, and a stored conversation has to come out the same.
"""

import re

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, ValidationResult

from engine.answers.readers import InvalidAnswer, PhoneReader
from engine.model.events import Answer
from engine.model.text_normalization import clean_text

_LONGEST_PHONE = 80
"""Characters in which a number is looked for."""

_PHONE_AMONG_WORDS = re.compile(r"[^\d+*#]*?(\+|\(\+)?(\d[\d\s().,/'\u2010-\u2015\u2212-]*)[^\d+*#]*")
"""One number, among words that have no digits. What dials (`*31#`) is none."""

_NON_DIGITS = re.compile(r"\D+")


def read_phone(reader: PhoneReader, sms: str) -> Answer | InvalidAnswer:
    text = clean_text(sms) if len(sms) <= _LONGEST_PHONE else ""
    found = _PHONE_AMONG_WORDS.fullmatch(text)
    if found is None:
        return InvalidAnswer("not_a_phone")
    digits = _NON_DIGITS.sub("", found[2])
    international = found[1] is not None or digits.startswith("00")
    number = _to_e164(f"+{digits.removeprefix('00')}" if international else digits, reader.country)
    return InvalidAnswer("not_a_phone") if number is None else Answer(sms, number)


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
