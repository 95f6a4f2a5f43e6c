"""What config/README.md says of events is so."""

import json
import re

import msgspec

from engine.hooks.cloud_events import EVENT_CONTENT_TYPE
from engine.hooks.event_data import EVENT_DATA, EventData
from engine.hooks.signature import parse_secret, sign_message
from tests.engine.hooks.hook_records import CLOSED
from tests.support.documents import ROOT

SECTION = (ROOT / "config" / "README.md").read_text().partition("\n## Events\n")[2].partition("\n## ")[0]
TABLE = SECTION.partition("<!-- events -->")[2].partition("<!-- /events -->")[0]
OF_ALL = {field.encode_name for field in msgspec.structs.fields(EventData)}


def code_spans(text):
    return re.findall(r"`([^`]+)`", text)


def test_the_table_has_every_type_with_all_that_its_data_has():
    rows = [line.split("|")[1:4:2] for line in TABLE.splitlines() if re.match(r"\| `[a-z_]+\.", line)]
    assert {code_spans(told)[0]: code_spans(fields) for told, fields in rows} == {
        told: [field.encode_name for field in msgspec.structs.fields(data) if field.encode_name not in OF_ALL]
        for told, data in EVENT_DATA.items()
    }


def test_what_data_has_beside_these_is_named():
    named = code_spans(SECTION.partition("Beside these")[2].partition("They mean")[0])
    assert {*named} - {"data"} == OF_ALL


def test_the_example_is_an_event_and_signed_by_the_secret_that_is_shown():
    request = SECTION.split("```")[1].strip()
    head, _, body = request.partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    event = json.loads(body)
    CLOSED[event["type"]].validate(event)
    assert headers.pop("content-type") == EVENT_CONTENT_TYPE
    (secret,) = re.findall(r'Webhook\("(whsec_[^"]+)"\)', SECTION)
    timestamp = int(headers["webhook-timestamp"])
    assert sign_message([parse_secret(secret)], event["id"], timestamp, body.encode()) == headers
