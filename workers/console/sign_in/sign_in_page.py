"""Signing in by a one-time link, the way to other ways, signing out, and who is signed in.

A link shows a page with a button, and only that uses the link: programs that look at links beforehand use up none.
"""

from urllib.parse import quote, urlsplit

import falcon
from falcon.asgi import Request, Response

from workers.console.console_state import Console
from workers.console.form_reader import read_form
from workers.console.sign_in.request_guard import browser_of

OIDC_PATH = "/sign-in/oidc"
"""From where a browser is sent to the OpenID provider, if there is one."""

TOO_MANY_TRIES = "Too many tries from your address. Wait five minutes."


class SignInPage:
    is_public = True

    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response) -> None:
        page = own_page(req.get_param("next"))
        if await self._console.guard.find_user(req) is not None:
            raise falcon.HTTPSeeOther(page)
        show_sign_in(self._console, req, resp, page=page, link=req.get_param("link") or "")

    async def on_post(self, req: Request, resp: Response) -> None:
        console = self._console
        form = await read_form(req)
        page = own_page(form.get("next"))
        if not await console.calls.run(console.sessions.may_attempt, console.guard.client_of(req)):
            resp.status = falcon.HTTP_429
            show_sign_in(console, req, resp, TOO_MANY_TRIES, page)
            return
        user = await console.calls.run(console.sessions.use_link, form.get("link", ""))
        if user is None:
            await console.calls.run(console.sessions.count_attempt, console.guard.client_of(req))
            resp.status = falcon.HTTP_403
            show_sign_in(
                console,
                req,
                resp,
                "This link was used already, or is older than ten minutes. "
                "`parley console link` makes another.",
                page,
            )
            return
        await console.calls.run(console.record, user, "sign in", "console", roles=", ".join(user.roles))
        console.guard.set_cookie(resp, await console.calls.run(console.sessions.open, user, browser_of(req)))
        resp.status = falcon.HTTP_303
        resp.location = page


class SignOutPage:
    action_role = "viewer"

    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_post(self, req: Request, resp: Response) -> None:
        console = self._console
        await console.calls.run(console.sessions.close, console.guard.session_token(req))
        console.guard.unset_cookie(resp)
        resp.status = falcon.HTTP_303
        resp.location = "/sign-in"


class SessionsPage:
    """Who is signed in; an operator ends a session."""

    role = "operator"

    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response) -> None:
        console = self._console
        found = await console.calls.run(console.sessions.list_open)
        console.templates.respond(req, resp, "sessions.html", sessions=found)

    async def on_post(self, req: Request, resp: Response) -> None:
        console = self._console
        form = await read_form(req)
        named = form.get("session", "")
        await console.calls.run(
            console.record, req.context.user, "end session", "console", session=named[:12]
        )
        await console.calls.run(console.sessions.revoke, named)
        resp.status = falcon.HTTP_303
        resp.location = "/sessions"


def show_sign_in(
    console: Console, req: Request, resp: Response, problem: str = "", page: str = "/", link: str = ""
) -> None:
    """Answer with the ways to sign in, and to `page` then; with a button for the one-time `link`, if there is one. The provider's is at
    the console's own address, to which it sends browsers back: there they have their cookie."""
    settings = console.deployment.settings.console
    oidc = settings.oidc
    console.templates.respond(
        req,
        resp,
        "sign_in.html",
        link=link,
        next=page,
        problem=problem,
        provider=oidc.shown_name if oidc else "",
        provider_address=f"{settings.base_url}{OIDC_PATH}?next={quote(page, safe='')}",
    )


def own_page(wanted: str | None) -> str:
    """The page to go to: one of this console's, whatever a link says."""
    try:
        parts = urlsplit(wanted or "/")
    except ValueError:
        return "/"
    if parts.scheme or parts.netloc or "\\" in parts.path:
        return "/"
    return f"/{parts.path.lstrip('/')}" + (f"?{parts.query}" if parts.query else "")
