"""What each request must be before a page sees it: for this host, from our own pages if it changes anything, and of someone who has
signed in and may do it. And what each answer says to the browser: which it may run, and that nobody keeps it.

A page that others made can send a form, or a picture's address, to the console in the name of whoever is signed in; a name that
leads to 127.0.0.1 can make a stranger's page one of ours. So `Host` must be ours; and unsafe methods need
`Sec-Fetch-Site: same-origin`, which no page can forge, or where a browser sends none an `Origin` that is ours.
"""

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

import falcon
from falcon.asgi import Request, Response

from config.settings.console_settings import ConsoleRole, ConsoleSettings
from engine.model.errors import ParleyError
from workers.console.blocking_calls import BlockingCalls
from workers.console.sign_in.client_address import ClientAddress, find_client
from workers.console.sign_in.console_sessions import ConsoleSession, ConsoleSessions, ConsoleUser

SAFE_METHODS = ("GET", "HEAD")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_LOCAL_NAME = "localhost"

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class NotSignedInError(ParleyError):
    """Nobody has signed in, or the session is over."""


class RequestGuard:
    """Middleware. A resource says what it takes by its attributes: `role`, what one must be allowed to see it (default
    `viewer`), and `action_role`, what one must be allowed to post to it (default `operator`); `is_public`: nobody needs to
    have signed in."""

    def __init__(self, settings: ConsoleSettings, sessions: ConsoleSessions, calls: BlockingCalls) -> None:
        self._settings = settings
        self._sessions = sessions
        self._calls = calls

    async def process_request(self, req: Request, resp: Response) -> None:
        resp.set_headers(SECURITY_HEADERS)
        if self._settings.is_secure:
            resp.set_header("Strict-Transport-Security", "max-age=31536000")
        if not self._is_our_host(req):
            raise falcon.HTTPForbidden(
                title="This is not the address of this console",
                description=f"It is reached as {self._settings.base_url}; PARLEY_CONSOLE_URL says so.",
            )
        if req.method not in SAFE_METHODS and not self._is_from_our_page(req):
            raise falcon.HTTPForbidden(
                title="This was not sent by a page of this console",
                description="Nothing was done. Open the page here and try again.",
            )

    async def process_resource(
        self, req: Request, resp: Response, resource: object, params: dict[str, Any]
    ) -> None:
        if resource is None or getattr(resource, "is_public", False):
            return
        user = await self.find_user(req)
        if user is None:
            raise NotSignedInError
        req.context.user = user
        wanted: ConsoleRole = (
            getattr(resource, "role", "viewer")
            if req.method in SAFE_METHODS
            else getattr(resource, "action_role", "operator")
        )
        if not user.may(wanted):
            raise falcon.HTTPForbidden(
                title=f"This takes the role {wanted}",
                description=f"{user.name} has {', '.join(user.roles)}.",
            )

    async def find_user(self, req: Request) -> ConsoleUser | None:
        """Return who makes this request: whom a trusted proxy names, or who has the session of its cookie."""
        if (named := self._named_by_proxy(req)) is not None:
            return named
        session = await self.find_session(req)
        return session.user if session else None

    async def find_session(self, req: Request) -> ConsoleSession | None:
        token = self.session_token(req)
        if not token:
            return None
        return await self._calls.run(self._sessions.find, token, browser_of(req))

    def session_token(self, req: Request) -> str:
        return req.cookies.get(self.cookie_name) or ""

    @property
    def cookie_name(self) -> str:
        """`__Host-`: a browser takes it over TLS alone, of this host alone, for all of it."""
        return (
            "__Host-parley-console" if self._settings.is_secure else f"parley-console-{self._settings.port}"
        )

    def set_cookie(self, resp: Response, token: str) -> None:
        set_private_cookie(resp, self.cookie_name, token, is_secure=self._settings.is_secure)

    def unset_cookie(self, resp: Response) -> None:
        set_private_cookie(resp, self.cookie_name, "", is_secure=self._settings.is_secure)

    def client_of(self, req: Request) -> ClientAddress:
        """From where somebody signs in, or tries to."""
        return find_client(self._settings, address_of(req), req.get_header("X-Forwarded-For") or "")

    def _named_by_proxy(self, req: Request) -> ConsoleUser | None:
        if not self._settings.trusts(address_of(req)):
            return None
        name = req.get_header(self._settings.user_header) or ""
        roles = self._settings.users.get(name)
        return ConsoleUser(name, roles) if roles else None

    def _is_our_host(self, req: Request) -> bool:
        return _host_name(req.host) in self._own_names() or _is_loopback(_host_name(req.host))

    def _own_names(self) -> set[str]:
        return {
            _host_name(urlsplit(self._settings.base_url).hostname or ""),
            _host_name(self._settings.host),
            _LOCAL_NAME,
        }

    def _is_from_our_page(self, req: Request) -> bool:
        site = req.get_header("Sec-Fetch-Site")
        if site is not None:
            return site == "same-origin"
        origin = req.get_header("Origin")
        return origin is not None and origin in (self._settings.base_url, f"{req.scheme}://{req.netloc}")


def set_private_cookie(
    resp: Response, name: str, value: str, *, is_secure: bool, max_age_s: int | None = None
) -> None:
    """Set a cookie that no script sees, and that comes with links to us but with no form of others. An empty one is taken away, which a
    browser does with a `__Host-` one only if it is set so too."""
    resp.set_cookie(
        name,
        value,
        path="/",
        max_age=max_age_s,
        expires=None if value else _LONG_AGO,
        secure=is_secure,
        http_only=True,
        same_site="Lax",
    )


def browser_of(req: Request) -> str:
    """What a browser says of itself with each request: another that shows the same cookie says something else."""
    return "\0".join(req.get_header(name) or "" for name in ("User-Agent", "Sec-CH-UA-Platform"))


def address_of(req: Request) -> str:
    """That of the connection, which may be a proxy's."""
    return req.remote_addr or ""


def sign_in_address(req: Request) -> str:
    """Where to sign in, and be brought back from to the page that was asked for."""
    wanted = req.relative_uri if req.method in SAFE_METHODS else "/"
    return f"/sign-in?next={quote(wanted, safe='')}" if wanted != "/" else "/sign-in"


def _host_name(host: str) -> str:
    return host.strip("[]").lower()


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
