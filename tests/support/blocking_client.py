"""A provider's client for a test, which waits for what comes of it: an event loop of its own has the client."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from engine.providers import SendOutcome, SmsNotFound
from tests.support.waiting import HANG_S
from workers.sending.http_client import ProviderClient
from workers.sending.loop_thread import LoopThread

Answer = TypeVar("Answer")


class BlockingClient:
    """`send` and `look_up` are the client's; any thread may call them."""

    def __init__(self, client: ProviderClient) -> None:
        self.client = client
        self.thread = LoopThread("exchanges")

    def send(self, *asked: Any) -> SendOutcome | None:
        return self._wait_for(self.client.send(*asked))

    def look_up(self, *asked: Any) -> SendOutcome | SmsNotFound:
        return self._wait_for(self.client.look_up(*asked))

    def close(self) -> None:
        """End it, if it has not ended."""
        if self.thread.loop.is_closed():
            return
        self._wait_for(self._close())
        self.thread.close()
        self.thread.thread.join(HANG_S)

    async def _close(self) -> None:
        self.client.close()

    def _wait_for(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self.thread.loop).result(HANG_S)
