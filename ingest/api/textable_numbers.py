"""Whom may we text first? A mobile in E.164, as lanes are named; never a number that nobody has.

A channel that is simulated takes whatever can be dialled, so that trials need nobody's real number.
"""

import re

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

from engine.model.errors import ParleyError
from engine.model.sender_numbers import normalize_number

EXPECTED_NUMBER = "expected a mobile number in full, such as +33612345678"

_MOBILE_TYPES = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)

_FICTIONAL_NUMBER = re.compile(
    r"\+(?:"
    r"1[2-9][0-9]{2}55501[0-9]{2}"  # 555-0100 to 555-0199 in every area: the North American plan's, for fiction
    r"|447700900[0-9]{3}"  # Ofcom's, for drama
    r"|3363998[0-9]{4}"  # Arcep's, for works of fiction
    r"|614915701(?:10|5[6-9])"  # ACMA's, for radio, books, film and TV
    r"|61491570006"
    r"|467017406(?:0[5-9]|[1-9][0-9])"  # PTS's, for books and films
    r")"
)
"""Mobile numbers that regulators keep for films, books and documentation."""


class UntextableNumberError(ParleyError):
    """We may not text it. The message says why, without the number."""


def textable_number(written: str, *, simulated: bool) -> str:
    """The number in E.164. Raises UntextableNumberError."""
    number = normalize_number(written) if written.lstrip().startswith(("+", "00")) else None
    if number is None:
        raise UntextableNumberError(EXPECTED_NUMBER)
    return number if simulated else _mobile_number(number)


def _mobile_number(number: str) -> str:
    if _FICTIONAL_NUMBER.fullmatch(number):
        raise UntextableNumberError(
            f"this number is kept for films and documentation, and nobody has it: {EXPECTED_NUMBER}"
        )
    try:
        parsed = phonenumbers.parse(number)
    except NumberParseException:
        raise UntextableNumberError(f"no country has this code: {EXPECTED_NUMBER}") from None
    kind = phonenumbers.number_type(parsed)
    if kind == PhoneNumberType.UNKNOWN:
        raise UntextableNumberError(f"no number of this country looks like this: {EXPECTED_NUMBER}")
    if kind not in _MOBILE_TYPES:
        raise UntextableNumberError(f"this is no mobile, and gets no SMS: {EXPECTED_NUMBER}")
    return phonenumbers.format_number(parsed, PhoneNumberFormat.E164)
