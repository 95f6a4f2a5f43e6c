"""Watches the folder of surveys by looking at it: folders that are mounted from elsewhere tell nobody of changes, and
a look costs microseconds.

A file is taken as it is once two looks in a row found it the same, so that one which is being written is not read by
half.
"""

from pathlib import Path
from time import time_ns

from engine.surveys.documents import SURVEY_SUFFIXES

MTIME_GRANULARITY_NS = 2_000_000_000
"""Two changes of a file within this may bear the same time: no file system's clock is coarser."""

SurveyFiles = dict[str, bytes]
"""File name -> content."""

_FileStamp = tuple[int, int, int, int]


def read_survey_files(folder: Path) -> SurveyFiles:
    """Every survey file in `folder`. Raises OSError."""
    return {file.name: file.read_bytes() for file in _survey_paths(folder)}


def _survey_paths(folder: Path) -> list[Path]:
    """Hidden files are others' business: an editor's, or the mount's."""
    return sorted(
        file for file in folder.iterdir() if file.suffix in SURVEY_SUFFIXES and not file.name.startswith(".")
    )


class SurveyFolder:
    """A folder of surveys, looked at again and again. Contents are read only if a file seems to have changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps: dict[str, _FileStamp] | None = None
        self._settled = False
        self._last_seen: SurveyFiles = {}
        self._last_answered: SurveyFiles | None = None

    def changed_files(self) -> SurveyFiles | None:
        """Return all files if they differ from the last ones returned and have stayed the same for two looks; else None.
        Raises OSError."""
        stamps = {file.name: _file_stamp(file) for file in _survey_paths(self.path)}
        if not (self._settled and stamps == self._stamps):
            now_ns, before = time_ns(), self._last_seen
            self._last_seen = read_survey_files(self.path)
            self._stamps = stamps
            self._settled = all(
                now_ns - max(times) > MTIME_GRANULARITY_NS for *times, _, _ in stamps.values()
            )
            if self._last_seen != before:
                return None
        if self._last_seen == self._last_answered:
            return None
        self._last_answered = self._last_seen
        return self._last_seen


def _file_stamp(file: Path) -> _FileStamp:
    """Return what differs once the file has changed: times in ns, size, and which file it is."""
    found = file.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
