"""`parley key`: what it prints opens the API once its table is in parley.toml, and nothing else is kept of it."""

import tomllib
from hashlib import sha256

import pytest
from click.testing import CliRunner

from ingest.commands.key import key
from tests.support.inviting import Api

CONFIG = '[channels.clinic]\nnumber = "+33700000001"\nsurveys = ["clinic"]\n[channels.ward]\nnumber = "+33700000002"\nsurveys = ["clinic"]\n'


@pytest.fixture
def config(tmp_path, monkeypatch):
    path = tmp_path / "parley.toml"
    path.write_text(CONFIG)
    monkeypatch.setenv("PARLEY_CONFIG", str(path))
    return path


def test_a_key_that_is_made_opens_the_api(config, web):
    made = CliRunner().invoke(key, ["hospital", "--channel", "clinic"])
    assert made.exit_code == 0
    table = made.stderr[made.stderr.index("[keys.") :]
    config.write_text(CONFIG + table)
    base = web(PARLEY_CONFIG=str(config))
    assert (
        Api(base, made.stdout.strip()).invite(identifier="+33612345678", channel="clinic").status_code == 202
    )
    assert Api(base, made.stdout.strip()).invite(identifier="+33612345678", channel="ward").status_code == 403
    assert Api(base, "simulator").invite(identifier="+33612345678", channel="clinic").status_code == 401


def test_only_its_hash_is_written_and_no_two_are_alike(config):
    first, second = (CliRunner().invoke(key, ["hospital"]) for _ in range(2))
    assert first.stdout != second.stdout
    assert first.stdout.strip() not in first.stderr
    written = tomllib.loads(first.stderr[first.stderr.index("[keys.") :])["keys"]["hospital"]
    assert written["sha256"] == sha256(first.stdout.strip().encode()).hexdigest()
    assert written["channels"] == ["clinic", "ward"]


def test_what_a_key_may_not_is_in_its_table_and_nothing_else(config):
    def fields(*options):
        made = CliRunner().invoke(key, ["hospital", *options])
        return tomllib.loads(made.stderr[made.stderr.index("[keys.") :])["keys"]["hospital"]

    assert fields().keys() == {"sha256", "channels", "requests_per_minute"}
    less = fields("--survey", "clinic", "--read-only", "--no-numbers")
    assert (less["surveys"], less["read_only"], less["numbers"]) == (["clinic"], True, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["Ä"],
        ["simulator"],
        ["x", "--channel", "nobody"],
        ["x", "--survey", "nothing"],
        ["x", "--requests-per-minute", "-1"],
    ],
)
def test_what_would_not_work_is_refused(config, arguments):
    assert CliRunner().invoke(key, arguments).exit_code == 2
