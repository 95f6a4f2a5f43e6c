"""What does a server say to whoever has just connected? Nothing, unless it turns everybody away: in protected mode, or as it has as many
clients as it may. It closes the connection then, so that a client which asks something at once sees no more than that."""

import socket
from contextlib import suppress

import redis

GREETING_TIMEOUT_S = 0.3


def read_greeting(client: redis.Redis) -> str:
    """The error with which the client's server turns everybody away, empty if it does not. Only of a server that is reached by host
    and port, without TLS."""
    options = (getattr(client, "connection_pool", None) and client.connection_pool.connection_kwargs) or {}
    if "host" not in options or "ssl_cert_reqs" in options:
        return ""
    with (
        suppress(OSError),
        socket.create_connection(
            (options["host"], options.get("port", 6379)), GREETING_TIMEOUT_S
        ) as connection,
    ):
        connection.settimeout(GREETING_TIMEOUT_S)
        said = connection.recv(4_096).decode(errors="replace")
        return said[1:].strip() if said.startswith("-") else ""
    return ""
