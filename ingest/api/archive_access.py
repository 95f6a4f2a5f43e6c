"""Who may read what of the archive? What the resources that read it share: keys, surveys, filters, and the audit."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TypeVar

from falcon.asgi import Request
from sqlalchemy import Connection

from config.archive.result_filters import InvalidFilterError
from config.archive.survey_overview import archived_surveys, has_sessions
from config.host import THIS_HOST, Host
from config.settings.channels import ApiKey
from config.settings.settings import Settings
from engine.model.suggestions import expected_instead
from engine.surveys.survey_registry import SurveyRegistry
from ingest.api.archive_reader import ArchiveReader
from ingest.api.authentication import ApiAuthenticator
from ingest.api.problems import ApiError
from ingest.api.read_audit import ReadAudit

T = TypeVar("T")


class ArchiveAccess:
    """What requests that read the archive have at hand."""

    def __init__(
        self,
        settings: Settings,
        surveys: SurveyRegistry,
        doorman: ApiAuthenticator,
        reader: ArchiveReader,
        audit: ReadAudit,
        host: Host = THIS_HOST,
    ) -> None:
        self.settings = settings
        self.surveys = surveys
        self.audit = audit
        self.host = host
        self._authenticator = doorman
        self._reader = reader

    async def authenticate(self, req: Request) -> ApiKey:
        return await self._authenticator.authenticate(req)

    def channels_of(self, key: ApiKey) -> list[str]:
        return [name for name in self.settings.channels if name in key.channels]

    def offered_surveys(self, key: ApiKey) -> list[str]:
        """The surveys that channels of this key offer, of those that it is for."""
        offered = {name for each in self.channels_of(key) for name in self.settings.channels[each].surveys}
        return sorted(name for name in offered if key.is_for_survey(name))

    def known_steps(self, survey: str) -> list[str]:
        """The steps of the survey as it is now; older ones are looked for among the answers."""
        current = self.surveys.current(survey)
        return [step.id for step in current.steps] if current else []

    async def read(self, key: ApiKey, survey: str, read_survey: Callable[[Connection], T]) -> T:
        """What `read_survey` makes of the archive, where the key may see the survey. Raises ApiError: the 404, the 400 of a
        filter that is of no use, and the 503 of an archive that does not answer."""

        def read_if_known(connection: Connection) -> T:
            self._require_survey(connection, key, survey)
            return read_survey(connection)

        return await self.read_archive(read_if_known)

    async def read_archive(self, read: Callable[[Connection], T]) -> T:
        try:
            return await self._reader.run(read)
        except InvalidFilterError as e:
            raise ApiError(HTTPStatus.BAD_REQUEST, "wrong parameters", str(e)) from e

    def _require_survey(self, connection: Connection, key: ApiKey, survey: str) -> None:
        offered = self.offered_surveys(key)
        if survey in offered:
            return
        channels = self.channels_of(key)
        if key.is_for_survey(survey) and "\0" not in survey and has_sessions(connection, survey, channels):
            return
        kept = [name for name in archived_surveys(connection, channels) if key.is_for_survey(name)]
        raise ApiError(HTTPStatus.NOT_FOUND, "no such survey", _unknown_survey(survey, [*offered, *kept]))


def _unknown_survey(survey: str, known: Sequence[str]) -> str:
    return f"none that this key may see is called so{expected_instead(survey, dict.fromkeys(known), ' or ')}"
