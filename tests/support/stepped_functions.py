"""The server-side functions with a clock that a test may step, on a server whose own clock goes on as it is.

For claims about what functions make of stored moments. What Redis itself makes of a step, such as keys that end, takes a
server with another clock: stepped_clock.py.
"""

import redis

from config.store import lua_library

OFFSET_KEY = "offset-of-the-clock"
"""Tells whoever asks how far ahead the functions are. These do not look: on a cluster the key lies on one server alone."""

_CLOCK = "local t = redis.call('TIME')\n"


def load_stepped_functions(client: redis.Redis) -> None:
    """Put functions in the place of ours that go by the server's clock and an offset, which is 0 for now."""
    step_functions(client, 0)


def step_functions(client: redis.Redis, offset_s: int) -> None:
    """Be so far ahead from now on; behind, if negative."""
    source = lua_library.LIBRARY_SOURCE
    assert source.count(_CLOCK) == 1
    offset = f"{_CLOCK}  t[1] = t[1] + ({offset_s})\n"
    client.function_load(source.replace(_CLOCK, offset), replace=True)
    client.set(OFFSET_KEY, offset_s)
