"""Which surveys does this process know? Every version of them that it was given, by name and by content.

A session is pinned to the version that it began with, so older versions stay known beside the current ones. What is
current is replaced as a whole, by one assignment, while other threads read it.
"""

from collections.abc import Iterable
from copy import copy

from engine.surveys.program import Survey


class SurveyRegistry:
    """Every version that is known. `current` answers for what is deployed, `version` for what a session began with.

    `edition` grows whenever other surveys become current.
    """

    def __init__(self, current: Iterable[Survey] = ()) -> None:
        self._current = {survey.name: survey for survey in current}
        self._versions = {survey.version: survey for survey in self._current.values()}
        self.edition = 0

    def current(self, name: str) -> Survey | None:
        return self._current.get(name)

    def by_version(self, version: str) -> Survey | None:
        """`version` is Survey.version, the hash of its source."""
        return self._versions.get(version)

    def current_names(self) -> list[str]:
        """The names of the current surveys, in order."""
        return sorted(self._current)

    def add_version(self, survey: Survey) -> Survey:
        """Make an older version known, by its version only. Answers the one that is known from now on."""
        return self._versions.setdefault(survey.version, survey)

    def replace_current(self, current: Iterable[Survey]) -> None:
        """From now on these are current, and nothing else. Versions that were stay known."""
        by_name = {survey.name: survey for survey in current}
        for survey in by_name.values():
            self._versions.setdefault(survey.version, survey)
        self._current = by_name
        self.edition += 1

    def snapshot(self) -> "SurveyRegistry":
        """Return a copy whose current surveys do not change, so that one turn sees one set of them."""
        return copy(self)
