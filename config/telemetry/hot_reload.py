"""Reloads surveys in a running process, a look at the folder at a time. Each faulty content of a file is logged once; no
error ends the process, nor the looking."""

from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from config.settings.survey_folder import SurveyFiles, SurveyFolder
from config.telemetry import metrics
from engine.proofs.survey_loader import ReloadResult, reload_surveys
from engine.surveys.survey_registry import SurveyRegistry

log = structlog.get_logger()

RELOAD_INTERVAL_S = 0.5
"""Between two looks, so that a change is taken up within a second and a bit."""


class SurveyReloader:
    """Keeps `surveys` as their folder has them; those that are `needed` are kept without a file. `apply` is told what a
    change comes to, and is to make it current; while it fails, as Redis does not answer, it is called again at each
    look."""

    def __init__(
        self,
        folder: Path,
        surveys: SurveyRegistry,
        needed: Collection[str],
        apply: Callable[[ReloadResult], None],
    ) -> None:
        self._folder = SurveyFolder(folder)
        self._surveys = surveys
        self._needed = needed
        self._apply = apply
        self._pending: tuple[SurveyFiles, ReloadResult] | None = None
        self._unreadable = ""
        self._refused: SurveyFiles = {}
        self._kept: set[str] = set()

    def check_folder(self) -> None:
        """Look once. Raises what `apply` raises."""
        files = self._changed_files()
        if files is not None:
            self._pending = (files, reload_surveys(files, self._surveys, self._needed))
        if self._pending is not None:
            files, result = self._pending
            self._apply(result)
            self._pending = None
            self._log_result(files, result)

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

    def _log_result(self, files: SurveyFiles, result: ReloadResult) -> None:
        for survey in result.changed:
            log.info("survey taken up", survey=survey.name, version=survey.version, file=survey.file)
        for name in result.gone:
            log.info("survey no longer offered; its open sessions go on", survey=name)
        for file, problems in result.refused.items():
            if files[file] != self._refused.get(file):
                log.error(
                    "survey refused; what ran of it runs on, and a process that starts now will not",
                    file=file, problems=list(problems), todo="parley check",
                )  # fmt: skip
        for name in set(result.kept) - self._kept:
            log.error(
                "no file holds this survey any more; it runs on, as a channel offers it, "
                "but no process can start",
                survey=name,
            )
        self._refused = {file: files[file] for file in result.refused}
        self._kept = set(result.kept)
        metrics.SURVEYS_REFUSED.set(len(result.refused))
