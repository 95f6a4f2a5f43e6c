"""Durations and moments are written in one form for each reader, and what is exact can be read back."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.durations import compact_duration, format_duration, parse_duration, survey_duration
from engine.model.plurals import pluralize
from engine.model.timestamps import format_clock_time, format_local, format_utc, format_utc_ms

NOON = 1_764_417_600_000  # 2025-11-29T12:00Z
MOST_MS = 10**9 * 86_400_000


@given(ms=st.integers(0, MOST_MS - 1))
def test_an_exact_duration_is_read_back(ms):
    assert parse_duration(compact_duration(ms)) == ms


@given(count=st.integers(0, 999_999), unit=st.sampled_from([1_000, 60_000, 3_600_000, 86_400_000]))
def test_what_a_survey_file_has_is_one_number_and_a_unit_that_is_read_back(count, unit):
    written = survey_duration(count * unit)
    assert written[:-1].isdigit()
    assert parse_duration(written) == count * unit


@pytest.mark.parametrize(
    "ms, exact, authors, spoken",
    [
        (0, "0s", "0s", "0 s"),
        (400, "400ms", "0.4s", "0.4 s"),
        (3_000, "3s", "3s", "3 s"),
        (90_000, "1m30s", "90s", "1 min"),
        (5_400_000, "1h30m", "90m", "1 h 30 min"),
        (7_800_000, "2h10m", "130m", "2 h 10 min"),
        (86_400_000, "1d", "1d", "1 d"),
        (93_600_000, "1d2h", "26h", "1 d 2 h"),
    ],
)
def test_each_reader_has_a_form(ms, exact, authors, spoken):
    assert (compact_duration(ms), survey_duration(ms), format_duration(ms)) == (exact, authors, spoken)


def test_what_is_over_lasts_no_longer():
    assert format_duration(-5) == "0 s"


def test_a_moment_is_told_in_the_zone_that_is_asked_for():
    oslo = ZoneInfo("Europe/Oslo")
    assert format_utc(NOON) == "2025-11-29 12:00:00"
    assert format_local(NOON, oslo) == "2025-11-29 13:00:00+01:00"
    assert format_clock_time(NOON, NOON, oslo) == "13:00 CET"
    assert format_clock_time(NOON - 86_400_000, NOON) == "Nov 28 12:00 UTC"


@given(ms=st.integers(0, 4 * 10**12))
def test_a_moment_to_the_ms_is_read_back(ms):
    assert round(datetime.fromisoformat(format_utc_ms(ms)).timestamp() * 1_000) == ms


@pytest.mark.parametrize(
    "count, words, said",
    [
        (1, ("file",), "1 file"),
        (0, ("file",), "0 files"),
        (2, ("lane is", "lanes are"), "2 lanes are"),
        (1, ("lane is", "lanes are"), "1 lane is"),
    ],
)
def test_a_count_has_its_noun(count, words, said):
    assert pluralize(count, *words) == said
