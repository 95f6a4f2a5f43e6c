"""`--env-file` sets what the environment does not say, for every command, wherever it stands."""

import os

import click
import pytest
from click.testing import CliRunner

from config.cli import COMMANDS, main
from config.settings.config_errors import ConfigError
from config.settings.env_file import read_env_file


@pytest.fixture
def read(tmp_path):
    def call(text, **environ):
        (tmp_path / "env").write_text(text)
        read_env_file(tmp_path / "env", environ)
        return environ

    return call


@pytest.mark.parametrize(
    "line, value",
    [("A=b", "b"), ("A=", ""), ("export A=b", "b"), ("  A=b  ", "b"), ('A="b c"', "b c"),
     ("A='b # c'", "b # c"), ("A=b=c", "b=c"), ("A=\"b'", "\"b'"), ("A=redis://:p%40w@h/0", "redis://:p%40w@h/0")],
)  # fmt: skip
def test_a_line_is_read(read, line, value):
    assert read(f"# a comment\n\n{line}\n") == {"A": value}


def test_what_is_set_already_counts_more(read):
    assert read("A=1\nB=2\n", A="here") == {"A": "here", "B": "2"}


def test_mistakes_are_told_by_their_lines_and_nothing_is_set(tmp_path):
    environ = {}
    (tmp_path / "env").write_text("A=1\ns3cret\nB =2\n")
    with pytest.raises(ConfigError) as raised:
        read_env_file(tmp_path / "env", environ)
    assert environ == {}
    assert [problem.partition(": ")[2] for problem in raised.value.problems] == [
        "line 2: expected NAME=value, or # and a comment",
        "line 3: expected NAME=value, or # and a comment",
    ]


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    result = CliRunner().invoke(main, ["check", "--env-file", str(tmp_path / "nowhere")])
    assert (result.exit_code, result.stderr) == (
        2,
        f"{tmp_path / 'nowhere'}: cannot be read (No such file or directory)\n",
    )


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("written", ["{flag} {file}", "{flag}={file}"])
def test_it_stands_anywhere(tmp_path, monkeypatch, place, written):
    (tmp_path / "env").write_text("PARLEY_PORT=http\n")
    monkeypatch.delenv("PARLEY_PORT", raising=False)
    words = ["check"]
    words[place:place] = written.format(flag="--env-file", file=tmp_path / "env").split()
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "PARLEY_PORT is 'http'" in result.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, in which the samples are."""
    assert CliRunner().invoke(main, ["init", str(tmp_path)]).exit_code == 0
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*words):
    return CliRunner().invoke(main, ["check", *words])


def test_the_folders_own_is_read_if_none_is_named(folder, monkeypatch):
    """`parley check` says what is from where, and no value."""
    monkeypatch.delenv("PARLEY_PORT", raising=False)
    monkeypatch.setenv("PARLEY_LOG", "json")
    (folder / ".env").write_text("PARLEY_PORT=8765\nPARLEY_LOG=console\n")
    told = check().stdout
    assert told.splitlines()[0] == (
        "variables from .env: PARLEY_PORT, PARLEY_LOG (the environment says otherwise, and counts more: PARLEY_LOG)"
    )
    assert "http://127.0.0.1:8765/webhooks/clinic" in told


def test_the_folders_own_is_not_read_beside_one_that_is_named(folder):
    (folder / ".env").write_text("PARLEY_PORT=http\n")
    (folder / "other").write_text("PARLEY_KEEP_DAYS=30\n")
    named = check("--env-file", "other")
    assert named.exit_code == 0
    assert named.stdout.startswith("variables from other: PARLEY_KEEP_DAYS\n")
    assert "PARLEY_PORT is 'http'" in check().stderr


def test_a_mistake_in_the_folders_own_is_told(folder):
    (folder / ".env").write_text("s3cret\n")
    told = check()
    assert (told.exit_code, told.stderr) == (2, ".env: line 1: expected NAME=value, or # and a comment\n")


def test_another_thing_of_that_name_is_none(folder):
    (folder / ".env").unlink()
    (folder / ".env").mkdir()
    assert check().stdout.startswith("channel clinic")


@pytest.fixture(autouse=True)
def _same_environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def leaves(command, name):
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from leaves(each, f"{name} {each.name}")
    yield name, command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_of_it(name):
    command = main.get_command(click.Context(main), name)
    for each, leaf in leaves(command, name):
        told = leaf.get_help(click.Context(leaf, info_name=each))
        assert told.count("--env-file FILE") == 1, each
