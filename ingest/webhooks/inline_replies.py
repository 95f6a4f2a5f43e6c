"""Replies go into the answer of the webhook that they reply to, if they are there in time; else a delivery worker sends them.

Never both, and an answer that got lost is no lost reply:

1. Before an SMS goes into its mailbox, the sender's outbox is reserved: delivery workers leave it alone for LEASE_MS.
   That is only done if the outbox is empty and nothing is being sent to that person; else there is no answer in place.
2. When the lane has advanced (its mailbox is empty, and nobody holds it), the SMS that wait in the outbox are marked
   uncertain, all at once and only if they still are what they were; only then are they answered. They stay in the outbox.
3. A status callback that tells of one settles it: the provider has it. A person who writes again soon is thus answered
   at once. What nobody has told of, REST_MS later a delivery worker asks the provider for. What it has is settled; what
   it has not is sent.

So whoever dies when, each SMS is found at the provider or sent by the API. A lane that takes longer than WAIT_S, a
channel that is paused or at its rate, and an SMS that no answer can hold: the outbox is released, and delivery goes on
as ever. A webhook that is repeated meanwhile finds the outbox reserved or not empty, and is answered with nothing.
"""

import asyncio
import secrets
from collections.abc import Sequence
from itertools import takewhile
from time import perf_counter, time
from typing import Protocol

import msgspec
import structlog

from config.settings.settings import Channel
from config.store import keyspace, stored_values
from config.telemetry import faults, metrics
from engine.model.events import Outbound, Receipt, Sent, Sms, decode_outbound, encode
from engine.providers import Acknowledgement
from ingest.intake.mailboxes import Kept, Letter, Mailboxes, Store, Unwritten

log = structlog.get_logger()

WAIT_S = 3.0
"""How long a lane may take. Twilio waits for 15 s."""

LEASE_MS = 5_000
"""WAIT_S, and a round trip or two to a slow Redis. If `web` dies, delivery goes on after it."""

REST_MS = 20_000
"""How long an answer may be under way before the provider is asked what became of it: more than Twilio waits."""

FIRST_LOOK_S, LONGEST_LOOK_S = 0.004, 0.1
"""How soon it is looked whether a lane has advanced: twice as long each time."""

MOST = 256
"""Webhooks of one process that wait at once: when lanes are slow, looking at more of them would make them slower."""

BUSY, LOST = 0, -1
"""What `overhear` answers instead of entries."""


class Answering(Protocol):
    """A provider that takes replies in the answer to a webhook, and can be asked for them later."""

    acknowledgement: Acknowledgement

    def fits_an_answer(self, sms: Outbound) -> bool: ...

    def answer(self, replies: Sequence[Outbound]) -> Acknowledgement: ...


class Reserved(msgspec.Struct, frozen=True):
    """An outbox that delivery workers leave alone, for as long as its lock has this token. The lane is waited for until
    `end_s`, of the clock perf_counter."""

    sender: str
    token: str
    end_s: float


class Entry(msgspec.Struct, frozen=True):
    """An SMS as it waits in the outbox."""

    written: bytes
    sms: Outbound

    @property
    def uncertain(self) -> bytes:
        """The same, marked."""
        marked = msgspec.structs.replace(self.sms, uncertain=True)
        return stored_values.outbox_entry(marked.channel, encode(marked))


class InPlace:
    """The answers of this process."""

    def __init__(
        self, shards: int, keep_events_ms: int, lanes: Store, mailboxes: Mailboxes, most: int = MOST
    ) -> None:
        self._shards = shards
        self._keep_events_ms = keep_events_ms
        self._lanes = lanes
        self._mailboxes = mailboxes
        self._room = most

    async def hear(
        self, channel: Channel, provider: Answering, letters: Sequence[Letter]
    ) -> tuple[Acknowledgement, Kept]:
        """The answer to a webhook, once every letter is in its mailbox or the spool. Raises Unwritten."""
        if self._room <= 0 or self._mailboxes.behind or not _may_be_replied_to(letters):
            kept = await self._mailboxes.accept(letters)
            for letter in letters:
                if kept == "accepted" and isinstance(letter.event, Receipt):
                    await self._confirm(channel, letter.sender, letter.event)
            return provider.acknowledgement, kept
        self._room -= 1
        try:
            return await self._answered(channel, provider, letters)
        finally:
            self._room += 1

    async def _answered(
        self, channel: Channel, provider: Answering, letters: Sequence[Letter]
    ) -> tuple[Acknowledgement, Kept]:
        reserved = await self._reserve(channel, letters[0])
        faults.reach("after_reserve")
        kept: Kept | None = None
        try:
            kept = await self._mailboxes.accept(letters)
        finally:
            if reserved and kept != "accepted":
                await self._release(reserved)
        if reserved is None or kept == "spooled":
            return provider.acknowledgement, kept
        replies = await self._replies(channel, provider, reserved)
        faults.reach("before_answer")
        return (provider.answer(replies) if replies else provider.acknowledgement), kept

    async def _confirm(self, channel: Channel, sender: str, receipt: Receipt) -> None:
        """Settle the SMS that a receipt is about, if an answer was entrusted with it. One that failed is left to
        whoever asks the provider, who learns why; so is all of it if Redis fails."""
        if not receipt.sms or not receipt.ticket or receipt.state == "failed":
            return
        k = keyspace.shard_of(sender, self._shards)
        outbox = keyspace.outbox(k, sender)
        try:
            (waiting,) = await self._lanes.run([("LRANGE", outbox, 0, -1)])
            entrusted = [entry for entry in _read(waiting) if entry.sms.uncertain]
            found = next((entry for entry in entrusted if entry.sms.id == receipt.sms), None)
            if found is None:
                return
            keys = [
                keyspace.outbox_alarms(k), keyspace.events(k), outbox, keyspace.outbox_lock(k, sender),
                keyspace.tickets(k, sender),
            ]  # fmt: skip
            sent = Sent(round(time() * 1000), channel.name, found.sms.session, found.sms.id, receipt.ticket)
            pause_ms = round(channel.limits.pause_s * 1000)
            args = (
                sender, found.written, int(len(entrusted) > 1), pause_ms, self._keep_events_ms, encode([sent]),
                receipt.ticket,
            )  # fmt: skip
            (more,) = await self._lanes.run([keyspace.call("confirm", keys, args)])
        except (Unwritten, ValueError):
            return
        if more:
            self._mailboxes.ring(keyspace.OUTBOUND, sender)

    async def _reserve(self, channel: Channel, letter: Letter) -> Reserved | None:
        """The outbox of whoever wrote, if it is free."""
        sender = letter.sender
        k = keyspace.shard_of(sender, self._shards)
        keys = [keyspace.outbox(k, sender), keyspace.outbox_lock(k, sender)]
        reserved = Reserved(sender, secrets.token_hex(8), letter.arrived_s + WAIT_S)
        try:
            (free,) = await self._lanes.run([keyspace.call("reserve", keys, (reserved.token, LEASE_MS))])
        except Unwritten:
            return None
        if not free:
            metrics.ANSWERED.labels(channel.name, "busy").inc()
            return None
        return reserved

    async def _replies(self, channel: Channel, provider: Answering, reserved: Reserved) -> list[Outbound]:
        """The SMS that are the answer's from now on. None if they come too late, or anything is in the way."""
        outcome, replies = "failed", list[Outbound]()
        try:
            outcome, replies = await self._entrusted(channel, provider, reserved)
        except Unwritten:
            log.warning("replies go through the API: Redis failed", channel=channel.name)
        except ValueError:
            log.warning("replies go through the API: they cannot be read", channel=channel.name)
        if not replies:
            await self._release(reserved)
        metrics.ANSWERED.labels(channel.name, outcome).inc()
        return replies

    async def _entrusted(
        self, channel: Channel, provider: Answering, reserved: Reserved
    ) -> tuple[str, list[Outbound]]:
        waiting = await self._advanced(reserved)
        if waiting is None:
            return "late", []
        entries = list(
            takewhile(
                lambda e: e.sms.channel == channel.name and provider.fits_an_answer(e.sms), _read(waiting)
            )
        )
        if not entries:
            return ("api" if waiting else "silent"), []
        if not await self._permitted(channel, len(entries)):
            return "api", []
        return (
            ("answered", [entry.sms for entry in entries])
            if await self._entrust(reserved, entries)
            else ("late", [])
        )

    async def _advanced(self, reserved: Reserved) -> list[bytes] | None:
        """What waits in the outbox once the lane has advanced; None if it has not within WAIT_S."""
        k, sender = keyspace.shard_of(reserved.sender, self._shards), reserved.sender
        keys = [
            keyspace.mailbox(k, sender),
            keyspace.lock(k, sender),
            keyspace.outbox(k, sender),
            keyspace.outbox_lock(k, sender),
        ]
        overhear = keyspace.call("overhear", keys, (reserved.token,))
        look_s = FIRST_LOOK_S
        while perf_counter() < reserved.end_s:
            await asyncio.sleep(look_s)
            look_s = min(2 * look_s, LONGEST_LOOK_S)
            (answer,) = await self._lanes.run([overhear])
            if answer == LOST:
                return None
            if answer != BUSY:
                entries: list[bytes] = answer
                return entries
        return None

    async def _permitted(self, channel: Channel, wanted: int) -> bool:
        """May so many SMS leave on the channel now?"""
        rate = channel.limits.sms_per_second
        commands: list[keyspace.Command] = [("EXISTS", keyspace.pause(channel.name))]
        if rate:
            bucket = [keyspace.sms_bucket(channel.name)]
            commands.append(keyspace.call("grant", bucket, (rate, max(1, rate), wanted)))
        paused, *granted = await self._lanes.run(commands)
        return not paused and all(permits >= wanted for permits in granted)

    async def _entrust(self, reserved: Reserved, entries: Sequence[Entry]) -> bool:
        k, sender = keyspace.shard_of(reserved.sender, self._shards), reserved.sender
        keys = [keyspace.outbox_alarms(k), keyspace.outbox(k, sender), keyspace.outbox_lock(k, sender)]
        marks = [part for entry in entries for part in (entry.written, entry.uncertain)]
        faults.reach("before_entrust")
        (stood,) = await self._lanes.run(
            [keyspace.call("entrust", keys, (sender, reserved.token, REST_MS, *marks))]
        )
        faults.reach("after_entrust")
        return bool(stood)

    async def _release(self, reserved: Reserved) -> None:
        """Let delivery workers at the outbox again; should that fail, they are once the lease ends."""
        k, sender = keyspace.shard_of(reserved.sender, self._shards), reserved.sender
        keys = [keyspace.outbox_alarms(k), keyspace.outbox(k, sender), keyspace.outbox_lock(k, sender)]
        try:
            (waits,) = await self._lanes.run([keyspace.call("unreserve", keys, (sender, reserved.token))])
        except Unwritten:
            return
        if waits:
            self._mailboxes.ring(keyspace.OUTBOUND, sender)


def _may_be_replied_to(letters: Sequence[Letter]) -> bool:
    """Is it one SMS, and not one that the provider has answered itself?"""
    return (
        len(letters) == 1 and isinstance(letters[0].event, Sms) and letters[0].event.handled in ("", "start")
    )


def _read(entries: Sequence[bytes]) -> list[Entry]:
    return [Entry(written, decode_outbound(stored_values.sms_in(written))) for written in entries]
