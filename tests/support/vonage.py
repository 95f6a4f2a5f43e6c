"""A fake Vonage on loopback: it takes SMS by `sms/json`, and answers 200 whatever it thinks of them."""

import json
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.closing import Served

KEY, SECRET = "abcd1234", "a-secret"
CUT = "cut"


class FakeVonage(Served):
    """One account. `script` are the statuses of the sends that come next ("cut": taken, and the connection ends)."""

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.received: list[dict[str, str]] = []
        self.sent: list[dict[str, str]] = []
        super().__init__(_desk(self))

    def take(self, sms: dict[str, str]) -> str:
        """Its status."""
        self.received.append(sms)
        status = self.script.popleft() if self.script else "0"
        if (sms["api_key"], sms["api_secret"]) != (KEY, SECRET):
            return "4"
        if status in ("0", CUT):
            self.sent.append(sms)
        return status


def reply(sms: Mapping[str, str], status: str, number: int) -> dict[str, Any]:
    said = {"to": sms["to"], "status": status}
    said |= {"message-id": f"0C{number:014}"} if status == "0" else {"error-text": "no"}
    return {"message-count": "1", "messages": [said]}


def _desk(vonage: FakeVonage) -> type[BaseHTTPRequestHandler]:
    class Desk(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's word)
            """Not on stderr."""

        def do_GET(self) -> None:
            """The balance, to who has the key and the secret."""
            knows = self.headers["Authorization"] == f"Basic {b64encode(f'{KEY}:{SECRET}'.encode()).decode()}"
            if self.path != "/account/get-balance":
                self._answer(404, {})
            elif knows:
                self._answer(200, {"value": 10.28, "autoReload": False})
            else:
                self._answer(401, {"error-code": "401", "error-code-label": "authentication failed"})

        def do_POST(self) -> None:
            sms = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = vonage.take(sms)
            if status == CUT:
                self.close_connection = True
                return
            self._answer(200, reply(sms, status, len(vonage.received)))

        def _answer(self, status: int, told: Mapping[str, Any]) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Desk
