"""The console in the browser: where it listens, how browsers reach it, and who signs in to it as whom (`[console]` of parley.toml).

Whoever has a link of `parley console link` signs in with what the link is for. Beside that, a proxy that has signed people in may
say who they are, in a header, if its address is one of `proxies`: what others say there is nothing. And an OpenID provider may
(oidc_settings.py). What either's people may do is in `users`, and for the provider's groups in `groups`: nobody else may anything.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from config.settings.config_errors import SecretProblems, read_table
from config.settings.oidc_settings import CALLBACK_PATH, OidcSettings, is_loopback, is_secure_url, read_oidc

ConsoleRole = Literal["viewer", "operator", "privacy"]
"""What one may do: look, with numbers hidden; act on what waits or failed; see numbers, export, erase. Each of the others may look."""

CONSOLE_ROLES: tuple[ConsoleRole, ...] = get_args(ConsoleRole)


class ConsoleTable(msgspec.Struct, frozen=True):
    """`[console]` as it is written in parley.toml. `users` are those whom a proxy or the provider may name, and `groups` those of the
    provider, each with what they may do."""

    proxies: list[str] = []
    user_header: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,64}\Z")] = "X-Forwarded-User"
    users: dict[str, list[ConsoleRole]] = {}
    groups: dict[str, list[ConsoleRole]] = {}
    oidc: dict[str, Any] | None = None


class ConsoleSettings(msgspec.Struct, frozen=True):
    """`port` 0: there is none. `url` is where browsers reach it, without a slash at its end; empty: where it listens. `oidc` None:
    nobody signs in by an OpenID provider."""

    port: int = 8001
    host: str = "127.0.0.1"
    url: str = ""
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    user_header: str = "X-Forwarded-User"
    users: Mapping[str, tuple[ConsoleRole, ...]] = {}
    groups: Mapping[str, tuple[ConsoleRole, ...]] = {}
    oidc: OidcSettings | None = None

    @property
    def base_url(self) -> str:
        """Where browsers reach it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.url or f"http://{host}:{self.port}"

    @property
    def is_secure(self) -> bool:
        return self.base_url.startswith("https://")

    @property
    def callback_url(self) -> str:
        """Where the OpenID provider sends browsers back to: the redirect URI that it must know this console by."""
        return self.base_url + CALLBACK_PATH

    def trusts(self, address: str) -> bool:
        """Whether a connection from `address` is a proxy's."""
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.proxies)


def read_console(
    path: Path, raw: object, environ: Mapping[str, str], found: SecretProblems
) -> ConsoleSettings:
    """Read `[console]`, which is `raw`, and report its mistakes. Where it listens, the environment says: see place_console."""
    place, problems = f"{path}: console", found.problems
    table = read_table(place, ConsoleTable(), raw, problems)
    problems += [
        f"{place}.proxies: {written!r}: expected an address or a network, such as 10.0.0.0/8"
        for written in table.proxies
        if _read_network(written) is None
    ]
    problems += [
        f"{place}.{field}.{name}: expected at least one of {', '.join(CONSOLE_ROLES)}"
        for field, names in (("users", table.users), ("groups", table.groups))
        for name, roles in names.items()
        if not roles
    ]
    if table.users and not table.proxies and table.oidc is None:
        problems.append(
            f"{place}.users: expected `proxies`, the addresses of those who may say who it is, "
            "or [console.oidc]"
        )
    if table.groups and table.oidc is None:
        problems.append(f"{place}.groups: expected [console.oidc], whose groups they are")
    if table.oidc is not None and not table.users and not table.groups:
        problems.append(
            f"{place}.oidc: nobody may sign in by it: expected [console.users] or [console.groups], with "
            "what each may do"
        )
    return ConsoleSettings(
        proxies=tuple(
            network for written in table.proxies if (network := _read_network(written)) is not None
        ),
        user_header=table.user_header,
        users={name: tuple(roles) for name, roles in table.users.items()},
        groups={name: tuple(roles) for name, roles in table.groups.items()},
        oidc=None if table.oidc is None else read_oidc(f"{place}.oidc", table.oidc, environ, found),
    )


def place_console(
    console: ConsoleSettings, host: str, port: int, url: str, problems: list[str]
) -> ConsoleSettings:
    """Add where it listens and is reached, of the environment, and report where it would be open to the network without TLS."""
    if url and not _is_origin(url):
        problems.append(
            f"PARLEY_CONSOLE_URL is {url!r}: expected an origin such as https://console.example.org"
        )
    elif port and not is_loopback(host) and not url.startswith("https://"):
        problems.append(
            f"PARLEY_CONSOLE_HOST is {host!r}, which others can reach: expected 127.0.0.1, or "
            "PARLEY_CONSOLE_URL with the https:// address of the proxy before it"
        )
    placed = msgspec.structs.replace(console, host=host, port=port, url=url.rstrip("/"))
    if placed.oidc and port and url and _is_origin(url) and not is_secure_url(placed.callback_url):
        problems.append(
            f"PARLEY_CONSOLE_URL is {url!r}: expected https://, as [console.oidc] sends browsers back there "
            "with what signs in"
        )
    return placed


def _read_network(written: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(written)
    except ValueError:
        return None


def _is_origin(url: str) -> bool:
    parts = urlsplit(url)
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and not (parts.path.strip("/") or parts.query)
    )
