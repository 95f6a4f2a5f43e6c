"""How a provider is reached: its host's addresses, a proxy before it, and TLS. The errors are requests' own: of what is no
address, InvalidURL and InvalidSchema; in each other is a NothingSentError, as not a byte of a request has left then."""

import asyncio
import socket
import ssl
from base64 import b64encode
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

import requests
from aiohappyeyeballs import AddrInfoType, start_connection
from requests.adapters import DEFAULT_CA_BUNDLE_PATH
from requests.utils import get_auth_from_url

from engine.model.errors import ParleyError
from workers.sending.http_connection import HttpConnection
from workers.sending.thread_resolver import GetAddrInfo, ThreadResolver

NEXT_ADDRESS_S = 0.25
"""How long an address of a host may be silent before the next one is tried beside it (RFC 8305, section 5)."""

MAX_RESOLVING = 8
"""Names of one channel that are asked for at once. A resolver that hangs holds that many threads, and no try."""

ADDRESSES_KEPT_S = 10.0
"""How long the addresses of a name are not asked for again."""

DEFAULT_PORTS = {"http": 80, "https": 443}


class NothingSentError(ParleyError):
    """Not a byte of the request left: the provider does not have it."""


class Endpoint(NamedTuple):
    """Where one connects to."""

    scheme: str
    host: str
    port: int

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    @property
    def address(self) -> str:
        """As a tunnel is asked for."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """As it stands in Host: without the port that its scheme has by itself."""
        return self.address.removesuffix(f":{DEFAULT_PORTS[self.scheme]}")


class ProviderRoute(NamedTuple):
    """Where requests go, by way of a proxy if there is one, which wants to hear `proxy_authorization` if that is not empty."""

    provider: Endpoint
    proxy: Endpoint | None = None
    proxy_authorization: str = ""


def parse_endpoint(url: str) -> tuple[Endpoint, SplitResult]:
    """Return where a URL leads, and its parts. Raises requests' errors."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as e:
        raise requests.exceptions.InvalidURL(e) from e
    if scheme not in DEFAULT_PORTS:
        raise requests.exceptions.InvalidSchema(f"neither http nor https: {scheme!r}")
    if not host:
        raise requests.exceptions.InvalidURL("a URL has no host")
    return Endpoint(scheme, host, port or DEFAULT_PORTS[scheme]), parts


def parse_proxy(url: str) -> tuple[Endpoint, str]:
    """Return where a proxy is, and what it wants to hear as Proxy-Authorization. Raises requests' errors."""
    url = url if "://" in url else f"http://{url}"
    endpoint, _ = parse_endpoint(url)
    user, password = get_auth_from_url(url)
    secret = b64encode(f"{user}:{password}".encode("latin1", "replace")).decode()
    return endpoint, f"Basic {secret}" if user else ""


class RouteConnector:
    """Makes connections, for one event loop. `verify` is a file or folder of certificates to trust, True for those that requests
    has, or False."""

    def __init__(self, resolve: GetAddrInfo, verify: bool | str) -> None:
        self._resolver = ThreadResolver(resolve, names_at_once=MAX_RESOLVING)
        self._addresses: dict[Endpoint, tuple[float, asyncio.Task[list[AddrInfoType]]]] = {}
        self._verify = verify
        self._tls: ssl.SSLContext | None = None

    async def connect(self, route: ProviderRoute, by_s: float) -> HttpConnection:
        """Return a connection on which requests to the provider may be written. Raises requests' errors, ConnectTimeout if there
        is none `by_s` (of time.monotonic)."""
        try:
            async with asyncio.timeout_at(by_s):
                if route.proxy is None:
                    return await self._open(route.provider)
                return await self._open_by_proxy(route, route.proxy)
        except requests.RequestException:
            raise
        except TimeoutError as e:
            raise requests.ConnectTimeout(NothingSentError(str(e))) from e
        except ssl.SSLError as e:
            raise requests.exceptions.SSLError(NothingSentError(str(e))) from e
        except Exception as e:  # whatever it is: the request has not been written
            raise requests.ConnectionError(NothingSentError(str(e))) from e

    async def _open_by_proxy(self, route: ProviderRoute, proxy: Endpoint) -> HttpConnection:
        try:
            connection = await self._open(proxy)
        except OSError as e:
            raise requests.exceptions.ProxyError(NothingSentError(str(e))) from e
        if not route.provider.is_secure:
            return connection
        try:
            await self._open_tunnel(route, connection)
        except BaseException:
            connection.transport.abort()
            raise
        return connection

    async def _open_tunnel(self, route: ProviderRoute, connection: HttpConnection) -> None:
        """Have a proxy lead to the provider, and begin TLS with that."""
        lines = [f"CONNECT {route.provider.address} HTTP/1.1", f"Host: {route.provider.address}"]
        if route.proxy_authorization:
            lines.append(f"Proxy-Authorization: {route.proxy_authorization}")
        request = "".join(f"{line}\r\n" for line in lines) + "\r\n"
        try:
            answer = await connection.ask(request.encode(), is_tunnel=True)
        except requests.RequestException as e:
            raise requests.exceptions.ProxyError(NothingSentError(str(e))) from e
        if not 200 <= answer.status < 300:
            raise requests.exceptions.ProxyError(NothingSentError(f"the proxy answers {answer.status}"))
        transport = await asyncio.get_running_loop().start_tls(
            connection.transport, connection, self._tls_context(), server_hostname=route.provider.host
        )
        if transport is None:
            raise ConnectionError("the tunnel was closed")
        connection.transport = transport

    async def _open(self, endpoint: Endpoint) -> HttpConnection:
        loop = asyncio.get_running_loop()
        tls = self._tls_context() if endpoint.is_secure else None
        found = await self._addresses_of(endpoint)
        connected = await start_connection(
            found, loop=loop, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1
        )
        _, connection = await loop.create_connection(
            HttpConnection, sock=connected, ssl=tls, server_hostname=endpoint.host if tls else None
        )
        return connection

    async def _addresses_of(self, endpoint: Endpoint) -> list[AddrInfoType]:
        """Return the addresses of a host. Whoever wants them at the same time waits for the same answer."""
        asked_s, asking = self._addresses.get(endpoint, (0.0, None))
        if asking is None or (
            asking.done() and (_failed(asking) or monotonic() > asked_s + ADDRESSES_KEPT_S)
        ):
            asking = asyncio.get_running_loop().create_task(self._resolve(endpoint))
            # else asyncio complains of an error for which nobody waits any more
            asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
            self._addresses[endpoint] = (monotonic(), asking)
        return await asyncio.shield(asking)

    async def _resolve(self, endpoint: Endpoint) -> list[AddrInfoType]:
        try:
            literal = ip_address(endpoint.host)
        except ValueError:
            found = await self._resolver.resolve(endpoint.host, endpoint.port)
            return [
                (each.family, socket.SOCK_STREAM, each.protocol, "", (each.host, each.port)) for each in found
            ]
        family = socket.AF_INET if literal.version == 4 else socket.AF_INET6
        return [(family, socket.SOCK_STREAM, 0, "", (endpoint.host, endpoint.port))]

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            try:
                self._tls = _open_tls_context(self._verify)
            except OSError as e:
                why = NothingSentError(f"the CA bundle cannot be read: {e}")
                raise requests.exceptions.SSLError(why) from e
        return self._tls


def _failed(asked: "asyncio.Task[list[AddrInfoType]]") -> bool:
    return asked.cancelled() or asked.exception() is not None


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
