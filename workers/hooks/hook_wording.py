"""How an endpoint does, and what it answered to a test, in words."""

from typing import Literal

from config.settings.hooks import Hook
from config.telemetry.hook_stats import HookStats
from engine.model.durations import format_duration
from workers.hooks.endpoint_client import HookReply

HookState = Literal["told", "paused", "failing", "unheld"]


def hook_state(stats: HookStats) -> HookState:
    """`told`; or why it is not: `paused` by an operator, `failing` with an open circuit, `unheld` by any process."""
    if stats.pause is not None:
        return "paused"
    if stats.circuit.is_open:
        return "failing"
    return "told" if stats.owner else "unheld"


def hook_state_sentence(stats: HookStats, now: int) -> str:
    """Say the same, with whose pause it is and what the endpoint answered. `now` is the server's ms."""
    match hook_state(stats):
        case "paused":
            pause = stats.pause
            return f"paused by {pause.who or 'an operator'}: {pause.why}" if pause is not None else "paused"
        case "failing":
            since = format_duration(max(0, now - stats.circuit.since))
            return f"failing for {since}: {stats.circuit.why}"
        case "unheld":
            return "no process has it: is `hooks` running?"
        case "told":
            return f"told; failed last: {stats.circuit.why}" if stats.circuit.why else "told"


def behind_words(stats: HookStats) -> str:
    return format_duration(stats.lag_ms) if stats.lag_ms else "-" if stats.is_begun else "not begun"


def reply_sentence(hook: Hook, reply: HookReply) -> str:
    """Say what a test came to."""
    match reply.outcome:
        case "delivered":
            return f"{hook.shown_url} took it ({reply.status}) in {reply.took_ms} ms."
        case "refused":
            meaning = "of an event, that is a dead letter"
            return f"{hook.shown_url} refused it for good ({reply.sentence}): {meaning}."
        case "failed":
            return f"{hook.shown_url} did not take it ({reply.sentence}): an event would be tried again."
