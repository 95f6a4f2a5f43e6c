"""`[console.oidc]` of parley.toml: the OpenID provider by which people sign in to the console.

What each of them may do is not said here: `[console.users]` and `[console.groups]` say it, whoever tells who it is.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from config.settings.config_errors import Secret, SecretProblems, find_secret, read_table

VERIFIED_CLAIM = "email"
"""The claim that counts only if the provider says that it has verified it (`email_verified`)."""

VERIFICATION_CLAIM = f"{VERIFIED_CLAIM}_verified"
"""The claim that says whether it has."""

OPENID_SCOPE = "openid"
DEFAULT_SCOPES = (OPENID_SCOPE, "email", "profile")

CALLBACK_PATH = "/sign-in/oidc/callback"
"""Where the provider sends browsers back to."""

_LOOPBACK_NAMES = ("localhost", "ip6-localhost")

Claim = Annotated[str, Meta(min_length=1, max_length=200)]


class OidcTable(msgspec.Struct, frozen=True):
    """`[console.oidc]` as it is written in parley.toml."""

    issuer: str
    client_id: Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,500}\Z")]
    client_secret_env: str = ""
    user_claim: Claim = VERIFIED_CLAIM
    groups_claim: Claim = "groups"
    scopes: tuple[Annotated[str, Meta(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,200}\Z")], ...] = DEFAULT_SCOPES


class OidcSettings(msgspec.Struct, frozen=True):
    """A provider. `issuer` is its name just as it writes it; an empty `client_secret` means a public client. Somebody's name is what
    the claim `user_claim` says, their groups what `groups_claim` does."""

    issuer: str
    client_id: str
    client_secret: Secret = Secret()
    user_claim: str = VERIFIED_CLAIM
    groups_claim: str = "groups"
    scopes: tuple[str, ...] = DEFAULT_SCOPES

    @property
    def discovery_url(self) -> str:
        """Where the provider says of itself what it is and where (OpenID Connect Discovery 1.0, section 4)."""
        return self.issuer.rstrip("/") + "/.well-known/openid-configuration"

    @property
    def shown_name(self) -> str:
        """What people know the provider by: its host."""
        return urlsplit(self.issuer).netloc


def read_oidc(place: str, raw: object, environ: Mapping[str, str], found: SecretProblems) -> OidcSettings:
    """Read `[console.oidc]`, which is `raw`, and report its mistakes: then what is returned is of no use."""
    problems = found.problems
    table = read_table(place, OidcTable(issuer="", client_id=""), raw, problems)
    if table.issuer and not is_secure_url(table.issuer):
        problems.append(
            f"{place}.issuer is {table.issuer!r}: expected https:// and a host, as the provider writes "
            "itself, without ? and #, such as https://login.example.org/realms/parley (http:// on this "
            "machine alone)"
        )
    if OPENID_SCOPE not in table.scopes:
        problems.append(f"{place}.scopes: expected {OPENID_SCOPE!r} among them")
    return OidcSettings(
        table.issuer,
        table.client_id,
        _read_client_secret(f"{place}.client_secret_env", table.client_secret_env, environ, found),
        table.user_claim,
        table.groups_claim,
        table.scopes,
    )


def is_secure_url(url: str) -> bool:
    """Whether what is sent there crosses no network in the clear: https://, or http:// on loopback. No query and no fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_url = bool(host) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        return False
    if not is_url or not url.isascii() or not url.isprintable() or set(url) & set(" ?#"):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES


def _read_client_secret(
    place: str, variable: str, environ: Mapping[str, str], found: SecretProblems
) -> Secret:
    if not variable:
        return Secret()
    secret = find_secret(
        place, variable, environ, found, what="secret", expected="the client's secret, of the provider"
    )
    if secret and not (secret.isascii() and secret.isprintable()):
        found.problems.append(f"{place}: the secret in {variable}: expected printable ASCII, in one line")
    return secret or Secret()
