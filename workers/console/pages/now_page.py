"""How things stand, live: what `parley status` says, of one reading for all who look."""

from functools import partial
from math import inf
from threading import Lock

import msgspec
from falcon.asgi import Request, Response

from config.service.deployment_health import DeploymentState, HealthVerdict, assess_health
from config.service.service_view import ServiceView, view_service
from config.settings.settings import Settings
from config.telemetry.redis_stats import RedisStats, StatsReader
from workers.console.console_state import Console
from workers.console.live_pages import LivePage
from workers.console.sparkline import sparkline
from workers.diagnosis.deployment_reading import check_state
from workers.store.deployment import Deployment

CHECKS_FRESH_S = 10.0
"""How long it holds what is no matter of moments: that settings and surveys are right, and what is left of removed channels."""


class NowView(msgspec.Struct, frozen=True):
    """`service` is None while the lanes' Redis does not answer."""

    state: DeploymentState
    verdict: HealthVerdict
    service: ServiceView | None


class NowReader:
    """Reads how things stand, a server that does not answer included: numbers each time, and what takes longer to check once it is
    CHECKS_FRESH_S old. Of threads that ask at once, one reads for all."""

    def __init__(self, deployment: Deployment) -> None:
        self._settings: Settings = deployment.settings
        self._monotonic_s = deployment.host.monotonic_s
        self._stats = StatsReader(deployment.settings)
        self._reading = Lock()
        self._begun_s = self._checked_s = -inf
        self._checked: DeploymentState | None = None
        self._view: NowView | None = None

    def read(self) -> NowView:
        asked_s = self._monotonic_s()
        with self._reading:
            if self._view is None or self._begun_s < asked_s:
                begun_s = self._monotonic_s()
                state = self._state_of(self._stats.read(with_answers=True))
                self._view = NowView(state, assess_health(state), view_service(self._settings, state.found))
                self._begun_s = begun_s
            return self._view

    def _state_of(self, found: RedisStats) -> DeploymentState:
        """What was checked is of the same servers, or is checked again."""
        was, now_s = self._checked, self._monotonic_s()
        if (
            was is None
            or now_s - self._checked_s >= CHECKS_FRESH_S
            or _who_answers(was.found) != _who_answers(found)
        ):
            self._checked, self._checked_s = check_state(self._settings, found), now_s
            return self._checked
        return msgspec.structs.replace(was, found=found)


def _who_answers(found: RedisStats) -> tuple[bool, tuple[int, ...]]:
    return found.lanes.up, tuple(found.away_shards)


async def render_now(console: Console, reader: NowReader) -> str:
    """The part of the page that is live, the same for all who look."""
    view = await console.calls.run(reader.read)
    trend = (
        sparkline(view.service.pace.by_minute, "Answers in each of the last minutes") if view.service else ""
    )
    return console.templates.render(
        "now_body.html",
        {"now": view, "service": view.service, "found": view.state.found, "trend": trend},
    )


class NowPage:
    def __init__(self, console: Console, reader: NowReader) -> None:
        self._console = console
        self._reader = reader

    async def on_get(self, req: Request, resp: Response) -> None:
        body = await render_now(self._console, self._reader)
        self._console.templates.respond(req, resp, "now.html", body=body)


class NowLiveResource:
    """The stream of it."""

    def __init__(self, console: Console, reader: NowReader) -> None:
        self._console = console
        self._page = LivePage(partial(render_now, console, reader), console.stopping)

    async def on_get(self, req: Request, resp: Response) -> None:
        guard = self._console.guard

        async def is_signed_in() -> bool:
            return await guard.find_user(req) is not None

        resp.sse = self._page.watch(is_signed_in)
