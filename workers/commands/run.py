"""`parley run`: all of Parley on one machine, the Procfile's lines under honcho, with a server if there is none.

A line that ends is started again, as a supervisor would in production; one that finds a mistake in the
configuration (exit status 2) is not.
"""

import os
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import click
import requests
from honcho.environ import parse_procfile
from honcho.manager import Manager
from rich.console import Console
from rich.text import Text

from config.connections.redis_url import default_broker_url
from config.settings.channels import Channel
from config.settings.settings import (
    Settings,
    exit_on_config_error,
)
from config.settings.startup_check import load_settings_and_surveys
from config.telemetry.library_internals import FOLDER_VARIABLE
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.terminal import open_console
from workers.commands.connect import url_without_credentials
from workers.runtime.embedded_redis import EmbeddedServerError, run_embedded_server

PROCFILE = Path(__file__).parents[2] / "Procfile"

READY_TIMEOUT_S = 60.0

_RESTART_LOOP = """
while :; do
  {command}
  status=$?
  [ $status -eq 2 ] && exit 2
  echo "ended with status $status; starting it again"
  sleep 1
done
"""


@click.command()
def run() -> None:
    """Run all of Parley on this machine, until Ctrl-C.

    Starts an embedded Valkey unless PARLEY_REDIS_URL is set, then the processes in the Procfile.

    \b
    Example:
      parley run
      PARLEY_PORT=9000 PARLEY_REDIS_URL=redis://localhost:6379/0 parley run
    """
    with exit_on_config_error():
        settings, _ = load_settings_and_surveys()
    console = open_console(soft_wrap=True)
    try:
        _require_free_port(settings)
        with _running_redis(settings) as url:
            status = _run_processes(settings, url, console)
    except EmbeddedServerError as e:
        console.print(f"parley cannot start: {e}", style="red")
        status = EXIT_PROBLEMS
    sys.exit(status)


def _require_free_port(settings: Settings) -> None:
    """Raise EmbeddedServerError if the host and port are taken: several `web` processes may share a port, so a leftover one
    would go unnoticed."""
    try:
        socket.create_connection((settings.host, settings.port), timeout=1).close()
    except OSError:
        return
    raise EmbeddedServerError(
        f"something listens on {settings.host}, port {settings.port} already: stop it, or set PARLEY_PORT"
    )


@contextmanager
def _running_redis(settings: Settings) -> Iterator[str]:
    if settings.redis_url:
        yield settings.redis_url
    else:
        with run_embedded_server(settings.var) as url:
            yield url


def _run_processes(settings: Settings, url: str, console: Console) -> int:
    manager = Manager()
    environment = _process_environment(settings, url)
    for name, command in parse_procfile(PROCFILE.read_text()).processes.items():
        manager.add_process(name, _RESTART_LOOP.format(command=command), env=environment)
    Thread(target=_print_welcome, args=(settings, url, console), daemon=True).start()
    manager.loop()
    return 0 if manager.returncode in (130, 143) else manager.returncode or 0


def _process_environment(settings: Settings, url: str) -> Mapping[str, str]:
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PARLEY_REDIS_URL": url,
        "PARLEY_BROKER_URL": settings.broker_url or default_broker_url(url),
        FOLDER_VARIABLE: str(settings.var / "metrics"),
        "PARLEY_LOG": settings.log,
        "PYTHONUNBUFFERED": "1",
    }


def _print_welcome(settings: Settings, url: str, console: Console) -> None:
    """Say where everything is once it answers, and what to try."""
    base = f"http://{settings.host}:{settings.port}"
    deadline = monotonic() + READY_TIMEOUT_S
    while not _is_web_ready(base):
        if monotonic() > deadline:
            console.print(
                f"Parley is not ready after {READY_TIMEOUT_S:.0f} s: look at the lines above, and at "
                f"{base}/readyz"
            )
            return
        sleep(0.1)
    server_is = (
        url_without_credentials(url)
        if settings.redis_url
        else f"{url} (embedded Valkey, data in {settings.var / 'valkey'})"
    )
    lines: list[str | Text] = [
        "",
        Text("Parley is running.", "bold green"),
        f"  web       {base}   (health: /readyz, metrics: /metrics)",
    ]
    lines += [f"  redis     {server_is}"]
    for channel in settings.channels.values():
        lines += [
            f"  channel   {_describe_channel(channel)}",
            f"  webhook   {webhook_url(channel, settings.public_url or base)}",
        ]
    lines += [""]
    if any(channel.provider == "simulator" for channel in settings.channels.values()):
        phone = shlex.quote(os.path.relpath(Path(sys.executable).with_name("parley"))) + " phone"
        lines += [
            Text.assemble(
                "  Try it: in another terminal, ", (phone, "bold"), ", and text START. Stop with Ctrl-C."
            ),
            "",
        ]
    console.print(*lines, sep="\n")


def _describe_channel(channel: Channel) -> str:
    return f"{channel.name}: {channel.number} by {channel.provider}, surveys {', '.join(channel.surveys)}"


def webhook_url(channel: Channel, base: str) -> str:
    """The URL that the channel's provider calls, with its token left out: `https://host/webhooks/clinic?token=…`."""
    return f"{base}/webhooks/{channel.name}" + ("?token=…" if channel.token else "")


def _is_web_ready(base: str) -> bool:
    try:
        return requests.get(f"{base}/readyz", timeout=1).status_code == 200
    except requests.RequestException:
        return False
