"""The survey file as a JSON Schema (2020-12), so that editors complete and check what authors write.

Made from the very types that files are converted to. What the types cannot say, such as that a number is positive, is
said here; what no schema can say, such as that a step exists, is `parley lint`'s.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.answers.type_registry import ANSWER_SPECS
from engine.surveys.survey_file import LANGUAGE_TAG, AskStep, Duration, DurationOrNone, SayStep, SurveyFile

_NAME_PATTERN = {"pattern": r"^[A-Za-z_][A-Za-z0-9_-]*$"}
_POSITIVE = {"minimum": 1}
_NOT_EMPTY = {"minItems": 1}

_FIELD_LIMITS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "SurveyFile": {
        "survey": _NAME_PATTERN, "languages": _NOT_EMPTY | {"items": {"type": "string", "pattern": f"^{LANGUAGE_TAG.pattern}$"}}, "steps": _NOT_EMPTY, "most_sms": _POSITIVE,
    },
    "SayStep": {"id": _NAME_PATTERN},
    "AskStep": {"id": _NAME_PATTERN, "attempts": _POSITIVE},
    "Goto": {"times": _POSITIVE},
    "Reminder": {"times": _POSITIVE},
}  # fmt: skip

_QUESTIONS_SCHEMA = {
    "type": "array",
    "title": "Octopush's questions.json: position is id",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["text"],
        "properties": {
            "text": {"type": "string", "minLength": 1},
            "condition": {"enum": [">=", ">", "<=", "<", "==", "!="]},
            **{name: {"type": ["number", "string"]} for name in ("next", "value", "true_next", "false_next")},
        },
    },
}


def survey_schema() -> dict[str, Any]:
    """The schema of every file that `parley` reads as a survey."""
    _, parts = msgspec.json.schema_components(
        [SurveyFile, SayStep, AskStep], schema_hook=_duration_schema, ref_template="#/$defs/{name}"
    )
    of_answers = {spec.__name__: spec.schema_limits for spec in ANSWER_SPECS}
    for name, further in (*_FIELD_LIMITS.items(), *of_answers.items()):
        for field, limits in further.items():
            parts[name]["properties"][field].update(limits)
    parts["SurveyFile"]["properties"]["steps"]["items"] = {
        "if": {"required": ["ask"]},
        "then": {"$ref": "#/$defs/AskStep"},
        "else": {"$ref": "#/$defs/SayStep"},
    }
    parts["When"]["minProperties"] = 1
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Parley survey",
        "if": {"type": "array"},
        "then": _QUESTIONS_SCHEMA,
        "else": {"$ref": "#/$defs/SurveyFile"},
        "$defs": parts,
    }


def _duration_schema(wanted: type) -> dict[str, Any]:
    if wanted is Duration:
        return {"type": "string", "pattern": "^[0-9]{1,6}[smhd]$"}
    if wanted is DurationOrNone:
        return {"type": "string", "pattern": "^([0-9]{1,6}[smhd]|none)$"}
    raise NotImplementedError
