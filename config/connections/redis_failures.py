"""What is the matter with a Redis that did not do what was asked: is it silent, full, does it take no writes, or does it refuse us?

What to do is another thing for each, so nobody is told that it "does not answer" who got an answer.
"""

from typing import Literal, get_args

import redis

FailureKind = Literal["silent", "full", "read_only", "refused"]

FAILURE_CLAUSES: dict[FailureKind, str] = {
    "silent": "does not answer",
    "full": "is full",
    "read_only": "takes no writes",
    "refused": "refuses us",
}
"""What follows "Redis"."""

_PREFIXES: dict[FailureKind, tuple[str, ...]] = {
    "full": ("OOM ",),
    "read_only": ("READONLY ", "MISCONF ", "NOREPLICAS "),
    "refused": ("NOAUTH ", "WRONGPASS ", "NOPERM ", "DENIED "),
}
"""Of what a server says. Some of redis-py's errors have lost theirs, and are known by their class."""

_CLASSES: dict[FailureKind, tuple[type[Exception], ...]] = {
    "full": (redis.exceptions.OutOfMemoryError,),
    "read_only": (redis.exceptions.ReadOnlyError,),
    "refused": (
        redis.exceptions.AuthenticationError,
        redis.exceptions.AuthorizationError,
        redis.exceptions.NoPermissionError,
    ),
}


def failure_kind(error: BaseException | None) -> FailureKind:
    """Return what an error says of the server, itself or by what it was raised from."""
    while error is not None:
        for kind in get_args(FailureKind):
            if isinstance(error, _CLASSES.get(kind, ())) or _says(error, kind):
                return kind  # type: ignore[no-any-return]
        error = error.__cause__ or error.__context__
    return "silent"


def failure_clause(error: BaseException) -> str:
    """`does not answer`, `is full`."""
    return FAILURE_CLAUSES[failure_kind(error)]


def _says(error: BaseException, kind: FailureKind) -> bool:
    return isinstance(error, redis.RedisError) and any(
        prefix in f"{error} " for prefix in _PREFIXES.get(kind, ())
    )
