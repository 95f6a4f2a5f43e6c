"""Who has signed in to the console? Sessions and one-time links, kept in Redis, so that any `console` process knows them and any
of them can be revoked.

Redis has digests of tokens alone: who reads it signs in as nobody. A session ends when nobody has used it for IDLE_MS, after
MAX_MS anyway, and at once if another browser shows its token: a cookie alone is not the session.
"""

from hashlib import sha256
from typing import Literal

import msgspec
import redis

from config.host import Host
from config.settings.console_settings import ConsoleRole, ConsoleSettings
from config.store import keyspace, redis_client
from config.store.function_calls import Command
from workers.console.sign_in.client_address import ClientAddress

IDLE_MS = 3_600_000
MAX_MS = 12 * 3_600_000
LINK_MS = 600_000
"""How long a link may be used."""

SEEN_AGAIN_MS = 60_000
"""A session that is in use is written so often, at the most."""

ATTEMPTS_MS, MAX_ATTEMPTS = 300_000, 20
"""What an address may get wrong in that time; of all who come by a trusted proxy see client_address.py."""

TOKEN_BYTES = 32

SignInWay = Literal["link", "proxy"]


class ConsoleUser(msgspec.Struct, frozen=True):
    """Someone who has signed in."""

    name: str
    roles: tuple[ConsoleRole, ...]

    def may(self, role: ConsoleRole) -> bool:
        """Whoever may act or see numbers may look too."""
        return role == "viewer" or role in self.roles


class ConsoleSession(msgspec.Struct, frozen=True, array_like=True):
    """A session as it is stored. `browser` is a digest of what its browser says of itself. Times are this machine's ms."""

    user: ConsoleUser
    browser: str
    opened_at: int
    seen_at: int

    def is_over(self, now: int) -> bool:
        return now - self.seen_at > IDLE_MS or now - self.opened_at > MAX_MS


class ConsoleSessions:
    """The sessions, links and attempts in one Redis. Each method raises redis.RedisError."""

    def __init__(self, client: redis.Redis, host: Host) -> None:
        self._redis = client
        self._host = host

    def make_link(self, user: ConsoleUser) -> str:
        """Return the token of a link by which one browser signs in as `user`, once, within LINK_MS."""
        token = self._host.token_hex(TOKEN_BYTES)
        key = keyspace.console_link_key(token_digest(token))
        redis_client.run_command(self._redis, ("SET", key, msgspec.msgpack.encode(user), "PX", LINK_MS))
        return token

    def use_link(self, token: str) -> ConsoleUser | None:
        """Return whom the link is for, and end it; None if it is over, was used, or never was. Of two who use it at once, one has
        it; who loses the reply needs another."""
        stored = take_once(self._redis, keyspace.console_link_key(token_digest(token)))
        if stored is None:
            return None
        return msgspec.msgpack.decode(stored, type=ConsoleUser)

    def open(self, user: ConsoleUser, browser: str) -> str:
        """Open a session of `browser` for `user`, and return its token."""
        token, now = self._host.token_hex(TOKEN_BYTES), self._host.wall_ms()
        stored = msgspec.msgpack.encode(ConsoleSession(user, token_digest(browser), now, now))
        redis_client.run_commands(
            self._redis,
            [
                ("SET", keyspace.console_session_key(token_digest(token)), stored, "PX", IDLE_MS),
                ("ZADD", keyspace.CONSOLE_SESSIONS_KEY, now, token_digest(token)),
                ("PEXPIRE", keyspace.CONSOLE_SESSIONS_KEY, MAX_MS),
            ],
        )
        return token

    def find(self, token: str, browser: str) -> ConsoleSession | None:
        """Return the session that is `token`'s, which is in use now; None if it is over or `browser` is not its own: then nobody
        has it any more."""
        digest, now = token_digest(token), self._host.wall_ms()
        key = keyspace.console_session_key(digest)
        session = _decode_session(redis_client.run_command(self._redis, ("GET", key)))
        if session is None:
            return None
        if session.is_over(now) or session.browser != token_digest(browser):
            self.revoke(digest)
            return None
        if now - session.seen_at > SEEN_AGAIN_MS:
            session = msgspec.structs.replace(session, seen_at=now)
            stored = msgspec.msgpack.encode(session)
            # XX: one that was revoked meanwhile stays so
            redis_client.run_command(self._redis, ("SET", key, stored, "PX", IDLE_MS, "XX"))
        return session

    def close(self, token: str) -> None:
        self.revoke(token_digest(token))

    def revoke(self, digest: str) -> bool:
        """End the session that `list_open` names so; False if there is none."""
        gone, _ = redis_client.run_commands(
            self._redis,
            [
                ("DEL", keyspace.console_session_key(digest)),
                ("ZREM", keyspace.CONSOLE_SESSIONS_KEY, digest),
            ],
        )
        return bool(gone)

    def list_open(self) -> list[tuple[str, ConsoleSession]]:
        """The open sessions, each with the name by which it is revoked, the newest first. Those that are over go."""
        digests = [
            each.decode()
            for each in redis_client.run_command(
                self._redis, ("ZRANGE", keyspace.CONSOLE_SESSIONS_KEY, 0, -1, "REV")
            )
        ]
        if not digests:
            return []
        keys = [keyspace.console_session_key(digest) for digest in digests]
        stored = redis_client.run_command(self._redis, ("MGET", *keys))
        found = zip(digests, map(_decode_session, stored), strict=True)
        alive = [(digest, each) for digest, each in found if each and not each.is_over(self._host.wall_ms())]
        if over := set(digests) - {digest for digest, _ in alive}:
            redis_client.run_command(self._redis, ("ZREM", keyspace.CONSOLE_SESSIONS_KEY, *over))
        return alive

    def count_attempt(self, client: ClientAddress) -> None:
        """Count that somebody there got something wrong."""
        commands: list[Command] = []
        for name, _ in client.counted_as(MAX_ATTEMPTS):
            key = keyspace.console_attempts_key(token_digest(name))
            commands += [("INCRBY", key, 1), ("PEXPIRE", key, ATTEMPTS_MS)]
        redis_client.run_commands(self._redis, commands)

    def may_attempt(self, client: ClientAddress) -> bool:
        limits = client.counted_as(MAX_ATTEMPTS)
        counted = redis_client.run_commands(
            self._redis,
            [("GET", keyspace.console_attempts_key(token_digest(name))) for name, _ in limits],
        )
        return all(int(count or 0) < most for count, (_, most) in zip(counted, limits, strict=True))


def sign_in_url(settings: ConsoleSettings, token: str) -> str:
    """Where the link of this token leads."""
    return f"{settings.base_url}/sign-in?link={token}"


def take_once(client: redis.Redis, key: str) -> bytes | None:
    """Return what is stored there, and end it; None if there is nothing. Of two who take it at once, one has it. Raises
    redis.RedisError."""
    stored: bytes | None = redis_client.run_command(client, ("GET", key))
    if stored is None or not redis_client.run_command(client, ("DEL", key)):
        return None
    return stored


def token_digest(token: str) -> str:
    """Return what Redis has in place of a token."""
    return sha256(token.encode()).hexdigest()


def _decode_session(stored: bytes | None) -> ConsoleSession | None:
    if stored is None:
        return None
    try:
        return msgspec.msgpack.decode(stored, type=ConsoleSession)
    except msgspec.MsgspecError:
        return None
