"""Whatever is sent to a webhook, the web application answers it, and never with 5xx."""

import asyncio
from time import time

import msgspec
import pytest

from config.settings.startup_check import load_settings_and_surveys
from ingest.web import create_app
from tests.providers import test_octopush, test_webhook
from tests.providers.fuzz import fuzz_app

OCTOPUSH = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
provider = "octopush"
token_env = "WORD"
originators = ["12345"]
"""
WEBHOOK = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
provider = "webhook"
send_url = "http://127.0.0.1:9/send"
secret_env = "WORD"
originators = ["19601"]
"""


def octopush_signed(call):
    return msgspec.structs.replace(call, query=b"token=t")


def webhook_signed(call):
    return test_webhook.signed(call.body, at=int(time()))


@pytest.fixture
def app(valkey, tmp_path):
    """A function: parley.toml and the environment -> a web application on a real Valkey."""

    def make(toml, **environ):
        (tmp_path / "parley.toml").write_text(toml)
        paths = {
            "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
            "PARLEY_REDIS_URL": valkey.url,
            "PARLEY_BROKER_URL": valkey.broker_url,
        }
        return create_app(*load_settings_and_surveys({**paths, **environ}))

    return make


@pytest.mark.parametrize(
    "toml, word, calls, sign",
    [
        (OCTOPUSH, "t", test_octopush.RECORDED, octopush_signed),
        (WEBHOOK, test_webhook.SECRET, test_webhook.RECORDED, webhook_signed),
    ],
    ids=["octopush", "webhook"],
)
def test_every_webhook_at_random_is_answered_and_never_5xx(app, toml, word, calls, sign):
    made = app(toml, WORD=word, PARLEY_OCTOPUSH_LOGIN="l", PARLEY_OCTOPUSH_KEY="k")
    calls = [sign(call) for call in calls]
    asyncio.run(fuzz_app(made, "clinic", calls, sign))
