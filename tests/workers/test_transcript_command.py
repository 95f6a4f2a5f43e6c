"""`parley transcript` has a line for everything that the archive may hold."""

import json
from typing import get_args

import pytest
from click.testing import CliRunner

from engine.commands.json_output import json_line
from engine.model.events import (
    Answer,
    AnswerRejected,
    ArchiveRecord,
    Attachment,
    DeadLetterAdded,
    Invitation,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ReceiptRecorded,
    SessionEnded,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
    encode_event,
)
from workers.commands.transcript import transcript
from workers.history.record_wording import format_record, record_fields

LINES = [
    (SessionOpened(0, "c", "1", "clinic", "ab12", "en"), "-- session 1 opened: clinic, version ab12"),
    (
        SessionOpened(0, "c", "1", "clinic", "ab12", "en", "26199", {"contact": "Rey"}),
        "-- session 1 opened: clinic, version ab12, from 26199",
    ),
    (SessionInvited(0, "c", "1", Invitation("1", "c", "clinic", reference="r7")), "-- by an invitation r7"),
    (SmsReceived(0, "c", "1", "2", "hello"), "> hello"),
    (SmsReceived(0, "c", "1", "2", "stop", handled="stop"), "> stop  (a STOP, which the provider answered)"),
    (
        SmsReceived(
            0,
            "c",
            "1",
            "2",
            "Look",
            attachments=(Attachment("image/png", "https://x/1"), Attachment("", "https://x/2")),
        ),
        "> Look  [image/png]  [attachment]",
    ),
    (AnswerRejected(0, "c", "1", "age", "too_low"), "-- no answer to age: too_low"),
    (SmsDecided(0, "c", "1", "1x0", "age", "How old?"), "< How old?"),
    (SmsSent(0, "c", "1", "1x0", "SM1"), "-- 1x0 accepted by the provider as SM1"),
    (
        SmsNotSent(0, "c", "1", "1x0", "cancelled", "withdrawn"),
        "-- 1x0 will not be sent: cancelled withdrawn",
    ),
    (OpeningRefused(0, "c", "1", "cooldown"), "-- refused, 1: cooldown"),
    (SessionEnded(0, "c", "1", "completed", {"age": Answer("7", 7)}), "-- session 1 ended: completed"),
    (SessionEnded(0, "c", "1", "unreachable", why="unknown"), "-- session 1 ended: unreachable, unknown"),
    (PersonOptedOut(0, "c", "1", "stop"), "-- opted out"),
    (PersonOptedOut(0, "c", "1", "stop", by_provider=True), "-- opted out, as the provider tells"),
    (
        PersonOptedOut(0, "c", "1", "", by_provider=True, source="import march.csv"),
        "-- opted out, as import march.csv tells",
    ),
    (PersonOptedIn(0, "c", "1"), "-- opted in again"),
    (ReceiptRecorded(0, "c", "SM1", "DELIVERED"), "-- SM1 DELIVERED"),
    (
        ReceiptRecorded(0, "c", "SM1", "undelivered", "failed", "30005", "unknown handset", "1x0"),
        "-- 1x0 failed: 30005 unknown handset",
    ),
    (
        DeadLetterAdded(0, "c", "1", "e1", "event", "engine_error", "clinic", why="ValueError: no such step"),
        "-- event put aside as the dead letter e1: engine_error, ValueError: no such step",
    ),
    (
        DeadLetterAdded(0, "c", "1", "1x0", "sms", "rejected", "clinic", "151", "Country not served"),
        "-- sms put aside as the dead letter 1x0: rejected, 151 Country not served",
    ),
    (
        DeadLetterAdded(0, "c", "", "e1", "event", "undecodable"),
        "-- event put aside as the dead letter e1: undecodable",
    ),
]


@pytest.mark.parametrize("record, expected", LINES)
def test_a_record_is_a_line(record, expected):
    assert format_record(record) == expected


def test_in_json_a_record_says_all_that_it_has():
    received = SmsReceived(
        0,
        "c",
        "1",
        "2",
        "7",
        step="age",
        answer=Answer("7", 7),
        answer_type="number",
        attachments=(Attachment("image/png", "u"),),
    )
    told = json.loads(json_line(record_fields(received)))
    assert (told["event"], told["step"], told["answer_type"]) == ("heard", "age", "number")
    assert told["answer"] == {"raw": "7", "value": 7, "index": -1, "indexes": []}
    assert told["attachments"] == [{"media_type": "image/png", "url": "u"}]
    assert (
        json.loads(json_line(record_fields(SmsDecided(0, "c", "1", "1x0", "age", "?", "reask"))))["kind"]
        == "reask"
    )
    sent = json.loads(json_line(record_fields(SmsSent(0, "c", "1", "1x0", "t", 2, 55_000, "EUR"))))
    assert (sent["segments"], sent["cost_micros"], sent["currency"]) == (2, 55_000, "EUR")


def test_no_record_is_left_out():
    assert {type(record) for record, _ in LINES} == set(get_args(ArchiveRecord))


@pytest.fixture
def call(pipeline, monkeypatch, tmp_path, valkey):
    """A function: arguments of the command -> its result, where somebody has been refused."""
    town = pipeline()
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    town.accept("+33600000001", "STOP")
    town.drain()
    town.deposit("+33600000001", encode_event(Invitation("00000000000000a1", "clinic", "clinic")), start=True)
    town.drain()
    return lambda *arguments: CliRunner().invoke(transcript, [*arguments])


@pytest.mark.parametrize("written", ["+33600000001", "+33 6 00-00.00 01", "0033600000001"])
def test_a_number_may_be_written_as_people_write_it(call, written):
    assert "opted out" in call(written).stdout


@pytest.mark.parametrize("written", ["0600000001", "anna", "\udcff", ""])
def test_what_is_no_number_in_full_is_told(call, written):
    assert call(written).exit_code == 2


def test_a_refused_invitation_is_found_by_its_id(call):
    (said,) = call("+33600000001", "--session", "00000000000000a1").stdout.splitlines()
    assert said.endswith("-- refused, 00000000000000a1: opted_out")


def test_nothing_is_told_with_what_may_be_the_reason(call):
    done = call("+33600000002")
    assert done.exit_code == 1
    assert "PARLEY_KEEP_DAYS" in done.stderr
