"""The phone beside a survey that texts a simulated channel, live: what it sends goes through the whole of Parley."""

import falcon
from falcon.asgi import Request, Response

from workers.console.console_state import Console
from workers.console.form_reader import read_form
from workers.console.surveys.live_phone import PHONES_EACH, LivePhones, NoLivePhoneError
from workers.console.surveys.survey_graph import survey_address
from workers.console.surveys.survey_view import SurveyViews


class LivePhonePage:
    """Asked for by itself it is the screen alone, as the page asks again and again."""

    def __init__(self, console: Console, views: SurveyViews, phones: LivePhones) -> None:
        self._console = console
        self._views = views
        self._phones = phones

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        survey = await self._views.find(name)
        if survey is None:
            raise falcon.HTTPNotFound
        values = await self._console.calls.run(self._phones.screen_values, name, req.context.user.name, req)
        self._console.templates.respond(
            req, resp, "live_screen.html", phone_survey=survey, address=survey_address, **values
        )

    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        console, phones = self._console, self._phones
        user = req.context.user
        form = await read_form(req)
        survey = await self._views.find(name)
        if survey is None:
            raise falcon.HTTPNotFound
        written = form.get("n", "0")
        phone = int(written) if written.isdecimal() and int(written) < PHONES_EACH else 0
        number, channel = phones.number_of(user.name, phone), form.get("channel", "")
        await console.calls.run(
            console.record, user, "text as a phone", name, channel=channel[:100], phone=phone
        )
        try:
            await console.calls.run(phones.text, name, channel, number, form.get("text", ""))
        except NoLivePhoneError as e:
            raise falcon.HTTPConflict(title="The phone could not text that", description=str(e)) from e
        raise falcon.HTTPSeeOther(
            survey_address(name, phone="live", n=str(phone), language=form.get("language", ""))
        )
