"""Signing in by the OpenID provider: the way there, and the way back.

Both are links that a browser follows, so that another site can lead there too: by that nobody is signed in but who has signed in at the
provider, in the browser that began here (oidc_sign_ins.py).
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import falcon
import falcon.asgi
import structlog
from falcon.asgi import Request, Response

from config.settings.console_settings import ConsoleSettings
from config.settings.oidc_settings import CALLBACK_PATH, OidcSettings
from workers.console.console_state import Console
from workers.console.sign_in.console_sessions import TOKEN_BYTES, ConsoleUser
from workers.console.sign_in.oidc_errors import OidcRefusedError, OidcUnavailableError
from workers.console.sign_in.oidc_provider import OidcProvider
from workers.console.sign_in.oidc_sign_ins import SIGN_IN_MS, OidcSignIn, OidcSignIns
from workers.console.sign_in.oidc_user import user_of_claims, wanted_claims
from workers.console.sign_in.request_guard import browser_of, set_private_cookie
from workers.console.sign_in.sign_in_page import OIDC_PATH, TOO_MANY_TRIES, own_page, show_sign_in

log = structlog.get_logger()

PROVIDER_CALLS = 2
"""Who may wait for the provider at once: the other threads are for pages, whatever the provider does."""

NOT_BEGUN = (
    "This sign-in was not begun in this browser, is over already, or took longer than ten minutes. "
    "Begin again."
)

Answer = TypeVar("Answer")


class OidcGate:
    """What both pages have: the provider, who is under way, and the cookie by which a browser is known until it is back."""

    def __init__(self, console: Console, settings: ConsoleSettings, oidc: OidcSettings) -> None:
        host = console.deployment.host
        self.console, self.settings, self.oidc = console, settings, oidc
        self.provider = OidcProvider(oidc, settings.callback_url, wanted_claims(settings, oidc), host)
        self.sign_ins = OidcSignIns(console.deployment.lanes, host)
        self._turns = asyncio.Semaphore(PROVIDER_CALLS)

    async def ask(self, call: Callable[..., Answer], *args: object) -> Answer:
        """Run what asks the provider, when it is its turn."""
        async with self._turns:
            return await self.console.calls.run(call, *args)

    @property
    def cookie_name(self) -> str:
        return "__Host-parley-oidc" if self.settings.is_secure else f"parley-oidc-{self.settings.port}"

    def browser_token(self, req: Request) -> str:
        """The token of the cookie, if it is one."""
        token = req.cookies.get(self.cookie_name) or ""
        return token if len(token) == 2 * TOKEN_BYTES and token.isalnum() and token.isascii() else ""

    def set_cookie(self, resp: Response, token: str) -> None:
        """It comes back though it is the provider's page that leads here. Nothing takes it away before its time: without a sign-in
        under way it is worth nothing, and with another in a second window it is needed."""
        set_private_cookie(
            resp, self.cookie_name, token, is_secure=self.settings.is_secure, max_age_s=SIGN_IN_MS // 1_000
        )

    def show_unavailable(self, req: Request, resp: Response, error: OidcUnavailableError, page: str) -> None:
        log.warning("the OpenID provider cannot be used", why=str(error))
        resp.status = falcon.HTTP_503
        problem = f"{error}. Try again later, or sign in by a link of `parley console link`."
        show_sign_in(self.console, req, resp, problem, page)


class OidcStartPage:
    """Sends the browser to the provider."""

    is_public = True

    def __init__(self, gate: OidcGate) -> None:
        self._gate = gate

    async def on_get(self, req: Request, resp: Response) -> None:
        gate, console = self._gate, self._gate.console
        page = own_page(req.get_param("next"))
        if await console.guard.find_user(req) is not None:
            raise falcon.HTTPSeeOther(page)
        client = console.guard.client_of(req)
        if not (
            await console.calls.run(console.sessions.may_attempt, client)
            and await console.calls.run(gate.sign_ins.may_begin, client)
        ):
            resp.status = falcon.HTTP_429
            show_sign_in(console, req, resp, TOO_MANY_TRIES, page)
            return
        begun = await console.calls.run(gate.sign_ins.begin, gate.oidc.issuer, gate.browser_token(req), page)
        try:
            resp.location = await gate.ask(gate.provider.authorization_url, begun)
        except OidcUnavailableError as e:
            gate.show_unavailable(req, resp, e, page)
            return
        gate.set_cookie(resp, begun.browser)
        resp.status = falcon.HTTP_303


class OidcCallbackPage:
    """Where the provider sends the browser back to."""

    is_public = True

    def __init__(self, gate: OidcGate) -> None:
        self._gate = gate

    async def on_get(self, req: Request, resp: Response) -> None:
        gate, console = self._gate, self._gate.console
        if not await console.calls.run(console.sessions.may_attempt, console.guard.client_of(req)):
            resp.status = falcon.HTTP_429
            show_sign_in(console, req, resp, TOO_MANY_TRIES)
            return
        state = req.get_param("state") or ""
        sign_in = await console.calls.run(
            gate.sign_ins.finish, gate.oidc.issuer, state, gate.browser_token(req)
        )
        if sign_in is None:  # any page leads a browser here: nothing was tried, as nobody guesses a state
            resp.status = falcon.HTTP_403
            show_sign_in(console, req, resp, NOT_BEGUN)
            return
        page = sign_in.page
        try:
            user = await self._find_user(req, sign_in)
        except OidcRefusedError as e:
            await self._refuse(req, resp, e, page)
            return
        except OidcUnavailableError as e:
            gate.show_unavailable(req, resp, e, page)
            return
        roles = ", ".join(user.roles)
        await console.calls.run(console.record, user, "sign in", "console", roles=roles, by=gate.oidc.issuer)
        console.guard.set_cookie(resp, await console.calls.run(console.sessions.open, user, browser_of(req)))
        resp.status = falcon.HTTP_303
        resp.location = page

    async def _find_user(self, req: Request, sign_in: OidcSignIn) -> ConsoleUser:
        gate = self._gate
        code = req.get_param("code")
        if not code:
            raise OidcRefusedError(
                f"{gate.oidc.shown_name} has not signed you in ({_error_code(req)}). Begin again, or ask "
                "whoever runs it."
            )
        claims = await gate.ask(gate.provider.claims_of, code, req.get_param("iss"), sign_in)
        return user_of_claims(gate.settings, gate.oidc, claims)

    async def _refuse(self, req: Request, resp: Response, error: OidcRefusedError, page: str) -> None:
        """Say why, here and in the audit, and count it."""
        gate, console = self._gate, self._gate.console
        await console.calls.run(console.sessions.count_attempt, console.guard.client_of(req))
        nobody = ConsoleUser(error.name or "(unknown)", ())
        await console.calls.run(
            console.record, nobody, "refused sign-in", "console", why=str(error), by=gate.oidc.issuer
        )
        resp.status = falcon.HTTP_403
        show_sign_in(console, req, resp, str(error), page)


def add_oidc_routes(app: falcon.asgi.App[Request, Response], console: Console, oidc: OidcSettings) -> None:
    gate = OidcGate(console, console.deployment.settings.console, oidc)
    app.add_route(OIDC_PATH, OidcStartPage(gate))
    app.add_route(CALLBACK_PATH, OidcCallbackPage(gate))


def _error_code(req: Request) -> str:
    """What went wrong there (RFC 6749, section 4.1.2.1), if that is a word as it should be."""
    code = req.get_param("error") or ""
    return code if code.isascii() and code.replace("_", "").isalnum() and len(code) <= 100 else "no reason"
