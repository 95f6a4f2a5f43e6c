"""What is wrong, or odd, with a survey: where, why, and what mends it."""

from typing import Literal

import msgspec

from engine.model.errors import ParleyError


class SurveyFinding(msgspec.Struct, frozen=True):
    """An `error` keeps a survey from running, a `warning` does not.

    `step` is an id, empty if it is about the survey as a whole. `reason` and `mend` are for a person, `code` for a
    program.
    """

    level: Literal["error", "warning"]
    code: str
    step: str
    reason: str
    mend: str = ""

    def __str__(self) -> str:
        where = f"step '{self.step}', " if self.step else ""
        return f"{where}{self.reason}" + (f": {self.mend}" if self.mend else "")


class InvalidSurveyError(ParleyError):
    """The survey cannot run. `problems` are sentences without the file's name, one for each finding."""

    def __init__(self, findings: "list[SurveyFinding]") -> None:
        self.findings = findings
        self.problems = [str(each) for each in findings]
        super().__init__("; ".join(self.problems))


def invalid_file_finding(reason: str, step: str = "") -> SurveyFinding:
    """An error that makes the file no survey at all."""
    return SurveyFinding("error", "invalid", step, reason)
