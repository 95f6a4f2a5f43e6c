"""Endpoints, told by one process of what waits in the streams; and the same events, posted by the loop that people write."""

from collections.abc import Sequence
from time import monotonic

import redis
import requests

from config.settings.hooks import Hook
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING
from engine.hooks.cloud_events import EVENT_CONTENT_TYPE, render_event
from engine.hooks.event_filter import EventFilter
from engine.hooks.signature import parse_secret, sign_message
from tests.bench.parley_side import SHARDS
from tests.support.hook_endpoint import SECRET
from tests.support.telling import PSEUDONYMS, telling
from tests.support.waiting import until
from workers.hooks.event_source import EventSource
from workers.hooks.hook_store import HookStore


def telling_rate(client: redis.Redis, url: str, batch: int, events: int) -> float:
    """Events a second that one process tells an endpoint which takes them at once, `batch` in a request at the most."""
    hook = Hook("bench", url, (parse_secret(SECRET),), EventFilter(), batch=batch, begin="beginning")
    HookStore(client, "bench").forget(hook.name)
    begun_s = monotonic()
    with telling(client, SHARDS, [hook]):
        until(lambda: _is_told(client, hook.name), 600, "all is told")
        took_s = monotonic() - begun_s
    return events / took_s


def _is_told(client: redis.Redis, hook: str) -> bool:
    told = client.hgetall(keyspace.hook_positions_key(hook))
    last = [client.xrevrange(keyspace.events_key(k), count=1) for k in range(SHARDS)]
    return all(not entry or told.get(b"%d" % k) == entry[0][0] for k, entry in enumerate(last))


def waiting_events(client: redis.Redis) -> list[tuple[str, bytes]]:
    """The events that wait in the streams: their ids, and as they are sent."""
    redis_client.load_functions(client)
    found: list[tuple[str, bytes]] = []
    source = EventSource(client, None)
    for k in range(SHARDS):
        page = source.read(k, BEGINNING)
        while True:
            for _, events in page.entries:
                found += [(each.id, render_event(each, PSEUDONYMS.of(each.sender))) for each in events]
            if page.is_all:
                break
            page = source.read(k, page.entries[-1][0])
    return found


def posting_rate(url: str, events: Sequence[tuple[str, bytes]]) -> float:
    """Events a second that a loop with `requests` posts, one after the other, each signed."""
    secret = parse_secret(SECRET)
    begun_s = monotonic()
    with requests.Session() as session:
        for identity, body in events:
            headers = {"Content-Type": EVENT_CONTENT_TYPE, **sign_message([secret], identity, 0, body)}
            session.post(url, data=body, headers=headers, timeout=15).raise_for_status()
    return len(events) / (monotonic() - begun_s)
