"""How many answers left of late, and how long people waited: what processes note adds up, and is forgotten after a while."""

import random
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from config.store import keyspace, redis_client
from config.store.counts.answer_record import (
    TREND_MINUTES,
    WINDOW_MINUTES,
    AnswerNotes,
    AnswerReading,
    answer_commands,
    parse_answers,
    wait_quantile_ms,
    write_notes,
)

MINUTE_MS = 60_000
NOW = 1_795_283_625_000
"""45 seconds into a minute."""

PARIS = ZoneInfo("Europe/Paris")


@pytest.fixture
def client(valkey):
    return valkey.client()


def read(client, now=NOW, zone=UTC):
    return parse_answers(iter(redis_client.run_commands(client, answer_commands("clinic", zone, now))), now)


def test_nothing_is_told_of_a_channel_of_which_nothing_was_noted(client):
    assert read(client) == AnswerReading(span_ms=WINDOW_MINUTES * MINUTE_MS + 45_000)
    assert wait_quantile_ms({}, 0.5) is None


def test_what_several_processes_note_adds_up(client):
    one, other = AnswerNotes({"clinic": UTC}), AnswerNotes({"clinic": UTC, "other": UTC})
    one.note("clinic", NOW, 40)
    one.note("clinic", NOW)
    other.note("clinic", NOW - MINUTE_MS, 4_000)
    other.note("other", NOW, 7)
    for notes in (one, other, one):
        write_notes(client, notes)
    found = read(client)
    assert (found.sms_today, found.sms, found.answers) == (3, 3, 2)
    assert found.by_minute == (*[0] * (TREND_MINUTES - 1), 1), "the minute that is not over is not among them"


def test_of_late_are_the_last_minutes_and_the_one_that_is_not_over(client):
    notes = AnswerNotes({"clinic": UTC})
    for ago in range(TREND_MINUTES + 3):
        for _ in range(ago + 1):
            notes.note("clinic", NOW - ago * MINUTE_MS, 10)
    write_notes(client, notes)
    found = read(client)
    assert found.answers == sum(range(1, WINDOW_MINUTES + 2))
    assert found.by_minute == tuple(range(TREND_MINUTES + 1, 1, -1))


@pytest.mark.parametrize("seed", range(5))
def test_a_quantile_is_right_to_a_tenth(client, seed):
    chance = random.Random(seed)
    waits = sorted(round(chance.lognormvariate(5, 2)) + 1 for _ in range(999))
    notes = AnswerNotes({"clinic": UTC})
    for wait_ms in waits:
        notes.note("clinic", NOW, wait_ms)
    write_notes(client, notes)
    found = read(client).waits
    for share in (0.5, 0.95):
        assert wait_quantile_ms(found, share) == pytest.approx(waits[int(share * 999)], rel=0.1, abs=0.6)


def test_the_day_is_the_channels(client):
    at = int(datetime(2026, 11, 29, 23, 30, tzinfo=UTC).timestamp() * 1000)  # the 30th in Paris
    notes = AnswerNotes({"clinic": PARIS})
    notes.note("clinic", at)
    write_notes(client, notes)
    assert read(client, at, PARIS).sms_today == 1
    assert read(client, at - 3_600_000, PARIS).sms_today == 0


def test_all_of_it_is_forgotten(client):
    notes = AnswerNotes({"clinic": UTC})
    notes.note("clinic", NOW, 10)
    write_notes(client, notes)
    minute_key = keyspace.answers_key("clinic", NOW // MINUTE_MS)
    assert TREND_MINUTES * MINUTE_MS < client.pttl(minute_key) < 60 * MINUTE_MS
    day_keys = client.keys(keyspace.accepted_sms_key("clinic", "*").replace("[", "\\["))
    assert [86_400_000 < client.pttl(key) < 4 * 86_400_000 for key in day_keys] == [True]
