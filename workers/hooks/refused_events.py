"""An event that an endpoint refused for good becomes a dead letter, with the endpoint's answer; and an operator may have it
sent again. It lies with the other dead letters of its person, by which it is found, and by which it is erased."""

from collections.abc import Mapping
from hashlib import blake2b

import msgspec
import redis

from config.settings.hooks import Hook
from config.store import keyspace, redis_client
from config.store.dead_letter_reasons import DeadLetterReason
from config.store.function_calls import function_call
from config.store.server_functions import AddDeadLetter
from engine.hooks.hook_events import HookEvent
from workers.hooks.endpoint_client import EndpointClient, HookReply, RenderedEvent
from workers.store.dead_letter_store import DeadLetter, FailedAttempt, encode_dead_letter

ENDPOINT_REFUSED: DeadLetterReason = "endpoint_refused"


def refused_event_letter(
    hook: str, event: HookEvent, rendered: RenderedEvent, reply: HookReply, at: int
) -> DeadLetter:
    """The letter of an event that the endpoint `hook` refused at `at` (ms): the same, however often it is made."""
    code = str(reply.status)
    return DeadLetter(
        id=blake2b(f"{hook}\0{event.id}".encode(), digest_size=8, person=b"parley refusal").hexdigest(),
        kind="hook",
        reason=ENDPOINT_REFUSED,
        sender=event.sender,
        at=at,
        attempts=1,
        what=rendered.body,
        channel=event.channel,
        session=event.session,
        survey=event.survey,
        code=code,
        why=reply.sentence,
        tries=[FailedAttempt(at, code, reply.sentence)],
        since=at,
        hook=hook,
    )


def put_aside(client: redis.Redis, shards: int, letter: DeadLetter) -> None:
    """Store a letter; again, it is as it was. Raises redis.RedisError."""
    k = keyspace.shard_of(letter.sender, shards)
    encoded = encode_dead_letter(letter)
    call = AddDeadLetter(
        dead_letters=keyspace.dead_letters_key(k),
        dead_letter_index=keyspace.dead_letter_index_key(k),
        dead_letter_reasons=keyspace.dead_letter_reasons_key(k),
        id=encoded.id,
        content=encoded.content,
    )
    redis_client.run_command(client, function_call(call))


class _EventHead(msgspec.Struct):
    """The id of a CloudEvent."""

    id: str


def event_of_letter(letter: DeadLetter) -> RenderedEvent:
    """The event as it was sent. Raises msgspec.MsgspecError."""
    return RenderedEvent(msgspec.json.decode(letter.what, type=_EventHead).id, letter.what)


async def send_again(client: EndpointClient, hooks: Mapping[str, Hook], letter: DeadLetter) -> HookReply:
    """Send the event of a letter to its endpoint, alone."""
    hook = hooks.get(letter.hook)
    if hook is None:
        return HookReply(outcome="failed", why=f"parley.toml has no [hooks.{letter.hook}]")
    try:
        event = event_of_letter(letter)
    except msgspec.MsgspecError as e:
        return HookReply(outcome="failed", why=f"this letter holds no event: {e}")
    return await client.post(hook, [event])
