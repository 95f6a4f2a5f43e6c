"""The API: invitations in, sessions out. Its routes, and what they need of the world."""

from http import HTTPStatus
from typing import TYPE_CHECKING

from falcon.asgi import Request, Response

from config.settings.settings import Settings
from engine.surveys.survey_registry import Surveys
from ingest.api import problems
from ingest.api.authentication import Doorman
from ingest.api.backlog import Backlog
from ingest.api.description import Description
from ingest.api.invitation_parser import Desk
from ingest.api.invitations import Invitations
from ingest.api.problems import ApiError
from ingest.api.sessions import Archive, SessionById, SessionByReference, Sessions
from ingest.intake.mailboxes import Mailboxes, Store, Unwritten

if TYPE_CHECKING:
    import falcon.asgi

RETRY_AFTER_S = "1"


async def _later(
    _req: Request, _resp: Response | None, error: BaseException, _params: dict[str, object]
) -> None:
    raise ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE, "Redis does not answer", headers={"Retry-After": RETRY_AFTER_S}
    ) from error


def mount(
    app: "falcon.asgi.App[Request, Response]",
    settings: Settings,
    surveys: Surveys,
    lanes: Store,
    mailboxes: Mailboxes,
) -> None:
    """Add the API's routes, and have its errors said as problems."""
    doorman = Doorman(settings.keys, lanes)
    desk = Desk(settings, surveys)
    sessions = Sessions(settings, doorman, Archive(settings, lanes), mailboxes)
    app.set_error_serializer(problems.serialize)
    app.add_error_handler(Unwritten, _later)
    app.add_route(
        "/v1/surveys/{survey}/invitations", Invitations(doorman, desk, Backlog(settings.shards, lanes))
    )
    app.add_route("/v1/sessions", SessionByReference(sessions))
    app.add_route("/v1/sessions/{session}", SessionById(sessions))
    app.add_route("/v1/openapi.json", Description())
