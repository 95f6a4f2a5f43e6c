"""What the parts of a compiler share: the names of the file being compiled, and where its problems go."""

from collections.abc import Mapping, Sequence

from engine.surveys.findings import Finding, broken
from engine.surveys.survey_file import AskStep, SayStep
from engine.surveys.variables import LONGEST, TOLD, place_of

Source = SayStep | AskStep


class Scope:
    """One file. `sources` are its steps as written, None for those that cannot be converted; `ids` knows them all.

    `variables` (lower case -> longest value, in characters) grows as texts and conditions name further ones.
    """

    def __init__(
        self,
        languages: Sequence[str],
        ids: Mapping[str, int],
        sources: Sequence[Source | None],
        variables: dict[str, int],
    ) -> None:
        self.languages = languages
        self.ids = ids
        self.sources = sources
        self.asks = {each.id: each for each in sources if isinstance(each, AskStep)}
        self.variables = variables
        self.findings: list[Finding] = []
        self.step = ""
        self._counters = 0

    @property
    def language(self) -> str:
        """The first, which is the default."""
        return self.languages[0] if self.languages else ""

    def problem(self, sentence: str) -> None:
        self._note(broken(sentence, self.step))

    def warn(self, code: str, reason: str, mend: str) -> None:
        self._note(Finding("warning", code, self.step, reason, mend))

    def says(self, step: str) -> bool:
        """Is `step` known to ask nothing?"""
        return isinstance(self.sources[self.ids[step]], SayStep)

    def variable(self, key: str) -> None:
        """A text or a condition names this session variable."""
        self.variables.setdefault(key.lower(), TOLD.get(place_of(key), LONGEST))

    def counter(self) -> int:
        """The next free number for a route that is counted."""
        self._counters += 1
        return self._counters - 1

    def _note(self, finding: Finding) -> None:
        if finding not in self.findings:  # a text is looked at once per language
            self.findings.append(finding)
