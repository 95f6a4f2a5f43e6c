"""`python -m ingest`: the `web` process, from the environment alone, until SIGTERM or SIGINT."""

import gc
import os
import signal
import socket
import sys
from functools import partial

import structlog
import uvicorn

from config.settings.settings import Settings, exit_with_mistakes, load
from config.telemetry import process_registry
from config.telemetry.hot_reload import LOOK_S, Watch, repeatedly
from config.telemetry.logs import configure
from engine.proofs.survey_loader import Reread, read_surveys, reread_surveys
from engine.providers.provider_registry import mistakes
from engine.surveys.survey_registry import Surveys
from ingest.web import create_app
from ingest.webhooks.fast_path import FrontDoor

log = structlog.get_logger()

BACKLOG = 2_048
STOP_S = 3
"""How long requests may take to finish once the process is told to stop."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, or the process's end with a sentence. Several processes may share a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=True)
    except OSError as e:
        sys.exit(f"web cannot listen on {host}, port {port} ({e.strerror}): set PARLEY_HOST and PARLEY_PORT")


def collect_seldom() -> None:
    """What is loaded by now stays, so the collector need not look at it; a request leaves few cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def serve(settings: Settings, surveys: Surveys, app: FrontDoor) -> None:
    with listen(settings.host, settings.port) as door:
        log.info("running", role="web", host=settings.host, port=settings.port)
        config = uvicorn.Config(
            app,
            http="httptools",
            loop="uvloop",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
        )
        collect_seldom()
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises it again once all is done
            signal.signal(number, lambda _number, _frame: sys.exit(0))
        with (
            process_registry.enlisted(settings.redis_url, "web"),
            repeatedly(live_surveys(settings, surveys).look, LOOK_S, "surveys"),
        ):
            uvicorn.Server(config).run(sockets=[door])


def live_surveys(settings: Settings, surveys: Surveys) -> Watch[Reread]:
    """Whoever keeps `surveys` as their folder has them. No session is opened here, so no version is told to others."""
    reread = partial(reread_surveys, running=surveys, needed=settings.offered)
    return Watch(settings.surveys, reread, lambda reread: surveys.replace(reread.current))


def main() -> None:
    with exit_with_mistakes():
        settings, surveys = load(os.environ, read_surveys, mistakes)
        settings.require_redis()
        app = create_app(settings, surveys)
    configure(settings)
    serve(settings, surveys, app)


if __name__ == "__main__":
    main()
