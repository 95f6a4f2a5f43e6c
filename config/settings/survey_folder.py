"""Watches the folder of surveys by looking at it: folders that are mounted from elsewhere tell nobody of changes, and
a look costs microseconds.

A file is taken as it is once two looks in a row found it the same, so that one which is being written is not read by
half. A file that cannot be read is there, as an UnreadableFile, and keeps no other from being read.
"""

import os
import stat
from pathlib import Path
from time import time_ns

from engine.surveys.documents import FILE_LIMITS, SURVEY_SUFFIXES, FileContent, UnreadableFile

MTIME_GRANULARITY_NS = 2_000_000_000
"""Two changes of a file within this may bear the same time: no file system's clock is coarser."""

SurveyFiles = dict[str, FileContent]
"""File name -> content; of a file that is too large, a byte more than is read of any."""

_FileStamp = tuple[int, int, int, int]

_NO_STAMP: _FileStamp = (0, 0, 0, 0)


def read_survey_files(folder: Path) -> SurveyFiles:
    """Every survey file in `folder`. Raises OSError if the folder itself cannot be read."""
    return {file.name: _read_file(file) for file in _survey_paths(folder)}


def _read_file(file: Path) -> FileContent:
    """Read a file, of which nobody can say what it is: a pipe would never come to its end, nor would /dev/zero."""
    try:
        with open(file, "rb", opener=_open_without_waiting) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                return UnreadableFile("it is no regular file")
            return opened.read(FILE_LIMITS.size + 1)
    except OSError as e:
        return UnreadableFile(f"it cannot be read ({e.strerror})")


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a pipe that nobody writes to at once, where `open` would wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _survey_paths(folder: Path) -> list[Path]:
    """Hidden files are others' business: an editor's, or the mount's."""
    return sorted(
        file for file in folder.iterdir() if file.suffix in SURVEY_SUFFIXES and not file.name.startswith(".")
    )


class SurveyFolder:
    """A folder of surveys, looked at again and again. Contents are read only if a file seems to have changed, or could
    not be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps: dict[str, _FileStamp] | None = None
        self._settled = False
        self._last_seen: SurveyFiles = {}
        self._last_answered: SurveyFiles | None = None

    def changed_files(self) -> SurveyFiles | None:
        """Return all files if they differ from the last ones returned and have stayed the same for two looks; else None.
        Raises OSError if the folder itself cannot be read."""
        stamps = {file.name: _file_stamp(file) for file in _survey_paths(self.path)}
        if not (self._settled and stamps == self._stamps):
            now_ns, before = time_ns(), self._last_seen
            self._last_seen = read_survey_files(self.path)
            self._stamps = stamps
            self._settled = all(
                now_ns - max(times) > MTIME_GRANULARITY_NS for *times, _, _ in stamps.values()
            ) and not any(isinstance(each, UnreadableFile) for each in self._last_seen.values())
            if self._last_seen != before:
                return None
        if self._last_seen == self._last_answered:
            return None
        self._last_answered = self._last_seen
        return self._last_seen


def _file_stamp(file: Path) -> _FileStamp:
    """Return what differs once the file has changed: times in ns, size, and which file it is."""
    try:
        found = file.stat()
    except OSError:
        return _NO_STAMP
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
