"""How `web` and `console` listen, are watched, and end: uvicorn as it is set up."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from config.settings.config_errors import ConfigError

LISTEN_BACKLOG = 2_048
SHUTDOWN_TIMEOUT_S = 3
"""How long requests may take to finish once the process is told to stop."""


class WatchedServer(uvicorn.Server):
    """uvicorn, which calls `went_round` many times a second as long as its event loop goes round; and `stop_streams` as soon as it
    is told to stop, before it waits for requests: a stream would never end."""

    def __init__(
        self,
        configuration: uvicorn.Config,
        went_round: Callable[[], None],
        stop_streams: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(configuration)
        self._went_round = went_round
        self._stop_streams = stop_streams

    async def on_tick(self, counter: int) -> bool:
        self._went_round()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._stop_streams is not None:
            self._stop_streams()
            await asyncio.sleep(0)
        await super().shutdown(sockets)


def server_config(app: Any, http: Any = "httptools", limit_concurrency: int | None = None) -> uvicorn.Config:
    """uvicorn's configuration. What strangers do wrong is not logged; no header of a proxy is believed."""
    return uvicorn.Config(
        app,
        http=http,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=limit_concurrency,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
    )


def open_listening_socket(role: str, host: str, port: int, settings: str) -> socket.socket:
    """A listening socket; several processes may share a port. Raises ConfigError, naming the `settings` that say where, if it cannot
    be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG, reuse_port=True)
    except OSError as e:
        raise ConfigError(
            [f"{role} cannot listen on {host}, port {port} ({e.strerror}): set {settings}"]
        ) from e


def end_when_told() -> None:
    """Let SIGTERM and SIGINT end the process in peace: uvicorn raises them again once all is done."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: sys.exit(0))
