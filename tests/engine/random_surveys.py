"""Surveys of any shape that an author might write, small enough to be looked through."""

import json

from hypothesis import strategies as st

from tests.engine.answer_samples import COMPARED, WRITTEN

IDS = ["a", "b", "c", "d"]
DURATIONS = ["1m", "10m", "1h"]
WORDS = [
    "Hi",
    "Well {a|you}",
    "ça va {b|}?",
    "{c|so}: {d|what}",
    "€" * 155,
    "x" * 160,
    "я" * 69,
    "A {k|?}",
    "x" * 157 + "{$messages}",
    "{$contact|you}: {$number}" + "x" * 140,
]

ABOUT_VARIABLES = [
    {"variable": "k", "equals": "1"},
    {"variable": "k", "equals": "v"},
    {"variable": "$contact", "equals": "Rey"},
    {"variable": "$number", "matches": r"\+9+"},
    {"variable": "$messages", "at_least": 2},
    {"variable": "$messages", "below": 3},
]


@st.composite
def conditions(draw, step, types):
    """A condition on the step's own answer, on another's, or on a variable; or a combination."""
    about = draw(st.sampled_from([*types, "$k"] if step not in types else [step, step, *types, "$k"]))
    if about == "$k":
        return draw(st.sampled_from(ABOUT_VARIABLES))
    condition = dict(draw(st.sampled_from(COMPARED[types[about]])))
    if about != step:
        condition["answer"] = about
    return draw(
        st.sampled_from(
            [
                condition,
                condition,
                {"not": condition},
                {"any": [condition, {"answered": False} if step in types else condition]},
            ]
        )
    )


@st.composite
def routes(draw, step, types, ids, most):
    if not types or draw(st.booleans()):
        return draw(st.sampled_from([None, None, "end", *ids]))
    written = []
    for _ in range(draw(st.integers(1, most))):
        route = {"go": draw(st.sampled_from(["end", *ids])), "when": draw(conditions(step, types))}
        if draw(st.integers(0, 2)) == 0:
            route["times"] = draw(st.integers(1, 2))
        written.append(route)
    if draw(st.booleans()):
        written.append({"go": draw(st.sampled_from(["end", *ids]))})
    return written


@st.composite
def surveys(draw, most_steps=4):
    """The source of a survey, as JSON. It may have errors."""
    ids = IDS[: draw(st.integers(1, most_steps))]
    answers = {step: draw(st.sampled_from(WRITTEN)) for step in ids if draw(st.integers(0, 3))}
    types = {step: answer["type"] for step, answer in answers.items()}
    steps = []
    for step in ids:
        text = draw(st.sampled_from(WORDS))
        written = (
            {"id": step, "ask": text, "answer": answers[step]}
            if step in answers
            else {"id": step, "say": text}
        )
        if (following := draw(routes(step, types, ids, 2))) is not None:
            written["next"] = following
        if step in answers:
            written["attempts"] = draw(st.integers(1, 2))
            if draw(st.booleans()):
                written["invalid"] = draw(st.sampled_from(WORDS))
            if draw(st.integers(0, 3)) == 0:
                written["give_up"] = draw(st.sampled_from(["end", *ids]))
            if draw(st.integers(0, 3)) == 0:
                written["remind"] = {
                    "after": draw(st.sampled_from(DURATIONS)),
                    "times": draw(st.integers(1, 2)),
                    "text": draw(st.sampled_from(WORDS)),
                }
        steps.append(written)
    survey = {
        "survey": "s",
        "steps": steps,
        "start": draw(st.sampled_from(["START", ["START", "*"]])),
        "variables": {"k": 3, "$contact": 4},
        "again": draw(st.sampled_from(["ignore", "answer"])),
    }
    if draw(st.integers(0, 2)) == 0:
        survey["most_sms"] = draw(st.integers(1, 8))
    survey["texts"] = {
        name: draw(st.sampled_from(WORDS))
        for name in ("completed", "no_media", "gave_up")
        if draw(st.booleans())
    }
    if draw(st.booleans()):
        survey["idle"] = draw(st.sampled_from(DURATIONS))
    return json.dumps(survey).encode()
