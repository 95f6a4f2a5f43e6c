"""The line `console` of the Procfile: a process that shows the deployment in a browser. Without a port it waits to be stopped."""

import structlog

from config.settings.config_errors import ConfigError
from config.telemetry import process_registry
from config.telemetry.supervision import LoopRounds
from engine.model.extras import MissingExtraError, import_extra
from workers.console.console_server import serve_console
from workers.roles.worker_process import StopSignal, keep_surveys_current, open_deployment, supervised_process

log = structlog.get_logger()


def run() -> None:
    deployment = open_deployment("console")
    settings = deployment.settings.console
    rounds = LoopRounds()
    with (
        supervised_process(deployment.settings, rounds),
        process_registry.send_heartbeats(deployment.settings.redis_url, "console"),
        keep_surveys_current(deployment),
    ):
        if not settings.port:
            log.info("running", role="console", port=0)
            StopSignal(rounds.went_round).wait()  # a line of the Procfile stays
            return
        try:
            web = import_extra("workers.console.console_app", "console", "the console")
            app = web.create_console(deployment)
        except MissingExtraError as e:
            raise ConfigError([f"{e}, or set PARLEY_CONSOLE_PORT=0"]) from e
        serve_console(settings, app.asgi, rounds.went_round, app.stop_streams)
