"""What does checking a signature cost, of all that a webhook costs the web process?

Both are seconds of CPU, so that a busy machine changes neither: `verify` alone, over and over, and the web process
while the same signed calls are made to it, 64 at a time, until their events are in their mailboxes.
"""

import asyncio
import hmac
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time, time
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from config.settings.settings import Settings
from config.settings.startup_check import load_settings_and_surveys
from engine.providers import WebhookCall
from engine.providers.provider_registry import open_provider
from tests.support.octopush import FakeOctopush
from tests.support.processes import Deployment
from tests.support.valkey import Valkey
from tests.support.wire import Address, Connection

CALLS = 2_000
TIMES = 5
AT_ONCE = 64
SURVEYS = Path(__file__).parents[2] / "config" / "surveys"

PUBLIC = "https://sms.example.org"
SECRET = "a secret of sixteen or more"
TWILIO_SID, TWILIO_TOKEN = "AC" + "0" * 32, "12345"

_TOML = """
[channels.webhook]
number = "+33700000001"
surveys = ["clinic"]
provider = "webhook"
send_url = "http://127.0.0.1:9/send"
secret_env = "WORD"
[channels.twilio]
number = "+33700000002"
surveys = ["clinic"]
provider = "twilio"
"""


def signature_costs(valkey: Valkey, octopush: FakeOctopush) -> dict[str, tuple[float, float]]:
    """Of each provider, the microseconds of CPU of `verify`, and of a whole webhook."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "parley.toml"
        path.write_text(_TOML)
        environment = {
            "PARLEY_CONFIG": str(path), "PARLEY_SURVEYS": str(SURVEYS), "PARLEY_PUBLIC_URL": PUBLIC, "WORD": SECRET,
            "PARLEY_TWILIO_SID": TWILIO_SID, "PARLEY_TWILIO_TOKEN": TWILIO_TOKEN,
        }  # fmt: skip
        settings, _ = load_settings_and_surveys(environment)
        calls = {"webhook": _webhooks(), "twilio": _twilios()}
        with Deployment(
            valkey.url, valkey.broker_url, octopush, environment=environment, forked=False
        ) as deployment:
            web = deployment.spawn("web")
            deployment.wait_ready()
            return {
                name: (_verify_us(settings, name, signed), _webhook_us(deployment, web.pid, name, signed))
                for name, signed in calls.items()
            }


def _verify_us(settings: Settings, name: str, calls: Sequence[WebhookCall]) -> float:
    verify = open_provider(settings.provider_settings(name)).verify_webhook
    begun_s = process_time()
    for _ in range(TIMES):
        for call in calls:
            verify(call)
    return (process_time() - begun_s) / len(calls) / TIMES * 1e6


def _webhook_us(deployment: Deployment, pid: int, name: str, calls: Sequence[WebhookCall]) -> float:
    address = Address.of(f"{deployment.base}/webhooks/{name}")
    asyncio.run(_all(address, calls))
    begun_s = _cpu_s(pid)
    for _ in range(TIMES):
        asyncio.run(_all(address, calls))
    return (_cpu_s(pid) - begun_s) / len(calls) / TIMES * 1e6


async def _all(address: Address, calls: Sequence[WebhookCall]) -> None:
    waiting = iter(calls)
    await asyncio.gather(*(_client(address, waiting) for _ in range(AT_ONCE)))


async def _client(address: Address, calls: Iterator[WebhookCall]) -> None:
    async with Connection(address.host, address.port) as connection:
        for call in calls:
            headers: Mapping[str, str] = {name.decode(): value.decode() for name, value in call.headers}
            answer = await connection.ask(call.method, address.target, call.body, headers)
            assert answer.status == 200, f"{address.target} answered {answer}"


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _webhooks() -> list[WebhookCall]:
    now = time()
    timestamp = str(int(now)).encode()
    calls = []
    for place in range(CALLS):
        told = {
            "type": "sms",
            "id": f"gw-{place}",
            "from": f"+336{place:08}",
            "to": "+33700000001",
            "text": "98.6",
        }
        body = json.dumps(told).encode()
        right = "v2=" + hmac.digest(SECRET.encode(), timestamp + b".in.webhook." + body, "sha256").hex()
        headers = [(b"parley-timestamp", timestamp), (b"parley-signature", right.encode())]
        calls.append(WebhookCall("POST", b"", headers, body, now))
    return calls


def _twilios() -> list[WebhookCall]:
    """With the fields that Twilio sends with an SMS."""
    validator = RequestValidator(TWILIO_TOKEN)
    calls = []
    for place in range(CALLS):
        sid = f"SM{place:032x}"
        fields = {
            "ToCountry": "FR", "ToState": "", "SmsMessageSid": sid, "NumMedia": "0", "ToCity": "", "FromZip": "",
            "SmsSid": sid, "FromState": "", "SmsStatus": "received", "FromCity": "", "Body": "98.6", "FromCountry": "FR",
            "To": "+33700000002", "ToZip": "", "NumSegments": "1", "MessageSid": sid, "AccountSid": TWILIO_SID,
            "From": f"+336{place:08}", "ApiVersion": "2010-04-01",
        }  # fmt: skip
        right = validator.compute_signature(f"{PUBLIC}/webhooks/twilio", fields)
        headers = [
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"x-twilio-signature", right.encode()),
        ]  # fmt: skip
        calls.append(WebhookCall("POST", b"", headers, urlencode(fields).encode(), time()))
    return calls
