"""Who is just signing in by the OpenID provider? Kept in Redis from when they are sent there until they are back, so that any `console`
process can finish what another began.

A sign-in is known by its state (RFC 6749, section 10.12), can be finished once, within SIGN_IN_MS, and by the browser that began it
alone, which shows a cookie: else somebody could be signed in, by a link, as somebody else. Redis has digests of both.
"""

import msgspec
import redis

from config.host import Host
from config.store import keyspace, redis_client
from workers.console.sign_in.client_address import ClientAddress
from workers.console.sign_in.console_sessions import ATTEMPTS_MS, TOKEN_BYTES, take_once, token_digest

SIGN_IN_MS = 600_000
"""How long one may take at the provider."""

MAX_BEGUN = 300
"""Sign-ins that an address may begin within ATTEMPTS_MS, whoever they are: each takes room in Redis. (All who come by a trusted proxy:
see client_address.py.)"""


class OidcSignIn(msgspec.Struct, frozen=True, array_like=True):
    """A sign-in under way, as it is stored. `browser` is the digest of its browser's cookie; `nonce` must be in the ID token;
    `verifier` shows the provider that whoever has the code is who asked for it (PKCE, RFC 7636). `page` is where to go then."""

    issuer: str
    browser: str
    nonce: str
    verifier: str
    page: str


class BegunSignIn(msgspec.Struct, frozen=True):
    """`state` goes to the provider and comes back, `browser` is the cookie's."""

    state: str
    browser: str
    sign_in: OidcSignIn


class OidcSignIns:
    """The sign-ins under way in one Redis. Each method waits, and raises redis.RedisError."""

    def __init__(self, client: redis.Redis, host: Host) -> None:
        self._redis = client
        self._host = host

    def may_begin(self, client: ClientAddress) -> bool:
        """Count that somebody there wants to sign in; False if too many did. Who is refused is not counted: of a proxy's that would
        be room that others have."""
        limits = [
            (keyspace.console_begun_key(token_digest(name)), most)
            for name, most in client.counted_as(MAX_BEGUN)
        ]
        begun = redis_client.run_commands(self._redis, [("GET", key) for key, _ in limits])
        if any(int(count or 0) >= most for count, (_, most) in zip(begun, limits, strict=True)):
            return False
        counting = [
            command for key, _ in limits for command in (("INCRBY", key, 1), ("PEXPIRE", key, ATTEMPTS_MS))
        ]
        counted = redis_client.run_commands(self._redis, counting)[::2]
        return all(int(count) <= most for count, (_, most) in zip(counted, limits, strict=True))

    def begin(self, issuer: str, browser: str, page: str) -> BegunSignIn:
        """Begin one. `browser` is the token that its browser has of another sign-in, so that both can be finished, or empty."""
        browser = browser or self._host.token_hex(TOKEN_BYTES)
        state = self._host.token_hex(TOKEN_BYTES)
        sign_in = OidcSignIn(
            issuer,
            token_digest(browser),
            self._host.token_hex(TOKEN_BYTES),
            self._host.token_hex(TOKEN_BYTES),
            page,
        )
        stored = msgspec.msgpack.encode(sign_in)
        key = keyspace.console_sign_in_key(token_digest(state))
        redis_client.run_command(self._redis, ("SET", key, stored, "PX", SIGN_IN_MS))
        return BegunSignIn(state, browser, sign_in)

    def finish(self, issuer: str, state: str, browser: str) -> OidcSignIn | None:
        """Return the sign-in of `state`, which is over by that; None if there is none, it was finished, or is another browser's or
        another provider's. Of two who finish it at once, one has it."""
        stored = take_once(self._redis, keyspace.console_sign_in_key(token_digest(state)))
        if stored is None:
            return None
        try:
            sign_in = msgspec.msgpack.decode(stored, type=OidcSignIn)
        except msgspec.MsgspecError:
            return None
        return sign_in if (sign_in.browser, sign_in.issuer) == (token_digest(browser), issuer) else None
