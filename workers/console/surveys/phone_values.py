"""What the phone beside a survey shows."""

from engine.surveys.program import Survey
from workers.console.console_state import Console
from workers.console.surveys.engine_phone import PhoneState, begin_script, play_phone
from workers.console.surveys.survey_graph import survey_address


def begin_phone(console: Console, survey: Survey) -> PhoneState:
    """A phone on which nothing has happened, at this minute and in the time zone of a channel that offers the survey."""
    deployment = console.deployment
    zones = [
        each.timezone.key for each in deployment.settings.channels.values() if survey.name in each.surveys
    ]
    return play_phone(survey, begin_script(deployment.host.wall_ms(), zones[0] if zones else "UTC"))


def phone_values(
    survey: Survey, state: PhoneState | None, language: str, version: str, played: str = ""
) -> dict[str, object]:
    """What the phone shows. `played` is the version with which the conversation was played until now."""
    return {
        "phone": state,
        "phone_survey": survey,
        "phone_language": language,
        "version": version,
        "was_edited": bool(played) and played != survey.version,
        "address": survey_address,
        "is_part": False,
        "is_live_phone": state is None,
    }
