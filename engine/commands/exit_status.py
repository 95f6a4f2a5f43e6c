"""What does a command's exit status say? The same of every command, so that a script need not look it up."""

import sys
from typing import NoReturn

import click

EXIT_OK = 0
"""Nothing is wrong, nothing differs, and all that was asked for is done."""

EXIT_PROBLEMS = 1
"""Something is wrong, differs, or could not be done; or nothing is known of what was asked for."""

EXIT_UNUSABLE = 2
"""Nothing was tried: the command line, a file or the configuration has mistakes. Click and `web` say so too."""

EXIT_INTERRUPTED = 130
"""Ctrl-C, as shells have it."""


def exit_unusable(*problems: str) -> NoReturn:
    """Print the problems to standard error, one a line, and end with EXIT_UNUSABLE."""
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(EXIT_UNUSABLE)
