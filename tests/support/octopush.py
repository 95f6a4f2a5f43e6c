"""A fake Octopush that remembers everything and can be told to misbehave. A process of its own, and fast.

It accepts an SMS once for each `request_id` (error 120 for a copy, as Octopush does), and its ledger is the judge of
a test: what it accepted is what a person got, in that order. By hand:

    python -m tests.support.octopush --port 8001
    curl -d '{"fail_500": 0.1, "delay_ms": [5, 50]}' http://127.0.0.1:8001/_control
    curl http://127.0.0.1:8001/_ledger

Answers and error codes: Octopush's documentation of `sms-campaign/send` and of return codes.
"""

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Literal, cast
from urllib.parse import parse_qs

import click
import httptools
import msgspec
import requests
import uvloop

from tests.support.closing import Closing
from tests.support.wire import response

SEND = "/v1/public/sms-campaign/send"
BALANCE = "/v1/public/wallet/check-balance"
HOST = "127.0.0.1"
START_S = 60.0
NO_ANSWER = 0


class Scripted(msgspec.Struct):
    """The answer to one request, whatever is in it. Status 0: none, and the connection stays open."""

    status: int
    body: dict[str, str | int | float] = {}


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """How it misbehaves. Fractions are of requests; `script` comes first, then `hang`, then the rest.

    `cut_after_accept`: the SMS is accepted, and the connection ends without an answer. The next `reject` SMS are refused
    for good, but for those with `spares` in their text.
    """

    seed: int = 0
    delay_ms: tuple[float, float] = (0, 0)
    fail_500: float = 0
    congested_153: float = 0
    cut_after_accept: float = 0
    script: list[Scripted] = []
    hang: bool = False
    reject: int = 0
    spares: str = ""


class Accepted(msgspec.Struct, frozen=True):
    """An SMS that a person got. `at_s` is of the clock monotonic, which all processes of a machine share."""

    to: str
    text: str
    request_id: str
    ticket: str
    at_s: float


class Received(msgspec.Struct, frozen=True):
    """A request to send, and how it ended: an HTTP status, or 0 for no answer. `kind`, `purpose` and `optimize` as it said."""

    to: str
    text: str
    request_id: str
    at_s: float
    status: int
    code: int = 0
    kind: str = ""
    purpose: str = ""
    optimize: bool | None = None


class Ledger(msgspec.Struct):
    accepted: list[Accepted] = []
    received: list[Received] = []


class Page(msgspec.Struct):
    """What was accepted from some place on, and the place after it."""

    accepted: list[Accepted]
    next: int


class _Recipient(msgspec.Struct):
    phone_number: str


class _Send(msgspec.Struct):
    recipients: list[_Recipient]
    text: str
    request_id: str = ""
    type: Literal["sms_premium", "sms_low_cost"] = "sms_premium"
    purpose: Literal["alert", "wholesale"] = "wholesale"
    auto_optimize_text: bool | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a request: its answer (0: none), whether the connection is cut, whether the SMS is taken."""

    status: int
    body: bytes = b""
    cut: bool = False


_encode = msgspec.json.Encoder().encode
_decode_send = msgspec.json.Decoder(_Send).decode


def refusal(code: int, message: str, status: int = 400) -> Verdict:
    return Verdict(status, _encode({"code": code, "message": message}))


class Octopush:
    """The account: who may send, what was received and accepted, what goes wrong. No I/O. Another provider's account is a
    subclass, with other answers."""

    rejection = refusal(151, "Country not served")
    failure = refusal(500, "Impossible to process", 500)
    congestion = refusal(153, "Route congested")

    def __init__(self, login: str, key: str, faults: Faults) -> None:
        self._credentials = (login.encode(), key.encode())
        self.reset(faults)

    def reset(self, faults: Faults) -> None:
        self.ledger = Ledger()
        self._ids: set[str] = set()
        self.control(faults)

    def control(self, faults: Faults) -> None:
        self.faults = faults
        self._script = list(reversed(faults.script))
        self._reject = faults.reject
        self._random = random.Random(faults.seed)

    def send(self, login: bytes, key: bytes, body: bytes, now_s: float) -> Verdict:
        """Judge one request to send, and remember it."""
        if (login, key) != self._credentials:
            return refusal(101, "Incorrect login details", 401)
        try:
            sms = _decode_send(body)
            (recipient,) = sms.recipients
        except (msgspec.MsgspecError, ValueError) as e:
            return refusal(100, f"Not a request to send one SMS: {e}")
        verdict = self._judge(recipient.phone_number, sms.text, sms.request_id, now_s)
        self.ledger.received[-1] = msgspec.structs.replace(
            self.ledger.received[-1], kind=sms.type, purpose=sms.purpose, optimize=sms.auto_optimize_text
        )
        return verdict

    def balance(self, login: bytes, key: bytes) -> Verdict:
        """What is left in the account."""
        if (login, key) != self._credentials:
            return refusal(101, "Incorrect login details", 401)
        return Verdict(200, _encode({"amount": 12.54, "unit": "euros"}))

    def delay_s(self) -> float:
        low, high = self.faults.delay_ms
        return self._random.uniform(low, high) / 1000 if high else 0.0

    def _judge(self, to: str, text: str, request_id: str, now_s: float) -> Verdict:
        verdict = self._rejected(text) or self._misbehave() or self._accept(to, text, request_id, now_s)
        status = NO_ANSWER if verdict.cut else verdict.status
        code = int(msgspec.json.decode(verdict.body).get("code", 0)) if verdict.status == 400 else 0
        self.ledger.received.append(Received(to, text, request_id, now_s, status, code))
        return verdict

    def _rejected(self, text: str) -> Verdict | None:
        if not self._reject or (self.faults.spares and self.faults.spares in text):
            return None
        self._reject -= 1
        return self.rejection

    def _misbehave(self) -> Verdict | None:
        """A refusal that has nothing to do with what was asked."""
        if self._script:
            scripted = self._script.pop()
            return Verdict(scripted.status, _encode(scripted.body))
        if self.faults.hang:
            return Verdict(NO_ANSWER)
        if self._happens(self.faults.fail_500):
            return self.failure
        if self._happens(self.faults.congested_153):
            return self.congestion
        return None

    def _accept(self, to: str, text: str, request_id: str, now_s: float) -> Verdict:
        if request_id and request_id in self._ids:
            return refusal(120, "SMS with same request_id already sent")
        self._ids.add(request_id)
        ticket = self._ticket()
        self.ledger.accepted.append(Accepted(to, text, request_id, ticket, now_s))
        if self._happens(self.faults.cut_after_accept):
            return Verdict(NO_ANSWER, cut=True)
        return self._acceptance(to, ticket)

    def _ticket(self) -> str:
        return f"sms_{len(self.ledger.accepted):013x}"

    def _acceptance(self, to: str, ticket: str) -> Verdict:
        del to
        answer = {
            "sms_ticket": ticket,
            "number_of_contacts": 1,
            "number_of_sms_needed": 1,
            "total_cost": 0.05,
        }
        return Verdict(201, _encode(answer))

    def _happens(self, fraction: float) -> bool:
        return bool(fraction) and self._random.random() < fraction


class Desk(asyncio.Protocol):
    """One connection: requests are answered in turn."""

    def __init__(self, octopush: Octopush, news: "News") -> None:
        self._octopush = octopush
        self._news = news

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""
        self._body = b""
        self._headers: dict[bytes, bytes] = {}

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode().partition("?")
        self.handle(self._parser.get_method().decode(), path, query)

    def handle(self, method: str, path: str, query: str) -> None:
        match method, path:
            case "POST", str() if path == SEND:
                self._send()
            case "GET", str() if path == BALANCE:
                self._tell_balance()
            case "POST", "/_control":
                self._octopush.control(self._faults())
                self._answer(200)
            case "POST", "/_reset":
                self._octopush.reset(self._faults())
                self._news.wake()
                self._answer(200)
            case "GET", "/_ledger":
                self._answer(200, _encode(self._octopush.ledger))
            case "GET", "/_count":
                self._answer(200, _encode({"accepted": len(self._octopush.ledger.accepted)}))
            case "GET", "/_wait":
                fields = parse_qs(query)
                self._news.follow(self, int(fields["since"][0]), float(fields["for_s"][0]))
            case _:
                self._answer(404, b"{}")

    def tell(self, since: int) -> None:
        """Answer a `/_wait` with what was accepted from `since` on."""
        accepted = self._octopush.ledger.accepted
        self._answer(200, _encode(Page(accepted[since:], len(accepted))))

    def _faults(self) -> Faults:
        return msgspec.json.decode(self._body or b"{}", type=Faults)

    def _send(self) -> None:
        login, key = self._headers.get(b"api-login", b""), self._headers.get(b"api-key", b"")
        self.settle(self._octopush, partial(self._octopush.send, login, key, self._body))

    def _tell_balance(self) -> None:
        login, key = self._headers.get(b"api-login", b""), self._headers.get(b"api-key", b"")
        verdict = self._octopush.balance(login, key)
        self._answer(verdict.status, verdict.body)

    def settle(self, account: Octopush, judge: Callable[[float], Verdict]) -> None:
        """Let `judge` decide on a request to `account`, once its delay is over, and answer so."""
        work = partial(self._judge, account, judge, account.ledger)
        if delay_s := account.delay_s():
            asyncio.get_running_loop().call_later(delay_s, work)
        else:
            work()

    def _judge(self, account: Octopush, judge: Callable[[float], Verdict], ledger: Ledger) -> None:
        if ledger is not account.ledger:
            return  # all was forgotten meanwhile
        verdict = judge(monotonic())
        self._news.wake()
        if verdict.cut:
            self._transport.abort()
        elif verdict.status != NO_ANSWER:
            self._answer(verdict.status, verdict.body)

    def _answer(self, status: int, body: bytes = b"") -> None:
        if not self._transport.is_closing():
            self._transport.write(response(status, body))


class News:
    """Who waits for what is accepted next. They are told once for all that one turn of the loop brought."""

    def __init__(self, octopush: Octopush) -> None:
        self._octopush = octopush
        self._followers: dict[Desk, tuple[int, asyncio.TimerHandle]] = {}
        self._woken = False

    def follow(self, desk: Desk, since: int, for_s: float) -> None:
        if len(self._octopush.ledger.accepted) > since:
            desk.tell(since)
        else:
            later = asyncio.get_running_loop().call_later(for_s, self._tell, desk)
            self._followers[desk] = (since, later)

    def wake(self) -> None:
        if self._followers and not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._tell_all)

    def _tell_all(self) -> None:
        self._woken = False
        for desk, (since, _) in list(self._followers.items()):
            if len(self._octopush.ledger.accepted) > since:
                self._tell(desk)

    def _tell(self, desk: Desk) -> None:
        since, later = self._followers.pop(desk)
        later.cancel()
        desk.tell(since)


async def serve(
    octopush: Octopush, port: int, make_desk: Callable[[Octopush, News], Desk] = Desk, host: str = HOST
) -> None:
    """Until SIGTERM. Prints the port once it listens."""
    loop = asyncio.get_running_loop()
    news = News(octopush)
    server = await loop.create_server(lambda: make_desk(octopush, news), host, port, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


@click.command()
@click.option("--host", default=HOST, help="On this address.")
@click.option("--port", default=0, help="0 takes a free one, and prints it.")
@click.option("--login", default="login")
@click.option("--key", default="key")
@click.option("--faults", default="{}", help="How it misbehaves, as JSON.")
def main(host: str, port: int, login: str, key: str, faults: str) -> None:
    """A fake Octopush.

    \b
    Example:
      python -m tests.support.octopush --port 8001 --faults '{"fail_500": 0.1}'
    """
    uvloop.run(serve(Octopush(login, key, msgspec.json.decode(faults, type=Faults)), port, host=host))


class FakeOctopush(Closing):
    """That process, from the outside. Started when made; a context manager."""

    login, key = "login", "key"
    module = "tests.support.octopush"

    def __init__(self, faults: Faults | None = None, host: str = HOST) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                self.module,
                "--faults",
                _encode(faults or Faults()).decode(),
                *([] if host == HOST else ["--host", host]),
            ],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the fake Octopush did not start"
        self.base = f"http://{host}:{int(line)}"
        self._http = requests.Session()

    @property
    def url(self) -> str:
        """For PARLEY_OCTOPUSH_URL."""
        return f"{self.base}/v1/public"

    @property
    def send_url(self) -> str:
        return self.base + SEND

    def control(self, faults: Faults, account: str = "") -> None:
        """Misbehave thus from now on; of several accounts (carriers.py), this one."""
        url = f"{self.base}/_control?{account}"
        self._http.post(url, data=_encode(faults), timeout=START_S).raise_for_status()

    def reset(self, faults: Faults | None = None) -> None:
        """Forget everything, and misbehave thus (not at all if None)."""
        self._http.post(
            f"{self.base}/_reset", data=_encode(faults or Faults()), timeout=START_S
        ).raise_for_status()

    def ledger(self) -> Ledger:
        return msgspec.json.decode(self._http.get(f"{self.base}/_ledger", timeout=60).content, type=Ledger)

    def accepted(self, to: str = "") -> Sequence[Accepted]:
        """What was accepted, in that order, of one person if `to` is given."""
        return [sms for sms in self.ledger().accepted if to in ("", sms.to)]

    def count(self) -> int:
        """How many SMS were accepted."""
        return int(self._http.get(f"{self.base}/_count", timeout=START_S).json()["accepted"])

    def close(self) -> None:
        self._http.close()
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


if __name__ == "__main__":
    main()
