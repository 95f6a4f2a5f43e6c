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
        f"--env-file {tmp_path / 'nowhere'}: cannot be read (No such file or directory)\n",
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
