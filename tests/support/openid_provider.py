"""An OpenID provider: a real HTTP server that signs people in with a click, checks what a provider must check (the client and its
secret, the redirect URI, PKCE, that a code is used once), really signs its ID tokens, and can be told to misbehave.

OpenID Connect Core 1.0 and Discovery 1.0, RFC 7636 (PKCE), RFC 9207 (`iss`).
"""

import secrets
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

from tests.support.waiting import HANG_S, PATIENCE

CLIENT_ID, CLIENT_SECRET = "parley", "a-secret:of+tests%41"

Claims = dict[str, Any]


class ProviderPage(NamedTuple):
    """An answer. Status 0: the connection ends without one."""

    status: int = 200
    body: bytes = b""
    kind: str = "application/json"
    location: str = ""


def ec_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid, "use": "sig"})


def rsa_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


class _ProviderServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: browsers end connections as they like."""


class OpenidProvider:
    """Listens on loopback from its making until it is closed. Who signs in is whom `user` says, whatever clicks.

    `change_claims` makes of a token's claims those that it has, `write_token` the token of claims; `change_metadata` that of what it
    publishes of itself. `iss` is what it says of itself on the way back (None: nothing). While `answers` is not set, it answers nothing.
    """

    def __init__(self, *, is_public: bool = False) -> None:
        self.is_public = is_public
        self.user: Claims = {"sub": "a1", "email": "ada@example.org", "email_verified": True}
        self.redirect_uri = ""
        self.signing: Key = ec_key("first")
        self.published: list[Any] = [self.signing.as_dict(private=False)]
        self.change_claims: Callable[[Claims], Claims] = lambda claims: claims
        self.write_token: Callable[[Claims], str] = self.signed
        self.change_metadata: Callable[[Claims], Claims] = lambda metadata: metadata
        self.iss: str | None = ""
        self.in_userinfo: Claims | None = None
        self.answers = Event()
        self.answers.set()
        self.asked: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._grants: dict[str, Mapping[str, str]] = {}
        self._access: set[str] = set()
        self._lock = Lock()
        self._server = _ProviderServer(("127.0.0.1", 0), self._handler())
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/realm"

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()

    def signed(self, claims: Claims) -> str:
        """A token as it should be."""
        alg = "RS256" if isinstance(self.signing, RSAKey) else "ES256"
        return jwt.encode({"alg": alg, "kid": self.signing.kid}, claims, self.signing)

    def rotate(self, key: Key) -> None:
        """Sign by another key, and publish that alone."""
        self.signing, self.published = key, [key.as_dict(private=False)]

    def give_code(self, authorization_url: str) -> str:
        """What a click comes to: where the browser is sent back to."""
        page = self._authorize("POST", _fields(urlsplit(authorization_url).query))
        assert page.status == 303, page.body
        return page.location

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], query: str, body: str
    ) -> ProviderPage:
        match path.removeprefix("/realm"):
            case "/.well-known/openid-configuration":
                return ProviderPage(body=msgspec.json.encode(self.change_metadata(self._metadata())))
            case "/authorize":
                return self._authorize(method, _fields(query))
            case "/token":
                return self._token(headers, _fields(body))
            case "/keys":
                return ProviderPage(body=msgspec.json.encode({"keys": self.published}))
            case "/userinfo" if headers.get("authorization", "").removeprefix("Bearer ") in self._access:
                return ProviderPage(body=msgspec.json.encode(self.in_userinfo))
            case _:
                return ProviderPage(404)

    def _metadata(self) -> Claims:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "authorization_response_iss_parameter_supported": True,
            **({"userinfo_endpoint": f"{self.issuer}/userinfo"} if self.in_userinfo is not None else {}),
        }

    def _authorize(self, method: str, query: Mapping[str, str]) -> ProviderPage:
        wanted = {
            "client_id": CLIENT_ID,
            "redirect_uri": self.redirect_uri,
            "response_type": "code",
            "code_challenge_method": "S256",
        }
        wrong = [name for name, value in wanted.items() if query.get(name) != value]
        wrong += [name for name in ("state", "nonce", "code_challenge") if not query.get(name)]
        if wrong or "openid" not in query.get("scope", "").split():
            return ProviderPage(400, f"wrong: {wrong or 'scope'}".encode(), "text/plain")
        if method == "GET":
            who = escape(str(self.user["sub"]))
            form = f"<form method=post><button>Go on as {who}</button></form>"
            return ProviderPage(
                body=f"<!doctype html><link rel=icon href=data:,><title>Provider</title>{form}".encode(),
                kind="text/html",
            )
        code = secrets.token_hex(16)
        self._grants[code] = query
        answer = {"code": code, "state": query["state"]}
        if self.iss is not None:
            answer["iss"] = self.iss or self.issuer
        return ProviderPage(303, location=f"{self.redirect_uri}?{urlencode(answer)}")

    def _token(self, headers: Mapping[str, str], form: Mapping[str, str]) -> ProviderPage:
        if not self._is_client(headers, form):
            return ProviderPage(401, b'{"error": "invalid_client"}')
        grant = self._grants.pop(form.get("code", ""), None)
        challenge = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest())
        if (
            grant is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != self.redirect_uri
            or challenge.rstrip(b"=").decode() != grant["code_challenge"]
        ):
            return ProviderPage(400, b'{"error": "invalid_grant"}')
        access = secrets.token_hex(16)
        self._access.add(access)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": grant["nonce"],
            **self.user,
        }
        token = self.write_token(self.change_claims(claims))
        told = {"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": token}
        return ProviderPage(body=msgspec.json.encode(told))

    def _is_client(self, headers: Mapping[str, str], form: Mapping[str, str]) -> bool:
        if self.is_public:
            return form.get("client_id") == CLIENT_ID and "authorization" not in headers
        told = b64decode(headers.get("authorization", "").removeprefix("Basic ")).decode()
        name, _, secret = told.partition(":")
        return (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._respond("GET")

            def do_POST(self) -> None:
                self._respond("POST")

            def _respond(self, method: str) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                url = urlsplit(self.path)
                with provider._counted(url.path):
                    provider.answers.wait(HANG_S * PATIENCE)
                page = provider.answer(method, url.path, headers, url.query, body)
                if page.status == 0:
                    self.close_connection = True
                    return
                self.send_response(page.status)
                self.send_header("Content-Type", page.kind)
                if page.location:
                    self.send_header("Location", page.location)
                self.send_header("Content-Length", str(len(page.body)))
                self.end_headers()
                self.wfile.write(page.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    @contextmanager
    def _counted(self, path: str) -> Iterator[None]:
        """While a request waits for its answer."""
        with self._lock:
            self.asked.append(path)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    @property
    def waiting(self) -> int:
        """Requests that wait for their answer now."""
        with self._lock:
            return self._at_once


def _fields(encoded: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(encoded, keep_blank_values=True).items()}
