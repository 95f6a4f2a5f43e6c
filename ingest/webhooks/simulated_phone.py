"""Octopush and its phones, simulated: what a channel with `provider = "simulator"` sends lies here until it is read.

`POST /simulator/v1/public/sms-campaign/send` answers as Octopush does, repeated `request_id`s included. Each phone's
SMS are a stream in Redis. `GET /simulator/phones/<number>?after=<id>&wait=<s>` answers
`{"messages": [{"id", "at_ms", "from", "text", "ticket"}], "last": <id>}`, at once or as soon as there is one.

Law: it is open to everybody who reaches `web`, and so is there only where every channel is simulated; and what it keeps in
Redis is bounded, whatever is sent: so many phones for each `web` process, so many SMS of each, for a day.
"""

import asyncio
import re
from collections import OrderedDict
from typing import Annotated, Any

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from config.host import THIS_HOST, Host
from config.store import keyspace, redis_client
from config.store.entry_id import EntryId
from engine.model.segments import count_segments
from ingest.webhooks.channel_endpoint import read_body

KEPT_PHONES = 500
"""Phones for which this process has stored SMS; of one more, what the one that has been silent for the longest has is
forgotten."""

KEPT_SMS = 100
"""SMS of one phone, and ids that it knows again."""

KEPT_S = 86_400
MAX_WAIT_S = 20
MAX_WAITING = 100
"""Requests that wait for SMS, each with a connection to Redis; more than these wait for their turn."""

MAX_CHARACTERS = 1_224
_Short = Annotated[str, Meta(max_length=64)]

LATEST_ID = "latest"
"""As `sms_after`: only what comes from now on."""

_STREAM_ID = re.compile(r"[0-9]{1,15}(-[0-9]{1,15})?")

_STORE_SCRIPT = """
local now = redis.call('TIME')
if redis.call('ZADD', KEYS[1], 'NX', now[1] * 1e6 + now[2], ARGV[1]) == 0 then return 0 end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], '*', unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""


class CampaignRecipient(msgspec.Struct):
    phone_number: _Short


class SmsCampaign(msgspec.Struct):
    """A campaign, as far as it is simulated."""

    recipients: Annotated[list[CampaignRecipient], Meta(max_length=500)] = []
    text: str = ""
    purpose: str = "wholesale"
    sender: _Short = ""
    request_id: _Short = ""


def campaign_refusal(send: SmsCampaign, login: str | None, key: str | None) -> tuple[int, str] | None:
    """Octopush's code and sentence for a campaign that it would not send."""
    if not login or not key:
        return 101, "Incorrect login details."
    if not send.recipients:
        return 103, "The recipients are missing."
    if not send.text:
        return 107, "The text is missing."
    if len(send.text) > MAX_CHARACTERS:
        return 102, f"The text has more than {MAX_CHARACTERS} characters."
    if send.purpose == "wholesale" and "STOP" not in send.text:
        return 121, "STOP mention ([STOP au 30101]) is missing from your text."
    return None


class SimulatedPhones:
    """The SMS that simulated phones have received."""

    def __init__(self, url: str) -> None:
        """They are kept in the Redis at `url`."""
        self._client = redis_client.connect_async(url)
        self._phones = OrderedDict[str, None]()
        self._waiting = asyncio.Semaphore(MAX_WAITING)

    async def store_sms(self, phone: str, send: SmsCampaign, ticket: str) -> bool:
        """Put an SMS into `phone`; False if one with this request_id is there already."""
        await self._make_room(phone)
        fields = ("from", send.sender, "text", send.text, "ticket", ticket)
        known = send.request_id or ticket
        return bool(
            await self._client.eval(_STORE_SCRIPT, 2, *_phone_keys(phone), known, KEPT_S, KEPT_SMS, *fields)
        )

    async def _make_room(self, phone: str) -> None:
        self._phones[phone] = None
        self._phones.move_to_end(phone)
        while len(self._phones) > KEPT_PHONES:
            silent, _ = self._phones.popitem(last=False)
            await self._client.unlink(*_phone_keys(silent))

    async def close(self) -> None:
        await self._client.aclose()

    async def newest_id(self, phone: str) -> str:
        """The id of the last SMS."""
        entries: Any = await self._client.xrevrange(_sms_stream_key(phone), count=1)
        return str(entries[0][0].decode()) if entries else "0-0"

    async def sms_after(self, phone: str, last: str, wait_s: float) -> list[dict[str, Any]]:
        """The SMS after the one with id `last`, waiting for the first of them."""
        block = max(1, round(wait_s * 1000)) if wait_s else None
        async with self._waiting:
            streams: Any = await self._client.xread(
                {_sms_stream_key(phone): last}, block=block, count=KEPT_SMS
            )
        return [_message_json(id_, fields) for _, entries in streams or [] for id_, fields in entries]


class CampaignResource:
    """`POST /simulator/v1/public/sms-campaign/send`."""

    def __init__(self, phones: SimulatedPhones, host: Host = THIS_HOST) -> None:
        self._phones = phones
        self._host = host

    async def on_post(self, req: Request, resp: Response) -> None:
        try:
            send = msgspec.json.decode(await read_body(req, "simulator"), type=SmsCampaign)
        except ValueError as e:
            raise falcon.HTTPBadRequest(title="not a campaign", description=str(e)) from e
        refused = campaign_refusal(send, req.get_header("api-login"), req.get_header("api-key"))
        ticket = f"sms_{self._host.token_hex(7)[:13]}"
        if refused is None:
            stored = [
                await self._phones.store_sms(recipient.phone_number, send, ticket)
                for recipient in send.recipients
            ]
            if not any(stored):
                refused = 120, "An SMS with this request_id was sent already."
        if refused is None:
            resp.status = falcon.HTTP_201
            resp.media = _success_json(send, ticket)
        else:
            resp.status = falcon.HTTP_400
            resp.media = {"code": refused[0], "message": refused[1]}


class PhoneResource:
    """`GET /simulator/phones/<number>`."""

    def __init__(self, phones: SimulatedPhones) -> None:
        self._phones = phones

    async def on_get(self, req: Request, resp: Response, number: str) -> None:
        last = req.get_param("after", default="0-0")
        wait_s = req.get_param_as_float("wait", min_value=0, max_value=MAX_WAIT_S, default=float(MAX_WAIT_S))
        if last != LATEST_ID and not _STREAM_ID.fullmatch(last):
            raise falcon.HTTPInvalidParam("expected an id that came with an SMS, or latest", "after")
        messages: list[dict[str, Any]] = []
        if last == LATEST_ID:
            last = await self._phones.newest_id(number)
        else:
            messages = await self._phones.sms_after(number, last, wait_s)
        resp.media = {"messages": messages, "last": messages[-1]["id"] if messages else last}


def add_routes(app: "falcon.asgi.App[Request, Response]", phones: SimulatedPhones, host: Host) -> None:
    """Add the simulator's routes."""
    app.add_route("/simulator/v1/public/sms-campaign/send", CampaignResource(phones, host))
    app.add_route("/simulator/phones/{number}", PhoneResource(phones))


def _sms_stream_key(phone: str) -> str:
    return keyspace.simulator_key(phone, "sms")


def _phone_keys(phone: str) -> tuple[str, str]:
    """The keys of the ids that it knows again, and of its SMS."""
    return keyspace.simulator_key(phone, "requests"), _sms_stream_key(phone)


def _message_json(id_: bytes, fields: dict[bytes, bytes]) -> dict[str, Any]:
    said = {name.decode(): value.decode() for name, value in fields.items()}
    return {"id": id_.decode(), "at_ms": EntryId.parse(id_).ms, **said}


def _success_json(send: SmsCampaign, ticket: str) -> dict[str, Any]:
    contacts = len(send.recipients)
    return {
        "sms_ticket": ticket,
        "number_of_contacts": contacts,
        "number_of_sms_needed": count_segments(send.text).segments * contacts,
        "residual_credit": 1_000.0,
        "total_cost": 0.0,
    }
