"""The simulation finds the mistakes that it is measured by: each in the run that is known to find it.

If the product's code has changed so that a run's faults meet other calls, it may find its mutant no more: that is no fault of the
product, and `make mutants MUTANT=name` finds another run. If it does not, the simulation has lost something.
"""

import ast

import pytest

from tests.simulated.exploring.killing_runs import load_known, read_violation, replay
from tests.simulated.exploring.mutants import MUTANTS
from tests.simulated.exploring.mutated_source import ROOT

pytestmark = pytest.mark.mutants

KNOWN = load_known()
BY_NAME = {each.name: each for each in MUTANTS}


@pytest.mark.processes
@pytest.mark.parametrize("name", KNOWN.killed)
def test_a_mutant_is_found(name: str):
    run = replay(BY_NAME[name], KNOWN.killed[name])
    assert read_violation(run) is not None, (
        f"its run finds '{name}' no more (exit status {run.exit_code}): "
        f"run make mutants MUTANT={name}\n{run.output[-2_000:]}{run.errors[-2_000:]}"
    )


def test_what_is_known_is_of_mutants_that_there_are():
    assert KNOWN.killed.keys() | KNOWN.hidden.keys() <= BY_NAME.keys()
    assert not KNOWN.killed.keys() & KNOWN.hidden.keys()


def test_what_does_no_harm_has_another_defence_that_a_test_holds():
    missing = [f"{name}: {each.test}" for name, each in KNOWN.hidden.items() if not _is_test(each.test)]
    assert missing == []


@pytest.mark.parametrize(
    "written, is_test",
    [
        ("tests/simulated/test_mutants.py::test_a_mutant_is_found", True),
        ("tests/simulated/test_mutants.py::test_nothing", False),
        ("tests/simulated/test_nowhere.py::test_a_mutant_is_found", False),
        ("tests/simulated/test_mutants.py", False),
    ],
)
def test_a_test_is_known_by_its_name(written: str, is_test: bool):
    assert _is_test(written) == is_test


def _is_test(written: str) -> bool:
    """Whether there is a test of this name, as pytest writes it."""
    file, _, name = written.partition("::")
    if not (ROOT / file).is_file():
        return False
    name = name.rpartition("::")[2].partition("[")[0]
    defined = (
        each.name
        for each in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(each, ast.FunctionDef)
    )
    return name in defined
