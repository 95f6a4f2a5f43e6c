"""By which run each mutant is found, and which are hidden from all: what killing_runs.json has.

A run is a play, a seed, and a schedule of faults, which was shrunk when it was found. The schedule names calls by their numbers: if
the code makes one call more, they may be others. So a run may find its mutant no more, though the simulation does: `make mutants
MUTANT=name` then finds another.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.simulated.exploring.mutants import MUTANTS, Mutant
from tests.simulated.exploring.mutated_source import ROOT, ProgramRun, run_mutated

FILE = Path(__file__).with_suffix(".json")

SIMULATION = ("-m", "tests.simulated")
"""The program, and how it is asked: `--faults` replays one run, `--seconds` searches among others for so long. It ends with exit
status 1 if an oracle objected, and its last line is JSON then: the fields of a KillingRun, and `runs`, how many there were."""

REPLAY_TIMEOUT_S = 60.0


class KillingRun(NamedTuple):
    """`faults` are (actor, call, kind, amount). `violation` is the promise that is broken."""

    play: str
    seed: int
    faults: list[list[str | int]]
    violation: str


class HiddenMutant(NamedTuple):
    """Why no run finds a mutant: another `defence` hides it, or what it takes is not played. The `test` holds what it breaks, as
    pytest names it."""

    defence: str
    test: str


class KnownMutants(NamedTuple):
    """By name."""

    killed: dict[str, KillingRun]
    hidden: dict[str, HiddenMutant]

    def undecided(self) -> list[str]:
        """Return those that no run is known for, though nobody has said why."""
        return [each.name for each in MUTANTS if each.name not in self.killed.keys() | self.hidden.keys()]


def load_known(file: Path = FILE) -> KnownMutants:
    stored = json.loads(file.read_text())
    return KnownMutants(
        {name: KillingRun(**each) for name, each in stored["killed"].items()},
        {name: HiddenMutant(**each) for name, each in stored["hidden"].items()},
    )


def save_known(known: KnownMutants, file: Path = FILE) -> None:
    """Write them in the order of MUTANTS; of mutants that there are no more, nothing."""
    stored = {
        kind: {each.name: of[each.name]._asdict() for each in MUTANTS if each.name in of}
        for kind, of in known._asdict().items()
    }
    file.write_text(json.dumps(stored, indent=2) + "\n")


def replay_arguments(run: KillingRun, program: Sequence[str] = SIMULATION) -> list[str]:
    faults = json.dumps(run.faults)
    return [*program, "--plays", run.play, "--seed", str(run.seed), "--faults", faults]


def search_arguments(seconds: float, plays: str, program: Sequence[str] = SIMULATION) -> list[str]:
    return [*program, "--plays", plays, "--seconds", f"{seconds:g}", "--until-failure"]


def replay(
    mutant: Mutant, run: KillingRun, program: Sequence[str] = SIMULATION, root: Path = ROOT
) -> ProgramRun:
    """Replay a run on the mutated source."""
    return run_mutated(mutant, replay_arguments(run, program), REPLAY_TIMEOUT_S, root)


def read_violation(run: ProgramRun) -> KillingRun | None:
    """What an oracle objected to; None if none did, or if the program ended otherwise."""
    last = run.output.rstrip().rpartition("\n")[2]
    if run.exit_code != 1 or not last.startswith("{"):
        return None
    told = json.loads(last)
    return KillingRun(**{name: told[name] for name in KillingRun._fields})


def runs_told(run: ProgramRun) -> int | None:
    """How many runs the program says that it has made, in the last line of its output."""
    last = run.output.rstrip().rpartition("\n")[2]
    return json.loads(last).get("runs") if last.startswith("{") else None
