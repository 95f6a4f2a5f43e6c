"""How `console` listens until it is told to stop; the streams of those who look end at once then."""

from collections.abc import Callable

import falcon.asgi
import structlog
from falcon.asgi import Request, Response

from config.settings.console_settings import ConsoleSettings
from config.telemetry.watched_server import (
    WatchedServer,
    end_when_told,
    open_listening_socket,
    server_config,
)

log = structlog.get_logger()

MAX_CONNECTIONS = 512
"""At once: a browser has one for the stream, and a few more."""

_WHERE = "PARLEY_CONSOLE_HOST and PARLEY_CONSOLE_PORT"


def serve_console(
    settings: ConsoleSettings,
    app: falcon.asgi.App[Request, Response],
    went_round: Callable[[], None],
    stop_streams: Callable[[], None],
) -> None:
    """Listen until SIGTERM or SIGINT. Raises ConfigError if the port cannot be had."""
    with open_listening_socket("console", settings.host, settings.port, _WHERE) as door:
        log.info("running", role="console", host=settings.host, port=settings.port)
        end_when_told()
        configuration = server_config(app, limit_concurrency=MAX_CONNECTIONS)
        WatchedServer(configuration, went_round, stop_streams).run(sockets=[door])
