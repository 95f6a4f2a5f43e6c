"""`GET /v1/surveys`, `/v1/surveys/<survey>/funnel` and `/v1/surveys/<survey>/codebook`: what there is to be read, where people
leave, and what answers mean. None of it is about one person, so the audit is not told."""

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import UNSET
from sqlalchemy import Connection

from config.archive.funnel import Funnel, read_funnel
from config.archive.result_filters import require_steps
from config.archive.survey_overview import SurveyOverview, read_survey_overviews
from config.archive.surveys_kept import read_surveys
from config.settings.channels import ApiKey
from engine.codebook.codebook import Codebook, build_codebook
from engine.surveys.program import Survey
from ingest.api.archive_access import ArchiveAccess
from ingest.api.archived_view import SurveyList, SurveyView, VersionView
from ingest.api.invitation_parser import utc_datetime
from ingest.api.query_parameters import QueryParameters
from ingest.api.session_lists import FILTER_PARAMETERS, read_filters


class SurveysResource:
    """`/v1/surveys`."""

    def __init__(self, access: ArchiveAccess) -> None:
        self._access = access

    async def on_get(self, req: Request, resp: Response) -> None:
        key = await self._access.authenticate(req)
        QueryParameters(req, ()).require_valid()

        def read_list(connection: Connection) -> SurveyList:
            kept = read_survey_overviews(connection, self._access.channels_of(key))
            names = sorted({*self._access.offered_surveys(key), *filter(key.is_for_survey, kept)})
            return SurveyList(
                surveys=[
                    self._view(connection, key, name, kept.get(name, SurveyOverview())) for name in names
                ]
            )

        _write_document(resp, await self._access.read_archive(read_list))

    def _view(self, connection: Connection, key: ApiKey, name: str, kept: SurveyOverview) -> SurveyView:
        current = self._access.surveys.current(name)
        described = current or _newest_survey(connection, name)
        versions = [
            VersionView(
                version=each.version,
                first_at=utc_datetime(each.first_at) if each.first_at else UNSET,
                current=current is not None and each.version == current.version,
            )
            for each in kept.versions
        ]
        if current is not None and not any(each.current for each in versions):
            versions.append(VersionView(version=current.version, current=True))
        channels = self._access.settings.channels
        return SurveyView(
            name=name,
            title=described.title if described else "",
            languages=described.languages if described else (),
            channels=[each for each in self._access.channels_of(key) if name in channels[each].surveys],
            versions=versions,
            sessions=kept.sessions,
        )


class FunnelResource:
    """`/v1/surveys/<survey>/funnel`."""

    def __init__(self, access: ArchiveAccess) -> None:
        self._access = access

    async def on_get(self, req: Request, resp: Response, survey: str) -> None:
        key = await self._access.authenticate(req)
        query = QueryParameters(req, FILTER_PARAMETERS)
        filters = read_filters(query, survey, self._access.channels_of(key), self._access.host.wall_ms())
        query.require_valid()

        def read_counts(connection: Connection) -> Funnel:
            require_steps(connection, filters, self._access.known_steps(survey))
            return read_funnel(connection, filters)

        _write_document(resp, await self._access.read(key, survey, read_counts))


class CodebookResource:
    """`/v1/surveys/<survey>/codebook`."""

    def __init__(self, access: ArchiveAccess) -> None:
        self._access = access

    async def on_get(self, req: Request, resp: Response, survey: str) -> None:
        key = await self._access.authenticate(req)
        QueryParameters(req, ()).require_valid()

        def read_codebook(connection: Connection) -> Codebook:
            return build_codebook(self._all_versions(connection, survey), name=survey)

        _write_document(resp, await self._access.read(key, survey, read_codebook))

    def _all_versions(self, connection: Connection, survey: str) -> list[Survey]:
        """Those that the archive has, and the current one, on which no session may have opened yet."""
        versions = read_surveys(connection, survey)
        current = self._access.surveys.current(survey)
        if current is not None and all(each.version != current.version for each in versions):
            versions.append(current)
        return versions


_encode = msgspec.json.Encoder().encode


def _write_document(resp: Response, document: msgspec.Struct) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = _encode(document)


def _newest_survey(connection: Connection, name: str) -> Survey | None:
    versions = read_surveys(connection, name)
    return versions[-1] if versions else None
