"""The fast path of webhooks: answers a genuine, readable call to a known channel before the framework sees it, as
these come by the million.

The call's events go into their mailboxes, or the spool, and the provider's response goes back. Every other request is
passed to the Falcon application untouched, which answers with what is wrong with it."""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from config.host import THIS_HOST, Host
from engine.providers import ForgedWebhookError, UnreadableWebhookError
from ingest.intake.mailboxes import RedisAndSpoolUnavailableError, RedisUnavailableError
from ingest.webhooks.channel_endpoint import (
    MAX_BODY_BYTES,
    RETRY_AFTER_S,
    ChannelEndpoint,
    WebhooksResource,
    webhook_call,
)

_WEBHOOK_METHODS = ("POST", "GET")
MAX_CACHED_STARTS = 16

AsgiScope = dict[str, Any]
AsgiReceive = Callable[[], Awaitable[Mapping[str, Any]]]
AsgiSend = Callable[[dict[str, Any]], Awaitable[None]]
AsgiApp = Callable[[AsgiScope, AsgiReceive, AsgiSend], Awaitable[None]]

_UNAVAILABLE_START = {
    "type": "http.response.start",
    "status": 503,
    "headers": [(b"retry-after", b"%d" % RETRY_AFTER_S), (b"content-type", b"application/json")],
}


class WebhookFastPath:
    """An ASGI application in front of `behind`."""

    def __init__(self, behind: AsgiApp, webhooks: WebhooksResource, host: Host = THIS_HOST) -> None:
        self._application = behind
        self._webhooks = webhooks
        self._host = host
        self._endpoints = {f"/webhooks/{ear.channel.name}": ear for ear in webhooks.endpoints.values()}

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        ear = self._known_endpoint(scope)
        if ear is None:
            await self._application(scope, receive, send)
            return
        arrived_s = self._host.monotonic_s()
        message = await receive()
        try:
            call = webhook_call(scope, _whole_body(message), self._host.wall_s())
            acknowledgement = await self._webhooks.handle(ear, call, arrived_s)
        except (ForgedWebhookError, UnreadableWebhookError):
            await self._application(scope, _receive_again(message, receive), send)
        except RedisUnavailableError as e:
            ear.unavailable_counter.inc()
            await send(_UNAVAILABLE_START)
            await send({"type": "http.response.body", "body": _unavailable_body(e)})
        else:
            await send(
                _response_start(
                    acknowledgement.status, acknowledgement.content_type, len(acknowledgement.body)
                )
            )
            await send({"type": "http.response.body", "body": acknowledgement.body})

    def _known_endpoint(self, scope: AsgiScope) -> ChannelEndpoint | None:
        """Return the channel endpoint that the request is for; None if it is no webhook of a known channel."""
        if scope["type"] != "http" or scope["method"] not in _WEBHOOK_METHODS:
            return None
        return self._endpoints.get(scope["path"])


def _unavailable_body(refusal: RedisUnavailableError) -> bytes:
    """Encode the body of a 503 as Falcon would: the title, and why the spool refused, if it did."""
    more = {"description": str(refusal)} if isinstance(refusal, RedisAndSpoolUnavailableError) else {}
    return msgspec.json.encode({"title": refusal.title, **more})


@lru_cache(MAX_CACHED_STARTS)
def _response_start(status: int, content_type: str, length: int) -> dict[str, Any]:
    headers = [(b"content-length", b"%d" % length)]
    if content_type:
        headers.append((b"content-type", content_type.encode()))
    return {"type": "http.response.start", "status": status, "headers": headers}


def _whole_body(message: Mapping[str, Any]) -> bytes:
    """The body, if it came in one piece and is not too long. Raises UnreadableWebhookError."""
    body: bytes = message.get("body", b"")
    if message["type"] != "http.request" or message.get("more_body") or len(body) > MAX_BODY_BYTES:
        raise UnreadableWebhookError("the body is not here, or not all of it, or too long")
    return body


def _receive_again(message: Mapping[str, Any], receive: AsgiReceive) -> AsgiReceive:
    """Return an ASGI `receive` that yields `message` first, and then what `receive` does. Raises
    UnreadableWebhookError where the client has gone before the body's end, which Falcon takes for the end."""
    taken = [message]
    more_body = True

    async def receive_once() -> Mapping[str, Any]:
        nonlocal more_body
        message = taken.pop() if taken else await receive()
        if message["type"] == "http.disconnect" and more_body:
            raise UnreadableWebhookError("the body was cut off")
        more_body = more_body and message.get("more_body", False)
        return message

    return receive_once
