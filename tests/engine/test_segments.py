"""The cost of a text is what phones and providers make of it: facts of 3GPP TS 23.038 and known wrong counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.segments import count


@pytest.mark.parametrize(
    "text, segments",
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("a" * 1224, 8),
        ("a" * 1225, 9),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("a" * 158 + "€", 1),
        ("a" * 159 + "€", 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("€" * 153, 3),
    ],
)
def test_gsm_7_never_splits_an_escape_pair(text, segments):
    assert (count(text).encoding, count(text).segments) == ("GSM-7", segments)


@pytest.mark.parametrize(
    "text, segments",
    [
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("😀" * 67, 3),
        ("я" * 66 + "😀" + "я" * 66, 3),
        ("я" * 60 + "👨‍👩‍👧‍👦" + "я" * 60, 2),
        ("e\u0301" * 40, 2),
        ("ç", 1),
    ],
)
def test_ucs_2_never_splits_a_surrogate_pair(text, segments):
    assert (count(text).encoding, count(text).segments) == ("UCS-2", segments)


@pytest.mark.parametrize(
    "character, units", [("Ç", 1), ("\f", 2), ("é", 1), ("\n", 1), ("{", 2), ("~", 2), ("_", 1)]
)
def test_septets_of_a_character(character, units):
    assert (count(character).encoding, count(character).units) == ("GSM-7", units)


@pytest.mark.parametrize("character", ["ç", "`", "\t", "\xa0", "’", "…", "ê", "\u0391", "°", "\x1b"])
def test_one_such_character_turns_the_text_into_ucs_2(character):
    assert count("a" * 100 + character).encoding == "UCS-2"


@given(st.text(max_size=400))
def test_units_fit_into_the_segments_and_no_segment_is_spare(text):
    counted = count(text)
    alone, joined = (160, 153) if counted.encoding == "GSM-7" else (70, 67)
    if counted.segments == 1:
        assert counted.units <= alone
    else:
        assert alone < counted.units <= counted.segments * joined
        assert counted.units > (counted.segments - 1) * (joined - 1)
