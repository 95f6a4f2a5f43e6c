"""A request to a provider is made once, under one deadline, in an event loop, on connections that are kept for the next.

Law: whatever the resolver, the host's addresses, a proxy or the provider do, `exchange` comes back by its deadline, with at most
MAX_ANSWER_BYTES of an answer, as long as its loop goes round. Between an established connection and the first byte of a
request with a body, the time is looked at once more: late, not a byte of it leaves. Every error says whether any did: one that
has a NothingSentError in it carried nothing.

A process that is frozen between that look and the kernel's write still sends late; nothing here can see it.
"""

import asyncio
import socket
from time import monotonic
from typing import Any, cast

import msgspec
import requests
from requests.utils import select_proxy

from config.telemetry import faults
from engine.model.errors import ParleyError
from engine.providers import ProviderRequest
from workers.sending.http_connection import HttpAnswer, HttpConnection
from workers.sending.provider_route import (
    NothingSentError,
    ProviderRoute,
    RouteConnector,
    parse_endpoint,
    parse_proxy,
)
from workers.sending.thread_resolver import GetAddrInfo

KEPT_S = 15.0
"""How long a connection is kept on which nothing is asked."""


class ExchangeDeadline(msgspec.Struct, frozen=True):
    """Until when the first byte of a request with a body may leave, and by when its answer must have been read: moments of
    time.monotonic."""

    first_byte_s: float
    answer_s: float


class TooLateToSendError(ParleyError, requests.Timeout):
    """The connection was there, and the time for the first byte was over. Nothing was sent."""


class _Target(msgspec.Struct, frozen=True):
    """Where requests for a URL go, and how each of them begins."""

    route: ProviderRoute
    head: str


class DeadlineTransport:
    """Makes requests, each under an ExchangeDeadline, all in one event loop. Proxies and CA bundle are those that requests finds in the
    environment for `base_url`, under which all requests lie."""

    def __init__(self, base_url: str, resolve: GetAddrInfo = socket.getaddrinfo) -> None:
        environment: Any = requests.Session().merge_environment_settings(base_url, {}, None, None, None)
        self._proxies = environment["proxies"]
        self._connector = RouteConnector(resolve, environment["verify"])
        self._post_targets: dict[str, _Target] = {}
        self._kept: dict[ProviderRoute, list[HttpConnection]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def exchange(self, request: ProviderRequest, deadline: ExchangeDeadline) -> HttpAnswer:
        """Raises requests' errors; TooLateToSendError if the connection came too late."""
        target = self._target_of(request)
        written = _write_request(target.head, request)
        first_byte_s = deadline.first_byte_s if request.body else deadline.answer_s
        connection = self._take_kept(target.route)
        if connection is None:
            connection = await self._connector.connect(target.route, first_byte_s)
        if request.body:
            faults.reach("after_connect")
        if connection.transport.is_closing():
            raise requests.ConnectionError(NothingSentError("the connection was closed at once"))
        if request.body and monotonic() > first_byte_s:
            connection.transport.close()
            raise TooLateToSendError(NothingSentError("the connection came too late"))
        try:
            async with asyncio.timeout_at(deadline.answer_s):
                answering = connection.ask(written)
                if request.body:
                    faults.reach("after_write")
                answer = await answering
        except BaseException as e:
            connection.reset()
            if isinstance(e, TimeoutError):
                raise requests.ReadTimeout(e) from e
            raise
        self._keep(target.route, connection)
        return answer

    def close(self) -> None:
        """Close the connections that are kept. In the thread of the loop."""
        if self._sweep is not None:
            self._sweep.cancel()
        for each in self._kept.values():
            for connection in each:
                connection.transport.close()
        self._kept.clear()

    def _target_of(self, request: ProviderRequest) -> _Target:
        """Where a request goes. It is worked out once for all POSTs to the same URL: that costs as much as sending one."""
        if not request.body:
            return self._open_target("GET", request.url)
        target = self._post_targets.get(request.url)
        if target is None:
            target = self._post_targets[request.url] = self._open_target("POST", request.url)
        return target

    def _open_target(self, method: str, url: str) -> _Target:
        """Raises requests' errors for what is no URL."""
        prepared = requests.Request(method, url).prepare()
        endpoint, parts = parse_endpoint(cast(str, prepared.url))
        path = prepared.path_url
        lines = [f"Host: {endpoint.name}", "User-Agent: parley", "Accept-Encoding: identity"]
        if authorization := prepared.headers.get("Authorization"):
            lines.append(f"Authorization: {authorization}")
        route = ProviderRoute(endpoint)
        proxy = select_proxy(cast(str, prepared.url), self._proxies) if self._proxies else None
        if proxy:
            route = ProviderRoute(endpoint, *parse_proxy(proxy))
            if not endpoint.is_secure:
                path = f"{parts.scheme}://{endpoint.name}{path}"
                if route.proxy_authorization:
                    lines.append(f"Proxy-Authorization: {route.proxy_authorization}")
        head = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", *lines))
        return _Target(route, head)

    def _take_kept(self, route: ProviderRoute) -> HttpConnection | None:
        """A connection on which requests were made before, if there is one that is not closed."""
        kept = self._kept.get(route)
        while kept:
            connection = kept.pop()
            if not connection.is_dropped() and monotonic() - connection.kept_since_s < KEPT_S:
                return connection
            connection.transport.abort()
        return None

    def _keep(self, route: ProviderRoute, connection: HttpConnection) -> None:
        if not connection.is_reusable or connection.transport.get_write_buffer_size():
            connection.transport.abort()
            return
        connection.kept_since_s = monotonic()
        self._kept.setdefault(route, []).append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(KEPT_S, self._close_idle)

    def _close_idle(self) -> None:
        """Close what nobody has used for long."""
        self._sweep = None
        oldest_s = monotonic() - KEPT_S
        for route, kept in list(self._kept.items()):
            self._kept[route] = []
            for connection in kept:
                if connection.kept_since_s <= oldest_s or connection.transport.is_closing():
                    connection.transport.close()
                else:
                    self._kept[route].append(connection)
        if any(self._kept.values()):
            self._sweep = asyncio.get_running_loop().call_later(KEPT_S, self._close_idle)


def _write_request(head: str, request: ProviderRequest) -> bytes:
    """The bytes of a request. Raises requests.exceptions.InvalidHeader, and nothing is sent."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in request.headers.items()])
    if lines.count("\n") != len(request.headers) or lines.count("\r") != len(request.headers):
        raise requests.exceptions.InvalidHeader(NothingSentError("a line breaks off in a header"))
    length = f"Content-Length: {len(request.body)}\r\n" if request.body else ""
    try:
        return f"{head}{lines}{length}\r\n".encode() + request.body
    except UnicodeEncodeError as e:
        raise requests.exceptions.InvalidHeader(NothingSentError(str(e))) from e
