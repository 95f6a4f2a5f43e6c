"""Results as a file, by a link: what `parley export` writes, sent as it is written."""

import falcon
from falcon.asgi import Request, Response
from sqlalchemy.exc import SQLAlchemyError

from config.archive.database import describe_failure
from config.archive.result_filters import InvalidFilterError
from workers.console.console_archive import ArchiveAwayError
from workers.console.console_state import Console
from workers.console.results.result_form import read_form_filters, require_survey_name
from workers.console.results.result_stream import CONTENT_TYPES, ExportRequest, ExportRunner
from workers.results.written_filters import audited_filters


class ExportPage:
    role = "privacy"

    def __init__(self, console: Console, runner: ExportRunner) -> None:
        self._console = console
        self._runner = runner

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        console, runner = self._console, self._runner
        require_survey_name(name)
        if req.get_header("Sec-Fetch-Site", default="none") not in ("none", "same-origin"):
            raise falcon.HTTPForbidden(
                title="This was not asked for by a page of this console", description="Nothing was read."
            )
        if runner.is_full:
            raise falcon.HTTPServiceUnavailable(
                title="Others are exporting", description="Try again in a minute.", retry_after=60
            )
        try:
            wanted = self._read_request(req, name)
            filters = await console.calls.run(runner.require_sense, wanted)
        except InvalidFilterError as e:
            raise falcon.HTTPBadRequest(title="There is no such export", description=f"{e}.") from e
        except ArchiveAwayError as e:
            raise falcon.HTTPServiceUnavailable(title="Nothing to export", description=f"{e}.") from e
        except SQLAlchemyError as e:
            raise falcon.HTTPServiceUnavailable(
                title="The archive failed", description=describe_failure(e)
            ) from e
        await console.calls.run(
            console.record, req.context.user, "export", name,
            filters=audited_filters(filters), numbers=wanted.numbers, format=wanted.form,
        )  # fmt: skip
        resp.content_type = CONTENT_TYPES[wanted.form]
        resp.downloadable_as = f"{name}.{wanted.form}"
        resp.stream = runner.stream(wanted)

    def _read_request(self, req: Request, name: str) -> ExportRequest:
        form = next((each for each in CONTENT_TYPES if each == (req.get_param("format") or "csv")), None)
        if form is None:
            raise InvalidFilterError(f"expected a format, one of {', '.join(CONTENT_TYPES)}")
        return ExportRequest(
            survey=name,
            written=read_form_filters(req),
            form=form,
            long=bool(req.get_param("long")),
            numbers=bool(req.get_param("numbers")),
            raw=bool(req.get_param("raw")),
            language=(req.get_param("labels") or "")[:40],
        )
