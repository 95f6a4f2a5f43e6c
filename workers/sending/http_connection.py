"""One connection by HTTP/1.1, on which one request at a time is written, in one go, and its answer read to its end, by httptools.

An answer is read leniently where its meaning is clear, and no further than MAX_HEAD_BYTES and MAX_ANSWER_BYTES."""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import NamedTuple, cast

import httptools
import requests
from urllib3.util import wait_for_read

MAX_ANSWER_BYTES = 2 << 20
"""The longest answer that is read: 200 messages of 1,600 characters, each written as an escape of six bytes, which is the
longest page that a look-up lists (LOOKUP_PAGE_SIZE in engine/providers/twilio.py)."""

MAX_WIRE_BYTES = MAX_ANSWER_BYTES * 3 // 2
"""As much as is read for one answer in all, with the marks of chunks, trailers, and answers before it (1xx)."""

MAX_HEAD_BYTES = 65_536
"""As much as http.client reads of one line."""

COMPRESSIONS = frozenset((b"gzip", b"x-gzip", b"deflate", b"br", b"zstd", b"compress", b"x-compress"))
"""Content codings that make an answer longer when they are undone (RFC 9110, section 8.4.1, and IANA's list). What else some
gateways say there, such as `utf-8`, is passed over."""

_CLOSE_BY_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: what the kernel has not got across by then is dropped, not sent again and again."""


class HttpAnswer(NamedTuple):
    status: int
    body: bytes


class HttpConnection(asyncio.Protocol):
    """`transport` is what it writes to: TLS, once that is there. `is_reusable`: another request may follow the one that is
    answered. `kept_since_s` is when it was put aside for that, as its owner says."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.is_reusable = True
        self.kept_since_s = 0.0
        self._asking: asyncio.Future[HttpAnswer] | None = None
        self._is_tunnel = False

    def ask(self, request: bytes, *, is_tunnel: bool = False) -> "asyncio.Future[HttpAnswer]":
        """Write a request. Answers with what comes, or requests' errors; a tunnel (CONNECT) begins where an answer's head ends."""
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._is_tunnel = is_tunnel
        self._wire_bytes = 0
        self._asking = answer = asyncio.get_running_loop().create_future()
        self._begin_answer()
        self.transport.write(request)
        return answer

    def is_dropped(self) -> bool:
        """Has the other side closed, or written to, a connection on which nothing is asked?"""
        return self.transport.is_closing() or wait_for_read(
            self.transport.get_extra_info("socket"), timeout=0.0
        )

    def reset(self) -> None:
        """End it at once, so that what it has not got across yet does not arrive later."""
        connected = self.transport.get_extra_info("socket")
        if connected is not None:  # TLS that has ended has none any more
            with suppress(OSError):
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_BY_RESET)
        self.transport.abort()

    def _begin_answer(self) -> None:
        self._head_bytes = 0
        self._has_head = False
        self._has_end = False  # it says how long its body is
        self._codings = b""
        self._body = bytearray()

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._asking is None:  # nobody has asked
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            self._fail(requests.ConnectionError(e))
        self._wire_bytes += len(data)
        if self._wire_bytes > MAX_WIRE_BYTES:
            self._fail(requests.exceptions.ContentDecodingError("the answer is too long"))
        if not self._has_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(requests.ConnectionError("the head of the answer is too long"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asking is not None and exc is None and self._has_head and not self._has_end:
            self._finish(is_reusable=False)  # the answer ends with the connection
        self._fail(requests.ConnectionError(exc or "the connection was closed"))

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._asking is None:  # nobody has asked for it
            self._fail(requests.ConnectionError("more came than an answer"))
        else:
            self._begin_answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length":
                self._has_end = True
            case b"transfer-encoding":
                self._has_end |= b"chunked" in value.lower()
            case b"content-encoding":
                self._codings += b"," + value.lower()

    def on_headers_complete(self) -> None:
        self._has_head = True
        if self._is_tunnel:
            self._finish(is_reusable=True)
        elif COMPRESSIONS.intersection(each.strip() for each in self._codings.split(b",")):
            self._fail(
                requests.exceptions.ContentDecodingError("the answer is compressed, which was not asked for")
            )

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_ANSWER_BYTES:
            self._fail(requests.exceptions.ContentDecodingError("the answer is too long"))

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:
            self._finish(is_reusable=self._parser.should_keep_alive())
        else:  # another answer must follow
            self._begin_answer()

    def _finish(self, *, is_reusable: bool) -> None:
        answer, self._asking = self._asking, None
        if answer is None:
            return
        self.is_reusable = is_reusable
        if not answer.done():
            answer.set_result(HttpAnswer(self._parser.get_status_code(), bytes(self._body)))

    def _fail(self, error: requests.RequestException) -> None:
        answer, self._asking = self._asking, None
        self.is_reusable = False
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self.transport.abort()
