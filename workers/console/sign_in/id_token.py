"""Is an ID token the provider's, for this console, of this sign-in, and of now (OpenID Connect Core 1.0, section 3.1.3.7)?

It must be signed by a key that the provider publishes, by an algorithm with a public key: `none` signs nothing, and an HMAC would be
made with what everybody may read.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    ExpiredTokenError,
    InvalidKeyIdError,
    JoseError,
    UnsupportedAlgorithmError,
)
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

from workers.console.sign_in.oidc_errors import OidcRefusedError

PUBLIC_KEY_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")

CLOCK_SKEW_S = 60
"""By how much the provider's clock may be wrong, or ours."""


class UnknownKeyError(OidcRefusedError):
    """The token is signed by none of the keys; perhaps by one that the provider has since."""


class TokenExpectation(msgspec.Struct, frozen=True):
    """What a token must say: who made it, for whom, for which sign-in; which `access_token` came with it; and by which algorithms the
    provider signs."""

    issuer: str
    client_id: str
    nonce: str
    access_token: str
    algorithms: Collection[str]


def usable_keys(published: Iterable[Any]) -> KeySet:
    """Return those of the keys of a JWK set (RFC 7517) with which signatures can be checked. What they are not is no mistake:
    providers publish keys of kinds that come later, and those for encryption."""
    return KeySet([key for each in published if (key := _read_key(each)) is not None])


def check_id_token(
    id_token: str, keys: KeySet, expected: TokenExpectation, now_s: float
) -> Mapping[str, Any]:
    """Return the claims of the token. Raises OidcRefusedError; UnknownKeyError if other keys may know it."""
    allowed = [name for name in PUBLIC_KEY_ALGORITHMS if name in expected.algorithms]
    if not allowed:
        raise OidcRefusedError(f"The provider signs by none of {', '.join(PUBLIC_KEY_ALGORITHMS)}.")
    registry = JWSRegistry(algorithms=allowed, strict_check_header=False)
    try:
        token = jwt.decode(id_token, keys, registry=registry)
    except (InvalidKeyIdError, BadSignatureError) as e:
        raise UnknownKeyError("The ID token is signed by no key that the provider publishes.") from e
    except UnsupportedAlgorithmError as e:
        raise OidcRefusedError(f"The ID token is not signed by {' or '.join(allowed)}.") from e
    except (JoseError, ValueError, TypeError) as e:
        raise OidcRefusedError("The ID token cannot be read.") from e
    claims = CodeIDToken(
        token.claims,
        token.header,
        {
            "iss": {"essential": True, "value": expected.issuer},
            "aud": {"essential": True, "value": expected.client_id},
        },
        {"nonce": expected.nonce, "client_id": expected.client_id, "access_token": expected.access_token},
    )
    try:
        claims.validate(now=int(now_s), leeway=CLOCK_SKEW_S)
    except ExpiredTokenError as e:
        raise OidcRefusedError(
            f"The ID token is over: the provider's clock and ours differ by more than {CLOCK_SKEW_S} "
            "seconds, or it took too long."
        ) from e
    except ClaimError as e:
        raise OidcRefusedError(
            f"The ID token is not for this sign-in: its claim {e.claim!r} is missing or another's."
        ) from e
    except (JoseError, ValueError, TypeError) as e:
        raise OidcRefusedError("The claims of the ID token cannot be read.") from e
    return dict(claims)


def _read_key(published: Any) -> Key | None:
    try:
        key = JWKRegistry.import_key(published)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    return None if key.key_type == "oct" or key.get("use") == "enc" else key
