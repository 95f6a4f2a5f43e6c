"""A channel: how it does, and what waits on it; an operator pauses and resumes it, as `parley channel` does."""

from contextlib import closing

import falcon
from falcon.asgi import Request, Response

from config.service.service_view import ChannelService, view_service
from config.telemetry.redis_stats import StatsReader
from workers.console.console_state import Console
from workers.console.form_reader import read_form
from workers.console.pages.pause_form import read_pause_form
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.console.sparkline import sparkline
from workers.store.replication_check import replicated_at_end


class ChannelPage:
    def __init__(self, console: Console) -> None:
        self._console = console

    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        console = self._console
        channel = _require_channel(console, name)
        service = await console.calls.run(read_channel, console, name)
        trend = sparkline(service.pace.by_minute, "Answers in each of the last minutes") if service else ""
        console.templates.respond(
            req, resp, "channel.html", name=name, channel=channel, service=service, trend=trend
        )

    async def on_post(self, req: Request, resp: Response, name: str) -> None:
        console, user = self._console, req.context.user
        _require_channel(console, name)
        form = await read_form(req)
        match form.get("deed"):
            case "pause":
                why, for_ms = read_pause_form(form)
                await console.calls.run(_pause, console, user, name, why, for_ms)
            case "resume":
                await console.calls.run(_resume, console, user, name)
            case _:
                raise falcon.HTTPBadRequest(title="Nothing was asked for")
        raise falcon.HTTPSeeOther(f"/channels/{name}")


def read_channel(console: Console, name: str) -> ChannelService | None:
    """How the channel does; None while the lanes' Redis does not answer."""
    settings = console.deployment.settings
    with closing(StatsReader(settings)) as reader:
        view = view_service(settings, reader.read(with_answers=True))
    return view.channels.get(name) if view else None


def _require_channel(console: Console, name: str) -> object:
    channel = console.deployment.settings.channels.get(name)
    if channel is None:
        raise falcon.HTTPNotFound(description="No channel is called so.")
    return channel


def _pause(console: Console, user: ConsoleUser, name: str, why: str, for_ms: int | None) -> None:
    console.record(user, "pause channel", name, why=why)
    with replicated_at_end(console.deployment) as deployment:
        deployment.channel_store().pause(name, why, for_ms, who=user.name)


def _resume(console: Console, user: ConsoleUser, name: str) -> None:
    """End the pause, and bring forward what waits, at the channel's rate."""
    console.record(user, "resume channel", name)
    with replicated_at_end(console.deployment) as deployment:
        deployment.channel_store().resume(name)
        rate = deployment.settings.channels[name].limits.sms_per_second
        deployment.outbox_store().bring_forward(name, rate)
