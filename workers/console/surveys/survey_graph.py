"""A survey's graph as part of a page: each step leads to who is there, numbers stand on steps and ways, and the dearest path is
marked."""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from urllib.parse import quote, urlencode

from markupsafe import Markup

from engine.drawing import END_ID, ENTRY_ID, Drawing, draw_survey
from engine.drawing.annotations import DrawingNumbers, annotate_drawing
from engine.drawing.svg import StepMark, to_svg
from engine.surveys.program import Survey
from workers.console.surveys.graph_layout import GraphLayouts

LARGEST_GRAPH = 50_000
"""Bytes of a graph that is part of a page. One that is larger is a picture beside it, on which nothing can be clicked."""


def survey_address(name: str, page: str = "", **query: str) -> str:
    """Where the page of a survey is, or one of its pages."""
    given = {key: value for key, value in query.items() if value}
    path = f"/surveys/{quote(name, safe='')}" + (f"/{page}" if page else "")
    return f"{path}?{urlencode(given)}" if given else path


def draw_graph(
    survey: Survey, language: str, dearest_steps: Sequence[str], numbers: DrawingNumbers | None
) -> Drawing:
    """The survey with its dearest path, if its steps are known, and its numbers, if they are."""
    path = list(pairwise((ENTRY_ID, *dearest_steps, END_ID))) if dearest_steps else []
    drawing = draw_survey(survey, language, path, f"the dearest path in {language}")
    return drawing if numbers is None else annotate_drawing(drawing, numbers)


def graph_picture(drawing: Drawing, layouts: GraphLayouts) -> bytes:
    """A file of its own. Raises LayoutFailedError."""
    return to_svg(drawing, layouts.lay_out)


def graph_markup(
    survey: Survey, drawing: Drawing, layouts: GraphLayouts, *, now: str = "", been: Collection[str] = ()
) -> Markup | None:
    """The graph as part of a page, with a conversation's place on it; None if it is too large. Raises LayoutFailedError."""
    drawn = to_svg(drawing, layouts.lay_out, _step_marks(survey, now, been))
    return Markup(drawn.decode()) if len(drawn) <= LARGEST_GRAPH else None  # noqa: S704 (to_svg escapes)


def _step_marks(survey: Survey, now: str, been: Collection[str]) -> Mapping[str, StepMark]:
    return {
        step.id: StepMark(
            survey_address(survey.name, "people", step=step.id),
            " ".join(["here"] * (step.id == now) + ["been"] * (step.id in been)),
        )
        for step in survey.steps
    }
