"""What does an inviter tell about a session? Its variables: texts by key, in any case.

A session keeps them among its answers, under "$" and the key in lower case, so that texts and conditions reach them
as they reach answers. No step's id begins with "$".
"""

import re

from engine.lane import Answer

LONGEST = 100
"""How long a value can get, in characters, where a survey says nothing else."""

USUAL = (
    "consumerEmail",
    "consumerPhone",
    "consumerChannel",
    "consumerSession",
    "queueKey",
    "agentId",
    "userGroupId",
)
"""The keys that Puzzel's SendSurvey recommends. They need no declaration."""

NAME = re.compile(r"[A-Za-z_][\w-]*")

_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")


def place_of(key: str) -> str:
    """Where a session keeps the variable."""
    return f"${key.lower()}"


def is_variable(place: str) -> bool:
    return place.startswith("$")


def read_variable(text: str) -> Answer:
    """A value as conditions compare it: what looks like a number is one, so that 7 is 7.0 and "007"."""
    if _NUMBER.fullmatch(text) is None:
        return Answer(text, text)
    return Answer(text, float(text) if "." in text else int(text))
