"""`POST` and `GET /webhooks/<channel>`: what a provider has to say about a channel.

A provider's call is verified, read, and answered as the provider wants it, 200 at best: once every event in it is in
a mailbox or the spool, and never before. What is not answered 2xx the provider sends again, and a copy changes nothing. Octopush
wants an answer within a second, and nothing in it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from time import perf_counter, time
from typing import Any, cast

import falcon
import msgspec
from falcon.asgi import Request, Response

from config.settings.settings import Channel, Settings
from config.telemetry import metrics
from engine.model.events import Inbound, Part, Sms
from engine.model.sender_numbers import normalise
from engine.providers import Acknowledgement, Call, Forged, Provider, Unreadable
from engine.providers.provider_registry import open_provider
from engine.surveys.keywords import is_start
from engine.surveys.survey_registry import Surveys
from ingest.intake.mailboxes import KEPT, Letter, Mailboxes, Unspooled, Unwritten
from ingest.webhooks.inline_replies import Answering, InPlace

MOST_BYTES = 65_536
"""Of a body. An SMS has at most some thousand characters."""

RETRY_AFTER_S = 1
UNAVAILABLE = "Redis does not answer"

MOST_WORDS, LONGEST_WORD = 1_024, 32


class Ear:
    """One channel's side of the wire: who may speak, in which provider's tongue."""

    def __init__(self, channel: Channel, provider: Provider, surveys: Surveys) -> None:
        self.channel = channel
        self.provider = provider
        self.in_place = cast(Answering, provider) if provider.answers_in_place else None
        self._surveys = surveys
        self._starts = lru_cache(MOST_WORDS)(self._is_start)
        self._originators = {normalise(each): each for each in channel.originators}
        self.kept = {kept: metrics.WEBHOOKS.labels(channel.name, kept) for kept in KEPT}
        self.unavailable = metrics.WEBHOOKS.labels(channel.name, "unavailable")

    def recognised(self, event: Inbound) -> Inbound:
        """The event; an SMS that starts a survey says so, and which of the channel's originators it was sent to."""
        match event:
            case Sms():
                originator = self._sent_to(event.originator)
                start = event.handled in ("", "start") and self._starts_survey(event.text)
                if not start and originator == event.originator:
                    return event
                return msgspec.structs.replace(event, start=start, originator=originator)
            case Part():
                return msgspec.structs.replace(event, originator=self._sent_to(event.originator))
            case _:
                return event

    def _sent_to(self, to: str) -> str:
        """The one of the channel's originators that `to` is, as the settings write it; empty if it is none."""
        return self._originators.get(normalise(to), "") if to and self._originators else ""

    def _starts_survey(self, text: str) -> bool:
        """Does `text` start a survey of the channel? Most SMS are one of a few words, and those are remembered, for as
        long as the surveys stay as they are."""
        edition = self._surveys.edition
        return self._starts(text, edition) if len(text) <= LONGEST_WORD else self._is_start(text, edition)

    def _is_start(self, text: str, edition: int) -> bool:
        return is_start(text, self.channel.surveys, self._surveys)


class Webhooks:
    """The Falcon resource. Senders that no lane can answer, and our own numbers, are counted and dropped."""

    def __init__(self, settings: Settings, surveys: Surveys, mailboxes: Mailboxes, in_place: InPlace) -> None:
        channels = settings.channels.values()
        self.ears = {
            channel.name: Ear(channel, open_provider(channel, settings), surveys) for channel in channels
        }
        self._own = {
            normalise(number) for channel in channels for number in (channel.number, *channel.originators)
        }
        self._mailboxes = mailboxes
        self._in_place = in_place

    async def on_post(self, req: Request, resp: Response, channel: str) -> None:
        arrived_s = perf_counter()
        ear = self.ears.get(channel)
        if ear is None:
            raise falcon.HTTPNotFound(title="no such channel")
        call = call_of(req.scope, await read_body(req, channel))
        try:
            answer(resp, await self.hear(ear, call, arrived_s))
        except Forged as e:
            metrics.WEBHOOKS.labels(channel, "forbidden").inc()
            raise falcon.HTTPForbidden(title="forbidden", description=str(e)) from e
        except Unreadable as e:
            metrics.WEBHOOKS.labels(channel, "unreadable").inc()
            raise falcon.HTTPBadRequest(title="unreadable", description=str(e)) from e
        except Unwritten as e:
            ear.unavailable.inc()
            raise falcon.HTTPServiceUnavailable(
                title=UNAVAILABLE,
                description=str(e) if isinstance(e, Unspooled) else None,
                retry_after=RETRY_AFTER_S,
            ) from e

    on_get = on_post

    async def hear(self, ear: Ear, call: Call, arrived_s: float) -> Acknowledgement:
        """How to answer, once every event in the call is in its mailbox or the spool. Raises Forged, Unreadable and Unwritten."""
        ear.provider.verify(call)
        letters = list(self._letters(ear, call, arrived_s))
        if ear.in_place:
            acknowledgement, kept = await self._in_place.hear(ear.channel, ear.in_place, letters)
        else:
            kept = await self._mailboxes.accept(letters)
            acknowledgement = ear.provider.acknowledgement
        ear.kept[kept].inc()
        return acknowledgement

    def _letters(self, ear: Ear, call: Call, arrived_s: float) -> Iterable[Letter]:
        name = ear.channel.name
        for written, event in ear.provider.read(name, call):
            sender = normalise(written)
            if sender is None:
                metrics.DROPPED.labels(name, "not_a_number").inc()
            elif sender in self._own:
                metrics.DROPPED.labels(name, "own_number").inc()
            else:
                yield Letter(sender, ear.recognised(event), arrived_s)


def call_of(scope: Mapping[str, Any], body: bytes) -> Call:
    """A webhook as ASGI hands it over."""
    return Call(scope["method"], scope["query_string"], scope["headers"], body, time())


def answer(resp: Response, acknowledgement: Acknowledgement) -> None:
    resp.status = acknowledgement.status
    if acknowledgement.content_type:
        resp.content_type = acknowledgement.content_type
    resp.data = acknowledgement.body


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
