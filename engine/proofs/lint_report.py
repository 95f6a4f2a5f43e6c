"""All that is proved of one survey's file, and its bounds in words: what `parley lint` prints, and who else shows it."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec

from engine import proofs
from engine.model.plurals import pluralize
from engine.proofs import PathStop, SessionBounds, UpperBound
from engine.proofs.keep_limit import keep_findings
from engine.surveys.findings import InvalidSurveyError, SurveyFinding, refuse_on_any_error
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_survey, with_lines


class LintReport(msgspec.Struct, frozen=True, omit_defaults=False):
    """What is told about one file. `bounds` is None for a survey that does not compile, or does not end."""

    file: str
    survey: str
    version: str
    findings: list[SurveyFinding]
    bounds: SessionBounds | None

    @property
    def error_count(self) -> int:
        return sum(finding.level == "error" for finding in self.findings)


def lint_source(
    file: str, source: bytes, keep_days: int, shown_file: str = ""
) -> tuple[LintReport, Survey | None]:
    """Prove the survey in `source`, the content of the file named `file`, which is told as `shown_file`."""
    shown = shown_file or file
    try:
        survey, written = read_survey(file, source)
        with refuse_on_any_error():
            proof = proofs.SurveyProof(survey)
            found = with_lines(survey, [*proof.findings(), *written, *keep_findings(survey, keep_days)])
            found.sort(key=lambda finding: finding.level)
            return LintReport(shown, survey.name, survey.version, found, proof.bounds()), survey
    except InvalidSurveyError as e:
        return LintReport(shown, "", "", e.findings, None), None


def describe_ending(bounds: SessionBounds) -> str:
    """`It ends: at most 7 SMS out, at most 6 in, whatever the person does.`"""
    return (
        f"It ends: {at_most(bounds.sms_out)} SMS out, {at_most(bounds.sms_in)} in, whatever the person does."
    )


def at_most(bound: UpperBound, noun: str = "") -> str:
    """`at most 7 segments`; `no more than 9 (perhaps less)` where nobody has seen a session that comes to as many."""
    most = pluralize(bound.most, noun) if noun else str(bound.most)
    return f"at most {most}" if bound.attained else f"no more than {most} (perhaps less)"


def describe_path(path: Iterable[PathStop]) -> str:
    """`name -> temperature x3 -> fever +1 reminder`."""
    return " -> ".join(_stops(path))


def _stops(path: Iterable[PathStop]) -> Iterator[str]:
    """The stops of a path, those that are the same one after the other together."""
    for stop, same in groupby(map(_describe_stop, path)):
        often = len(list(same))
        yield f"{stop} ({often} times)" if often > 2 else " -> ".join([stop] * often)


def _describe_stop(stop: PathStop) -> str:
    said = f" x{stop.said}" if stop.said > 1 else ""
    reminded = f" +{pluralize(stop.reminded, 'reminder')}" if stop.reminded else ""
    return f"{stop.step}{said}{reminded}"
