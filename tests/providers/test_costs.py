"""What providers write of segments, money and attachments is read exactly, or passed over; nothing they write raises."""

import json
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.model.events import MOST_ATTACHMENTS, Attachment
from engine.providers import (
    LONGEST_MEDIA_TYPE,
    LONGEST_MEDIA_URL,
    MOST_COST,
    bounded_attachments,
    parse_cost_micros,
    parse_currency,
    parse_segments,
)


@given(st.decimals(0, MOST_COST, allow_nan=False, allow_infinity=False, places=None))
@example(Decimal("5.00502839"))
@example(Decimal("0.0000005"))
@example(Decimal("0.0000015"))
@example(Decimal("999999.999999499999999999999999"))
def test_an_amount_is_read_to_the_nearest_millionth_however_it_is_written(amount):
    exact = (
        int((amount * 10**6).quantize(Decimal(1), ROUND_HALF_EVEN))
        if abs(amount.as_tuple().exponent) < 10
        else None
    )
    plain = f"{amount:f}"
    if len(plain.partition(".")[2]) > 30:
        return
    read = parse_cost_micros(plain)
    assert read == parse_cost_micros(plain.encode()) == parse_cost_micros(json.dumps(plain).encode())
    assert abs(Decimal(read) / 10**6 - amount) <= Decimal("0.0000005")
    assert exact is None or read == exact


@pytest.mark.parametrize(
    "written, micros",
    [
        ("0", 0), ("7", 7_000_000), ("0.055", 55_000), ("5.0e-5", 50), ("1E2", 100_000_000), ("1000000", 10**12), (" 0.1 ", 100_000),
        ("0.1" + "0" * 29, 100_000), ("5.0050283900000002", 5_005_028),
    ],
)  # fmt: skip
def test_amounts_as_programs_write_them(written, micros):
    assert parse_cost_micros(written) == parse_cost_micros(f'"{written}"'.encode()) == micros


HOSTILE = [
    "", "-1", "+1", "1000000.000001", "1e7", "9" * 400, "1e999", "1e99", "0." + "1" * 400, "NaN", "Infinity", "0x10", "1,5", ".5", "5.",
    "1_000", "\u0661", "one", "null", "true", "[]", "{}", "[1]", "1 2", "\x00", "\ud83d", "1\n",
]  # fmt: skip


@pytest.mark.parametrize("written", HOSTILE)
def test_what_is_no_amount_is_none(written):
    written_in_json = written.encode(errors="replace")
    assert parse_cost_micros(written) == parse_cost_micros(written_in_json) == 0


@pytest.mark.parametrize(
    "written, count",
    [("1", 1), ("255", 255), ("0", 0), *((each, 0) for each in ("256", "999", "1.0", "1e1", "-1", "9" * 5_000, "", "two", "null", "\u0661"))],
)  # fmt: skip
def test_segments_are_a_number_that_an_sms_can_have(written, count):
    assert parse_segments(written) == parse_segments(written.encode()) == count


@pytest.mark.parametrize(
    "written, currency",
    [("EUR", "EUR"), ("usd", "USD"), ('"SEK"', "SEK"), *((each, "") for each in ("", "€", "EURO", "E U", "null", "1", "ÄÖÜ", "EUR\n"))],
)  # fmt: skip
def test_a_currency_has_three_letters(written, currency):
    assert parse_currency(written) == currency


@given(st.text() | st.binary())
def test_nothing_raises(written):
    assert 0 <= parse_cost_micros(written) <= MOST_COST * 10**6
    assert 0 <= parse_segments(written) <= 255
    assert len(parse_currency(written)) in (0, 3)


def test_attachments_are_bounded_in_number_and_length():
    many = ((f"image/{n}", "u" * n) for n in range(10**9))
    assert bounded_attachments(many) == tuple(
        Attachment(f"image/{n}", "u" * n) for n in range(MOST_ATTACHMENTS)
    )
    assert bounded_attachments(
        [("x" * 999, "u" * LONGEST_MEDIA_URL), ("", "u" * (LONGEST_MEDIA_URL + 1))]
    ) == (
        Attachment("x" * LONGEST_MEDIA_TYPE, "u" * LONGEST_MEDIA_URL),
        Attachment("", ""),
    )
