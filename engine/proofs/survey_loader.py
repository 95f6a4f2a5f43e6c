"""Load survey files: compile each, prove it, and refuse it if the proofs find errors.

At start one refused file stops the process. In a running process a refused file changes nothing."""

from collections.abc import Collection, Mapping

import msgspec

from engine import proofs
from engine.surveys.documents import FileContent, UnreadableFile
from engine.surveys.findings import (
    InvalidSurveyError,
    SurveyFinding,
    invalid_file_finding,
    refuse_on_any_error,
)
from engine.surveys.program import Survey
from engine.surveys.survey_reader import read_survey, with_lines
from engine.surveys.survey_registry import SurveyRegistry


def load_survey(file: str, source: FileContent) -> Survey:
    """The survey in a file, if it may run. Raises InvalidSurveyError, and nothing else."""
    if isinstance(source, UnreadableFile):
        raise InvalidSurveyError([invalid_file_finding(source.why)])
    survey, _ = read_survey(file, source)
    with refuse_on_any_error():
        errors = [finding for finding in proofs.survey_findings(survey) if finding.level == "error"]
    if errors:
        raise InvalidSurveyError(with_lines(survey, errors))
    return survey


class ReloadResult(msgspec.Struct, frozen=True):
    """The surveys that are current after files changed.

    `changed`: those of `current` that are new or differ. `gone`: names no longer current. `refused`: file -> its
    problems as sentences; the survey it held before stays. `kept`: names that no file holds any more but that stay
    because a channel needs them."""

    current: tuple[Survey, ...]
    changed: tuple[Survey, ...]
    gone: tuple[str, ...]
    refused: Mapping[str, list[str]]
    kept: tuple[str, ...]


def load_surveys(files: Mapping[str, FileContent]) -> tuple[SurveyRegistry, list[str]]:
    """The surveys in `files` (file name -> content), and every problem of those that cannot be read, as sentences."""
    read, refused = _load_all(files, SurveyRegistry())
    problems = [finding.tell(file) for file in sorted(refused) for finding in refused[file]]
    return SurveyRegistry(read.values()), problems


def reload_surveys(
    files: Mapping[str, FileContent], running: SurveyRegistry, needed: Collection[str]
) -> ReloadResult:
    """Compute the surveys to run after `running`, given all `files` (file name -> content).

    A refused file changes nothing and does not affect other files. Surveys named in `needed` stay even if their file
    is gone."""
    was = {name: survey for name in running.current_names() if (survey := running.current(name))}
    read, refused = _load_all(files, running)
    current = dict(read)
    for name, survey in was.items():
        if survey.file in refused or name in needed:
            current.setdefault(name, survey)
    kept = (name for name, survey in was.items() if name not in read and survey.file not in refused)
    return ReloadResult(
        current=tuple(current.values()),
        changed=tuple(each for each in current.values() if was.get(each.name) is not each),
        gone=tuple(sorted(was.keys() - current.keys())),
        refused={file: [str(finding) for finding in findings] for file, findings in refused.items()},
        kept=tuple(sorted(name for name in kept if name in current)),
    )


def _load_all(
    files: Mapping[str, FileContent], running: SurveyRegistry
) -> tuple[dict[str, Survey], dict[str, list[SurveyFinding]]]:
    """The surveys in `files` by name, and the errors of the other files. Of two files with one survey, the one
    that is running comes first."""
    owners = {survey.file for name in running.current_names() if (survey := running.current(name))}
    read: dict[str, Survey] = {}
    refused: dict[str, list[SurveyFinding]] = {}
    for file in sorted(files, key=lambda file: (file not in owners, file)):
        try:
            survey = _unchanged_survey(file, files[file], running) or load_survey(file, files[file])
        except InvalidSurveyError as e:
            refused[file] = e.findings
            continue
        if (other := read.get(survey.name)) is not None:
            refused[file] = [invalid_file_finding(f"the survey '{survey.name}' is in {other.file} already")]
            continue
        read[survey.name] = survey
    return read, refused


def _unchanged_survey(file: str, source: FileContent, running: SurveyRegistry) -> Survey | None:
    """The running survey of this very file and content, so that it need not be compiled again."""
    current = (running.current(name) for name in running.current_names())
    return next((each for each in current if each and each.file == file and each.source == source), None)
