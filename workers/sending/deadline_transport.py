"""A request to a provider is made once, under one deadline: an adapter of requests, behind which aiohttp does all of a
channel's exchanges in one thread.

Law: whatever the resolver, the host's addresses, a proxy or the provider do, `send` comes back by its deadline, with at most
MAX_ANSWER_BYTES of an answer. Between an established connection and the first byte of a request with a body, the time is
looked at once more: late, not a byte of it leaves. Every error says whether any did: one that has a NothingSentError in it
carried nothing.

A process that is frozen between that look and the kernel's write still sends late; nothing here can see it.
"""

import asyncio
import socket
import ssl
import struct
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from http.client import responses
from io import BytesIO
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, cast

import aiohttp
import msgspec
import requests
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from requests.adapters import DEFAULT_CA_BUNDLE_PATH
from requests.utils import select_proxy
from urllib3.util import wait_for_read
from yarl import URL

from config.telemetry import faults
from engine.model.errors import ParleyError
from workers.sending.thread_resolver import GetAddrInfo, ThreadResolver

MAX_ANSWER_BYTES = 2 << 20
"""The longest answer that is read: 200 messages of 1,600 characters, each written as an escape of six bytes, which is the
longest page that a look-up lists (LOOKUP_PAGE_SIZE in engine/providers/twilio.py)."""

COMPRESSIONS = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"))
"""Content codings that make an answer longer when they are undone (RFC 9110, section 8.4.1, and IANA's list). What else some
gateways say there, such as `utf-8`, is passed over."""

MAX_HEADER_LINE_BYTES = 65_536
"""As in http.client."""

NEXT_ADDRESS_S = 0.25
"""How long an address of a host may be silent before the next one is tried beside it (RFC 8305, section 5)."""

MAX_RESOLVING = 8
"""Names of one channel that are asked for at once. A resolver that hangs holds that many threads, and no try."""

LOOP_GRACE_S = 0.5
"""How much later than its deadline an exchange is given up by who waits for it, should the thread that makes it hang."""

_CLOSE_BY_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: what the kernel has not got across by then is dropped, not sent again and again."""


class ExchangeDeadline(msgspec.Struct, frozen=True):
    """Until when the first byte of a request with a body may leave, and by when its answer must have been read: moments of
    time.monotonic."""

    first_byte_s: float
    answer_s: float


class NothingSentError(ParleyError):
    """Not a byte of the request left: the provider does not have it."""


class TooLateToSendError(ParleyError, requests.Timeout):
    """The connection was there, and the time for the first byte was over. Nothing was sent."""


class _DroppedConnectionError(ParleyError):
    """A kept connection turned out to be closed, before anything was written."""


class DeadlineTransport(requests.adapters.BaseAdapter):
    """Makes requests, each under an ExchangeDeadline that it gets as its `timeout`. Kept-alive connections, proxies and CA
    bundles are as with requests' own adapter; client certificates and SOCKS there are not. Threads may share one.

    `close` ends its thread; so does its being forgotten.
    """

    def __init__(self, resolve: GetAddrInfo = socket.getaddrinfo) -> None:
        super().__init__()
        self._tls_contexts: dict[bool | str, ssl.SSLContext] = {}
        self._exchanger = _Exchanger(resolve)
        self._loop = self._exchanger.start()
        self._finalizer = weakref.finalize(self, self._exchanger.stop)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Raises requests' errors; TooLateToSendError if the connection came too late."""
        deadline: ExchangeDeadline = timeout
        proxy = _proxy_of(request, proxies)
        secure = any(url.lower().startswith("https:") for url in (request.url, proxy) if url)
        tls = self._tls_context(verify) if secure else True
        results: SimpleQueue[requests.Response | Exception] = SimpleQueue()
        exchange = partial(self._exchanger.exchange, request, deadline, tls, proxy)
        self._loop.call_soon_threadsafe(self._exchanger.begin, exchange, results.put)
        try:
            result = results.get(timeout=max(0.0, deadline.answer_s + LOOP_GRACE_S - monotonic()))
        except Empty as e:
            raise requests.ReadTimeout(e, request=request) from e
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self._finalizer()

    def _tls_context(self, verify: bool | str) -> ssl.SSLContext:
        """What decides whom to trust: `verify` is a file or folder of certificates, or True for those that requests has."""
        context = self._tls_contexts.get(verify)
        if context is None:
            try:
                context = _open_tls_context(verify)
            except OSError as e:
                why = NothingSentError(f"the CA bundle cannot be read: {e}")
                raise requests.exceptions.SSLError(why) from e
            self._tls_contexts[verify] = context
        return context


class _Exchanger:
    """What runs in the thread: one loop, one session, and its kept connections."""

    def __init__(self, resolve: GetAddrInfo) -> None:
        self._resolver = ThreadResolver(resolve, names_at_once=MAX_RESOLVING)
        self._used: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> asyncio.AbstractEventLoop:
        started: Future[asyncio.AbstractEventLoop] = Future()
        Thread(target=lambda: asyncio.run(self._serve(started)), name="exchanges", daemon=True).start()
        return started.result()

    def stop(self) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stopped.set)

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        connector = aiohttp.TCPConnector(
            limit=0, resolver=self._resolver, happy_eyeballs_delay=NEXT_ADDRESS_S
        )
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "parley", "Accept-Encoding": "identity"},
            skip_auto_headers=("Accept", "Content-Type"),
            auto_decompress=False,
            max_line_size=MAX_HEADER_LINE_BYTES,
            max_field_size=MAX_HEADER_LINE_BYTES,
        ) as self._session:
            started.set_result(self._loop)
            await self._stopped.wait()

    def begin(self, exchange: Callable[[], Awaitable[requests.Response]], put: Callable[[Any], None]) -> None:
        """Make an exchange, and put its response or its error where it is waited for. In the thread of the loop."""

        async def run() -> None:
            try:
                put(await exchange())
            except Exception as e:  # noqa: BLE001 (whoever waits gets it)
                put(e)

        task = self._loop.create_task(run())
        self._tasks.add(task)  # a loop keeps none alive
        task.add_done_callback(self._tasks.discard)

    async def exchange(
        self,
        request: requests.PreparedRequest,
        deadline: ExchangeDeadline,
        tls: ssl.SSLContext | bool,
        proxy: str | None,
    ) -> requests.Response:
        while True:
            body = _LastLookBody(request.body, deadline, self._used) if request.body else None
            with suppress(_DroppedConnectionError):  # there are no more than were kept
                return await self._exchange_once(request, body, deadline, tls, proxy)

    async def _exchange_once(
        self,
        request: requests.PreparedRequest,
        body: "_LastLookBody | None",
        deadline: ExchangeDeadline,
        tls: ssl.SSLContext | bool,
        proxy: str | None,
    ) -> requests.Response:
        try:
            async with asyncio.timeout_at(deadline.first_byte_s if body else deadline.answer_s) as timeout:
                if body:
                    body.timeout = timeout
                async with self._session.request(
                    cast(str, request.method),
                    URL(cast(str, request.url), encoded=True),
                    data=body,
                    headers=request.headers,
                    allow_redirects=False,
                    proxy=proxy,
                    ssl=tls,
                ) as answer:
                    return _as_response(request, answer, await _read_answer(answer))
        except (Exception, asyncio.CancelledError) as e:  # cancelled: the transport is closed
            if body and body.left is None:
                raise body.refusal or _error_before_sending(e, request) from e
            if body:
                _reset(cast(asyncio.Transport, body.left))
            raise _error_of_exchange(e, request) from e


class _LastLookBody(aiohttp.BytesPayload):
    """A request's body, with which its head is written in one go. Before that, the time is looked at; `left` is the
    connection on which it left, if it did, and `refusal` says why not."""

    timeout: asyncio.Timeout

    def __init__(
        self, body: bytes | str, deadline: ExchangeDeadline, used: "weakref.WeakSet[asyncio.Transport]"
    ) -> None:
        super().__init__(body.encode() if isinstance(body, str) else body)
        self.left: asyncio.Transport | None = None
        self.refusal: Exception | None = None
        self._deadline = deadline
        self._used = used

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        faults.reach("after_connect")
        transport = cast(StreamWriter, writer).transport
        if transport is None or transport.is_closing() or self._is_dropped(transport):
            self.refusal = _DroppedConnectionError()
            raise self.refusal
        self._used.add(transport)
        if monotonic() > self._deadline.first_byte_s:
            self.refusal = TooLateToSendError(NothingSentError("the connection came too late"))
            raise self.refusal
        self.timeout.reschedule(self._deadline.answer_s)
        self.left = transport
        await super().write_with_length(writer, content_length)
        faults.reach("after_write")

    def _is_dropped(self, transport: asyncio.Transport) -> bool:
        """Has the provider closed, or written to, a connection on which nothing is asked?"""
        return transport in self._used and wait_for_read(transport.get_extra_info("socket"), timeout=0.0)


async def _read_answer(answer: aiohttp.ClientResponse) -> bytes:
    """The body, if it is not compressed, and no longer than MAX_ANSWER_BYTES."""
    codings = {each.strip().lower() for each in answer.headers.get("Content-Encoding", "").split(",")}
    if codings & COMPRESSIONS:
        answer.close()
        raise requests.exceptions.ContentDecodingError("the answer is compressed, which was not asked for")
    body = bytearray()
    while chunk := await answer.content.readany():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            answer.close()
            raise requests.exceptions.ContentDecodingError("the answer is too long")
    return bytes(body)


def _as_response(
    request: requests.PreparedRequest, answer: aiohttp.ClientResponse, body: bytes
) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status
    response.reason = answer.reason or responses.get(answer.status, "")
    response.headers = requests.structures.CaseInsensitiveDict(answer.headers)
    response.raw = BytesIO(body)
    response.url = cast(str, request.url)
    response.request = request
    return response


def _error_before_sending(
    error: BaseException, request: requests.PreparedRequest
) -> requests.RequestException:
    """What is raised for an error by which no byte of a request had left."""
    kind: type[requests.RequestException] = type(_error_of_exchange(error, request))
    if isinstance(error, TimeoutError):
        kind = requests.ConnectTimeout
    return kind(NothingSentError(str(error)), request=request)


def _error_of_exchange(error: BaseException, request: requests.PreparedRequest) -> requests.RequestException:
    """What is raised for an error by which the request may have left; some cannot come so late."""
    match error:
        case requests.RequestException():
            return error
        case aiohttp.ClientSSLError():
            return requests.exceptions.SSLError(NothingSentError(str(error)), request=request)
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return requests.exceptions.ProxyError(NothingSentError(str(error)), request=request)
        case aiohttp.ClientConnectorError():
            return requests.ConnectionError(NothingSentError(str(error)), request=request)
        case aiohttp.InvalidURL():
            return requests.exceptions.InvalidURL(NothingSentError(str(error)), request=request)
        case TimeoutError():
            return requests.ReadTimeout(error, request=request)
        case _:
            return requests.ConnectionError(error, request=request)


def _reset(transport: asyncio.Transport) -> None:
    """End a connection at once, so that what it has not got across yet does not arrive later."""
    with suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_BY_RESET)
    transport.abort()


def _proxy_of(request: requests.PreparedRequest, proxies: Any) -> str | None:
    """The proxy for a request, as requests chooses it."""
    found: str | None = select_proxy(cast(str, request.url), proxies) if proxies else None
    if not found:
        return None
    proxy = found if "://" in found else f"http://{found}"
    if not proxy.lower().startswith(("http://", "https://")):
        raise requests.exceptions.InvalidSchema(f"no proxy of the kind {proxy.partition(':')[0]!r}")
    return proxy


def _open_tls_context(verify: bool | str) -> ssl.SSLContext:
    """Raises OSError if the certificates cannot be read."""
    place = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
    folder = Path(place).is_dir()
    context = ssl.create_default_context(cafile=None if folder else place, capath=place if folder else None)
    context.set_alpn_protocols(["http/1.1"])
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
