"""`parley init` makes a folder in which every command works, and never writes over what is there."""

import os
import re
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from config.cli import main
from config.settings.env_file import read_env_file
from config.settings.startup_check import load_settings_and_surveys
from tests.support.processes import ROOT


def init(*words):
    return CliRunner().invoke(main, ["init", *words])


def made_in(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_settings_find_what_it_made_where_they_look(here):
    told = init()
    assert told.exit_code == 0
    assert made_in(here) == set(re.findall("^made (.*)$", told.stdout, re.MULTILINE))
    settings, surveys = load_settings_and_surveys({})
    assert settings.offered_surveys <= set(surveys.current_names())


def test_what_to_do_next_is_told_in_three_lines(here):
    _, _, todo = init("my clinic").stdout.partition("\nNext:\n")
    assert [line.partition("     ")[0].strip() for line in todo.splitlines()] == [
        "cd 'my clinic' && parley run",
        "parley phone",
        "parley check",
    ]


def test_a_folder_that_is_there_keeps_what_it_has(here):
    (here / "clinic").mkdir()
    (here / "clinic" / "notes").write_text("mine")
    assert init("clinic").exit_code == 0
    assert (here / "clinic" / "notes").read_text() == "mine"


@pytest.mark.parametrize("name", ["config/parley.toml", "config/surveys/clinic.yaml", ".env"])
@pytest.mark.parametrize("make", [Path.touch, lambda file: file.symlink_to("nowhere")])
def test_what_is_there_is_named_and_nothing_is_made(here, name, make):
    file = here / "clinic" / name
    file.parent.mkdir(parents=True)
    make(file)
    before = list((here / "clinic").rglob("*"))
    told = init("clinic")
    assert (told.exit_code, told.stderr) == (1, f"clinic/{name} is there already: nothing was made\n")
    assert list((here / "clinic").rglob("*")) == before


def test_where_nothing_can_be_made_is_a_sentence(here):
    (here / "clinic").touch()
    told = init("clinic")
    assert told.exit_code == 1
    assert re.fullmatch(r"Error: clinic\S* cannot be made \(\w.*\)\n", told.stderr)


def secrets_in(folder):
    environ = {}
    read_env_file(folder / ".env", environ)
    return environ


def test_only_its_owner_may_read_the_secrets(here):
    before = os.umask(0)
    try:
        init()
    finally:
        os.umask(before)
    assert stat.S_IMODE((here / ".env").stat().st_mode) == 0o600


def test_secrets_are_made_anew_each_time_and_shown_nowhere(here):
    told = init("one").output + init("two").output
    one, two = secrets_in(here / "one"), secrets_in(here / "two")
    assert not {*one.values()} & {*two.values()}
    assert not [secret for secret in (*one.values(), *two.values()) if secret in told]


def test_whatever_the_sample_names_is_there_once_it_is_wanted(here):
    """Each way to name a secret that stands there as a comment, taken out of it."""
    init()
    file = here / "config" / "parley.toml"
    text = re.sub(
        r'^# (token_env|secret_env|send_url|\[hooks.crm\]|url = "https://crm)',
        r"\1",
        file.read_text(),
        flags=re.MULTILINE,
    )
    assert text.count("\nsecret_env") == 2
    file.write_text(text.replace('provider = "simulator"', 'provider = "webhook"'))
    environ = secrets_in(here)
    settings, _ = load_settings_and_surveys(environ)
    channel = settings.channels["clinic"]
    assert {channel.token, channel.secrets["secret"]} < {*environ.values()}
    assert len(environ) == 3
    assert settings.hooks["crm"].secrets


def test_a_checkout_has_them_already():
    told = init(str(ROOT))
    assert told.exit_code == 1
    assert f"{ROOT}/config/parley.toml is there already" in told.stderr
    assert not (ROOT / ".env").exists()
