"""Asks the OpenID provider: where it is, whom it has signed in, by which keys it signs (OpenID Connect Core and Discovery 1.0).

It is asked by the authorization code flow with PKCE (RFC 7636). What it publishes of itself is taken as it was for PUBLISHED_S; a
token that none of its keys has signed has them fetched again, once. All waits: see BlockingCalls.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Annotated, Any, TypeVar
from urllib.parse import quote_plus

import msgspec
import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from joserfc.jwk import KeySet
from msgspec import Meta
from requests.auth import HTTPBasicAuth

from config.host import Host
from config.settings.oidc_settings import VERIFICATION_CLAIM, VERIFIED_CLAIM, OidcSettings, is_secure_url
from workers.console.sign_in.id_token import TokenExpectation, UnknownKeyError, check_id_token, usable_keys
from workers.console.sign_in.oidc_errors import OidcRefusedError, OidcUnavailableError
from workers.console.sign_in.oidc_sign_ins import BegunSignIn, OidcSignIn

HTTP_TIMEOUT_S = 5.0
PUBLISHED_S = 600.0

Answer = TypeVar("Answer")

_BASIC, _POST, _PUBLIC = "client_secret_basic", "client_secret_post", "none"


class ProviderMetadata(msgspec.Struct, frozen=True):
    """What a provider says of itself (Discovery, section 3), as far as it matters here."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    token_endpoint_auth_methods_supported: tuple[str, ...] = (_BASIC,)
    authorization_response_iss_parameter_supported: bool = False


class JwkSet(msgspec.Struct, frozen=True):
    """The keys that a provider publishes, each as it is written (RFC 7517)."""

    keys: list[Any]


class TokenResponse(msgspec.Struct, frozen=True):
    """What a code is worth (Core, section 3.1.3.3)."""

    id_token: Annotated[str, Meta(min_length=1)]
    access_token: str


class OidcProvider:
    """The provider of `settings`, which sends browsers back to `callback_url`. Claims that are `wanted` are asked for beyond the ID
    token, if that has not all of them."""

    def __init__(
        self, settings: OidcSettings, callback_url: str, wanted: tuple[str, ...], host: Host
    ) -> None:
        self._settings = settings
        self._callback_url = callback_url
        self._wanted = wanted
        self._host = host
        self._lock = Lock()
        self._metadata: tuple[ProviderMetadata, float] | None = None
        self._keys: tuple[KeySet, float] | None = None

    def authorization_url(self, begun: BegunSignIn) -> str:
        """Return where to send the browser. Raises OidcUnavailableError."""
        metadata = self.read_metadata()
        with self._open_session(metadata) as session:
            url, _ = session.create_authorization_url(
                metadata.authorization_endpoint,
                state=begun.state,
                nonce=begun.sign_in.nonce,
                code_verifier=begun.sign_in.verifier,
            )
        return str(url)

    def claims_of(self, code: str, response_issuer: str | None, sign_in: OidcSignIn) -> Mapping[str, Any]:
        """Return what the provider says of whom it gave `code` to. `response_issuer` is who sent the browser back (RFC 9207), if it
        says so. Raises OidcUnavailableError and OidcRefusedError."""
        metadata = self.read_metadata()
        says_issuer = metadata.authorization_response_iss_parameter_supported
        if (response_issuer is None and says_issuer) or response_issuer not in (None, metadata.issuer):
            raise OidcRefusedError(f"It was not {self._settings.shown_name} that sent you back.")
        tokens = self._redeem(metadata, code, sign_in.verifier)
        expected = TokenExpectation(
            metadata.issuer,
            self._settings.client_id,
            sign_in.nonce,
            tokens.access_token,
            metadata.id_token_signing_alg_values_supported,
        )
        claims = self._check(metadata, tokens.id_token, expected)
        if metadata.userinfo_endpoint and any(name not in claims for name in self._wanted):
            return _join_claims(claims, self._ask_more(metadata, tokens.access_token, claims["sub"]))
        return claims

    def read_metadata(self) -> ProviderMetadata:
        """Return what the provider says of itself. Raises OidcUnavailableError."""
        with self._lock:
            kept = self._metadata
        now_s = self._host.monotonic_s()
        if kept is None or now_s - kept[1] > PUBLISHED_S:
            kept = (self._fetch_metadata(), now_s)
            with self._lock:
                self._metadata = kept
        return kept[0]

    def _fetch_metadata(self) -> ProviderMetadata:
        url = self._settings.discovery_url
        metadata = _decode(self._get(url), ProviderMetadata, url)
        if metadata.issuer != self._settings.issuer:
            raise OidcUnavailableError(
                f"{url} says that it is {metadata.issuer!r}: expected `issuer` of [console.oidc] to be just "
                "that"
            )
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            endpoint = getattr(metadata, name)
            if endpoint and not is_secure_url(endpoint.partition("?")[0]):
                raise OidcUnavailableError(f"{url} has a {name} that is not https://")
        return metadata

    def _open_session(self, metadata: ProviderMetadata) -> Any:
        secret, methods = self._settings.client_secret, metadata.token_endpoint_auth_methods_supported
        by_secret = _POST if _POST in methods and _BASIC not in methods else _BASIC
        return OAuth2Session(
            self._settings.client_id,
            secret or None,
            token_endpoint_auth_method=by_secret if secret else _PUBLIC,
            scope=" ".join(self._settings.scopes),
            redirect_uri=self._callback_url,
            code_challenge_method="S256",
            default_timeout=HTTP_TIMEOUT_S,
        )

    def _basic_auth(self) -> HTTPBasicAuth:
        """Who the client is, written as RFC 6749, section 2.3.1, wants it and Authlib does not: a secret may have `:` or `+` in it."""
        return HTTPBasicAuth(quote_plus(self._settings.client_id), quote_plus(self._settings.client_secret))

    def _redeem(self, metadata: ProviderMetadata, code: str, verifier: str) -> TokenResponse:
        try:
            with self._open_session(metadata) as session:
                told = session.fetch_token(
                    metadata.token_endpoint,
                    code=code,
                    code_verifier=verifier,
                    auth=self._basic_auth() if session.token_endpoint_auth_method == _BASIC else None,
                    allow_redirects=False,
                )
        except OAuthError as e:
            if e.error == "invalid_grant":
                raise OidcRefusedError(
                    f"{self._settings.shown_name} does not take the code any more that it gave you: it was "
                    "used, or is too old."
                ) from e
            raise OidcUnavailableError(
                f"{self._settings.shown_name} does not give this console what it asks for ({e.error}): "
                "`client_id`, the client's secret and the redirect URI must be as they are there"
            ) from e
        except requests.RequestException as e:
            raise self._silent(e) from e
        except ValueError as e:
            raise OidcUnavailableError(f"{metadata.token_endpoint} does not answer as it should") from e
        try:
            return msgspec.convert(dict(told), TokenResponse)
        except msgspec.ValidationError as e:
            raise OidcUnavailableError(f"{metadata.token_endpoint} gives no ID token ({e})") from e

    def _check(
        self, metadata: ProviderMetadata, id_token: str, expected: TokenExpectation
    ) -> Mapping[str, Any]:
        with self._lock:
            kept = self._keys
        now_s = self._host.monotonic_s()
        if kept is not None and now_s - kept[1] <= PUBLISHED_S:
            try:
                return check_id_token(id_token, kept[0], expected, self._host.wall_s())
            except UnknownKeyError:
                pass  # it may be signed by a key that is new
        keys = usable_keys(_decode(self._get(metadata.jwks_uri), JwkSet, metadata.jwks_uri).keys)
        with self._lock:
            self._keys = (keys, now_s)
        return check_id_token(id_token, keys, expected, self._host.wall_s())

    def _ask_more(self, metadata: ProviderMetadata, access_token: str, subject: str) -> Mapping[str, Any]:
        """Return what the provider says beside the ID token (Core, section 5.3), which must be of the same subject."""
        url = metadata.userinfo_endpoint
        more = _decode(self._get(url, {"Authorization": f"Bearer {access_token}"}), dict[str, Any], url)
        if more.get("sub") != subject:
            raise OidcRefusedError(f"{self._settings.shown_name} tells of somebody else than it signed in.")
        return more

    def _get(self, url: str, headers: Mapping[str, str] | None = None) -> bytes:
        try:
            reply = requests.get(
                url,
                headers={"Accept": "application/json", **(headers or {})},
                timeout=HTTP_TIMEOUT_S,
                allow_redirects=False,
            )
        except requests.RequestException as e:
            raise self._silent(e) from e
        if reply.status_code != requests.codes.ok:
            raise OidcUnavailableError(f"{url} answers {reply.status_code}")
        return reply.content

    def _silent(self, error: requests.RequestException) -> OidcUnavailableError:
        return OidcUnavailableError(f"{self._settings.shown_name} does not answer ({type(error).__name__})")


def _join_claims(in_token: Mapping[str, Any], in_userinfo: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the ID token says, and of what it does not say what userinfo does. Whether an e-mail address is verified is taken
    from who says that address: of another one it says nothing."""
    joined = {**in_userinfo, **in_token}
    address = joined.get(VERIFIED_CLAIM)
    joined.pop(VERIFICATION_CLAIM, None)
    for source in (in_token, in_userinfo):
        if VERIFICATION_CLAIM in source and source.get(VERIFIED_CLAIM) == address:
            return {**joined, VERIFICATION_CLAIM: source[VERIFICATION_CLAIM]}
    return joined


def _decode(body: bytes, kind: type[Answer], url: str) -> Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as e:
        raise OidcUnavailableError(f"{url} does not say what OpenID Connect wants ({e})") from e
