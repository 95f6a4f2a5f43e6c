"""The endpoints that are told what happens: what `parley hooks list` says; an operator tries, pauses and resumes one."""

from contextlib import closing

import falcon
import msgspec
from falcon.asgi import Request, Response

from config.settings.hooks import Hook
from config.telemetry.hook_stats import HookStats
from config.telemetry.redis_stats import RedisStats, StatsReader
from workers.console.console_state import Console, actor_name
from workers.console.form_reader import read_form
from workers.console.pages.pause_form import read_pause_form
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.hooks.hook_store import HookStore
from workers.hooks.hook_test_event import send_test_event
from workers.hooks.hook_wording import behind_words, hook_state, hook_state_sentence, reply_sentence
from workers.store.replication_check import replicated_at_end


class HookLine(msgspec.Struct, frozen=True):
    """An endpoint as the page shows it; `is_told`: nothing is in its way."""

    hook: Hook
    behind: str
    state: str
    is_told: bool
    is_paused: bool


class HooksPage:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._show(req, resp, "")

    async def on_post(self, req: Request, resp: Response) -> None:
        """Do what a form asks for, and show the page again; what a test came to is on it."""
        console, user = self._console, req.context.user
        form = await read_form(req)
        hook = console.deployment.settings.hooks.get(form.get("hook", ""))
        if hook is None:
            raise falcon.HTTPNotFound(description="No endpoint is called so.")
        match form.get("deed"):
            case "test":
                await console.calls.run(console.record, user, "test hook", hook.name)
                reply = await send_test_event(console.deployment.settings, hook)
                await self._show(req, resp, f"{hook.name}: {reply_sentence(hook, reply)}")
                return
            case "pause":
                why, for_ms = read_pause_form(form)
                await console.calls.run(_pause, console, user, hook.name, why, for_ms)
            case "resume":
                await console.calls.run(_resume, console, user, hook.name)
            case _:
                raise falcon.HTTPBadRequest(title="Nothing was asked for")
        raise falcon.HTTPSeeOther("/hooks")

    async def _show(self, req: Request, resp: Response, told: str) -> None:
        lines = await self._console.calls.run(read_hook_lines, self._console)
        self._console.templates.respond(req, resp, "hooks.html", hooks=lines, told=told)


def read_hook_lines(console: Console) -> list[HookLine]:
    settings = console.deployment.settings
    with closing(StatsReader(settings)) as reader:
        found = reader.read()
    return [_hook_line(settings.hooks[name], stats, found) for name, stats in found.hooks.items()]


def _hook_line(hook: Hook, stats: HookStats, found: RedisStats) -> HookLine:
    state = hook_state(stats)
    sentence = hook_state_sentence(stats, found.lanes.now)
    return HookLine(hook, behind_words(stats), sentence, state == "told", state == "paused")


def _pause(console: Console, user: ConsoleUser, name: str, why: str, for_ms: int | None) -> None:
    console.record(user, "pause hook", name, why=why)
    with replicated_at_end(console.deployment) as deployment:
        HookStore(deployment.lanes, actor_name(user)).pause(name, why, user.name, for_ms)


def _resume(console: Console, user: ConsoleUser, name: str) -> None:
    console.record(user, "resume hook", name)
    with replicated_at_end(console.deployment) as deployment:
        HookStore(deployment.lanes, actor_name(user)).resume(name)
