"""parley.toml: the channels of a deployment, the keys of those who may invite or read, its hooks (hooks.py), and its console
(console_settings.py).

What a channel says beyond the fields of ChannelTable is its provider's to understand: it is kept as written. A field
`x_env` names the environment variable that holds the secret `x`.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from config.settings.config_errors import (
    Secret,
    SecretProblems,
    find_secret,
    read_table,
    unknown_name_problem,
)
from config.settings.console_settings import ConsoleSettings, read_console
from config.settings.contacts import read_contacts
from config.settings.hooks import Hook, HookSurroundings, read_hooks
from config.settings.invitation_pace import InvitationPace
from engine.model.policy import ChannelPolicy
from engine.model.quiet_hours import QuietHours

SIMULATOR = "simulator"
"""The provider that is Parley itself; also its login, its key, its channels' token, and the key of their API. It
keeps no secrets."""

_ENV_SUFFIX = "_env"

_REPORTED_SECRET = Secret("x" * 64)
"""Stands for a secret whose absence has been reported."""

DEFAULT_INVITATIONS_PER_SECOND = 100.0
"""Invitations a second on a channel whose SMS have no limit."""

NonNegativeInt = Annotated[int, Meta(ge=0)]

_TIME_PATTERN = "([01][0-9]|2[0-3]):[0-5][0-9]"


DEFAULT_INVITATIONS_PER_SECOND = 100.0
"""Invitations a second on a channel whose SMS have no limit."""


class ChannelLimits(msgspec.Struct, frozen=True):
    """The limits of a channel; 0 means no limit. Days are those of the channel's time zone."""

    sessions_per_sender_per_day: NonNegativeInt = 5
    start_burst: NonNegativeInt = 3
    start_per_minute: Annotated[float, Meta(ge=0)] = 1
    new_sessions_per_minute: NonNegativeInt = 0
    sms_per_day: NonNegativeInt = 0
    sms_per_second: Annotated[float, Meta(ge=0)] = 10
    invitations_per_second: Annotated[float, Meta(ge=0)] = 0  # 0: half of sms_per_second
    pause_s: Annotated[float, Meta(ge=0, le=3600)] = 2.0

    @property
    def invitation_pace(self) -> float:
        """How many invitations a second are let go."""
        return self.invitations_per_second or self.sms_per_second / 2 or DEFAULT_INVITATIONS_PER_SECOND

    def pace_left(self, timezone: ZoneInfo, sms_today: int, sms_each: int = 1) -> InvitationPace:
        """The pace as it stands once the channel has decided `sms_today`, of invitations that need `sms_each`."""
        by_minute = self.new_sessions_per_minute / 60
        return InvitationPace(
            min(self.invitation_pace, by_minute) if by_minute else self.invitation_pace,
            timezone,
            max(1, self.sms_per_day // sms_each) if self.sms_per_day else 0,
            max(0, self.sms_per_day - sms_today) // sms_each,
        )


class ChannelTable(msgspec.Struct, frozen=True):
    """`[channels.<name>]` as it is written in parley.toml, without what its provider knows."""

    number: Annotated[str, Meta(pattern=r"^\+[1-9][0-9]{2,14}\Z")]
    surveys: Annotated[list[str], Meta(min_length=1)]
    provider: str = SIMULATOR
    token_env: str = ""
    timezone: str = "UTC"
    originators: list[Annotated[str, Meta(pattern=r"^\+?[1-9][0-9]{2,14}\Z")]] = []
    quiet_hours: Annotated[str, Meta(pattern=rf"^({_TIME_PATTERN}-{_TIME_PATTERN})?\Z")] = ""
    contacts: str = ""
    limits: dict[str, Any] = {}


class ApiKeyTable(msgspec.Struct, frozen=True):
    """`[keys.<name>]` as it is written in parley.toml: who may use the API. `sha256` is of the key, in hex. No `surveys` are
    all of them, those that no channel offers any more too."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    channels: Annotated[list[str], Meta(min_length=1)]
    requests_per_minute: NonNegativeInt = 600
    surveys: list[Annotated[str, Meta(min_length=1)]] = []
    read_only: bool = False
    numbers: bool = True


class ApiKey(msgspec.Struct, frozen=True):
    """A key to the API, by the SHA-256 of which it is known: its holder may invite on `channels` to `surveys` (none: to all),
    and see and cancel their sessions; only see them, if it is `read_only`. Without `numbers` it shows people by pseudonyms."""

    name: str
    sha256: bytes
    channels: frozenset[str]
    requests_per_minute: int
    surveys: frozenset[str] = frozenset()
    read_only: bool = False
    numbers: bool = True

    def is_for_survey(self, survey: str) -> bool:
        return not self.surveys or survey in self.surveys


class Channel(msgspec.Struct, frozen=True):
    """A number that people text, and what it does.

    `options` are what its provider alone knows, as written; `secrets` those of them that came from the environment.
    `originators` are sub-numbers. While it is `quiet` where a person is, we begin nothing with them. `contacts` are
    people's names, by number.
    """

    name: str
    provider: str
    number: str
    surveys: tuple[str, ...]
    token: Secret
    timezone: ZoneInfo
    limits: ChannelLimits
    options: Mapping[str, Any] = {}
    secrets: Mapping[str, Secret] = {}
    originators: tuple[str, ...] = ()
    quiet: QuietHours | None = None
    contacts: Mapping[str, str] = {}

    def policy(self) -> ChannelPolicy:
        """Convert it to what the engine knows of a channel."""
        return ChannelPolicy(
            surveys=self.surveys,
            timezone=self.timezone,
            sessions_per_sender_per_day=self.limits.sessions_per_sender_per_day,
            start_burst=self.limits.start_burst,
            start_per_minute=self.limits.start_per_minute,
            pause_ms=round(self.limits.pause_s * 1000),
            number=self.number,
            originators=self.originators,
            quiet=self.quiet,
            contacts=self.contacts,
        )


def channel_policies(channels: Mapping[str, Channel]) -> dict[str, ChannelPolicy]:
    """Convert channels to the engine's policies, by name."""
    return {name: channel.policy() for name, channel in channels.items()}


class ConfigFile(NamedTuple):
    """What parley.toml says: its channels and hooks by name, its keys, and who signs in to the console."""

    channels: dict[str, Channel] = {}  # noqa: RUF012 (nobody changes it)
    keys: tuple[ApiKey, ...] = ()
    hooks: dict[str, Hook] = {}  # noqa: RUF012 (the same)
    console: ConsoleSettings = ConsoleSettings()


def read_config_file(
    path: Path,
    environ: Mapping[str, str],
    problems: list[str],
    *,
    allow_private_hooks: bool,
    unset: list[str] | None = None,
) -> ConfigFile:
    """Read the file at `path`. Channels, keys and hooks with mistakes are made too, so that all mistakes are found. Secrets
    that are not set are added to `unset`, if it is there, and else to `problems`."""
    secrets = SecretProblems(problems, problems if unset is None else unset)
    document = _read_toml(path, problems)
    if document is None:
        return ConfigFile()
    known = ("channels", "keys", "hooks", "console")
    problems += [
        unknown_name_problem(f"{path}: {name}", name, known) for name in document if name not in known
    ]
    tables = document.get("channels", {})
    if not isinstance(tables, dict) or not tables:
        problems.append(f"{path}: no channels: expected at least one table [channels.<name>]")
        return ConfigFile()
    channels = {
        name: _ChannelReader(path, name, environ, secrets).read(written) for name, written in tables.items()
    }
    problems += _shared_numbers(path, channels.values())
    keys = _read_keys(path, document.get("keys", {}), channels, problems)
    surroundings = HookSurroundings(environ, channels, allow_private_hooks)
    hooks = read_hooks(path, document.get("hooks", {}), surroundings, secrets)
    console = read_console(path, document.get("console", {}), environ, secrets)
    return ConfigFile(channels, keys, hooks, console)


def _read_toml(path: Path, problems: list[str]) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        problems.append(
            f"{path}: cannot be read ({e.strerror}): set PARLEY_CONFIG to the file of the channels, or "
            "let `parley init` make one"
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        problems.append(f"{path}: not TOML: {e}")
    return None


class _ChannelReader:
    """Reads one `[channels.<name>]`, and reports its mistakes."""

    def __init__(self, path: Path, name: str, environ: Mapping[str, str], found: SecretProblems) -> None:
        self._folder = path.parent
        self._place = f"{path}: channels.{name}"
        self._name = name
        self._environ = environ
        self._found = found
        self._problems = found.problems

    def read(self, raw: object) -> Channel:
        if not re.fullmatch(r"[a-z0-9_-]{1,32}", self._name):
            self._add_problem(": expected a name of 1 to 32 of a-z, 0-9, - and _, as it is part of URLs")
        ours, options = _split_provider_options(raw)
        written = read_table(self._place, ChannelTable(number="", surveys=[]), ours, self._problems)
        named = [name for name in options if name.endswith(_ENV_SUFFIX)]
        return Channel(
            name=self._name,
            provider=written.provider,
            number=written.number,
            surveys=tuple(written.surveys),
            token=self._webhook_token(written),
            timezone=self._read_timezone(written.timezone),
            limits=read_table(f"{self._place}.limits", ChannelLimits(), written.limits, self._problems),
            options={name: value for name, value in options.items() if name not in named},
            secrets={
                name.removesuffix(_ENV_SUFFIX): self._read_secret(name, options[name]) for name in named
            },
            originators=tuple(written.originators),
            quiet=self._read_quiet_hours(written.quiet_hours),
            contacts=self._read_contacts(written.contacts),
        )

    def _add_problem(self, problem: str) -> None:
        self._problems.append(self._place + problem)

    def _webhook_token(self, written: ChannelTable) -> Secret:
        if not written.token_env:
            return Secret(SIMULATOR if written.provider == SIMULATOR else "")
        return self._read_secret("token_env", written.token_env)

    def _read_secret(self, field: str, variable: object) -> Secret:
        """Return the secret in the environment variable `variable`; a stand-in if its absence was reported."""
        place, what = f"{self._place}.{field}", field.removesuffix(_ENV_SUFFIX)
        expected = f"the {what} in it"
        found = find_secret(place, variable, self._environ, self._found, what=what, expected=expected)
        return found or _REPORTED_SECRET

    def _read_timezone(self, name: str) -> ZoneInfo:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self._add_problem(f".timezone is {name!r}: expected a zone such as Europe/Paris")
            return ZoneInfo("UTC")

    def _read_quiet_hours(self, written: str) -> QuietHours | None:
        """Read `21:00-08:00`, which is from minute 1260 of the day to minute 480."""
        if not written:
            return None
        begins, ends = (int(time[:2]) * 60 + int(time[3:]) for time in written.split("-"))
        if begins == ends:
            self._add_problem(f".quiet_hours is {written!r}: expected two different times of the day")
        return QuietHours(begins, ends)

    def _read_contacts(self, written: str) -> Mapping[str, str]:
        """Read the file of contacts, which is looked for beside parley.toml."""
        if not written:
            return {}
        names, problems = read_contacts(self._folder / written)
        self._problems += [f"{self._place}.contacts: {problem}" for problem in problems]
        return names


def _split_provider_options(raw: object) -> tuple[object, dict[str, Any]]:
    """Split a table into what every channel may say, and what is left for its provider."""
    if not isinstance(raw, dict):
        return raw, {}
    ours = {name: value for name, value in raw.items() if name in ChannelTable.__struct_fields__}
    return ours, {name: value for name, value in raw.items() if name not in ours}


def _shared_numbers(path: Path, channels: Iterable[Channel]) -> Iterator[str]:
    """Report numbers and originators that two channels have: nobody could tell which of them was written to."""
    owners: dict[str, str] = {}
    for channel in channels:
        for field, number in (
            ("number", channel.number),
            *(("originators", it) for it in channel.originators),
        ):
            digits = number.removeprefix("+")
            if digits and digits in owners:
                yield (
                    f"{path}: channels.{channel.name}.{field} is {number!r}: "
                    f"channel {owners[digits]} has it, expected a number of its own"
                )
            owners.setdefault(digits, channel.name)


def _read_keys(
    path: Path, raw: object, channels: Mapping[str, Channel], problems: list[str]
) -> tuple[ApiKey, ...]:
    """Read the keys of the API. Where all channels are simulated, there is a simulated key too."""
    if not isinstance(raw, dict):
        problems.append(f"{path}: keys is {raw!r}: expected tables [keys.<name>]")
        return ()
    if not raw and all(channel.provider == SIMULATOR for channel in channels.values()):
        return (_api_key(SIMULATOR, ApiKeyTable(sha256(SIMULATOR.encode()).hexdigest(), list(channels))),)
    written = {
        name: read_table(f"{path}: keys.{name}", ApiKeyTable("", []), table, problems)
        for name, table in raw.items()
    }
    owners: dict[str, str] = {}
    for name, key in written.items():
        problems += [
            unknown_name_problem(f"{path}: keys.{name}.channels: {channel}", channel, channels)
            for channel in key.channels
            if channel not in channels
        ]
        if key.sha256 and owners.setdefault(key.sha256, name) != name:
            problems.append(
                f"{path}: keys.{name}.sha256: keys.{owners[key.sha256]} has it, expected a key of its own"
            )
    return tuple(_api_key(name, key) for name, key in written.items())


def _api_key(name: str, written: ApiKeyTable) -> ApiKey:
    return ApiKey(
        name,
        bytes.fromhex(written.sha256),
        frozenset(written.channels),
        written.requests_per_minute,
        frozenset(written.surveys),
        written.read_only,
        written.numbers,
    )


def webhook_url(channel: Channel, base: str) -> str:
    """The URL that the channel's provider calls, with its token left out: `https://host/webhooks/clinic?token=…`."""
    return f"{base}/webhooks/{channel.name}" + ("?token=…" if channel.token else "")
