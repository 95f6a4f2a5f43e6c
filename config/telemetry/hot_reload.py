"""How does a running process take up what has changed in the folder of surveys? In a thread of its own, a look at a
time. What is wrong with a file is said once for each content; nothing that goes wrong ends the process, nor the
looking.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Generic, Protocol, TypeVar

import redis
import structlog

from config.settings.survey_folder import SurveyFiles, SurveyFolder
from config.telemetry import metrics

log = structlog.get_logger()

RELOAD_INTERVAL_S = 0.5
"""Between two looks, so that a change is taken up within a second and a bit."""

JOIN_TIMEOUT_S = 1.0
"""How long what is under way may take once it is to end."""


class Survey(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def file(self) -> str: ...


class Reread(Protocol):
    """What is current once files have changed: as engine.surveys.survey_registry.Reread."""

    @property
    def changed(self) -> Sequence[Survey]: ...
    @property
    def gone(self) -> Sequence[str]: ...
    @property
    def refused(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def kept(self) -> Collection[str]: ...


R = TypeVar("R", bound=Reread)


class SurveyReloader(Generic[R]):
    """Keeps a process's surveys as its folder has them. `reread` decides what a change comes to, and `take_up` does
    it; while that fails, for Redis does not answer, it is tried again at each look."""

    def __init__(
        self, folder: Path, reread: Callable[[SurveyFiles], R], take_up: Callable[[R], None]
    ) -> None:
        self._folder = SurveyFolder(folder)
        self._reread = reread
        self._apply = take_up
        self._pending: tuple[SurveyFiles, R] | None = None
        self._unreadable = ""
        self._refused: SurveyFiles = {}
        self._kept: set[str] = set()

    def check_folder(self) -> None:
        """One look. Raises what `take_up` raises."""
        files = self._changed_files()
        if files is not None:
            self._pending = (files, self._reread(files))
        if self._pending is not None:
            files, reread = self._pending
            self._apply(reread)
            self._pending = None
            self._log_result(files, reread)

    def _changed_files(self) -> SurveyFiles | None:
        try:
            files = self._folder.changed_files()
        except OSError as e:
            if str(e) != self._unreadable:
                log.error("the surveys cannot be read; those that run go on", why=str(e))  # noqa: TRY400
            self._unreadable = str(e)
            return None
        self._unreadable = ""
        return files

    def _log_result(self, files: SurveyFiles, reread: R) -> None:
        for survey in reread.changed:
            log.info("survey taken up", survey=survey.name, version=survey.version, file=survey.file)
        for name in reread.gone:
            log.info("survey no longer offered; its open sessions go on", survey=name)
        for file, problems in reread.refused.items():
            if files[file] != self._refused.get(file):
                log.error(
                    "survey refused; what ran of it runs on, and a process that starts now will not",
                    file=file, problems=list(problems), todo="parley check",
                )  # fmt: skip
        for name in set(reread.kept) - self._kept:
            log.error(
                "no file holds this survey any more; it runs on, as a channel offers it, but no process can start",
                survey=name,
            )
        self._refused = {file: files[file] for file in reread.refused}
        self._kept = set(reread.kept)
        metrics.SURVEYS_REFUSED.set(len(reread.refused))


@contextmanager
def run_periodically(do: Callable[[], None], every_s: float, what: str) -> Iterator[None]:
    """Meanwhile, `do` is done at once and every `every_s` seconds, in a thread of its own that is called `what`."""
    stop = Event()

    def loop() -> None:
        failed = _run_once(do, what, "")
        while not stop.wait(every_s):
            failed = _run_once(do, what, failed)

    thread = Thread(target=loop, name=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(JOIN_TIMEOUT_S)


def _run_once(do: Callable[[], None], what: str, failed: str) -> str:
    """Do it. Answers how it failed, which is said unless it `failed` so before; "" if it did not."""
    try:
        do()
    except redis.RedisError as e:
        failure = type(e).__name__
        if failure != failed:
            log.warning("Redis failed; it is tried again", what=what, error=failure)
    except Exception as e:
        failure = repr(e)
        if failure != failed:
            log.exception("failed; it is tried again", what=what)
    else:
        return ""
    return failure
