"""A file that is whole, or is not there: it is written in a folder of its own beside, and gets its name once it is on the disk.

What a kill leaves behind is a folder `.<name>.<letters>.part`, which nobody takes for results. What is written is for its
owner's eyes alone.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from engine.model.errors import ParleyError


class FileExistsAlreadyError(ParleyError):
    """There is such a file, and nobody said that it may be replaced."""

    def __init__(self, target: Path) -> None:
        super().__init__(f"{target} is there already: name another file, or replace it with --force")


@contextmanager
def whole_file(target: Path, *, replace: bool) -> Iterator[Path]:
    """Yield where to write; once the block ends, it is at `target`. Raises FileExistsAlreadyError before that if there is one and
    it is not to be replaced, also one that comes meanwhile; OSError if the disk refuses."""
    require_absent(target, replace=replace)
    with _folder_beside(target) as folder:
        written = folder / target.name
        yield written
        _finish(written)
        _rename(written, target, replace=replace)
        _sync(target.parent)


@contextmanager
def whole_folder(target: Path, *, replace: bool) -> Iterator[Path]:
    """The same of a folder of files. One that is there and empty may be used; with `replace`, files are put among those that a
    folder has."""
    if not replace and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsAlreadyError(target)
    with _folder_beside(target) as folder:
        written = folder / target.name
        written.mkdir(0o700)
        yield written
        for file in written.iterdir():
            _finish(file)
        if target.is_dir():
            for file in written.iterdir():
                file.replace(target / file.name)
        else:
            written.rename(target)
        _sync(target)
        _sync(target.parent)


def require_absent(target: Path, *, replace: bool) -> None:
    """Raise FileExistsAlreadyError if there is such a file that is not to be replaced."""
    if target.exists() and not replace:
        raise FileExistsAlreadyError(target)


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    folder = Path(mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rename(written: Path, target: Path, *, replace: bool) -> None:
    if replace:
        written.replace(target)
        return
    try:
        os.link(written, target)  # unlike a rename, it fails if there is one meanwhile
    except FileExistsError as e:
        raise FileExistsAlreadyError(target) from e


def _finish(written: Path) -> None:
    """Put a file onto the disk, readable by its owner alone."""
    written.chmod(0o600)
    _sync(written)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
