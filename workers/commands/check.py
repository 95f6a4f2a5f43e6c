"""`parley check`: is what would run free of mistakes?"""

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import redis

from config.connections.redis_failures import failure_clause
from config.host import THIS_HOST
from config.service.channel_leftovers import leftover_sentences
from config.service.server_wording import cluster_notes, cluster_problems, release_problems
from config.settings.channels import SIMULATOR, Channel, webhook_url
from config.settings.config_errors import ConfigError
from config.settings.console_settings import ConsoleSettings
from config.settings.durability import durability_gaps, durability_problems
from config.settings.env_file import EnvFileRead
from config.settings.hooks import Hook
from config.settings.oidc_settings import OidcSettings
from config.settings.server_mode import require_server_mode
from config.settings.settings import Settings, exit_on_config_error, local_url
from config.settings.shard_count import settle_shards
from config.settings.startup_check import load_settings_and_surveys
from config.store import redis_client
from config.telemetry.redis_stats import RedisStats
from config.telemetry.server_stats import ServerStats, count_replicas, find_old_releases, read_cluster
from engine import proofs
from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS
from engine.model.extras import MissingExtraError, import_extra
from engine.model.plurals import pluralize
from engine.proofs.keep_limit import keep_findings
from engine.proofs.keyword_clashes import keyword_clashes
from engine.proofs.spellings import texts_without
from engine.providers.provider_registry import mention_required, provider_warnings
from engine.surveys.program import Survey
from engine.surveys.survey_reader import with_lines
from engine.surveys.survey_registry import SurveyRegistry
from workers.archiving.archive_check import archive_sentences
from workers.commands.connect import OPTIONAL_REDIS_TIMEOUT_S
from workers.console.sign_in.oidc_errors import OidcUnavailableError
from workers.runtime.embedded_redis import url_of_running
from workers.store.channel_contents import count_leftovers

if TYPE_CHECKING:
    from workers.sending.account_check import AccountFinding

_DAY_MS = 86_400_000
_MOST_NAMED = 3


@click.command()
@click.option(
    "--live",
    is_flag=True,
    help="Ask each provider for its account too: are the keys right? And the console's, if it is there.",
)
def check(live: bool) -> None:
    """Check the configuration and the surveys; start nothing.

    Prints every mistake with its place, and exits with status 2 if there is one. `parley lint` says more about surveys. It is
    told what each provider is to call, which endpoints of hooks are told what, where the archive is, whether it can be used from here, and for how long it keeps what people said. If PARLEY_REDIS_URL is set, the settings of that server are looked at too; and if the Redis in use answers, what would be
    left there on channels that are not configured any more.

    \b
    Example:
      PARLEY_SURVEYS=new-surveys/ parley check
      parley check --live
    """
    for read in click.get_current_context().obj or ():
        click.echo(_env_file_sentence(read))
    with exit_on_config_error():
        settings, surveys = load_settings_and_surveys()
    for channel in settings.channels.values():
        click.echo(f"channel {channel.name}: {channel.number} by {channel.provider}, {channel.timezone.key}")
        click.echo(f"  webhook {_shown_webhook(settings, channel)}")
        for survey in filter(None, map(surveys.current, channel.surveys)):
            click.echo(
                f"  survey {survey.name} ({survey.file}, version {survey.version}){_sms_bound_clause(survey)}"
            )
            for finding in with_lines(survey, keep_findings(survey, settings.keep_ms // _DAY_MS)):
                click.echo(f"  warning: {finding.tell(survey.file)}")
        for warning in _provider_warnings(settings, channel.name, surveys):
            click.echo(f"  warning: {warning}")
        for finding in keyword_clashes(list(filter(None, map(surveys.current, channel.surveys)))):
            click.echo(f"  warning: {finding}")
    for idle in filter(
        None, map(surveys.current, sorted({*surveys.current_names()} - settings.offered_surveys))
    ):
        click.echo(
            f"survey {idle.name} ({idle.file}): no channel offers it; name it in `surveys` of one that shall"
        )
    for hook in settings.hooks.values():
        click.echo(f"hook {hook.name}: {_hook_summary(hook)}")
    if settings.console.oidc:
        click.echo(_oidc_summary(settings.console, settings.console.oidc))
    with exit_on_config_error():
        for sentence in archive_sentences(settings):
            click.echo(sentence)
        if settings.redis_url:
            _check_server_mode(settings)
            _check_durability(settings)
            _check_servers(settings)
        if settings.redis_url and settings.replicas:
            _check_replicas(settings)
    for sentence in _leftovers_of_removed_channels(settings):
        click.echo(f"warning: {sentence}")
    if live:
        from workers.sending.account_check import check_accounts  # noqa: PLC0415 (requests takes 5 MB)

        told = [*check_accounts(settings, THIS_HOST), *_ask_oidc_provider(settings.console)]
        for each in told:
            click.echo(each.sentence)
        sys.exit(max(each.status for each in told))


def _env_file_sentence(read: EnvFileRead) -> str:
    said = f"variables from {read.file}: {', '.join(read.said) or 'none'}"
    if not read.overruled:
        return said
    return f"{said} (the environment says otherwise, and counts more: {', '.join(read.overruled)})"


def _shown_webhook(settings: Settings, channel: Channel) -> str:
    """The URL to give to the provider. The token is not shown, but where it is."""
    if channel.provider == SIMULATOR:
        return webhook_url(channel, local_url(settings.host, settings.port))
    url = webhook_url(channel, settings.public_url or "<PARLEY_PUBLIC_URL>")
    return f"{url} (… is what the variable of token_env holds)" if channel.token else url


def _public_url_warning(settings: Settings, channel: str) -> Iterator[str]:
    provider = settings.channels[channel].provider
    if provider != SIMULATOR and not settings.public_url:
        yield (
            f"PARLEY_PUBLIC_URL is not set: expected where {provider} reaches `web`, such as "
            "https://sms.example.org"
        )


def _hook_summary(hook: Hook) -> str:
    """Where an endpoint is, and what it is told."""
    wanted = hook.wanted
    events = ", ".join(sorted(wanted.events)) or "every event"
    only = [
        f"of {what} {', '.join(sorted(names))}"
        for what, names in (("channels", wanted.channels), ("surveys", wanted.surveys))
        if names
    ]
    whose = "with numbers" if hook.numbers else "with pseudonyms"
    return f"{hook.url} is told {', '.join([events, *only, whose])}"


def _oidc_summary(console: ConsoleSettings, oidc: OidcSettings) -> str:
    """Who signs people in to the console, and what it must know the console by."""
    kind = "client" if oidc.client_secret else "public client"
    return (
        f"console: {oidc.issuer} signs people in, with {kind} {oidc.client_id}; "
        f"it must have the redirect URI {console.callback_url}"
    )


def _ask_oidc_provider(console: ConsoleSettings) -> Iterator["AccountFinding"]:
    """Is the console's OpenID provider there, and does it say of itself what is needed? Whether it takes the client's secret is
    known once somebody signs in."""
    from workers.sending.account_check import AccountFinding  # noqa: PLC0415 (as above)

    if console.oidc is None:
        return
    try:
        library = import_extra(
            "workers.console.sign_in.oidc_provider", "console", "signing in by an OpenID provider"
        )
        library.OidcProvider(console.oidc, console.callback_url, (), THIS_HOST).read_metadata()
    except (MissingExtraError, OidcUnavailableError) as e:
        yield AccountFinding(f"console: {e}", EXIT_PROBLEMS)
    else:
        yield AccountFinding(f"console: {console.oidc.issuer} is there", EXIT_OK)


def _check_replicas(settings: Settings) -> None:
    """Say whether as many replicas follow the lanes' Redis as must have what is acknowledged."""
    what = f"replicas {settings.replicas}"
    try:
        with redis_client.connect(settings.redis_url, retries=0, timeout_s=OPTIONAL_REDIS_TIMEOUT_S) as lanes:
            answers = redis_client.ask_each(lanes, [("INFO", "replication")])
            redis_client.raise_first_error([answer for (answer,) in answers.values()])
    except redis.RedisError as e:
        click.echo(f"{what}: how many follow the Redis of the lanes is not known ({type(e).__name__})")
        return
    found = min(count_replicas(answer) for (answer,) in answers.values())
    where = "each server of the Redis of the lanes, or more" if len(answers) > 1 else "the Redis of the lanes"
    click.echo(f"{what}: {found} follow {where}")
    if found < settings.replicas:
        click.echo("  warning: until as many follow, nothing is acknowledged but what the spool takes")
    elif found == settings.replicas:
        click.echo(
            "  warning: if one of them is lost, nothing is acknowledged until it is back; one more would do"
        )


def _check_servers(settings: Settings) -> None:
    """Say what of the lanes' Redis is not as it should be: its release, and of a cluster what one lost server would be to it."""
    try:
        with redis_client.connect(settings.redis_url, retries=0, timeout_s=OPTIONAL_REDIS_TIMEOUT_S) as lanes:
            old_releases = find_old_releases(lanes)
            cluster = read_cluster(lanes, settings.shards)
    except redis.RedisError:
        return  # it is said already
    found = RedisStats(
        lanes=cluster or ServerStats(up=True),
        broker=ServerStats(up=True),
        replicas_wanted=settings.replicas,
    )
    if cluster:
        click.echo(f"cluster: {pluralize(len(cluster.nodes), 'primary', 'primaries')}")
    for sentence in (*release_problems(old_releases), *cluster_problems(found), *cluster_notes(found)):
        click.echo(f"  warning: {sentence}")


def _check_server_mode(settings: Settings) -> None:
    """Raise ConfigError if the lanes' Redis answers and is not what its URL says."""
    with (
        suppress(redis.RedisError),  # which is told below
        redis_client.connect(settings.redis_url, retries=0, timeout_s=OPTIONAL_REDIS_TIMEOUT_S) as lanes,
    ):
        require_server_mode(lanes)


def _check_durability(settings: Settings) -> None:
    """Say whether the lanes' Redis keeps what it acknowledges. Raises ConfigError if no process would start on it."""
    what = f"durability {settings.durability}"
    if settings.durability == "managed":
        click.echo(f"{what}: the settings of Redis are not looked at")
        return
    try:
        with redis_client.connect(settings.redis_url, retries=0, timeout_s=OPTIONAL_REDIS_TIMEOUT_S) as lanes:
            problems = durability_problems(durability_gaps(lanes))
    except redis.RedisError as e:
        click.echo(
            f"{what}: the Redis of the lanes {failure_clause(e)} ({type(e).__name__}), and is not looked at"
        )
        return
    if problems and settings.durability == "strict":
        raise ConfigError(problems)
    for problem in problems:
        click.echo(f"  warning: {problem}")
    if not problems:
        click.echo(f"{what}: Redis keeps what it acknowledges")


def _leftovers_of_removed_channels(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each channel that Redis knows and the settings do not. Nothing, if there is no Redis."""
    try:
        url = settings.redis_url or url_of_running(settings.var)
    except ConfigError as e:
        yield from e.problems
        return
    if not url:
        return
    with redis_client.connect(url, retries=0, timeout_s=OPTIONAL_REDIS_TIMEOUT_S) as client:
        try:
            with exit_on_config_error():
                shards = settle_shards(client, settings).shards
            yield from leftover_sentences(count_leftovers(client, range(shards), settings.channels))
        except redis.RedisError as e:
            yield f"what lies in Redis was not looked at: it {failure_clause(e)} ({type(e).__name__})"


def _provider_warnings(settings: Settings, channel: str, surveys: SurveyRegistry) -> Iterator[str]:
    """Yield what the channel's provider makes of its settings, and of the texts that it is to send."""
    provider = settings.provider_settings(channel)
    yield from _public_url_warning(settings, channel)
    yield from provider_warnings(provider)
    mention = mention_required(provider)
    if not mention:
        return
    for survey in filter(None, map(surveys.current, settings.channels[channel].surveys)):
        if lacking := texts_without(survey, mention):
            more = f" and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else ""
            yield (
                f"{survey.file}: {', '.join(lacking[:_MOST_NAMED])}{more} without {mention}: "
                f"{provider.provider} refuses such texts on this channel"
            )


def _sms_bound_clause(survey: Survey) -> str:
    bounds = proofs.survey_bounds(survey)
    return f": at most {bounds.sms_out.most} SMS a session" if bounds else ""
