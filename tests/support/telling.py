"""A process of hooks, in a thread of the test's own."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_hex
from threading import Event, Thread

import redis

from config.archive.database import ArchiveDatabase
from config.archive.pseudonyms import Pseudonyms
from config.settings.hooks import Hook
from config.store import redis_client
from config.telemetry.hook_stats import HookFirstTrip, reading_commands
from engine.hooks.event_filter import EventFilter
from engine.hooks.signature import parse_secret
from tests.support.hook_endpoint import SECRET, HookEndpoint
from workers.hooks.endpoint_client import EndpointClient
from workers.hooks.event_source import EventSource
from workers.hooks.hook_process import HookProcess
from workers.hooks.hook_store import HookStore

PSEUDONYMS = Pseudonyms(b"key of the tests")


def hook_to(endpoint: HookEndpoint, name: str = "crm", path: str = "/events", **more: object) -> Hook:
    """A hook to an endpoint of the test's; `more` as Hook has it, or as EventFilter has it."""
    wanted = {each: frozenset(more.pop(each)) for each in ("channels", "surveys", "events") if each in more}  # type: ignore[call-overload]
    return Hook(
        name,
        endpoint.url + path,
        (parse_secret(SECRET),),
        EventFilter(**wanted),
        **{"begin": "beginning", **more},  # type: ignore[arg-type]
    )


def read_hook(client: redis.Redis, name: str) -> HookFirstTrip:
    """An endpoint as Redis has it, read as gauges and commands read it."""
    return HookFirstTrip.from_answers(iter(redis_client.run_commands(client, reading_commands(name))))


def owner_of(client: redis.Redis, name: str) -> str:
    """The process that has an endpoint; empty: none."""
    return read_hook(client, name).hook_stats(redis_client.server_time_ms(client), 0).owner


@contextmanager
def telling(
    client: redis.Redis, shards: int, hooks: Sequence[Hook], database: ArchiveDatabase | None = None
) -> Iterator[HookProcess]:
    """Meanwhile, a process tells these endpoints."""
    by_name: Mapping[str, Hook] = {hook.name: hook for hook in hooks}
    stop, made = Event(), list[HookProcess]()
    failures: list[BaseException] = []

    async def tell() -> None:
        store = HookStore(client, f"test.{token_hex(4)}")
        async with EndpointClient(allow_private=True) as endpoints:
            source = EventSource(client, database)
            process = HookProcess(by_name, client, shards, source, store, endpoints, PSEUDONYMS, "")
            made.append(process)
            while not stop.is_set():
                await process.run_round()
                await asyncio.sleep(0.01)
            await process.stop()

    def run() -> None:
        try:
            asyncio.run(tell())
        except BaseException as e:  # noqa: BLE001 (the test's thread raises it)
            failures.append(e)

    thread = Thread(target=run)
    thread.start()
    try:
        while not made and thread.is_alive():
            thread.join(0.01)
        yield made[0]
    finally:
        stop.set()
        thread.join()
        if failures:
            raise failures[0]
