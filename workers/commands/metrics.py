"""`parley metrics`: what `web` publishes at /metrics, for a machine that runs no `web`."""

import os
import signal
import sys
from queue import SimpleQueue

import click
from prometheus_client import start_http_server

from config.telemetry.exposition import MetricsExposition
from config.telemetry.library_internals import FOLDER_VARIABLE
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.terminal import open_console
from workers.commands.connect import read_settings_in_use


@click.command()
@click.option("--port", default=9108, show_default=True, type=click.IntRange(1, 65_535), help="Listen on it.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address.")
@click.option("--once", is_flag=True, help="Print the metrics and end.")
def metrics(port: int, host: str, *, once: bool) -> None:
    """Serve this machine's metrics to Prometheus, until Ctrl-C or SIGTERM.

    `web` serves the same at /metrics: this is for machines that run other processes only. What those have counted is
    in PROMETHEUS_MULTIPROC_DIR, which must be the same for all of them; without it, only what lies in Redis is told.

    \b
    Example:
      PROMETHEUS_MULTIPROC_DIR=/run/parley parley metrics --host 0.0.0.0
      parley metrics --once | grep dead_letters
    """
    exposition = MetricsExposition(read_settings_in_use(os.environ))
    if once:
        sys.stdout.write(exposition.text().decode())
    else:
        _serve_metrics(exposition, host, port)
    exposition.close()


def _serve_metrics(exposition: MetricsExposition, host: str, port: int) -> None:
    console = open_console(stderr=True, soft_wrap=True)
    # unlike an Event, a handler may use it whatever its thread does
    stop_requests: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: stop_requests.put(number))
    try:
        server, thread = start_http_server(port, host, exposition.registry)
    except OSError as e:
        console.print(
            f"parley metrics cannot listen on {host}, port {port} ({e.strerror}): use --host, --port"
        )
        sys.exit(EXIT_PROBLEMS)
    if not os.environ.get(FOLDER_VARIABLE):
        console.print(f"{FOLDER_VARIABLE} is not set: only what lies in Redis is told", style="yellow")
    console.print(f"metrics at http://{host}:{port}/metrics")
    stop_requests.get()
    server.shutdown()
    thread.join()
