"""Runs a program of this checkout with one line of its source wrong, in a process of its own.

The folder that it runs in has everything of the checkout by symbolic links, but for the folders on the way to the file that is
changed: they are made anew. So it costs milliseconds, and what is unchanged keeps its bytecode. Python looks there first, as
it is the process's working directory, before the checkout that the virtual environment has installed.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.simulated.exploring.mutants import Mutant

ROOT = Path(__file__).parents[3]

_BYTECODE = "__pycache__"
_LEFT_OUT = ("var", _BYTECODE)
"""What no program is run from; nor anything that is hidden."""


class MutantDoesNotFitError(Exception):
    """The mutant's line does not stand once in its file. `str` says what to do."""


class ProgramRun(NamedTuple):
    """What came of a program. `exit_code` is None if it was ended as it took too long."""

    exit_code: int | None
    output: str
    errors: str
    took_s: float


def mutated_text(mutant: Mutant, root: Path = ROOT) -> str:
    """Return the mutant's file with its line wrong. Raises MutantDoesNotFitError."""
    text = (root / mutant.file).read_text()
    if (there := text.count(mutant.before)) != 1:
        todo = "change the mutant as its file has changed, or take it out with its seed"
        raise MutantDoesNotFitError(f"{mutant.name}: its line stands {there} times in {mutant.file}: {todo}")
    return text.replace(mutant.before, mutant.after)


@contextmanager
def mutated_checkout(mutant: Mutant, root: Path = ROOT) -> Iterator[Path]:
    """Yield a folder with the checkout's contents and the mutant's line, until the block ends. Raises MutantDoesNotFitError."""
    text = mutated_text(mutant, root)
    with tempfile.TemporaryDirectory(prefix="parley-mutant-") as made:
        folder = Path(made)
        entries = [each for each in root.iterdir() if each.name not in _LEFT_OUT and each.name[0] != "."]
        _link_but(entries, folder, Path(mutant.file).parts)
        (folder / mutant.file).write_text(text)
        yield folder


def run_mutated(mutant: Mutant, arguments: Sequence[str], timeout_s: float, root: Path = ROOT) -> ProgramRun:
    """Run `python arguments ...` on the mutated source. Raises MutantDoesNotFitError."""
    with mutated_checkout(mutant, root) as folder:
        return run_python(folder, arguments, timeout_s)


def run_python(folder: Path, arguments: Sequence[str], timeout_s: float) -> ProgramRun:
    """Run `python arguments ...` on the source in `folder`."""
    begun_s = time.monotonic()
    program = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    exit_code: int | None
    try:
        output, errors = program.communicate(timeout=timeout_s)
        exit_code = program.returncode
    except subprocess.TimeoutExpired:
        program.kill()
        output, errors = program.communicate()
        exit_code = None
    return ProgramRun(exit_code, output, errors, time.monotonic() - begun_s)


def _link_but(entries: Sequence[Path], folder: Path, changed: Sequence[str]) -> None:
    """Link entries into `folder`, where the file at the path `changed` is left out, and folders on the way there are made."""
    name, *below = changed
    for entry in entries:
        if entry.name == _BYTECODE and not below:
            (folder / _BYTECODE).mkdir()
            stem = Path(name).stem
            for each in entry.iterdir():
                if each.name.partition(".")[0] != stem:
                    (folder / _BYTECODE / each.name).symlink_to(each)
        elif entry.name != name:
            (folder / entry.name).symlink_to(entry)
        elif below:
            (folder / name).mkdir()
            _link_but(list(entry.iterdir()), folder / name, below)
