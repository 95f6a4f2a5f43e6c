"""`parley check --live` asks each provider for the account, and `parley check` tells what the provider has to be told."""

import pytest
from click.testing import CliRunner

from engine.providers import AccountState, ChannelFault, OutcomeUnknown, ProviderChannel
from engine.providers import twilio as twilio_codec
from engine.providers.octopush import Account, Options, make_provider
from tests.support import twilio, vonage
from tests.support.octopush import FakeOctopush
from tests.support.twilio import FakeTwilio
from tests.support.vonage import FakeVonage
from tests.support.waiting import free_port
from workers.commands.check import check

SECRET = "s3cret-" * 4


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function: a provider, its options, settings -> the exit status and what is said of a channel with it."""
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    for name in ("PARLEY_SURVEYS", "PARLEY_REDIS_URL", "PARLEY_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARLEY_VAR", str(tmp_path / "var"))
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("PARLEY_PUBLIC_URL", "https://sms.example.org")

    def call(provider, options="", *, live=True, **settings):
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "parley.toml").write_text(
            f'[channels.clinic]\nnumber = "+33700000001"\nsurveys = ["clinic"]\nprovider = "{provider}"\n{options}\n'
        )
        result = CliRunner().invoke(check, ["--live"] if live else [])
        assert SECRET not in result.output
        return result.exit_code, result.output

    return call


TOKEN_ENV = 'token_env = "TOKEN"'


@pytest.mark.processes
@pytest.mark.parametrize(
    "key, status, told",
    [
        ("key", 0, "octopush: the keys are right, and 12.54 euros are left\n"),
        ("other", 2, "octopush: the account cannot be used (101: Incorrect login details)\n"),
    ],
)
def test_octopush_is_asked(run, key, status, told):
    with FakeOctopush() as fake:
        keys = {"PARLEY_OCTOPUSH_LOGIN": "login", "PARLEY_OCTOPUSH_KEY": key}
        found = run("octopush", TOKEN_ENV, PARLEY_OCTOPUSH_URL=fake.url, **keys)
        assert (found[0], told in found[1]) == (status, True), found[1]
        assert not fake.ledger().received


@pytest.mark.parametrize(
    "token, status, told",
    [
        (twilio.TOKEN, 0, "twilio: the keys are right, and 7.50 USD are left\n"),
        ("t" * 32, 2, "twilio: the account cannot be used (http 401: Twilio does not know the account, or its keys)\n"),
    ],
)  # fmt: skip
def test_twilio_is_asked(run, token, status, told):
    with FakeTwilio() as fake:
        keys = {"PARLEY_TWILIO_SID": twilio.SID, "PARLEY_TWILIO_TOKEN": token}
        found = run("twilio", PARLEY_TWILIO_URL=fake.url, **keys)
        assert (found[0], told in found[1]) == (status, True), found[1]
        assert not fake.messages


@pytest.mark.parametrize(
    "secret, status, told",
    [
        (vonage.SECRET, 0, "vonage: the keys are right, and 10.28 EUR are left\n"),
        ("wrong", 2, "vonage: the account cannot be used (http 401: Vonage does not know the account, or its keys)\n"),
    ],
)  # fmt: skip
def test_vonage_is_asked(run, secret, status, told):
    with FakeVonage() as fake:
        keys = {"PARLEY_VONAGE_KEY": vonage.KEY, "PARLEY_VONAGE_SECRET": secret}
        found = run("vonage", TOKEN_ENV, PARLEY_VONAGE_URL=fake.url, **keys)
        assert (found[0], told in found[1]) == (status, True), found[1]
        assert not fake.received


def test_a_provider_that_is_away_is_no_wrong_key(run):
    away = f"http://127.0.0.1:{free_port()}"
    keys = {"PARLEY_VONAGE_KEY": vonage.KEY, "PARLEY_VONAGE_SECRET": vonage.SECRET}
    status, said = run("vonage", TOKEN_ENV, PARLEY_VONAGE_URL=away, **keys)
    assert status == 1
    assert "vonage: not known (ConnectionError: the provider cannot be reached)\n" in said


@pytest.mark.parametrize(
    "provider, options, told",
    [
        ("webhook", 'send_url = "https://gateway.example.org"\nsecret_env = "TOKEN"',
         "webhook: its API has nothing to ask for, so whether its secret is right is not known\n"),
        ("simulator", "", "simulator: there is no account to ask for\n"),
    ],
)  # fmt: skip
def test_who_cannot_be_asked_is_told(run, provider, options, told):
    status, said = run(provider, options)
    assert (status, told in said) == (0, True), said


@pytest.mark.parametrize(
    "status, body, answer",
    [
        (200, b'{"amount": 204, "unit": "sms_premium"}', AccountState(204, "sms_premium")),
        (400, b'{"code": 101, "message": "no"}', ChannelFault("101", "no")),
        (403, b"<html>", ChannelFault("http 403", "Octopush does not know the account, or its keys")),
        (200, b'{"amount": null}', OutcomeUnknown("http 200", "Octopush's answer is not one that we know")),
        (500, b'{"code": 500}', OutcomeUnknown("http 500", "Octopush's answer is not one that we know")),
    ],
)
def test_what_octopush_may_answer_is_understood(status, body, answer):
    place = ProviderChannel("clinic", "+33700000001", "token")
    assert (
        make_provider(place, Account(login="l", key="k"), Options()).read_account_reply(status, body)
        == answer
    )


def test_an_account_of_twilio_under_another_has_no_balance_of_its_own():
    place = ProviderChannel("visit", "+33700000004", webhook_url="https://sms.example.org/webhooks/visit")
    account = twilio_codec.Account(sid=twilio.SID, token=twilio.TOKEN)
    codec = twilio_codec.make_provider(place, account, twilio_codec.Options())
    answer = codec.read_account_reply(200, b'{"account_sid": "AC1", "balance": null, "currency": null}')
    assert answer == AccountState(None, "")
    assert isinstance(codec.read_account_reply(200, b"<html>"), OutcomeUnknown)


def test_the_url_for_the_provider_is_told_without_its_token(run):
    keys = {"PARLEY_OCTOPUSH_LOGIN": "login", "PARLEY_OCTOPUSH_KEY": "key"}
    _, config = run("octopush", TOKEN_ENV, live=False, **keys)
    assert (
        "  webhook https://sms.example.org/webhooks/clinic?token=… (… is what the variable of token_env holds)\n"
        in config
    )
    assert "PARLEY_PUBLIC_URL" not in config
    empty = CliRunner().invoke(check, env={"PARLEY_PUBLIC_URL": ""}).output
    assert "  webhook <PARLEY_PUBLIC_URL>/webhooks/clinic?token=…" in empty
    assert "  warning: PARLEY_PUBLIC_URL is not set: expected where octopush reaches `web`" in empty
