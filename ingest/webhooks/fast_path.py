"""The webhook that is as it should be, answered before the framework: it is the one request that comes by the million.

A call to a known channel, whole in one piece, genuine, readable: its events go into their mailboxes, or the spool, and the
provider's acknowledgement goes back. Whatever is otherwise is handed on untouched, and the Falcon application says
what is wrong with it.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from time import perf_counter
from typing import Any

import msgspec

from engine.providers import Forged, Unreadable
from ingest.intake.mailboxes import Unspooled, Unwritten
from ingest.webhooks.channel_endpoint import MOST_BYTES, RETRY_AFTER_S, UNAVAILABLE, Ear, Webhooks, call_of

_METHODS = ("POST", "GET")
MOST_ACKNOWLEDGEMENTS = 16

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LATER = {
    "type": "http.response.start",
    "status": 503,
    "headers": [(b"retry-after", b"%d" % RETRY_AFTER_S), (b"content-type", b"application/json")],
}


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
            call = call_of(scope, _whole_body(message))
            acknowledgement = await self._webhooks.hear(ear, call, arrived_s)
        except (Forged, Unreadable):
            await self._behind(scope, _again(message, receive), send)
        except Unwritten as e:
            ear.unavailable.inc()
            await send(_LATER)
            await send({"type": "http.response.body", "body": _why(e)})
        else:
            await send(
                _start(acknowledgement.status, acknowledgement.content_type, len(acknowledgement.body))
            )
            await send({"type": "http.response.body", "body": acknowledgement.body})

    def _known(self, scope: Scope) -> Ear | None:
        """Whoever speaks, if this is a webhook."""
        if scope["type"] != "http" or scope["method"] not in _METHODS:
            return None
        return self._ears.get(scope["path"])


def _why(refusal: Unwritten) -> bytes:
    """As Falcon would say it."""
    more = {"description": str(refusal)} if isinstance(refusal, Unspooled) else {}
    return msgspec.json.encode({"title": UNAVAILABLE, **more})


@lru_cache(MOST_ACKNOWLEDGEMENTS)
def _start(status: int, content_type: str, length: int) -> dict[str, Any]:
    headers = [(b"content-length", b"%d" % length)]
    if content_type:
        headers.append((b"content-type", content_type.encode()))
    return {"type": "http.response.start", "status": status, "headers": headers}


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
