"""The state that the compilers of one file share: its languages, steps and variables, and the findings so far."""

from collections.abc import Mapping, Sequence

from engine.surveys.findings import SurveyFinding, invalid_file_finding
from engine.surveys.survey_file import AskStep, SayStep
from engine.surveys.variables import BUILTIN_VARIABLES, LONGEST_VALUE, answer_key

WrittenStep = SayStep | AskStep


class CompilerScope:
    """The names and findings of one survey file.

    `written_steps` are its steps as written, None for those that cannot be converted; `index_by_id` holds every step.
    `variables` (key in lower case -> longest value, in characters) grows as texts and conditions name further ones."""

    def __init__(
        self,
        languages: Sequence[str],
        ids: Mapping[str, int],
        sources: Sequence[WrittenStep | None],
        variables: dict[str, int],
    ) -> None:
        self.languages = languages
        self.index_by_id = ids
        self.written_steps = sources
        self.questions_by_id = {each.id: each for each in sources if isinstance(each, AskStep)}
        self.variables = variables
        self.findings: list[SurveyFinding] = []
        self.current_step = ""
        self._counters_used = 0

    @property
    def default_language(self) -> str:
        """Return the survey's first language, which stands in for missing translations."""
        return self.languages[0] if self.languages else ""

    def add_error(self, sentence: str) -> None:
        self._add_finding(invalid_file_finding(sentence, self.current_step))

    def add_warning(self, code: str, reason: str, mend: str) -> None:
        self._add_finding(SurveyFinding("warning", code, self.current_step, reason, mend))

    def is_statement(self, step: str) -> bool:
        """Return whether `step` is a statement, which has no answer."""
        return isinstance(self.written_steps[self.index_by_id[step]], SayStep)

    def use_variable(self, key: str) -> None:
        """Note that a text or a condition uses the session variable `key`."""
        self.variables.setdefault(key.lower(), BUILTIN_VARIABLES.get(answer_key(key), LONGEST_VALUE))

    def next_counter(self) -> int:
        """Allot the next counter number, for a route that is taken a limited number of times."""
        self._counters_used += 1
        return self._counters_used - 1

    def _add_finding(self, finding: SurveyFinding) -> None:
        if finding not in self.findings:  # a text is looked at once per language
            self.findings.append(finding)
