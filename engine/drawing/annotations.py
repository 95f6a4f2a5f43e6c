"""Puts numbers on a drawing: how many sessions came to each step, and how often each way was taken.

What is counted is known by steps alone. So ways that lead from one step to the same next one share their number, which the
first of them bears; but who gives up at a step whose `give_up` is the end is known from the others that end there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from engine.drawing import Drawing, DrawingEdge


class DrawingNumbers(msgspec.Struct, frozen=True):
    """`steps` are lines for each step, by id. `ways` counts passages from one step to the next, ENTRY_ID and END_ID
    among them; `gave_up` sessions that ended as the step's answers stayed invalid. `subtitle` says what was counted."""

    steps: Mapping[str, Sequence[str]]
    ways: Mapping[tuple[str, str], int]
    gave_up: Mapping[str, int] = {}
    subtitle: str = ""


def annotate_drawing(drawing: Drawing, numbers: DrawingNumbers) -> Drawing:
    """The drawing with numbers on its nodes and edges."""
    steps = {node.key: node.step for node in drawing.nodes}
    ends = {node.key for node in drawing.nodes if node.kind == "end"}
    ways = [_way_of(edge, steps, ends) for edge in drawing.edges]
    parallel = Counter(ways)
    most = max((*numbers.ways.values(), *numbers.gave_up.values()), default=0)
    met: set[tuple[str, str, bool]] = set()
    edges = []
    for edge, way in zip(drawing.edges, ways, strict=True):
        passages = numbers.gave_up.get(way[0], 0) if way[2] else numbers.ways.get(way[:2], 0)
        together = f", {parallel[way]} ways together" if parallel[way] > 1 else ""
        told = "" if way in met else f"{passages:,}{together}"
        met.add(way)
        edges.append(msgspec.structs.replace(edge, count=told, share=passages / most if most else 0.0))
    nodes = [
        msgspec.structs.replace(node, counts=tuple(numbers.steps.get(node.step, ())))
        for node in drawing.nodes
    ]
    subtitle = " · ".join(each for each in (drawing.subtitle, numbers.subtitle) if each)
    return msgspec.structs.replace(drawing, subtitle=subtitle, nodes=tuple(nodes), edges=tuple(edges))


def _way_of(edge: DrawingEdge, steps: Mapping[str, str], ends: set[str]) -> tuple[str, str, bool]:
    """From which step to which, and whether by giving up to the end."""
    return steps[edge.tail], steps[edge.head], edge.gives_up and edge.head in ends
