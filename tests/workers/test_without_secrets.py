"""What operators type needs parley.toml and the URLs of Redis, and no secret of a channel or a hook: it says what it did without."""

import json

import pytest
from click.testing import CliRunner

from config.cli import main
from tests.support.hook_endpoint import SECRET

CONFIG = """
[channels.clinic]
provider = "octopush"
number = "+33700000001"
surveys = ["clinic"]
token_env = "CLINIC_TOKEN"

[channels.gateway]
provider = "webhook"
number = "+33700000002"
surveys = ["clinic"]
send_url = "https://gateway.example.org"
secret_env = "GATEWAY_SECRET"

[hooks.crm]
url = "https://crm.example.org/parley"
secret_env = "CRM_SECRET"
"""
SECRETS = {"CLINIC_TOKEN": "t" * 20, "GATEWAY_SECRET": "s" * 40, "CRM_SECRET": SECRET}
ACCOUNT = {"PARLEY_OCTOPUSH_LOGIN": "login", "PARLEY_OCTOPUSH_KEY": "key"}


@pytest.fixture
def run(tmp_path, valkey, monkeypatch):
    (tmp_path / "parley.toml").write_text(CONFIG)
    for name in (*SECRETS, *ACCOUNT, "PARLEY_SURVEYS", "PARLEY_OPTOUT_KEY"):
        monkeypatch.delenv(name, raising=False)
    own = {
        "PARLEY_CONFIG": tmp_path / "parley.toml", "PARLEY_REDIS_URL": valkey.url,
        "PARLEY_BROKER_URL": valkey.broker_url, "PARLEY_VAR": tmp_path / "var",
    }  # fmt: skip
    for name, value in own.items():
        monkeypatch.setenv(name, str(value))

    def call(words, **secrets):
        return CliRunner().invoke(main, words.split(), env=secrets)

    return call


MISSING = f"channels.clinic.token_env: the variable CLINIC_TOKEN is not set (and {len(SECRETS) - 1} more): what needs it"

COMMANDS = [
    "lane +33612345678 --json",
    "dead list",
    "channel list --json",
    "channel pause clinic --why test",
    "channel resume clinic",
    "surveys",
    "transcript +33612345678",
    "optout list",
    "results clinic",
    "hooks list",
    "erase +33612345678 --yes",
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_does_without_and_says_so(run, words):
    result = run(words)
    assert MISSING in result.stderr
    with_secrets = run(words, **SECRETS)
    assert "is not set" not in with_secrets.stderr
    assert result.exit_code == with_secrets.exit_code


def test_what_is_wrong_with_the_file_is_still_told(run, tmp_path):
    (tmp_path / "parley.toml").write_text(CONFIG.replace("+33700000002", "0612"))
    result = run("channel list")
    assert (result.exit_code, "channels.gateway.number is '0612'" in result.stderr) == (2, True)
    assert "CLINIC_TOKEN" not in result.stderr


def test_status_says_what_it_did_not_check_and_is_not_alarmed(run):
    notes = json.loads(run("status --json").stdout)["notes"]
    first = "channels.clinic.token_env: the variable CLINIC_TOKEN is not set"
    (note,) = [each for each in notes if each.startswith("what needs secrets is not checked here: ")]
    assert f"{first} (and {len(SECRETS) + len(ACCOUNT) - 1} more)" in note
    assert not any("no process would start" in each for each in notes)
    assert json.loads(run("status --json", **SECRETS, **ACCOUNT).stdout)["notes"] == []


def test_a_process_and_a_test_of_a_hook_need_them(run):
    for words in ("check", "hooks test crm"):
        result = run(words)
        assert (result.exit_code, "CRM_SECRET is not set" in result.stderr) == (2, True)
