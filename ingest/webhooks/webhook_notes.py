"""Notices which webhooks are good and which have a wrong token or signature, and which SMS went out in an answer, for those
who look: into the log now and then, and into Redis every few seconds, if there is anything. A request waits for neither, and
nothing depends on it.
"""

import asyncio
from contextlib import suppress

import structlog

from config.host import THIS_HOST, Host
from config.store.counts.answer_record import AnswerNotes, note_commands
from config.store.counts.webhook_record import NoticedWebhooks, record_commands
from ingest.intake.mailboxes import AsyncRedisClient, RedisUnavailableError

log = structlog.get_logger()

WRITE_INTERVAL_S = 5.0

WARNING_INTERVAL_S = 60.0
"""Between two warnings of one channel."""


class WebhookNotes:
    """Writes what it is told in a task of its own, from `start` until `stop`."""

    def __init__(self, lanes: AsyncRedisClient, answers: AnswerNotes, host: Host = THIS_HOST) -> None:
        self._lanes = lanes
        self._answers = answers
        self._host = host
        self._noticed: dict[str, NoticedWebhooks] = {}
        self._warned_s: dict[str, float] = {}
        self._unwarned: dict[str, int] = {}
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def note_good(self, channel: str, now_s: float) -> None:
        """A call was genuine, and is kept."""
        self._of(channel).good_ms = int(now_s * 1000)

    def note_forged(self, channel: str, why: str, now_s: float) -> None:
        """A call was refused, as its token or signature is wrong."""
        self._of(channel).add_forged(int(now_s * 1000))
        self._unwarned[channel] = self._unwarned.get(channel, 0) + 1
        now_s = self._host.monotonic_s()
        if now_s - self._warned_s.get(channel, float("-inf")) >= WARNING_INTERVAL_S:
            self._warned_s[channel] = now_s
            log.warning(
                "webhooks are refused: their token or signature is wrong",
                channel=channel, why=why, webhooks=self._unwarned.pop(channel),
            )  # fmt: skip

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._write_repeatedly())

    async def stop(self) -> None:
        """Write what is there, for the last time."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def write(self) -> None:
        """Write what was noticed since the last time. If Redis does not take it, it is lost."""
        noticed, self._noticed = self._noticed, {}
        commands = [command for name, each in noticed.items() for command in record_commands(name, each)]
        commands += [c for name, each in self._answers.take().items() for c in note_commands(name, each)]
        if commands:
            with suppress(RedisUnavailableError):
                await self._lanes.try_commands(commands)

    async def _write_repeatedly(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), WRITE_INTERVAL_S)
            await self.write()

    def _of(self, channel: str) -> NoticedWebhooks:
        found = self._noticed.get(channel)
        if found is None:
            found = self._noticed[channel] = NoticedWebhooks()
        return found
