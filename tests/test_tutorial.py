"""The tutorial for authors does what it says: its survey, its commands and what they print."""

import re
import tomllib

import pytest
from click.testing import CliRunner

from config.cli import COMMANDS, main
from engine.commands.chat import chat
from engine.commands.lint import lint
from engine.commands.schema import schema
from tests.support.documents import ROOT, blocks
from workers.commands.check import check

TUTORIAL = (ROOT / "config" / "surveys" / "TUTORIAL.md").read_text()
SURVEY = "config/surveys/coffee.yaml"

(WRITTEN,) = re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL)
(LINTED,) = [block.partition("\n")[2] for block in blocks(TUTORIAL) if block.startswith("$ parley lint")]
(MISTAKEN,) = [block for block in blocks(TUTORIAL) if block.startswith(f"{SURVEY}\n  error")]
(TALK,) = [block for block in blocks(TUTORIAL) if block.startswith("> ")]
(CHANNEL,) = re.findall(r"```toml\n(.*?)```", TUTORIAL, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where its reader works: the survey is written, and the channel offers it."""
    (tmp_path / "config" / "surveys").mkdir(parents=True)
    (tmp_path / SURVEY).write_text(WRITTEN)
    table = (ROOT / "config" / "parley.toml").read_text()
    offered = f"surveys = {tomllib.loads(table)['channels']['clinic']['surveys']}".replace("'", '"')
    assert offered in table
    assert offered.replace("]", ', "coffee"]') == CHANNEL.strip(), "what is there, and the new one"
    (tmp_path / "config" / "parley.toml").write_text(table.replace(offered, 'surveys = ["coffee"]'))
    monkeypatch.setenv("PARLEY_CONFIG", "config/parley.toml")
    monkeypatch.setenv("PARLEY_SURVEYS", "config/surveys")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_survey_is_linted_as_shown(folder):
    result = CliRunner().invoke(lint, [SURVEY, "--strict"])
    assert (result.output, result.exit_code) == (LINTED, 0)


def test_its_mistake_is_told_as_shown(folder):
    mistaken = WRITTEN.replace('ask: "How was it, from 1 to 5?"', "ask: How was it: 1 to 5?")
    assert mistaken != WRITTEN
    (folder / SURVEY).write_text(mistaken)
    assert CliRunner().invoke(lint, [SURVEY]).output == MISTAKEN


def test_its_conversation_goes_as_shown(folder):
    (folder / "coffee-cold.txt").write_text(TALK)
    result = CliRunner().invoke(chat, [SURVEY, "--script", "coffee-cold.txt"])
    assert result.exit_code == 0, result.output
    (folder / "coffee-cold.txt").write_text(TALK.replace("see you soon!", "good bye!"))
    assert CliRunner().invoke(chat, [SURVEY, "--script", "coffee-cold.txt"]).exit_code == 1


def test_it_would_run(folder):
    result = CliRunner().invoke(check)
    assert result.exit_code == 0, result.output
    assert "survey coffee (coffee.yaml, version " in result.output


def test_the_schema_is_no_survey(folder):
    """It lies where the first line of the survey looks for it, and not among the surveys."""
    (target,) = re.findall(r"parley schema > ([\w./]+\w)", TUTORIAL)
    (folder / target).write_text(CliRunner().invoke(schema).output)
    (named,) = re.findall(r"\$schema=(\S+)", WRITTEN)
    assert (folder / SURVEY).parent.joinpath(named).resolve() == (folder / target).resolve()
    assert CliRunner().invoke(check).exit_code == 0


def test_every_command_and_option_that_it_types_exists():
    typed = re.findall(r"(?<!`)\bparley ([a-z]+)((?: [^\n`>]+)?)", TUTORIAL) + re.findall(
        r"`parley ([a-z]+)([^`>]*)", TUTORIAL
    )
    assert {"lint", "chat", "check", "run", "phone", "results", "export"} <= {name for name, _ in typed}
    for name, words in typed:
        assert name in COMMANDS, name
        known = CliRunner().invoke(main, [name, "--help"]).output
        for option in re.findall(r"--\w+", words):
            assert option in known, f"parley {name} {option}"
