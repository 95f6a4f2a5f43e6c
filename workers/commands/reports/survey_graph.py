"""`parley graph`: what does a survey look like, and how do people go through it?

A survey's file is all that it needs, but for `--live`: what that takes is imported then.
"""

import os
import sys
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, assert_never

import click

from engine.commands.exit_status import exit_unusable
from engine.drawing import END_ID, ENTRY_ID, Drawing, draw_survey
from engine.drawing.annotations import DrawingNumbers, annotate_drawing
from engine.drawing.dot import to_dot
from engine.drawing.mermaid import to_mermaid
from engine.model.extras import MissingExtraError
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_survey

DrawingForm = Literal["svg", "mermaid", "dot"]

_FORM_BY_SUFFIX: dict[str, DrawingForm] = {
    ".svg": "svg",
    ".mmd": "mermaid",
    ".md": "mermaid",
    ".dot": "dot",
    ".gv": "dot",
}
_STDOUT = "-"


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--as",
    "form",
    type=click.Choice(["svg", "mermaid", "dot"]),
    help="By default as OUTPUT is called, else SVG.",
)
@click.option("--output", "-o", help="A file to write, or - for standard output.")
@click.option("--language", help="Of the texts. By default the survey's first.")
@click.option("--dearest", is_flag=True, help="Mark the path that costs the most segments.")
@click.option("--live", is_flag=True, help="Draw on it how many sessions came by, from the archive.")
@click.option("--since", default="", metavar="WHEN", help="With --live: only those that opened since.")
@click.option("--until", default="", metavar="WHEN", help="With --live: only those that opened before.")
@click.option("--channel", "channels", multiple=True, help="With --live: only on this channel.")
def graph(
    file: Path, form: DrawingForm | None, output: str | None, language: str | None, dearest: bool,
    live: bool, since: str, until: str, channels: tuple[str, ...],
) -> None:  # fmt: skip
    """Draw the survey in FILE: its steps, and the routes that the engine follows.

    An SVG goes to <survey>.svg in this folder unless the output is piped; text is printed. OUTPUT's ending chooses
    the form: .svg, .mmd or .md for Mermaid, .dot or .gv. With --live it shows how many sessions reached each step,
    answered, wrote what could not be read, and left, and how often each way was taken: the wider, the oftener. Sessions
    of all versions count; ways that FILE does not have are not drawn. Exits with status 2 if FILE cannot be read as a survey, and
    1 if OUTPUT cannot be written.

    \b
    Examples:
      parley graph config/surveys/clinic.yaml
      parley graph clinic.yaml --dearest --output clinic.svg
      parley graph clinic.yaml --as mermaid --language "no"
      parley graph clinic.yaml --live --since 30d
    """
    if (since or until or channels) and not live:
        raise click.UsageError("--since, --until and --channel choose among sessions: say --live too")
    survey = _read_file(file)
    chosen = form or _output_form(output)
    spoken = _chosen_language(survey, language)
    highlight = dearest_edges(survey, spoken) if dearest else ()
    drawing = draw_survey(survey, spoken, highlight, f"the dearest path in {spoken}")
    if live:
        chosen_sessions = {"since": since, "until": until, "channels": channels}
        drawing = annotate_drawing(drawing, _read_live_numbers(survey, chosen_sessions))
    _write_drawing(_render_drawing(drawing, chosen, output), _target_path(survey, chosen, output))


def dearest_edges(survey: Survey, language: str) -> Collection[tuple[str, str]]:
    """The edges that the dearest session takes, from the entry to the end, as pairs of steps' ids."""
    from engine.proofs import dearest_path  # noqa: PLC0415 (proving takes longer than drawing)

    path = dearest_path(survey, language)
    if not path:
        click.echo(f"No dearest path is known; `parley lint {survey.file}` may say why", err=True)
        return []
    return list(pairwise((ENTRY_ID, *path, END_ID)))


def _read_live_numbers(survey: Survey, chosen: dict[str, Any]) -> DrawingNumbers:
    """How people went through the survey, from the archive."""
    from workers.commands.reports.live_numbers import read_live_numbers  # noqa: PLC0415 (see above)

    return read_live_numbers(os.environ, survey.name, chosen)


def _read_file(file: Path) -> Survey:
    """What lint would refuse can be read, and is worth seeing."""
    try:
        survey, _ = read_survey(file.name, file.read_bytes())
    except InvalidSurveyError as e:
        exit_unusable(*e.tell(file.name))
    return survey


def _output_form(output: str | None) -> DrawingForm:
    if output in (None, _STDOUT):
        return "svg"
    suffix = Path(output).suffix.lower()
    if suffix not in _FORM_BY_SUFFIX:
        raise click.BadParameter(
            f"its ending says no form: use {', '.join(_FORM_BY_SUFFIX)}, or --as", param_hint="--output"
        )
    return _FORM_BY_SUFFIX[suffix]


def _chosen_language(survey: Survey, wanted: str | None) -> str:
    if wanted is None:
        return survey.languages[0]
    if wanted not in survey.languages:
        raise click.BadParameter(f"the survey has {', '.join(survey.languages)}", param_hint="--language")
    return wanted


def _render_drawing(drawing: Drawing, form: DrawingForm, output: str | None) -> bytes:
    match form:
        case "svg":
            from engine.drawing.svg import to_svg  # noqa: PLC0415 (text needs no Graphviz)

            try:
                return to_svg(drawing)
            except MissingExtraError as e:
                raise click.ClickException(f"{e}; --as mermaid and --as dot do without") from e
        case "mermaid":
            text = to_mermaid(drawing)
            return (
                f"```mermaid\n{text}```\n" if output and output.lower().endswith(".md") else text
            ).encode()
        case "dot":
            return to_dot(drawing).encode()
        case _:
            assert_never(form)


def _target_path(survey: Survey, form: DrawingForm, output: str | None) -> Path | None:
    """The file to write; None: standard output."""
    if output is not None:
        return None if output == _STDOUT else Path(output)
    return Path(f"{survey.name}.svg") if form == "svg" and _is_terminal() else None


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def _write_drawing(drawn: bytes, target: Path | None) -> None:
    if target is None:
        click.echo(drawn, nl=False)
        return
    try:
        target.write_bytes(drawn)
    except OSError as e:
        raise click.ClickException(f"cannot write {target}: {e.strerror}") from None
    click.echo(f"Drawn to {target}", err=True)
