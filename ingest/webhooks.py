"""`POST /webhooks/<channel>?token=…`: what a provider has to say about a channel.

200 with no body, once every event in it is in a mailbox, and never before: what is not answered 2xx the provider
sends again, and a copy changes nothing. Octopush wants an answer within a second, and nothing in it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hmac import compare_digest
from time import perf_counter
from urllib.parse import quote

import falcon
import msgspec
from falcon.asgi import Request, Response

from config import metrics
from config.settings import Channel, Settings
from engine import Surveys
from engine.events import Inbound, Sms
from engine.keywords import is_start
from engine.providers import Provider, Unreadable
from engine.providers.octopush import provider_for
from ingest.mailboxes import Letter, Mailboxes, Unwritten
from ingest.senders import normalise

MOST_BYTES = 65_536
"""Of a body. An SMS has at most some thousand characters."""

RETRY_AFTER_S = 1

MOST_WORDS, LONGEST_WORD = 1_024, 32


class Ear:
    """One channel's side of the wire: who may speak, in which provider's tongue."""

    def __init__(self, channel: Channel, provider: Provider, surveys: Surveys) -> None:
        self.channel = channel
        self._surveys = surveys
        self._starts = lru_cache(MOST_WORDS)(self._is_start)
        self.provider = provider
        self._token = channel.token.encode()
        self.query = f"token={quote(channel.token)}".encode()
        self.accepted = metrics.WEBHOOKS.labels(channel.name, "accepted")
        self.unavailable = metrics.WEBHOOKS.labels(channel.name, "unavailable")

    def starts(self, text: str) -> bool:
        """Does `text` start a survey of the channel? Most SMS are one of a few words, and those are remembered, for as
        long as the surveys stay as they are."""
        edition = self._surveys.edition
        return self._starts(text, edition) if len(text) <= LONGEST_WORD else self._is_start(text, edition)

    def _is_start(self, text: str, edition: int) -> bool:
        return is_start(text, self.channel.surveys, self._surveys)

    def knows(self, req: Request) -> bool:
        """Does the request carry the channel's token? In constant time, and first as every provider writes it."""
        if compare_digest(req.query_string.encode(), self.query):
            return True
        return compare_digest(req.get_param("token", default="").encode(), self._token)


class Webhooks:
    """The Falcon resource. Senders that no lane can answer, and our own numbers, are counted and dropped."""

    def __init__(self, settings: Settings, surveys: Surveys, mailboxes: Mailboxes) -> None:
        self.ears = {
            name: Ear(channel, provider_for(channel, settings), surveys)
            for name, channel in settings.channels.items()
        }
        self._own = {channel.number for channel in settings.channels.values()}
        self._mailboxes = mailboxes

    async def on_post(self, req: Request, resp: Response, channel: str) -> None:
        arrived_s = perf_counter()
        ear = admitted(self.ears, channel, req)
        body = await read_body(req, channel)
        try:
            await self.hear(ear, body, arrived_s)
        except Unreadable as e:
            metrics.WEBHOOKS.labels(channel, "unreadable").inc()
            raise falcon.HTTPBadRequest(title="unreadable", description=str(e)) from e
        except Unwritten as e:
            ear.unavailable.inc()
            raise falcon.HTTPServiceUnavailable(
                title="Redis does not answer", retry_after=RETRY_AFTER_S
            ) from e

    async def hear(self, ear: Ear, body: bytes, arrived_s: float) -> None:
        """Returns once every event in `body` is in its mailbox. Raises Unreadable and Unwritten."""
        await self._mailboxes.accept(list(self._letters(ear, body, arrived_s)))
        ear.accepted.inc()

    def _letters(self, ear: Ear, body: bytes, arrived_s: float) -> Iterable[Letter]:
        name = ear.channel.name
        for written, event in ear.provider.read(name, body):
            sender = normalise(written)
            if sender is None:
                metrics.DROPPED.labels(name, "not_a_number").inc()
            elif sender in self._own:
                metrics.DROPPED.labels(name, "own_number").inc()
            else:
                yield Letter(sender, self._recognised(ear, event), arrived_s)

    @staticmethod
    def _recognised(ear: Ear, event: Inbound) -> Inbound:
        """The event; an SMS that starts a survey says so."""
        if isinstance(event, Sms) and ear.starts(event.text):
            return msgspec.structs.replace(event, start=True)
        return event


def admitted(ears: Mapping[str, Ear], channel: str, req: Request) -> Ear:
    """Whoever speaks for `channel`, if the token is right. Raises the 404 or 403."""
    ear = ears.get(channel)
    if ear is None:
        raise falcon.HTTPNotFound(title="no such channel")
    if not ear.knows(req):
        metrics.WEBHOOKS.labels(channel, "forbidden").inc()
        raise falcon.HTTPForbidden(title="wrong token")
    return ear


async def read_body(req: Request, channel: str) -> bytes:
    """The whole body. Raises the 413 if it is too long, said or found, and a 400 if it was cut off."""
    said = req.content_length
    body = b"" if said and said > MOST_BYTES else await req.stream.read(MOST_BYTES + 1)
    if (said or len(body)) > MOST_BYTES:
        metrics.WEBHOOKS.labels(channel, "too_large").inc()
        raise falcon.HTTPContentTooLarge(title=f"more than {MOST_BYTES} bytes")
    if said and len(body) < said:
        metrics.WEBHOOKS.labels(channel, "unreadable").inc()
        raise falcon.HTTPBadRequest(title="unreadable", description="the body was cut off")
    return body
