"""Whom we may text first, and why not."""

import phonenumbers
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.model.sender_numbers import normalize_number
from ingest.api import textable_numbers
from ingest.api.textable_numbers import UntextableNumberError, textable_number

WRITTEN = ["+33612345678", "0033612345678", "+33 6 12 34 56 78", "+33 (0)6 12.34.56.78", "+330612345678"]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_mobile_is_one_number_however_it_is_written(written):
    assert textable_number(written, simulated=False) == "+33612345678"


@pytest.mark.parametrize(
    "written, why",
    [
        ("0612345678", "in full"),
        ("33612345678", "in full"),
        ("Orange", "in full"),
        ("", "in full"),
        ("+33123456789", "no mobile"),
        ("+33612345", "looks like this"),
        ("+999123456789", "no country"),
        ("+33639981234", "nobody has it"),
        ("+447700900461", "nobody has it"),
        ("+12025550123", "nobody has it"),
        ("+61491570156", "nobody has it"),
        ("+46701740650", "nobody has it"),
    ],
)
def test_a_number_that_is_no_mobile_is_refused_and_told_why(written, why):
    with pytest.raises(UntextableNumberError, match=why):
        textable_number(written, simulated=False)


@pytest.mark.parametrize("written", ["+12025550200", "+61491570155", "+46701740700"])
def test_only_what_regulators_keep_is_nobodys(written):
    assert textable_number(written, simulated=False) == written


@pytest.mark.parametrize("written", ["+33639981234", "+12025550123", "+999123456789"])
def test_a_simulated_channel_takes_whatever_can_be_dialled(written):
    assert textable_number(written, simulated=True) == written


def test_a_simulated_channel_wants_numbers_in_full_too():
    with pytest.raises(UntextableNumberError):
        textable_number("0612345678", simulated=True)


MOBILES = [
    phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
]


@given(st.sampled_from([number for number in MOBILES if number]))
def test_every_countrys_example_of_a_mobile_is_one_unless_it_is_nobodys(number):
    """In North America the examples themselves are 555-0123."""
    written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if written.startswith("+1") and "55501" in written:
        with pytest.raises(UntextableNumberError, match="nobody"):
            textable_number(written, simulated=False)
    else:
        assert textable_number(written, simulated=False) == written


EXAMPLES = [
    phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    for kind in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)
    if (number := phonenumbers.example_number_for_type(region, kind))
]


@st.composite
def numbers_like_an_example(draw):
    """One with digits changed, put in and left out, as they are mistyped."""
    digits = draw(st.sampled_from(EXAMPLES))[1:]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(digits) - 1))
        digits = digits[:at] + draw(st.from_regex(r"[0-9]{0,2}", fullmatch=True)) + digits[at + 1 :]
        assume(digits)
    number = f"+{digits}"
    assume(normalize_number(number) == number)
    return number


@given(numbers_like_an_example())
def test_a_number_is_taken_as_it_is_only_if_parsing_it_says_the_same(number):
    plain = textable_numbers._is_plain_mobile(number)
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        assert not plain
        return
    written = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    is_mobile = phonenumbers.number_type(parsed) in textable_numbers._MOBILE_TYPES
    assert not plain or (is_mobile and written == number)


def test_a_pattern_is_compiled_once_for_people_of_whatever_countries(monkeypatch):
    """The library's own way is Python's cache of 512 patterns, which people of forty countries in turn overflow."""
    mobiles = [number for number in EXAMPLES if textable_numbers._is_plain_mobile(number)]
    assert len(mobiles) > 200
    compiled = []
    monkeypatch.setattr(phonenumbers.re_util.re, "compile", lambda *of: compiled.append(of))
    assert all(map(textable_numbers._is_plain_mobile, mobiles))
    assert compiled == []
