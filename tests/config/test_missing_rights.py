"""What is refused is named by the command or the shapes of the keys, as each server says it, and nobody's number with it."""

import pytest
import redis

from config.store import missing_rights
from config.store.function_calls import accept_commands
from config.store.missing_rights import MissingRightError

ANNA = "+33600000001"
((ACCEPT,), _) = accept_commands(16, [(ANNA, False, b"x")])


@pytest.mark.parametrize("said, command, missing", [
    ("User web has no permissions to run the 'config|get' command", ("CONFIG", "GET", "save"), "run CONFIG GET"),
    ("this user has no permissions to run the 'get' command or its subcommand", ("GET", "shards"), "run GET"),
    ("User web has no permissions to run the 'fcall' command", ACCEPT, "run FCALL"),
    ("ERR ACL failure in script: User web has no permissions to run the 'rpush' command script: on @user_function:551.",
     ACCEPT, "run RPUSH in accept"),
    ("The user executing the script can't run this command or subcommand", ACCEPT, "run a command in accept"),
    ("No permissions to access a key", ACCEPT,
     "use one of the keys {*}:alarms, {*}:mail:*, {*}:server in accept"),
    ("The user executing the script can't access at least one of the keys mentioned in the command arguments", ACCEPT,
     "use one of the keys {*}:alarms, {*}:mail:*, {*}:server in accept"),
    ("this user has no permissions to access one of the keys used as arguments", ("GET", f"{{7}}:lane:{ANNA}"),
     "use a key {*}:lane:*"),
    ("No permissions to access a key", ("ZRANGE", f"simulator:{{{ANNA}}}:sms", 0, -1), "use a key simulator:{*}:sms"),
    ("No permissions to access a key", ("BZMPOP", 1, 1, "bell:starts", "MIN", "COUNT", 8), "use a key bell:starts"),
    ("No permissions to access a channel", ("SPUBLISH", "parley:written", ""), "use a channel"),
    ("No permissions to access a key", (), "use one of our keys or channels"),
])  # fmt: skip
def test_what_is_missing_is_named(said, command, missing):
    (error,) = missing_rights.explain_refusals([command], [redis.ResponseError(said)])
    assert isinstance(error, MissingRightError)
    assert str(error).startswith(f"the user of our Redis URL may not {missing}: give it the rights")
    assert missing_rights.failure_words(error) == missing_rights.refusal_sentence(error) == str(error)


def test_what_fails_for_another_reason_is_what_it_was():
    answers = [b"1", redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'.")]
    assert missing_rights.explain_refusals([("PING",), ("PING",)], answers) == answers
    assert missing_rights.failure_words(answers[1]) == "ResponseError"
