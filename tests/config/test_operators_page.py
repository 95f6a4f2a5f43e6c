"""What the README tells operators to type exists, down to the option."""

import re

import click
import pytest

from config.cli import main
from tests.support.prometheus import ROOT

README = (ROOT / "README.md").read_text()
(PAGE,) = re.findall(r"^## For operators\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
COMMANDS = sorted(set(re.findall(r"`(parley [^`]+)`", PAGE)))


def test_the_page_names_commands():
    assert {"parley status", "parley dead list", "parley lane <number>"} <= set(COMMANDS)
    assert not [line for line in PAGE.splitlines() if line.count("`") % 2], (
        "a command is broken over two lines"
    )


@pytest.mark.parametrize("typed", COMMANDS)
def test_a_command_that_it_names_exists(typed):
    command, words = main, typed.split()[1:]
    with click.Context(main) as context:
        while isinstance(command, click.Group):
            name = words.pop(0)
            command = command.get_command(context, name)
            assert command is not None, f"there is no {name} in {typed}"
        options = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}
        arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
        assert arguments or not any(word.startswith("<") for word in words), f"{typed} takes no argument"
