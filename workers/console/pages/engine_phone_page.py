"""The phone beside a survey that the engine answers. A post changes nothing here: the page carries the conversation, so that it is
answered by the page itself, and to send it again is to play it again."""

import falcon
from falcon.asgi import Request, Response

from workers.console.console_state import Console
from workers.console.form_reader import read_form
from workers.console.surveys.engine_phone import PHONE_DEEDS, BadConversationError, PhoneDeed, play_phone
from workers.console.surveys.phone_values import phone_values
from workers.console.surveys.survey_graph import survey_address
from workers.console.surveys.survey_view import SurveyViews, survey_values


class EnginePhonePage:
    action_role = "viewer"

    def __init__(self, console: Console, views: SurveyViews) -> None:
        self._console = console
        self._views = views

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        raise falcon.HTTPSeeOther(survey_address(name))

    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        console = self._console
        form = await read_form(req)
        version, language = form.get("version", ""), form.get("language", "")
        survey = await self._views.find(name, version)
        if survey is None:
            raise falcon.HTTPNotFound(description="No survey, or no version of it, is called so.")
        deed: PhoneDeed = next((each for each in PHONE_DEEDS if each == form.get("deed")), "")
        try:
            state = await console.calls.run(
                play_phone, survey, form.get("script", ""), deed, form.get("text", ""), language
            )
        except BadConversationError as e:
            raise falcon.HTTPBadRequest(title="This conversation cannot go on", description=str(e)) from e
        values = phone_values(survey, state, language, version, form.get("played", ""))
        if req.get_header("HX-Request"):
            console.templates.respond(req, resp, "engine_phone.html", **values | {"is_part": True})
            return
        page = await survey_values(
            console, self._views, survey, version, language, now=state.now_at, been=state.been
        )
        console.templates.respond(req, resp, "survey.html", **page | values)
