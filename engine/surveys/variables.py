"""Session variables. Inviters give them as texts by key, in any case; a session keeps them among its answers, under
"$" and the key in lower case, so that texts and conditions reach them like answers (no step's id begins with "$").
Built-in variables ({$contact}, {$number}, {$messages}) have keys that begin with "$" themselves, so no inviter's
key can collide with them."""

import re
from collections.abc import Mapping

from engine.model.events import Answer

LONGEST_VALUE = 100
"""How long a value can get, in characters, where a survey says nothing else."""

PUZZEL_KEYS = (
    "consumerEmail",
    "consumerPhone",
    "consumerChannel",
    "consumerSession",
    "queueKey",
    "agentId",
    "userGroupId",
)
"""The keys that Puzzel's SendSurvey recommends. They need no declaration."""

KEY_PATTERN = re.compile(r"[A-Za-z_][\w-]*")

_NUMERIC_VALUE = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")


def answer_key(key: str) -> str:
    """Where a session keeps the variable."""
    return f"${key.lower()}"


CONTACT_KEY = answer_key("$contact")
"""The person's name, as the channel's contacts give it; not there if they don't."""

NUMBER_KEY = answer_key("$number")
"""The number of ours that the person wrote to, or that the session writes from."""

MESSAGES_KEY = answer_key("$messages")
"""How many SMS the person has sent in the session, this one counted."""

MOST_COUNTED_MESSAGES = 9_999
"""Counted up to here, so that every text has a longest form."""

BUILTIN_VARIABLES: Mapping[str, int] = {
    CONTACT_KEY: LONGEST_VALUE,
    NUMBER_KEY: 16,
    MESSAGES_KEY: len(str(MOST_COUNTED_MESSAGES)),
}
"""What Parley tells by itself, by place, and how long it can get: a number is `+` and 15 digits (E.164) at most."""


def message_count(messages: int) -> Answer:
    """So many SMS, as MESSAGES holds it."""
    counted = min(messages, MOST_COUNTED_MESSAGES)
    return Answer(str(counted), counted)


def is_variable(place: str) -> bool:
    return place.startswith("$")


def read_variable(text: str) -> Answer:
    """A value as conditions compare it: what looks like a number is one, so that 7 is 7.0 and "007"."""
    if _NUMERIC_VALUE.fullmatch(text) is None:
        return Answer(text, text)
    return Answer(text, float(text) if "." in text else int(text))
