"""The state that the compilers of one file share: its languages, steps and variables, and the findings so far."""

from collections.abc import Iterable, Mapping, Sequence

from engine.surveys.findings import (
    MOST_FINDINGS,
    InvalidSurveyError,
    SurveyFinding,
    invalid_file_finding,
)
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
        findings: Iterable[SurveyFinding] = (),
    ) -> None:
        """`findings` are those so far."""
        self.languages = languages
        self.index_by_id = ids
        self.written_steps = sources
        self.questions_by_id = {each.id: each for each in sources if isinstance(each, AskStep)}
        self.variables = variables
        self._findings = dict.fromkeys(findings)
        self.current_step = ""
        self._counters_used = 0

    @property
    def findings(self) -> list[SurveyFinding]:
        """Return each finding once, in the order in which they were made."""
        return list(self._findings)

    @property
    def errors(self) -> list[SurveyFinding]:
        return [each for each in self._findings if each.level == "error"]

    @property
    def default_language(self) -> str:
        """Return the survey's first language, which stands in for missing translations."""
        return self.languages[0] if self.languages else ""

    def add_error(self, sentence: str) -> None:
        """Note an error. Raises InvalidSurveyError, with all of them, once there are more than MOST_FINDINGS."""
        self._findings[invalid_file_finding(sentence, self.current_step)] = None
        if len(self._findings) > MOST_FINDINGS and len(self.errors) > MOST_FINDINGS:
            raise InvalidSurveyError(self.errors)

    def add_warning(self, code: str, reason: str, mend: str) -> None:
        """Note a warning; a text is looked at once for each language, and its warnings stand once."""
        self._findings[SurveyFinding("warning", code, self.current_step, reason, mend)] = None

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
