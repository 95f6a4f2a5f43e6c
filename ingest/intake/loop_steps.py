"""Long work, a step at a time: whatever shares the event loop never waits for more than a step."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")


async def in_steps(items: Iterable[T], size: int) -> AsyncIterator[T]:
    """The items; after each `size` of them all others on the loop have their turn."""
    for count, item in enumerate(items, start=1):
        yield item
        if count % size == 0:
            await asyncio.sleep(0)
