"""A program that runs in the folder of a mutant runs the mutant, and everything else as it is."""

import pytest

from tests.simulated.exploring.mutants import MUTANTS
from tests.simulated.exploring.mutated_source import ROOT, mutated_checkout, run_mutated, run_python

pytestmark = pytest.mark.processes

BY_NAME = {each.name: each for each in MUTANTS}

TIMEOUT_S = 60.0

PRINT_LUA = "from config.store.lua_library import LIBRARY_SOURCE; print(LIBRARY_SOURCE)"

COUNT_STARTS = """
from zoneinfo import ZoneInfo
from engine.model.lane import ChannelLine
from engine.model.policy import ChannelPolicy
from engine.turns.admission import throttle_start
line = ChannelLine()
policy = ChannelPolicy(surveys=(), timezone=ZoneInfo("UTC"), start_burst=1, start_per_minute=1)
print(throttle_start(line, policy, 0), throttle_start(line, policy, 0))
"""


def test_the_server_side_functions_are_the_mutants():
    mutant = BY_NAME["commit_drops_mailbox"]
    changed = run_mutated(mutant, ["-c", PRINT_LUA], TIMEOUT_S)
    usual = run_python(ROOT, ["-c", PRINT_LUA], TIMEOUT_S)
    assert "redis.call('DEL', new.mailbox)" in changed.output
    assert "redis.call('DEL', new.mailbox)" not in usual.output
    assert len(changed.output.splitlines()) == len(usual.output.splitlines())


def test_python_is_the_mutants_though_there_is_bytecode_of_the_other():
    assert run_python(ROOT, ["-c", COUNT_STARTS], TIMEOUT_S).output == "False True\n"
    assert (
        run_mutated(BY_NAME["throttle_not_counted"], ["-c", COUNT_STARTS], TIMEOUT_S).output
        == "False False\n"
    )


def test_a_module_is_run_as_the_mutant_has_it():
    run = run_mutated(
        BY_NAME["commit_drops_mailbox"], ["-m", "tests.simulated.exploring.mutation_report", "-h"], TIMEOUT_S
    )
    assert (run.exit_code, run.errors) == (0, "")
    assert run.output.startswith("usage: make mutants")


@pytest.mark.parametrize("name", ["commit_drops_mailbox", "throttle_not_counted", "erasure_leaves_lane_lock"])
def test_all_but_the_way_to_the_file_is_linked(name: str):
    mutant = BY_NAME[name]
    with mutated_checkout(mutant) as folder:
        file = folder / mutant.file
        made = {
            each.relative_to(folder) for each in folder.rglob("*") if not each.is_symlink() and each.is_file()
        }
        assert made == {file.relative_to(folder)}
        beside = {each.name for each in (ROOT / mutant.file).parent.iterdir()}
        assert {each.name for each in file.parent.iterdir()} == beside
        assert (folder / "tests").resolve() == ROOT / "tests"
    assert not folder.exists()
    assert (ROOT / mutant.file).exists()


def test_the_checkout_stays_as_it_is():
    before = {each.file: (ROOT / each.file).read_bytes() for each in MUTANTS}
    run_mutated(BY_NAME["throttle_not_counted"], ["-c", COUNT_STARTS], TIMEOUT_S)
    assert {file: (ROOT / file).read_bytes() for file in before} == before


def test_a_program_that_takes_too_long_is_ended():
    run = run_python(ROOT, ["-c", "print('begun', flush=True)\nimport time; time.sleep(600)"], 5.0)
    assert run.exit_code is None
    assert run.output in ("begun\n", "")
