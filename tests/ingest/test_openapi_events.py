"""The API's description tells of events too, as hooks send them: for each type, what comes and what an answer means."""

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from engine.hooks.cloud_events import BATCH_CONTENT_TYPE, EVENT_CONTENT_TYPE
from engine.hooks.event_data import EVENT_TYPES
from engine.hooks.signature import parse_secret, sign_message
from ingest.api.description import openapi_document
from tests.engine.hooks.test_event_schemas import EVENTS

DOCUMENT = msgspec.json.decode(msgspec.json.encode(openapi_document()))
SECRET = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def of_document(schema):
    return jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]})


def test_the_description_is_openapi():
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_each_field_with_a_choice_has_one_enum_of_texts():
    """Of two, a generator makes two types and a union, which nobody can spell."""
    enums = [
        each for each in schemas_in(DOCUMENT["paths"] | DOCUMENT["components"]["schemas"]) if "enum" in each
    ]
    assert len(enums) > 20
    assert all(
        each.get("type") == "string"
        for each in enums
        if all(isinstance(value, str) for value in each["enum"])
    )
    unions = [each["anyOf"] for each in schemas_in(DOCUMENT["components"]["schemas"]) if "anyOf" in each]
    assert not [each for each in unions if sum("enum" in one for one in each) > 1]


@pytest.mark.parametrize("name", ["SessionView", "ResultView"])
def test_each_state_and_reason_is_explained(name):
    fields = DOCUMENT["components"]["schemas"][name]["properties"]
    for field in {"state", "reason"} & fields.keys():
        told = fields[field]["description"]
        assert [each for each in fields[field]["enum"] if f"- `{each}`: " not in told] == []


def test_each_operation_has_a_tag_that_is_described():
    known = {each["name"] for each in DOCUMENT["tags"]}
    used = {
        tag for methods in DOCUMENT["paths"].values() for each in methods.values() for tag in each["tags"]
    }
    assert (used, DOCUMENT["servers"][0]["url"]) == (known, "/")


def schemas_in(value):
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from schemas_in(each)


def test_there_is_a_webhook_for_each_type_of_event():
    assert DOCUMENT["webhooks"].keys() == {*EVENT_TYPES}
    names = [each["post"]["operationId"] for each in DOCUMENT["webhooks"].values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("event_type", EVENTS)
def test_what_is_sent_is_as_described(event_type):
    """Each alone, and all of them as a batch; and no other type's."""
    content = DOCUMENT["webhooks"][event_type]["post"]["requestBody"]["content"]
    assert {f"{each}; charset=utf-8" for each in content} == {EVENT_CONTENT_TYPE, BATCH_CONTENT_TYPE}
    alone, batch = (of_document(each["schema"]) for each in content.values())
    assert [each for each in EVENTS if alone.is_valid(EVENTS[each])] == [event_type]
    batch.validate([*EVENTS.values()])
    assert not batch.is_valid(EVENTS[event_type])


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_headers_are_as_described(event_type):
    described = DOCUMENT["webhooks"][event_type]["post"]["parameters"]
    sent = sign_message([SECRET, SECRET], EVENTS["session.opened"]["id"], 1_614_265_330, b"{}")
    assert [each["name"] for each in described] == [*sent]
    for each in described:
        assert (each["in"], each["required"]) == ("header", True)
        of_document(each["schema"]).validate(sent[each["name"]])
