"""`web` as a simulated process: the real way into the mailboxes, the spool and the answers of webhooks, behind HTTP; and the
carriers that call it."""

from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from config.store.counts.answer_record import AnswerNotes
from engine.model.errors import ParleyError
from engine.model.events import InboundEvent, OutboundSms, decode_inbound
from engine.providers import WebhookResponse
from ingest.intake.mailboxes import (
    AcceptOutcome,
    AsyncRedisClient,
    InboundItem,
    MailboxWriter,
    RedisUnavailableError,
)
from ingest.intake.spool import Spool, SpooledEvent
from ingest.intake.spool_drain import DRAIN_INTERVAL_S, SpoolDrain
from ingest.webhooks.inline_replies import InlineReplies
from tests.simulated.world import faults
from tests.simulated.world.faults import Fault
from tests.simulated.world.ledger import Acceptance
from tests.simulated.world.machine import simulated_host
from tests.simulated.world.scheduler import Call, Process
from tests.simulated.world.simulated_disk import SimulatedDisk
from tests.simulated.world.simulated_loop import SimulatedLoop
from tests.simulated.world.simulated_redis import SimulatedAsyncRedis
from tests.simulated.world.simulated_world import SimulatedWorld

ANSWER_TIMEOUT_US = 10_000_000
"""How long a carrier waits for the answer to a webhook."""

MAX_POSTS = 200
"""How often a carrier sends a webhook that is not acknowledged."""

REPOST_US = 2_000_000
"""How long a carrier waits before it sends a webhook again."""

POSTING = (
    *faults.NETWORK[:2],
    Fault("repeat", 1),
    Fault("repeat", 5_000),
    Fault("repeat", 60_000),
    Fault("repeat", 259_200_000),
)
"""What may happen to a webhook: it is lost, its answer is, or it is sent again though it was acknowledged."""

SPOOL_FOLDER = Path("/spool")

STILL_SPOOLED = (-1, 1 << 62)
"""The change, and the moment, by which an event is in its mailbox that is in the spool."""


class SpoolDisk(msgspec.Struct, frozen=True):
    """The disk of the machine that some `web` processes are on, and how much of it they may take for what they spool."""

    disk: SimulatedDisk
    max_bytes: int = 1 << 20

    @property
    def has_events(self) -> bool:
        return bool(self.disk.content(str(SPOOL_FOLDER / "events")))

    @property
    def damaged(self) -> bytes:
        """What was put aside, as it could not be read."""
        return self.disk.content(str(SPOOL_FOLDER / "damaged"))


class Web:
    """One `web` process and all its lives. It has replies in the answers of the channels in `inline`, and spools to a disk if
    there is one."""

    def __init__(
        self, world: SimulatedWorld, inline: Collection[str] = (), spool_disk: SpoolDisk | None = None
    ) -> None:
        self._world = world
        self._inline = inline
        self._spool_disk = spool_disk
        self._loop: SimulatedLoop | None = None
        self._mailboxes: _NotedMailboxes | None = None
        self._replies: InlineReplies | None = None
        self._begun: list[Coroutine[None, None, None]] = []
        self.process: Process | None = None

    def begin(self, process: Process) -> None:
        self.process = process
        world, disk = self._world, self._spool_disk
        host = simulated_host(process, world.seed)
        self._loop = loop = SimulatedLoop(process)
        lanes = AsyncRedisClient(SimulatedAsyncRedis(world.lanes, process), replicas=world.settings.replicas)
        broker = AsyncRedisClient(SimulatedAsyncRedis(world.broker, process))
        spool = Spool(SPOOL_FOLDER, disk.max_bytes, host) if disk is not None else None
        self._mailboxes = _NotedMailboxes(world, lanes, broker, spool, host, world.settings.bells_database)
        notes = AnswerNotes({name: each.timezone for name, each in world.settings.channels.items()})
        self._replies = InlineReplies(world.settings.shards, lanes, self._mailboxes, notes, host=host)
        process.spawn("", loop.run_forever)
        if disk is not None and spool is not None:
            drain = SpoolDrain(spool, self._mailboxes, lanes, host)
            process.spawn("drain", lambda: self._drain_repeatedly(process, loop, drain, disk))

    def close(self) -> None:
        """End what is under way in any of its lives, so that nothing of it ends in the middle of another run."""
        for coroutine in self._begun:
            with suppress(RuntimeError):  # it awaits something as it ends, and no loop runs
                coroutine.close()

    def post(self, sender: str, event: InboundEvent, offered_us: int) -> Sequence[OutboundSms] | None:
        """Be asked to accept an event, by the carrier that runs. Answers the SMS that the answer holds; None if the event was
        not acknowledged."""
        process, loop = self.process, self._loop
        assert process is not None
        assert loop is not None
        scheduler = self._world.scheduler
        answers: list[Sequence[OutboundSms] | None] = []

        async def accept() -> None:
            try:
                response = await self._handle(InboundItem(sender, event, loop.time()))
            except RedisUnavailableError:
                answers.append(None)
            else:
                assert self._mailboxes is not None
                answers.append(_decode_replies(response.body) if response.body else ())
                self._world.ledger.acceptances.append(
                    Acceptance(sender, event, offered_us, scheduler.now_us, *self._mailboxes.noted[event.id])
                )
            scheduler.notify(answers)

        if not process.is_alive:
            return None
        self._begin_task(loop, accept())
        scheduler.wait(answers, ANSWER_TIMEOUT_US)
        return answers[0] if answers else None

    async def _handle(self, item: InboundItem) -> WebhookResponse:
        """Do as WebhooksResource, once it has read a call."""
        assert self._mailboxes is not None
        assert self._replies is not None
        if item.event.channel not in self._inline:
            await self._mailboxes.accept([item])
            return WebhookResponse()
        channel = self._world.settings.channels[item.event.channel]
        response, _ = await self._replies.handle(channel, _InlineCodec(), [item])
        return response

    def _drain_repeatedly(
        self, process: Process, loop: SimulatedLoop, drain: SpoolDrain, disk: SpoolDisk
    ) -> None:
        """Do as SpoolDrain's task, but for looks at a spool that is empty."""
        scheduler = process.scheduler
        while True:
            scheduler.poll(lambda: 0 if disk.has_events else None, round(DRAIN_INTERVAL_S * 1_000_000))
            ended: list[None] = []
            self._begin_task(loop, _drain_once(drain, lambda ended=ended: scheduler.notify(ended)))
            scheduler.wait(ended)

    def _begin_task(self, loop: SimulatedLoop, coroutine: Coroutine[None, None, None]) -> None:
        self._begun.append(coroutine)
        loop.call_soon_threadsafe(loop.create_task, coroutine)


async def _drain_once(drain: SpoolDrain, end: Callable[[], None]) -> None:
    with suppress(OSError, ParleyError):
        await drain.drain_if_ours()
    end()


class _NotedMailboxes(MailboxWriter):
    """Notes by which change of the server an event came into its mailbox, and when. What is spooled is in no danger of a
    failover until it is handed over."""

    def __init__(self, world: SimulatedWorld, *parts: Any) -> None:
        super().__init__(world.settings.shards, *parts)
        self._world = world
        self.noted: dict[str, tuple[int, int]] = {}

    async def accept(self, items: Sequence[InboundItem]) -> AcceptOutcome:
        kept = await super().accept(items)
        for item in items:
            self.noted[item.event.id] = self._now() if kept == "accepted" else STILL_SPOOLED
        return kept

    async def accept_spooled(self, events: Sequence[SpooledEvent], within_s: float) -> None:
        await super().accept_spooled(events, within_s)
        handed_over = {decode_inbound(each.event).id for each in events}
        acceptances = self._world.ledger.acceptances
        for at, each in enumerate(acceptances):
            if each.event.id in handed_over and each.change == STILL_SPOOLED[0]:
                change, mailbox_us = self._now()
                acceptances[at] = each._replace(change=change, mailbox_us=mailbox_us)

    def _now(self) -> tuple[int, int]:
        return self._world.lanes.model.changes, self._world.scheduler.now_us


class _InlineCodec:
    """The codec of a provider that takes replies in an answer."""

    webhook_response = WebhookResponse()

    def fits_inline(self, sms: OutboundSms) -> bool:
        return True

    def write_inline_replies(self, replies: Sequence[OutboundSms]) -> WebhookResponse:
        return WebhookResponse(body=msgspec.msgpack.encode(replies))


_decode_replies = msgspec.msgpack.Decoder(list[OutboundSms]).decode


class Carriers:
    """What brings SMS and what else providers say to the deployment, again and again until it is acknowledged. `answered` is
    called with a channel and the SMS that the answer to a webhook held, once a provider has it."""

    def __init__(
        self,
        world: SimulatedWorld,
        webs: list[Web],
        answered: Callable[[str, Sequence[OutboundSms]], None] = lambda channel, replies: None,
    ) -> None:
        self._world = world
        self._webs = webs
        self._answered = answered
        self._turn = 0

    def bring(self, sender: str, event: InboundEvent) -> None:
        """Begin to bring an event."""
        offered_us = self._world.scheduler.now_us
        self._world.outside.spawn(f"carrier {event.id[:4]}", partial(self._bring, sender, event, offered_us))

    def _bring(self, sender: str, event: InboundEvent, offered_us: int) -> None:
        scheduler = self._world.scheduler
        for _ in range(MAX_POSTS):
            fault = scheduler.call(Call(f"webhook {event.id}", lambda fault: fault, POSTING, 2.0))
            kind = fault.kind if fault is not None else ""
            accepted = kind != "lose_request" and self._post(sender, event, offered_us, kind != "lose_reply")
            if accepted and kind == "repeat":
                scheduler.sleep_us(fault.amount * 1_000)
                self._post(sender, event, offered_us, is_heard=True)
            if accepted and kind != "lose_reply":
                return
            scheduler.sleep_us(REPOST_US)

    def _post(self, sender: str, event: InboundEvent, offered_us: int, is_heard: bool) -> bool:
        """Send a webhook once. Answers whether it was acknowledged, be that heard or not."""
        self._turn += 1
        replies = self._webs[self._turn % len(self._webs)].post(sender, event, offered_us)
        if replies and is_heard:
            self._answered(event.channel, replies)
        return replies is not None
