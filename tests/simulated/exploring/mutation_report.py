"""Which mistakes does the simulation find, and how soon? `make mutants`, or `make mutants MUTANT="one another"`.

Each mutant is searched for by one seed after another, two mutants at once, for a minute at the most: in the play that is known to
find it, or in all. The run that finds one is kept in killing_runs.json, if it finds nothing without the mutant. Exit status 1 if
one survives of which nobody has said why.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.simulated.exploring.killing_runs import (
    FILE,
    REPLAY_TIMEOUT_S,
    SIMULATION,
    KillingRun,
    KnownMutants,
    load_known,
    read_violation,
    replay_arguments,
    runs_told,
    save_known,
    search_arguments,
)
from tests.simulated.exploring.mutants import MUTANTS, Mutant
from tests.simulated.exploring.mutated_source import ROOT, ProgramRun, run_mutated, run_python

SEARCHES_AT_ONCE = 2

SEARCH_S = 60.0

_MORE_S = 60.0
"""How much longer a search may take than it was asked to, before it is ended."""


class MutantSearch(NamedTuple):
    """What came of a search, after `took_s` and so many `runs` (None: the program has not said). Without `found` the mutant
    survived, or `error` says why nothing is known."""

    mutant: Mutant
    took_s: float
    runs: int | None
    found: KillingRun | None = None
    error: str = ""


def search_all(
    mutants: Sequence[Mutant],
    seconds: float,
    plays_of: Callable[[Mutant], str],
    program: Sequence[str] = SIMULATION,
    root: Path = ROOT,
) -> Iterator[MutantSearch]:
    """Search for each of these mutants; yield what came of it as soon as it is known."""
    with ThreadPoolExecutor(SEARCHES_AT_ONCE) as pool:
        searches = [pool.submit(search_for, each, seconds, plays_of(each), program, root) for each in mutants]
        for search in as_completed(searches):
            yield search.result()


def search_for(
    mutant: Mutant,
    seconds: float,
    plays: str = "all",
    program: Sequence[str] = SIMULATION,
    root: Path = ROOT,
) -> MutantSearch:
    """Search for one mutant. A run that an oracle objects to without the mutant says nothing of it."""
    run = run_mutated(mutant, search_arguments(seconds, plays, program), seconds + _MORE_S, root)
    search = MutantSearch(mutant, run.took_s, runs_told(run))
    found = read_violation(run)
    if found is None:
        return search if run.exit_code == 0 else search._replace(error=_how_it_ended(run))
    without = run_python(root, replay_arguments(found, program), REPLAY_TIMEOUT_S)
    if without.exit_code != 0:
        return search._replace(error=f"{found.play} with seed {found.seed} fails without the mutant, too")
    return search._replace(found=found)


def take_in(known: KnownMutants, search: MutantSearch) -> KnownMutants:
    """Return what is known after a search: one that is found does harm, and one that is not keeps the run that it had."""
    if search.found is None:
        return known
    name = search.mutant.name
    hidden = {other: why for other, why in known.hidden.items() if other != name}
    return KnownMutants(known.killed | {name: search.found}, hidden)


def _how_it_ended(run: ProgramRun) -> str:
    if run.exit_code is None:
        return f"it was ended after {run.took_s:.0f} s"
    last = (run.errors or run.output).rstrip().rpartition("\n")[2]
    return f"exit status {run.exit_code}: {last}"


def _table_of(searches: Sequence[MutantSearch], known: KnownMutants) -> Table:
    table = Table("mutant", "seed", "s", "runs", "what")
    place = {each.name: at for at, each in enumerate(MUTANTS)}
    for search in sorted(searches, key=lambda each: place[each.mutant.name]):
        seed = str(search.found.seed) if search.found else ""
        runs = "" if search.runs is None else str(search.runs)
        table.add_row(search.mutant.name, seed, f"{search.took_s:.1f}", runs, _outcome(search, known))
    return table


def _outcome(search: MutantSearch, known: KnownMutants) -> str:
    name = search.mutant.name
    if search.found:
        return f"{search.found.play}: {search.found.violation}"
    if search.error:
        return f"? {search.error}"
    if name in known.hidden:
        return f"hidden: {known.hidden[name].defence}"
    return "SURVIVED" + (f", but a run of {known.killed[name].play} is known" if name in known.killed else "")


def main(
    arguments: Sequence[str], program: Sequence[str] = SIMULATION, root: Path = ROOT, file: Path = FILE
) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    names = [each.name for each in MUTANTS]
    parser.add_argument("names", nargs="*", metavar="MUTANT", help="which; all, if none is named")
    parser.add_argument("--seconds", type=float, default=SEARCH_S, help="for each (%(default)g)")
    parser.add_argument("--plays", help="in which to search, with commas")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.names) - {*names}:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
    chosen = [each for each in MUTANTS if not wanted.names or each.name in wanted.names]

    known, searches = load_known(file), list[MutantSearch]()
    plays = {name: run.play for name, run in known.killed.items()}
    plays_of = lambda each: wanted.plays or plays.get(each.name, "all")  # noqa: E731
    for search in search_all(chosen, wanted.seconds, plays_of, program, root):
        searches.append(search)
        known = take_in(known, search)
        save_known(known, file)
        print(f"{len(searches)}/{len(chosen)} {search.mutant.name}: {_outcome(search, known)}", flush=True)
    Console().print(_table_of(searches, known))
    found = sum(search.found is not None for search in searches)
    print(f"{found} of {len(searches)} found")
    if undecided := known.undecided():
        print(f"no run is known of {len(undecided)}: {', '.join(undecided)}")
    return int(any(not search.found and search.mutant.name not in known.hidden for search in searches))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
