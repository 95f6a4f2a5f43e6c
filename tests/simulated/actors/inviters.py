"""Inviters: they post invitations to the API until they are answered, post them again, and cancel sessions. What is behind HTTP
is real."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from config.settings.channels import ApiKey
from ingest.api.archive_reader import ArchiveReader
from ingest.api.backlog import InvitationIntake
from ingest.api.invitation_parser import InvitationParser
from ingest.api.problems import ApiError
from ingest.api.sessions import SessionAccess, SessionArchive
from ingest.intake.mailboxes import AsyncRedisClient, RedisUnavailableError
from tests.simulated.actors.web import ANSWER_TIMEOUT_US, MAX_POSTS, POSTING, Web
from tests.simulated.world.ledger import InvitationAnswer
from tests.simulated.world.machine import simulated_host
from tests.simulated.world.scheduler import Call, Process
from tests.simulated.world.simulated_redis import SimulatedAsyncRedis
from tests.simulated.world.simulated_world import SimulatedWorld

AGAIN_US = 2_000_000
"""How long an inviter waits before they send again what was not answered."""


class InvitingWeb(Web):
    """`web` with its API: `ask` has a request worked on."""

    def begin(self, process: Process) -> None:
        super().begin(process)
        world, host = self._world, simulated_host(process, f"{self._world.seed} api")
        lanes = AsyncRedisClient(SimulatedAsyncRedis(world.lanes, process), replicas=world.settings.replicas)
        reader = ArchiveReader(world.settings.archive_url)
        archive = SessionArchive(world.settings, lanes, reader, host)
        self.intake = InvitationIntake(world.settings.shards, lanes)
        self.parser = InvitationParser(world.settings, world.surveys, host)
        assert self._mailboxes is not None
        self.access = SessionAccess(
            world.settings, _NOBODY, archive, self._mailboxes, _NOBODY, reader, host  # who asks is known, and told nobody
        )  # fmt: skip

    def ask(self, work: Callable[["InvitingWeb"], Coroutine[Any, Any, Any]]) -> Any:
        """Answer a request, as the actor that runs; None if there is no answer."""
        process, loop, scheduler = self.process, self._loop, self._world.scheduler
        assert process is not None
        assert loop is not None
        answers: list[Any] = []

        async def answer() -> None:
            try:
                answers.append(await work(self))
            except RedisUnavailableError:
                answers.append(None)
            scheduler.notify(answers)

        if not process.is_alive:
            return None
        loop.call_soon_threadsafe(lambda: loop.create_task(answer()))
        scheduler.wait(answers, ANSWER_TIMEOUT_US)
        return answers[0] if answers else None


class Inviter:
    """Whoever has a key to the API, for one channel and survey."""

    def __init__(self, world: SimulatedWorld, webs: list[InvitingWeb], channel: str, survey: str) -> None:
        self._world = world
        self._webs = webs
        self._channel = channel
        self._survey = world.surveys.current(survey)
        self._key = ApiKey("inviter", "", (channel,), 0)
        self._turn = 0

    def invite_later(self, number: str, reference: str, after_s: float, **fields: Any) -> None:
        """Begin to post an invitation then."""
        body = {
            "identifier": number, "channel": self._channel, "clientReference": reference,
        } | fields  # fmt: skip
        self._begin(
            f"invite {number[-2:]} {reference}",
            after_s,
            partial(self._invite, number, msgspec.json.encode(body)),
        )

    def cancel_later(self, session: str, after_s: float) -> None:
        """Begin to cancel a session then."""
        self._begin(f"cancel {session[:4]}", after_s, partial(self._cancel, session))

    def _begin(self, name: str, after_s: float, work: Callable[[], None]) -> None:
        scheduler = self._world.scheduler
        at_us = scheduler.now_us + round(after_s * 1_000_000)
        scheduler.at(at_us, lambda: self._world.outside.spawn(name, work))

    def _invite(self, number: str, body: bytes) -> None:
        async def work(web: InvitingWeb) -> tuple[str, str]:
            request = web.parser.parse(body, self._survey, self._key)
            (outcome,) = await web.intake.accept([request])
            return request.event.id, outcome

        def note(answer: tuple[str, str]) -> None:
            identity, outcome = answer
            now_us = self._world.scheduler.now_us
            self._world.ledger.invitations.append(InvitationAnswer(number, identity, outcome, now_us))

        self._post("invitation", work, note)

    def _cancel(self, session: str) -> None:
        async def work(web: InvitingWeb) -> bool:
            found = await web.access.archive.find(session)
            view = await web.access.archive.view(found) if found else None
            if found is None or view is None:
                return False
            try:
                await web.access.cancel(found, view)
            except ApiError:
                return False
            return True

        def note(done: bool) -> None:
            if done:
                self._world.ledger.cancelled.append(session)

        self._post("cancellation", work, note)

    def _post(
        self,
        what: str,
        work: Callable[[InvitingWeb], Coroutine[Any, Any, Any]],
        note: Callable[[Any], None],
    ) -> None:
        """Have a request answered, again and again, and note each answer that comes."""
        scheduler = self._world.scheduler
        for _ in range(MAX_POSTS):
            self._turn += 1
            web = self._webs[self._turn % len(self._webs)]
            fault = scheduler.call(Call(what, lambda fault: fault, POSTING))
            kind = fault.kind if fault is not None else ""
            answer = None if kind == "lose_request" else web.ask(work)
            if answer is not None and kind != "lose_reply":
                note(answer)
                if kind != "repeat":
                    return
                scheduler.sleep_us(fault.amount * 1_000)
                continue
            scheduler.sleep_us(AGAIN_US)


_NOBODY: Any = None
