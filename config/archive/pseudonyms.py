"""Who is it, without a number? A person's pseudonym: the same in everything that is read from one archive, and from no other.

The key is made once, by whoever first needs it, and is the archive's for good: no setting holds it, so that pseudonyms stay
as they are when secrets change. Who has the key can try all numbers, as with any hash of a number: it never leaves the
archive.
"""

from hashlib import blake2b
from secrets import token_bytes

from sqlalchemy import Connection, select

from config.archive import tables
from config.archive.database import ArchiveDatabase, dialect_insert

_KEY_NAME = "pseudonym_key"
_KEY_BYTES = 32
_PSEUDONYM_BYTES = 16
"""128 bits: among a billion people, two that are alike are as good as impossible."""


class Pseudonyms:
    """Names people by a keyed hash of their number."""

    def __init__(self, key: bytes) -> None:
        self._keyed = blake2b(key=key, digest_size=_PSEUDONYM_BYTES, person=b"parley.person")

    def of(self, sender: str) -> str:
        """The pseudonym of a number: 32 hex digits."""
        hashed = self._keyed.copy()
        hashed.update(sender.encode())
        return hashed.hexdigest()


def read_pseudonyms(database: ArchiveDatabase) -> Pseudonyms:
    """The archive's pseudonyms; makes their key if there is none yet."""
    with database.reading() as connection:
        key = read_pseudonym_key(connection)
    return Pseudonyms(key or _make_key(database))


def read_pseudonym_key(connection: Connection) -> bytes:
    """The archive's key; empty if nobody has made it yet."""
    table = tables.deployment.c
    return connection.execute(select(table.value).where(table.name == _KEY_NAME)).scalar() or b""


def _make_key(database: ArchiveDatabase) -> bytes:
    """Make the key. If somebody else has done so at the same moment, it is theirs."""
    with database.writing() as connection:
        insert = dialect_insert(connection, tables.deployment).on_conflict_do_nothing()
        connection.execute(insert, {"name": _KEY_NAME, "value": token_bytes(_KEY_BYTES)})
        return read_pseudonym_key(connection)
