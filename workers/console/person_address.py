"""How a person's page is called: by their number, hidden, so that no address, history or log shows it. The same number has the same
address, which a colleague can open; nobody makes one of a number or reads a number in one without the secret, which lies in Redis."""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

import falcon
import redis
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from config.host import Host
from config.store import keyspace
from config.store.stored_secret import get_or_set

_SECRET_BYTES = 32


class PersonAddresses:
    """Hides numbers, and finds them again (RFC 5297: one who changes a letter of an address finds nothing)."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESSIV(secret)

    def address_of(self, number: str) -> str:
        return urlsafe_b64encode(self._cipher.encrypt(number.encode(), None)).decode().rstrip("=")

    def number_at(self, address: str) -> str | None:
        """Return the number that is hidden in `address`, None if it is none of ours: what base64 reads as the same is not the same."""
        try:
            hidden = urlsafe_b64decode(address + "=" * (-len(address) % 4))
            number = self._cipher.decrypt(hidden, None).decode()
        except (binascii.Error, InvalidTag, ValueError):
            return None
        return number if self.address_of(number) == address else None

    def require_number(self, address: str) -> str:
        """Return the same; raises falcon.HTTPNotFound if it is none of ours."""
        number = self.number_at(address)
        if number is None:
            raise falcon.HTTPNotFound(description="This address leads to nobody. Search for the person.")
        return number


def open_person_addresses(client: redis.Redis, host: Host) -> PersonAddresses:
    """Take the secret from Redis; whoever comes first makes it. Raises redis.RedisError."""
    secret = get_or_set(client, keyspace.CONSOLE_SECRET_KEY, host.token_hex(_SECRET_BYTES))
    return PersonAddresses(bytes.fromhex(secret))


def mask_number(number: str) -> str:
    """Show of a number what tells two people apart on a screen, and reaches neither."""
    return f"{number[:3]}…{number[-2:]}" if len(number) > _SHORT else "…"


def hide_number(text: str, number: str) -> str:
    """The text with a person's number masked wherever it is in it."""
    masked = mask_number(number)
    return text.replace(number, masked).replace(number.removeprefix("+"), masked) if number else text


def hide_all_numbers(text: str) -> str:
    """The text with whatever may be a phone number masked, where nobody knows whose it is."""
    return _NUMBER_PATTERN.sub(lambda found: mask_number(found[0]), text)


_NUMBER_PATTERN = re.compile(r"\+?[0-9]{7,15}")
_SHORT = 6
