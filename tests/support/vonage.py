"""A fake Vonage on loopback: it takes SMS by `sms/json`, and answers 200 whatever it thinks of them."""

import json
from collections import deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

KEY, SECRET = "abcd1234", "a-secret"
CUT = "cut"


class FakeVonage:
    """One account. `script` are the statuses of the sends that come next ("cut": taken, and the connection ends)."""

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.received: list[dict[str, str]] = []
        self.sent: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _desk(self))
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, sms: dict[str, str]) -> str:
        """Its status."""
        self.received.append(sms)
        status = self.script.popleft() if self.script else "0"
        if (sms["api_key"], sms["api_secret"]) != (KEY, SECRET):
            return "4"
        if status in ("0", CUT):
            self.sent.append(sms)
        return status

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reply(sms: Mapping[str, str], status: str, number: int) -> dict[str, Any]:
    said = {"to": sms["to"], "status": status}
    said |= {"message-id": f"0C{number:014}"} if status == "0" else {"error-text": "no"}
    return {"message-count": "1", "messages": [said]}


def _desk(vonage: FakeVonage) -> type[BaseHTTPRequestHandler]:
    class Desk(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's word)
            """Not on stderr."""

        def do_POST(self) -> None:
            sms = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = vonage.take(sms)
            if status == CUT:
                self.close_connection = True
                return
            body = json.dumps(reply(sms, status, len(vonage.received))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Desk
