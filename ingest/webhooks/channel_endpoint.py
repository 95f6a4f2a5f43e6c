"""`POST` and `GET /webhooks/<channel>`: what a provider has to say about a channel.

A provider's call is verified, read, and answered as the provider wants it, 200 at best: once every event in it is in
a mailbox or the spool, and never before. What is not answered 2xx the provider sends again, and a copy changes nothing. Octopush
wants an answer within a second, and nothing in it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

import falcon
import msgspec
from falcon.asgi import Request, Response

from config.host import THIS_HOST, Host
from config.settings.settings import Channel, Settings
from config.telemetry import metrics
from engine.model.events import InboundEvent, InboundSms, SmsPart
from engine.model.sender_numbers import normalize_number
from engine.providers import (
    ForgedWebhookError,
    Provider,
    UnreadableWebhookError,
    WebhookCall,
    WebhookResponse,
)
from engine.providers.provider_registry import open_provider
from engine.surveys.keywords import SmsCommand, read_command
from engine.surveys.survey_registry import SurveyRegistry
from ingest.intake.mailboxes import (
    ACCEPT_OUTCOMES,
    InboundItem,
    MailboxWriter,
    RedisAndSpoolUnavailableError,
    RedisUnavailableError,
)
from ingest.webhooks.inline_replies import InlineReplies, InlineReplyProvider
from ingest.webhooks.webhook_notes import WebhookNotes

MAX_BODY_BYTES = 65_536
"""Of a body. An SMS has at most some thousand characters."""

RETRY_AFTER_S = 1

MAX_CACHED_TEXTS, MAX_CACHED_TEXT_LENGTH = 1_024, 32


class ChannelEndpoint:
    """One channel's webhook: its provider, and which texts start a survey there."""

    def __init__(self, channel: Channel, provider: Provider, surveys: SurveyRegistry) -> None:
        self.channel = channel
        self.provider = provider
        self.inline_provider = cast(InlineReplyProvider, provider) if provider.replies_inline else None
        self._surveys = surveys
        self._cached_command = lru_cache(MAX_CACHED_TEXTS)(self._read_command)
        self._originators = {normalize_number(each): each for each in channel.originators}
        self.outcome_counters = {
            kept: metrics.WEBHOOKS.labels(channel.name, kept) for kept in ACCEPT_OUTCOMES
        }
        self.unavailable_counter = metrics.WEBHOOKS.labels(channel.name, "unavailable")

    def annotate_event(self, event: InboundEvent) -> InboundEvent:
        """The event; an SMS that starts a survey or may be a STOP says so, and which of the channel's originators it was
        sent to."""
        match event:
            case InboundSms():
                originator = self._originator_of(event.originator)
                command = self._command_in(event.text)
                start = command == "start" and event.handled in ("", "start")
                may_be_stop = command == "stop" or event.handled == "stop"
                if not start and not may_be_stop and originator == event.originator:
                    return event
                return msgspec.structs.replace(
                    event, start=start, may_be_stop=may_be_stop, originator=originator
                )
            case SmsPart():
                return msgspec.structs.replace(event, originator=self._originator_of(event.originator))
            case _:
                return event

    def _originator_of(self, to: str) -> str:
        """The one of the channel's originators that `to` is, as the settings write it; empty if it is none."""
        return self._originators.get(normalize_number(to), "") if to and self._originators else ""

    def _command_in(self, text: str) -> SmsCommand:
        """May `text` be a STOP, or does it start a survey of the channel? Most SMS are one of a few words, and those are
        remembered, for as long as the surveys stay as they are."""
        edition = self._surveys.edition
        return (
            self._cached_command(text, edition)
            if len(text) <= MAX_CACHED_TEXT_LENGTH
            else self._read_command(text, edition)
        )

    def _read_command(self, text: str, edition: int) -> SmsCommand:
        return read_command(text, self.channel.surveys, self._surveys)


class WebhooksResource:
    """The Falcon resource. Senders that no lane can answer, and our own numbers, are counted and dropped."""

    def __init__(
        self,
        settings: Settings,
        surveys: SurveyRegistry,
        mailboxes: MailboxWriter,
        in_place: InlineReplies,
        notes: WebhookNotes,
        host: Host = THIS_HOST,
    ) -> None:
        channels = settings.channels.values()
        self.endpoints = {
            channel.name: ChannelEndpoint(
                channel, open_provider(settings.provider_settings(channel.name)), surveys
            )
            for channel in channels
        }
        self._own_numbers = {
            normalize_number(number)
            for channel in channels
            for number in (channel.number, *channel.originators)
        }
        self._mailboxes = mailboxes
        self._inline_replies = in_place
        self._notes = notes
        self._host = host

    async def on_post(self, req: Request, resp: Response, channel: str) -> None:
        arrived_s = self._host.monotonic_s()
        ear = self.endpoints.get(channel)
        if ear is None:
            raise falcon.HTTPNotFound(title="no such channel")
        try:
            call = webhook_call(req.scope, await read_body(req, channel), self._host.wall_s())
            write_provider_response(resp, await self.handle(ear, call, arrived_s))
        except ForgedWebhookError as e:
            metrics.WEBHOOKS.labels(channel, "forbidden").inc()
            self._notes.note_forged(channel, str(e), self._host.wall_s())
            raise falcon.HTTPForbidden(title="forbidden", description=str(e)) from e
        except UnreadableWebhookError as e:
            metrics.WEBHOOKS.labels(channel, "unreadable").inc()
            raise falcon.HTTPBadRequest(title="unreadable", description=str(e)) from e
        except RedisUnavailableError as e:
            ear.unavailable_counter.inc()
            raise falcon.HTTPServiceUnavailable(
                title=e.title,
                description=str(e) if isinstance(e, RedisAndSpoolUnavailableError) else None,
                retry_after=RETRY_AFTER_S,
            ) from e

    on_get = on_post

    async def handle(self, ear: ChannelEndpoint, call: WebhookCall, arrived_s: float) -> WebhookResponse:
        """How to answer, once every event in the call is in its mailbox or the spool. Raises ForgedWebhookError, UnreadableWebhookError and RedisUnavailableError."""
        ear.provider.verify_webhook(call)
        items = list(self._inbound_items(ear, call, arrived_s))
        if ear.inline_provider:
            acknowledgement, kept = await self._inline_replies.handle(ear.channel, ear.inline_provider, items)
        else:
            kept = await self._mailboxes.accept(items)
            acknowledgement = ear.provider.webhook_response
        ear.outcome_counters[kept].inc()
        self._notes.note_good(ear.channel.name, call.now)
        return acknowledgement

    def _inbound_items(
        self, ear: ChannelEndpoint, call: WebhookCall, arrived_s: float
    ) -> Iterable[InboundItem]:
        name = ear.channel.name
        for written, event in ear.provider.read_webhook(name, call):
            sender = normalize_number(written)
            if sender is None:
                metrics.DROPPED.labels(name, "not_a_number").inc()
            elif sender in self._own_numbers:
                metrics.DROPPED.labels(name, "own_number").inc()
            else:
                yield InboundItem(sender, ear.annotate_event(event), arrived_s)


def webhook_call(scope: Mapping[str, Any], body: bytes, now_s: float) -> WebhookCall:
    """A webhook as ASGI hands it over now."""
    return WebhookCall(scope["method"], scope["query_string"], scope["headers"], body, now_s)


def write_provider_response(resp: Response, acknowledgement: WebhookResponse) -> None:
    resp.status = acknowledgement.status
    if acknowledgement.content_type:
        resp.content_type = acknowledgement.content_type
    resp.data = acknowledgement.body


async def read_body(req: Request, channel: str) -> bytes:
    """The body. Raises the 413 if it is too long, said or found."""
    said = req.content_length
    body = b"" if said and said > MAX_BODY_BYTES else await req.stream.read(MAX_BODY_BYTES + 1)
    if (said or len(body)) > MAX_BODY_BYTES:
        metrics.WEBHOOKS.labels(channel, "too_large").inc()
        raise falcon.HTTPContentTooLarge(title=f"more than {MAX_BODY_BYTES} bytes")
    return body
