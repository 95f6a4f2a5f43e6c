"""Replies go into the answer of the webhook that they reply to, if they are there in time; else a delivery worker sends them.

Never both, and an answer that got lost is no lost reply:

1. Before an SMS goes into its mailbox, the sender's outbox is reserved: delivery workers leave it alone for LEASE_MS.
   That is only done if the outbox is empty and nothing is being sent to that person; else there is no answer in place.
2. When the lane has advanced (its mailbox is empty, and nobody holds it), the SMS that wait in the outbox are marked
   uncertain, all at once and only if they still are what they were; only then are they answered. They stay in the outbox.
3. A status callback that tells of one settles it: the provider has it. A person who writes again soon is thus answered
   at once. What nobody has told of, ANSWER_LOOKUP_DELAY_MS later a delivery worker asks the provider for. What it has is settled; what
   it has not is sent.

So whoever dies when, each SMS is found at the provider or sent by the API. A lane that takes longer than WAIT_S, a
channel that is paused or at its rate, and an SMS that no answer can hold: the outbox is released, and delivery goes on
as ever. A webhook that is repeated meanwhile finds the outbox reserved or not empty, and is answered with nothing.
"""

import asyncio
from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

import msgspec
import structlog

from config.host import THIS_HOST, Host
from config.settings.settings import Channel
from config.store import keyspace, stored_values
from config.store.counts.answer_record import AnswerNotes
from config.store.function_calls import Command, function_call
from config.store.server_functions import (
    AttachedReply,
    AttachReplies,
    ConfirmReply,
    PollReplies,
    ReleaseOutbox,
    ReserveOutbox,
    TakeTokens,
)
from config.telemetry import faults, metrics
from engine.model.events import (
    DeliveryReceipt,
    InboundSms,
    OutboundSms,
    SmsSent,
    decode_outbound,
    encode_event,
)
from engine.providers import WebhookResponse
from ingest.intake.mailboxes import (
    AcceptOutcome,
    AsyncRedisClient,
    InboundItem,
    MailboxWriter,
    RedisUnavailableError,
)

log = structlog.get_logger()

LANE_WAIT_S = 3.0
"""How long a lane may take. Twilio waits for 15 s."""

RESERVATION_MS = 5_000
"""WAIT_S, and a round trip or two to a slow Redis. If `web` dies, delivery goes on after it."""

ANSWER_LOOKUP_DELAY_MS = 20_000
"""How long an answer may be under way before the provider is asked what became of it: more than Twilio waits."""

FIRST_POLL_S, LONGEST_POLL_S = 0.004, 0.1
"""How soon it is looked whether a lane has advanced: twice as long each time."""

MAX_WAITING_WEBHOOKS = 256
"""Webhooks of one process that wait at once: when lanes are slow, looking at more of them would make them slower."""

LANE_BUSY, RESERVATION_LOST = 0, -1
"""What `poll_replies` answers instead of entries."""


class InlineReplyProvider(Protocol):
    """A provider that takes replies in the answer to a webhook, and can be asked for them later."""

    webhook_response: WebhookResponse

    def fits_inline(self, sms: OutboundSms) -> bool: ...

    def write_inline_replies(self, replies: Sequence[OutboundSms]) -> WebhookResponse: ...


class ReservedOutbox(msgspec.Struct, frozen=True):
    """An outbox that delivery workers leave alone, for as long as its lock has this token. The lane is waited for until
    `end_s`, of the host's monotonic clock."""

    sender: str
    token: str
    end_s: float


class OutboxEntry(msgspec.Struct, frozen=True):
    """An SMS as it waits in the outbox."""

    written: bytes
    sms: OutboundSms

    @property
    def marked_uncertain(self) -> bytes:
        """The same, marked."""
        marked = msgspec.structs.replace(self.sms, uncertain=True)
        return stored_values.outbox_entry(marked.channel, encode_event(marked))


class InlineReplies:
    """The answers of this process."""

    def __init__(
        self,
        shards: int,
        lanes: AsyncRedisClient,
        mailboxes: MailboxWriter,
        notes: AnswerNotes,
        most: int = MAX_WAITING_WEBHOOKS,
        host: Host = THIS_HOST,
    ) -> None:
        self._shards = shards
        self._lanes = lanes
        self._mailboxes = mailboxes
        self._notes = notes
        self._free_waits = most
        self._host = host

    async def handle(
        self, channel: Channel, provider: InlineReplyProvider, items: Sequence[InboundItem]
    ) -> tuple[WebhookResponse, AcceptOutcome]:
        """The answer to a webhook, once every item is in its mailbox or the spool. Raises RedisUnavailableError."""
        if (
            self._free_waits <= 0
            or not _can_be_answered_inline(items)
            or self._mailboxes.is_held(items[0].sender)
        ):
            kept = await self._mailboxes.accept(items)
            for item in items:
                if kept == "accepted" and isinstance(item.event, DeliveryReceipt):
                    await self._confirm_receipt(channel, item.sender, item.event)
            return provider.webhook_response, kept
        self._free_waits -= 1
        try:
            return await self._answer_inline(channel, provider, items)
        finally:
            self._free_waits += 1

    async def _answer_inline(
        self, channel: Channel, provider: InlineReplyProvider, items: Sequence[InboundItem]
    ) -> tuple[WebhookResponse, AcceptOutcome]:
        reserved = await self._reserve_outbox(channel, items[0])
        faults.reach("after_reserve")
        kept: AcceptOutcome | None = None
        try:
            kept = await self._mailboxes.accept(items)
        finally:
            if reserved and kept != "accepted":
                await self._release_outbox(reserved)
        if reserved is None or kept == "spooled":
            return provider.webhook_response, kept
        replies = await self._attached_replies(channel, provider, reserved)
        faults.reach("before_answer")
        return (provider.write_inline_replies(replies) if replies else provider.webhook_response), kept

    async def _confirm_receipt(self, channel: Channel, sender: str, receipt: DeliveryReceipt) -> None:
        """Settle the SMS that a receipt names, if it went out in a webhook's answer. A failed one, and any error of
        Redis, is left to the delivery worker's look-up, which learns why. What it says of segments and cost is recorded
        as the receipt's, once."""
        if not receipt.sms or not receipt.ticket or receipt.state == "failed":
            return
        k = keyspace.shard_of(sender, self._shards)
        outbox = keyspace.outbox_key(k, sender)
        try:
            (waiting,) = await self._lanes.run_commands([("LRANGE", outbox, 0, -1)])
            entrusted = [entry for entry in _decode_entries(waiting) if entry.sms.uncertain]
            found = next((entry for entry in entrusted if entry.sms.id == receipt.sms), None)
            if found is None:
                return
            sent = SmsSent(
                self._host.wall_ms(), channel.name, found.sms.session, found.sms.id, receipt.ticket
            )
            call = ConfirmReply(
                outbox_alarms=keyspace.outbox_alarms_key(k),
                events=keyspace.events_key(k),
                outbox=outbox,
                outbox_lock=keyspace.outbox_lock_key(k, sender),
                tickets=keyspace.tickets_key(k, sender),
                server=keyspace.server_key(k),
                sender=sender,
                entry=found.written,
                others_unheard=1 if len(entrusted) > 1 else 0,
                pause_ms=round(channel.limits.pause_s * 1000),
                records=encode_event([sent]),
                ticket=receipt.ticket,
            )
            (more,) = await self._lanes.run_commands([function_call(call)])
        except (RedisUnavailableError, ValueError):
            return
        if more:
            self._mailboxes.wake(keyspace.OUTBOUND_QUEUE, sender)

    async def _reserve_outbox(self, channel: Channel, item: InboundItem) -> ReservedOutbox | None:
        """Reserve the sender's outbox, if it is empty and nobody sends; None if not."""
        sender = item.sender
        k = keyspace.shard_of(sender, self._shards)
        reserved = ReservedOutbox(sender, self._host.token_hex(8), item.arrived_s + LANE_WAIT_S)
        call = ReserveOutbox(
            outbox=keyspace.outbox_key(k, sender),
            outbox_lock=keyspace.outbox_lock_key(k, sender),
            token=reserved.token,
            lease_ms=RESERVATION_MS,
        )
        try:
            (free,) = await self._lanes.run_commands([function_call(call)])
        except RedisUnavailableError:
            return None
        if not free:
            metrics.ANSWERS.labels(channel.name, "busy").inc()
            return None
        return reserved

    async def _attached_replies(
        self, channel: Channel, provider: InlineReplyProvider, reserved: ReservedOutbox
    ) -> list[OutboundSms]:
        """Attach the waiting SMS to the answer, and return them. None of them, with the outbox released, if they come
        too late or cannot go this way."""
        outcome, replies = "failed", list[OutboundSms]()
        try:
            outcome, replies = await self._try_attach(channel, provider, reserved)
        except RedisUnavailableError:
            log.warning("replies go through the API: Redis failed", channel=channel.name)
        except ValueError:
            log.warning("replies go through the API: they cannot be read", channel=channel.name)
        if not replies:
            await self._release_outbox(reserved)
        now = self._host.wall_ms()
        for sms in replies:
            self._notes.note(channel.name, now, max(0, now - sms.heard) if sms.heard else None)
        metrics.ANSWERS.labels(channel.name, outcome).inc()
        return replies

    async def _try_attach(
        self, channel: Channel, provider: InlineReplyProvider, reserved: ReservedOutbox
    ) -> tuple[str, list[OutboundSms]]:
        waiting = await self._wait_for_advance(reserved)
        if waiting is None:
            return "late", []
        entries = list(
            takewhile(
                lambda e: (
                    e.sms.channel == channel.name and not e.sms.uncertain and provider.fits_inline(e.sms)
                ),
                _decode_entries(waiting),
            )
        )
        if not entries:
            return ("api" if waiting else "silent"), []
        if not await self._has_permits(channel, len(entries)):
            return "api", []
        return (
            ("answered", [entry.sms for entry in entries])
            if await self._attach_entries(reserved, entries)
            else ("late", [])
        )

    async def _wait_for_advance(self, reserved: ReservedOutbox) -> list[bytes] | None:
        """What waits in the outbox once the lane has advanced; None if it has not within WAIT_S."""
        k, sender = keyspace.shard_of(reserved.sender, self._shards), reserved.sender
        poll = function_call(
            PollReplies(
                mailbox=keyspace.mailbox_key(k, sender),
                lane_lock=keyspace.lane_lock_key(k, sender),
                outbox=keyspace.outbox_key(k, sender),
                outbox_lock=keyspace.outbox_lock_key(k, sender),
                token=reserved.token,
            )
        )
        look_s = FIRST_POLL_S
        while self._host.monotonic_s() < reserved.end_s:
            await asyncio.sleep(look_s)
            look_s = min(2 * look_s, LONGEST_POLL_S)
            (answer,) = await self._lanes.run_commands([poll])
            if answer == RESERVATION_LOST:
                return None
            if answer != LANE_BUSY:
                entries: list[bytes] = answer
                return entries
        return None

    async def _has_permits(self, channel: Channel, wanted: int) -> bool:
        """May so many SMS leave on the channel now?"""
        rate = channel.limits.sms_per_second
        commands: list[Command] = [("EXISTS", keyspace.pause_key(channel.name))]
        if rate:
            bucket = keyspace.sms_bucket_key(channel.name)
            call = TakeTokens(bucket=bucket, rate_per_s=rate, burst=max(1, rate), wanted=wanted)
            commands.append(function_call(call))
        paused, *granted = await self._lanes.run_commands(commands)
        return not paused and all(permits >= wanted for permits in granted)

    async def _attach_entries(self, reserved: ReservedOutbox, entries: Sequence[OutboxEntry]) -> bool:
        k, sender = keyspace.shard_of(reserved.sender, self._shards), reserved.sender
        call = AttachReplies(
            mailbox=keyspace.mailbox_key(k, sender),
            outbox_alarms=keyspace.outbox_alarms_key(k),
            outbox=keyspace.outbox_key(k, sender),
            outbox_lock=keyspace.outbox_lock_key(k, sender),
            sender=sender,
            token=reserved.token,
            rest_ms=ANSWER_LOOKUP_DELAY_MS,
            replies=[AttachedReply(entry=each.written, marked=each.marked_uncertain) for each in entries],
        )
        faults.reach("before_entrust")
        (stood,) = await self._lanes.write([function_call(call)])
        faults.reach("after_entrust")
        return bool(stood)

    async def _release_outbox(self, reserved: ReservedOutbox) -> None:
        """Let delivery workers at the outbox again; should that fail, they are once the lease ends."""
        k, sender = keyspace.shard_of(reserved.sender, self._shards), reserved.sender
        call = ReleaseOutbox(
            outbox_alarms=keyspace.outbox_alarms_key(k),
            outbox=keyspace.outbox_key(k, sender),
            outbox_lock=keyspace.outbox_lock_key(k, sender),
            sender=sender,
            token=reserved.token,
        )
        try:
            (waits,) = await self._lanes.run_commands([function_call(call)])
        except RedisUnavailableError:
            return
        if waits:
            self._mailboxes.wake(keyspace.OUTBOUND_QUEUE, sender)


def _can_be_answered_inline(items: Sequence[InboundItem]) -> bool:
    """Is it one SMS, and not one that the provider has answered itself?"""
    return (
        len(items) == 1 and isinstance(items[0].event, InboundSms) and items[0].event.handled in ("", "start")
    )


def _decode_entries(entries: Sequence[bytes]) -> list[OutboxEntry]:
    return [OutboxEntry(written, decode_outbound(stored_values.outbox_sms(written))) for written in entries]
