"""The cost of a text is what phones and providers make of it: facts of 3GPP TS 23.038 and known wrong counts."""

import gsm0338
import pytest
import smsutil
from hypothesis import assume, example, given
from hypothesis import strategies as st

from engine.model.segments import GSM_EXTENSION, count_segments, is_gsm, most_segments, split_segments

GSM_7 = gsm0338.Codec()

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
NEARLY_GSM = "çâêîôûëï`\t\xa0’“–…°œ\u0391\x1b😀я"
"""What authors write and take for ordinary; and ESC, which is no character."""

gsm_texts = st.text(st.sampled_from(BASIC + "€{}[]~|^\\\f" * 6), max_size=700)
texts = (
    gsm_texts
    | st.text(st.sampled_from(BASIC + NEARLY_GSM * 3), max_size=400)
    | st.text(st.sampled_from("я😀e\u0301👨\u200d"), max_size=400)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
)


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
    assert (count_segments(text).encoding, count_segments(text).segments) == ("GSM-7", segments)


@pytest.mark.parametrize(
    "text, segments",
    [
        ("я" * 70, 1),
        ("я" * 71, 2),
        ("я" * 134, 2),
        ("я" * 135, 3),
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
    assert (count_segments(text).encoding, count_segments(text).segments) == ("UCS-2", segments)


@pytest.mark.parametrize(
    "character, units", [("Ç", 1), ("\f", 2), ("é", 1), ("\n", 1), ("{", 2), ("~", 2), ("_", 1)]
)
def test_septets_of_a_character(character, units):
    assert (count_segments(character).encoding, count_segments(character).units) == ("GSM-7", units)


@pytest.mark.parametrize("character", NEARLY_GSM)
def test_one_such_character_turns_the_text_into_ucs_2(character):
    assert count_segments("a" * 100 + character).encoding == "UCS-2"


@pytest.mark.parametrize(
    "text, header, segments",
    [
        ("a" * 304, 7, 2),
        ("a" * 305, 7, 3),
        ("a" * 160, 7, 1),
        ("я" * 132, 7, 2),
        ("я" * 133, 7, 3),
        ("я" * 70, 7, 1),
        ("a" * 151 + "€" + "a" * 151, 7, 3),
    ],
)
def test_a_reference_of_16_bits_leaves_a_septet_and_a_unit_less(text, header, segments):
    assert count_segments(text, header).segments == segments


FAMILY = "👨\u200d👩\u200d👧\u200d👦"


@pytest.mark.parametrize(
    "text, operators, twilio",
    [
        ("я" * 60 + FAMILY + "я" * 60, 2, 3),
        ("👍🏽" * 17, 1, 1),
        ("👍🏽" * 18, 2, 2),
        ("👍🏽" * 33, 2, 3),
        ("🇫🇷" * 33, 2, 3),
        ("e\u0301" * 40, 2, 2),
        ("e\u0301" * 67, 2, 3),
        ("я" * 66 + "e\u0301" + "я" * 66, 2, 3),
        ("각" * 71, 2, 2),
        ("\u1100\u1161\u11a8" * 45, 3, 3),
        ("नि" * 40, 2, 2),
        ("👩🏽\u200d🚀" * 19, 2, 3),
        (FAMILY * 13, 3, 3),
        ("1\ufe0f\u20e3" * 45, 3, 3),
        ("x" + "\u0301" * 200, 3, 2),  # it lets a character that is longer than a segment overflow
        ("я" * 66 + "\r\n" + "я" * 66, 2, 2),
        ("a" * 152 + "€" + "a" * 152, 3, 3),
        ("a" * 400, 3, 3),
    ],
)
def test_the_most_is_the_larger_of_what_operators_and_twilio_count(text, operators, twilio):
    """As npm sms-segments-calculator 1.3 counts, which never splits what a person sees as one character."""
    assert count_segments(text).segments == operators
    assert most_segments(text) == max(operators, twilio)


@given(texts)
def test_the_most_is_never_less_and_the_same_where_nothing_is_joined(text):
    counted = count_segments(text).segments
    assert most_segments(text) >= counted
    if is_gsm(text):
        assert most_segments(text) == counted


@given(texts)
def test_units_fit_into_the_segments_and_no_segment_is_spare(text):
    counted = count_segments(text)
    alone, joined = (160, 153) if counted.encoding == "GSM-7" else (70, 67)
    if counted.segments == 1:
        assert counted.units <= alone
    else:
        assert alone < counted.units <= counted.segments * joined
        assert counted.units > (counted.segments - 1) * (joined - 1)


@given(texts, st.sampled_from([6, 7]))
@example("", 6)
def test_the_parts_are_the_text_and_fit_and_are_as_many_as_counted(text, header):
    parts = split_segments(text, header)
    assert "".join(parts) == text
    assert len(parts) == count_segments(text, header).segments
    if len(parts) > 1:
        room = (153 if is_gsm(text) else 67) - (header - 6)
        for part, after in zip(parts, [*parts[1:], ""], strict=True):
            assert _units(part, text) <= room
            assert not after or _units(part + after[0], text) > room  # nothing more would have fitted


def _units(part, text):
    """Of `part` in the encoding of `text`, by another way than `count`'s."""
    return len(GSM_7.encode(part)[0]) if is_gsm(text) else len(part.encode("utf-16-be")) // 2


# -- oracles


@given(texts)
def test_gsm0338_writes_the_same_texts_in_as_many_septets(text):
    """Known fault: ESC goes through as a character of its own; it is none."""
    assume("\x1b" not in text)
    try:
        septets = len(GSM_7.encode(text)[0])
    except UnicodeEncodeError:
        assert not is_gsm(text)
    else:
        assert is_gsm(text)
        assert count_segments(text).units == septets


def test_gsm0338_writes_an_esc_and_we_do_not():
    assert GSM_7.encode("\x1b")[0] == b"\x1b"
    assert not is_gsm("\x1b")


def test_gsm0338_has_the_same_extension_table():
    every = map(chr, range(0xD800))
    assert {c for c in every if c != "\x1b" and _septets(c) == 2} == GSM_EXTENSION


def _septets(character):
    return len(GSM_7.encode(character, "ignore")[0])


@given(texts)
def test_smsutil_splits_into_the_same_parts(text):
    """Known faults: it takes ESC for a character of GSM-7, and an empty text for UCS-2."""
    assume(text and "\x1b" not in text)
    theirs = smsutil.split(text)
    assert is_gsm(text) == smsutil.is_valid_gsm(text) == (theirs.encoding == "gsm0338")
    assert split_segments(text) == [part.content for part in theirs.parts]


def test_smsutil_takes_esc_for_a_character_and_nothing_for_ucs_2():
    assert smsutil.is_valid_gsm("\x1b")
    assert not is_gsm("\x1b")
    assert smsutil.split("").encoding == "utf_16_be"
    assert count_segments("").encoding == "GSM-7"
