"""`parley run`: all of Parley on one machine, the Procfile's lines under honcho, with a server if there is none.

A line that ends is started again, as a supervisor would in production; one that finds a mistake in the
configuration (exit status 2) is not. However this process ends, its lines do too, and then the server.
"""

import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import IO

import click
import redis
import requests
from rich.console import Console
from rich.text import Text

from config.connections.redis_url import default_broker_url
from config.host import THIS_HOST
from config.settings.channels import Channel, webhook_url
from config.settings.config_errors import unwritable_problem
from config.settings.settings import (
    Settings,
    exit_on_config_error,
)
from config.settings.startup_check import load_settings_and_surveys
from config.store import redis_client
from config.store.audit import operator_name
from config.telemetry.library_internals import FOLDER_VARIABLE, honcho_manager
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.terminal import open_console
from engine.model.extras import MissingExtraError, import_extra
from workers.commands.connect import url_without_credentials
from workers.console.sign_in.console_sessions import ConsoleSessions, ConsoleUser, sign_in_url
from workers.runtime.embedded_redis import (
    EARLIER_END_TIMEOUT_S,
    EmbeddedServerError,
    run_embedded_server,
    waiting_sentence,
)
from workers.runtime.lifeline import WATCHER_SCRIPT, Lifeline
from workers.runtime.port_holder import RUN_PID_VARIABLE, PortHolder, find_port_holder, is_alive

PROCFILES = (Path(__file__).parents[2] / "Procfile", Path(__file__).parents[1] / "Procfile")
"""Where it may be: at the top of a checkout, or in the package that an installed wheel is."""

READY_TIMEOUT_S = 60.0
CONSOLE_READY_TIMEOUT_S = 5.0

EXIT_TERMINATED = 128 + signal.SIGTERM

_RESTART_LOOP = (
    WATCHER_SCRIPT
    + """
stopped=
trap 'stopped=1' TERM
while :; do
  {command}
  status=$?
  if [ "$stopped" ] || [ $status -eq 2 ]; then break; fi
  echo "ended with status $status; starting it again"
  sleep 1
  if [ "$stopped" ]; then break; fi
done
kill $! 2>/dev/null
exit $status
"""
)


class _PatientOutput:
    """A stream that may go away, as a terminal does that is closed: nothing is shown then, and that is all."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.isatty = stream.isatty

    def write(self, text: str) -> None:
        # a signal's handler prints too, and may interrupt who prints: RuntimeError
        with suppress(OSError, RuntimeError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, RuntimeError):
            self._stream.flush()


@click.command()
def run() -> None:
    """Run all of Parley on this machine, until Ctrl-C or the end of its terminal.

    Starts a Valkey (or Redis) of its own unless PARLEY_REDIS_URL is set, then the processes in the Procfile.

    \b
    Example:
      parley run
      PARLEY_PORT=9000 PARLEY_REDIS_URL=redis://localhost:6379/0 parley run
    """
    with exit_on_config_error():
        settings, _ = load_settings_and_surveys()
    console = open_console(soft_wrap=True)
    _end_orderly()
    try:
        import_extra("honcho", "local", "`parley run`")
        _require_metrics_folder(settings)
        _require_free_port(settings, console)
        with Lifeline() as lifeline, _running_redis(settings, lifeline) as url:
            status = _run_processes(settings, url, console, lifeline)
    except (EmbeddedServerError, MissingExtraError) as e:
        console.print(f"parley cannot start: {e}", style="red")
        status = EXIT_PROBLEMS
    sys.exit(status)


def _end_orderly() -> None:
    """Take SIGTERM as a request, before honcho does; and the end of the terminal as the same, unless somebody (nohup) has
    asked that it be nothing."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(EXIT_TERMINATED))
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))


def _require_metrics_folder(settings: Settings) -> None:
    """Raise EmbeddedServerError if what is counted cannot lie where each process would say so."""
    folder = _metrics_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as e:
        raise EmbeddedServerError(unwritable_problem(folder, e, "PARLEY_VAR")) from e


def _metrics_folder(settings: Settings) -> Path:
    return settings.var / "metrics"


def _require_free_port(settings: Settings, console: Console) -> None:
    """Raise EmbeddedServerError if the host and port are taken: several `web` processes may share a port, so a leftover one
    would go unnoticed. What a `parley run` that is gone has left is given the time to end."""
    deadline = monotonic() + EARLIER_END_TIMEOUT_S
    has_said = False
    while _is_port_taken(settings.host, settings.port):
        holder = find_port_holder(settings.port)
        is_left = holder is not None and holder.run_pid and not is_alive(holder.run_pid)
        if holder is None or not is_left or monotonic() > deadline:
            raise EmbeddedServerError(_taken_port_sentence(settings.port, holder))
        if not has_said:
            console.print(waiting_sentence(holder.run_pid))
        has_said = True
        sleep(0.1)


def _is_port_taken(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _taken_port_sentence(port: int, holder: PortHolder | None) -> str:
    todo = "stop it, or set PARLEY_PORT"
    if holder is None:
        return f"port {port} is taken by a process that cannot be told (another user's, perhaps): {todo}"
    by = f"port {port} is taken by process {holder.pid}, `{holder.command}` in {holder.folder}"
    if not holder.run_pid:
        return f"{by}: {todo}"
    if is_alive(holder.run_pid):
        return (
            f"{by}, of the `parley run` that is process {holder.run_pid}: stop that one, or set PARLEY_PORT"
        )
    return f"{by}, of an earlier Parley (process {holder.run_pid}, which is gone): {todo}"


@contextmanager
def _running_redis(settings: Settings, lifeline: Lifeline) -> Iterator[str]:
    if settings.redis_url:
        yield settings.redis_url
    else:
        with run_embedded_server(settings.var, lifeline) as url:
            yield url


def _run_processes(settings: Settings, url: str, console: Console, servers: Lifeline) -> int:
    """Run the lines until they end, or are told to. They hold the server's lifeline."""
    with Lifeline() as own:
        manager = honcho_manager(_PatientOutput(sys.stdout), partial(_leave_parent, own, servers))
        environment = _process_environment(settings, url)
        for name, command in _read_procfile():
            ports = {} if name == "web" else {"PARLEY_METRICS_PORT": "0"}  # one process of a machine has it
            manager.add_process(name, _RESTART_LOOP.format(command=command), env={**environment, **ports})
        Thread(target=_print_welcome, args=(settings, url, console), daemon=True).start()
        manager.loop()
    return 0 if manager.returncode in (130, EXIT_TERMINATED) else manager.returncode or 0


def _read_procfile() -> Iterator[tuple[str, str]]:
    """Each line's name and command. Its `python` is the one that runs this: a shell may find another, or none."""
    from honcho.environ import parse_procfile  # noqa: PLC0415 (an extra)

    procfile = next(filter(Path.exists, PROCFILES))
    for name, command in parse_procfile(procfile.read_text()).processes.items():
        program, _, arguments = command.partition(" ")
        yield name, f"{shlex.quote(sys.executable) if program == 'python' else program} {arguments}"


def _leave_parent(own: Lifeline, servers: Lifeline) -> Mapping[str, object]:
    """In the process that looks after a line: what its command is started with. The end of the terminal is the parent's
    to hear of."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.close(own.held)
    return {"stdin": own.watched, "pass_fds": [servers.held]}


def _process_environment(settings: Settings, url: str) -> Mapping[str, str]:
    return {
        **os.environ,
        "PARLEY_REDIS_URL": url,
        "PARLEY_BROKER_URL": settings.broker_url or default_broker_url(url),
        FOLDER_VARIABLE: str(_metrics_folder(settings)),
        "PARLEY_LOG": settings.log,
        RUN_PID_VARIABLE: f"{os.getpid()}",
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
    if settings.console.port:
        _wait_for_console(settings)
    server_is = (
        url_without_credentials(url)
        if settings.redis_url
        else f"{url} (embedded, data in {settings.var / 'valkey'})"
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
    if settings.console.port:
        lines += [f"  console   {_console_link(settings, url)}"]
    lines += [""]
    if any(channel.provider == "simulator" for channel in settings.channels.values()):
        phone = f"{_own_name()} phone"
        lines += [
            Text.assemble(
                "  Try it: in another terminal, ", (phone, "bold"), ", and text START. Stop with Ctrl-C."
            ),
            "",
        ]
    console.print(*lines, sep="\n")


def _console_link(settings: Settings, url: str) -> str:
    """A link that signs in to the console; where it is, if Redis does not take one."""
    user = ConsoleUser(operator_name(), ("operator", "privacy"))
    try:
        with redis_client.connect(url, retries=0) as lanes:
            link = ConsoleSessions(lanes, THIS_HOST).make_link(user)
    except redis.RedisError:
        return f"{settings.console.base_url}   (`{_own_name()} console link` signs in)"
    return f"{sign_in_url(settings.console, link)}   (good once, for ten minutes)"


def _own_name() -> str:
    """What to type for this `parley`: its path, unless its name leads a shell there."""
    own = Path(sys.executable).with_name("parley")
    found = shutil.which("parley")
    return "parley" if found and Path(found).resolve() == own.resolve() else shlex.quote(os.path.relpath(own))


def _describe_channel(channel: Channel) -> str:
    return f"{channel.name}: {channel.number} by {channel.provider}, surveys {', '.join(channel.surveys)}"


def _wait_for_console(settings: Settings) -> None:
    """Wait until its link leads somewhere, for CONSOLE_READY_TIMEOUT_S at the most: it may not be able to run."""
    deadline = monotonic() + CONSOLE_READY_TIMEOUT_S
    while monotonic() < deadline and not _is_port_taken(settings.console.host, settings.console.port):
        sleep(0.1)


def _is_web_ready(base: str) -> bool:
    try:
        return requests.get(f"{base}/readyz", timeout=1).status_code == 200
    except requests.RequestException:
        return False
