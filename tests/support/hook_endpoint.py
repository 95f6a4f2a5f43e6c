"""An endpoint of hooks: a real HTTP server that keeps what it was told, checks each signature with the package of Standard
Webhooks, and can be told to be slow, to refuse, to flap, or to end connections once it has read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, NamedTuple

import msgspec
import standardwebhooks

SECRET = "whsec_" + "A" * 43 + "="
OTHER_SECRET = "whsec_" + "B" * 43 + "="

Event = dict[str, Any]


class Answer(NamedTuple):
    """What the endpoint does with a request. Status 0: it ends the connection, and has kept what it read."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Told(NamedTuple):
    """A request: where it came to, its headers in lower case, and the events in it."""

    path: str
    headers: Mapping[str, str]
    events: Sequence[Event]


class _EndpointServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1_024  # else connections are refused that come together

    def handle_error(self, *_: object) -> None:
        """Say nothing: connections end as the test wants it."""


class HookEndpoint:
    """Listens on loopback from its making until it is closed."""

    def __init__(self, answer: Callable[[Told], Answer] = lambda _: Answer()) -> None:
        self.answer = answer
        self.requests: list[Told] = []
        self.taken: list[Event] = []
        self.faults: list[str] = []
        self._lock = Lock()
        self._server = _EndpointServer(("127.0.0.1", 0), self._handler())
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, path: str) -> list[Event]:
        """What was told on a path, each event as often as it was told."""
        return [event for told in list(self.requests) if told.path == path for event in told.events]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = endpoint._note(self.path, headers, body)
                if answer.status == 0:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def _note(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        found = msgspec.json.decode(body)
        told = Told(path, headers, found if isinstance(found, list) else [found])
        with self._lock:
            try:
                standardwebhooks.Webhook(SECRET).verify(body, dict(headers))
            except Exception as e:  # noqa: BLE001 (the test asserts that there is none)
                self.faults.append(repr(e))
            self.requests.append(told)
        answer = self.answer(told)
        if 200 <= answer.status < 300:
            with self._lock:
                self.taken += told.events
        return answer


@contextmanager
def hook_endpoint(answer: Callable[[Told], Answer] = lambda _: Answer()) -> Iterator[HookEndpoint]:
    """An endpoint, for as long as the block lasts. Every request was signed, or it fails at the end."""
    endpoint = HookEndpoint(answer)
    try:
        yield endpoint
    finally:
        endpoint.close()
    assert endpoint.faults == []
