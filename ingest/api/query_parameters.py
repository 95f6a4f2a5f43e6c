"""Reads a request's query: every parameter that is wrong is told, with what was expected."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TypeVar

from falcon.asgi import Request

from engine.model.errors import ParleyError
from engine.model.suggestions import expected_instead
from ingest.api.problems import ApiError

MAX_PARAMETER_LENGTH = 1_000
MAX_REPEATED = 50
"""Values of a parameter that may be repeated."""

T = TypeVar("T")


class QueryParameters:
    """The parameters of one request. What is read and is wrong is gathered; `require_valid` raises it."""

    def __init__(self, req: Request, known: Sequence[str]) -> None:
        self._problems: list[str] = []
        self._written: dict[str, list[str]] = {}
        for name, value in req.params.items():
            if name not in known:
                self._problems.append(f"no such parameter, {name[:100]}{expected_instead(name, known)}")
                continue
            values = value if isinstance(value, list) else [value]
            self._written[name] = [each for each in values if self._is_usable(name, each)]

    def require_valid(self) -> None:
        """Raise the ApiError (400) of all that is wrong."""
        if self._problems:
            raise ApiError(HTTPStatus.BAD_REQUEST, "wrong parameters", "; ".join(self._problems))

    def many(self, name: str, read: Callable[[str], T]) -> list[T]:
        """The values of a parameter that may be repeated. `read` raises ParleyError for one that is wrong."""
        written = self._written.get(name, [])
        if len(written) > MAX_REPEATED:
            self._problems.append(f"{name}: expected it {MAX_REPEATED} times at the most")
            return []
        found = []
        for each in written:
            try:
                found.append(read(each))
            except ParleyError as e:
                self._problems.append(f"{name}: {e}")
        return found

    def one(self, name: str, read: Callable[[str], T], fallback: T) -> T:
        """The value of a parameter that may be there once."""
        if len(self._written.get(name, [])) > 1:
            self._problems.append(f"{name}: expected it once")
            return fallback
        found = self.many(name, read)
        return found[0] if found else fallback

    def whole(self, name: str, least: int, most: int, fallback: int) -> int:
        """A whole number within bounds."""

        def read_whole(written: str) -> int:
            if not (written.isascii() and written.isdigit() and least <= int(written[:9]) <= most):
                raise InvalidParameterError(f"expected a whole number from {least} to {most}")
            return int(written)

        return self.one(name, read_whole, fallback)

    def _is_usable(self, name: str, written: str) -> bool:
        if not written or len(written) > MAX_PARAMETER_LENGTH or "\0" in written:
            self._problems.append(
                f"{name}: expected 1 to {MAX_PARAMETER_LENGTH} characters, none of them NUL"
            )
            return False
        return True


class InvalidParameterError(ParleyError):
    """A parameter's value is wrong. The message says what was expected."""


def choose_from(known: Sequence[str]) -> Callable[[str], str]:
    """A reader of a word that is one of those `known`."""

    def read_choice(written: str) -> str:
        if written not in known:
            raise InvalidParameterError(
                f"there is no {written[:100]}{expected_instead(written, known, ' or ')}"
            )
        return written

    return read_choice
