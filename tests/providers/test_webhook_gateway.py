"""A gateway of one's own before Parley, and a conversation through it: every process real, every request signed."""

import hashlib
import hmac
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import time

import pytest
import requests

from tests.support import clinic
from tests.support.processes import Deployment
from tests.support.waiting import until

SECRET = "a secret of sixteen or more"
PHONE = "+33612345678"
TOML = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
provider = "webhook"
send_url = "{url}"
secret_env = "WORD"
[channels.clinic.limits]
pause_s = 0
"""


def signature(timestamp, direction, body):
    covered = f"{timestamp}.{direction}.clinic.".encode() + body
    return "v2=" + hmac.new(SECRET.encode(), covered, hashlib.sha256).hexdigest()


def signed(body):
    timestamp = str(int(time()))
    return {"Parley-Timestamp": timestamp, "Parley-Signature": signature(timestamp, "in", body)}


class Gateway:
    """It takes an SMS once for each id, at the second asking: the first is answered 503."""

    def __init__(self):
        self.asked, self.forged, self.taken = [], [], {}
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = gateway.take(self.headers, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/send"

    def take(self, headers, body):
        timestamp = headers["Parley-Timestamp"]
        right = signature(timestamp, "out", body)
        if headers["Parley-Signature"] != right or abs(time() - int(timestamp)) > 60:
            self.forged.append(body)
            return 401, b""
        sms = json.loads(body)
        self.asked.append(sms["id"])
        if self.asked.count(sms["id"]) == 1:
            return 503, b""
        self.taken.setdefault(sms["id"], sms)
        return 202, json.dumps({"ticket": f"t-{len(self.taken)}"}).encode()


@pytest.fixture
def gateway():
    gateway = Gateway()
    thread = Thread(target=gateway.server.serve_forever)
    thread.start()
    yield gateway
    gateway.server.shutdown()
    gateway.server.server_close()
    thread.join()


@pytest.mark.processes
def test_a_conversation_goes_through_a_gateway_and_what_it_had_no_time_for_is_sent_again(
    valkey, octopush, gateway, tmp_path
):
    (tmp_path / "parley.toml").write_text(TOML.format(url=gateway.url))
    environment = {"PARLEY_CONFIG": str(tmp_path / "parley.toml"), "WORD": SECRET}
    with Deployment(valkey.url, valkey.broker_url, octopush, environment=environment) as parley:
        parley.start()

        def tell(id_, text):
            body = json.dumps(
                {"type": "sms", "id": id_, "from": PHONE, "to": "+33700000001", "text": text}
            ).encode()
            return requests.post(
                f"{parley.base}/webhooks/clinic", data=body, headers=signed(body), timeout=60
            )

        assert tell("1", "START").status_code == 200
        until(lambda: gateway.taken, 30, "the first question was taken")
        assert tell("2", "Ada").status_code == 200
        assert tell("2", "Ada").status_code == 200, "a gateway may send the same again"
        until(lambda: len(gateway.taken) == 2, 30, "the second question was taken")
    sent = list(gateway.taken.values())
    assert gateway.forged == []
    assert [sms["to"] for sms in sent] == [PHONE, PHONE]
    assert [sms["from"] for sms in sent] == ["+33700000001"] * 2
    assert sent[1]["text"] == clinic.temperature("Ada")
    assert len({sms["session"] for sms in sent}) == 1
    assert [gateway.asked.count(id_) for id_ in gateway.taken] == [2, 2]
