"""`python -m ingest`: the `web` process, from the environment alone, until SIGTERM or SIGINT."""

import gc
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import redis
import structlog

from config.settings.settings import Settings, exit_on_config_error
from config.settings.startup_check import load_settings_and_surveys
from config.telemetry import process_registry
from config.telemetry.hot_reload import RELOAD_INTERVAL_S, SurveyReloader
from config.telemetry.logs import configure_logging
from config.telemetry.periodic_task import run_periodically
from config.telemetry.supervision import LoopRounds, supervised
from config.telemetry.watched_server import WatchedServer, end_when_told, open_listening_socket
from config.telemetry.zero_counters import begin_at_zero
from engine.proofs.survey_loader import ReloadResult
from engine.surveys.survey_registry import SurveyRegistry
from ingest.connections import ConnectionLimits
from ingest.http_server import fit_to_file_limit, web_config
from ingest.intake.server_guard import check_lanes_server
from ingest.web import create_app
from ingest.webhooks.fast_path import AsgiApp

log = structlog.get_logger()


def tune_garbage_collector() -> None:
    """Freeze everything that is loaded by now, and let the garbage collector run rarely: a request leaves few
    cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def run_web_server(settings: Settings, surveys: SurveyRegistry, app: AsgiApp) -> None:
    limits = fit_to_file_limit(ConnectionLimits(connections=settings.web_connections))
    with ExitStack() as stack:
        doors = list(map(stack.enter_context, _open_doors(settings)))
        log.info("running", role="web", host=settings.host, port=settings.port)
        tune_garbage_collector()
        end_when_told()
        rounds = LoopRounds()
        with (
            supervised(rounds),
            process_registry.send_heartbeats(settings.redis_url, "web"),
            run_periodically(survey_reloader(settings, surveys).check_folder, RELOAD_INTERVAL_S, "surveys"),
        ):
            WatchedServer(web_config(app, limits), rounds.went_round).run(sockets=doors)


def _open_doors(settings: Settings) -> Iterator[socket.socket]:
    """One for everybody, and one more for metrics if they have a port of their own. Ends the process with a sentence if one cannot be
    had."""
    ports = {"PARLEY_PORT": settings.port, "PARLEY_METRICS_PORT": settings.metrics_port}
    with exit_on_config_error():
        for name, port in ports.items():
            if port:
                yield open_listening_socket("web", settings.host, port, f"PARLEY_HOST and {name}")


def survey_reloader(settings: Settings, surveys: SurveyRegistry) -> SurveyReloader:
    """Return a reloader that keeps `surveys` as the folder of survey files has them. Stores no versions in Redis: `web`
    opens no session."""

    def apply_reload(result: ReloadResult) -> None:
        surveys.replace_current(result.current)

    return SurveyReloader(settings.surveys, surveys, settings.offered_surveys, apply_reload)


def main() -> None:
    with exit_on_config_error():
        settings, surveys = load_settings_and_surveys()
        settings.require_redis()
        configure_logging(settings)
        begin_at_zero("web", settings)
        with suppress(redis.RedisError):  # it is away, and looked at as soon as it is back
            settings = check_lanes_server(settings)
        app = create_app(settings, surveys)
    run_web_server(settings, surveys, app)


if __name__ == "__main__":
    main()
