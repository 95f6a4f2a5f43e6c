"""Where does each node go, and by which way each edge? Graphviz's `dot` answers, in this process.

It is given sizes only, no text: so it needs no fonts, and has none to warn about. Lengths are points, y grows
downwards.

While Graphviz works, nothing else of the process does, for seconds if there are hundreds of steps. Whoever cannot wait runs this
very file as a program, which is told a LayoutRequest and answers a Layout, in MessagePack.
"""

import sys
from collections.abc import Sequence

import msgspec

from engine.model.extras import import_extra

_POINTS_PER_INCH = 72


class Size(msgspec.Struct, frozen=True):
    width: float
    height: float


class Point(msgspec.Struct, frozen=True):
    x: float
    y: float


class LayoutArrow(msgspec.Struct, frozen=True):
    """From one node to another. `label` is the room that its label needs, if it has one."""

    tail: str
    head: str
    label: Size | None = None


class ArrowPath(msgspec.Struct, frozen=True):
    """`curve` is a start and then three points for each Bezier segment; `tip` is where the arrow ends."""

    curve: tuple[Point, ...]
    tip: Point
    label: Point | None


class Layout(msgspec.Struct, frozen=True):
    """The centre of each node, by key, and the way of each arrow, in their order."""

    size: Size
    nodes: dict[str, Point]
    ways: tuple[ArrowPath, ...]


class LayoutRequest(msgspec.Struct, frozen=True):
    """What `lay_out` takes."""

    nodes: dict[str, Size]
    arrows: list[LayoutArrow]


def lay_out(nodes: dict[str, Size], arrows: Sequence[LayoutArrow]) -> Layout:
    """`nodes` are sizes by key; keys are letters and digits. Raises MissingExtraError."""
    pygraphviz = import_extra("pygraphviz", "graph", "a picture")
    graph = pygraphviz.AGraph(string=_sizes_as_dot(nodes, arrows))
    try:
        graph.layout(prog="dot")
        *_, width, height = map(float, graph.graph_attr["bb"].split(","))
        page = Size(width, height)
        return Layout(
            page,
            {key: _parse_point(graph.get_node(key).attr["pos"], page) for key in nodes},
            tuple(
                _arrow_path(graph.get_edge(arrow.tail, arrow.head, str(n)).attr, arrow, page)
                for n, arrow in enumerate(arrows)
            ),
        )
    finally:
        graph.close()


def _sizes_as_dot(nodes: dict[str, Size], arrows: Sequence[LayoutArrow]) -> str:
    lines = [
        'digraph { graph [nodesep=0.35 ranksep=0.45]; node [shape=box fixedsize=true label=""];',
        *(
            f"{key} [width={size.width / _POINTS_PER_INCH:.4f} height={size.height / _POINTS_PER_INCH:.4f}];"
            for key, size in nodes.items()
        ),
        *(
            f"{arrow.tail} -> {arrow.head} [key={n}{_label_attribute(arrow)}];"
            for n, arrow in enumerate(arrows)
        ),
        "}",
    ]
    return "\n".join(lines)


def _label_attribute(arrow: LayoutArrow) -> str:
    """An empty label of the size that the arrow's label has."""
    if arrow.label is None:
        return ""
    size = f'FIXEDSIZE="TRUE" WIDTH="{arrow.label.width:.0f}" HEIGHT="{arrow.label.height:.0f}"'
    return f' label=<<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" {size}><TR><TD></TD></TR></TABLE>>'


def _arrow_path(attributes: dict[str, str], arrow: LayoutArrow, page: Size) -> ArrowPath:
    tip, *curve = attributes["pos"].split()
    label = _parse_point(attributes["lp"], page) if arrow.label else None
    return ArrowPath(
        tuple(_parse_point(each, page) for each in curve), _parse_point(tip.removeprefix("e,"), page), label
    )


def _parse_point(written: str, page: Size) -> Point:
    x, y = map(float, written.split(","))
    return Point(x, page.height - y)


if __name__ == "__main__":
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=LayoutRequest)
    sys.stdout.buffer.write(msgspec.msgpack.encode(lay_out(request.nodes, request.arrows)))
