"""How `web` listens: how many files it may have open, and uvicorn with connections that are bounded."""

import resource

import msgspec
import structlog
import uvicorn

from config.telemetry.watched_server import server_config
from ingest.connections import ConnectionLimits, ConnectionWatch
from ingest.webhooks.fast_path import AsgiApp

log = structlog.get_logger()

FILES_PER_CONNECTION = 2
"""Itself, and one to Redis while it is being answered."""

RESERVED_FILES = 100
"""What the process has open beside its connections, at the most."""


def web_config(app: AsgiApp, limits: ConnectionLimits) -> uvicorn.Config:
    """uvicorn's configuration, with connections that are bounded. What strangers do wrong is counted, and not logged."""
    return server_config(app, http=ConnectionWatch(limits).protocol)


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
