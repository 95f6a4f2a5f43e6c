"""A drawing as SVG: a picture that any browser shows, without a script, a font or anything else beside it.

Nothing is told by colour alone: a question has square corners and its answer type beneath a line, a statement round
ones; what is never reached is dashed, grey and says so; what is marked is thick.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

import msgspec

from engine.drawing import Drawing, DrawingEdge, DrawingNode
from engine.drawing.layout import ArrowPath, Layout, LayoutArrow, Point, Size, lay_out
from engine.drawing.lettering import (
    BOLD_FACTOR,
    NODE_LINE_WIDTH,
    excerpt_lines,
    label_lines,
    text_width,
    wrap_lines,
)

_TEXT_SIZE = 12
_SMALL_TEXT_SIZE = 10.5
_LEADING = 1.3
_PAD = 11
_MARGIN = 18
_TITLE_SIZE = 17


_INK = "#1b1b1b"
_PALE = "#666666"
_BLUE = "#e6f0fa"
_MARKED_INK = "#b34700"


LayOut = Callable[[dict[str, Size], Sequence[LayoutArrow]], Layout]
"""Says where everything goes, as `lay_out` does."""


class StepMark(msgspec.Struct, frozen=True):
    """What a picture within a page says more of a step: where a click on it leads, and classes that the page's style knows."""

    address: str = ""
    classes: str = ""


class _TextLine(msgspec.Struct, frozen=True):
    text: str
    size: float = _TEXT_SIZE
    bold: bool = False

    @property
    def width(self) -> float:
        return text_width(self.text) * self.size * (BOLD_FACTOR if self.bold else 1)

    @property
    def height(self) -> float:
        return self.size * _LEADING


class _NodeBox(msgspec.Struct, frozen=True):
    """`head` is written above the line, `foot` below it."""

    node: DrawingNode
    head: tuple[_TextLine, ...]
    foot: tuple[_TextLine, ...]

    @property
    def size(self) -> Size:
        lines = (*self.head, *self.foot)
        pads = 3.2 if self.foot else 2
        wide = max(line.width for line in lines) + 2 * _PAD
        return Size(wide, _total_height(lines) + pads * _PAD * 0.7)


def to_svg(drawing: Drawing, lay_out: LayOut = lay_out, marks: Mapping[str, StepMark] | None = None) -> bytes:
    """An SVG document, in UTF-8. The same drawing gives the same bytes. With `marks` of steps, by id, it is part of a page."""
    boxes = [_box(node) for node in drawing.nodes]
    labels = [_label_lines(edge) for edge in drawing.edges]
    arrows = [
        LayoutArrow(edge.tail, edge.head, _label_size(lines))
        for edge, lines in zip(drawing.edges, labels, strict=True)
    ]
    layout = lay_out({box.node.key: box.size for box in boxes}, arrows)
    steps = {node.key: node.step for node in drawing.nodes}
    header, top = _header_lines(drawing)
    body = [
        *(_edge_elements(edge, steps, way) for edge, way in zip(drawing.edges, layout.ways, strict=True)),
        *(_marked_node_elements(box, layout.nodes[box.node.key], marks) for box in boxes),
        *(
            _label_elements(edge, lines, way)
            for edge, lines, way in zip(drawing.edges, labels, layout.ways, strict=True)
        ),
    ]
    wide = max(layout.size.width, *(line.width for line in header)) + 2 * _MARGIN
    tall = layout.size.height + top + 2 * _MARGIN
    family = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
    sides = f'width="{wide:.0f}" height="{tall:.0f}" viewBox="0 0 {wide:.0f} {tall:.0f}"'
    role = "img" if marks is None else "group"  # what is in a picture cannot be clicked
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {sides} role="{role}" font-family="{family}">',
        f"<title>{escape(drawing.title)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        *_text_elements(header, Point(_MARGIN, _MARGIN), _INK, "start"),
        f'<g transform="translate({_MARGIN} {_MARGIN + top:.1f})">',
        *(part for each in body for part in each),
        "</g>",
        "</svg>",
        "",
    ]
    return "\n".join(parts).encode()


def _header_lines(drawing: Drawing) -> tuple[list[_TextLine], float]:
    """The lines above the graph, and the room that they take."""
    lines = [_TextLine(drawing.title, _TITLE_SIZE, bold=True), _TextLine(drawing.subtitle, _SMALL_TEXT_SIZE)]
    if drawing.legend:
        lines.append(_TextLine(f"Thick: {drawing.legend}", _SMALL_TEXT_SIZE, bold=True))
    return lines, _total_height(lines) + _MARGIN


# -- nodes


def _box(node: DrawingNode) -> _NodeBox:
    if node.kind in ("entry", "end"):
        texts = node.text or (node.step,)
        return _NodeBox(node, tuple(_TextLine(each, bold=True) for each in excerpt_lines(texts)), ())
    head = [_TextLine(each, bold=True) for each in wrap_lines(node.step, NODE_LINE_WIDTH / BOLD_FACTOR, 2)]
    head += [_TextLine(each) for each in excerpt_lines(node.text)]
    foot = [
        _TextLine(each, _SMALL_TEXT_SIZE, bold=node.unreached and note == node.notes[-1])
        for note in node.notes
        for each in wrap_lines(note, NODE_LINE_WIDTH, 3)
    ]
    return _NodeBox(node, tuple(head), (*foot, *_count_lines(node)))


def _count_lines(node: DrawingNode) -> tuple[_TextLine, ...]:
    return tuple(
        _TextLine(each, _SMALL_TEXT_SIZE, bold=True)
        for count in node.counts
        for each in wrap_lines(count, NODE_LINE_WIDTH, 2)
    )


def _marked_node_elements(
    box: _NodeBox, centre: Point, marks: Mapping[str, StepMark] | None
) -> Iterable[str]:
    node = box.node
    mark = (marks or {}).get(node.step)
    if mark is None or node.kind in ("entry", "end"):
        yield from _node_elements(box, centre)
        return
    if mark.address:
        yield f"<a href={quoteattr(mark.address)} aria-label={quoteattr(node.step)}>"
    yield f"<g class={quoteattr(f'step {mark.classes}'.strip())} data-step={quoteattr(node.step)}>"
    yield from _node_elements(box, centre)
    yield "</g>"
    if mark.address:
        yield "</a>"


def _node_elements(box: _NodeBox, centre: Point) -> Iterable[str]:
    node, size = box.node, box.size
    corner = Point(centre.x - size.width / 2, centre.y - size.height / 2)
    ink = _stroke_colour(node)
    yield f'<g class="node {node.kind}{_css_classes(node)}">'
    yield f"<title>{escape(_node_tooltip(node))}</title>"
    yield _outline(node, size, corner)
    yield from _text_elements(
        box.head, Point(corner.x + _PAD, corner.y + _PAD * 0.7), _text_colour(node), "start"
    )
    if box.foot:
        y = corner.y + _PAD * 1.4 + _total_height(box.head)
        yield (
            f'<path d="M{corner.x:.1f} {y:.1f}h{size.width:.1f}" stroke="{ink}" stroke-width="0.7" '
            'stroke-opacity="0.6"/>'
        )
        yield from _text_elements(
            box.foot, Point(corner.x + _PAD, y + _PAD * 0.5), _text_colour(node), "start"
        )
    yield "</g>"


def _outline(node: DrawingNode, size: Size, corner: Point) -> str:
    radius = {"ask": 2, "say": 14}.get(node.kind, size.height / 2)
    fill = {"ask": _BLUE, "entry": _INK}.get(node.kind, "white")
    fill = "white" if node.unreached else fill
    dashes = ' stroke-dasharray="5 3"' if node.unreached else ""
    return (
        f'<rect x="{corner.x:.1f}" y="{corner.y:.1f}" width="{size.width:.1f}" height="{size.height:.1f}" '
        f'rx="{radius:.1f}" fill="{fill}" stroke="{_stroke_colour(node)}" '
        f'stroke-width="{_stroke_width(node)}"{dashes}/>'
    )


def _node_tooltip(node: DrawingNode) -> str:
    """All of it, for whoever points at a node whose text is cut."""
    return "\n".join((node.step, *node.text, *node.notes, *node.counts))


def _text_colour(node: DrawingNode) -> str:
    return "white" if node.kind == "entry" else _PALE if node.unreached else _INK


# -- edges


def _edge_elements(edge: DrawingEdge, steps: dict[str, str], way: ArrowPath) -> Iterable[str]:
    ink = _stroke_colour(edge)
    dashes = ' stroke-dasharray="6 4"' if edge.gives_up else ""
    named = f"{steps[edge.tail]} → {steps[edge.head]}" + (f": {edge.label}" if edge.label else "")
    yield f'<g class="edge{" gives_up" if edge.gives_up else ""}{_css_classes(edge)}">'
    yield f"<title>{escape(named)}</title>"
    yield (
        f'<path d={quoteattr(_curve_data(way))} fill="none" stroke="{ink}" '
        f'stroke-width="{_stroke_width(edge)}"{dashes}/>'
    )
    yield f'<polygon points="{_arrowhead(way)}" fill="{ink}"/>'
    yield "</g>"


def _label_elements(edge: DrawingEdge, lines: Sequence[_TextLine], way: ArrowPath) -> Iterable[str]:
    """Above all curves, on white, so that none strikes it through."""
    size = _label_size(lines)
    if size is None or way.label is None:
        return
    corner = Point(way.label.x - size.width / 2, way.label.y - size.height / 2)
    yield (
        f'<rect x="{corner.x + 2:.1f}" y="{corner.y:.1f}" width="{size.width - 4:.1f}" '
        f'height="{size.height:.1f}" fill="white" fill-opacity="0.85"/>'
    )
    yield from _text_elements(lines, Point(way.label.x, corner.y + 1), _stroke_colour(edge), "middle")


def _label_lines(edge: DrawingEdge) -> list[_TextLine]:
    lines = [_TextLine(each, _SMALL_TEXT_SIZE, bold=edge.marked) for each in label_lines(edge.label)]
    return lines + [_TextLine(each, _SMALL_TEXT_SIZE, bold=True) for each in label_lines(edge.count)]


def _label_size(lines: Sequence[_TextLine]) -> Size | None:
    return Size(max(line.width for line in lines) + 8, _total_height(lines) + 2) if lines else None


def _curve_data(way: ArrowPath) -> str:
    start, *rest = way.curve
    points = " ".join(f"{point.x:.1f},{point.y:.1f}" for point in rest)
    return f"M{start.x:.1f},{start.y:.1f}C{points}"


def _arrowhead(way: ArrowPath) -> str:
    back = way.curve[-1]
    along = Point(way.tip.x - back.x, way.tip.y - back.y)
    across = Point(-along.y * 0.36, along.x * 0.36)
    corners = (
        way.tip,
        Point(back.x + across.x, back.y + across.y),
        Point(back.x - across.x, back.y - across.y),
    )
    return " ".join(f"{corner.x:.1f},{corner.y:.1f}" for corner in corners)


# -- both


def _text_elements(lines: Iterable[_TextLine], corner: Point, ink: str, anchor: str) -> Iterable[str]:
    """The lines one under the other from `corner` downwards."""
    y = corner.y
    for line in lines:
        weight = ' font-weight="bold"' if line.bold else ""
        yield (
            f'<text x="{corner.x:.1f}" y="{y + line.size * 0.98:.1f}" font-size="{line.size}" '
            f'fill="{ink}" text-anchor="{anchor}"{weight}>{escape(line.text)}</text>'
        )
        y += line.height


def _total_height(lines: Iterable[_TextLine]) -> float:
    return sum(line.height for line in lines)


def _stroke_colour(part: DrawingNode | DrawingEdge) -> str:
    return _MARKED_INK if part.marked else _PALE if part.unreached else _INK


def _stroke_width(part: DrawingNode | DrawingEdge) -> float:
    if isinstance(part, DrawingEdge) and part.share:
        return round(1 + _WIDEST_EXTRA * part.share, 2)
    return 3.2 if part.marked else 1.2


_WIDEST_EXTRA = 4.0
"""How much wider than a way that nobody takes the one is that is taken most."""


def _css_classes(part: DrawingNode | DrawingEdge) -> str:
    return (" unreached" if part.unreached else "") + (" marked" if part.marked else "")
