"""A drawing as DOT text, for whoever lays it out with a Graphviz of their own. Nodes are named by their steps."""

from collections.abc import Iterable
from html import escape as escape_html

from engine.drawing import Drawing, DrawingEdge, DrawingNode
from engine.drawing.lettering import excerpt_lines, label_lines


def to_dot(drawing: Drawing) -> str:
    names = {node.key: _node_name(node) for node in drawing.nodes}
    lines = [
        "digraph {",
        f"  graph [label={_quote_lines(_caption(drawing))} labelloc=t bgcolor=white fontname=Helvetica]",
        '  node [shape=box margin="0.2,0.1" fontname=Helvetica fontsize=12]',
        "  edge [fontname=Helvetica fontsize=10]",
        *(f"  {names[node.key]} [{_join_attributes(_node_attributes(node))}]" for node in drawing.nodes),
        *(
            f"  {names[edge.tail]} -> {names[edge.head]} [{_join_attributes(_edge_attributes(edge))}]"
            for edge in drawing.edges
        ),
        "}",
        "",
    ]
    return "\n".join(lines)


def _node_name(node: DrawingNode) -> str:
    """Ends are told apart by their keys, as there are several."""
    return _quote_lines(f"{node.step}:{node.key}" if node.kind == "end" else node.step)


def _caption(drawing: Drawing) -> str:
    return ", ".join(
        each
        for each in (drawing.title, drawing.subtitle, drawing.legend and f"thick: {drawing.legend}")
        if each
    )


def _node_attributes(node: DrawingNode) -> Iterable[tuple[str, str]]:
    yield "label", _node_label(node)
    style = {"ask": "filled", "say": "rounded", "entry": "filled,rounded", "end": "rounded"}[node.kind]
    if node.unreached:
        yield "style", _quote_lines(f"{style.replace('filled', '').strip(',')},dashed".strip(","))
        yield "color", _quote_lines("#666666")
        yield "fontcolor", _quote_lines("#666666")
    else:
        yield "style", _quote_lines(style)
        fill = {"ask": "#e6f0fa", "entry": "#1b1b1b"}.get(node.kind, "white")
        yield "fillcolor", _quote_lines(fill)
        if node.kind == "entry":
            yield "fontcolor", "white"
    if node.marked:
        yield "color", _quote_lines("#b34700")
        yield "penwidth", "3"


def _node_label(node: DrawingNode) -> str:
    """In Graphviz's own HTML, with every sign of it escaped."""
    if node.kind in ("entry", "end"):
        return f"<<B>{'<BR/>'.join(map(_escape_label, node.text or (node.step,)))}</B>>"
    lines = [
        f"<B>{_escape_label(node.step)}</B>",
        *map(_escape_label, excerpt_lines(node.text)),
        *(f'<FONT POINT-SIZE="10"><I>{_escape_label(note)}</I></FONT>' for note in node.notes),
        *(f'<FONT POINT-SIZE="10"><B>{_escape_label(count)}</B></FONT>' for count in node.counts),
    ]
    return "<" + "".join(f'{line}<BR ALIGN="LEFT"/>' for line in lines) + ">"


def _edge_attributes(edge: DrawingEdge) -> Iterable[tuple[str, str]]:
    if told := [*label_lines(edge.label), *label_lines(edge.count)]:
        yield "label", _quote_lines(*(f" {line} " for line in told))
    if edge.gives_up:
        yield "style", "dashed"
    if edge.unreached:
        yield "color", _quote_lines("#666666")
    if edge.marked:
        yield "color", _quote_lines("#b34700")
        yield "penwidth", "3"
    if edge.share:
        yield "penwidth", f"{1 + 4 * edge.share:.1f}"


def _join_attributes(attributes: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"{name}={value}" for name, value in dict(attributes).items())


def _escape_label(text: str) -> str:
    """Graphviz reads `\\N` and its like even in HTML."""
    return escape_html(text).replace("\\", "\\\\")


def _quote_lines(*lines: str) -> str:
    """Graphviz reads HTML's entities even in a quoted string."""
    told = (line.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(told) + '"'
