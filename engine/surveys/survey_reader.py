"""How does a file become a survey? By its name it is YAML or JSON, by its content Parley's language or Octopush's.

A survey that could be read makes sense to the engine. Whether it ends, and may run, is proved elsewhere.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePath

import msgspec

from engine.surveys.compiling import compile_survey
from engine.surveys.cut_texts import cut_text_warnings
from engine.surveys.documents import (
    FILE_LIMITS,
    NO_LIMITS,
    SURVEY_SUFFIXES,
    DocumentLimits,
    DocumentSyntaxError,
    compose_document,
    parse_document,
)
from engine.surveys.findings import (
    InvalidSurveyError,
    SurveyFinding,
    invalid_file_finding,
    refuse_on_any_error,
)
from engine.surveys.program import Survey
from engine.surveys.questions_json import compile_questions
from engine.surveys.source_lines import locate_findings


def read_survey(
    file: str, source: bytes, limits: DocumentLimits = FILE_LIMITS
) -> tuple[Survey, list[SurveyFinding]]:
    """The survey in a file, and warnings about how it is written. Raises InvalidSurveyError, and nothing else."""
    with refuse_on_any_error():
        return _compile_file(file, source, limits)


def read_stored_survey(file: str, source: bytes) -> Survey:
    """The survey in a stored file. It ran, so nothing is proved about it again, and it may be of any size. Raises
    InvalidSurveyError."""
    survey, _ = read_survey(file, source, NO_LIMITS)
    return survey


def _compile_file(file: str, source: bytes, limits: DocumentLimits) -> tuple[Survey, list[SurveyFinding]]:
    if not file.endswith(SURVEY_SUFFIXES):
        raise InvalidSurveyError(
            [
                invalid_file_finding(
                    f"a survey's file is called {', '.join('*' + suffix for suffix in SURVEY_SUFFIXES)}"
                )
            ]
        )
    try:
        raw = parse_document(file, source, limits)
    except DocumentSyntaxError as e:
        raise InvalidSurveyError([_syntax_finding(e)]) from None
    version = blake2b(source, digest_size=8).hexdigest()
    try:
        if isinstance(raw, list) and file.endswith(".json"):
            return compile_questions(raw, PurePath(file).stem, file, source, version)
        survey, written = compile_survey(raw, file, source, version)
    except InvalidSurveyError as e:
        raise InvalidSurveyError(locate_findings(compose_document(source, limits), e.findings)) from None
    if file.endswith(".json"):
        return survey, written
    return survey, [*written, *cut_text_warnings(source.decode("utf-8-sig"), raw, survey.languages)]


def with_lines(survey: Survey, findings: Sequence[SurveyFinding]) -> list[SurveyFinding]:
    """The findings about a survey that was read, those with their line in its file that can be found there."""
    if not findings:
        return []
    return locate_findings(compose_document(survey.source, NO_LIMITS), findings)


def _syntax_finding(error: DocumentSyntaxError) -> SurveyFinding:
    found = invalid_file_finding(str(error))
    return msgspec.structs.replace(found, mend=error.mend, line=error.line, excerpt=error.excerpt)
