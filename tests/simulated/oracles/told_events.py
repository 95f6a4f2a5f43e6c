"""Were endpoints told what they want to be told, in order for each person, again after a rewind, and by the one who had them?"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from config.store import keyspace, stored_values
from config.store.entry_id import EntryId
from engine.hooks.event_context import EventContext, note_context
from engine.hooks.hook_events import HookEvent, StreamPlace, events_of_entry, read_entry
from tests.simulated.actors.endpoint_tellers import owner_name
from tests.simulated.oracles.event_streams import KeptSessions
from tests.simulated.oracles.stream_watcher import SeenEntry, StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.world.scheduler import Process
from tests.simulated.world.simulated_endpoint import SimulatedEndpoint
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.hooks.hook_store import HOOK_LEASE_MS
from workers.hooks.refused_events import event_of_letter
from workers.store import dead_letter_store


class Rewind(NamedTuple):
    """An operator put an endpoint's positions elsewhere, not before `since_us`, by the server's change `change` or before."""

    hook: str
    places: Mapping[int, EntryId]
    since_us: int
    change: int


class LeaseOracle:
    """Looks whether a process that begins a request has the endpoint. `note_beginning` is called as it begins."""

    def __init__(self, world: SimulatedWorld) -> None:
        self.rewound_us: dict[str, int] = {}
        self._world = world
        self._problem = ""
        self._unsure_until_us = 0
        self._known = (0, 0)
        world.scheduler.observers.append(self.look)

    def look(self) -> None:
        lanes = self._world.lanes
        known = (lanes.losses, lanes.clock_ahead_us)
        if known != self._known:
            # a lease that was taken is lost with the server's tail, or ends when its clock is set ahead
            self._known = known
            self._unsure_until_us = self._world.scheduler.now_us + HOOK_LEASE_MS * 1_000
        if self._problem:
            raise PromiseBroken("one_process_an_endpoint", self._problem)

    def note_beginning(self, hook: str, process: Process) -> None:
        now_us = self._world.scheduler.now_us
        # an operator rewinds: the lease is gone with it, and its process learns of that as it renews it
        rewound_us = self.rewound_us.get(hook, -HOOK_LEASE_MS * 1_000)
        if now_us < max(self._unsure_until_us, rewound_us + HOOK_LEASE_MS * 1_000):
            return
        stored = self._world.lanes.view.string(keyspace.hook_lease_key(hook))
        lease = stored_values.parse_lock(stored) if stored else None
        is_held = lease is not None and lease.until > self._world.lanes.now_ms
        if lease is not None and is_held and lease.owner.partition(";")[0] != owner_name(process):
            self._problem = f"{owner_name(process)} begins a request to {hook}, which {lease.owner} has"


class _Arrival(NamedTuple):
    """An event reached an endpoint as the `place`-th of all, at `at_us`."""

    place: tuple[int, int]
    at_us: int
    is_taken: bool
    body: bytes


class ToldEventOracle:
    """Judges what the endpoints of a run were told, once everything is."""

    def __init__(
        self,
        world: SimulatedWorld,
        watcher: StreamWatcher,
        endpoints: Mapping[str, SimulatedEndpoint],
        kept: KeptSessions,
    ) -> None:
        self.rewinds: list[Rewind] = []
        self._world = world
        self._watcher = watcher
        self._endpoints = endpoints
        self._kept = kept

    def judge(self) -> None:
        entries = sorted(self._watcher.entries, key=lambda each: (each.k, each.id))
        events = self._events(entries)
        lost = {event.id for _, event in self._events(self._watcher.lost)}
        happened = {event.id for _, event in self._events([*entries, *self._watcher.lost])}
        aside = set(self._refused())
        for name, endpoint in self._endpoints.items():
            hook = self._world.settings.hooks[name]
            wanted = [
                (entry, event)
                for entry, event in events
                if hook.wanted.passes(event) and not self._may_be_skipped(name, entry)
            ]
            arrivals = _arrivals(endpoint)
            if unknown := arrivals.keys() - happened:
                raise PromiseBroken("told_what_happened", f"{name} was told {min(unknown)}, which was not")
            self._judge_all_told(name, wanted, arrivals, aside)
            self._judge_order(name, [each for each in wanted if each[1].id not in lost], arrivals)
            self._judge_rewinds(name, wanted, arrivals, aside)
            _judge_repeats(name, arrivals)

    def _may_be_skipped(self, name: str, entry: SeenEntry) -> bool:
        """Whether an operator may have put the endpoint behind it: to where it was, before a failover took it further back."""
        if not self._world.lanes.has_lost:
            return False
        return any(each.hook == name and entry.id <= each.places[entry.k] for each in self.rewinds)

    def _events(self, entries: Sequence[SeenEntry]) -> list[tuple[SeenEntry, HookEvent]]:
        context = EventContext()
        for entry in entries:
            note_context(entry.records, context)
        return [
            (entry, event)
            for entry in entries
            for event in events_of_entry(
                read_entry(StreamPlace(entry.k, *entry.id), entry.sender, entry.stored), context
            )
        ]

    def _refused(self) -> Sequence[tuple[str, str]]:
        """The events that are dead letters, each with its hook."""
        return [
            (letter.hook, event_of_letter(letter).id)
            for k in range(self._world.settings.shards)
            for letter in dead_letter_store.scan_unordered(self._world.onlooker(), k)
            if letter.hook
        ]

    def _judge_all_told(
        self,
        name: str,
        wanted: Sequence[tuple[SeenEntry, HookEvent]],
        arrivals: Mapping[str, Sequence[_Arrival]],
        aside: set[tuple[str, str]],
    ) -> None:
        for entry, event in wanted:
            is_told = any(each.is_taken for each in arrivals.get(event.id, ())) or (name, event.id) in aside
            if not is_told and not self._kept.is_due(entry, self._world.lanes.now_ms):
                raise PromiseBroken(
                    "told_at_least_once",
                    f"{name} was not told of {event.type} in {entry.id} of shard {entry.k}",
                )

    def _judge_order(
        self,
        name: str,
        wanted: Sequence[tuple[SeenEntry, HookEvent]],
        arrivals: Mapping[str, Sequence[_Arrival]],
    ) -> None:
        """By when it was told first, each person's events come in order. Not those that a failover took back, and that happened
        again: "events are repeated"."""
        last: dict[str, tuple[tuple[int, int], str]] = {}
        for entry, event in wanted:
            if event.id not in arrivals:
                continue
            first = arrivals[event.id][0].place
            before, what = last.get(entry.sender, ((-1, -1), ""))
            if first < before:
                raise PromiseBroken(
                    "told_in_order", f"{name} was told of {event.type} in {entry.id} before {what}"
                )
            last[entry.sender] = (first, f"{event.type} in {entry.id}")

    def _judge_rewinds(
        self,
        name: str,
        wanted: Sequence[tuple[SeenEntry, HookEvent]],
        arrivals: Mapping[str, Sequence[_Arrival]],
        aside: set[tuple[str, str]],
    ) -> None:
        for rewind in self.rewinds:
            if rewind.hook != name or self._world.ledger.may_be_lost(rewind.change):
                continue
            for entry, event in wanted:
                if entry.id <= rewind.places[entry.k] or self._kept.is_due(entry, self._world.lanes.now_ms):
                    continue
                again = [each for each in arrivals.get(event.id, ()) if each.at_us >= rewind.since_us]
                if not any(each.is_taken or (name, event.id) in aside for each in again):
                    raise PromiseBroken(
                        "told_again",
                        f"{name} was not told again of {event.type} in {entry.id} of shard {entry.k}",
                    )


def _arrivals(endpoint: SimulatedEndpoint) -> dict[str, list[_Arrival]]:
    found: dict[str, list[_Arrival]] = {}
    for n, telling in enumerate(endpoint.tellings):
        for at, event in enumerate(telling.events):
            arrival = _Arrival((n, at), telling.at_us, telling.fate == "taken", event.body)
            found.setdefault(event.id, []).append(arrival)
    return found


def _judge_repeats(name: str, arrivals: Mapping[str, Sequence[_Arrival]]) -> None:
    """An event that is told again says the same, but for where its entry stands by now."""
    for identity, told in arrivals.items():
        if len({each.body for each in told}) > 1 and len({_content(each.body) for each in told}) > 1:
            raise PromiseBroken("told_alike", f"{name} was told of {identity} in different words")


def _content(body: bytes) -> bytes:
    content: dict[str, Any] = msgspec.json.decode(body)
    del content["sequence"]
    return msgspec.json.encode(content)
