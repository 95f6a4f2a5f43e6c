"""A console to which one signs in by an OpenID provider, and those who do, with a program."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import requests

from tests.console.visitor import Visitor, base_url
from tests.support.octopush import FakeOctopush
from tests.support.openid_provider import CLIENT_ID, CLIENT_SECRET, OpenidProvider
from tests.support.processes import Deployment
from tests.support.topologies import RedisTopology
from tests.support.waiting import free_port

SECRET_VARIABLE = "PARLEY_CONSOLE_OIDC_SECRET"

TABLES = """
[console.users]
"ada@example.org" = ["operator"]

[console.groups]
medics = ["viewer"]
records = ["privacy"]
"""


def oidc_table(issuer: str, *, has_secret: bool = True, **fields: str) -> str:
    """`[console.oidc]` of parley.toml."""
    lines = {"issuer": issuer, "client_id": CLIENT_ID, **fields}
    if has_secret:
        lines["client_secret_env"] = SECRET_VARIABLE
    return "\n[console.oidc]\n" + "".join(f'{name} = "{value}"\n' for name, value in lines.items())


@contextmanager
def oidc_console(
    valkey: RedisTopology,
    octopush: FakeOctopush,
    issuer: str,
    *,
    has_secret: bool = True,
    environment: Mapping[str, str] | None = None,
    **fields: str,
) -> Iterator[Deployment]:
    """Parley of which only `console` runs, with `fields` in the table of the provider."""
    variables = {
        "PARLEY_CONSOLE_PORT": f"{free_port()}",
        SECRET_VARIABLE: CLIENT_SECRET,
        **(environment or {}),
    }
    with Deployment(valkey.url, valkey.broker_url, octopush, environment=variables) as deployment:
        config = deployment.folder / "parley.toml"
        table = oidc_table(issuer, has_secret=has_secret, **fields)
        config.write_text(config.read_text() + TABLES + table)
        deployment.spawn("console")
        deployment.wait_running()
        yield deployment


def callback_url(console: Deployment) -> str:
    return f"{base_url(console)}/sign-in/oidc/callback"


def begin(visitor: Visitor, page: str = "/") -> str:
    """Where the browser is sent to."""
    told = visitor.get("/sign-in/oidc", next=page)
    assert told.status_code == 303, told.text
    return told.headers["Location"]


def come_back(visitor: Visitor, provider: OpenidProvider, page: str = "/") -> requests.Response:
    """What the console answers whoever has begun here, and signed in at the provider."""
    return visitor.get(provider.give_code(begin(visitor, page)).removeprefix(visitor.base))
