"""What was answered to a survey: what `parley results` shows, with a chart for each question, and what it cost."""

import falcon
from falcon.asgi import Request, Response

from config.archive.result_filters import SESSION_STATES, InvalidFilterError
from workers.console.console_state import Console
from workers.console.live_pages import is_renewal
from workers.console.results.result_form import filter_fields, read_form_filters, require_survey_name
from workers.console.results.result_readings import (
    QUESTIONS_A_PAGE,
    ResultReadings,
    latest_rows,
    question_views,
)
from workers.console.surveys.survey_graph import survey_address
from workers.results.archive_state import describe_archive
from workers.results.result_wording import format_share, readable_word
from workers.results.written_filters import WrittenFilters, audited_filters, read_filters


class ResultListPage:
    """Surveys that have results."""

    def __init__(self, console: Console, results: ResultReadings) -> None:
        self._console = console
        self._results = results

    async def on_get(self, req: Request, resp: Response) -> None:
        names = await self._results.list_names()
        surveys = self._console.deployment.surveys
        titles = {name: found.title for name in names.what or () if (found := surveys.current(name))}
        self._console.templates.respond(req, resp, "result_list.html", names=names, titles=titles)


class ResultsPage:
    def __init__(self, console: Console, results: ResultReadings) -> None:
        self._console = console
        self._results = results

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        console, user = self._console, req.context.user
        require_survey_name(name)
        written, problem = WrittenFilters(), ""
        try:
            written = read_form_filters(req)
            now = console.deployment.host.wall_ms()
            filters = read_filters(console.deployment.settings, name, now, written)
        except InvalidFilterError as e:
            resp.status, problem = falcon.HTTP_400, f"{e}."
        language = (req.get_param("texts") or "")[:40]
        page = req.get_param_as_int("page", min_value=0, max_value=1_000, default=0)
        reading = None
        if not problem:
            await console.calls.run(
                console.record_look,
                user,
                "read results",
                name,
                is_new=not is_renewal(req),
                part=str(written),
                filters=audited_filters(filters),
            )
            reading = await self._results.look(name, written, language)
        found = reading.what if reading is not None else None
        sees_numbers = user.may("privacy")
        latest = latest_rows(found, page, sees_numbers=sees_numbers) if found is not None else ()
        console.templates.respond(
            req,
            resp,
            "results.html",
            name=name,
            written=written,
            fields=list(filter_fields(written)),
            problem=problem or (reading.problem if reading is not None else ""),
            is_waited_for=reading is not None and reading.is_waited_for,
            found=found,
            questions=question_views(found, page, sees_numbers=sees_numbers) if found is not None else (),
            archive=describe_archive(found.report.archive) if found is not None else (),
            person_address=lambda number: f"/people/{console.addresses.address_of(number)}",
            latest=latest,
            page=page,
            pages=-(-len(found.report.columns) // QUESTIONS_A_PAGE) if found is not None else 0,
            questions_a_page=QUESTIONS_A_PAGE,
            states=SESSION_STATES,
            channels=list(console.deployment.settings.channels),
            may_export=sees_numbers,
            address=survey_address,
            share=format_share,
            word=readable_word,
            language=language,
        )
