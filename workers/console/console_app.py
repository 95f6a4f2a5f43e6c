"""The console's web application: its pages, who may see them, and what each needs of the deployment.

Nothing here is a second truth: a page shows what a command shows, read by the same functions, and does what a command does, through
the same functions. What is ingest's, the console does as a client of the API.
"""

import asyncio
from collections.abc import Callable

import falcon
import falcon.asgi
import msgspec
from falcon.asgi import Request, Response

from config.telemetry import metrics
from engine.model.extras import import_extra
from workers.composition import build_dead_letter_replayer
from workers.console.api_client import ApiClient
from workers.console.blocking_calls import BlockingCalls
from workers.console.console_state import Console
from workers.console.error_pages import add_error_pages
from workers.console.inviting.upload_store import UploadStore
from workers.console.inviting.upload_work import UploadWork
from workers.console.jobs.job_runner import JobRunner
from workers.console.jobs.job_store import JobStore
from workers.console.kept_readings import KeptReadings
from workers.console.log_name_search import LogNameSearch
from workers.console.look_recorder import LookRecorder
from workers.console.pages.audit_page import AuditPage
from workers.console.pages.campaigns_page import CampaignPage, CampaignsPage
from workers.console.pages.channel_page import ChannelPage
from workers.console.pages.dead_letters_page import DeadLettersPage, LetterAuditPage
from workers.console.pages.engine_phone_page import EnginePhonePage
from workers.console.pages.erase_page import ErasePage
from workers.console.pages.export_page import ExportPage
from workers.console.pages.hooks_page import HooksPage
from workers.console.pages.invite_page import InvitePage, UploadPage
from workers.console.pages.job_page import JobLiveResource, JobPage
from workers.console.pages.letter_actions import (
    DropLetterResource,
    DropLettersPage,
    ReplayLetterResource,
    ReplayLettersPage,
)
from workers.console.pages.letter_page import LetterPage
from workers.console.pages.live_phone_page import LivePhonePage
from workers.console.pages.now_page import NowLiveResource, NowPage, NowReader
from workers.console.pages.people_page import PeoplePage, PersonLiveResource, PersonPage
from workers.console.pages.results_page import ResultListPage, ResultsPage
from workers.console.pages.step_people_page import StepPeoplePage
from workers.console.pages.survey_page import SurveyGraphFile, SurveyLiveResource, SurveyPage
from workers.console.pages.surveys_page import SurveysPage
from workers.console.person_address import open_person_addresses
from workers.console.results.result_readings import ResultReadings
from workers.console.results.result_stream import ExportRunner
from workers.console.sign_in.console_sessions import ConsoleSessions
from workers.console.sign_in.request_guard import RequestGuard
from workers.console.sign_in.sign_in_page import SessionsPage, SignInPage, SignOutPage
from workers.console.surveys.live_phone import LivePhones
from workers.console.surveys.survey_view import SurveyViews
from workers.console.templates import NavigationEntry, PageTemplates, StaticResource
from workers.store.deployment import Deployment

NAVIGATION = (
    NavigationEntry("/", "Now"),
    NavigationEntry("/people", "People"),
    NavigationEntry("/dead-letters", "Dead letters"),
    NavigationEntry("/surveys", "Surveys"),
    NavigationEntry("/results", "Results"),
    NavigationEntry("/campaigns", "Campaigns"),
    NavigationEntry("/hooks", "Hooks"),
    NavigationEntry("/audit", "Audit"),
)
"""The pages that the bar leads to, in its order."""


class _CallsEnd:
    """Ends what is open when the process is told to stop."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def process_shutdown(self, scope: object, event: object) -> None:
        self._console.jobs.close()
        self._console.calls.close()
        self._console.readings.close()


class _RequestCounter:
    """Counts what was asked of the console, by what became of it."""

    async def process_response(
        self, req: Request, resp: Response, resource: object, req_succeeded: bool
    ) -> None:
        metrics.CONSOLE_REQUESTS.labels(f"{str(resp.status)[0]}xx").inc()


class ConsoleApp(msgspec.Struct, frozen=True):
    """The ASGI application, and what ends its open streams."""

    asgi: falcon.asgi.App[Request, Response]
    stop_streams: Callable[[], None]


def create_console(deployment: Deployment) -> ConsoleApp:
    """The application on a deployment whose servers answer. Raises MissingExtraError."""
    settings = deployment.settings
    calls = BlockingCalls()
    sessions = ConsoleSessions(deployment.lanes, deployment.host)
    guard = RequestGuard(settings.console, sessions, calls)
    console = Console(
        deployment,
        PageTemplates(NAVIGATION),
        guard,
        sessions,
        calls,
        KeptReadings(),
        asyncio.Event(),
        open_person_addresses(deployment.lanes, deployment.host),
        JobRunner(JobStore(deployment.lanes), deployment.host),
        LookRecorder(),
        deployment.open_log_key(),
    )
    app = falcon.asgi.App()
    app.add_middleware(_RequestCounter())
    app.add_middleware(guard)
    app.add_middleware(_CallsEnd(console))
    app.add_route("/static/{name}", StaticResource(console.templates))
    app.add_route("/sign-in", SignInPage(console))
    app.add_route("/sign-out", SignOutPage(console))
    if settings.console.oidc:
        pages = import_extra(
            "workers.console.sign_in.oidc_pages", "console", "signing in by an OpenID provider"
        )
        pages.add_oidc_routes(app, console, settings.console.oidc)
    app.add_route("/sessions", SessionsPage(console))
    reader = NowReader(deployment)
    app.add_route("/", NowPage(console, reader))
    app.add_route("/live/now", NowLiveResource(console, reader))
    app.add_route("/channels/{name}", ChannelPage(console))
    _add_campaign_routes(app, console)
    app.add_route("/hooks", HooksPage(console))
    app.add_route("/audit", AuditPage(console))
    names = LogNameSearch(deployment, console.readings, console.stopping.is_set)
    app.add_route("/people", PeoplePage(console, names))
    app.add_route("/people/{address}", PersonPage(console))
    app.add_route("/people/{address}/live", PersonLiveResource(console))
    app.add_route("/people/{address}/erase", ErasePage(console))
    app.add_route("/dead-letters", DeadLettersPage(console))
    app.add_route("/dead-letters/replay", ReplayLettersPage(console, build_dead_letter_replayer))
    app.add_route("/dead-letters/drop", DropLettersPage(console, build_dead_letter_replayer))
    app.add_route("/dead-letters/audit", LetterAuditPage(console))
    app.add_route("/dead-letters/{letter_id}", LetterPage(console, build_dead_letter_replayer))
    app.add_route(
        "/dead-letters/{letter_id}/replay", ReplayLetterResource(console, build_dead_letter_replayer)
    )
    app.add_route("/dead-letters/{letter_id}/drop", DropLetterResource(console, build_dead_letter_replayer))
    app.add_route("/jobs/{job}", JobPage(console))
    app.add_route("/jobs/{job}/live", JobLiveResource(console))
    _add_survey_routes(app, console)
    add_error_pages(app, console)
    return ConsoleApp(app, console.stopping.set)


def _add_campaign_routes(app: falcon.asgi.App[Request, Response], console: Console) -> None:
    api = ApiClient(console.deployment.settings)
    work = UploadWork(console.deployment, UploadStore(console.deployment.lanes), api)
    app.add_route("/campaigns", CampaignsPage(console, api))
    app.add_route("/campaigns/{name:path}", CampaignPage(console, api, work))
    app.add_route("/invite", InvitePage(console, work))
    app.add_route("/invite/{upload}", UploadPage(console, work))


def _add_survey_routes(app: falcon.asgi.App[Request, Response], console: Console) -> None:
    views = SurveyViews(console.deployment, console.readings, console.calls)
    phones = LivePhones(console.deployment)
    app.add_route("/surveys", SurveysPage(console, views))
    app.add_route("/surveys/{name}", SurveyPage(console, views, phones))
    app.add_route("/surveys/{name}/graph.svg", SurveyGraphFile(console, views))
    app.add_route("/surveys/{name}/people", StepPeoplePage(console, views))
    app.add_route("/surveys/{name}/phone", EnginePhonePage(console, views))
    app.add_route("/surveys/{name}/live-phone", LivePhonePage(console, views, phones))
    app.add_route("/live/surveys/{name}", SurveyLiveResource(console, views))
    results = ResultReadings(console.deployment, console.readings)
    app.add_route("/results", ResultListPage(console, results))
    app.add_route("/results/{name}", ResultsPage(console, results))
    app.add_route(
        "/results/{name}/export", ExportPage(console, ExportRunner(console.deployment, console.stopping))
    )
