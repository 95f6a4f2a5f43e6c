"""`parley check` tells what would run, and what would not though it is there."""

import re

import pytest
from click.testing import CliRunner

from engine.commands.lint import lint
from tests.support.hook_endpoint import SECRET
from workers.commands.check import check


def test_a_survey_that_no_channel_offers_is_told(monkeypatch):
    for name in ("PARLEY_CONFIG", "PARLEY_SURVEYS"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(check)
    assert result.exit_code == 0, result.output
    assert "  survey clinic (clinic.yaml, version " in result.output
    assert "\nsurvey tutorial (tutorial.json): no channel offers it" in result.output
    assert "\nsurvey clinic" not in result.output


def test_providers_mistakes_are_told_with_all_others_and_the_status_is_2(monkeypatch, tmp_path):
    path = tmp_path / "parley.toml"
    path.write_text(
        '[channels.clinic]\nnumber = "0612"\nsurveys = ["clinic"]\nprovider = "webhook"\npurpose = "alert"\n'
        '[channels.other]\nnumber = "+33700000002"\nsurveys = ["clinic"]\nprovider = "pigeon"\n'
    )
    monkeypatch.setenv("PARLEY_CONFIG", str(path))
    monkeypatch.delenv("PARLEY_SURVEYS", raising=False)
    result = CliRunner().invoke(check)
    assert result.exit_code == 2
    for part in (
        "channels.clinic.number is '0612'",
        "channels.clinic.purpose is for the provider octopush only",
        "channels.clinic.send_url is missing",
        "channels.clinic.secret_env is missing",
        "channels.other.provider is 'pigeon': expected octopush, simulator, twilio, vonage, webhook",
    ):
        assert part in result.stderr


@pytest.mark.parametrize("keep, warned", [("365d", False), ("366d", True)])
def test_a_survey_that_would_be_kept_for_longer_than_anything_is_told(monkeypatch, tmp_path, keep, warned):
    survey = f"survey: clinic\nstart: START\nkeep: {keep}\nsteps: [{{id: bye, say: Bye}}]\n"
    (tmp_path / "clinic.yaml").write_text(survey)
    (tmp_path / "parley.toml").write_text('[channels.a]\nnumber = "+33700000001"\nsurveys = ["clinic"]\n')
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    monkeypatch.setenv("PARLEY_SURVEYS", str(tmp_path))
    result = CliRunner().invoke(check)
    assert result.exit_code == 0, result.output
    assert ("is longer than PARLEY_KEEP_DAYS, 365" in result.output) == warned
    linted = CliRunner().invoke(lint, [str(tmp_path / "clinic.yaml")])
    assert ("is longer than PARLEY_KEEP_DAYS, 365, which holds" in linted.output) == warned, "both say so"


def test_endpoints_and_what_they_are_told_are_told(monkeypatch, tmp_path):
    (tmp_path / "parley.toml").write_text(
        '[channels.a]\nnumber = "+33700000001"\nsurveys = ["clinic"]\n'
        '[hooks.crm]\nurl = "https://crm.example.org/parley"\nsecret_env = "CRM_SECRET"\nnumbers = true\n'
        '[hooks.board]\nurl = "https://board.example.org/"\nsecret_env = "CRM_SECRET"\nchannels = ["a"]\n'
        'events = ["session.ended", "answer.given"]\nsurveys = ["clinic"]\n'
    )
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    monkeypatch.delenv("PARLEY_SURVEYS", raising=False)
    monkeypatch.setenv("CRM_SECRET", SECRET)
    result = CliRunner().invoke(check)
    assert result.exit_code == 0, result.output
    assert "\nhook crm: https://crm.example.org/parley is told every event, with numbers\n" in result.output
    assert (
        "\nhook board: https://board.example.org/ is told answer.given, session.ended, of channels a, of surveys clinic, "
        "with pseudonyms\n"
    ) in result.output
    assert SECRET not in result.output


WHOLESALE = """
survey: clinic
start: START
title: "STOP au 30101"
texts: {unavailable: none, not_found: "Hi. STOP au 30101", expired: none, gave_up: none}
steps:
  - {id: hello, say: "Hello. STOP au 30101"}
  - {id: fever, ask: "Fever?", answer: {type: yes_no}, remind: {after: 5m, text: "Still there?"}}
  - {id: bye, say: "Stop by soon."}
"""


@pytest.mark.parametrize("purpose, warned", [("alert", False), ("wholesale", True)])
def test_texts_without_stop_are_told_where_the_provider_wants_it(monkeypatch, tmp_path, purpose, warned):
    """Today every START on such a channel would become a dead letter with the code 121."""
    (tmp_path / "clinic.yaml").write_text(WHOLESALE)
    (tmp_path / "parley.toml").write_text(
        '[channels.a]\nnumber = "+33700000001"\nsurveys = ["clinic"]\nprovider = "octopush"\n'
        f'purpose = "{purpose}"\ntoken_env = "TOKEN"\n'
    )
    for name, value in {"CONFIG": tmp_path / "parley.toml", "SURVEYS": tmp_path}.items():
        monkeypatch.setenv(f"PARLEY_{name}", str(value))
    for name in ("PARLEY_OCTOPUSH_LOGIN", "PARLEY_OCTOPUSH_KEY", "TOKEN"):
        monkeypatch.setenv(name, "x" * 20)
    monkeypatch.setenv("PARLEY_PUBLIC_URL", "https://sms.example.org")
    result = CliRunner().invoke(check)
    assert result.exit_code == 0, result.output
    told = (
        "  warning: clinic.yaml: ask of 'fever', invalid, with the question after it, of 'fever', "
        "remind.text of 'fever' and 1 more without STOP: octopush refuses such texts on this channel\n"
    )
    assert (told in result.output) == warned
    assert ("warning" in result.output) == warned


@pytest.mark.parametrize(
    "host, warned", [("https://a.example", False), (f"https://{'a' * 60}.example", True)]
)
def test_a_url_that_is_too_long_for_vonage_is_told(monkeypatch, tmp_path, host, warned):
    (tmp_path / "parley.toml").write_text(
        '[channels.a]\nnumber = "+33700000001"\nsurveys = ["clinic"]\nprovider = "vonage"\ntoken_env = "TOKEN"\n'
    )
    for name, value in {
        "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
        "PARLEY_PUBLIC_URL": host,
        "PARLEY_VONAGE_KEY": "key",
        "PARLEY_VONAGE_SECRET": "secret",
        "TOKEN": "t" * 20,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PARLEY_SURVEYS", raising=False)
    result = CliRunner().invoke(check)
    assert result.exit_code == 0, result.output
    assert ("warning: the URL that Vonage is to call has " in result.output) == warned
    assert "t" * 20 not in result.output


@pytest.mark.parametrize(
    "durability, status, told",
    [
        ("strict", 2, r"appendfsync (at [\d.:]+ )?is 'everysec'; CONFIG SET appendfsync always"),
        ("relaxed", 0, "warning: the Redis of the lanes may lose what it acknowledged"),
        ("managed", 0, "durability managed: the settings of Redis are not looked at"),
    ],
)
def test_what_redis_may_lose_is_told_as_a_start_would_take_it(monkeypatch, valkey, durability, status, told):
    for name in ("PARLEY_CONFIG", "PARLEY_SURVEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    assert "durability strict: Redis keeps what it acknowledges" in CliRunner().invoke(check).output
    valkey.client().config_set("appendfsync", "everysec")
    try:
        monkeypatch.setenv("PARLEY_DURABILITY", durability)
        result = CliRunner().invoke(check)
    finally:
        valkey.client().config_set("appendfsync", "always")
    assert result.exit_code == status, result.output
    assert re.search(told, result.output), result.output


def test_a_server_that_is_away_is_no_mistake(monkeypatch):
    for name in ("PARLEY_CONFIG", "PARLEY_SURVEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARLEY_REDIS_URL", "redis://127.0.0.1:1/0")
    result = CliRunner().invoke(check)
    assert (result.exit_code, "does not answer" in result.output) == (0, True)
