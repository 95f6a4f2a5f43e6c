"""What does one turn cost? Figures that a run of the real pipeline measured, as a file has them.

`costs.toml` beside this file ships with Parley; `make bench` measures it anew, and `parley capacity --costs` takes another.
"""

import tomllib
from pathlib import Path

import msgspec

from config.settings.config_errors import ConfigError

_MOST_STANDING_US = 500_000

SHIPPED_COSTS = Path(__file__).with_name("costs.toml")


class CpuCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """µs of CPU that one more of something takes. `lanes` and `broker` are the servers of the lanes and of the wake-ups;
    `channel` is what of `lanes` is done where a channel's keys are;
    `broker_full` is `broker` under full load, where workers take and wake many at once."""

    web: float  # a webhook
    ratelimit: float  # a START
    conversation: float  # any other turn
    delivery: float  # an SMS
    clock: float  # a turn
    archive: float  # a turn
    lanes: float  # a turn
    broker: float  # a turn
    broker_full: float  # a turn
    channel: float  # an SMS
    hooks_request: float  # to one endpoint, whatever is in it
    hooks_event: float  # in a request
    lanes_hooks_event: float  # on the lanes' server, for each endpoint


class StandingCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """µs of CPU a second that each process takes whatever happens: what a line through two rates has at rate 0."""

    web: float
    ratelimit: float
    conversation: float
    delivery: float
    clock: float
    archive: float
    hooks: float
    lanes: float
    broker: float


class ByteCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bytes. `…_text` is for each byte of text of a turn, of what came in and what went out, beside `…_turn`, which is for a
    turn without text. The first four are of Redis' memory; `open_lane` and `closed_lane` are all keys of a person but the
    event stream and the indexes of sessions."""

    empty_server: float
    open_lane: float
    closed_lane: float
    session_index: float
    stream_turn: float
    stream_text: float
    append_only_turn: float  # as much goes to each replica
    append_only_text: float
    archive_turn: float  # of SQLite's file
    archive_text: float
    lanes_network_turn: float  # between the server and Parley, in both directions
    broker_network_turn: float
    http_webhook: float  # a request and its answer by TLS: assumed, not measured
    http_send: float


class TurnCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of it. `machine` and `measured` say where and when; the CPU was measured up to `turns_per_second`.

    A turn waits `syncs_per_turn` times for the disk of the lanes' append-only file, which syncs in `fsync_us`."""

    machine: str
    measured: str
    turns_per_second: float
    events_per_turn: float  # that an endpoint of hooks is told
    syncs_per_turn: float
    fsync_us: float
    cpu_us: CpuCosts
    standing_us: StandingCosts
    bytes: ByteCosts


def read_costs(path: Path = SHIPPED_COSTS) -> TurnCosts:
    """The costs in `path`. Raises ConfigError if it cannot be read, or has not all of them."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        problem = f"{path}: cannot be read ({e.strerror})"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        problem = f"{path}: not TOML: {e}"
    else:
        try:
            costs = msgspec.convert(document, TurnCosts)
        except msgspec.ValidationError as e:
            problem = f"{path}: {e}"
        else:
            if not (wrong := _unusable(costs)):
                return costs
            problem = f"{path}: {wrong}"
    raise ConfigError(
        [f"{problem}: `python -m tests.bench --only capacity_cores --costs FILE` writes such a file"]
    )


def _unusable(costs: TurnCosts) -> str:
    """The first figure that cannot be, and what was expected; "" if there is none."""
    for place, value in _figures(msgspec.to_builtins(costs)):
        if not 0 <= value < float("inf"):
            return f"{place} is {value}: expected a finite number that is not negative"
        if place.startswith("standing_us.") and value >= _MOST_STANDING_US:
            return f"{place} is {value}: expected less than {_MOST_STANDING_US}, half a core"
    return ""


def _figures(table: dict[str, object], path: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += _figures(value, f"{path}{name}.")
        elif isinstance(value, int | float):
            found.append((path + name, value))
    return found


_FILE_HEAD = (
    "# What one turn costs, measured: `python -m tests.bench --only capacity_cores --costs FILE` "
    "writes such a file."
)


def render_costs(costs: TurnCosts) -> str:
    """Write `costs` as a file that `read_costs` reads."""
    lines = [_FILE_HEAD]
    tables: list[str] = []
    for name, value in msgspec.to_builtins(costs).items():
        if isinstance(value, dict):
            figures = (f"{each} = {_rounded(figure)}" for each, figure in value.items())
            tables += ["", f"[{name}]", *figures]
        else:
            written = msgspec.json.encode(value).decode() if isinstance(value, str) else _rounded(value)
            lines.append(f"{name} = {written}")
    return "\n".join([*lines, *tables, ""])


def _rounded(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
