"""What is drawn is what the engine follows, whatever an author wrote, in each of the three forms."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree as ET

import pygraphviz
import pytest

from engine.drawing import END_ID, ENTRY_ID, draw_survey, plain_line
from engine.drawing.dot import to_dot
from engine.drawing.lettering import excerpt_lines, text_width, wrap_lines
from engine.drawing.mermaid import to_mermaid
from engine.drawing.svg import to_svg
from engine.surveys.program import END_INDEX, QuestionStep, ReaskInvalid
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import ROOT, SHIPPED
from tests.support.waiting import used_s

HOSTILE = (
    "\"stay\" 'at' <Hotel & Spa> </text><script>x</script> &lt; \\N back\\slash { brace } [x](y) | pipe ]] end; --> "
    "#35; #quot; `code` **bold** _under_ %% comment 1. one 2) two www.example.com http://example.com style:#fff; 😀"
)
SVG = "{http://www.w3.org/2000/svg}"

SURVEY = """
survey: every
title: Every kind of route
start: {en: START, "no": BEGYNN}
languages: [en, "no"]
steps:
  - {id: start, say: {en: "Hi {agentId|there}", "no": Hei}}
  - id: age
    ask: {en: "How old are you?", "no": "Hvor gammel er du?"}
    answer: {type: number, min: 0, max: 150}
    attempts: 2
    give_up: sorry
    remind: {after: 2h, times: 2, text: "Well?"}
    next:
      - {when: {at_most: 17}, go: young}
      - {when: {above: 130}, go: age, times: 1}
      - {when: {variable: agentId, equals: 7}, go: end}
      - {when: {equals: 99}, go: young}
      - {go: end}
  - {id: young, say: Too young., next: end}
  - {id: sorry, say: Sorry., next: end}
"""


def survey_of(text, name="a.yaml"):
    survey, _ = read_survey(name, text.encode())
    return survey


def shipped_surveys():
    return [read_survey(file, source)[0] for file, source in SHIPPED.items()]


def shipped(name):
    return next(survey for survey in shipped_surveys() if survey.name == name)


def all_surveys():
    return [*shipped_surveys(), survey_of(SURVEY), survey_of(hostile()), survey_of(long())]


def hostile():
    steps = [
        {"id": "end-", "ask": HOSTILE, "answer": {"type": "choice", "options": ["<a>", "b | c", '"]']},
         "next": [{"when": {"equals": "b | c"}, "go": "graph"}, {"go": "end"}]},
        {"id": "graph", "ask": "x\n\ty\u202e z", "answer": {"type": "text"},
         "next": [{"when": {"contains": HOSTILE}, "go": "subgraph"}, {"when": {"matches": r'["<>&|#]+\\'}, "go": "end"}]},
        {"id": "subgraph", "say": "w" * 300},
    ]  # fmt: skip
    survey = {"survey": "hostile", "title": HOSTILE, "steps": steps}
    return json.dumps(survey, ensure_ascii=False)


def long(count=40):
    """Loops, a `give_up`, texts too long, letters beyond ASCII."""
    steps = []
    for n in range(count):
        step = {"id": f"s{n}", "ask": "Blåbærgrøt på fjellet, 日本語 😀 " * 9, "answer": {"type": "number"}}
        if n % 4 == 1:
            step["next"] = [
                {"when": {"at_least": 9}, "go": f"s{min(n + 3, count - 1)}"},
                {"when": {"below": 0}, "go": f"s{n - 1}", "times": 2},
                {"go": f"s{min(n + 1, count - 1)}"},
            ]
            step["give_up"] = f"s{min(n + 2, count - 1)}"
        steps.append(step)
    return json.dumps({"survey": "long", "steps": steps}, ensure_ascii=False)


def followed(survey):
    """Every way that the engine may go on, as often as it may: from, to, by giving up?"""
    ids = {place: step.id for place, step in enumerate(survey.steps)} | {END_INDEX: END_ID}
    ways = [(ENTRY_ID, ids[0], False)]
    for step in survey.steps:
        ways += [(step.id, ids[route.go], False) for route in step.routes]
        if isinstance(step, QuestionStep) and isinstance(step.invalid, ReaskInvalid):
            give_up = END_INDEX if step.invalid.give_up is None else step.invalid.give_up
            ways.append((step.id, ids[give_up], True))
    return Counter(ways)


def groups(svg, kind):
    """The groups of that class, as their classes and their title."""
    found = ET.fromstring(svg).iter(f"{SVG}g")
    return [
        (each.get("class").split(), each.find(f"{SVG}title").text)
        for each in found
        if each.get("class", "").split()[:1] == [kind]
    ]


def in_svg(drawing):
    ways = []
    for classes, title in groups(to_svg(drawing), "edge"):
        tail, head = re.match(r"(\S+) → (\S+?)(?:: |$)", title).groups()
        ways.append((tail, head, "gives_up" in classes))
    return Counter(ways)


def in_dot(drawing):
    graph = pygraphviz.AGraph(string=to_dot(drawing))
    ways = Counter(
        (edge[0], re.sub(r"^end:e\d+$", "end", edge[1]), edge.attr["style"] == "dashed")
        for edge in graph.edges_iter()
    )
    graph.close()
    return ways


def in_mermaid(drawing):
    step = {node.key: node.step for node in drawing.nodes}
    arrows = re.findall(
        r'^  (\w+) (-->|==>|-\.->)(?:\|"[^"|]*"\|)? (\w+)$', to_mermaid(drawing), re.MULTILINE
    )
    return Counter((step[tail], step[head], arrow == "-.->") for tail, arrow, head in arrows)


@pytest.mark.parametrize("survey", all_surveys(), ids=lambda survey: survey.name)
@pytest.mark.parametrize("seen", [in_svg, in_dot, in_mermaid])
def test_every_route_of_the_engine_is_drawn_once_and_nothing_else(survey, seen):
    assert seen(draw_survey(survey, survey.languages[0])) == followed(survey)


def test_a_route_says_what_opens_it_and_when_it_is_tried():
    drawing = draw_survey(survey_of(SURVEY), "en")
    assert [edge.label for edge in drawing.edges if edge.tail == "s1"] == [
        "1. at most 17", "2. above 130 (once only)", "3. agentId is 7", "4. is 99", "otherwise",
        "after 2 invalid answers",
    ]  # fmt: skip


def test_the_only_route_of_a_step_says_nothing():
    assert [edge.label for edge in draw_survey(survey_of(SURVEY), "en").edges if edge.tail == "s0"] == [""]


def test_a_node_shows_the_text_in_the_language_the_answer_type_and_the_reminder():
    entry, hello, age, *_ = draw_survey(survey_of(SURVEY), "no").nodes
    assert entry.text == ("START (en)", "BEGYNN (no)")
    assert hello.text == ("Hei",)
    assert age.text == ("Hvor gammel er du?",)
    assert age.notes == ("number 0–150", "reminder after 2h, 2 times")


def test_a_placeholder_is_shown_by_its_name():
    assert draw_survey(survey_of(SURVEY), "en").nodes[1].text == ("Hi {agentId}",)


# -- marks


def test_a_step_that_nothing_leads_to_is_said_to_be_so_in_every_form():
    drawing = draw_survey(shipped("tutorial"), "en")
    assert [node.step for node in drawing.nodes if node.unreached] == ["2"]
    assert [(edge.tail, edge.head) for edge in drawing.edges if edge.unreached] == [("s2", "s3")]
    (found,) = [title for classes, title in groups(to_svg(drawing), "node") if "unreached" in classes]
    assert found.startswith("2\n")
    assert "never reached" in found
    assert to_dot(drawing).count("never reached") == to_mermaid(drawing).count("never reached") == 1
    assert "class s2 unreached" in to_mermaid(drawing)


def test_no_step_of_the_clinic_is_marked_in_any_way():
    drawing = draw_survey(shipped("clinic"), "en")
    assert not any(part.unreached or part.marked for part in (*drawing.nodes, *drawing.edges))


def test_a_path_is_marked_with_its_nodes_and_a_legend():
    path = [(ENTRY_ID, "name"), ("name", "temperature"), ("temperature", "healthy"), ("healthy", END_ID)]
    drawing = draw_survey(shipped("clinic"), "en", path, "the dearest path")
    svg = to_svg(drawing)
    assert {title.split(":")[0] for classes, title in groups(svg, "edge") if "marked" in classes} == {
        f"{tail} → {head}" for tail, head in path
    }
    marked = [title.splitlines()[0] for classes, title in groups(svg, "node") if "marked" in classes]
    assert marked == [ENTRY_ID, "name", "temperature", "healthy", END_ID]
    assert b"the dearest path" in svg
    assert to_mermaid(drawing).count("==>") == to_mermaid(drawing).count("linkStyle") == 4
    assert to_dot(drawing).count("penwidth=3") == 4 + 5


def test_a_path_over_a_give_up_marks_it_only_where_no_route_leads_the_same_way():
    survey = survey_of(SURVEY)
    over = draw_survey(survey, "en", [("age", "sorry"), ("age", END_ID)]).edges
    assert [edge.label for edge in over if edge.marked] == [
        "3. agentId is 7",
        "otherwise",
        "after 2 invalid answers",
    ]
    clinic = draw_survey(shipped("clinic"), "en", [("name", END_ID)]).edges
    assert [(edge.tail, edge.gives_up) for edge in clinic if edge.marked] == [("s0", True)]
    both = draw_survey(survey_of(hostile()), "en", [("end-", END_ID)]).edges
    assert [edge.label for edge in both if edge.marked] == ["otherwise"]


def test_where_nothing_is_marked_there_is_no_legend():
    drawing = draw_survey(shipped("clinic"), "en", [("fever", "name")], "the dearest path")
    assert drawing.legend == ""


def test_a_step_called_start_is_not_the_entry():
    """The ids that stand for the entry and the end are none that an author can give."""
    survey = survey_of(SURVEY)
    assert [edge.tail for edge in draw_survey(survey, "en", [("start", "age")]).edges if edge.marked] == [
        "s0"
    ]
    assert {ENTRY_ID, END_ID}.isdisjoint(step.id for step in survey.steps)


# -- whatever an author wrote


def test_a_hostile_text_is_only_a_text_in_svg():
    root = ET.fromstring(to_svg(draw_survey(survey_of(hostile()), "en")))
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {
        "svg", "title", "rect", "text", "g", "path", "polygon",
    }  # fmt: skip
    assert "<Hotel & Spa> </text><script>" in "".join(root.itertext())


@pytest.mark.parametrize("bad", ["\x00", "\x1b", "\ufffe", "\uffff", "\x85", "\u2028"])
def test_what_xml_cannot_hold_does_not_break_it(bad):
    """No such sign need come through a file: the drawing does not rely on its reader."""
    survey = survey_of(json.dumps([{"text": f"a{bad}b", "next": -2}]), "q.json")
    drawing = draw_survey(survey, "en")
    ET.fromstring(to_svg(drawing))
    to_dot(drawing).encode()
    to_mermaid(drawing).encode()


def test_a_sign_newer_than_the_tables_of_python_is_shown():
    newer = "\U0001fae8 \U0001fae9"
    assert plain_line(newer) == newer
    assert text_width(newer) > 2, "and has the room of an emoji"


def test_a_hostile_text_is_only_a_text_in_dot():
    graph = pygraphviz.AGraph(string=to_dot(draw_survey(survey_of(hostile()), "en")))
    assert {str(node) for node in graph.nodes()} == {
        ENTRY_ID,
        "end-",
        "graph",
        "subgraph",
        "end:e0",
        "end:e1",
        "end:e2",
    }
    assert "<script>" not in graph.get_node("end-").attr["label"]
    rendered = "".join(ET.fromstring(graph.draw(format="svg", prog="dot")).itertext())
    assert rendered.count("\\N back\\slash { brace }") == 2, "in the title and in the question"
    assert "&lt; \\N" in rendered, "in the title: an entity that the author wrote stays one"
    assert '/["<>&|#]+\\\\/' in rendered, "in a condition"
    graph.close()


def test_mermaid_sees_no_sign_of_its_own_in_a_text():
    """Markdown, HTML, quotes, comments, brackets: all of them come as entities, which it puts back at the very end."""
    labels = re.findall(r'"([^"\n]*)"', to_mermaid(draw_survey(survey_of(hostile()), "en")))
    assert labels
    for label in labels:
        bare = re.sub(r"#\d+;|</?b>|</?small>|<br/>", "", label)
        assert not re.search(r"[\"<>&#;|`*_\[\](){}%\\:@-]", bare), label
        assert not re.search(r"\d[.)]", bare), label
    assert "#34;stay#34;" in "".join(labels)


def test_no_line_of_mermaid_is_taken_for_a_style():
    """It strips the semicolon that ends a line with `style...:...#...;`, and with it what closes an entity."""
    lines = to_mermaid(draw_survey(survey_of(hostile()), "en")).splitlines()
    drawn = [line for line in lines if not line.startswith("%%")]
    assert not [line for line in drawn if re.search(r"(style|classDef).*:\S*#.*;", line)]


# -- readable


def boxes(svg):
    """Each node's rectangle and texts, as numbers."""
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        if group.get("class", "").startswith("node"):
            yield group.find(f"{SVG}rect"), group.findall(f"{SVG}text")


@pytest.mark.parametrize("survey", all_surveys(), ids=lambda survey: survey.name)
def test_every_line_of_a_node_is_within_its_box(survey):
    for rect, texts in boxes(to_svg(draw_survey(survey, survey.languages[0]))):
        left, top, wide, tall = (float(rect.get(each)) for each in ("x", "y", "width", "height"))
        for text in texts:
            size = float(text.get("font-size"))
            bold = 1.13 if text.get("font-weight") else 1
            assert left < float(text.get("x"))
            assert float(text.get("x")) + text_width(text.text) * size * bold < left + wide
            assert top + size * 0.7 < float(text.get("y")) < top + tall - size * 0.2


def test_a_long_text_is_cut_and_told_whole_to_who_points_at_it():
    survey = survey_of(long(2))
    svg = to_svg(draw_survey(survey, "en"))
    shown = [[text.text for text in texts] for _, texts in boxes(svg)][1]
    assert len(shown) == 1 + 5 + 1
    assert shown[5].endswith("…")
    title = next(title for classes, title in groups(svg, "node") if "ask" in classes)
    assert title.count("Blåbærgrøt") == 9


@pytest.mark.parametrize(
    "text", ["a " * 200, "x" * 300, "日本語" * 60, "https://example.com/" + "path/" * 40]
)
def test_no_line_is_wider_than_it_may_be(text):
    assert max(map(text_width, excerpt_lines([text]))) <= 17
    assert len(excerpt_lines([text])) == 5


def test_a_word_too_long_for_a_line_breaks_after_a_sign_that_joins():
    assert wrap_lines("a_rather_long_name-for-a-step", 12, 9) == ["a_rather_long_name-", "for-a-step"]


def test_wrapping_loses_nothing_but_white_space():
    assert "".join(wrap_lines(HOSTILE * 3, 9, 999)).replace(" ", "") == (HOSTILE * 3).replace(" ", "")


# -- the same everywhere


@pytest.mark.parametrize("form", [to_svg, to_dot, to_mermaid])
@pytest.mark.processes
def test_one_survey_gives_the_same_bytes_in_every_process(form):
    """Sets have another order in another process, and fonts another width on another machine; neither shows."""
    script = (
        f"import sys\nfrom engine.surveys.survey_reader import read_survey\nfrom engine.drawing import draw_survey\n"
        f"from {form.__module__} import {form.__name__} as form\n"
        "survey, _ = read_survey('a.yaml', sys.stdin.buffer.read())\n"
        "drawn = form(draw_survey(survey, 'en'))\n"
        "sys.stdout.buffer.write(drawn if isinstance(drawn, bytes) else drawn.encode())"
    )
    source = json.dumps({"survey": "mixed", "steps": [
        {"id": "a", "ask": "a?", "answer": {"type": "choice", "options": list("pqrstuvw")},
         "next": [{"when": {"one_of": list("wvtsqp")}, "go": "b"}, {"go": "end"}]},
        {"id": "b", "say": "b"},
    ]})  # fmt: skip

    def run(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "FONTCONFIG_FILE": f"/nowhere/{seed}"}
        command = [sys.executable, "-c", script]
        return subprocess.run(
            command, input=source.encode(), capture_output=True, check=True, env=environment, cwd=ROOT
        )

    first, second = run("1"), run("2")
    assert first.stdout == second.stdout


def test_forty_steps_are_drawn_in_under_two_seconds():
    survey = survey_of(long())
    assert used_s(lambda: to_svg(draw_survey(survey, "en"))) < 2


def test_laying_out_says_nothing_in_the_terminal(capfd):
    to_svg(draw_survey(survey_of(hostile()), "en"))
    assert capfd.readouterr() == ("", "")
