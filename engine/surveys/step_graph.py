"""What can be said of a survey from its routes alone, without an answer."""

from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from engine.surveys.program import END_INDEX, StatementStep, SurveyStep, successor_indexes


def endless_statements(steps: Sequence[SurveyStep]) -> list[str]:
    """A problem for statements that follow each other for ever."""
    says = {place: step for place, step in enumerate(steps) if isinstance(step, StatementStep)}
    graph = {
        place: [each for each in successor_indexes(step) if each in says] for place, step in says.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        # graphlib lists each step after the one that it was given as its successor
        way = " -> ".join(f"'{steps[place].id}'" for place in reversed(e.args[1]))
        return [f"the steps {way} go round without asking anything"]
    return []


def reachable_steps(steps: Sequence[SurveyStep], start: Iterable[int]) -> set[int]:
    """The indexes that routes lead to from `start`, these included."""
    found: set[int] = set()
    waiting = [place for place in start if place != END_INDEX]
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += [each for each in successor_indexes(steps[place]) if each != END_INDEX]
    return found
