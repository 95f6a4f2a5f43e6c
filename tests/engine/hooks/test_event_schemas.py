"""The published schema is of what is sent: it names every type, and refuses what is none."""

import json

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator, FormatChecker

from engine.commands.schema import schema as command
from engine.hooks.event_data import EVENT_TYPES
from engine.hooks.event_schemas import event_schema
from engine.model.events import (
    Answer,
    OpeningRefused,
    PersonOptedIn,
    ReceiptRecorded,
    SessionEnded,
    SmsReceived,
    SmsSent,
)
from engine.surveys.schema import survey_schema
from tests.engine.hooks.hook_records import AT, DEAD, INVITATION, OPENED, SESSION, SMS, events_of, rendered

PUBLISHED = Draft202012Validator(event_schema(), format_checker=FormatChecker())


def one_of_each():
    records = [
        OPENED,
        OpeningRefused(AT, "clinic", SESSION, "expired", INVITATION),
        SmsReceived(
            AT, "clinic", SESSION, SMS, "98", step="t", answer=Answer("98", 98), answer_type="number"
        ),
        SessionEnded(AT, "clinic", SESSION, "completed", {"t": Answer("98", 98)}),
        SmsSent(AT, "clinic", SESSION, f"{SESSION}x0", "t1"),
        ReceiptRecorded(AT, "clinic", "t1", "D", "delivered"),
        ReceiptRecorded(AT, "clinic", "t1", "F", "failed"),
        PersonOptedIn(AT, "clinic", SMS),
        DEAD,
    ]
    return {event.type: rendered(event) for event in events_of(*records)}


EVENTS = one_of_each()


def test_there_is_an_event_of_every_type_here():
    assert EVENTS.keys() == {*EVENT_TYPES}


@pytest.mark.parametrize("event_type", EVENTS)
def test_an_event_is_as_published(event_type):
    PUBLISHED.validate(EVENTS[event_type])


WRONG = {
    "of_no_type": {"type": "session.closed"},
    "of_another_version": {"specversion": "0.3"},
    "no_id": {"id": ""},
    "no_time_of_the_calendar": {"time": "yesterday"},
    "of_no_source": {"source": ""},
    "of_data_that_is_text": {"data": "x"},
    "of_data_of_no_channel": {"data": {}},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_event_is_refused(wrong):
    assert PUBLISHED.is_valid(EVENTS["session.ended"])
    assert not PUBLISHED.is_valid(EVENTS["session.ended"] | WRONG[wrong])


@pytest.mark.parametrize(
    "attribute", ["specversion", "id", "source", "type", "sequence", "data", "datacontenttype"]
)
def test_what_every_event_has_is_required(attribute):
    event = dict(EVENTS["session.ended"])
    del event[attribute]
    assert not PUBLISHED.is_valid(event)


def test_the_schema_is_one_itself():
    Draft202012Validator.check_schema(event_schema())


def test_the_command_prints_that_of_events_or_of_surveys():
    events, surveys = CliRunner().invoke(command, ["--events"]), CliRunner().invoke(command, [])
    assert (events.exit_code, json.loads(events.output)) == (0, event_schema())
    assert (surveys.exit_code, json.loads(surveys.output)) == (0, json.loads(json.dumps(survey_schema())))
