"""One phone has one name, however a provider writes it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.sender_numbers import normalize_number


@pytest.mark.parametrize(
    "written",
    ["+33612345678", "0033612345678", "33612345678", "+33 6 12 34 56 78", "+33.6-12/34(56)78", "+33 (0)6 12 34 56 78",
     "00 33 6 12 34 56 78", "\u202a+33612345678".replace("\u202a", "\u200e"), "+33\u00a0612345678"],
)  # fmt: skip
def test_one_phone(written):
    assert normalize_number(written) == "+33612345678"


@pytest.mark.parametrize("written, sender", [("36111", "+36111"), ("+336000123", "+336000123")])
def test_short_codes_and_documentation_numbers_pass(written, sender):
    assert normalize_number(written) == sender


@pytest.mark.parametrize(
    "written", ["", "+", "INFO", "Orange", "0612345678", "12", "1" * 16, "+33 6x", "\0", "+٣٣٦١٢٣٤"]
)
def test_who_cannot_be_answered_is_nobody(written):
    assert normalize_number(written) is None


@given(st.text() | st.from_regex(r"[+0-9 ().-]{1,30}"))
def test_the_result_is_canonical_and_stays(written):
    sender = normalize_number(written)
    assert sender is None or (
        re.fullmatch(r"\+[1-9][0-9]{2,14}", sender) and normalize_number(sender) == sender
    )
