"""A survey's graph in a page, and charts: the picture of the command, with ways in it; what people wrote is only text."""

import subprocess
import xml.etree.ElementTree as ET

import pytest

from engine.drawing import draw_survey
from engine.drawing.layout import LayoutArrow, Size, lay_out
from engine.drawing.svg import StepMark, to_svg
from engine.surveys.survey_reader import read_survey
from tests.console.surveyed import CLINIC
from workers.console.results.bar_chart import ChartBar, draw_bars
from workers.console.results.result_readings import hide_numbers
from workers.console.surveys import graph_layout
from workers.console.surveys.graph_layout import GraphLayouts, LayoutFailedError
from workers.console.surveys.survey_graph import LARGEST_GRAPH, draw_graph, graph_markup

SURVEY, _ = read_survey("clinic.yaml", CLINIC.encode())
DRAWN = {"svg", "title", "desc", "text", "rect", "path", "polygon", "g", "a"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp",
    "🩺" * 40,
    "x" * 5_000,
    "]]>",
    "",
]


def assert_plain(drawn):
    """It has no style, no script, and nothing else that a page's policy would stop, or should."""
    for each in ET.fromstring(drawn).iter():
        assert each.tag.partition("}")[2] in DRAWN
        assert [name for name in each.attrib if name == "style" or name.startswith("on")] == []


@pytest.mark.processes
@pytest.mark.console
def test_beside_this_process_it_is_laid_out_as_here():
    drawing = draw_survey(SURVEY, "en")
    assert to_svg(drawing, GraphLayouts().lay_out) == to_svg(drawing)


@pytest.mark.processes
@pytest.mark.console
def test_the_same_drawing_is_laid_out_once(monkeypatch):
    layouts = GraphLayouts()
    first = to_svg(draw_survey(SURVEY, "en"), layouts.lay_out)
    monkeypatch.setattr(subprocess, "run", None)
    assert to_svg(draw_survey(SURVEY, "en"), layouts.lay_out) == first


@pytest.mark.processes
@pytest.mark.console
def test_a_layout_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(graph_layout, "LONGEST_S", 0.001)
    with pytest.raises(LayoutFailedError, match="to lay the graph out"):
        GraphLayouts().lay_out({"a": Size(1, 1)}, [])


@pytest.mark.processes
@pytest.mark.console
def test_a_layout_that_fails_is_told(monkeypatch, tmp_path):
    (broken := tmp_path / "broken.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(graph_layout.layout, "__file__", str(broken))
    with pytest.raises(LayoutFailedError, match="CalledProcessError"):
        GraphLayouts().lay_out({"a": Size(1, 1), "b": Size(1, 1)}, [LayoutArrow("a", "b")])


def in_process():
    """Layouts that need no other process."""
    layouts = GraphLayouts()
    layouts.lay_out = lay_out
    return layouts


def test_each_step_leads_to_who_is_there_and_nothing_else_is_different():
    drawing = draw_graph(SURVEY, "en", (), None)
    plain, marked = (
        to_svg(drawing).decode(),
        graph_markup(SURVEY, drawing, in_process(), now="pain", been=["name"]),
    )
    root = ET.fromstring(marked)
    links = [each.get("href") for each in root.iter("{http://www.w3.org/2000/svg}a")]
    assert links == [f"/surveys/clinic/people?step={step}" for step in ("name", "pain", "bye")]
    classes = {each.get("data-step"): each.get("class") for each in root.iter() if each.get("data-step")}
    assert classes == {"name": "step been", "pain": "step here", "bye": "step"}
    assert (
        "".join(ET.fromstring(plain).itertext()).split() == "".join(ET.fromstring(marked).itertext()).split()
    )
    assert_plain(marked)


def test_a_graph_in_a_page_has_no_style_and_no_script():
    marked = graph_markup(SURVEY, draw_graph(SURVEY, "en", (), None), in_process())
    assert_plain(marked)


def test_an_address_is_only_an_address():
    drawn = to_svg(
        draw_survey(SURVEY, "en"), marks={"pain": StepMark('"><script>alert(1)</script>', "a b")}
    ).decode()
    assert (
        ET.fromstring(drawn).find(".//{http://www.w3.org/2000/svg}a").get("href")
        == '"><script>alert(1)</script>'
    )


def test_a_survey_too_large_for_a_page_is_no_part_of_it():
    steps = "".join(f"  - {{id: s{n}, ask: Question {n}?, answer: {{type: text}}}}\n" for n in range(120))
    survey, _ = read_survey("large.yaml", f"survey: large\nstart: [GO]\nsteps:\n{steps}".encode())
    drawing = draw_graph(survey, "en", (), None)
    assert len(to_svg(drawing)) > LARGEST_GRAPH
    assert graph_markup(survey, drawing, in_process()) is None


@pytest.mark.parametrize("text", HOSTILE)
def test_in_a_chart_what_people_wrote_is_only_text(text):
    drawn = draw_bars([ChartBar(text, 3, "60 %"), ChartBar("b", 2)], text, text, "chart-1")
    assert_plain(drawn)


def test_bars_are_as_long_as_their_numbers():
    drawn = ET.fromstring(
        draw_bars([ChartBar("a", 100), ChartBar("b", 50), ChartBar("c", 0), ChartBar("d", 1)], "t", "d", "c")
    )
    widths = [float(each.get("width")) for each in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[1] == pytest.approx(widths[0] / 2, abs=0.1)
    assert widths[2] == 0
    assert widths[3] > 0
    _, _, wide, _ = map(float, drawn.get("viewBox").split())
    assert max(widths) < wide


def test_a_chart_of_nothing_is_empty():
    ET.fromstring(draw_bars([], "t", "d", "c"))


@pytest.mark.parametrize(
    "written, shown",
    [("+33612345678", "+33…78"), ("06 12 34 56 78!", "06 …78!"), ("0033612345678", "003…78"), ("born 2026-01-31", "born 2026-01-31"),
     ("98.6", "98.6"), ("12,50 or 1 200", "12,50 or 1 200"), ("", "")],
)  # fmt: skip
def test_what_may_be_a_number_is_masked_and_days_stay(written, shown):
    assert hide_numbers(written) == shown
