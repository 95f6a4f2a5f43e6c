"""A failing schedule becomes the shortest of its kind: faults are taken out as long as the same promise is broken."""

from tests.simulated.exploring.runs import RunResult, run_schedule
from tests.simulated.plays.play import Play


def shrink(play: Play, failed: RunResult) -> RunResult:
    """Take faults out of a failed run, half of them at a time, then fewer, until none can go. Answers the shortest run found,
    which may be the one given if its faults alone do not bring it about again."""
    best = run_schedule(play, failed.seed, failed.met)
    if best.broken != failed.broken:
        return failed
    size = max(1, len(best.met) // 2)
    while size:
        places = list(best.met)
        for at in range(0, len(places), size):
            gone = set(places[at : at + size])
            fewer = {place: fault for place, fault in best.met.items() if place not in gone}
            if len(fewer) < len(best.met):
                tried = run_schedule(play, failed.seed, fewer)
                if tried.broken == failed.broken:
                    best = tried
        size = size // 2 if size > 1 or len(places) == len(best.met) else 1
    return best
