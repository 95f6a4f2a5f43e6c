"""parley.toml's hooks: the endpoints that are told what happens, `[hooks.<name>]`.

A secret is one of Standard Webhooks, `whsec_<base64>`; while it is changed for another, its variable has both, the new one
first. Which events there are, and what is in them, engine/hooks says.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from config.settings.config_errors import SecretProblems, find_secret, read_table, unknown_name_problem
from engine.hooks.event_data import EVENT_DATA
from engine.hooks.event_filter import EventFilter
from engine.hooks.signature import InvalidSecretError, WebhookSecret, parse_secret
from engine.model.public_addresses import is_public_host

MAX_BATCH = 500

_NAME = re.compile(r"[a-z0-9_-]{1,32}")

HookBeginning = Literal["now", "beginning"]
"""What a new endpoint is told first: what happens from now on, or all that the archive has."""


class HookTable(msgspec.Struct, frozen=True):
    """`[hooks.<name>]` as it is written in parley.toml. `connections` are requests to it at once, at the most, of different
    shards; `timeout_s` is how long one may take."""

    url: str
    secret_env: str
    channels: list[str] = []
    surveys: list[Annotated[str, Meta(min_length=1)]] = []
    events: list[str] = []
    batch: Annotated[int, Meta(ge=1, le=MAX_BATCH)] = 1
    begin: HookBeginning = "now"
    numbers: bool = False
    connections: Annotated[int, Meta(ge=1, le=64)] = 8
    timeout_s: Annotated[float, Meta(ge=1, le=60)] = 15.0


class Hook(msgspec.Struct, frozen=True):
    """An endpoint, and what it is told: the events that `wanted` lets through, `batch` of them in a request at the most,
    signed with each of `secrets`. With `numbers` it is told people's numbers, else their pseudonyms alone."""

    name: str
    url: str
    secrets: tuple[WebhookSecret, ...]
    wanted: EventFilter
    batch: int = 1
    begin: HookBeginning = "now"
    numbers: bool = False
    connections: int = 8
    timeout_s: float = 15.0

    @property
    def shown_url(self) -> str:
        """The URL without what may be secret in it: its path and its query."""
        return shown_url(self.url)


def shown_url(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/" + ("…" if parts.path.strip("/") or parts.query else "")


class HookSurroundings(NamedTuple):
    """What tells whether a hook is right: the environment, the channels there are, and whether addresses that are not public
    are allowed."""

    environ: Mapping[str, str]
    channels: Collection[str]
    allow_private: bool


def read_hooks(
    path: Path, raw: object, surroundings: HookSurroundings, found: SecretProblems
) -> dict[str, Hook]:
    """Read `[hooks]`, which is `raw`. Those with mistakes are made too, so that all mistakes are found."""
    if not isinstance(raw, dict):
        found.problems.append(f"{path}: hooks is {raw!r}: expected tables [hooks.<name>]")
        return {}
    return {name: _HookReader(path, name, surroundings, found).read(table) for name, table in raw.items()}


class _HookReader:
    """Reads one `[hooks.<name>]`, and reports its mistakes."""

    def __init__(self, path: Path, name: str, surroundings: HookSurroundings, found: SecretProblems) -> None:
        self._place = f"{path}: hooks.{name}"
        self._name = name
        self._surroundings = surroundings
        self._found = found
        self._problems = found.problems

    def read(self, raw: object) -> Hook:
        if not _NAME.fullmatch(self._name):
            self._add_problem(": expected a name of 1 to 32 of a-z, 0-9, - and _")
        written = read_table(self._place, HookTable(url="", secret_env=""), raw, self._problems)
        if written.url:
            self._check_url(written.url)
        self._check_names("channels", written.channels, self._surroundings.channels)
        self._check_names("events", written.events, EVENT_DATA)
        return Hook(
            name=self._name,
            url=written.url,
            secrets=self._read_secrets(written.secret_env) if written.secret_env else (),
            wanted=EventFilter(
                channels=frozenset(written.channels),
                surveys=frozenset(written.surveys),
                events=frozenset(written.events),
            ),
            batch=written.batch,
            begin=written.begin,
            numbers=written.numbers,
            connections=written.connections,
            timeout_s=written.timeout_s,
        )

    def _add_problem(self, problem: str) -> None:
        self._problems.append(self._place + problem)

    def _check_url(self, url: str) -> None:
        """Report a URL that is not called. What may be a password in it is not shown."""
        expected = "expected https://, a host, and a path, such as https://crm.example.org/parley"
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or not url.isascii() or not url.isprintable() or set(url) & set(" #"):
            self._add_problem(f".url: {expected}")
        elif "@" in parts.netloc:
            self._add_problem(
                ".url: expected no user and password in it: who calls is known by the signature"
            )
        elif not self._surroundings.allow_private:
            allowed = "PARLEY_HOOKS_ALLOW_PRIVATE=1 allows it"
            if parts.scheme != "https":
                self._add_problem(f".url is {shown_url(url)!r}: {expected}; {allowed}")
            elif not is_public_host(parts.hostname or ""):
                self._add_problem(f".url is {shown_url(url)!r}: expected a host that is public; {allowed}")

    def _check_names(self, field: str, names: Collection[str], known: Collection[str]) -> None:
        self._problems += [
            unknown_name_problem(f"{self._place}.{field}: {name}", name, known)
            for name in names
            if name not in known
        ]

    def _read_secrets(self, variable: str) -> tuple[WebhookSecret, ...]:
        """Read the secrets in the environment variable `variable`, with white space between them."""
        place, expected = f"{self._place}.secret_env", "whsec_ and 24 to 64 bytes in base64"
        environ = {variable: self._surroundings.environ.get(variable, "").strip()}  # white space is no secret
        found = find_secret(place, variable, environ, self._found, what="secret", expected=expected)
        secrets = []
        for secret in (found or "").split():
            try:
                secrets.append(parse_secret(secret))
            except InvalidSecretError as e:
                self._add_problem(f".secret_env: the secret in {variable}: {e}")
        return tuple(secrets)
