"""What is a survey, seen? Its steps as nodes and its routes as edges, before any form is given to them.

The edges are the very routes that the engine follows: one for each route of each step, one for each `give_up`, one
for the entry, in the order in which they are tried. Each step that ends the session has an end of its own beside
it, since forty arrows into one place cannot be followed.
"""

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import msgspec

from engine.model.plurals import pluralize
from engine.surveys.program import (
    END_INDEX,
    QuestionStep,
    ReaskInvalid,
    ReminderRule,
    Route,
    StartKeywords,
    Survey,
    SurveyStep,
)
from engine.surveys.step_graph import reachable_steps
from engine.surveys.wording import describe_condition, show_delay, show_pattern, show_template

ENTRY_ID = "(start)"
END_ID = "end"
"""What stands for the entry and for the end where edges are named by steps; neither can be a step's id."""

NodeKind = Literal["entry", "ask", "say", "end"]


class DrawingNode(msgspec.Struct, frozen=True):
    """`key` is unique in the drawing, and safe in every form. `step` is a step's id, ENTRY_ID or END_ID.

    `text` is what is sent, by lines, or the keywords; `notes` are what is said in small beneath it, and `counts` how many did
    what there.
    """

    key: str
    kind: NodeKind
    step: str
    text: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unreached: bool = False
    marked: bool = False
    counts: tuple[str, ...] = ()


class DrawingEdge(msgspec.Struct, frozen=True):
    """`tail` and `head` are keys. `gives_up`: taken after invalid answers, not by a condition. `count` says how often it was
    taken, and `share`, from 0 to 1, how often beside the one that was taken most."""

    tail: str
    head: str
    label: str = ""
    gives_up: bool = False
    unreached: bool = False
    marked: bool = False
    count: str = ""
    share: float = 0.0


class Drawing(msgspec.Struct, frozen=True):
    """`legend` says what the marked nodes and edges are; empty if there are none."""

    title: str
    subtitle: str
    nodes: tuple[DrawingNode, ...]
    edges: tuple[DrawingEdge, ...]
    legend: str = ""


def draw_survey(
    survey: Survey, language: str, highlight: Collection[tuple[str, str]] = (), legend: str = ""
) -> Drawing:
    """`survey` with its texts in `language`.

    `highlight` are the edges to mark, as pairs of steps' ids, ENTRY_ID and END_ID among them; their nodes are marked
    too. `legend` says what they are.
    """
    reached = reachable_steps(survey.steps, [0])
    edges = [DrawingEdge(_ENTRY_KEY, "s0")]
    for place, step in enumerate(survey.steps):
        edges += _step_edges(place, step, unreached=place not in reached)
    nodes = [_entry_node(survey.start)]
    for place, step in enumerate(survey.steps):
        nodes.append(_step_node(place, step, language, unreached=place not in reached))
        if any(edge.head == _end_key(place) for edge in edges):
            nodes.append(DrawingNode(_end_key(place), "end", END_ID, unreached=place not in reached))
    title = plain_line(survey.title or survey.name)
    name = [survey.name] if title != survey.name else []
    subtitle = " · ".join((*name, f"version {survey.version}", language))
    return _mark_highlight(Drawing(title, subtitle, tuple(nodes), tuple(edges)), highlight, legend)


def plain_line(text: str) -> str:
    """`text` in one line, without what has no picture and what XML cannot hold."""
    return " ".join("".join(_visible_character(c) for c in text).split())


# -- nodes

_ENTRY_KEY = "entry"


def _step_key(place: int) -> str:
    return f"s{place}"


def _end_key(place: int) -> str:
    return f"e{place}"


def _step_node(place: int, step: SurveyStep, language: str, *, unreached: bool) -> DrawingNode:
    notes = ["never reached"] if unreached else []
    if isinstance(step, QuestionStep):
        notes = [step.reader.describe_answers(), *_reminder_notes(step.remind), *notes]
    kind: NodeKind = "ask" if isinstance(step, QuestionStep) else "say"
    text = _plain_lines(show_template(step.text[language]))
    return DrawingNode(_step_key(place), kind, step.id, text, tuple(map(plain_line, notes)), unreached)


def _entry_node(start: StartKeywords) -> DrawingNode:
    several = len(start.languages) > 1
    words = [(word.upper(), language) for word, language in start.words.items()]
    words += [(show_pattern(pattern), language) for pattern, language in start.patterns]
    words += [("any SMS", start.any_sms_language)] if start.any_sms_language else []
    text = (f"{word} ({language})" if several else word for word, language in words)
    return DrawingNode(_ENTRY_KEY, "entry", ENTRY_ID, tuple(map(plain_line, text)))


def _reminder_notes(remind: ReminderRule | None) -> Iterable[str]:
    if remind is not None:
        often = f", {remind.times} times" if remind.times > 1 else ""
        yield f"reminder after {show_delay(remind)}{often}"


def _plain_lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in map(plain_line, text.splitlines()) if line)


def _visible_character(c: str) -> str:
    if c.isspace():
        return " "
    unfit = c in "\ufffe\uffff" or unicodedata.category(c) in ("Cc", "Cs")
    return "\N{REPLACEMENT CHARACTER}" if unfit else c


# -- edges


def _step_edges(place: int, step: SurveyStep, *, unreached: bool) -> Iterable[DrawingEdge]:
    for route, label in zip(step.routes, _route_labels(step), strict=True):
        yield DrawingEdge(
            _step_key(place), _head_key(place, route.go), plain_line(label), unreached=unreached
        )
    if isinstance(step, QuestionStep) and isinstance(step.invalid, ReaskInvalid):
        go = END_INDEX if step.invalid.give_up is None else step.invalid.give_up
        label = f"after {pluralize(step.invalid.attempts, 'invalid answer')}"
        yield DrawingEdge(_step_key(place), _head_key(place, go), label, gives_up=True, unreached=unreached)


def _head_key(place: int, go: int) -> str:
    return _end_key(place) if go == END_INDEX else _step_key(go)


def _route_labels(step: SurveyStep) -> Sequence[str]:
    """What opens each route. They are tried in order, which is written where it may matter."""
    labels = [_route_label(route, step.id) for route in step.routes]
    if len(labels) > 1 and not labels[-1]:
        labels[-1] = "otherwise"
    if len(labels) > 2:
        labels[:-1] = [f"{n}. {label}" for n, label in enumerate(labels[:-1], 1)]
    return labels


def _route_label(route: Route, step: str) -> str:
    when = "" if route.when is None else describe_condition(route.when, step)
    if route.times is None:
        return when
    count = "once only" if route.times == 1 else f"up to {route.times} times"
    return f"{when} ({count})" if when else count


# -- marks


def _mark_highlight(drawing: Drawing, highlight: Collection[tuple[str, str]], legend: str) -> Drawing:
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
