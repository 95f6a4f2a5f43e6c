"""The survey file as a JSON Schema (2020-12), so that editors complete and check what authors write.

Made from the very types that files are converted to. What the types cannot say, such as that a number is positive, is
said here; what no schema can say, such as that a step exists, is `parley lint`'s.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import msgspec

from engine.answers.type_registry import ANSWER_SPECS
from engine.surveys.survey_file import LANGUAGE_TAG, AskStep, Duration, DurationOrNone, SayStep, SurveyFile

_NAME_PATTERN = {"pattern": r"^[A-Za-z_][A-Za-z0-9_-]*$"}
_POSITIVE = {"minimum": 1}
_NOT_EMPTY = {"minItems": 1}

_FIELD_LIMITS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "SurveyFile": {
        "survey": _NAME_PATTERN,
        "languages": _NOT_EMPTY | {"items": {"type": "string", "pattern": f"^{LANGUAGE_TAG.pattern}$"}},
        "steps": _NOT_EMPTY,
        "most_sms": _POSITIVE,
    },
    "SayStep": {"id": _NAME_PATTERN},
    "AskStep": {"id": _NAME_PATTERN, "attempts": _POSITIVE},
    "Goto": {"times": _POSITIVE},
    "Reminder": {"times": _POSITIVE},
}

_DESCRIPTIONS: Mapping[str, Mapping[str, str]] = {
    "SurveyFile": {
        "survey": "The survey's name, by which channels and the API know it.",
        "steps": (
            "The steps in order, each with an `id` and `say` or `ask`. After the last one the session ends."
        ),
        "title": "The survey's name for people: the answers to STOP, HELP and START open with it.",
        "start": (
            "Keywords that start the survey: patterns (RE2) for the whole SMS, one, a list, or by "
            'language. Case and accents do not matter. "*" is any SMS that nothing else waits for.'
        ),
        "languages": "The survey's languages. The first is the default.",
        "idle": (
            "The silence after which a session ends, such as 10m; none (the default): no silence ends it."
        ),
        "expires": "The time after which a session ends, whatever happens in it (3d).",
        "cooldown": (
            "A START this soon after a completed session of this survey is ignored (30s); 0s: none is. "
            "Another survey may begin at once."
        ),
        "again": (
            "What a START in mid-session is: `ignore` (the default) records it and changes nothing, "
            "`answer` takes it for an answer, `restart` begins anew."
        ),
        "most_sms": "The most SMS that a session sends; it ends there.",
        "lenient": (
            "true, beside `most_sms`: unreachable steps, untaken routes and endless cycles are warnings."
        ),
        "keep": (
            "How long what was said is kept after a session's end, such as 30d, if less than "
            "PARLEY_KEEP_DAYS."
        ),
        "variables": (
            "Session variables that an invitation brings: names, or names with the longest value of each."
        ),
        "texts": "The fixed texts: what is said at a session's end, after it, and outside of one.",
    },
    "FixedTexts": {
        "completed": "Sent at the end of a session that came to its end. Without it nothing is.",
        "gave_up": (
            "Sent when the attempts at a question are used up and no `give_up` step follows: the session "
            "ends with it; none: without a word."
        ),
        "unavailable": (
            "The answer to an SMS after a completed session, at most once an hour; none: no answer."
        ),
        "not_found": (
            "The answer to an SMS that belongs to nothing else, at most once an hour; none: no answer."
        ),
        "expired": (
            "The answer to an SMS after a session ended by silence or by its time, at most once an "
            "hour; none: no answer."
        ),
        "refused": (
            "The answer to a START that the throttle or the daily cap refuses, at most once a day. "
            "Without it there is none."
        ),
        "stopped": "The answer to a STOP, once; none: no answer.",
        "help": "The answer to HELP, at most once an hour; none: no answer.",
        "opted_in": "The answer to a START while opted out, if nothing else answers it; none: no answer.",
        "no_media": (
            "The answer to a picture without words, where the question takes words only; the question "
            "follows. Without it, what is told of other invalid answers."
        ),
    },
    "SayStep": {
        "id": "The step's name, by which routes and texts know it.",
        "say": (
            "What is sent; the conversation goes on at once. {name} is an earlier answer or a session "
            "variable."
        ),
        "next": "The step that follows, `end`, or a list of routes. Without it, the step below follows.",
    },
    "AskStep": {
        "id": "The step's name, by which routes and texts know it.",
        "ask": "What is asked; an answer is waited for. {name} is an earlier answer or a session variable.",
        "answer": "Which answers are taken, such as {type: yes_no}.",
        "invalid": (
            "What a person is told whose answer is none, before the question again. Without it Parley "
            "says why; none: nothing happens, however often."
        ),
        "attempts": (
            "How many invalid answers to this question end it (3). `give_up` follows then; without it "
            "the session ends with the fixed text `gave_up`."
        ),
        "give_up": (
            "The step that follows after too many invalid answers, such as a `say`. Without it the "
            "session ends with the fixed text `gave_up`."
        ),
        "next": "The step that follows, `end`, or a list of routes. Without it, the step below follows.",
        "remind": "A text that is sent when no answer comes.",
    },
    "Goto": {
        "go": "The step that follows, or `end`.",
        "when": "When the route is taken; without it always. Routes are tried in order.",
        "times": "How often a session takes the route at most; this bounds a cycle.",
    },
    "When": {
        "answer": "The question whose answer this is about, if it is not this step's.",
        "variable": "The session variable that this is about, in place of an answer.",
        "at_least": "The answer is this or more: a number, a day or a time.",
        "at_most": "The answer is this or less: a number, a day or a time.",
        "above": "The answer is more than this: a number, a day or a time.",
        "below": "The answer is less than this: a number, a day or a time.",
        "equals": "The answer is this: a number, yes or no, an option's id, or a text.",
        "one_of": "The answer is one of these.",
        "matches": "The pattern (RE2) matches the whole answer.",
        "contains": (
            "The text holds this, or one of these, anywhere; of `choices`: one of these options is "
            "among those chosen."
        ),
        "contains_word": "The text holds this, or one of these, as a word.",
        "answered": "true: there is an answer; false: there is none.",
        "all": "All of these conditions hold.",
        "any": "One of these conditions holds.",
        "not": "This condition does not hold.",
    },
    "Reminder": {
        "after": "The silence after which it is sent, such as 2h.",
        "text": "What is sent.",
        "times": "How often at most (1), each after the same silence.",
    },
    "Option": {
        "id": "What is stored, and what conditions name.",
        "label": "What the SMS shows behind the option's number; it is read too.",
        "aliases": "Further words that are read as this option.",
        "exclusive": "true, of `choices`: it is chosen alone, as `None of these` is.",
    },
    "Question": {
        "text": "What is sent.",
        "next": "The item that follows a question without `condition`; -2 ends.",
        "condition": "How the answer is compared with `value`.",
        "value": "The number that the answer is compared with.",
        "true_next": "The item that follows if the comparison holds; -2 ends.",
        "false_next": "The item that follows if it does not; -2 ends.",
    },
}
"""By type and field, for whoever writes. Those of an answer's fields are in its own file; `Question` is questions.json."""

_QUESTIONS_SCHEMA: Mapping[str, Any] = {
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
    questions = deepcopy(_QUESTIONS_SCHEMA)
    _, parts = msgspec.json.schema_components(
        [SurveyFile, SayStep, AskStep], schema_hook=_duration_schema, ref_template="#/$defs/{name}"
    )
    of_answers = {spec.__name__: spec.schema_limits for spec in ANSWER_SPECS}
    for name, further in (*_FIELD_LIMITS.items(), *of_answers.items()):
        for field, limits in further.items():
            parts[name]["properties"][field].update(limits)
    described = {**_DESCRIPTIONS, **{spec.__name__: spec.field_descriptions for spec in ANSWER_SPECS}}
    for name, part in (*parts.items(), ("Question", questions["items"])):
        for field, description in described[name].items():
            part["properties"][field]["description"] = description
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
        "then": questions,
        "else": {"$ref": "#/$defs/SurveyFile"},
        "$defs": parts,
    }


def _duration_schema(wanted: type) -> dict[str, Any]:
    if wanted is Duration:
        return {"type": "string", "pattern": "^[0-9]{1,6}[smhd]$"}
    if wanted is DurationOrNone:
        return {"type": "string", "pattern": "^([0-9]{1,6}[smhd]|none)$"}
    raise NotImplementedError
