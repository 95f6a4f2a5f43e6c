"""How `web` listens: its sockets, how many files it may have open, and uvicorn as it is set up."""

import asyncio
import resource
import socket
import sys
from collections.abc import Callable
from typing import cast

import msgspec
import structlog
import uvicorn

from ingest.connections import ConnectionLimits, ConnectionWatch
from ingest.webhooks.fast_path import AsgiApp

log = structlog.get_logger()

LISTEN_BACKLOG = 2_048
SHUTDOWN_TIMEOUT_S = 3
"""How long requests may take to finish once the process is told to stop."""

FILES_PER_CONNECTION = 2
"""Itself, and one to Redis while it is being answered."""

RESERVED_FILES = 100
"""What the process has open beside its connections, at the most."""


def open_listening_socket(host: str, port: int, setting: str = "PARLEY_PORT") -> socket.socket:
    """A listening socket, or the process's end with a sentence. Several processes may share a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG, reuse_port=True)
    except OSError as e:
        sys.exit(f"web cannot listen on {host}, port {port} ({e.strerror}): set PARLEY_HOST and {setting}")


class WebServer(uvicorn.Server):
    """uvicorn, which calls `went_round` many times a second as long as its event loop goes round."""

    def __init__(self, configuration: uvicorn.Config, went_round: Callable[[], None]) -> None:
        super().__init__(configuration)
        self._went_round = went_round

    async def on_tick(self, counter: int) -> bool:
        self._went_round()
        return await super().on_tick(counter)


def server_config(app: AsgiApp, limits: ConnectionLimits) -> uvicorn.Config:
    """uvicorn's configuration. What strangers do wrong is counted, and not logged."""
    return uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], ConnectionWatch(limits).protocol),
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )


def fit_to_file_limit(limits: ConnectionLimits) -> ConnectionLimits:
    """Let the process open as many files as its connections need, as far as it may; with fewer, it has fewer of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections * FILES_PER_CONNECTION + RESERVED_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    fitting = connections_within(allowed)
    if fitting < limits.connections:
        log.warning("fewer connections: the limit of open files is low", connections=fitting, files=allowed)
    return msgspec.structs.replace(limits, connections=min(fitting, limits.connections))


def connections_within(files: int) -> int:
    """How many connections a process may have that may open so many files."""
    return max(1, (files - RESERVED_FILES) // FILES_PER_CONNECTION)
