"""One request to an endpoint, and what it answered.

Nothing but the address that was judged is connected to, so that a name cannot lead elsewhere a moment later; redirects are
not followed; a certificate that is not trusted is a failure; no proxy is asked; of an answer no more is read than an operator
may want to see.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Literal, Self

import aiohttp
import certifi
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from config.host import THIS_HOST, Host
from config.settings.hooks import Hook
from config.telemetry.process_registry import package_version
from engine.hooks.cloud_events import BATCH_CONTENT_TYPE, EVENT_CONTENT_TYPE, render_batch
from engine.hooks.signature import batch_id, sign_message
from engine.model.errors import ParleyError
from engine.model.public_addresses import is_public_address, is_public_host
from workers.sending.thread_resolver import ThreadResolver

MAX_ANSWER_BYTES = 65_536
SHOWN_ANSWER_LENGTH = 500
_LOOKED_AT_LENGTH = 2_000

TRIED_AGAIN_STATUSES = frozenset((408, 425, 429))
"""Of 400 to 499: what is no refusal for good."""

_NAMES_KEPT_S = 30

NAMES_AT_ONCE = 64
"""Names that are asked for at once: those whose servers do not answer hold so many threads at the most."""

_BODY_PATIENCE_S = 2.0
"""How long the rest of an answer may take once its status is there."""

HookOutcome = Literal["delivered", "refused", "failed"]
"""`refused`: for good. `failed`: to be tried again; the endpoint may have it all the same."""


class HookReply(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request. `status` is 0 if there was no answer. `why` tells what was wrong, and `said` how the endpoint's
    answer begins, in which there may be what it was told. It may ask to be left alone for `retry_after_ms`."""

    outcome: HookOutcome
    status: int = 0
    why: str = ""
    said: str = ""
    retry_after_ms: int = 0
    took_ms: int = 0

    @property
    def sentence(self) -> str:
        """What was wrong, and what the endpoint said."""
        return f"{self.why}: {self.said}"[:SHOWN_ANSWER_LENGTH] if self.said else self.why


class RenderedEvent(msgspec.Struct, frozen=True):
    """An event as it is sent."""

    id: str
    body: bytes


class _ForbiddenAddressError(ParleyError, OSError):
    """A name leads to addresses that are not public alone."""


class _PublicResolver(AbstractResolver):
    """Resolves names to their public addresses, as aiohttp asks for them; to all, if any is allowed."""

    def __init__(self, *, allow_private: bool) -> None:
        self._resolver = ThreadResolver(names_at_once=NAMES_AT_ONCE)
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if self._allow_private or is_public_address(each.host)]
        if not public:
            raise _ForbiddenAddressError("the name leads to no public address")
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host,
                host=each.host,
                port=each.port,
                family=each.family,
                proto=each.protocol,
                flags=flags,
            )
            for each in public
        ]

    async def close(self) -> None:
        """There is nothing to be closed."""


class EndpointClient:
    """Makes requests, in the loop in which it was entered. Without `allow_private` it calls public addresses alone."""

    def __init__(self, *, allow_private: bool, host: Host = THIS_HOST) -> None:
        self._allow_private = allow_private
        self._host = host
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=_PublicResolver(allow_private=self._allow_private),
            ssl=_tls_context(),
            limit=0,
            ttl_dns_cache=_NAMES_KEPT_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": f"Parley/{package_version()}", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, hook: Hook, events: Sequence[RenderedEvent]) -> HookReply:
        """Send events, more than one only to an endpoint that takes batches. Never raises for what the endpoint does."""
        begun_s = self._host.monotonic_s()
        try:
            reply = await self._exchange(hook, events)
        except TimeoutError:
            reply = HookReply(outcome="failed", why=f"no answer within {hook.timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as e:
            reply = HookReply(outcome="failed", why=_error_sentence(e))
        return msgspec.structs.replace(reply, took_ms=round((self._host.monotonic_s() - begun_s) * 1_000))

    async def _exchange(self, hook: Hook, events: Sequence[RenderedEvent]) -> HookReply:
        if self._session is None:
            raise RuntimeError("the client is not entered")
        url = URL(hook.url, encoded=True)
        # of what aiohttp takes for an address, also 127.1, it resolves no name
        if not self._allow_private and not is_public_host(url.host or ""):
            return HookReply(outcome="failed", why="the address is not public")
        body, headers = _message(hook, events, self._host.wall_s())
        async with asyncio.timeout(hook.timeout_s):
            answer = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        async with answer:
            said = await _read_some(answer)
        if 200 <= answer.status < 300:
            return HookReply(outcome="delivered", status=answer.status)
        refused = 400 <= answer.status < 500 and answer.status not in TRIED_AGAIN_STATUSES
        return HookReply(
            outcome="refused" if refused else "failed",
            status=answer.status,
            why=_shown(f"{answer.status} {answer.reason or ''}"),
            said=_shown(said.decode(errors="replace")),
            retry_after_ms=_retry_after_ms(answer.headers.get("Retry-After", ""), self._host.wall_s()),
        )


def _message(hook: Hook, events: Sequence[RenderedEvent], now_s: float) -> tuple[bytes, dict[str, str]]:
    """The body of a request that is signed now, and its headers."""
    if hook.batch > 1:
        body, kind = render_batch(each.body for each in events), BATCH_CONTENT_TYPE
        message_id = batch_id(each.id for each in events)
    else:
        (event,) = events
        body, kind, message_id = event.body, EVENT_CONTENT_TYPE, event.id
    signed = sign_message(hook.secrets, message_id, int(now_s), body)
    return body, {"Content-Type": kind, **signed}


async def _read_some(answer: aiohttp.ClientResponse) -> bytes:
    """Read an answer's body, if it is short and comes soon. Else it is left, and the connection with it: what counts is the
    status, which is there."""
    body = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_BODY_PATIENCE_S):
            while len(body) <= MAX_ANSWER_BYTES and (chunk := await answer.content.readany()):
                body += chunk
    if not answer.content.at_eof():
        answer.close()
    return bytes(body)


def _shown(text: str) -> str:
    """What an operator wants to see of what an endpoint says: its beginning, in one line, without what no terminal shows."""
    words = " ".join(text[:_LOOKED_AT_LENGTH].split())
    return "".join(each if each.isprintable() else "?" for each in words)[:SHOWN_ANSWER_LENGTH]


def _retry_after_ms(written: str, now_s: float) -> int:
    """Read Retry-After (RFC 9110, section 10.2.3): seconds, or a moment; 0 for anything else."""
    if written.isascii() and written.isdigit():
        return int(written[:9]) * 1_000
    try:
        return max(0, round((parsedate_to_datetime(written).timestamp() - now_s) * 1_000))
    except (ValueError, TypeError, OverflowError):
        return 0


def _error_sentence(error: Exception) -> str:
    """What was wrong with a connection. The error may quote the URL, which may have a token in it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "the certificate of the endpoint is not trusted"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, _ForbiddenAddressError):
            return str(inner)
        inner = getattr(inner, "os_error", None) or inner.__cause__
    return f"{type(error).__name__}: no answer"


def _tls_context() -> ssl.SSLContext:
    """Whom to trust: SSL_CERT_FILE's authorities, if it is set, else those that requests has."""
    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
