"""The webhook that is as it should be, answered before the framework: it is the one request that comes by the million.

A POST to a known channel with its token, whole in one piece, readable: its events go into their mailboxes and 200
goes back. Whatever is otherwise is handed on untouched, and the Falcon application says what is wrong with it.
"""

from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from time import perf_counter
from typing import Any

from engine.providers import Unreadable
from ingest.mailboxes import Unwritten
from ingest.webhooks import MOST_BYTES, RETRY_AFTER_S, Ear, Webhooks

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEARD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
_NOTHING = {"type": "http.response.body"}
_LATER = {
    "type": "http.response.start",
    "status": 503,
    "headers": [(b"retry-after", b"%d" % RETRY_AFTER_S), (b"content-type", b"application/json")],
}
_WHY_LATER = {"type": "http.response.body", "body": b'{"title": "Redis does not answer"}'}


class FrontDoor:
    """An ASGI application in front of `behind`."""

    def __init__(self, behind: App, webhooks: Webhooks) -> None:
        self._behind = behind
        self._webhooks = webhooks
        self._ears = {f"/webhooks/{ear.channel.name}": ear for ear in webhooks.ears.values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ear = self._known(scope)
        if ear is None:
            await self._behind(scope, receive, send)
            return
        arrived_s = perf_counter()
        message = await receive()
        try:
            await self._webhooks.hear(ear, _whole_body(message), arrived_s)
        except Unreadable:
            await self._behind(scope, _again(message, receive), send)
        except Unwritten:
            ear.unavailable.inc()
            await send(_LATER)
            await send(_WHY_LATER)
        else:
            await send(_HEARD)
            await send(_NOTHING)

    def _known(self, scope: Scope) -> Ear | None:
        """Whoever speaks, if this is a webhook with the right token."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        ear = self._ears.get(scope["path"])
        return ear if ear and compare_digest(scope["query_string"], ear.query) else None


def _whole_body(message: Mapping[str, Any]) -> bytes:
    """The body, if it came in one piece and is not too long. Raises Unreadable."""
    body: bytes = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body") or len(body) > MOST_BYTES:
        raise Unreadable("the body is not here, or not all of it, or too long")
    return body


def _again(message: Mapping[str, Any], receive: Receive) -> Receive:
    """`receive`, as if `message` had not been taken from it."""
    taken = [message]

    async def first() -> Mapping[str, Any]:
        return taken.pop() if taken else await receive()

    return first
