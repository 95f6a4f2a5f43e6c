"""Who is at a step of a survey, or was left there; who is on a version of it. A page of them, the newest first."""

from typing import get_args

import falcon
from falcon.asgi import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from config.archive.database import describe_failure
from config.archive.step_sessions import StepSessionFilter, Whereabouts
from engine.model.durations import format_duration
from workers.console.console_archive import ArchiveAwayError
from workers.console.console_state import Console
from workers.console.person_address import mask_number
from workers.console.surveys import survey_readings
from workers.console.surveys.survey_graph import survey_address
from workers.console.surveys.survey_view import SurveyViews
from workers.results.result_wording import readable_word


class StepPeoplePage:
    def __init__(self, console: Console, views: SurveyViews) -> None:
        self._console = console
        self._views = views

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        console, user = self._console, req.context.user
        if await self._views.find(name) is None and not await self._is_known(name):
            raise falcon.HTTPNotFound(description="No survey is called so.")
        asked = req.get_param("who")
        wanted = StepSessionFilter(
            name,
            req.get_param("step") or "",
            req.get_param("version") or "",
            next((each for each in get_args(Whereabouts) if each == asked), "here"),
        )
        before = req.get_param_as_int("before", min_value=0, max_value=2**53, default=0)
        detail = {"step": wanted.step[:100], "version": wanted.version[:100], "who": wanted.whereabouts}
        await console.calls.run(console.record, user, "list people", name, **detail)
        problem, page = "", None
        try:
            page = await console.calls.run(survey_readings.read_people, console.deployment, wanted, before)
        except ArchiveAwayError as e:
            problem = f"{e}."
        except SQLAlchemyError as e:
            problem = f"The archive failed: {describe_failure(e)}."
        console.templates.respond(
            req,
            resp,
            "step_people.html",
            wanted=wanted,
            survey_name=name,
            page=page,
            problem=problem,
            before=before,
            address=survey_address,
            person=lambda number: f"/people/{console.addresses.address_of(number)}",
            shown=(lambda number: number) if user.may("privacy") else mask_number,
            word=readable_word,
            age=lambda ms: format_duration(console.deployment.host.wall_ms() - ms),
        )

    async def _is_known(self, name: str) -> bool:
        reading = await self._views.reading_of(name)
        return reading.what is not None and bool(reading.what.versions)
