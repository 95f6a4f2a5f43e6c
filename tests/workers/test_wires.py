"""A request that may have arrived is never taken for one that did not, on real sockets."""

import socket
import ssl
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.model.events import OutboundSms
from engine.providers import (
    OutcomeUnknown,
    ProviderRequest,
    RetryLater,
    SendAccepted,
    SmsNotFound,
    octopush,
    twilio,
    vonage,
)
from tests.support.waiting import free_port
from workers.sending import http_client
from workers.sending.http_client import ProviderClient

SMS = OutboundSms("aax0", "c", "+33600000001", "hello")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Provider:
    """Sends to `url` whatever it is given, and takes any answer for an acceptance."""

    def __init__(self, url, *, recourse="look_up", reads=lambda: SendAccepted("t")):
        self.url = url
        self.recourse = recourse
        self._reads = reads

    def write_send_request(self, sms, now):
        return ProviderRequest(f"{self.url}/send", {"Content-Type": "text/plain"}, sms.text.encode())

    def read_send_reply(self, status, body):
        return self._reads()

    def write_lookup_request(self, sms, since):
        return ProviderRequest(f"{self.url}/sent?to={sms.to[1:]}", {"Accept": "text/plain"})

    def read_lookup_reply(self, sms, since, status, body, known):
        return SendAccepted(body.decode()) if body.decode() not in known else SmsNotFound()


@contextmanager
def server(answer):
    """A server that reads one request, sends `answer` (None: nothing, for ever) and hangs up. Answers what it read."""
    read = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                request = b""
                while not request.endswith(
                    (b"hello", b"\r\n\r\n" if request.startswith(b"GET") else b"hello")
                ):
                    request += connection.recv(65536)
                read.append(request)
                if answer is None:
                    connection.recv(1)
                else:
                    connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", read
    thread.join(60)


def test_an_answer_is_read():
    with server(OK) as (url, read):
        assert ProviderClient(Provider(url), 1).send(SMS) == SendAccepted("t")
    assert read[0].startswith(b"POST /send ")
    assert read[0].endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", b"nonsense\r\n\r\n"]
)
def test_a_connection_that_breaks_after_the_request_leaves_its_fate_unknown(answer):
    with server(answer) as (url, _):
        assert isinstance(ProviderClient(Provider(url), 1).send(SMS), OutcomeUnknown)


def test_no_answer_in_time_leaves_its_fate_unknown(monkeypatch):
    monkeypatch.setattr(http_client, "READ_TIMEOUT_S", 0.05)
    with server(None) as (url, _):
        assert isinstance(ProviderClient(Provider(url), 1).send(SMS), OutcomeUnknown)


def test_an_answer_that_parley_cannot_read_leaves_its_fate_unknown():
    def fails():
        raise KeyError("sid")

    with server(OK) as (url, _):
        assert isinstance(ProviderClient(Provider(url, reads=fails), 1).send(SMS), OutcomeUnknown)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://no-such-host.invalid", "http://"])
def test_a_connection_that_never_came_about_carried_nothing(url):
    assert isinstance(ProviderClient(Provider(url.format(port=free_port())), 1).send(SMS), RetryLater)


def test_a_server_that_does_not_accept_in_time_got_nothing(monkeypatch):
    """Its queue of connections is full, so that ours is never made."""
    monkeypatch.setattr(http_client, "CONNECT_TIMEOUT_S", 0.05)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address), crowded(address):
            outcome = ProviderClient(Provider(f"http://127.0.0.1:{address[1]}"), 1).send(SMS)
    assert outcome == RetryLater("ConnectTimeout", "the provider cannot be reached")


@contextmanager
def crowded(address):
    """More connections than a queue of none takes."""
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(address)
    yield
    for each in waiting:
        each.close()


def test_a_certificate_that_nobody_vouches_for_got_nothing(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        thread = Thread(target=serve)
        thread.start()
        outcome = ProviderClient(Provider(f"https://127.0.0.1:{listener.getsockname()[1]}"), 1).send(SMS)
        thread.join(60)
    assert outcome == RetryLater("SSLError", "the provider cannot be reached")


def certificate(folder):
    """A certificate of our own making and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(begins).not_valid_after(begins + timedelta(days=36_500)).sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "certificate").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key").write_bytes(private)
    return folder / "certificate", folder / "key"


def test_a_look_up_asks_with_get_and_says_what_was_found():
    with server(OK) as (url, read):
        assert ProviderClient(Provider(url), 1).look_up(SMS, 0.0, {"other"}) == SendAccepted("ok")
    assert read[0].startswith(b"GET /sent?to=33600000001 ")
    with server(OK) as (url, _):
        assert ProviderClient(Provider(url), 1).look_up(SMS, 0.0, {"ok"}) == SmsNotFound()
    with server(b"") as (url, _):
        assert isinstance(ProviderClient(Provider(url), 1).look_up(SMS, 0.0, set()), OutcomeUnknown)


@pytest.mark.parametrize(
    "code, label",
    [
        ("104", "104"), ("http 503", "http 503"), ("ReadTimeout", "ReadTimeout"), ("105", "other"), ("", "other"),
        ("http 999", "other"), ("http 5030", "other"), ("+33600000001", "other"), ("ValueError", "other"),
    ],
)  # fmt: skip
def test_a_code_that_is_not_known_is_no_label(code, label):
    provider = Provider("http://127.0.0.1:9")
    provider.known_codes = frozenset(("104",))
    assert ProviderClient(provider, 1).metric_code(code) == label


def test_the_codes_of_every_provider_that_decide_something_are_labels():
    for module in (octopush, twilio, vonage):
        assert {str(code) for code in module.OUTCOMES_BY_CODE} <= module.KNOWN_CODES
