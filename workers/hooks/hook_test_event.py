"""Sends an endpoint one event of the type `hook.test`, as `hooks` would. Nothing is stored, and its position stays."""

from config.host import THIS_HOST, Host
from config.settings.hooks import Hook
from config.settings.settings import Settings
from engine.hooks.cloud_events import render_test_event
from workers.hooks.endpoint_client import EndpointClient, HookReply, RenderedEvent


async def send_test_event(settings: Settings, hook: Hook, host: Host = THIS_HOST) -> HookReply:
    """Return what it answers."""
    identity = host.token_hex(16)
    body = render_test_event(identity, hook.name, host.wall_ms(), settings.public_url)
    async with EndpointClient(allow_private=settings.hooks_allow_private, host=host) as client:
        return await client.post(hook, [RenderedEvent(identity, body)])
