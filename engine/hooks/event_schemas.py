"""What events look like, as JSON Schema (2020-12): made from the very types that they are written from."""

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.hooks.event_data import EVENT_DATA, CloudEvent

ANY_EVENT, EVENT_BATCH = "Event", "EventBatch"
"""What the schemas of any event, and of a batch of them, are called."""


def event_schema_name(event_type: str) -> str:
    """What the schema of a type's events is called: `SessionOpenedEvent`."""
    return EVENT_DATA[event_type].__name__.removesuffix("Data") + "Event"


def event_schema() -> dict[str, Any]:
    """The schema of one event of any type, in one document."""
    template = "#/$defs/{name}"
    parts = event_components(template)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of Parley's, as CloudEvents 1.0 in JSON",
        **_reference(template, ANY_EVENT),
        "$defs": parts,
    }


def event_components(ref_template: str) -> dict[str, Any]:
    """Schemas by name: of each type's events, of what they are made of, of any event, and of a batch."""
    _, components = msgspec.json.schema_components(
        (CloudEvent, *EVENT_DATA.values()), ref_template=ref_template
    )
    any_event = [_reference(ref_template, event_schema_name(each)) for each in EVENT_DATA]
    return {
        **components,
        **{event_schema_name(each): _event_of_type(ref_template, each, components) for each in EVENT_DATA},
        ANY_EVENT: {"title": ANY_EVENT, "oneOf": any_event},
        EVENT_BATCH: {"title": EVENT_BATCH, "type": "array", "items": _reference(ref_template, ANY_EVENT)},
    }


def _event_of_type(ref_template: str, event_type: str, components: Mapping[str, Any]) -> dict[str, Any]:
    data = EVENT_DATA[event_type].__name__
    return {
        "title": event_schema_name(event_type),
        "description": components[data]["description"],
        "allOf": [_reference(ref_template, CloudEvent.__name__)],
        "type": "object",
        "properties": {"type": {"const": event_type}, "data": _reference(ref_template, data)},
    }


def _reference(ref_template: str, name: str) -> dict[str, Any]:
    return {"$ref": ref_template.format(name=name)}
