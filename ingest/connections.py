"""What may strangers' connections take of `web`? Time, memory and places, each of them bounded.

Law: a connection that waits for its client waits for so long and holds so many bytes, whatever the client sends; and where
there are too many, the one that has waited for its client the longest goes. Whoever sends a whole request at once, as
providers do, is answered beside any number of those who do not.

uvicorn bounds none of it, but takes a protocol class: BoundedHttpProtocol is its own, which also knows what it waits for.
Nothing is timed for each request: ConnectionWatch looks at all connections once a second. What uvicorn's protocol and
RequestResponseCycle hold may be another thing in its next version, so that pyproject.toml bounds it from above.
"""

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal, get_args

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from config.telemetry import metrics
from engine.model.errors import ParleyError

MAX_PIPELINED = 16
"""Requests of one connection that wait for the answer to an earlier one."""


class ConnectionLimits(msgspec.Struct, frozen=True):
    """What all connections of a process, and one of them, may take. Moments are found out by a look a `look_s`."""

    connections: int = 1_000
    header_bytes: int = 32_768
    headers: int = 100
    headers_s: float = 10.0
    """For a request's line and headers, from the connection or their first byte on, however they come."""

    stall_s: float = 30.0
    """Without a byte: of a body that is to come, or of an answer that is to be taken."""

    body_bytes_per_s: float = 500.0
    """A body comes at this rate at least, on an average that begins after `stall_s`; so that a large one may take long."""

    look_s: float = 1.0


Awaited = Literal["request", "headers", "body", "rest", "reader", "answer"]
"""What a connection waits for. `rest`: what is left of a body when its request is answered already. `reader`: that the client
takes what was written. `answer`: is the only one that is ours to give."""

RefusalCause = Literal[
    "malformed", "headers", "pipelined", "idle", "slow_headers", "slow_body", "slow_reader", "crowded", "full"
]
"""Why a connection was ended by us. `headers`: too many or too long. `idle`: it never asked. `crowded`: for the sake of a
newer one. `full`: it was the newer one, and all others were being answered."""

_ANSWERS: Mapping[RefusalCause, HTTPStatus] = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "headers": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "slow_headers": HTTPStatus.REQUEST_TIMEOUT,
    "slow_body": HTTPStatus.REQUEST_TIMEOUT,
    "full": HTTPStatus.SERVICE_UNAVAILABLE,
}


class _RefusedRequestError(ParleyError):
    """Ends the parser's work on a request that is refused."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, watch: "ConnectionWatch", **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._watch = watch
        self._limits = watch.limits
        self._unparsed_bytes = 0
        self._body_bytes = 0
        self._refusal: RefusalCause = "malformed"
        self._awaited: Awaited = "request"
        self._awaited_for: object = None
        self._progress_bytes = 0
        self._body_s = 0.0
        self.since_s = self.loop.time()
        """Since when nothing has come forward, by the loop's clock, as far as anybody looked."""

    # What the transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._watch.admit(self):
            self.refuse("full")

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        self._body_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > self._limits.header_bytes or len(self.headers or ()) > self._limits.headers:
            self.refuse("headers")

    # What the parser finds

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = "pipelined"
            raise _RefusedRequestError
        if len(self.headers) > self._limits.headers or (
            self._unparsed_bytes > self._limits.header_bytes
            and _header_bytes(self.url, self.headers) > self._limits.header_bytes
        ):
            self._refusal = "headers"
            raise _RefusedRequestError
        self._body_bytes = self._unparsed_bytes  # what came with the headers is among them, and little
        self._unparsed_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0  # nor is what may follow yet, trailers
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn does with a request that could not be parsed, or that was refused meanwhile."""
        self.refuse(self._refusal)

    # What it waits for, and for how long

    def awaits(self) -> Awaited:
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            return "reader"
        if self.flow.read_paused:
            return "answer"
        last = self._last_request()
        if self._reads_headers():
            return "headers"
        if last is None:
            return "request"
        if last.more_body:
            return "rest" if last.response_complete else "body"
        return "request" if last.response_complete else "answer"

    def look(self, now_s: float, passed_s: float) -> None:
        """End it if it has waited for too long; the last look was `passed_s` ago."""
        if late := self._late_for(now_s, passed_s):
            self.refuse(late)

    def _late_for(self, now_s: float, passed_s: float) -> RefusalCause | None:
        awaited = self.awaits()
        self._note_progress(awaited, now_s)
        stood_s = now_s - self.since_s
        match awaited:
            case "answer":
                return None
            case "request":
                return "idle" if stood_s > self._limits.headers_s else None
            case "headers":
                return "slow_headers" if stood_s > self._limits.headers_s else None
            case "reader":
                return "slow_reader" if stood_s > self._limits.stall_s else None
            case "body" | "rest":
                self._body_s += passed_s
                earned_s = self._body_bytes / self._limits.body_bytes_per_s if awaited == "body" else 0
                too_slow = self._body_s > self._limits.stall_s + earned_s
                return "slow_body" if too_slow or stood_s > self._limits.stall_s else None

    def _note_progress(self, awaited: Awaited, now_s: float) -> None:
        """Note what it waits for, and that it has come forward since the last look, if it has."""
        new = awaited != self._awaited or self.scope is not self._awaited_for
        progress = {"body": self._body_bytes, "reader": self.transport.get_write_buffer_size()}.get(
            awaited, 0
        )
        if new:
            self._body_s = 0
        if new or progress != self._progress_bytes:
            self.since_s = now_s
        self._awaited, self._awaited_for, self._progress_bytes = awaited, self.scope, progress

    # How it ends

    def refuse(self, cause: RefusalCause) -> None:
        """End it: with an answer, where one is owed to the request that is refused and to no earlier one."""
        if cause in ("slow_reader", "crowded"):
            self.transport.abort()
        elif self.transport.is_closing():
            return
        else:
            if (status := _ANSWERS.get(cause)) and self._can_answer():
                self.transport.write(_encode_answer(status, self.server_state.default_headers))
            self.transport.close()
        self._disconnect_application()
        REFUSAL_COUNTERS[cause].inc()

    def _can_answer(self) -> bool:
        last = self._last_request()
        if self.pipeline or last is None:
            return not self.pipeline
        return last.response_complete if self._reads_headers() else not last.response_started

    def _disconnect_application(self) -> None:
        """Tell what works on the last request that nobody waits for its answer."""
        last = self._last_request()
        if last is not None and not last.response_complete:
            last.disconnected = True
            last.message_event.set()

    def _last_request(self) -> RequestResponseCycle | None:
        """The last one whose headers are complete."""
        return self.cycle

    def _reads_headers(self) -> bool:
        """Has a request begun whose headers are not complete?"""
        last = self._last_request()
        return bool(self.scope) and (last is None or last.scope is not self.scope)


class ConnectionWatch:
    """All connections of this process: ends those that are late, and makes room for new ones."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.connections: set[BoundedHttpProtocol] = set()
        self._longest_last: list[BoundedHttpProtocol] = []
        self._looked_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def protocol(self, **of_uvicorn: Any) -> BoundedHttpProtocol:
        """A new connection's protocol, as uvicorn makes one."""
        return BoundedHttpProtocol(self, **of_uvicorn)

    def admit(self, newcomer: BoundedHttpProtocol) -> bool:
        """May it stay? If there are too many, another goes for it, unless all of them are being answered."""
        if len(self.connections) >= self.limits.connections:
            longest = self._longest_waiting()
            if longest is None:
                return False
            self.connections.discard(longest)
            longest.refuse("crowded")
        self.connections.add(newcomer)
        if self._timer is None:
            self._looked_s = newcomer.loop.time()
            self._look_again(newcomer.loop)
        return True

    def _longest_waiting(self) -> BoundedHttpProtocol | None:
        """The one that has waited for its client the longest; None if all are being answered. They are put in order once a
        look, or when all of them had to go: a flood of newcomers must not be dear."""
        while self._longest_last:
            longest = self._longest_last.pop()
            if longest in self.connections and longest.awaits() != "answer":
                return longest
        waiting = (each for each in self.connections if each.awaits() != "answer")
        self._longest_last = sorted(waiting, key=lambda each: each.since_s, reverse=True)
        return self._longest_last.pop() if self._longest_last else None

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self.limits.look_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for connection in list(self.connections):
            connection.look(now_s, now_s - self._looked_s)
        self._looked_s, self._timer, self._longest_last = now_s, None, []
        if self.connections:
            self._look_again(loop)


REFUSAL_COUNTERS = {cause: metrics.CONNECTIONS_REFUSED.labels(cause) for cause in get_args(RefusalCause)}


def _header_bytes(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + len(": \r\n") for name, value in headers)


def _encode_answer(status: HTTPStatus, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    more = [*headers, (b"content-length", b"0"), (b"connection", b"close")]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        more.append((b"retry-after", b"1"))
    lines = [b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode()), *(b"%b: %b" % each for each in more)]
    return b"\r\n".join([*lines, b"", b""])
