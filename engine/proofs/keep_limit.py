"""Does a survey ask to keep what was said for longer than its deployment keeps everything?"""

from engine.surveys.findings import SurveyFinding
from engine.surveys.program import Survey
from engine.surveys.wording import show_duration

_DAY_MS = 86_400_000


def keep_findings(survey: Survey, keep_days: int) -> list[SurveyFinding]:
    """A warning if the survey's `keep` is more than `keep_days`, the deployment's PARLEY_KEEP_DAYS."""
    if survey.keep_ms is None or survey.keep_ms <= keep_days * _DAY_MS:
        return []
    kept = show_duration(survey, "keep", survey.keep_ms)
    reason = f"field keep: {kept} is longer than PARLEY_KEEP_DAYS, {keep_days}, which holds for everything"
    return [SurveyFinding("warning", "keep", "", reason, "write less, or set PARLEY_KEEP_DAYS to more")]
