"""What is wrong, or odd, with a survey: where, why, and what mends it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec

from engine.model.errors import ParleyError


class SurveyFinding(msgspec.Struct, frozen=True):
    """An `error` keeps a survey from running, a `warning` does not.

    `step` is an id, empty if it is about the survey as a whole. `reason` and `mend` are for a person, `code` for a
    program. `line` counts from 1, 0 if it is not known; `excerpt` is that line of the file with a caret below it, where
    the file's syntax is wrong.
    """

    level: Literal["error", "warning"]
    code: str
    step: str
    reason: str
    mend: str = ""
    line: int = 0
    excerpt: str = ""

    def __str__(self) -> str:
        return (f"line {self.line}: " if self.line else "") + self._sentence()

    def tell(self, file: str) -> str:
        """The finding about `file` as compilers tell theirs, `clinic.yaml:31: ...`, with its excerpt on two lines more."""
        place = f"{file}:{self.line}" if self.line else file
        return "\n    ".join([f"{place}: {self._sentence()}", *self.excerpt.splitlines()])

    def _sentence(self) -> str:
        where = f"step '{self.step}', " if self.step else ""
        return f"{where}{self.reason}" + (f": {self.mend}" if self.mend else "")


MOST_FINDINGS = 100
"""Of one file: whoever has so many to mend needs no more, and to find and show each costs something."""

_LONGEST_REASON = 500
"""Characters; what an author wrote, and a finding repeats, may be a megabyte."""


class InvalidSurveyError(ParleyError):
    """The survey cannot run. `findings` are MOST_FINDINGS at most, and one that says that there are more; `problems`
    are sentences without the file's name, one for each of them."""

    def __init__(self, findings: "Sequence[SurveyFinding]") -> None:
        self.findings = [*findings[:MOST_FINDINGS]]
        if len(findings) > MOST_FINDINGS:
            self.findings.append(invalid_file_finding("there is more that is wrong: mend this first"))
        self.problems = [str(each) for each in self.findings]
        super().__init__("; ".join(self.problems))

    def tell(self, file: str) -> list[str]:
        """Each problem with the file's name and, where it is known, the line."""
        return [each.tell(file) for each in self.findings]


def invalid_file_finding(reason: str, step: str = "") -> SurveyFinding:
    """An error that makes the file no survey at all."""
    shown = reason if len(reason) <= _LONGEST_REASON else f"{reason[: _LONGEST_REASON - 3]}..."
    return SurveyFinding("error", "invalid", step[:_LONGEST_REASON], shown)


@contextmanager
def refuse_on_any_error() -> Iterator[None]:
    """Raise InvalidSurveyError for whatever error there is while one file is read or proved.

    A survey file comes from outside, and goes through libraries and proofs that nobody has tried on all that can be
    written. An error that was not foreseen must not keep a process from reading all the other files, nor from saying
    which file it was: so this is the one place that takes any exception. Its cause goes along, for a traceback."""
    try:
        yield
    except InvalidSurveyError:
        raise
    except Exception as e:
        why = (
            "it needs more memory than there is" if isinstance(e, MemoryError) else f"{type(e).__name__}: {e}"
        )
        raise InvalidSurveyError(
            [invalid_file_finding(f"Parley fails at it, by a mistake of its own ({why})")]
        ) from e
