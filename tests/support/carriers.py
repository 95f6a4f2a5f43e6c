"""A fake Octopush, Twilio and Vonage in one process, with one ledger of what people got, whoever brought it.

Each is an account that misbehaves by itself. Octopush knows an SMS again by its `request_id`; Twilio does not, and lists
its messages; Vonage does neither. So in the ledger's `accepted` is every SMS that a person got, twice if it came twice,
with our id of it, which Twilio has from its status callback's URL and Vonage as `client-ref`.
"""

import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import click
import msgspec
import uvloop

from tests.support import twilio, vonage
from tests.support.octopush import (
    NO_ANSWER,
    Desk,
    FakeOctopush,
    Faults,
    News,
    Octopush,
    Verdict,
    serve,
)

Carrier = Literal["octopush", "twilio", "vonage"]
CARRIERS: tuple[Carrier, ...] = ("octopush", "twilio", "vonage")

MESSAGES = f"/2010-04-01/Accounts/{twilio.SID}/Messages.json"
VONAGE_SEND = "/sms/json"
TWILIO_LOGIN = b"Basic " + b64encode(f"{twilio.SID}:{twilio.TOKEN}".encode())

_encode = msgspec.json.Encoder().encode
_decode_vonage = msgspec.json.Decoder(dict[str, str]).decode


def _twilio_refusal(code: int, status: int) -> Verdict:
    return Verdict(status, _encode({"code": code, "message": "no", "status": status}))


class TwilioAccount(Octopush):
    """Creates each message that it is asked for, and lists them."""

    rejection = _twilio_refusal(20001, 400)
    failure = _twilio_refusal(20500, 500)
    congestion = _twilio_refusal(20429, 429)

    def reset(self, faults: Faults) -> None:
        super().reset(faults)
        self._messages: dict[str, list[dict[str, Any]]] = {}

    def create(self, fields: Mapping[str, str], now_s: float) -> Verdict:
        """Judge a request to create a message. A second one of the same SMS is another message."""
        ours = parse_qs(urlsplit(fields["StatusCallback"]).query)["sms"][0]
        self._ids.discard(ours)
        return self._judge(fields["To"], fields["Body"], ours, now_s)

    def list(self, to: str, size: int, _now_s: float) -> Verdict:
        """The newest messages to a number. It fails as creating one does."""
        if self.faults.hang:
            return Verdict(NO_ANSWER)
        if self._happens(self.faults.fail_500):
            return self.failure
        page = self._messages.get(to, [])[::-1][:size]
        return Verdict(200, _encode({"messages": page, "next_page_uri": None}))

    def _accept(self, to: str, text: str, request_id: str, now_s: float) -> Verdict:
        verdict = super()._accept(to, text, request_id, now_s)
        message = {
            "sid": self.ledger.accepted[-1].ticket, "direction": "outbound-api", "status": "queued", "to": to, "body": text,
            "date_created": format_datetime(datetime.now(UTC)),
        }  # fmt: skip
        self._messages.setdefault(to, []).append(message)
        return verdict

    def _ticket(self) -> str:
        return "SM" + secrets.token_hex(16)

    def _acceptance(self, to: str, ticket: str) -> Verdict:
        return Verdict(201, _encode({"sid": ticket, "to": to, "status": "queued"}))


def _vonage_answer(**message: str) -> Verdict:
    return Verdict(200, _encode({"message-count": "1", "messages": [message]}))


class VonageAccount(Octopush):
    """Sends whatever it is asked to send."""

    rejection = _vonage_answer(status="15")
    failure = _vonage_answer(status="5")
    congestion = _vonage_answer(status="1")

    def take(self, body: bytes, now_s: float) -> Verdict:
        """Judge a request to send. A second one of the same SMS is another SMS."""
        sms = _decode_vonage(body)
        self._ids.discard(sms["client-ref"])
        return self._judge(f"+{sms['to']}", sms["text"], sms["client-ref"], now_s)

    def _ticket(self) -> str:
        return "0C" + secrets.token_hex(7)

    def _acceptance(self, to: str, ticket: str) -> Verdict:
        return _vonage_answer(**{"status": "0", "to": to, "message-id": ticket})


class CarriersDesk(Desk):
    """One connection to any of them."""

    def __init__(self, accounts: Mapping[str, Octopush], octopush: Octopush, news: News) -> None:
        super().__init__(octopush, news)
        self._accounts = accounts

    def handle(self, method: str, path: str, query: str) -> None:
        account_of_twilio, account_of_vonage = self._accounts["twilio"], self._accounts["vonage"]
        assert isinstance(account_of_twilio, TwilioAccount)
        assert isinstance(account_of_vonage, VonageAccount)
        match method, path:
            case _, str() if path == MESSAGES and self._headers.get(b"authorization") != TWILIO_LOGIN:
                self._answer(401, b"{}")
            case "POST", str() if path == MESSAGES:
                fields = _form(self._body.decode())
                self.settle(account_of_twilio, partial(account_of_twilio.create, fields))
            case "GET", str() if path == MESSAGES:
                asked = _form(query)
                looked = partial(account_of_twilio.list, asked["To"], int(asked["PageSize"]))
                self.settle(account_of_twilio, looked)
            case "POST", str() if path == VONAGE_SEND:
                self.settle(account_of_vonage, partial(account_of_vonage.take, self._body))
            case "POST", "/_control" if query:
                self._accounts[query].control(self._faults())
                self._answer(200)
            case _:
                super().handle(method, path, query)


def _form(written: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(written, keep_blank_values=True).items()}


class FakeCarriers(FakeOctopush):
    """That process, from the outside. `login` and `key` are for Octopush."""

    module = "tests.support.carriers"

    def having(self, ids: Iterable[str]) -> set[str]:
        """Those of our SMS, by id, that people have."""
        return {each.request_id for each in self.accepted()} & set(ids)


@click.command()
@click.option("--faults", default="{}", help="How Octopush misbehaves, as JSON.")
def main(faults: str) -> None:
    """The three of them on a free port of 127.0.0.1, which is printed."""
    octopush = Octopush(FakeCarriers.login, FakeCarriers.key, msgspec.json.decode(faults, type=Faults))
    accounts = {
        "octopush": octopush,
        "twilio": TwilioAccount(twilio.SID, twilio.TOKEN, Faults()),
        "vonage": VonageAccount(vonage.KEY, vonage.SECRET, Faults()),
    }
    for account in accounts.values():
        account.ledger = octopush.ledger
    uvloop.run(serve(octopush, 0, partial(CarriersDesk, accounts)))


if __name__ == "__main__":
    main()
