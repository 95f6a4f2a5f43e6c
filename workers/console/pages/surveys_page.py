"""Every survey that runs: its versions, the open sessions on each, what is proved of it, and its dearest path."""

from falcon.asgi import Request, Response

from workers.console.console_state import Console
from workers.console.surveys.survey_graph import survey_address
from workers.console.surveys.survey_view import SurveyViews, describe_findings


class SurveysPage:
    def __init__(self, console: Console, views: SurveyViews) -> None:
        self._console = console
        self._views = views

    async def on_get(self, req: Request, resp: Response) -> None:
        found = await self._views.list_surveys()
        self._console.templates.respond(
            req,
            resp,
            "surveys.html",
            list=found,
            address=survey_address,
            findings=describe_findings,
            unfinished=found.totals.is_waited_for or any(row.report is None for row in found.rows),
        )
