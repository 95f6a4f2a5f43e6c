"""What one who looks is told where something is not as it should be: no such page, no right, no Redis, a mistake of ours."""

import falcon
import falcon.asgi
import redis
import structlog
from falcon.asgi import Request, Response

from config.connections.redis_failures import failure_clause
from workers.console.console_state import Console
from workers.console.sign_in.request_guard import NotSignedInError, sign_in_address
from workers.store.replication_check import NotConfirmedError

log = structlog.get_logger()

RETRY_AFTER_S = 2


def add_error_pages(app: falcon.asgi.App[Request, Response], console: Console) -> None:
    async def sign_in_first(
        req: Request, resp: Response, _error: BaseException, _params: dict[str, object]
    ) -> None:
        if req.get_header("HX-Request"):
            resp.status, resp.text = falcon.HTTP_401, "The session is over."
            resp.set_header("HX-Redirect", sign_in_address(req))
        elif req.client_accepts("text/event-stream") and not req.client_accepts_xml:
            resp.status = falcon.HTTP_401
        else:
            raise falcon.HTTPSeeOther(sign_in_address(req))

    async def show_problem(
        req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, object]
    ) -> None:
        _respond_problem(req, resp, error.status, error.title or "", error.description or "")

    async def show_not_found(
        req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, object]
    ) -> None:
        _respond_problem(req, resp, falcon.HTTP_404, "There is no such page", error.description or "")

    async def show_redis_failure(
        req: Request, resp: Response, error: BaseException, _params: dict[str, object]
    ) -> None:
        resp.set_header("Retry-After", str(RETRY_AFTER_S))
        _respond_problem(
            req,
            resp,
            falcon.HTTP_503,
            f"Redis {failure_clause(error)}",
            f"{type(error).__name__}. `parley status` says more; this page works again as soon as it does.",
        )

    async def show_uncertain(
        req: Request, resp: Response, error: BaseException, _params: dict[str, object]
    ) -> None:
        _respond_problem(req, resp, falcon.HTTP_503, "It is done, but may be lost", f"{error}.")

    async def show_bug(
        req: Request, resp: Response, error: BaseException, _params: dict[str, object]
    ) -> None:
        log.error("a page failed", path=req.uri_template, exc_info=error)
        _respond_problem(
            req,
            resp,
            falcon.HTTP_500,
            "This page has failed",
            "The console's log says why. Nothing else is affected.",
        )

    def _respond_problem(
        req: Request, resp: Response, status: str | int, title: str, description: str
    ) -> None:
        resp.status = status
        console.templates.respond(req, resp, "problem.html", title=title, description=description)

    app.add_error_handler(Exception, show_bug)
    app.add_error_handler(redis.RedisError, show_redis_failure)
    app.add_error_handler(NotConfirmedError, show_uncertain)
    app.add_error_handler(falcon.HTTPError, show_problem)
    app.add_error_handler(falcon.HTTPNotFound, show_not_found)
    app.add_error_handler(NotSignedInError, sign_in_first)
