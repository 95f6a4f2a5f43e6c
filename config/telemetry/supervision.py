"""What tells a supervisor of containers or services how this process does: whether it has begun, and whether its loops still go
round.

A process that stands still is killed and started again by whoever asks: Kubernetes by `/healthz`, systemd by the watchdog. A Redis
or a provider that is away is no reason: loops go round meanwhile, and find it again.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from operator import itemgetter
from threading import Event, Thread
from time import monotonic
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

log = structlog.get_logger()

HANGS_AFTER_S = 60.0
"""A loop that has not gone round for so long hangs. A round waits for Redis and the broker for seconds, and for an fsync."""

NOTIFY_SOCKET = "NOTIFY_SOCKET"
WATCHDOG_MICROSECONDS, WATCHDOG_PID = "WATCHDOG_USEC", "WATCHDOG_PID"
"""systemd's own: where it listens, and how often, and by whom, it wants to be told that all is well (sd_notify(3))."""

NOTIFY_TIMEOUT_S = 1.0
"""Nobody ends later because systemd does not listen."""

_PROCESS_LOOP = ""

_StartResponse = Callable[[str, list[tuple[str, str]]], object]


class LoopRounds:
    """When did each loop of a process go round for the last time? The process hangs if that is more than `hangs_after_s` ago of any. It
    has one loop that needs no name, and those that are counted beside it."""

    def __init__(self, hangs_after_s: float = HANGS_AFTER_S) -> None:
        self._hangs_after_s = hangs_after_s
        self._last_s = {_PROCESS_LOOP: monotonic()}

    def went_round(self) -> None:
        self._last_s[_PROCESS_LOOP] = monotonic()

    def count_loop(self, name: str) -> Callable[[], None]:
        """Have one more loop go round from now on. Returns what is to be called whenever it does, in any thread."""

        def went_round() -> None:
            self._last_s[name] = monotonic()

        went_round()
        return went_round

    def longest_silence(self) -> tuple[str, float]:
        """The loop that has been silent for longest, and seconds since its last round."""
        name, last_s = min([*self._last_s.items()], key=itemgetter(1))
        return name, monotonic() - last_s

    def hangs(self) -> bool:
        return self.longest_silence()[1] > self._hangs_after_s


@contextmanager
def supervised(
    rounds: LoopRounds, host: str = "", port: int = 0, registry: CollectorRegistry | None = None
) -> Iterator[None]:
    """Tell systemd that the process has begun, and as long as the block lasts and its loops go round that they do; and on `port`,
    unless that is 0, answer `/healthz`, and `/metrics` with what `registry` collects."""
    over = Event()
    with ExitStack() as stack:
        if port:
            stack.enter_context(_served(rounds, host, port, registry))
        stack.callback(over.set)
        notify_supervisor("READY=1")
        if every_s := _watchdog_interval_s():
            Thread(target=_tell_watchdog, args=(rounds, every_s, over), name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            notify_supervisor("STOPPING=1")


def notify_supervisor(state: str) -> None:
    """Send one datagram of sd_notify(3) to systemd, if it started this process and wants to hear."""
    address = os.environ.get(NOTIFY_SOCKET, "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(NOTIFY_TIMEOUT_S)
        sender.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        sender.sendall(state.encode())


def _watchdog_interval_s() -> float:
    """How often the watchdog is told: twice as often as it asks for; 0 if it does not ask this process."""
    asked = os.environ.get(WATCHDOG_MICROSECONDS, "")
    if not asked.isdigit() or os.environ.get(WATCHDOG_PID, f"{os.getpid()}") != f"{os.getpid()}":
        return 0.0
    return int(asked) / 1_000_000 / 2


def _tell_watchdog(rounds: LoopRounds, every_s: float, over: Event) -> None:
    while not over.wait(every_s):
        if not rounds.hangs():
            notify_supervisor("WATCHDOG=1")


@contextmanager
def _served(rounds: LoopRounds, host: str, port: int, registry: CollectorRegistry | None) -> Iterator[None]:
    """Serve in a thread of its own. A port that cannot be had is a warning: whoever asks there finds out."""
    metrics = make_wsgi_app(registry) if registry is not None else _not_found

    def answer(environ: dict[str, str], start_response: _StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO", ""):
            case "/healthz":
                return _tell_health(rounds, start_response)
            case "/metrics":
                return metrics(environ, start_response)
            case _:
                return _not_found(environ, start_response)

    try:
        server = make_server(host, port, answer, _server_class(host), handler_class=_SilentHandler)
    except OSError as e:
        log.warning(
            "nobody can ask how this process does: PARLEY_METRICS_PORT cannot be had",
            host=host,
            port=port,
            error=e.strerror or repr(e),
        )
        yield
        return
    thread = Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _server_class(host: str) -> type[ThreadingWSGIServer]:
    class HealthServer(ThreadingWSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

    return HealthServer


class _SilentHandler(WSGIRequestHandler):
    """Says nothing of each request, and closes the connection."""

    timeout = 10

    def log_message(self, *_: object) -> None:
        pass


def _tell_health(rounds: LoopRounds, start_response: _StartResponse) -> Iterable[bytes]:
    if rounds.hangs():
        name, silent_s = rounds.longest_silence()
        loop = f'loop "{name}"' if name else "loop"
        start_response("503 Service Unavailable", [_PLAIN])
        return [f"the {loop} of this process has not gone round for {silent_s:.0f} s\n".encode()]
    start_response("200 OK", [_PLAIN])
    return [b"ok\n"]


def _not_found(_environ: object, start_response: _StartResponse) -> Iterable[bytes]:
    start_response("404 Not Found", [_PLAIN])
    return [b"here are /healthz and /metrics\n"]


_PLAIN = ("Content-Type", "text/plain; charset=utf-8")
