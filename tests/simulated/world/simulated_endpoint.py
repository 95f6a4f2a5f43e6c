"""Endpoints of hooks: programs of others that are told events, and take them, refuse them, fail, or are away."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from config.settings.hooks import Hook
from tests.simulated.world import faults
from tests.simulated.world.faults import Fault
from tests.simulated.world.scheduler import AnswerLater, Call, Process, Scheduler
from workers.hooks.endpoint_client import HookReply, RenderedEvent

Fate = Literal["taken", "refused", "failed"]


class Telling(NamedTuple):
    """A request that reached an endpoint at `at_us`, and what it did with its events."""

    hook: str
    events: Sequence[RenderedEvent]
    at_us: int
    fate: Fate


class SimulatedEndpoint:
    """One endpoint. `tellings` are all requests that reached it, in order."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.tellings: list[Telling] = []
        self._gone_until_us = 0

    def tell(self, hook: Hook, events: Sequence[RenderedEvent], fault: Fault | None) -> HookReply:
        """Answer a request. Raises AnswerLater."""
        now_us = self.scheduler.now_us
        kind, amount = (fault.kind, fault.amount) if fault is not None else ("", 0)
        timeout_us = round(hook.timeout_s * 1_000_000)
        silence = AnswerLater(timeout_us, HookReply(outcome="failed", why="no answer"))
        if kind == "endpoint_gone":
            self._gone_until_us = now_us + amount * 1_000
        if now_us < self._gone_until_us:
            return HookReply(outcome="failed", why="connection refused")
        match kind:
            case "fail_event":
                self._note(events, "failed")
                return HookReply(outcome="failed", status=503, why="503")
            case "rest_event":
                self._note(events, "failed")
                return HookReply(outcome="failed", status=429, why="429", retry_after_ms=amount)
            case "refuse_event":
                self._note(events, "refused")
                return HookReply(outcome="refused", status=400, why="400")
            case "lose_answer":
                self._note(events, "taken")
                raise silence
            case "hang_event":
                raise silence
            case "event_late":
                self.scheduler.at(now_us + amount * 1_000, lambda: self._note(events, "taken"))
                raise silence
            case "slow_event":
                self._note(events, "taken")
                if amount * 1_000 >= timeout_us:
                    raise silence
                raise AnswerLater(amount * 1_000, HookReply(outcome="delivered", status=200))
            case _:
                self._note(events, "taken")
                return HookReply(outcome="delivered", status=200)

    def end_absence(self) -> None:
        self._gone_until_us = 0

    def _note(self, events: Sequence[RenderedEvent], fate: Fate) -> None:
        self.tellings.append(Telling(self.name, events, self.scheduler.now_us, fate))


class SimulatedEndpointClient:
    """A process's way to the endpoints, instead of one that speaks HTTP. `began` is called with the hook and the process when a
    request begins, before anything else can happen."""

    def __init__(
        self,
        endpoints: dict[str, SimulatedEndpoint],
        process: Process,
        began: Callable[[str, Process], None],
    ) -> None:
        self._endpoints = endpoints
        self._process = process
        self._began = began

    async def post(self, hook: Hook, events: Sequence[RenderedEvent]) -> HookReply:
        self._began(hook.name, self._process)
        endpoint, scheduler = self._endpoints[hook.name], self._process.scheduler
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[HookReply] = loop.create_future()
        begun_us = scheduler.now_us

        def ask() -> None:
            what = f"endpoint {hook.name} {' '.join(each.id[:4] for each in events)}"
            call = Call(what, lambda fault: endpoint.tell(hook, events, fault), faults.ENDPOINT)
            reply: HookReply = scheduler.call(call)
            loop.call_soon_threadsafe(lambda: answered.done() or answered.set_result(reply))

        self._process.spawn("request", ask)
        reply = await answered
        took_ms = round((scheduler.now_us - begun_us) / 1_000)
        return msgspec.structs.replace(reply, took_ms=took_ms)
