"""What is a survey, seen? Its steps as nodes and its routes as edges, before any form is given to them.

The edges are the very routes that the engine follows: one for each route of each step, one for each `give_up`, one
for the entry, in the order in which they are tried. Each step that ends the session has an end of its own beside
it, since forty arrows into one place cannot be followed.
"""

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import msgspec

from engine.surveys.program import END, Ask, Keywords, Reask, Remind, Route, Step, Survey
from engine.surveys.step_graph import reachable
from engine.surveys.texts import Slot, Template
from engine.surveys.wording import describe, describe_reader, show_pattern, show_place

ENTRY_ID = "(start)"
END_ID = "end"
"""What stands for the entry and for the end where edges are named by steps; neither can be a step's id."""

Kind = Literal["entry", "ask", "say", "end"]


class Node(msgspec.Struct, frozen=True):
    """`key` is unique in the drawing, and safe in every form. `step` is a step's id, ENTRY_ID or END_ID.

    `text` is what is sent, by lines, or the keywords; `notes` are what is said in small beneath it.
    """

    key: str
    kind: Kind
    step: str
    text: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unreached: bool = False
    marked: bool = False


class Edge(msgspec.Struct, frozen=True):
    """`tail` and `head` are keys. `gives_up`: taken after invalid answers, not by a condition."""

    tail: str
    head: str
    label: str = ""
    gives_up: bool = False
    unreached: bool = False
    marked: bool = False


class Drawing(msgspec.Struct, frozen=True):
    """`legend` says what the marked nodes and edges are; empty if there are none."""

    title: str
    subtitle: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    legend: str = ""


def draw(
    survey: Survey, language: str, highlight: Collection[tuple[str, str]] = (), legend: str = ""
) -> Drawing:
    """`survey` with its texts in `language`.

    `highlight` are the edges to mark, as pairs of steps' ids, ENTRY_ID and END_ID among them; their nodes are marked
    too. `legend` says what they are.
    """
    reached = reachable(survey.steps, [0])
    edges = [Edge(_ENTRY_KEY, "s0")]
    for place, step in enumerate(survey.steps):
        edges += _edges(place, step, unreached=place not in reached)
    nodes = [_entry(survey.start)]
    for place, step in enumerate(survey.steps):
        nodes.append(_node(place, step, language, unreached=place not in reached))
        if any(edge.head == _end_key(place) for edge in edges):
            nodes.append(Node(_end_key(place), "end", END_ID, unreached=place not in reached))
    title = plain(survey.title or survey.name)
    name = [survey.name] if title != survey.name else []
    subtitle = " · ".join((*name, f"version {survey.version}", language))
    return _mark(Drawing(title, subtitle, tuple(nodes), tuple(edges)), highlight, legend)


def plain(text: str) -> str:
    """`text` in one line, without what has no picture and what XML cannot hold."""
    return " ".join("".join(_visible(c) for c in text).split())


# -- nodes

_ENTRY_KEY = "entry"


def _key(place: int) -> str:
    return f"s{place}"


def _end_key(place: int) -> str:
    return f"e{place}"


def _node(place: int, step: Step, language: str, *, unreached: bool) -> Node:
    notes = ["never reached"] if unreached else []
    if isinstance(step, Ask):
        notes = [describe_reader(step.reader), *_reminders(step.remind), *notes]
    kind: Kind = "ask" if isinstance(step, Ask) else "say"
    text = _lines(_shown(step.text[language]))
    return Node(_key(place), kind, step.id, text, tuple(map(plain, notes)), unreached)


def _entry(start: Keywords) -> Node:
    several = len(start.languages) > 1
    words = [(word.upper(), language) for word, language in start.words.items()]
    words += [(show_pattern(pattern), language) for pattern, language in start.patterns]
    words += [("any SMS", start.anything)] if start.anything else []
    text = (f"{word} ({language})" if several else word for word, language in words)
    return Node(_ENTRY_KEY, "entry", ENTRY_ID, tuple(map(plain, text)))


def _reminders(remind: Remind | None) -> Iterable[str]:
    if remind is not None:
        often = f", {remind.times} times" if remind.times > 1 else ""
        yield f"reminder after {_duration(remind.after_ms)}{often}"


def _shown(template: Template) -> str:
    """The text with its placeholders as an author writes them."""
    if isinstance(template, str):
        return template
    return "".join(_placeholder(each) if isinstance(each, Slot) else each for each in template)


def _placeholder(slot: Slot) -> str:
    return f"{{{show_place(slot.step).strip(chr(39))}}}"


def _duration(ms: int) -> str:
    """As an author writes it."""
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        if ms % length == 0:
            return f"{ms // length}{unit}"
    return f"{ms / 1000:g}s"


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in map(plain, text.splitlines()) if line)


def _visible(c: str) -> str:
    if c.isspace():
        return " "
    unfit = c in "\ufffe\uffff" or unicodedata.category(c) in ("Cc", "Cs")
    return "\N{REPLACEMENT CHARACTER}" if unfit else c


# -- edges


def _edges(place: int, step: Step, *, unreached: bool) -> Iterable[Edge]:
    for route, label in zip(step.routes, _labels(step), strict=True):
        yield Edge(_key(place), _head(place, route.go), plain(label), unreached=unreached)
    if isinstance(step, Ask) and isinstance(step.invalid, Reask):
        go = END if step.invalid.give_up is None else step.invalid.give_up
        label = f"after {step.invalid.attempts} invalid answer{'s' if step.invalid.attempts > 1 else ''}"
        yield Edge(_key(place), _head(place, go), label, gives_up=True, unreached=unreached)


def _head(place: int, go: int) -> str:
    return _end_key(place) if go == END else _key(go)


def _labels(step: Step) -> Sequence[str]:
    """What opens each route. They are tried in order, which is written where it may matter."""
    labels = [_label(route, step.id) for route in step.routes]
    if len(labels) > 1 and not labels[-1]:
        labels[-1] = "otherwise"
    if len(labels) > 2:
        labels[:-1] = [f"{n}. {label}" for n, label in enumerate(labels[:-1], 1)]
    return labels


def _label(route: Route, step: str) -> str:
    when = "" if route.when is None else describe(route.when, step)
    if route.times is None:
        return when
    count = "once only" if route.times == 1 else f"up to {route.times} times"
    return f"{when} ({count})" if when else count


# -- marks


def _mark(drawing: Drawing, highlight: Collection[tuple[str, str]], legend: str) -> Drawing:
    """A `give_up` is marked only if no route leads the same way."""
    step = {node.key: node.step for node in drawing.nodes}
    ways = [(step[edge.tail], step[edge.head]) for edge in drawing.edges]
    routed = {way for way, edge in zip(ways, drawing.edges, strict=True) if not edge.gives_up}
    edges = [
        msgspec.structs.replace(edge, marked=way in highlight and (way not in routed or not edge.gives_up))
        for way, edge in zip(ways, drawing.edges, strict=True)
    ]
    passed = {key for edge in edges if edge.marked for key in (edge.tail, edge.head)}
    nodes = [msgspec.structs.replace(node, marked=node.key in passed) for node in drawing.nodes]
    shown = legend if passed else ""
    return msgspec.structs.replace(drawing, nodes=tuple(nodes), edges=tuple(edges), legend=shown)
