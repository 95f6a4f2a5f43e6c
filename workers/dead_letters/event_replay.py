"""Sends events again that an endpoint has refused for good: the very bytes, under the same id, signed anew. If the endpoint
takes one now, its letter goes, and the audit says so; else it stays. By the command itself, so that what came of it is known;
it may come after events that happened later, whose order its `sequence` tells."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import redis

from config.host import THIS_HOST, Host
from config.settings.settings import Settings
from config.store import keyspace, redis_client
from workers.dead_letters.filters import LocatedDeadLetter
from workers.dead_letters.letter_result import LetterResult
from workers.dead_letters.replay_order import ReplayPacer
from workers.hooks.endpoint_client import EndpointClient
from workers.hooks.refused_events import send_again
from workers.store import dead_letter_store
from workers.store.dead_letter_store import DeadLetter, decode_or_placeholder


def is_refused_event(found: LocatedDeadLetter) -> bool:
    return isinstance(found.letter, DeadLetter) and found.letter.kind == "hook"


def preview_event(settings: Settings, letter: DeadLetter) -> LetterResult:
    """What a replay would do with a letter."""
    hook = settings.hooks.get(letter.hook)
    if hook is None:
        return LetterResult(letter.id, "failing", f"parley.toml has no [hooks.{letter.hook}]")
    return LetterResult(letter.id, "delivered", f"to {hook.shown_url}, if it takes it")


def replay_events(
    settings: Settings,
    found: Sequence[LocatedDeadLetter],
    by: str,
    pace: ReplayPacer,
    host: Host = THIS_HOST,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[LetterResult]:
    """Send the events of these letters, one after the other. Raises redis.RedisError; what was yielded before that is done."""
    if not found:
        return
    client = EndpointClient(allow_private=settings.hooks_allow_private, host=host)
    with asyncio.Runner() as runner:
        runner.run(client.__aenter__())
        try:
            for each in found:
                pace.wait_for_permits(1)
                if is_stopping():
                    return
                pace.count_tried(1)
                yield _replay_event(runner, client, settings, each, by)
        finally:
            runner.run(client.__aexit__(None, None, None))


def _replay_event(
    runner: asyncio.Runner, client: EndpointClient, settings: Settings, found: LocatedDeadLetter, by: str
) -> LetterResult:
    letter = _read_letter(found.server, found.k, found.letter.id)
    if letter is None:
        return LetterResult(found.letter.id, "gone")
    reply = runner.run(send_again(client, settings.hooks, letter))
    if reply.outcome != "delivered":
        return LetterResult(letter.id, "failing", reply.sentence)
    (there,) = dead_letter_store.discard(found.server, found.k, [letter.id], by, "delivered")
    return LetterResult(letter.id, "delivered" if there else "gone")


def _read_letter(client: redis.Redis, k: int, identity: str) -> DeadLetter | None:
    """The letter with all that it has; found ones may come without their contents."""
    blob = redis_client.run_command(client, ("HGET", keyspace.dead_letters_key(k), identity))
    return decode_or_placeholder(identity, blob) if blob is not None else None
