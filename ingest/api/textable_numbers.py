"""Whom may we text first? A mobile in E.164, as lanes are named; never a number that nobody has.

A channel that is simulated takes whatever can be dialled, so that trials need nobody's real number.
"""

import re
from functools import cache

import phonenumbers
from phonenumbers import NumberParseException, PhoneMetadata, PhoneNumber, PhoneNumberFormat, PhoneNumberType

from engine.model.errors import ParleyError
from engine.model.sender_numbers import normalize_number

EXPECTED_NUMBER = "expected a mobile number in full, such as +33612345678"

# else people of some forty countries in turn have patterns compiled for each
phonenumbers.enable_pattern_cache()

_MOBILE_TYPES = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)

_FICTIONAL_NUMBER = re.compile(
    r"\+(?:"
    r"1[2-9][0-9]{2}55501[0-9]{2}"  # 555-0100 to 555-0199 in every area: North America's
    r"|447700900[0-9]{3}"  # Ofcom's, for drama
    r"|3363998[0-9]{4}"  # Arcep's, for works of fiction
    r"|614915701(?:10|5[6-9])"  # ACMA's, for radio, books, film and TV
    r"|61491570006"
    r"|467017406(?:0[5-9]|[1-9][0-9])"  # PTS's, for books and films
    r")"
)
"""Mobile numbers that regulators keep for films, books and documentation."""

_COUNTRY_CODES = frozenset(map(str, phonenumbers.COUNTRY_CODE_TO_REGION_CODE))
_NOTHING = r"(?!)"


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
    if _is_plain_mobile(number):
        return number
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


def _is_plain_mobile(number: str) -> bool:
    """Whether this is a mobile in E.164 of which `phonenumbers.parse` would take nothing off. Nearly all are, and parsing is most
    of what a number costs."""
    country = next((code for code in (number[1:2], number[1:3], number[1:4]) if code in _COUNTRY_CODES), "")
    national = number[1 + len(country) :]
    if not country or not national or national.startswith("0") or _trunk_prefix(country).match(national):
        return False
    plain = PhoneNumber(country_code=int(country), national_number=int(national))
    return phonenumbers.number_type(plain) in _MOBILE_TYPES


@cache
def _trunk_prefix(country: str) -> re.Pattern[str]:
    """What is taken off if it stands behind a country's code, such as the 0 of +33 06 12 34 56 78."""
    code = int(country)
    region = phonenumbers.region_code_for_country_code(code)
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    return re.compile((metadata and metadata.national_prefix_for_parsing) or _NOTHING)
