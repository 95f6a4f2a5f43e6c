"""A drawing as Mermaid text, which GitHub, GitLab and many editors show.

Mermaid reads labels as Markdown and as HTML, has words of its own (`end`), and turns `#35;` back into a character at
the very last: so every sign that any of these could take for its own is written in that way.
"""

import re
from collections.abc import Iterable

from engine.drawing import Drawing, Edge, Node
from engine.drawing.lettering import excerpt

_HARMLESS = re.compile(r"[^\W_]+|[ ,?!']|(?<=[^\W\d_])\.(?=\s|$)|[^\x00-\x7f]")
"""Letters, digits and what has no meaning anywhere; a full stop after a word, but not in `1.` or `www.`"""

_CLASSES = (
    "classDef ask fill:#e6f0fa,stroke:#1b1b1b,color:#1b1b1b",
    "classDef say fill:#ffffff,stroke:#1b1b1b,color:#1b1b1b",
    "classDef entry fill:#1b1b1b,stroke:#1b1b1b,color:#ffffff",
    "classDef finish fill:#ffffff,stroke:#1b1b1b,color:#1b1b1b",
    "classDef unreached fill:#ffffff,stroke:#666666,color:#666666,stroke-dasharray:5 3",
    "classDef marked stroke:#b34700,stroke-width:4px",
)
_BRACKETS = {"ask": ("[", "]"), "say": ("(", ")"), "entry": ("([", "])"), "end": ("([", "])")}


def to_mermaid(drawing: Drawing) -> str:
    lines = [
        *_comment(drawing),
        "flowchart TD",
        *(f"  {each}" for each in _CLASSES),
        *(f"  {_node(node)}" for node in drawing.nodes),
        *(f"  {_edge(edge)}" for edge in drawing.edges),
        *(f"  {each}" for each in _styles(drawing)),
        "",
    ]
    return "\n".join(lines)


def _comment(drawing: Drawing) -> Iterable[str]:
    """Mermaid takes `%%{` for a directive."""
    for each in (drawing.title, drawing.subtitle, drawing.legend and f"Thick: {drawing.legend}"):
        if each:
            yield f"%% {each.replace('{', '(').replace('}', ')')}"


def _node(node: Node) -> str:
    left, right = _BRACKETS[node.kind]
    return f'{node.key}{left}"{_label(node)}"{right}'


def _label(node: Node) -> str:
    if node.kind in ("entry", "end"):
        return "<br/>".join(f"<b>{_escaped(each)}</b>" for each in (node.text or (node.step,)))
    lines = [
        f"<b>{_escaped(node.step)}</b>",
        *map(_escaped, excerpt(node.text)),
        *(f"<small>{_escaped(note)}</small>" for note in node.notes),
    ]
    return "<br/>".join(lines)


def _edge(edge: Edge) -> str:
    arrow = "-.->" if edge.gives_up else "==>" if edge.marked else "-->"
    label = f'|"{_escaped(edge.label)}"|' if edge.label else ""
    return f"{edge.tail} {arrow}{label} {edge.head}"


def _styles(drawing: Drawing) -> Iterable[str]:
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


def _escaped(text: str) -> str:
    harmless = {place for found in _HARMLESS.finditer(text) for place in range(*found.span())}
    return "".join(c if place in harmless else f"#{ord(c)};" for place, c in enumerate(text))
