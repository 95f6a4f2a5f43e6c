"""Webhooks as nobody would send them: recorded ones, broken at random, the same ones in every run.

Half of them are signed again after they were broken, so that what is behind the signature gets its share. Whatever
comes, a provider refuses it, or reads it into events that every later part of Parley can store and take apart again.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote_from_bytes

import msgspec

from engine.model.events import (
    MOST_ATTACHMENTS,
    DeliveryReceipt,
    InboundEvent,
    InboundSms,
    SmsPart,
    decode_inbound,
    encode_event,
)
from engine.providers import (
    LONGEST_MEDIA_TYPE,
    LONGEST_MEDIA_URL,
    MOST_COST,
    MOST_SEGMENTS,
    ForgedWebhookError,
    Provider,
    UnreadableWebhookError,
    WebhookCall,
)
from tests.support.example_counts import examples

ASCII = bytes(range(128))
MOST = 100_000
MOST_BY_APP = 3_000
SEED = 4

App = Callable[..., Awaitable[None]]
Sign = Callable[[WebhookCall], WebhookCall]
"""What makes a call genuine: its headers and query are those that the provider would have sent."""

PIECES = (
    b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\\ud83d", b"\\u0000", b"%00", b"%ff", b"%", b"+", b"&", b"=",
    b"&&", b"a=1&" * 300, b"{", b"}", b"[", b"[" * 5_000, b'"', b"'", b",", b":", b"null", b"true", b"{}", b"[]", b'""', b"0",
    b"-1", b"1e999", b"9" * 400, b"NaN", b"<", b"\r\n", b" " * 100, b"\xef\xbb\xbf", b"2020-11-04 11:11:45", b"+33600000000",
    b"x" * 3_000, "ß\u2028\u200b".encode(),
)  # fmt: skip
"""What has broken a parser before."""


def mutants(calls: Sequence[WebhookCall], times: int, seed: int = SEED) -> Iterator[WebhookCall]:
    """`times` calls, each one of `calls` with one to four things broken."""
    dice = random.Random(seed)
    for _ in range(times):
        call = dice.choice(calls)
        for _ in range(dice.choice((1, 1, 1, 2, 4))):
            call = _broken(call, calls, dice)
        yield call


def fuzz(
    provider: Provider,
    channel: str,
    calls: Sequence[WebhookCall],
    sign: Sign | None = None,
    most: int = MOST,
) -> None:
    """Every mutant is Forged, Unreadable, or events; enough of them get as far as being read."""
    times, read = examples(most), 0
    for call in _signed(mutants(calls, times), sign):
        heard = _heard(provider, channel, call)
        if isinstance(heard, str):
            assert heard, "a refusal says why"
            continue
        read += 1
        for sender, event in heard:
            _storable(channel, sender, event)
    assert read > times / 20, f"only {read} of {times} were read: the mutants are too wild to test anything"


async def fuzz_app(
    app: App, channel: str, calls: Sequence[WebhookCall], sign: Sign | None = None, most: int = MOST_BY_APP
) -> Counter[int]:
    """How often the web application answered what; it answers every mutant, and never 5xx.

    The mutants come through both of its doors: in one piece, and in two.
    """
    times, statuses = examples(most), Counter[int]()
    try:
        for number, call in enumerate(_signed(mutants(calls, times), sign)):
            status = await asked(app, channel, call, pieces=1 + number // 2 % 2)
            assert status < 500, f"{status} for {call}"
            statuses[status] += 1
    finally:
        await _ended(app)
    assert statuses[200] > times / 20, f"too few were accepted: {statuses}"
    assert set(statuses) <= {200, 400, 403, 413}, statuses
    return statuses


async def asked(app: App, channel: str, call: WebhookCall, pieces: int = 1) -> int:
    """The status of the application's answer to a call."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": call.method,
        "path": f"/webhooks/{channel}",
        "raw_path": f"/webhooks/{channel}".encode(),
        "root_path": "",
        "query_string": quote_from_bytes(call.query, ASCII).encode(),  # the server lets nothing else in
        "headers": list(call.headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    half = len(call.body) // 2
    bodies = [call.body] if pieces == 1 else [call.body[:half], call.body[half:]]
    messages = [
        {"type": "http.request", "body": body, "more_body": place < len(bodies)}
        for place, body in enumerate(bodies, 1)
    ]
    sent: list[Mapping[str, Any]] = []

    async def receive() -> Mapping[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
    return int(sent[0]["status"])


async def _ended(app: App) -> None:
    """The application, told to begin and to end, has let go of its connections."""
    told = ["lifespan.startup", "lifespan.shutdown"]

    async def receive() -> Mapping[str, Any]:
        return {"type": told.pop(0)}

    async def send(message: Mapping[str, Any]) -> None:
        assert message["type"].endswith(".complete"), message

    await app({"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}, receive, send)


def _signed(calls: Iterator[WebhookCall], sign: Sign | None) -> Iterator[WebhookCall]:
    for number, call in enumerate(calls):
        yield sign(call) if sign and number % 2 else call


def _heard(provider: Provider, channel: str, call: WebhookCall) -> list[tuple[str, InboundEvent]] | str:
    """The events, or why not."""
    try:
        provider.verify_webhook(call)
        return provider.read_webhook(channel, call)
    except (ForgedWebhookError, UnreadableWebhookError) as refused:
        return str(refused)


def _storable(channel: str, sender: str, event: InboundEvent) -> None:
    assert isinstance(sender, str)
    assert event.channel == channel
    assert len(event.id) == 16
    assert decode_inbound(encode_event(event)) == event
    match event:
        case InboundSms(attachments=attachments) | SmsPart(attachments=attachments):
            assert len(attachments) <= MOST_ATTACHMENTS
            assert all(len(each.media_type) <= LONGEST_MEDIA_TYPE for each in attachments)
            assert all(len(each.url) <= LONGEST_MEDIA_URL for each in attachments)
        case DeliveryReceipt(segments=segments, cost_micros=cost_micros, currency=currency):
            assert 0 <= segments <= MOST_SEGMENTS
            assert 0 <= cost_micros <= MOST_COST * 1_000_000
            assert len(currency) in (0, 3)
        case _:
            pass


def _broken(call: WebhookCall, calls: Sequence[WebhookCall], dice: random.Random) -> WebhookCall:
    match dice.randrange(10):
        case 0:
            return msgspec.structs.replace(call, query=_bytes(call.query, dice))
        case 1 if call.headers:
            return msgspec.structs.replace(call, headers=_headers(call.headers, dice))
        case 2:
            return msgspec.structs.replace(call, method=dice.choice(("GET", "POST")))
        case 3:
            return msgspec.structs.replace(call, body=_spliced(call.body, dice.choice(calls).body, dice))
        case 4:
            return msgspec.structs.replace(call, query=call.body[:2_000], body=call.query)
        case _:
            return msgspec.structs.replace(call, body=_bytes(call.body, dice))


def _headers(headers: Sequence[tuple[bytes, bytes]], dice: random.Random) -> list[tuple[bytes, bytes]]:
    broken = list(headers)
    place = dice.randrange(len(broken))
    name, value = broken[place]
    match dice.randrange(3):
        case 0:
            del broken[place]
        case 1:
            broken.insert(place, (name, _bytes(value, dice)))
        case _:
            broken[place] = name, _bytes(value, dice)
    return broken


def _bytes(source: bytes, dice: random.Random) -> bytes:
    """With something put in, taken out, doubled, or one bit turned."""
    place = dice.randrange(len(source) + 1)
    end = min(len(source), place + dice.choice((1, 1, 4, 16, 64)))
    match dice.randrange(5):
        case 0:
            return source[:place] + dice.choice(PIECES) + source[place:]
        case 1:
            return source[:place] + dice.choice(PIECES) + source[end:]
        case 2:
            return source[:place] + source[end:]
        case 3:
            return source[:end] + source[place:]
        case _ if place < len(source):
            return source[:place] + bytes([source[place] ^ (1 << dice.randrange(8))]) + source[place + 1 :]
        case _:
            return source


def _spliced(one: bytes, other: bytes, dice: random.Random) -> bytes:
    return one[: dice.randrange(len(one) + 1)] + other[dice.randrange(len(other) + 1) :]
