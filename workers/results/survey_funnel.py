"""A survey's funnel as numbers for whoever draws it on the survey's graph."""

from collections.abc import Iterator

from config.archive.funnel import FUNNEL_END, FUNNEL_START, Funnel, FunnelStep
from engine.drawing import END_ID, ENTRY_ID
from engine.drawing.annotations import DrawingNumbers
from engine.model.durations import format_duration
from engine.model.timestamps import format_utc
from workers.results.archive_state import ArchiveState
from workers.results.result_wording import format_count, format_sessions, format_share, readable_word


def describe_counted(funnel: Funnel, archive: ArchiveState) -> str:
    """`1,234 sessions until 2026-01-31 08:00:00 UTC`."""
    until = (
        f"until {format_utc(archive.read_until)} UTC" if archive.read_until else "the archive has nothing yet"
    )
    return f"{format_sessions(funnel.sessions)} {until}"


def funnel_numbers(funnel: Funnel, subtitle: str) -> DrawingNumbers:
    """A funnel as numbers of a drawing."""
    names = {FUNNEL_START: ENTRY_ID, FUNNEL_END: END_ID}
    return DrawingNumbers(
        steps={step.step: list(_step_lines(step, funnel.sessions)) for step in funnel.steps},
        ways={
            (names.get(edge.tail, edge.tail), names.get(edge.head, edge.head)): edge.passages
            for edge in funnel.edges
        },
        gave_up={step.step: step.left["gave_up"] for step in funnel.steps if "gave_up" in step.left},
        subtitle=subtitle,
    )


def _step_lines(step: FunnelStep, sessions: int) -> Iterator[str]:
    yield f"{format_count(step.reached)} reached it ({format_share(step.reached, sessions)})"
    if step.asks:
        within = f", in {format_duration(step.median_s * 1000)}" if step.median_s is not None else ""
        yield f"{format_count(step.answered)} answered ({format_share(step.answered, step.reached)}){within}"
    if step.misread_sessions:
        share = format_share(step.misread_sessions, step.reached)
        yield f"{format_count(step.misread_sessions)} misread ({share})"
    if step.left_sessions:
        endings = ", ".join(readable_word(ending) for ending in step.left)
        yield f"{format_count(step.left_sessions)} left here ({endings})"
    if step.waiting:
        yield f"{format_count(step.waiting)} open here"
