"""One survey: its graph with live numbers, its versions, what is proved of it, and a phone beside it.

The graph, and what is told of it, is kept up to date while somebody looks: as people answer, and as the survey's file is edited.
"""

import asyncio

import falcon
from falcon.asgi import Request, Response

from workers.console.console_state import Console
from workers.console.live_pages import LivePage
from workers.console.surveys.graph_layout import LayoutFailedError
from workers.console.surveys.live_phone import LivePhones
from workers.console.surveys.phone_values import begin_phone, phone_values
from workers.console.surveys.survey_view import SurveyViews, draft_values, survey_values


class SurveyPage:
    def __init__(self, console: Console, views: SurveyViews, phones: LivePhones) -> None:
        self._console = console
        self._views = views
        self._phones = phones

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        console = self._console
        survey = await self._views.find(name, req.get_param("version") or "")
        if survey is None:
            raise falcon.HTTPNotFound(description="No survey, or no version of it, is called so.")
        await console.calls.run(console.record, req.context.user, "read funnel", name)
        is_live = req.get_param("phone") == "live"
        state = await console.calls.run(begin_phone, console, survey) if not is_live else None
        version, language = req.get_param("version") or "", req.get_param("language") or ""
        values = await survey_values(console, self._views, survey, version, language)
        values |= phone_values(survey, state, language, version)
        live: dict[str, object] = {}
        if is_live:
            live = await console.calls.run(self._phones.screen_values, name, req.context.user.name, req)
        console.templates.respond(req, resp, "survey.html", **values, **live)


class SurveyGraphFile:
    """The graph as a file: a picture for elsewhere, and beside a survey too large to be drawn in the page."""

    def __init__(self, console: Console, views: SurveyViews) -> None:
        self._console = console
        self._views = views

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        console = self._console
        survey = await self._views.find(name, req.get_param("version") or "")
        if survey is None:
            raise falcon.HTTPNotFound
        await console.calls.run(console.record, req.context.user, "read funnel", name)
        draft = await self._views.view(survey, req.get_param("language") or "")
        try:
            resp.data = await console.calls.run(draft.picture)
        except LayoutFailedError as e:
            raise falcon.HTTPServiceUnavailable(title="There is no picture", description=str(e)) from e
        resp.content_type = "image/svg+xml"


class SurveyLiveResource:
    """The stream of a current survey's graph and numbers: one for all who look at it in one language."""

    def __init__(self, console: Console, views: SurveyViews) -> None:
        self._console = console
        self._views = views
        self._pages: dict[tuple[str, str], LivePage] = {}

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        guard = self._console.guard
        survey = await self._views.find(name)
        if survey is None:
            raise falcon.HTTPNotFound
        wanted = req.get_param("language") or ""
        language = wanted if wanted in survey.languages else ""

        async def is_signed_in() -> bool:
            return await guard.find_user(req) is not None

        resp.sse = self._page(name, language).watch(is_signed_in)

    def _page(self, name: str, language: str) -> LivePage:
        """Those that nobody looks at are forgotten."""
        for key in [key for key, page in self._pages.items() if not page.viewers]:
            del self._pages[key]
        reader = _BodyReader(self._console, self._views, name, language)
        return self._pages.setdefault((name, language), LivePage(reader.read, self._console.stopping))


class _BodyReader:
    """Makes what is shown of a survey, anew only if something of it has changed."""

    def __init__(self, console: Console, views: SurveyViews, name: str, language: str) -> None:
        self._console = console
        self._views = views
        self._name = name
        self._language = language
        self._made: tuple[tuple[object, ...], str] = ((), "")
        self._lock = asyncio.Lock()

    async def read(self) -> str:
        survey = await self._views.find(self._name)
        if survey is None:
            return self._console.templates.render("survey_gone.html", {"name": self._name})
        draft = await self._views.view(survey, self._language)
        async with self._lock:
            if self._made[0] != draft.key:
                values = await self._console.calls.run(draft_values, draft)
                self._made = (draft.key, self._console.templates.render("survey_body.html", values))
            return self._made[1]
