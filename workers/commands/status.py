"""`parley status`: how the service does, what is wrong, who works, and what waits."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import click
import msgspec
from rich.live import Live

from config.service.deployment_health import DeploymentState, HealthVerdict, assess_health
from config.service.service_view import view_service
from config.settings.settings import Settings
from config.telemetry.process_registry import ProcessHeartbeat
from config.telemetry.redis_stats import StatsReader
from engine.commands.exit_status import EXIT_OK, EXIT_PROBLEMS
from engine.commands.interrupts import until_interrupted
from engine.commands.json_output import print_json
from engine.commands.terminal import open_console
from workers.commands.connect import read_settings_in_use
from workers.commands.screens.status_screen import StatusScreen
from workers.diagnosis.deployment_reading import read_state

WATCH_INTERVAL_S = 2.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object; with --watch, one a line.")
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
@click.option("--shards", is_flag=True, help="All shards, not only those in which something is wrong.")
def status(as_json: bool, watch: bool, shards: bool) -> None:
    """How the service does, what is wrong, who works, what waits.

    The first line says what is wrong first, or that all is well. Then comes what people notice: how many answers a minute, of the
    last five, and how long they waited for them. Exit status 0 if all is well, 1 if something is wrong.

    \b
    Example:
      parley status
      parley status --watch
      parley status --json | jq -r '.wrong[]'
    """
    settings = read_settings_in_use(os.environ)
    verdict = HealthVerdict([], [])
    screen = StatusScreen(settings, every_shard=shards)
    telling = _json_printer(settings) if as_json else _screen_printer(screen, live=watch)
    with closing(StatsReader(settings)) as sounder, telling as tell:
        for state in _watch_states(settings, sounder) if watch else [read_state(settings, sounder)]:
            verdict = assess_health(state)
            tell(state, verdict)
    sys.exit(EXIT_OK if verdict.ok else EXIT_PROBLEMS)


StatePrinter = Callable[[DeploymentState, HealthVerdict], None]


def _watch_states(settings: Settings, sounder: StatsReader) -> Iterator[DeploymentState]:
    """The state as it is now, and again and again until Ctrl-C."""
    with until_interrupted() as wait_to_look:
        looks = True
        while looks:
            yield read_state(settings, sounder)
            looks = wait_to_look(WATCH_INTERVAL_S)


@contextmanager
def _json_printer(settings: Settings) -> Iterator[StatePrinter]:
    def print_state(state: DeploymentState, verdict: HealthVerdict) -> None:
        told = {"ok": verdict.ok, "wrong": verdict.wrong, "notes": verdict.notes}
        view = msgspec.to_builtins(view_service(settings, state.found))
        print_json(told | {"service": view} | as_builtins(state))

    yield print_state


@contextmanager
def _screen_printer(screen: StatusScreen, *, live: bool) -> Iterator[StatePrinter]:
    """`live`: draw it in place, as large as the terminal is, and leave what was drawn last there in full."""
    console = open_console()
    if not live or not console.is_terminal:
        yield lambda state, verdict: console.print(screen.draw(console, state, verdict))
        return
    last: list[tuple[DeploymentState, HealthVerdict]] = []

    def draw_live(state: DeploymentState, verdict: HealthVerdict) -> None:
        last[:] = [(state, verdict)]
        shown.update(screen.draw_fitting(console, state, verdict), refresh=True)

    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as shown:
        yield draw_live
    for state, verdict in last:
        console.print(screen.draw(console, state, verdict))


def _as_objects(processes: Mapping[str, ProcessHeartbeat]) -> dict[str, dict[str, object]]:
    return {
        name: {field: getattr(each, field) for field in ProcessHeartbeat.__struct_fields__}
        for name, each in processes.items()
    }


def as_builtins(state: DeploymentState) -> dict[str, object]:
    """The state with processes as objects; on the wire they are arrays."""
    found = state.found
    plain: dict[str, object] = msgspec.to_builtins(msgspec.structs.replace(found, processes={}, silent={}))
    return plain | {
        "processes": _as_objects(found.processes),
        "silent": _as_objects(found.silent),
        "forgetful": dict(state.forgetful or {}),
        "durability": state.durability,
        "removed": msgspec.to_builtins(state.removed),
        "old_releases": list(state.old_releases),
    }
