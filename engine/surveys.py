"""Which surveys does this process know? Every version of them that it was given, by name and by content.

A session is pinned to the version that it began with, so older versions stay known beside the current ones.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import PurePath

from engine.compiling import Rejected, compile_survey
from engine.documents import SUFFIXES, Unparsable, parse
from engine.program import Survey
from engine.questions_json import compile_questions


class Surveys:
    """Every version that is known. `current` answers for what is deployed, `version` for what a session began with."""

    def __init__(self, current: Iterable[Survey] = ()) -> None:
        self._current = {survey.name: survey for survey in current}
        self._versions = {survey.version: survey for survey in self._current.values()}

    def current(self, name: str) -> Survey | None:
        return self._current.get(name)

    def version(self, version: str) -> Survey | None:
        """`version` is Survey.version, the hash of its source."""
        return self._versions.get(version)

    def names(self) -> list[str]:
        """The names of the current surveys, in order."""
        return sorted(self._current)

    def add(self, name_of_file: str, source: bytes) -> Survey:
        """An older version, fetched from storage: known by its version only. Raises engine.compiling.Rejected."""
        survey = _read(name_of_file, source)
        self._versions.setdefault(survey.version, survey)
        return survey


def read_surveys(files: Mapping[str, bytes]) -> tuple[Surveys, list[str]]:
    """The surveys in `files` (file name -> content), and every problem of those that cannot be read, as sentences."""
    current: dict[str, Survey] = {}
    problems: list[str] = []
    for file in sorted(files):
        try:
            survey = _read(file, files[file])
        except Rejected as e:
            problems += [f"{file}: {problem}" for problem in e.problems]
            continue
        if (other := current.get(survey.name)) is not None:
            problems.append(f"{file}: the survey '{survey.name}' is in {other.file} already")
            continue
        current[survey.name] = survey
    return Surveys(current.values()), problems


def _read(file: str, source: bytes) -> Survey:
    if not file.endswith(SUFFIXES):
        raise Rejected([f"a survey's file is called {', '.join('*' + suffix for suffix in SUFFIXES)}"])
    try:
        raw = parse(file, source)
    except Unparsable as e:
        raise Rejected([str(e)]) from None
    version = blake2b(source, digest_size=8).hexdigest()
    if isinstance(raw, list) and file.endswith(".json"):
        return compile_questions(raw, PurePath(file).stem, file, source, version)
    return compile_survey(raw, file, source, version)
