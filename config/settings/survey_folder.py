"""What is in the folder of surveys, and is it still the same? Looked at, not listened to: folders that are mounted
from elsewhere tell nobody of changes, and a look costs microseconds.

A file is taken as it is once two looks in a row found it the same, so that one which is being written is not read by
half.
"""

from pathlib import Path
from time import time_ns

SUFFIXES = (".yaml", ".yml", ".json")

SETTLED_NS = 2_000_000_000
"""Two changes of a file within this may bear the same time: no file system's clock is coarser."""

Files = dict[str, bytes]
"""File name -> content."""

_Stamp = tuple[int, int, int, int]


def survey_files(folder: Path) -> Files:
    """Every survey file in `folder`. Raises OSError."""
    return {file.name: file.read_bytes() for file in _paths(folder)}


def _paths(folder: Path) -> list[Path]:
    """Hidden files are others' business: an editor's, or the mount's."""
    return sorted(
        file for file in folder.iterdir() if file.suffix in SUFFIXES and not file.name.startswith(".")
    )


class Folder:
    """A folder of surveys, looked at again and again. Contents are read only if a file seems to have changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamps: dict[str, _Stamp] | None = None
        self._settled = False
        self._seen: Files = {}
        self._answered: Files | None = None

    def news(self) -> Files | None:
        """All the files, if they are not what they were at the last answer and are what they were at the last look;
        else None. Raises OSError."""
        stamps = {file.name: _stamp(file) for file in _paths(self.path)}
        if not (self._settled and stamps == self._stamps):
            now_ns, before = time_ns(), self._seen
            self._seen = survey_files(self.path)
            self._stamps = stamps
            self._settled = all(now_ns - max(times) > SETTLED_NS for *times, _, _ in stamps.values())
            if self._seen != before:
                return None
        if self._seen == self._answered:
            return None
        self._answered = self._seen
        return self._seen


def _stamp(file: Path) -> _Stamp:
    """What differs once the file has: times in ns, size, and which file it is."""
    found = file.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
