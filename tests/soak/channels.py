"""The channels of a soak: who carries the SMS of each, how that provider calls the webhook, and what people say there."""

import json
from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from tests.support import twilio, vonage
from tests.support.carriers import Carrier
from tests.support.clinic import CHANNEL
from tests.support.inviting import key_table
from tests.support.person import Callback, CallbackWriter, octopush_callback
from tests.support.processes import TOKEN, Deployment
from tests.support.proxy import Proxy

PUBLIC = "https://sms.example.org"
"""How the world reaches `web`: Twilio signs it."""


class SoakChannel(NamedTuple):
    """`leaves_out` are kinds of plays that nobody plays there."""

    name: str
    carrier: Carrier
    number: str
    leaves_out: Sequence[str] = ()

    def writer(self) -> CallbackWriter:
        match self.carrier:
            case "octopush":
                return octopush_callback
            case "twilio":
                return _twilio_writer(self)
            case "vonage":
                return _vonage_writer(self)

    def table(self, of_first: str) -> str:
        """Its part of parley.toml, by that of the first channel."""
        table = of_first.replace(f"channels.{CHANNEL}", f"channels.{self.name}")
        table = table.replace(OCTOPUSH_CHANNELS[0].number, self.number).replace(
            '"octopush"', f'"{self.carrier}"'
        )
        if self.carrier == "twilio":  # Twilio itself would confirm a STOP, and nobody would wait for that
            table = table.replace("\n[", "\ndefault_keywords = false\n[", 1)
        return table


OCTOPUSH_CHANNELS = (
    SoakChannel(CHANNEL, "octopush", "+33700000001"),
    SoakChannel("harbour", "octopush", "+33700000002"),
)
"""With these the last release can be soaked too: what it may have sent it does not ask of a Twilio as this one does."""

CHANNELS = (
    *OCTOPUSH_CHANNELS,
    SoakChannel("ferry", "twilio", "+33700000003", leaves_out=("comes back",)),
    SoakChannel("tower", "vonage", "+33700000004", leaves_out=("comes back", "stops")),
)
"""Nobody who has opted out can be texted again what Vonage may not have, so that who waits for a confirmation there may wait
for ever. On a channel that is looked up, who comes back is told a second time what a STOP had withdrawn while nobody knew
whether Twilio had it: that one, of the same text, is then taken for this one (Twilio tells no more of a message)."""


def carrier_environment(gates: Mapping[Carrier, Proxy]) -> dict[str, str]:
    """The providers' accounts, each behind a gate of its own."""
    urls = {carrier: f"http://127.0.0.1:{gate.port}" for carrier, gate in gates.items()}
    return {
        "PARLEY_OCTOPUSH_URL": f"{urls['octopush']}/v1/public",
        "PARLEY_TWILIO_URL": urls["twilio"], "PARLEY_TWILIO_SID": twilio.SID, "PARLEY_TWILIO_TOKEN": twilio.TOKEN,
        "PARLEY_VONAGE_URL": urls["vonage"], "PARLEY_VONAGE_KEY": vonage.KEY, "PARLEY_VONAGE_SECRET": vonage.SECRET,
        "PARLEY_PUBLIC_URL": PUBLIC,
    }  # fmt: skip


def configure_channels(deployment: Deployment, channels: Sequence[SoakChannel]) -> None:
    """Write them, and a key to them all, where the deployment's one channel stands."""
    config = deployment.folder / "parley.toml"
    first = config.read_text()
    tables = [channel.table(first) for channel in channels]
    config.write_text("".join(tables) + key_table(channels=[channel.name for channel in channels]))


def webhook_of(deployment: Deployment, channel: SoakChannel) -> str:
    return deployment.webhook.replace(f"/{CHANNEL}?", f"/{channel.name}?")


_serial = count(1)


def _twilio_writer(channel: SoakChannel) -> CallbackWriter:
    validator = RequestValidator(twilio.TOKEN)

    def write(number: str, text: str) -> Callback:
        fields = {
            "MessageSid": f"SM{next(_serial):032x}", "AccountSid": twilio.SID, "From": number, "To": channel.number,
            "Body": text, "NumMedia": "0", "NumSegments": "1", "ApiVersion": "2010-04-01",
        }  # fmt: skip
        signature = validator.compute_signature(_public_webhook(channel), fields)
        headers = {
            "X-Twilio-Signature": signature,
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
        }
        return Callback(urlencode(fields).encode(), headers)

    return write


def _public_webhook(channel: SoakChannel) -> str:
    return f"{PUBLIC}/webhooks/{channel.name}?token={TOKEN}"


def _vonage_writer(channel: SoakChannel) -> CallbackWriter:
    def write(number: str, text: str) -> Callback:
        fields = {
            "msisdn": number.removeprefix("+"), "to": channel.number.removeprefix("+"), "messageId": f"0A{next(_serial):014X}",
            "text": text, "type": "text",
        }  # fmt: skip
        return Callback(json.dumps(fields).encode(), {"Content-Type": "application/json"})

    return write
