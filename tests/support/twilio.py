"""A fake Twilio on loopback: it creates and lists messages, signs webhooks and obeys the TwiML in their answers.

What it holds in `messages` is what people got. Its signatures are made by the `twilio` package, and its answers are
checked against Twilio's OpenAPI description (tests/providers/test_twilio_api.py). It does what `script` says with the
requests to create that come next, one item each, and else accepts.
"""

import json
import secrets
from base64 import b64encode
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from threading import Lock
from time import sleep
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit
from xml.etree import ElementTree as ET

import msgspec
import requests
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from tests.support.closing import Served

SID = "AC" + "5e" * 16
TOKEN = "an-auth-token"
ANSWER_S = 15.0
"""How long Twilio waits for a webhook's answer."""


class Refuse(msgspec.Struct, frozen=True):
    """Answer with an error; nothing is created. `problem`: in the shape of RFC 9457."""

    code: int
    status: int = 400
    message: str = "no"
    problem: bool = False


class Cut(msgspec.Struct, frozen=True):
    """Create the message (unless `created` is False), and end the connection without an answer."""

    created: bool = True


class Delay(msgspec.Struct, frozen=True):
    """Accept after so many seconds."""

    seconds: float


class Break(msgspec.Struct, frozen=True):
    """Create the message, and answer with an HTTP status and a body that say nothing."""

    status: int = 500
    body: bytes = b"<html>oops</html>"


Behaviour = Refuse | Cut | Delay | Break


class Received(msgspec.Struct, frozen=True):
    """A request to the API."""

    method: str
    target: str
    fields: dict[str, str]


class FakeTwilio(Served):
    """One account. A context manager; `url` is for PARLEY_TWILIO_URL."""

    def __init__(self, sid: str = SID, token: str = TOKEN) -> None:
        self.sid = sid
        self.token = token
        self.script: deque[Behaviour] = deque()
        self.listing: deque[Behaviour] = deque()
        self.messages: list[dict[str, Any]] = []
        self.received: list[Received] = []
        self._lock = Lock()
        super().__init__(_desk(self))

    @property
    def path(self) -> str:
        return f"/2010-04-01/Accounts/{self.sid}/Messages.json"

    @property
    def balance_path(self) -> str:
        return f"/2010-04-01/Accounts/{self.sid}/Balance.json"

    def sent(self, to: str = "") -> list[str]:
        """The texts that people (or one of them) got, in that order."""
        return [message["body"] for message in self.messages if to in ("", message["to"])]

    def create(
        self, fields: Mapping[str, str], direction: str = "outbound-api", status: str = "queued"
    ) -> dict[str, Any]:
        """A message, as the API shows it."""
        with self._lock:
            message = self._message(fields, direction, status)
            self.messages.append(message)
        return message

    def list(self, to: str, sender: str, size: int) -> dict[str, Any]:
        """A page of messages, newest first."""
        with self._lock:
            every = [
                message
                for message in reversed(self.messages)
                if to in ("", message["to"]) and sender in ("", message["from"])
            ]
        page = every[:size]
        first = f"{self.path}?PageSize={size}&Page=0"
        return {
            "messages": page,
            "first_page_uri": first,
            "next_page_uri": f"{self.path}?PageSize={size}&Page=1&PageToken=PA1"
            if len(every) > size
            else None,
            "previous_page_uri": None,
            "uri": first,
            "page": 0,
            "page_size": size,
            "start": 0,
            "end": max(0, len(page) - 1),
        }

    def text(
        self, webhook: str, sender: str, to: str, body: str, *, public: str = "", sid: str = "", **more: str
    ) -> requests.Response:
        """A person's SMS, told to `webhook`, signed for `public` if that is how Twilio knows it; the answer is obeyed."""
        fields = self.inbound(sender, to, body, sid) | more
        answer = self.post(webhook, fields, public)
        if answer.ok:
            self.obey(answer.text, sender, to)
        return answer

    def inbound(self, sender: str, to: str, body: str, sid: str = "") -> dict[str, str]:
        """What Twilio says of a person's SMS."""
        sid = sid or "SM" + secrets.token_hex(16)
        return {
            "ToCountry": "FR", "ToState": "", "SmsMessageSid": sid, "NumMedia": "0", "ToCity": "", "FromZip": "",
            "SmsSid": sid, "FromState": "", "SmsStatus": "received", "FromCity": "", "Body": body, "FromCountry": "FR",
            "To": to, "ToZip": "", "NumSegments": "1", "MessageSid": sid, "AccountSid": self.sid, "From": sender,
            "ApiVersion": "2010-04-01",
        }  # fmt: skip

    def tell(
        self, message: Mapping[str, Any], status: str, code: str = "", public: str = ""
    ) -> requests.Response:
        """A status callback for `message`, to the URL that it was created with; `public` replaces its origin there."""
        fields = {
            "SmsSid": message["sid"], "SmsStatus": status, "MessageStatus": status, "To": message["to"],
            "MessageSid": message["sid"], "AccountSid": self.sid, "From": message["from"] or "", "ApiVersion": "2010-04-01",
        }  # fmt: skip
        if code:
            fields["ErrorCode"] = code
        said = message["status_callback"]
        return self.post(
            public + urlsplit(said)._replace(scheme="", netloc="").geturl() if public else said, fields, said
        )

    def post(self, url: str, fields: Mapping[str, str], public: str = "") -> requests.Response:
        """A signed webhook."""
        signature = RequestValidator(self.token).compute_signature(public or url, fields)
        return requests.post(
            url,
            data=urlencode(fields).encode(),
            headers={
                "X-Twilio-Signature": signature,
                "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            },
            timeout=ANSWER_S,
        )

    def obey(self, twiml: str, sender: str, to: str) -> Sequence[dict[str, Any]]:
        """The messages that a webhook's answer makes: replies to its sender."""
        document = ET.fromstring(twiml)
        assert document.tag == "Response", f"no TwiML: {twiml}"
        return [
            self.create(
                {
                    "To": verb.get("to", sender),
                    "From": verb.get("from", to),
                    "Body": verb.text or "",
                    "StatusCallback": verb.get("statusCallback", ""),
                },
                "outbound-reply",
            )
            for verb in document
        ]

    def knows(self, authorization: str | None) -> bool:
        return authorization == "Basic " + b64encode(f"{self.sid}:{self.token}".encode()).decode()

    def _message(self, fields: Mapping[str, str], direction: str, status: str) -> dict[str, Any]:
        sid = "SM" + secrets.token_hex(16)
        service = fields.get("MessagingServiceSid")
        own = f"/2010-04-01/Accounts/{self.sid}/Messages/{sid}"
        at = format_datetime(datetime.now(UTC))
        return {
            "account_sid": self.sid, "api_version": "2010-04-01", "body": fields.get("Body", ""), "date_created": at,
            "date_sent": None, "date_updated": at, "direction": direction, "error_code": None, "error_message": None,
            "from": fields.get("From"), "messaging_service_sid": service, "num_media": "0",
            "num_segments": "0" if service else "1", "price": None, "price_unit": None, "sid": sid,
            "status": "accepted" if service else status, "subresource_uris": {"media": f"{own}/Media.json"},
            "to": fields.get("To", ""), "uri": f"{own}.json", "status_callback": fields.get("StatusCallback", ""),
        }  # fmt: skip


def shown(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without what the API does not tell."""
    return {name: value for name, value in message.items() if name != "status_callback"}


def refusal(refuse: Refuse) -> dict[str, Any]:
    about = f"https://www.twilio.com/docs/errors/{refuse.code}"
    if refuse.problem:
        return {
            "type": about,
            "title": "no",
            "status": refuse.status,
            "code": refuse.code,
            "detail": refuse.message,
        }
    return {"code": refuse.code, "message": refuse.message, "more_info": about, "status": refuse.status}


def _desk(twilio: FakeTwilio) -> type[BaseHTTPRequestHandler]:
    class Desk(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's word)
            """Not on stderr."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
            twilio.received.append(Received("POST", self.path, fields))
            if self._admitted():
                self._do(
                    twilio.script.popleft() if twilio.script else None, lambda: self._create(fields), 201
                )

        def do_GET(self) -> None:
            if urlsplit(self.path).path == twilio.balance_path:
                self._tell_balance()
                return
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            twilio.received.append(Received("GET", self.path, asked))
            if self._admitted():
                size = int(asked.get("PageSize", 50))
                self._do(
                    twilio.listing.popleft() if twilio.listing else None,
                    lambda: self._list(asked.get("To", ""), asked.get("From", ""), size),
                    200,
                )

        def _tell_balance(self) -> None:
            if twilio.knows(self.headers.get("Authorization")):
                self._answer(200, {"account_sid": twilio.sid, "balance": "7.50", "currency": "USD"})
            else:
                self._answer(401, refusal(Refuse(20003, 401, "Authenticate")))

        def _create(self, fields: Mapping[str, str]) -> dict[str, Any]:
            return shown(twilio.create(fields))

        def _list(self, to: str, sender: str, size: int) -> dict[str, Any]:
            page = twilio.list(to, sender, size)
            return page | {"messages": [shown(message) for message in page["messages"]]}

        def _admitted(self) -> bool:
            if urlsplit(self.path).path != twilio.path:
                self._answer(404, refusal(Refuse(20404, 404, "not found")))
            elif not twilio.knows(self.headers.get("Authorization")):
                self._answer(401, refusal(Refuse(20003, 401, "Authenticate")))
            else:
                return True
            return False

        def _do(self, behaviour: Behaviour | None, make: Any, status: int) -> None:
            match behaviour:
                case Refuse():
                    self._answer(behaviour.status, refusal(behaviour))
                case Cut(created):
                    if created:
                        make()
                    self.close_connection = True
                    self.connection.close()
                case Delay(seconds):
                    sleep(seconds)
                    self._answer(status, make())
                case Break(broken, body):
                    make()
                    self._write(broken, body)
                case None:
                    self._answer(status, make())

        def _answer(self, status: int, body: Mapping[str, Any]) -> None:
            self._write(status, json.dumps(body).encode())

        def _write(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Desk
