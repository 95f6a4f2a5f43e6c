"""A drawing as Mermaid text, which GitHub, GitLab and many editors show.

Mermaid reads labels as Markdown and as HTML, has words of its own (`end`), and turns `#35;` back into a character at
the very last: so every sign that any of these could take for its own is written in that way.
"""

import re
from collections.abc import Iterable

from engine.drawing import Drawing, DrawingEdge, DrawingNode
from engine.drawing.lettering import excerpt_lines

_HARMLESS_TEXT = re.compile(r"[^\W_]+|[ ,?!']|(?<=[^\W\d_])\.(?=\s|$)|[^\x00-\x7f]")
"""Letters, digits and what has no meaning anywhere; a full stop after a word, but not in `1.` or `www.`"""

_CLASS_DEFINITIONS = (
    "classDef ask fill:#e6f0fa,stroke:#1b1b1b,color:#1b1b1b",
    "classDef say fill:#ffffff,stroke:#1b1b1b,color:#1b1b1b",
    "classDef entry fill:#1b1b1b,stroke:#1b1b1b,color:#ffffff",
    "classDef finish fill:#ffffff,stroke:#1b1b1b,color:#1b1b1b",
    "classDef unreached fill:#ffffff,stroke:#666666,color:#666666,stroke-dasharray:5 3",
    "classDef marked stroke:#b34700,stroke-width:4px",
)
_NODE_BRACKETS = {"ask": ("[", "]"), "say": ("(", ")"), "entry": ("([", "])"), "end": ("([", "])")}


def to_mermaid(drawing: Drawing) -> str:
    lines = [
        *_comment_lines(drawing),
        "flowchart TD",
        *(f"  {each}" for each in _CLASS_DEFINITIONS),
        *(f"  {_node_line(node)}" for node in drawing.nodes),
        *(f"  {_edge_line(edge)}" for edge in drawing.edges),
        *(f"  {each}" for each in _style_lines(drawing)),
        "",
    ]
    return "\n".join(lines)


def _comment_lines(drawing: Drawing) -> Iterable[str]:
    """Mermaid takes `%%{` for a directive."""
    for each in (drawing.title, drawing.subtitle, drawing.legend and f"Thick: {drawing.legend}"):
        if each:
            yield f"%% {each.replace('{', '(').replace('}', ')')}"


def _node_line(node: DrawingNode) -> str:
    left, right = _NODE_BRACKETS[node.kind]
    return f'{node.key}{left}"{_node_label(node)}"{right}'


def _node_label(node: DrawingNode) -> str:
    if node.kind in ("entry", "end"):
        return "<br/>".join(f"<b>{_escape_label(each)}</b>" for each in (node.text or (node.step,)))
    lines = [
        f"<b>{_escape_label(node.step)}</b>",
        *map(_escape_label, excerpt_lines(node.text)),
        *(f"<small>{_escape_label(note)}</small>" for note in node.notes),
        *(f"<small><b>{_escape_label(count)}</b></small>" for count in node.counts),
    ]
    return "<br/>".join(lines)


def _edge_line(edge: DrawingEdge) -> str:
    arrow = "-.->" if edge.gives_up else "==>" if edge.marked else "-->"
    told = [_escape_label(edge.label)] if edge.label else []
    told += [f"<b>{_escape_label(edge.count)}</b>"] if edge.count else []
    label = f'|"{"<br/>".join(told)}"|' if told else ""
    return f"{edge.tail} {arrow}{label} {edge.head}"


def _style_lines(drawing: Drawing) -> Iterable[str]:
    """Which nodes look how; a class that comes later is stronger."""
    for node in drawing.nodes:
        yield f"class {node.key} {'finish' if node.kind == 'end' else node.kind}"
        if node.unreached:
            yield f"class {node.key} unreached"
        if node.marked:
            yield f"class {node.key} marked"
    for number, edge in enumerate(drawing.edges):
        if edge.marked:
            yield f"linkStyle {number} stroke:#b34700,stroke-width:4px"
        elif edge.share:
            yield f"linkStyle {number} stroke-width:{1 + 4 * edge.share:.1f}px"


def _escape_label(text: str) -> str:
    harmless = {place for found in _HARMLESS_TEXT.finditer(text) for place in range(*found.span())}
    return "".join(c if place in harmless else f"#{ord(c)};" for place, c in enumerate(text))
