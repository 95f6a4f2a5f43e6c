"""Is the endpoint of hooks told what happened? Each event of the event streams at least once, each person's in order by when
they came first, and what comes again is the same."""

import random
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from time import sleep

import redis

from engine.hooks.event_context import EventContext
from engine.hooks.hook_events import StreamPlace, events_of_entry, read_entry
from tests.support.hook_endpoint import SECRET, Answer, Event, HookEndpoint, Told
from tests.support.processes import Deployment
from tests.support.waiting import until
from workers.store import event_stream

SLOW_S = 0.3
SLOW, FAILING, CUTTING = 0.02, 0.04, 0.04
"""Of requests: those that are answered late, with 503, and not at all."""

ENVIRONMENT: Mapping[str, str] = {"PARLEY_HOOKS_ALLOW_PRIVATE": "1", "PARLEY_SOAK_SECRET": SECRET}


class UnsteadyAnswers:
    """What an endpoint answers that refuses nothing, and is otherwise as bad as they get."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._lock = Lock()

    def __call__(self, _: Told) -> Answer:
        with self._lock:
            drawn = self._chance.random()
        if drawn < SLOW:
            sleep(SLOW_S)
        elif drawn < SLOW + FAILING:
            return Answer(503)
        elif drawn < SLOW + FAILING + CUTTING:
            return Answer(0)
        return Answer()


def configure_hook(deployment: Deployment, endpoint: HookEndpoint) -> None:
    """Have it told everything that ever happened, a few events at a time."""
    config = deployment.folder / "parley.toml"
    table = f"""
[hooks.soak]
url = "{endpoint.url}/soak"
secret_env = "PARLEY_SOAK_SECRET"
begin = "beginning"
batch = 5
"""
    config.write_text(config.read_text() + table)


def wrongs(client: redis.Redis, shards: int, endpoint: HookEndpoint, deadline_s: float) -> Iterator[str]:
    """What is amiss, in words, once all that happened has arrived or the time for it is over."""
    expected = {sender: ids for sender, ids in _expected(client, shards).items() if ids}
    wanted = {each for ids in expected.values() for each in ids}
    try:
        until(lambda: wanted <= {event["id"] for event in _taken(endpoint)}, deadline_s, "all has arrived")
    except TimeoutError:
        missing = wanted - {event["id"] for event in _taken(endpoint)}
        yield f"the endpoint was never told of {len(missing)} of {len(wanted)} events, such as {min(missing)}"
    told = endpoint.of("/soak")
    yield from _repeat_wrongs(told)
    yield from _order_wrongs(expected, told)
    yield from endpoint.faults


def _taken(endpoint: HookEndpoint) -> Sequence[Event]:
    return list(endpoint.taken)


def _expected(client: redis.Redis, shards: int) -> dict[str, list[str]]:
    """The ids of the events of each person, in their order."""
    found: dict[str, dict[str, None]] = {}
    for k in range(shards):
        for entry in event_stream.scan_entries(client, k):
            read = read_entry(StreamPlace(k, *entry.id), entry.sender, entry.content)
            ids = found.setdefault(entry.sender, {})
            ids.update((event.id, None) for event in events_of_entry(read, EventContext()))
    return {sender: list(ids) for sender, ids in found.items()}


def _repeat_wrongs(told: Sequence[Event]) -> Iterator[str]:
    firsts: dict[str, Event] = {}
    for event in told:
        if (first := firsts.setdefault(event["id"], event)) != event:
            yield f"the endpoint was told {first}, and then {event}"


def _order_wrongs(expected: Mapping[str, Sequence[str]], told: Sequence[Event]) -> Iterator[str]:
    """By when events came first, whatever was answered then. Numbers are not told: whose an event is its id says."""
    whose = {each: sender for sender, ids in expected.items() for each in ids}
    arrived: dict[str, dict[str, None]] = {}
    for event in told:
        if event["id"] not in whose:
            yield f"the endpoint was told of nothing that happened: {event}"
            continue
        arrived.setdefault(whose[event["id"]], {})[event["id"]] = None
    for sender, ids in expected.items():
        came = [each for each in arrived.get(sender, ()) if each in whose]
        if came != [each for each in ids if each in arrived.get(sender, ())]:
            yield f"{sender}: events came in another order than they happened"
