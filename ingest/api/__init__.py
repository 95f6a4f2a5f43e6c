"""The API: invitations in, sessions and results out. Its routes, and what they need of the world."""

from http import HTTPStatus
from typing import TYPE_CHECKING

from falcon.asgi import Request, Response

from config.connections.redis_failures import failure_clause
from config.host import THIS_HOST, Host
from config.settings.settings import Settings
from engine.surveys.survey_registry import SurveyRegistry
from ingest.api import problems
from ingest.api.archive_access import ArchiveAccess
from ingest.api.archive_reader import ArchiveReader
from ingest.api.authentication import ApiAuthenticator
from ingest.api.backlog import InvitationIntake, InvitationQueue
from ingest.api.campaigns.campaign_reader import CampaignReader
from ingest.api.campaigns.campaign_resources import CampaignByName, LatestCampaigns
from ingest.api.description import OpenApiResource
from ingest.api.invitation_parser import InvitationParser
from ingest.api.invitations import InvitationsResource
from ingest.api.problems import ApiError
from ingest.api.read_audit import ReadAudit
from ingest.api.session_lists import RESULTS, SESSIONS, SessionListResource
from ingest.api.sessions import SessionAccess, SessionArchive, SessionById, SessionByReference
from ingest.api.survey_resources import CodebookResource, FunnelResource, SurveysResource
from ingest.intake.known_refusals import KnownRefusals
from ingest.intake.mailboxes import AsyncRedisClient, MailboxWriter, RedisUnavailableError

if TYPE_CHECKING:
    import falcon.asgi

RETRY_AFTER_S = "1"


async def _redis_unavailable(
    _req: Request, _resp: Response | None, error: BaseException, _params: dict[str, object]
) -> None:
    title = error.title if isinstance(error, RedisUnavailableError) else f"Redis {failure_clause(error)}"
    raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, title, headers={"Retry-After": RETRY_AFTER_S}) from error


def add_routes(
    app: "falcon.asgi.App[Request, Response]",
    settings: Settings,
    surveys: SurveyRegistry,
    lanes: AsyncRedisClient,
    mailboxes: MailboxWriter,
    reader: ArchiveReader,
    host: Host = THIS_HOST,
) -> None:
    """Add the API's routes, and have its errors said as problems."""
    doorman = ApiAuthenticator(settings.keys, lanes)
    desk = InvitationParser(settings, surveys, host)
    archive = SessionArchive(settings, lanes, reader, host)
    audit = ReadAudit(lanes, host)
    sessions = SessionAccess(settings, doorman, archive, mailboxes, audit, reader, host)
    access = ArchiveAccess(settings, surveys, doorman, reader, audit, host)
    app.set_error_serializer(problems.serialize_error)
    app.add_error_handler(RedisUnavailableError, _redis_unavailable)
    invitations = InvitationsResource(
        doorman,
        desk,
        InvitationIntake(settings.shards, lanes),
        InvitationQueue(settings, lanes, host),
        KnownRefusals(settings, surveys, lanes, host),
        archive,
    )
    app.add_route("/v1/surveys/{survey}/invitations", invitations)
    app.add_route("/v1/surveys/{survey}/invitations/many", invitations, suffix="many")
    app.add_route("/v1/surveys/{survey}/invitations/dry-run", invitations, suffix="dry_run")
    campaigns = CampaignReader(settings, surveys, lanes, host)
    app.add_route("/v1/campaigns", LatestCampaigns(doorman, campaigns))
    app.add_route("/v1/campaigns/{campaign:path}", CampaignByName(doorman, campaigns))
    app.add_route("/v1/surveys", SurveysResource(access))
    app.add_route("/v1/surveys/{survey}/results", SessionListResource(access, RESULTS))
    app.add_route("/v1/surveys/{survey}/sessions", SessionListResource(access, SESSIONS))
    app.add_route("/v1/surveys/{survey}/funnel", FunnelResource(access))
    app.add_route("/v1/surveys/{survey}/codebook", CodebookResource(access))
    app.add_route("/v1/sessions", SessionByReference(sessions))
    app.add_route("/v1/sessions/{session}", SessionById(sessions))
    app.add_route("/v1/openapi.json", OpenApiResource())
