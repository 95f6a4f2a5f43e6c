"""A real web application on a free loopback port, in a thread."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread

import pytest
import uvicorn

from config.host import Host
from config.settings.settings import DEFAULT_SHARDS
from config.settings.startup_check import load_settings_and_surveys
from config.telemetry.watched_server import open_listening_socket
from ingest.connections import ConnectionLimits
from ingest.http_server import web_config
from ingest.web import create_app
from tests.support.waiting import HANG_S, free_port, until

START_S = 10


@contextmanager
def serving(app, port, limits=None) -> Iterator[str]:
    server = uvicorn.Server(web_config(app, limits or ConnectionLimits()))
    with open_listening_socket("web", "127.0.0.1", port, "PARLEY_PORT") as door:
        thread = Thread(target=server.run, args=([door],))
        thread.start()
        try:
            until(lambda: server.started, START_S, "the web application serves")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(HANG_S)


class WebClock:
    """What a web process takes for the time: `ahead_s` more than it is."""

    ahead_s = 0.0

    def wall_s(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def web_clock() -> WebClock:
    return WebClock()


@pytest.fixture
def web(valkey, tmp_path, web_clock) -> Iterator[Callable[..., str]]:
    """A function: settings' variables -> the base URL of a web process with them. Without any, it uses `valkey`."""
    with ExitStack() as stack:

        def start(**variables: str) -> str:
            port = free_port()
            own = {
                "PARLEY_PORT": str(port),
                "PARLEY_REDIS_URL": valkey.url,
                "PARLEY_BROKER_URL": valkey.broker_url,
                "PARLEY_ARCHIVE_URL": f"sqlite:///{tmp_path / 'archive.db'}",
                "PARLEY_SHARDS": str(
                    DEFAULT_SHARDS
                ),  # or what a test writes first would be taken for 0.1.0's
            }
            settings, surveys = load_settings_and_surveys({**own, **variables})
            return stack.enter_context(
                serving(create_app(settings, surveys, Host(wall_s=web_clock.wall_s)), port)
            )

        yield start
