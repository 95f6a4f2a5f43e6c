"""The settings of a deployment: environment and parley.toml, read once, as a whole.

Every mistake is reported at once, each in one line: where, what was found, what was expected. No secret is ever part
of such a line, nor of a `repr`. What else must be right before a process starts, startup_check.py looks at.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from config.connections.redis_url import (
    RedisUrlError,
    check_redis_url,
    database_beside,
    default_broker_url,
)
from config.settings.channels import SIMULATOR, ApiKey, Channel, ChannelLimits, ChannelTable, read_config_file
from config.settings.config_errors import ConfigError, Secret, exit_on_config_error
from config.settings.console_settings import ConsoleSettings, place_console
from config.settings.hooks import Hook
from config.store.keyspace import UNARCHIVED_STREAM_MS, BellsDatabase
from engine.providers import ProviderChannel
from engine.providers.provider_registry import ProviderSettings

__all__ = [
    "DEFAULT_SHARDS",
    "ENVIRONMENT_VARIABLES",
    "MAX_SHARDS",
    "ApiKey",
    "Channel",
    "ChannelLimits",
    "ConfigError",
    "EnvironmentVariable",
    "Secret",
    "Settings",
    "exit_on_config_error",
    "load_settings",
]  # fmt: skip

LogStyle = Literal["json", "console"]

Durability = Literal["strict", "relaxed", "managed"]
"""What a process asks of the settings of the lanes' Redis: see config/settings/durability.py."""


DEFAULT_SHARDS = 256
"""Of a new deployment: as even as it gets on some twenty servers, at next to no cost for an idle one."""


class EnvironmentVariable(NamedTuple):
    name: str
    default: str
    meaning: str


ENVIRONMENT_VARIABLES = (
    EnvironmentVariable("PARLEY_CONFIG", "config/parley.toml", "the file that describes the channels"),
    EnvironmentVariable(
        "PARLEY_SURVEYS", "config/surveys/", "the folder of survey files (.yaml, .yml, .json)"
    ),
    EnvironmentVariable("PARLEY_HOST", "127.0.0.1", "the address on which `web` listens"),
    EnvironmentVariable("PARLEY_PORT", "8000", "the port on which `web` listens"),
    EnvironmentVariable(
        "PARLEY_METRICS_PORT",
        "0",
        "each process's own port for `/metrics` and `/healthz`; 0: `web` has them on `PARLEY_PORT`",
    ),
    EnvironmentVariable(
        "PARLEY_WEB_CONNECTIONS", "1000", "connections that a `web` process has at once, at the most"
    ),
    EnvironmentVariable(
        "PARLEY_PUBLIC_URL",
        "",
        "where the world reaches `web`, such as https://sms.example.org; providers sign and call it",
    ),
    EnvironmentVariable("PARLEY_CONSOLE_PORT", "8001", "the port on which `console` listens; 0: it does not"),
    EnvironmentVariable("PARLEY_CONSOLE_HOST", "127.0.0.1", "the address on which `console` listens"),
    EnvironmentVariable(
        "PARLEY_CONSOLE_URL",
        "",
        "where browsers reach `console`, such as https://console.example.org; empty: where it listens",
    ),
    EnvironmentVariable(
        "PARLEY_REDIS_URL",
        "",
        "the Redis that holds the lanes, a server or a service of Sentinels; empty: `parley run` starts one",
    ),
    EnvironmentVariable(
        "PARLEY_BROKER_URL", "", "the Redis of the wake-ups; empty: the lanes' server, next database"
    ),
    EnvironmentVariable("PARLEY_API_KEY", "simulator", "the key with which `parley invite` uses the API"),
    EnvironmentVariable("PARLEY_VAR", "var/", "the folder of the embedded server's data"),
    EnvironmentVariable(
        "PARLEY_SPOOL",
        "",
        "a local folder where `web` keeps events while Redis is away; empty: none, providers send again",
    ),
    EnvironmentVariable("PARLEY_SPOOL_MB", "256", "the most that is kept there"),
    EnvironmentVariable(
        "PARLEY_SHARDS",
        f"{DEFAULT_SHARDS}",
        "parts that the lanes are divided into: stored on the first start, then known without it",
    ),
    EnvironmentVariable(
        "PARLEY_REPLICAS",
        "0",
        "replicas that have what is acknowledged or said before it is; 0: a failover may lose the last of it",
    ),
    EnvironmentVariable(
        "PARLEY_DURABILITY",
        "strict",
        "strict: start only if Redis keeps what it acknowledged; relaxed: anyway; managed: its host vouches",
    ),
    EnvironmentVariable(
        "PARLEY_ARCHIVE_URL",
        "",
        "where answers and conversations are kept, sqlite:///… or postgresql://…; "
        "empty: `archive.db` in `PARLEY_VAR`",
    ),
    EnvironmentVariable(
        "PARLEY_KEEP_DAYS", "365", "days for which the archive keeps a session once it is over"
    ),
    EnvironmentVariable(
        "PARLEY_STREAM_DAYS",
        "7",
        "days for which Redis keeps what happened once the archive has it; without an archive 30",
    ),
    EnvironmentVariable(
        "PARLEY_COMPACT_RECORDS",
        "0",
        "1: event streams take a third less of Redis, and 0.1.0 cannot read them: "
        "once none of it runs, nor will again",
    ),
    EnvironmentVariable(
        "PARLEY_REPEAT_DAYS",
        "7",
        "days for which a webhook that was applied is remembered, so that a copy of it changes nothing",
    ),
    EnvironmentVariable(
        "PARLEY_OPTOUT_KEY",
        "",
        "the secret that hides numbers in the list of opt-outs; empty: one made once, kept in Redis",
    ),
    EnvironmentVariable(
        "PARLEY_HOOKS_ALLOW_PRIVATE",
        "0",
        "1: hooks may lead to addresses that are not public, and by http://",
    ),
    EnvironmentVariable("PARLEY_LOG", "", "json or console; empty: console on a terminal, else json"),
)
"""Every environment variable, beside those of providers' accounts (`PARLEY_<PROVIDER>_<FIELD>`) and those that
parley.toml names."""

_DEFAULT_VALUES = {variable.name: variable.default for variable in ENVIRONMENT_VARIABLES}

_DAY_MS = 86_400_000

MAX_SPOOL_MB = 1_048_576

MAX_WEB_CONNECTIONS = 100_000

MAX_REPLICAS = 5

MAX_SHARDS = 16_384
"""Redis Cluster has no more slots."""


class Settings(msgspec.Struct, frozen=True):
    """A deployment. An empty `redis_url` means the embedded server, which only `parley run` starts.

    `accounts` are the variables `PARLEY_<PROVIDER>_<FIELD>` by provider and field, both in lower case, of the providers
    that channels name. `public_url` has no slash at its end. Unless `shards_are_set`, `shards` is what is taken if Redis
    knows no other number. `unset` are lines on secrets that parley.toml names and that are not set: only a command that
    needs none has such.
    """

    channels: dict[str, Channel]
    redis_url: Secret
    broker_url: Secret
    accounts: Mapping[str, Mapping[str, Secret]]
    host: str
    port: int
    var: Path
    shards: int
    repeat_ms: int
    log: LogStyle
    surveys: Path
    shards_are_set: bool = False
    archive_url: Secret = Secret()
    keep_ms: int = 365 * _DAY_MS
    stream_ms: int = 7 * _DAY_MS
    durability: Durability = "strict"
    replicas: int = 0
    public_url: str = ""
    optout_key: Secret = Secret()
    keys: tuple[ApiKey, ...] = ()
    hooks: Mapping[str, Hook] = {}
    hooks_allow_private: bool = False
    spool: Path | None = None
    spool_bytes: int = 0
    metrics_port: int = 0
    unset: tuple[str, ...] = ()
    web_connections: int = int(_DEFAULT_VALUES["PARLEY_WEB_CONNECTIONS"])
    console: ConsoleSettings = ConsoleSettings()
    compact_records: bool = False

    @property
    def only_simulated(self) -> bool:
        """Is every channel simulated? Only then has anybody what the simulator offers to everybody."""
        return all(channel.provider == SIMULATOR for channel in self.channels.values())

    @property
    def bells_database(self) -> BellsDatabase:
        """The database of the lanes' server in which the bells are, if they are on that server."""
        database = database_beside(self.redis_url, self.broker_url)
        return "" if database is None else database

    @property
    def longest_stream_ms(self) -> int:
        """How long Redis may have what happened, whether or not there is an archive, unless it is behind: for so long, what
        leads there is kept."""
        return max(self.stream_ms, UNARCHIVED_STREAM_MS)

    @property
    def offered_surveys(self) -> frozenset[str]:
        """The surveys that channels offer, by name."""
        return frozenset(name for channel in self.channels.values() for name in channel.surveys)

    def provider_settings(self, name: str) -> ProviderSettings:
        """Collect what the provider of the channel `name` needs to know."""
        channel = self.channels[name]
        webhook_url = f"{self.public_url}/webhooks/{name}" if self.public_url else ""
        return ProviderSettings(
            channel.provider,
            ProviderChannel(name, channel.number, channel.token, channel.originators, webhook_url),
            account=self.accounts[channel.provider],
            options=channel.options,
            secrets=channel.secrets,
            channel_fields=ChannelTable.__struct_fields__,
        )

    def require_redis(self) -> None:
        """Raise ConfigError if this process was started on its own and not told where the lanes are."""
        if not self.redis_url:
            todo = "a process started on its own needs it, e.g. redis://127.0.0.1:6379/0"
            raise ConfigError(
                [f"PARLEY_REDIS_URL is not set: `parley run` starts a server and sets it; {todo}"]
            )


def load_settings(environ: Mapping[str, str], *, needs_secrets: bool = True) -> Settings:
    """Read the settings alone, whatever the surveys are: for commands, which may be needed while one is broken, and where
    secrets of channels and hooks are not known.

    Raises ConfigError, with all mistakes.
    """
    problems: list[str] = []
    unset: list[str] = []
    settings = read_settings(environ, problems, problems if needs_secrets else unset)
    if problems:
        raise ConfigError(problems)
    return msgspec.structs.replace(settings, unset=tuple(unset))


def config_file(environ: Mapping[str, str]) -> Path:
    """The file of the channels, parley.toml."""
    return Path(environ.get("PARLEY_CONFIG") or _DEFAULT_VALUES["PARLEY_CONFIG"])


def read_settings(
    environ: Mapping[str, str], problems: list[str], unset: list[str] | None = None
) -> Settings:
    """Read the settings, and add what is wrong with them to `problems`: then they are of no use but to find more. What
    parley.toml names and is not set goes to `unset`, if it is there."""
    env = _EnvironmentReader(environ, problems)
    redis_url, broker_url = env.redis_urls()
    host, port = env.text("PARLEY_HOST"), env.number("PARLEY_PORT", 1, 65_535)
    allow_private = env.is_yes("PARLEY_HOOKS_ALLOW_PRIVATE")
    channels, keys, hooks, console = read_config_file(
        config_file(environ), environ, problems, allow_private_hooks=allow_private, unset=unset
    )
    providers = {channel.provider for channel in channels.values()}
    return Settings(
        channels=channels,
        redis_url=redis_url,
        broker_url=broker_url,
        accounts={name: _provider_account(name, environ) for name in providers - {SIMULATOR}}
        | {SIMULATOR: _simulator_account(host, port)},
        host=host,
        port=port,
        var=Path(env.text("PARLEY_VAR")),
        shards=env.number("PARLEY_SHARDS", 1, MAX_SHARDS),
        shards_are_set=env.is_set("PARLEY_SHARDS"),
        durability=env.durability(),
        replicas=env.number("PARLEY_REPLICAS", 0, MAX_REPLICAS),
        keep_ms=env.number("PARLEY_KEEP_DAYS", 1, 3650) * _DAY_MS,
        stream_ms=env.number("PARLEY_STREAM_DAYS", 1, 3650) * _DAY_MS,
        archive_url=env.archive_url(),
        compact_records=env.is_yes("PARLEY_COMPACT_RECORDS"),
        repeat_ms=env.number("PARLEY_REPEAT_DAYS", 1, 365) * _DAY_MS,
        log=env.log_style(),
        surveys=Path(env.text("PARLEY_SURVEYS")),
        public_url=env.public_url(),
        optout_key=Secret(env.text("PARLEY_OPTOUT_KEY")),
        keys=keys,
        hooks=hooks,
        hooks_allow_private=allow_private,
        spool=Path(env.text("PARLEY_SPOOL")) if env.text("PARLEY_SPOOL") else None,
        spool_bytes=env.number("PARLEY_SPOOL_MB", 1, MAX_SPOOL_MB) << 20,
        metrics_port=env.metrics_port(port),
        web_connections=env.number("PARLEY_WEB_CONNECTIONS", 1, MAX_WEB_CONNECTIONS),
        console=place_console(
            console,
            env.text("PARLEY_CONSOLE_HOST"),
            env.number("PARLEY_CONSOLE_PORT", 0, 65_535),
            env.text("PARLEY_CONSOLE_URL"),
            problems,
        ),
    )


class _EnvironmentReader:
    """Reads the environment by the table ENVIRONMENT_VARIABLES, and adds what is wrong with it to `problems`."""

    def __init__(self, environ: Mapping[str, str], problems: list[str]) -> None:
        self._environ = environ
        self._problems = problems

    def text(self, name: str) -> str:
        return self._environ.get(name) or _DEFAULT_VALUES[name]

    def is_set(self, name: str) -> bool:
        return bool(self._environ.get(name))

    def number(self, name: str, least: int, most: int) -> int:
        written = self.text(name)
        if written.isascii() and written.isdigit() and least <= int(written[:9]) <= most:
            return int(written)
        self._problems.append(f"{name} is {written!r}: expected a whole number from {least} to {most}")
        return int(_DEFAULT_VALUES[name])

    def is_yes(self, name: str) -> bool:
        match self.text(name):
            case "0" | "1" as known:
                return known == "1"
            case other:
                self._problems.append(f"{name} is {other!r}: expected 1 or 0")
                return False

    def metrics_port(self, port: int) -> int:
        """The port of metrics alone, which is not `port`; 0 if there is none."""
        found = self.number("PARLEY_METRICS_PORT", 0, 65_535)
        if found == port:
            self._problems.append(f"PARLEY_METRICS_PORT is {found}, as PARLEY_PORT: expected another, or 0")
        return found

    def log_style(self) -> LogStyle:
        match self.text("PARLEY_LOG"):
            case "json":
                return "json"
            case "console":
                return "console"
            case "":
                return "console" if sys.stderr.isatty() else "json"
            case other:
                self._problems.append(f"PARLEY_LOG is {other!r}: expected json or console")
                return "json"

    def durability(self) -> Durability:
        match self.text("PARLEY_DURABILITY"):
            case "strict" | "relaxed" | "managed" as known:
                return known
            case other:
                self._problems.append(f"PARLEY_DURABILITY is {other!r}: expected strict, relaxed or managed")
                return "strict"

    def archive_url(self) -> Secret:
        """The archive's. It may hold a password, so a mistake does not show it."""
        url = self.text("PARLEY_ARCHIVE_URL")
        if not url:
            return Secret(f"sqlite:///{Path(self.text('PARLEY_VAR')) / 'archive.db'}")
        if not url.startswith(("sqlite:///", "postgresql://", "postgres://")):
            self._problems.append(
                "PARLEY_ARCHIVE_URL: expected sqlite:///path/to/archive.db "
                "or postgresql://user:password@host/database"
            )
        return Secret(url)

    def redis_urls(self) -> tuple[Secret, Secret]:
        """The lanes' and the broker's. They may hold passwords, so a mistake does not show them."""
        lanes, broker = self.text("PARLEY_REDIS_URL"), self.text("PARLEY_BROKER_URL")
        for name, url in (("PARLEY_REDIS_URL", lanes), ("PARLEY_BROKER_URL", broker)):
            try:
                if url:
                    check_redis_url(url)
            except RedisUrlError as e:
                self._problems.append(f"{name}: {e}")
                return Secret(), Secret()
        if lanes and not broker:
            broker = default_broker_url(lanes)
            if not broker:
                self._problems.append(
                    "PARLEY_BROKER_URL is not set, and there is no next database to PARLEY_REDIS_URL: "
                    "expected redis://host:port/number there, or the broker's own URL (which may be that of "
                    "the same cluster)"
                )
        return Secret(lanes), Secret(broker)

    def public_url(self) -> str:
        written = self.text("PARLEY_PUBLIC_URL")
        url = written.rstrip("/")
        if written and not _is_base_url(url):
            self._problems.append(
                f"PARLEY_PUBLIC_URL is {written!r}: expected http:// or https://, a host, and no ? or #, "
                "such as https://sms.example.org"
            )
            return _REPORTED_URL
        return url


_REPORTED_URL = "https://public-url.invalid"
"""Stands for a PARLEY_PUBLIC_URL whose mistake has been told: nobody is to say that it is missing."""


def _is_base_url(url: str) -> bool:
    """Can a path be put behind it?"""
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return found and url.isascii() and url.isprintable() and not set(url) & set(" ?#@")


def _provider_account(provider: str, environ: Mapping[str, str]) -> dict[str, Secret]:
    """Read the account with a provider, whose fields only the provider knows, from the environment."""
    prefix = f"PARLEY_{provider.upper()}_"
    return {
        name.removeprefix(prefix).lower(): Secret(value)
        for name, value in environ.items()
        if value and name.startswith(prefix)
    }


def local_url(host: str, port: int | str) -> str:
    """Where another process of this machine finds `web`, which may listen on all addresses."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound, replaced
    authority = f"[{reachable}]" if ":" in reachable else reachable
    return f"http://{authority}:{port}"


def _simulator_account(host: str, port: int) -> dict[str, Secret]:
    """The account with ourselves."""
    url = f"{local_url(host, port)}/simulator/v1/public"
    return {"url": Secret(url), "login": Secret(SIMULATOR), "key": Secret(SIMULATOR)}
