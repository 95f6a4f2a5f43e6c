"""What is searched for, what is kept of it, and what is told: with a program that stands for the simulation, and finds one
mutant."""

import json
from pathlib import Path

import pytest

from tests.simulated.exploring.killing_runs import (
    HiddenMutant,
    KillingRun,
    KnownMutants,
    load_known,
    save_known,
)
from tests.simulated.exploring.mutants import MUTANTS
from tests.simulated.exploring.mutation_report import MutantSearch, main, search_for, take_in

pytestmark = pytest.mark.processes

BY_NAME = {each.name: each for each in MUTANTS}

FOUND = "commit_drops_mailbox"
SURVIVES = "throttle_not_counted"

STAND_IN = """
import json, sys
from config.store.lua_library import LIBRARY_SOURCE
assert sys.argv[1:] in (
    ["--plays", "all", "--seconds", "1", "--until-failure"],
    ["--plays", "talk", "--seconds", "1", "--until-failure"],
    ["--plays", "talk", "--seed", "7", "--faults", '[["web-1", 3, "late", 300]]'],
), sys.argv
print("what was done")
if {condition}:
    faults = [["web-1", 3, "late", 300]]
    found = {{"play": "talk", "seed": 7, "faults": faults, "violation": "an SMS is lost", "runs": 12}}
    print(json.dumps(found))
    sys.exit(1)
print(json.dumps({{"runs": 40}}))
"""

IS_MUTATED = "\"redis.call('DEL', new.mailbox)\" in LIBRARY_SOURCE"


RUN = KillingRun("talk", 7, [["web-1", 3, "late", 300]], "an SMS is lost")


def stand_in(folder: Path, condition: str = IS_MUTATED) -> list[str]:
    script = folder / "stand_in.py"
    script.write_text(STAND_IN.format(condition=condition))
    return [str(script)]


def test_a_mutant_that_is_found_is_kept_and_told(tmp_path: Path, capsys):
    known = tmp_path / "known.json"
    save_known(KnownMutants({}, {}), known)
    assert main([FOUND, "--seconds", "1"], stand_in(tmp_path), file=known) == 0
    assert load_known(known).killed == {FOUND: RUN}
    told = capsys.readouterr().out
    assert f"1/1 {FOUND}: talk: an SMS is lost" in told
    assert "1 of 1 found" in told


def test_one_that_survives_is_told_and_keeps_the_run_that_it_had(tmp_path: Path, capsys):
    before = KnownMutants({SURVIVES: KillingRun("talk", 3, [], "too many")}, {})
    known = tmp_path / "known.json"
    save_known(before, known)
    assert main([SURVIVES, "--seconds", "1"], stand_in(tmp_path), file=known) == 1
    assert load_known(known) == before
    assert "SURVIVED, but a run of talk is known" in capsys.readouterr().out


def test_one_that_is_known_to_do_no_harm_may_survive(tmp_path: Path, capsys):
    known = tmp_path / "known.json"
    save_known(
        KnownMutants({}, {SURVIVES: HiddenMutant("another counts", "tests/test_names.py::test_x")}), known
    )
    assert main([SURVIVES, "--seconds", "1"], stand_in(tmp_path), file=known) == 0
    assert "hidden: another counts" in capsys.readouterr().out


def test_a_run_that_fails_without_the_mutant_says_nothing_of_it(tmp_path: Path):
    search = search_for(BY_NAME[FOUND], 1, program=stand_in(tmp_path, "True"))
    assert (search.found, search.error) == (None, "talk with seed 7 fails without the mutant, too")


def test_a_program_that_breaks_has_not_found_a_mutant(tmp_path: Path):
    search = search_for(BY_NAME[FOUND], 1, program=stand_in(tmp_path, "1 / 0"))
    assert (search.found, search.error) == (None, "exit status 1: ZeroDivisionError: division by zero")


def test_one_that_is_found_does_harm_whatever_was_said():
    known = KnownMutants({}, {FOUND: HiddenMutant("another", "tests/test_names.py::test_x")})
    found = RUN
    search = MutantSearch(BY_NAME[FOUND], 1.0, 12, found)
    assert take_in(known, search) == KnownMutants({FOUND: found}, {})


def test_what_is_known_is_kept_in_the_order_of_the_mutants(tmp_path: Path):
    known = tmp_path / "known.json"
    seeds = {each.name: KillingRun("talk", 1, [], "") for each in reversed(MUTANTS)}
    save_known(KnownMutants(seeds, {}), known)
    assert list(json.loads(known.read_text())["killed"]) == [each.name for each in MUTANTS]


def test_a_mutant_that_there_is_not_is_refused(tmp_path: Path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["nobody"], stand_in(tmp_path))
    assert "no mutant is called nobody" in capsys.readouterr().err
