"""`parley check`: is what would run free of mistakes?"""

import click
import redis

from config.settings.config_errors import ConfigError
from config.settings.durability import durability_gaps, durability_problems
from config.settings.settings import Settings, exit_on_config_error
from config.settings.startup_check import load_settings_and_surveys
from config.store import redis_client
from engine import proofs
from engine.proofs.keyword_clashes import keyword_clashes
from engine.surveys.program import Survey

_DAY_MS = 86_400_000

REDIS_TIMEOUT_S = 2.0
"""How long the server may take to answer, which need not be there."""


@click.command()
def check() -> None:
    """Check the configuration and the surveys; start nothing.

    Prints every mistake with its place, and exits with status 2 if there is one. `parley lint` says more about surveys. If
    PARLEY_REDIS_URL is set, the settings of that server are looked at too.

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
    if settings.redis_url:
        with exit_on_config_error():
            _check_durability(settings)


def _check_durability(settings: Settings) -> None:
    """Say whether the lanes' Redis keeps what it acknowledges. Raises ConfigError if no process would start on it."""
    what = f"durability {settings.durability}"
    if settings.durability == "managed":
        click.echo(f"{what}: the settings of Redis are not looked at")
        return
    try:
        with redis_client.connect(settings.redis_url, retries=0, timeout_s=REDIS_TIMEOUT_S) as lanes:
            problems = durability_problems(durability_gaps(lanes))
    except redis.RedisError as e:
        click.echo(
            f"{what}: the Redis of the lanes does not answer ({type(e).__name__}), and is not looked at"
        )
        return
    if problems and settings.durability == "strict":
        raise ConfigError(problems)
    for problem in problems:
        click.echo(f"  warning: {problem}")
    if not problems:
        click.echo(f"{what}: Redis keeps what it acknowledges")


def _sms_bound_clause(survey: Survey) -> str:
    bounds = proofs.survey_bounds(survey)
    return f": at most {bounds.sms_out.most} SMS a session" if bounds else ""
