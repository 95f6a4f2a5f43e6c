"""What the documents tell people to type exists, down to the option."""

import click
import pytest

from config.cli import main
from tests.support import documents
from tests.support.documents import RUNBOOK

COMMANDS = sorted(set().union(*map(documents.commands, documents.documents().values())))


def test_the_runbook_names_commands():
    assert {"parley status", "parley dead list", "parley lane <number>"} <= documents.commands(
        RUNBOOK.read_text()
    )


@pytest.mark.parametrize("typed", COMMANDS)
def test_a_command_that_is_named_exists(typed):
    command, words = main, typed.split()[1:]
    with click.Context(main) as context:
        while isinstance(command, click.Group) and words and not words[0].startswith(("-", "<")):
            name = words.pop(0)
            command = command.get_command(context, name)
            assert command is not None, f"there is no {name} in {typed}"
        options = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}
        arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
        assert arguments or not any(word.startswith("<") for word in words), f"{typed} takes no argument"
