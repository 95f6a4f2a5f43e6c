"""`parley check`: is what would run free of mistakes?"""

import click

from config.settings.settings import exit_on_config_error
from config.settings.startup_check import load_settings_and_surveys
from engine import proofs
from engine.proofs.keyword_clashes import keyword_clashes
from engine.surveys.program import Survey

_DAY_MS = 86_400_000


@click.command()
def check() -> None:
    """Check the configuration and the surveys; start nothing.

    Prints every mistake with its place, and exits with status 2 if there is one. `parley lint` says more about surveys.

    \b
    Example:
      PARLEY_SURVEYS=new-surveys/ parley check
    """
    with exit_on_config_error():
        settings, surveys = load_settings_and_surveys()
    for channel in settings.channels.values():
        click.echo(f"channel {channel.name}: {channel.number} by {channel.provider}, {channel.timezone.key}")
        for survey in filter(None, map(surveys.current, channel.surveys)):
            click.echo(
                f"  survey {survey.name} ({survey.file}, version {survey.version}){_sms_bound_clause(survey)}"
            )
            if survey.keep_ms and survey.keep_ms > settings.keep_events_ms:
                days = settings.keep_events_ms // _DAY_MS
                click.echo(
                    f"  warning: {survey.file}: keep: longer than PARLEY_KEEP_DAYS, {days}, which holds for "
                    "everything"
                )
        for finding in keyword_clashes(list(filter(None, map(surveys.current, channel.surveys)))):
            click.echo(f"  warning: {finding}")
    for idle in filter(
        None, map(surveys.current, sorted({*surveys.current_names()} - settings.offered_surveys))
    ):
        click.echo(
            f"survey {idle.name} ({idle.file}): no channel offers it; name it in `surveys` of one that shall"
        )


def _sms_bound_clause(survey: Survey) -> str:
    bounds = proofs.survey_bounds(survey)
    return f": at most {bounds.sms_out.most} SMS a session" if bounds else ""
