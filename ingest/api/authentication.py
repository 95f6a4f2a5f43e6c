"""Authenticates requests to the API by the keys of parley.toml, and limits how often each key is used, and for what.

Keys are stored as SHA-256. Every key is compared, in constant time, whether or not one matches.
"""

import math
from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest
from http import HTTPStatus

from falcon.asgi import Request

from config.settings.channels import ApiKey
from config.store import keyspace
from config.store.function_calls import function_call
from config.store.server_functions import TakeTokens
from ingest.api.problems import ApiError
from ingest.intake.mailboxes import AsyncRedisClient, RedisUnavailableError

_BEARER_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="parley"'}


class ApiAuthenticator:
    def __init__(self, keys: Sequence[ApiKey], lanes: AsyncRedisClient) -> None:
        self._keys = keys
        self._lanes = lanes

    async def authenticate_writer(self, req: Request) -> ApiKey:
        """As `authenticate`, for a request that changes something. Raises ApiError (403 too) for a key that only reads."""
        key = await self.authenticate(req)
        if key.read_only:
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "the key only reads",
                f"the key {key.name} is read_only: it may neither invite nor cancel",
            )
        return key

    async def authenticate(self, req: Request) -> ApiKey:
        """Return the key that was shown, if it may be used now. Raises ApiError (401 or 429), and
        RedisUnavailableError."""
        key = self._presented_key(req.get_header("Authorization") or "")
        if key.requests_per_minute and not await self._within_rate(key):
            wait_s = math.ceil(60 / key.requests_per_minute)
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many requests",
                f"the key {key.name} allows {key.requests_per_minute} a minute: "
                "many invitations fit into one request",
                headers={"Retry-After": str(wait_s)},
            )
        return key

    def _presented_key(self, authorization: str) -> ApiKey:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise ApiError(
                HTTPStatus.UNAUTHORIZED,
                "no key",
                "expected the header `Authorization: Bearer <key>`; `parley key` makes one",
                headers=_BEARER_CHALLENGE,
            )
        digest = sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        fitting = [key for key in self._keys if compare_digest(key.sha256, digest)]
        if not fitting:
            raise ApiError(
                HTTPStatus.UNAUTHORIZED,
                "wrong key",
                "no key of this deployment is this one",
                headers=_BEARER_CHALLENGE,
            )
        return fitting[0]

    async def _within_rate(self, key: ApiKey) -> bool:
        """Whether the key may be used once more. It may while the one server of a cluster that counts it is away: what it asks for
        can lie on the others."""
        rate = key.requests_per_minute
        bucket = keyspace.request_bucket_key(key.name)
        call = TakeTokens(bucket=bucket, rate_per_s=rate / 60, burst=rate, wanted=1)
        (granted,) = await self._lanes.try_commands([function_call(call)])
        return isinstance(granted, RedisUnavailableError) or bool(granted)
