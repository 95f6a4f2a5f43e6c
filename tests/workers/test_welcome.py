"""`parley run` says what providers have to be told."""

import msgspec
import pytest

from config.settings.channels import read_config_file, webhook_url
from config.settings.settings import Secret


@pytest.fixture
def channel(tmp_path):
    path = tmp_path / "parley.toml"
    path.write_text('[channels.clinic]\nnumber = "+33700000001"\nsurveys = ["clinic"]\n')
    return read_config_file(path, {}, [], allow_private_hooks=False).channels["clinic"]


def test_a_webhook_that_a_token_opens_is_told_without_it(channel):
    assert webhook_url(channel, "http://127.0.0.1:8000") == "http://127.0.0.1:8000/webhooks/clinic?token=…"


def test_a_webhook_that_is_signed_is_its_url(channel):
    signed = msgspec.structs.replace(channel, provider="twilio", token=Secret(""))
    assert webhook_url(signed, "https://sms.example.org") == "https://sms.example.org/webhooks/clinic"
