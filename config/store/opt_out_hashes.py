"""By what is a person in the list of opt-outs? By a hash of their number, under a key that comes of a secret: PARLEY_OPTOUT_KEY, or
the one that is kept in Redis. Whoever reads the list without it learns no number."""

from hashlib import blake2b


class OptOutHashes:
    """Hashes under the key that comes of a secret."""

    def __init__(self, secret: str) -> None:
        self.key = blake2b(secret.encode(), digest_size=32, person=b"parley opt-outs").digest()
        self._number = blake2b(digest_size=16, key=self.key, person=b"parley number")

    @property
    def fingerprint(self) -> str:
        """Return a fingerprint of the key, from which the key cannot be derived."""
        return blake2b(key=self.key, digest_size=8, person=b"parley check").hexdigest()

    def of_number(self, sender: str) -> str:
        hashed = self._number.copy()
        hashed.update(sender.encode())
        return hashed.hexdigest()
