"""The settings of a deployment: environment, parley.toml and survey files, read once, as a whole.

Everything is checked before anything starts, and every mistake is reported at once, each in one line: where, what
was found, what was expected. No secret is ever part of such a line, nor of a `repr`.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from config.survey_folder import Files, survey_files

ProviderName = Literal["octopush", "simulator"]
Purpose = Literal["alert", "wholesale"]
LogStyle = Literal["json", "console"]


class Variable(NamedTuple):
    name: str
    default: str
    meaning: str


VARIABLES = (
    Variable("PARLEY_CONFIG", "config/parley.toml", "the file that describes the channels"),
    Variable("PARLEY_SURVEYS", "config/surveys/", "the folder of survey files (.yaml, .yml, .json)"),
    Variable("PARLEY_HOST", "127.0.0.1", "the address on which `web` listens"),
    Variable("PARLEY_PORT", "8000", "the port on which `web` listens"),
    Variable("PARLEY_REDIS_URL", "", "the Redis that holds the lanes; empty: `parley run` starts one"),
    Variable("PARLEY_BROKER_URL", "", "the Redis of the wake-ups; empty: the lanes' server, next database"),
    Variable("PARLEY_OCTOPUSH_URL", "https://api.octopush.com/v1/public", "Octopush's API"),
    Variable("PARLEY_OCTOPUSH_LOGIN", "", "its api-login; a channel with Octopush needs it"),
    Variable("PARLEY_OCTOPUSH_KEY", "", "its api-key; a channel with Octopush needs it"),
    Variable("PARLEY_VAR", "var/", "the folder of the embedded server's data"),
    Variable(
        "PARLEY_SHARDS", "16", "parts that the lanes are divided into; never change it once there are lanes"
    ),
    Variable("PARLEY_KEEP_DAYS", "30", "days for which the archive of what happened is kept, in Redis"),
    Variable("PARLEY_LOG", "", "json or console; empty: console on a terminal, else json"),
)
"""Every environment variable, beside those that channels name for their tokens."""

_DEFAULT = {variable.name: variable.default for variable in VARIABLES}

SIMULATOR = "simulator"
"""Login, key and default token of the simulator: it keeps no secrets."""

_DAY_MS = 86_400_000

MOST_SHARDS = 16_384
"""Redis Cluster has no more slots."""


class Mistakes(Exception):
    """The settings cannot be used. `problems` are lines for the operator."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class Secret(str):
    """A string that keeps itself out of logs and tracebacks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


class Octopush(msgspec.Struct, frozen=True):
    """An account with Octopush, or with what speaks as Octopush does. `url` has no slash at its end."""

    url: str
    login: Secret
    key: Secret


NotNegative = Annotated[int, Meta(ge=0)]


class Limits(msgspec.Struct, frozen=True):
    """What a channel allows; 0 means no limit. Days are those of the channel's time zone."""

    sessions_per_sender_per_day: NotNegative = 5
    start_burst: NotNegative = 3
    start_per_minute: Annotated[float, Meta(ge=0)] = 1
    new_sessions_per_minute: NotNegative = 0
    sms_per_day: NotNegative = 0
    sms_per_second: Annotated[float, Meta(ge=0)] = 10
    pause_s: Annotated[float, Meta(ge=0, le=3600)] = 2.0


class ChannelFile(msgspec.Struct, frozen=True):
    """`[channels.<name>]` as it is written in parley.toml."""

    number: Annotated[str, Meta(pattern=r"^\+[1-9][0-9]{2,14}$")]
    surveys: Annotated[list[str], Meta(min_length=1)]
    provider: ProviderName = "simulator"
    token_env: str = ""
    timezone: str = "UTC"
    purpose: Purpose = "alert"
    with_replies: bool = True
    simulation_mode: bool = False
    limits: dict[str, Any] = {}


class Channel(msgspec.Struct, frozen=True):
    """A number that people text, and what it does."""

    name: str
    provider: ProviderName
    number: str
    surveys: tuple[str, ...]
    token: Secret
    timezone: ZoneInfo
    purpose: Purpose
    with_replies: bool
    simulation_mode: bool
    limits: Limits


class Settings(msgspec.Struct, frozen=True):
    """A deployment. An empty `redis_url` means the embedded server, which only `parley run` starts."""

    channels: dict[str, Channel]
    redis_url: Secret
    broker_url: Secret
    octopush: Octopush
    simulator: Octopush
    host: str
    port: int
    var: Path
    shards: int
    keep_events_ms: int
    log: LogStyle
    surveys: Path

    @property
    def offered(self) -> frozenset[str]:
        """The surveys that channels offer, by name."""
        return frozenset(name for channel in self.channels.values() for name in channel.surveys)

    @property
    def log_key(self) -> bytes:
        """32 bytes made of all secrets, so that machines configured alike hash a sender alike."""
        secrets = [self.octopush.login, self.octopush.key]
        secrets += [self.channels[name].token for name in sorted(self.channels)]
        return blake2b("\0".join(secrets).encode(), digest_size=32, person=b"parley log").digest()

    def require_redis(self) -> None:
        """Raises Mistakes if this process was started on its own and not told where the lanes are."""
        if not self.redis_url:
            todo = "a process started on its own needs it, e.g. redis://127.0.0.1:6379/0"
            raise Mistakes([f"PARLEY_REDIS_URL is not set: `parley run` starts a server and sets it; {todo}"])


class Named(Protocol):
    def names(self) -> Iterable[str]: ...


Surveys = TypeVar("Surveys", bound=Named)
Shape = TypeVar("Shape", bound=msgspec.Struct)


def load(
    environ: Mapping[str, str], read_surveys: Callable[[Mapping[str, bytes]], tuple[Surveys, list[str]]]
) -> tuple[Settings, Surveys]:
    """The settings and the surveys. `read_surveys` takes file name -> content, answers surveys and problems.

    Raises Mistakes, with all of them.
    """
    settings, env = _settings(environ)
    surveys = _surveys(settings, env.text("PARLEY_CONFIG"), read_surveys, env.problems)
    if env.problems or surveys is None:
        raise Mistakes(env.problems)
    return settings, surveys


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings alone, whatever the surveys are: for commands, which may be needed while one is broken.

    Raises Mistakes, with all of them.
    """
    settings, env = _settings(environ)
    if env.problems:
        raise Mistakes(env.problems)
    return settings


def _settings(environ: Mapping[str, str]) -> tuple[Settings, "_Environment"]:
    """The settings, of no use if the environment that comes with them has problems."""
    problems: list[str] = []
    env = _Environment(environ, problems)
    octopush = Octopush(
        env.text("PARLEY_OCTOPUSH_URL").rstrip("/"),
        Secret(env.text("PARLEY_OCTOPUSH_LOGIN")),
        Secret(env.text("PARLEY_OCTOPUSH_KEY")),
    )
    redis_url, broker_url = env.redis_urls()
    host, port = env.text("PARLEY_HOST"), env.number("PARLEY_PORT", 1, 65_535)
    path = Path(env.text("PARLEY_CONFIG"))
    channels = {
        name: _channel(f"{path}: channels.{name}", name, raw, env)
        for name, raw in _channel_tables(path, problems).items()
    }
    problems += _shared_numbers(path, channels.values())
    problems += _missing_account(channels.values(), octopush)
    problems += _unusable_account(octopush)
    settings = Settings(
        channels=channels,
        redis_url=redis_url,
        broker_url=broker_url,
        octopush=octopush,
        simulator=Octopush(_simulator_url(host, port), Secret(SIMULATOR), Secret(SIMULATOR)),
        host=host,
        port=port,
        var=Path(env.text("PARLEY_VAR")),
        shards=env.number("PARLEY_SHARDS", 1, MOST_SHARDS),
        keep_events_ms=env.number("PARLEY_KEEP_DAYS", 1, 3650) * _DAY_MS,
        log=env.log_style(),
        surveys=Path(env.text("PARLEY_SURVEYS")),
    )
    return settings, env


@contextmanager
def exit_with_mistakes() -> Iterator[None]:
    """For entry points: mistakes go to stderr, one a line, and the process ends with status 2."""
    try:
        yield
    except Mistakes as mistakes:
        for problem in mistakes.problems:
            sys.stderr.write(problem + "\n")
        sys.exit(2)


class _Environment:
    """The environment, read by the table of VARIABLES. What is wrong with it is added to `problems`."""

    def __init__(self, environ: Mapping[str, str], problems: list[str]) -> None:
        self._environ = environ
        self.problems = problems

    def text(self, name: str) -> str:
        return self._environ.get(name) or _DEFAULT[name]

    def number(self, name: str, least: int, most: int) -> int:
        written = self.text(name)
        if written.isascii() and written.isdigit() and least <= int(written[:9]) <= most:
            return int(written)
        self.problems.append(f"{name} is {written!r}: expected a whole number from {least} to {most}")
        return int(_DEFAULT[name])

    def log_style(self) -> LogStyle:
        match self.text("PARLEY_LOG"):
            case "json":
                return "json"
            case "console":
                return "console"
            case "":
                return "console" if sys.stderr.isatty() else "json"
            case other:
                self.problems.append(f"PARLEY_LOG is {other!r}: expected json or console")
                return "json"

    def redis_urls(self) -> tuple[Secret, Secret]:
        """The lanes' and the broker's. They may hold passwords, so a mistake does not show them."""
        lanes, broker = self.text("PARLEY_REDIS_URL"), self.text("PARLEY_BROKER_URL")
        for name, url in (("PARLEY_REDIS_URL", lanes), ("PARLEY_BROKER_URL", broker)):
            if url and _scheme(url) not in ("redis", "rediss", "unix"):
                self.problems.append(
                    f"{name}: expected a URL that begins with redis://, rediss:// or unix://"
                )
                return Secret(), Secret()
        if lanes and not broker:
            broker = default_broker_url(lanes)
            if not broker:
                self.problems.append(
                    "PARLEY_BROKER_URL is not set, and there is no next database to PARLEY_REDIS_URL: expected "
                    "redis://host:port/number there, or the broker's own URL"
                )
        return Secret(lanes), Secret(broker)

    def token(self, place: str, variable: str, provider: ProviderName) -> str:
        """A channel's webhook token. `variable` may be the token itself by mistake, so it is shown only if a name."""
        if not variable:
            if provider == "simulator":
                return SIMULATOR
            self.problems.append(
                f"{place}.token_env is missing: expected the name of a variable with the token"
            )
        elif not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
            self.problems.append(
                f"{place}.token_env: expected the name of a variable, in capitals, not the token"
            )
        elif not self._environ.get(variable):
            self.problems.append(
                f"{place}.token_env: the variable {variable} is not set: expected the token in it"
            )
        return self._environ.get(variable, "")


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def default_broker_url(url: str) -> str:
    """The same server's next database: `redis://host:6379/0` -> `redis://host:6379/1`; "" if the URL has none."""
    parts = urlsplit(url)
    number = parts.path.strip("/") or "0"
    if parts.scheme == "unix" or not number.isdigit() or "db=" in parts.query:
        return ""
    return parts._replace(path=f"/{int(number) + 1}").geturl()


def _simulator_url(host: str, port: int) -> str:
    """Where another process of this machine finds `web`, which may listen on all addresses."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound, replaced
    authority = f"[{reachable}]" if ":" in reachable else reachable
    return f"http://{authority}:{port}/simulator/v1/public"


def _channel_tables(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        problems.append(
            f"{path}: cannot be read ({e.strerror}): set PARLEY_CONFIG to the file of the channels"
        )
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        problems.append(f"{path}: not TOML: {e}")
        return {}
    problems += [_unknown(f"{path}: {name}", name, ["channels"]) for name in document if name != "channels"]
    tables = document.get("channels", {})
    if not isinstance(tables, dict) or not tables:
        problems.append(f"{path}: no channels: expected at least one table [channels.<name>]")
        return {}
    return tables


def _channel(place: str, name: str, raw: object, env: _Environment) -> Channel:
    """The channel as written. One with mistakes is made too, so that all of them are found, and never used."""
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
        env.problems.append(
            f"{place}: expected a name of 1 to 32 of a-z, 0-9, - and _, as it is part of URLs"
        )
    written = _read_fields(place, ChannelFile(number="", surveys=[]), raw, env.problems)
    token = env.token(place, written.token_env, written.provider)
    timezone = _timezone(place, written.timezone, env.problems)
    return Channel(
        name=name,
        provider=written.provider,
        number=written.number,
        surveys=tuple(written.surveys),
        token=Secret(token),
        timezone=timezone,
        purpose=written.purpose,
        with_replies=written.with_replies,
        simulation_mode=written.simulation_mode,
        limits=_read_fields(f"{place}.limits", Limits(), written.limits, env.problems),
    )


def _read_fields(place: str, fallback: Shape, raw: object, problems: list[str]) -> Shape:
    """The table `raw`, read field by field so that each wrong one is reported; those stay as in `fallback`."""
    if not isinstance(raw, dict):
        problems.append(f"{place} is {raw!r}: expected a table")
        return fallback
    fields = {field.name: field for field in msgspec.structs.fields(fallback)}
    problems += [_unknown(f"{place}.{name}", name, fields) for name in raw if name not in fields]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        try:
            if name in raw:
                values[name] = msgspec.convert(raw[name], field.type)
            elif field.required:
                problems.append(f"{place}.{name} is missing")
        except msgspec.ValidationError as e:
            problems.append(f"{place}.{name} is {raw[name]!r}: {_expected(name, str(e))}")
    return msgspec.structs.replace(fallback, **values)


def _expected(name: str, why: str) -> str:
    """msgspec's sentence, or ours where a pattern says less."""
    if name == "number" and "regex" in why:
        return "expected a number in full, + and 3 to 15 digits, such as +33700000001"
    return why[:1].lower() + why[1:].replace("`", "")


def _unknown(place: str, name: str, known: Iterable[str]) -> str:
    """The line for a field that nobody reads. Its value stays unsaid: it may be a secret in the wrong place."""
    near = get_close_matches(name, known, n=1)
    return f"{place} is unknown" + (
        f": did you mean {near[0]}?" if near else f": expected {', '.join(known)}"
    )


def _timezone(place: str, name: str, problems: list[str]) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problems.append(f"{place}.timezone is {name!r}: expected a zone such as Europe/Paris")
        return ZoneInfo("UTC")


def _shared_numbers(path: Path, channels: Iterable[Channel]) -> Iterator[str]:
    first: dict[str, str] = {}
    for channel in channels:
        owner = first.setdefault(channel.number, channel.name)
        if channel.number and owner != channel.name:
            yield (
                f"{path}: channels.{channel.name}.number is {channel.number!r}: channel {owner} has it, "
                "expected a number of its own"
            )


def _missing_account(channels: Iterable[Channel], octopush: Octopush) -> Iterator[str]:
    using = [channel.name for channel in channels if channel.provider == "octopush"]
    for name, value in (("PARLEY_OCTOPUSH_LOGIN", octopush.login), ("PARLEY_OCTOPUSH_KEY", octopush.key)):
        if using and not value:
            yield f"{name} is not set: expected it, as channel {using[0]} sends with Octopush"


def _unusable_account(octopush: Octopush) -> Iterator[str]:
    """What no request could be made with."""
    parts = urlsplit(octopush.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield f"PARLEY_OCTOPUSH_URL is {octopush.url!r}: expected http:// or https://, a host, and the API's base path"
    for name, value in (("PARLEY_OCTOPUSH_LOGIN", octopush.login), ("PARLEY_OCTOPUSH_KEY", octopush.key)):
        if not value.isascii() or not value.isprintable() or value != value.strip():
            yield f"{name}: expected printable ASCII without blanks at its ends, as it goes into an HTTP header"


def _surveys(
    settings: Settings,
    path: str,
    read_surveys: Callable[[Mapping[str, bytes]], tuple[Surveys, list[str]]],
    problems: list[str],
) -> Surveys | None:
    """The surveys of the settings' folder, to which the channels of the file `path` refer."""
    files = _survey_files(settings.surveys, problems)
    if not files:
        return None
    surveys, found = read_surveys(files)
    problems += found
    known = surveys.names()
    broken = {Path(name).stem for name in files} if found else set()
    for channel in settings.channels.values():
        for wanted in channel.surveys:
            if wanted not in known and wanted not in broken:
                problems.append(_unknown(f"{path}: channels.{channel.name}.surveys: {wanted}", wanted, known))
    return surveys


def _survey_files(folder: Path, problems: list[str]) -> Files:
    try:
        files = survey_files(folder)
    except OSError as e:
        problems.append(
            f"{folder}: cannot be read ({e.strerror}): set PARLEY_SURVEYS to the folder of surveys"
        )
        return {}
    if not files:
        problems.append(f"{folder}: no surveys: expected .yaml, .yml or .json files")
    return files
