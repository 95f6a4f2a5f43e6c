"""Whatever is sent to a webhook of Twilio or Vonage, the web application answers it, and never with 5xx."""

import asyncio

import pytest

from config.settings.startup_check import load_settings_and_surveys
from ingest.web import create_app
from tests.providers import test_twilio_webhooks, test_vonage
from tests.providers.fuzz import fuzz_app

TWILIO = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
provider = "twilio"
"""
VONAGE = """
[channels.clinic]
number = "+447700900000"
surveys = ["clinic"]
provider = "vonage"
token_env = "WORD"
"""
ENVIRONMENT = {
    "PARLEY_PUBLIC_URL": "https://sms.example.org",
    "PARLEY_TWILIO_SID": test_twilio_webhooks.ACCOUNT.sid,
    "PARLEY_TWILIO_TOKEN": test_twilio_webhooks.ACCOUNT.token,
    "PARLEY_VONAGE_KEY": "k",
    "PARLEY_VONAGE_SECRET": "s",
    "WORD": "t0ken",
}


@pytest.mark.parametrize(
    "toml, calls, sign",
    [
        (TWILIO, test_twilio_webhooks.RECORDED, test_twilio_webhooks.resigned),
        (VONAGE, test_vonage.RECORDED, test_vonage.with_token),
    ],
    ids=["twilio", "vonage"],
)
def test_every_webhook_at_random_is_answered_and_never_5xx(valkey, tmp_path, toml, calls, sign):
    (tmp_path / "parley.toml").write_text(toml)
    paths = {
        "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
        "PARLEY_REDIS_URL": valkey.url,
        "PARLEY_BROKER_URL": valkey.broker_url,
    }
    app = create_app(*load_settings_and_surveys({**paths, **ENVIRONMENT}))
    asyncio.run(fuzz_app(app, "clinic", calls, sign))
