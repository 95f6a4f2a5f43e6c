"""A provider is one file: its settings are read, checked and described from it alone, and its secrets stay unsaid."""

import re
from importlib import import_module

import msgspec
import pytest

from config.settings.settings import load_settings
from engine.model.events import OutboundSms
from engine.providers import Provider, UnusableChannelError
from engine.providers.provider_registry import (
    PROVIDER_MODULES,
    account_setting_fields,
    open_provider,
    option_setting_fields,
    provider_mistakes,
)

NUMBER = "+33700000001"
SECRET = "sesame sesame sesame"


@pytest.fixture
def settings(tmp_path):
    """A function: lines of [channels.clinic] and the environment -> settings."""

    def make(lines, **environ):
        path = tmp_path / "parley.toml"
        path.write_text(f'[channels.clinic]\nnumber = "{NUMBER}"\nsurveys = ["clinic"]\n{lines}')
        return load_settings({"PARLEY_CONFIG": str(path), **environ})

    return make


def found(settings):
    return [
        line.removeprefix("F: channels.clinic")
        for line in provider_mistakes(map(settings.provider_settings, settings.channels), "F")
    ]


OCTOPUSH = {"PARLEY_OCTOPUSH_LOGIN": "me@example.com", "PARLEY_OCTOPUSH_KEY": "k3y", "TOKEN": "t0ken"}
WEBHOOK = 'provider = "webhook"\nsend_url = "https://gateway.example/send"\nsecret_env = "WORD"\n'


def test_the_simulator_is_octopush_against_ourselves(settings):
    made = settings("", PARLEY_PORT="9000", PARLEY_HOST="0.0.0.0")
    assert found(made) == []
    provider = open_provider(made.provider_settings("clinic"))
    request = provider.write_send_request(OutboundSms("a", "clinic", "+336", "x"), 0)
    assert request.url == "http://127.0.0.1:9000/simulator/v1/public/sms-campaign/send"
    assert request.headers["api-key"] == "simulator"


def test_an_account_is_in_the_environment_and_its_url_may_end_in_a_slash(settings):
    made = settings(
        'provider = "octopush"\ntoken_env = "TOKEN"', PARLEY_OCTOPUSH_URL="http://fake:1/v1/", **OCTOPUSH
    )
    assert found(made) == []
    request = open_provider(made.provider_settings("clinic")).write_send_request(
        OutboundSms("a", "clinic", "+336", "x"), 0
    )
    assert (request.url, request.headers["api-login"]) == (
        "http://fake:1/v1/sms-campaign/send",
        "me@example.com",
    )
    assert "k3y" not in repr(made)


@pytest.mark.parametrize(
    "lines, environ, lines_found",
    [
        ('provider = "octopussy"', {}, [".provider is 'octopussy': did you mean octopush?"]),
        ('provider = "smoke"', {}, [f".provider is 'smoke': expected {', '.join(PROVIDER_MODULES)}"]),
        ("with_reply = true", {}, [".with_reply is unknown: did you mean with_replies?"]),
        ("timezon = 'UTC'", {}, [".timezon is unknown: did you mean timezone?"]),
        ('purpose = "ads"', {}, [".purpose is 'ads': expected alert or wholesale"]),
        ("sms_low_cost = 'yes'", {}, [".sms_low_cost is 'yes': expected bool, got str"]),
        ("auto_optimize_text = 1", {}, [".auto_optimize_text is 1: expected bool, got int"]),
        ("sms_lowcost = true", {}, [".sms_lowcost is unknown: did you mean sms_low_cost?"]),
        (WEBHOOK + "sms_low_cost = true", {"WORD": SECRET}, [".sms_low_cost is for the provider octopush only: take it out"]),
        ("with_replies = 1", {}, [".with_replies is 1: expected bool, got int"]),
        (WEBHOOK + 'purpose = "alert"', {"WORD": SECRET}, [".purpose is for the provider octopush only: take it out"]),
        (WEBHOOK, {"WORD": "sesame"}, [".secret_env: in its variable: expected at least 16 characters"]),
        (WEBHOOK + 'secret = "sesame"', {"WORD": SECRET}, [".secret: expected secret_env instead, which names the variable that holds it"]),
        (WEBHOOK.replace("secret_env", "secret"), {}, [
            ".secret: expected secret_env instead, which names the variable that holds it",
            ".secret_env is missing: expected the name of a variable that holds the secret with which both sides sign",
        ]),
        (WEBHOOK + 'secrets_env = "WORD"', {"WORD": SECRET}, [".secrets_env is unknown: did you mean secret_env?"]),
        (WEBHOOK + 'send_url_env = "URL"', {"WORD": SECRET, "URL": "https://g"}, [".send_url is there beside send_url_env: expected one of the two"]),
        ('provider = "webhook"', {}, [
            ".send_url is missing: expected where the gateway takes SMS to be sent",
            ".secret_env is missing: expected the name of a variable that holds the secret with which both sides sign",
        ]),
        ('provider = "octopush"', {"PARLEY_OCTOPUSH_LOGIN": "sesame\n", "PARLEY_OCTOPUSH_URL": "ftp://sesame"}, [
            "PARLEY_OCTOPUSH_URL: expected http:// or https://, a host, and the base path, without ? and #",
            "PARLEY_OCTOPUSH_LOGIN: expected printable ASCII without blanks at its ends, as it goes into an HTTP header",
            "PARLEY_OCTOPUSH_KEY is not set: expected it, as channel clinic has the provider octopush",
            ": token_env is missing: expected the name of a variable with the token that Octopush's callbacks carry",
        ]),
    ],
)  # fmt: skip
def test_every_mistake_is_a_line_and_no_line_shows_a_secret(settings, lines, environ, lines_found):
    made = settings(lines, **environ)
    assert found(made) == lines_found
    assert "sesame" not in "\n".join(found(made))
    with pytest.raises(UnusableChannelError) as raised:
        open_provider(made.provider_settings("clinic"))
    assert len(raised.value.problems) == len(lines_found)


def test_any_option_may_come_from_the_environment(settings):
    lines = 'provider = "octopush"\ntoken_env = "TOKEN"\nsimulation_mode_env = "DRY"\n'
    made = settings(lines, DRY="true", **OCTOPUSH)
    assert found(made) == []
    sent = open_provider(made.provider_settings("clinic")).write_send_request(
        OutboundSms("a", "clinic", "+336", "x"), 0
    )
    assert msgspec.json.decode(sent.body)["simulation_mode"] is True


def test_an_account_that_two_channels_share_is_complained_of_once(settings):
    other = '[channels.other]\nnumber = "+33700000002"\nsurveys = ["clinic"]\nprovider = "octopush"\n'
    lines = found(settings('provider = "octopush"\n' + other))
    assert len([line for line in lines if line.startswith("PARLEY_OCTOPUSH_KEY")]) == 1
    assert len([line for line in lines if "token_env is missing" in line]) == 2


def test_a_provider_that_needs_the_public_url_says_so(settings):
    environ = {"PARLEY_TWILIO_SID": "AC" + "0" * 32, "PARLEY_TWILIO_TOKEN": "t"}
    (line,) = found(settings('provider = "twilio"', **environ))
    assert line.startswith(": PARLEY_PUBLIC_URL is not set: expected it")
    assert (
        found(settings('provider = "twilio"', PARLEY_PUBLIC_URL="https://sms.example.org/", **environ)) == []
    )


@pytest.mark.parametrize("name", sorted(PROVIDER_MODULES))
def test_every_setting_of_a_provider_is_described(name):
    module = import_module(PROVIDER_MODULES[name])
    assert all(
        field.meaning and "|" not in field.meaning
        for field in [*account_setting_fields(), *option_setting_fields(name)]
    )
    for shape in (module.Account, module.Options):
        assert shape.__struct_config__.frozen
        assert all(re.fullmatch("[a-z_]+", field) for field in shape.__struct_fields__)


def test_the_account_of_the_simulator_is_nobodys_to_set():
    names = [field.name for field in account_setting_fields()]
    assert names[:3] == ["PARLEY_OCTOPUSH_URL", "PARLEY_OCTOPUSH_LOGIN", "PARLEY_OCTOPUSH_KEY"]
    assert not [name for name in names if "SIMULATOR" in name]
    assert len(set(names)) == len(names)


def test_a_provider_has_all_that_the_protocol_asks_for(settings):
    made = settings(WEBHOOK, WORD=SECRET)
    provider = open_provider(made.provider_settings("clinic"))
    wanted = [*Provider.__annotations__, *(name for name in vars(Provider) if not name.startswith("_"))]
    assert all(hasattr(provider, name) for name in wanted)
