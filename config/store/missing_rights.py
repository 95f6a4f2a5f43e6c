"""What a Redis user may not do, as a server says it: which command, or the shapes of the keys, one of which it is.

A server quotes a command and no key, and of what a function does on it, it says so in an error of no kind. So what was sent
tells the rest. A name of a key may hold a phone number; its shape does not.
"""

import re
from collections.abc import Iterable
from typing import Any

import redis

from config.store import keyspace
from config.store.function_calls import Command
from config.store.lua_library import LIBRARY_NAME
from engine.model.errors import ParleyError

_REFUSED = re.compile(r"no permissions to |the user executing the script can't ", re.IGNORECASE)
_REFUSED_COMMAND = re.compile(r"no permissions to run the '([a-z|]+)' command", re.IGNORECASE)
_SOME_COMMAND = re.compile(r"can't run this command", re.IGNORECASE)
_CHANNEL = re.compile(r"\bchannels?\b", re.IGNORECASE)

_TODO = "give it the rights that config/redis/parley.acl has for it; ACL LOG there says what was refused"


class MissingRightError(ParleyError, redis.exceptions.NoPermissionError):
    """Our Redis user may not do what was asked, itself or in a function. The sentence may be logged."""


def explain_refusals(commands: Iterable[Command], answers: Iterable[Any]) -> list[Any]:
    """Return the answers to commands, with a MissingRightError for each that was refused for want of a right."""
    return [
        explain_refusal(answer, command) if isinstance(answer, redis.ResponseError) else answer
        for command, answer in zip(commands, answers, strict=True)
    ]


def explain_refusal(error: redis.ResponseError, command: Command = ()) -> redis.ResponseError:
    """Return the MissingRightError that an answer to a command means, or the error itself if it is of another kind."""
    is_refusal = _REFUSED.search(str(error)) is not None
    return MissingRightError(refusal_sentence(error, command)) if is_refusal else error


def refusal_sentence(error: redis.ResponseError, command: Command = ()) -> str:
    """Write what is missing, and what to do, by what a server has answered to a command, if that is known."""
    if isinstance(error, MissingRightError):
        return str(error)
    return f"the user of our Redis URL may not {_missing(str(error), command)}: {_TODO}"


def failure_words(error: Exception) -> str:
    """Write of a failure what a log may say: which right is missing, or else its kind alone, as its text may quote."""
    return str(error) if isinstance(error, MissingRightError) else type(error).__name__


def _missing(said: str, command: Command) -> str:
    function = _function_name(command)
    where = f" in {function}" if function else ""
    if found := _REFUSED_COMMAND.search(said):
        name = found[1].upper().replace("|", " ")
        return f"run {name}{where}" if name != "FCALL" else "run FCALL"
    if _SOME_COMMAND.search(said):
        return f"run a command{where}"
    if _CHANNEL.search(said):
        return f"use a channel{where}"
    shapes = sorted({keyspace.key_shape(each) for each in _keys_of(command)})
    match shapes:
        case []:
            return "use one of our keys or channels"
        case [shape]:
            return f"use a key {shape}{where}"
        case _:
            return f"use one of the keys {', '.join(shapes)}{where}"


def _function_name(command: Command) -> str:
    return str(command[1]).removeprefix(f"{LIBRARY_NAME}_") if command[:1] == ("FCALL",) else ""


def _keys_of(command: Command) -> list[str]:
    """What the names of keys may be among the words of a command."""
    words = command[3 : 3 + int(command[2])] if command[:1] == ("FCALL",) else command[1:]
    return [each for each in words if isinstance(each, str) and keyspace.is_key(each)]
