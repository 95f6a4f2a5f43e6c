"""Who did or read what? One stream of all roles, which the archive keeps for good (`audit` there).

What reads people's data says so before it shows them: if Redis does not take it, nothing is read. No number is ever told: a
subject is a session, a survey, a letter, or a number's hash as logs have it.
"""

import os
import socket
from getpass import getuser
from typing import Any

import msgspec
import redis

from config.store import keyspace, redis_client
from config.store.function_calls import Command

_MAX_ENTRIES = 1_000_000
"""What waits for an archive that never comes is bounded."""


def audit_command(actor: str, action: str, subject: str, **detail: Any) -> Command:
    """The command that adds an entry: who (`operator ada@desk`, `key crm`), did what (`export`, `read results`), of what (a
    survey, a session, a sender's log hash; never a number), and what else matters, such as filters."""
    return (
        "XADD", keyspace.AUDIT_KEY, "MAXLEN", "~", _MAX_ENTRIES, "*",
        "actor", actor, "action", action, "subject", subject, "detail", msgspec.json.encode(detail),
    )  # fmt: skip


def record_operator(client: redis.Redis, action: str, subject: str, **detail: Any) -> None:
    """Tell of what the operator at this terminal does. Raises redis.RedisError."""
    redis_client.run_command(client, audit_command(f"operator {operator_name()}", action, subject, **detail))


def operator_name() -> str:
    """`user@host`; the number of a user who has no name."""
    try:
        user = getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
