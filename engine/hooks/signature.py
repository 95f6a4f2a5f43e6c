"""How does an endpoint know that it was us? A request is signed as Standard Webhooks says.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from engine.model.errors import ParleyError

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

_PREFIX = "whsec_"
_LEAST_BYTES, _MOST_BYTES = 24, 64
_BATCH_ID_BYTES = 16


class InvalidSecretError(ParleyError):
    """A text is no secret of a webhook. The error does not show it."""


class WebhookSecret:
    """A key that signs. It does not show itself."""

    def __init__(self, key: bytes) -> None:
        if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
            raise InvalidSecretError(
                f"it holds {len(key)} bytes, and a secret has {_LEAST_BYTES} to {_MOST_BYTES}; "
                f"{_HOW_TO_MAKE_ONE}"
            )
        self._key = key

    def __repr__(self) -> str:
        return "WebhookSecret()"

    def sign(self, message: bytes) -> str:
        return f"v1,{b64encode(hmac.digest(self._key, message, 'sha256')).decode()}"


_HOW_TO_MAKE_ONE = f"`echo {_PREFIX}$(openssl rand -base64 32)` makes one"


def parse_secret(text: str) -> WebhookSecret:
    """Read `whsec_` and base64 (RFC 4648, section 4; its padding may be missing) of 24 to 64 bytes. Raises
    InvalidSecretError."""
    if not text:
        raise InvalidSecretError(f"it is empty; {_HOW_TO_MAKE_ONE}")
    if text != text.strip():
        raise InvalidSecretError("there is white space around it: remove it")
    if not text.startswith(_PREFIX):
        raise InvalidSecretError(f"it does not begin with {_PREFIX}; {_HOW_TO_MAKE_ONE}")
    encoded = text.removeprefix(_PREFIX).rstrip("=")
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        # `from None`: the cause may show what it could not read
        raise InvalidSecretError(
            f"what follows {_PREFIX} is no base64 (letters, digits, + and /); {_HOW_TO_MAKE_ONE}"
        ) from None
    return WebhookSecret(key)


def sign_message(
    secrets: Sequence[WebhookSecret], message_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """The headers of a request with this body. While a secret is replaced by another there are two: a signature by each."""
    message = b"%b.%d.%b" % (message_id.encode(), timestamp_s, body)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: " ".join(secret.sign(message) for secret in secrets),
    }


def batch_id(event_ids: Iterable[str]) -> str:
    """The id of the message that brings these events: the same whenever it brings the same, in the same order."""
    hashed = blake2b(digest_size=_BATCH_ID_BYTES, person=b"parley batch")
    for each in event_ids:
        hashed.update(each.encode() + b"\0")
    return hashed.hexdigest()
