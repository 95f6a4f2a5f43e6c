"""`parley lint`: what is proved about surveys before they run."""

import sys
from decimal import Decimal
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.text import Text

from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS
from engine.commands.json_output import print_json
from engine.commands.money import PriceType
from engine.commands.terminal import open_console
from engine.model.plurals import pluralize
from engine.proofs import SessionBounds
from engine.proofs.keyword_clashes import keyword_clashes
from engine.proofs.lint_report import LintReport, at_most, describe_ending, describe_path, lint_source
from engine.surveys.documents import FILE_LIMITS
from engine.surveys.findings import MOST_FINDINGS, SurveyFinding
from engine.surveys.program import Survey

_KEEP_DAYS = 365
"""The default of PARLEY_KEEP_DAYS."""


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--price", type=PriceType(), help="Money for one segment, such as 0.05; in your own currency.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON object a file and line; one without a file, last, for what is between them.",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 for warnings too.")
@click.option(
    "--keep-days",
    type=click.IntRange(1, 3650),
    envvar="PARLEY_KEEP_DAYS",
    default=_KEEP_DAYS,
    show_default=True,
    help="PARLEY_KEEP_DAYS of the deployment that is to run them: no survey's `keep` is longer.",
)
@click.option(
    "--dearest",
    metavar="LANGUAGE",
    help="Print the dearest conversation instead, for `parley chat --script`.",
)
def lint(
    files: tuple[Path, ...],
    price: Decimal | None,
    as_json: bool,
    strict: bool,
    keep_days: int,
    dearest: str | None,
) -> None:
    """Prove that surveys end, and what they cost at most.

    Prints what is wrong with each, step by step, with the reason and what mends it, and how much a session can send,
    hear and cost at most, whatever its person does. Exits with status 1 if a survey has errors: no process starts with
    it.

    \b
    Examples:
      parley lint config/surveys/*.yaml --price 0.05
      parley lint --json clinic.yaml
      parley lint --dearest en clinic.yaml > dearest.txt
    """
    reports: list[LintReport] = []
    surveys: list[Survey] = []
    for file in files:
        report, survey = _lint_file(file, keep_days)
        reports.append(report)
        surveys += [survey] if survey else []
    if dearest is not None:
        _print_dearest(reports, dearest)
        return
    across = keyword_clashes(surveys)
    if as_json:
        for report in [*reports, *([LintReport("", "", "", across, None)] if across else [])]:
            print_json(_report_json(report, price))
    else:
        _print_reports(reports, across, price)
    errors = sum(report.error_count for report in reports)
    warnings = len(across) + sum(len(report.findings) for report in reports) - errors
    sys.exit(EXIT_PROBLEMS if errors or (strict and warnings) else EXIT_OK)


def _lint_file(file: Path, keep_days: int) -> tuple[LintReport, Survey | None]:
    with file.open("rb") as opened:
        return lint_source(file.name, opened.read(FILE_LIMITS.size + 1), keep_days, str(file))


# -- for people


def _print_reports(reports: list[LintReport], across: list[SurveyFinding], price: Decimal | None) -> None:
    console = open_console(soft_wrap=True)
    for report in reports:
        known = f" ({report.survey}, version {report.version})" if report.survey else ""
        console.print(Text.assemble((report.file, "bold"), (known, "dim")))
        for finding in report.findings[:MOST_FINDINGS]:
            _print_finding(console, finding, report.file)
        if (more := len(report.findings) - MOST_FINDINGS) > 0:
            console.print(f"  and {pluralize(more, 'finding')} more; --json tells all of them")
        if report.bounds is not None:
            _print_bounds(console, report.bounds, price)
        console.print()
    for finding in across:
        _print_finding(console, finding)
    errors = sum(report.error_count for report in reports)
    warnings = len(across) + sum(len(report.findings) for report in reports) - errors
    console.print(
        f"{pluralize(len(reports), 'file')}, {pluralize(errors, 'error')}, {pluralize(warnings, 'warning')}"
    )


def _print_finding(console: Console, finding: SurveyFinding, file: str = "") -> None:
    style = "bold red" if finding.level == "error" else "yellow"
    line = f"{file}:{finding.line}: " if finding.line else ""
    step = f"step '{finding.step}', " if finding.step else ""
    console.print(Text.assemble("  ", (f"{finding.level:<8}", style), line, step, finding.reason))
    for excerpt in finding.excerpt.splitlines():
        console.print(Text.assemble("              ", excerpt))
    if finding.mend:
        console.print(Text.assemble("           ", (finding.mend, "dim")))


def _print_bounds(console: Console, bounds: SessionBounds, price: Decimal | None) -> None:
    console.print(f"  {describe_ending(bounds)}")
    for language, bound in bounds.segments.items():
        cost = f", {price * bound.most} at {price} each" if price is not None else ""
        console.print(f"  {language}: {at_most(bound, 'segment')}{cost}")
        if bound.path:
            console.print(Text.assemble("      by ", (describe_path(bound.path), "cyan")))


def _print_dearest(reports: list[LintReport], language: str) -> None:
    for report in reports:
        if report.bounds is None or language not in report.bounds.segments:
            raise click.ClickException(f"{report.file}: no dearest conversation in '{language}' is known")
        click.echo(report.bounds.segments[language].script, nl=False)


# -- for programs


def _report_json(report: LintReport, price: Decimal | None) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(report)
    if price is not None and report.bounds is not None:
        plain["cost"] = {
            language: float(price * bound.most) for language, bound in report.bounds.segments.items()
        }
    return plain
