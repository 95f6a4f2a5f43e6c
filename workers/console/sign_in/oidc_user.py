"""Who is it that the OpenID provider has signed in, and what may they do? By its claims and by parley.toml, and nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any

from config.settings.console_settings import CONSOLE_ROLES, ConsoleRole, ConsoleSettings
from config.settings.oidc_settings import VERIFICATION_CLAIM, VERIFIED_CLAIM, OidcSettings
from workers.console.sign_in.console_sessions import ConsoleUser
from workers.console.sign_in.oidc_errors import OidcRefusedError

MAX_NAME = 200


def wanted_claims(settings: ConsoleSettings, oidc: OidcSettings) -> tuple[str, ...]:
    """The claims without which `user_of_claims` knows less than it could."""
    verified = (VERIFICATION_CLAIM,) if oidc.user_claim == VERIFIED_CLAIM else ()
    groups = (oidc.groups_claim,) if settings.groups else ()
    return (oidc.user_claim, *verified, *groups)


def user_of_claims(settings: ConsoleSettings, oidc: OidcSettings, claims: Mapping[str, Any]) -> ConsoleUser:
    """Return whom `claims`, which are the provider's own, are about. Raises OidcRefusedError if they may do nothing here."""
    name = claims.get(oidc.user_claim)
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= MAX_NAME:
        raise OidcRefusedError(
            f"{oidc.shown_name} does not say who you are: expected the claim {oidc.user_claim!r}. Whoever "
            "runs Parley changes `scopes` or `user_claim` of [console.oidc]."
        )
    if oidc.user_claim == VERIFIED_CLAIM and claims.get(VERIFICATION_CLAIM) is not True:
        raise OidcRefusedError(
            f"{oidc.shown_name} does not say that it has verified your e-mail address, {name}: until it does "
            "(`email_verified`), that may be anybody's.",
            name,
        )
    roles = {role for granted in _granted(settings, oidc, name, claims) for role in granted}
    if not roles:
        raise OidcRefusedError(
            f"{name} may do nothing here. Whoever runs Parley names you in [console.users] of parley.toml, "
            "or one of your groups in [console.groups].",
            name,
        )
    return ConsoleUser(name, tuple(role for role in CONSOLE_ROLES if role in roles))


def _granted(
    settings: ConsoleSettings, oidc: OidcSettings, name: str, claims: Mapping[str, Any]
) -> Iterator[tuple[ConsoleRole, ...]]:
    """What parley.toml lets somebody do, by their name and by each of their groups."""
    yield settings.users.get(name, ())
    groups = claims.get(oidc.groups_claim)
    for group in [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else ():
        if isinstance(group, str):
            yield settings.groups.get(group, ())
