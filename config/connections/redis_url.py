"""Reads the URL of a Redis: of one server, of a service that Sentinels know, or of a cluster.

| URL | leads to |
|---|---|
| `redis://user:password@host:6379/0`, `rediss://…` (TLS), `unix:///run/redis.sock?db=0` | one server, as redis-py reads them |
| `redis+sentinel://user:password@host:26379,host/service/0` | the primary of `service`, whichever server that is, by the word of the first Sentinel that answers; user, password and options are the servers' |
| `rediss+sentinel://…` | the same by TLS, to the Sentinels too |
| `redis+cluster://user:password@host:6379,host`, `rediss+cluster://…` | a cluster, of which these servers tell; user, password and options are those of all servers |

Sentinels that want a user or a password of their own have them in `?sentinel_username=…&sentinel_password=…`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from engine.model.errors import ParleyError

SENTINEL_PORT = 26_379
SERVER_PORT = 6_379

_SERVER_SCHEMES = ("redis", "rediss", "unix")
_SENTINEL_SUFFIX = "+sentinel"
_CLUSTER_SUFFIX = "+cluster"
_SENTINEL_SCHEMES = tuple(f"{scheme}{_SENTINEL_SUFFIX}" for scheme in ("redis", "rediss"))
_CLUSTER_SCHEMES = tuple(f"{scheme}{_CLUSTER_SUFFIX}" for scheme in ("redis", "rediss"))

_HOST = re.compile(r"(?P<host>[^\[\]:@]+|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")


class RedisUrlError(ParleyError):
    """A URL leads to no Redis. `str` says what was expected, and shows no password."""


class SentinelService(NamedTuple):
    """`sentinels` are (host, port). `server_url` is of its servers, but for their host; `credentials` are the Sentinels' own,
    as redis-py calls them."""

    sentinels: tuple[tuple[str, int], ...]
    name: str
    server_url: str
    credentials: Mapping[str, Any]


class Cluster(NamedTuple):
    """`seeds` are (host, port) of servers that tell which others there are. `server_url` is of each, but for its host."""

    seeds: tuple[tuple[str, int], ...]
    server_url: str


def check_redis_url(url: str) -> None:
    """Raise RedisUrlError if `url` leads to no Redis."""
    scheme = scheme_of(url)
    if scheme in _SENTINEL_SCHEMES:
        read_sentinel_url(url)
    elif scheme in _CLUSTER_SCHEMES:
        read_cluster_url(url)
    elif scheme not in _SERVER_SCHEMES:
        raise RedisUrlError(
            "expected a URL that begins with redis://, rediss://, unix://, redis+sentinel://, "
            "rediss+sentinel://, redis+cluster:// or rediss+cluster://"
        )


def read_sentinel_url(url: str) -> SentinelService | None:
    """Return the service that `url` means; None if it is of one server. Raises RedisUrlError."""
    scheme = scheme_of(url)
    if scheme not in _SENTINEL_SCHEMES:
        return None
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    name, _, database = parts.path.strip("/").partition("/")
    options = dict(parse_qsl(parts.query))
    if not name or (database and not database.isdigit()):
        raise RedisUrlError(
            "expected the service that the Sentinels know, and a database's number if it is not 0, behind "
            f"the hosts: {scheme}://host,host/service/0"
        )
    credentials = {
        option.removeprefix("sentinel_"): options.pop(option)
        for option in _SENTINEL_OPTIONS
        if option in options
    }
    server_scheme = scheme.removesuffix(_SENTINEL_SUFFIX)
    at_service = f"{user}@service" if user else "service"
    return SentinelService(
        tuple(
            _read_host(
                host,
                SENTINEL_PORT,
                "expected the Sentinels as hosts, or host:port, with commas between them: "
                f"{scheme}://host,host:{SENTINEL_PORT}/service",
            )
            for host in hosts.split(",")
        ),
        unquote(name),
        f"{server_scheme}://{at_service}/{database or 0}?{urlencode(options)}",
        credentials,
    )


def read_cluster_url(url: str) -> Cluster | None:
    """Return the cluster that `url` means; None if it is of none. Raises RedisUrlError."""
    scheme = scheme_of(url)
    if scheme not in _CLUSTER_SCHEMES:
        return None
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    expected = (
        "expected servers of the cluster as hosts, or host:port, with commas between them, and no database: "
        f"{scheme}://host,host:{SERVER_PORT}"
    )
    if parts.path.strip("/") not in ("", "0"):
        raise RedisUrlError(expected)
    at_server = f"{user}@server" if user else "server"
    options = f"?{parts.query}" if parts.query else ""
    return Cluster(
        tuple(_read_host(host, SERVER_PORT, expected) for host in hosts.split(",")),
        f"{scheme.removesuffix(_CLUSTER_SUFFIX)}://{at_server}/0{options}",
    )


def _read_host(written: str, default_port: int, expected: str) -> tuple[str, int]:
    found = _HOST.fullmatch(written.strip())
    port = int(found["port"] or default_port) if found else 0
    if found is None or not 0 < port < 65_536:
        raise RedisUrlError(expected)
    return found["host"].strip("[]"), port


def default_broker_url(url: str) -> str:
    """Return the URL of the next database: `redis://host:6379/0` -> `redis://host:6379/1`,
    `unix:///run/redis.sock?db=0` -> `unix:///run/redis.sock?db=1`,
    `redis+sentinel://host/service` -> `redis+sentinel://host/service/1`; "" if the URL has none, or is of a cluster, which has
    no other."""
    parts = urlsplit(url)
    _, number = _split_database(url)
    if number is None:
        return ""
    if parts.scheme == "unix":
        query = urlencode(dict(parse_qsl(parts.query)) | {"db": number + 1})
        return f"unix://{parts.netloc}{parts.path}?{query}"  # geturl leaves out a // before nothing
    service = parts.path.strip("/").partition("/")[0] if parts.scheme in _SENTINEL_SCHEMES else ""
    return parts._replace(path=f"{'/' * bool(service)}{service}/{number + 1}").geturl()


def database_beside(url: str, other: str) -> int | None:
    """Return the number of the database that `other` leads to, if both lead one user to the same server, or service; None if they do
    not, or if that cannot be told from them, and of a cluster, which has no other database."""
    (place, _), (other_place, number) = _split_database(url), _split_database(other)
    return number if number is not None and place == other_place else None


def _split_database(url: str) -> tuple[Sequence[str], int | None]:
    """Return what a URL says but for the database, and its number; None if that cannot be told."""
    parts = urlsplit(url)
    path, options = parts.path.strip("/"), parse_qsl(parts.query)
    if parts.scheme == "unix":
        number = dict(options).get("db", "0")
        options = [each for each in options if each[0] != "db"]
    elif parts.scheme in _CLUSTER_SCHEMES or "db=" in parts.query:
        number = "-"
    elif parts.scheme in _SENTINEL_SCHEMES:
        path, _, number = path.partition("/")
    else:
        path, number = "", path
    place = (parts.scheme, parts.netloc, path, *map("=".join, sorted(options)))
    return place, int(number or 0) if (number or "0").isdigit() else None


def scheme_of(url: str) -> str:
    """Return what stands before the colon, in lower case; "" if this is no URL."""
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""
