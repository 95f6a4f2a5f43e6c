"""A request that may have arrived is never taken for one that did not, on real sockets.

Each claim is made of Parley's transport and of requests' own adapter, in whose place that stands.
"""

import socket
import ssl
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from threading import Thread
from time import monotonic

import pytest
import requests
import urllib3.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.model.events import OutboundSms
from engine.providers import (
    OutcomeUnknown,
    ProviderChannel,
    ProviderRequest,
    RetryLater,
    SendAccepted,
    SmsNotFound,
    octopush,
    twilio,
    vonage,
)
from engine.providers import octopush as octopush_codec
from tests.support.blocking_client import BlockingClient
from tests.support.waiting import HANG_S, free_port
from workers.sending.deadline_transport import DeadlineTransport, ExchangeDeadline
from workers.sending.http_client import ProviderClient, try_deadline
from workers.sending.http_connection import HttpAnswer
from workers.sending.loop_thread import call_in_thread
from workers.sending.provider_route import NothingSentError

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


class RequestsTransport:
    """requests' own adapter, with its limits for each address and each read."""

    def __init__(self, url):
        self._session = requests.Session()
        self._options = self._session.merge_environment_settings(url, {}, None, None, None)

    def close(self):
        self._session.close()

    async def exchange(self, request, deadline):
        return await call_in_thread(lambda: self._send(request, deadline))

    def _send(self, request, deadline):
        now = monotonic()
        limits = (deadline.first_byte_s - now, deadline.answer_s - now)
        method = "POST" if request.body else "GET"
        plain = requests.Request(method, request.url, headers=request.headers, data=request.body).prepare()
        adapter = self._session.get_adapter(request.url)
        try:
            answer = adapter.send(plain, timeout=limits, **self._options)
            return HttpAnswer(answer.status_code, answer.content)
        except requests.RequestException as e:
            if any(isinstance(cause, NEVER_SENT) for cause in causes(e)):
                raise type(e)(NothingSentError(), request=plain) from e
            raise


NEVER_SENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ProxyError,
    ssl.SSLCertVerificationError,
)


def causes(error):
    """The error and those that it stands for, as requests and urllib3 nest them."""
    while isinstance(error, BaseException):
        yield error
        error = getattr(error, "reason", None) or next(iter(error.args), None)


@pytest.fixture(params=[DeadlineTransport, RequestsTransport])
def connect(request):
    """A factory of clients of a provider."""
    clients = []

    def build(provider):
        clients.append(BlockingClient(ProviderClient(provider, request.param(provider.url))))
        return clients[-1]

    yield build
    for client in clients:
        client.close()


def soon():
    """The deadline of a try that begins now."""
    return try_deadline(monotonic())


def within(first_byte_s=HANG_S, answer_s=HANG_S):
    return ExchangeDeadline(monotonic() + first_byte_s, monotonic() + answer_s)


@contextmanager
def server(answer, *, in_drops=False):
    """A server that reads one request, sends `answer` (None: nothing, for ever), byte by byte if `in_drops`, and hangs up.
    Answers what it read."""
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
                    with suppress(ConnectionResetError):
                        connection.recv(1)
                else:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for piece in (
                        (answer[at : at + 1] for at in range(len(answer))) if in_drops else (answer,)
                    ):
                        connection.sendall(piece)

        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", read
    thread.join(60)


def test_an_answer_is_read(connect):
    with server(OK) as (url, read):
        assert connect(Provider(url)).send(SMS, soon()) == SendAccepted("t")
    head, body = read[0].split(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ") for line in lines)}
    assert (first, body) == ("POST /send HTTP/1.1", b"hello")
    assert headers.pop("user-agent")
    assert headers.pop("host") == url.removeprefix("http://")
    assert headers == {"content-type": "text/plain", "content-length": "5", "accept-encoding": "identity"}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_a_connection_that_breaks_after_the_request_leaves_its_fate_unknown(connect, answer):
    with server(answer) as (url, _):
        assert isinstance(connect(Provider(url)).send(SMS, soon()), OutcomeUnknown)


@pytest.mark.parametrize(
    "answer, body",
    [
        (b"HTTP/1.1 200 OK\r\n\r\nok", "ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", "ok"),
        (b"HTTP/1.0 200 OK\nContent-Length: 2\n\nok", "ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1 \r\nk\r\n0\r\n\r\n", "ok"),
        (
            b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
            "ok",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 2\r\n\r\nok", "ok"),
    ],
    ids=[
        "until the end",
        "as it is, until the end",
        "bare line feeds",
        "continue",
        "chunks",
        "an offer",
        "no content",
        "a redirect is an answer",
    ],
)
@pytest.mark.parametrize("in_drops", [False, True])
def test_an_answer_of_any_form_is_read(connect, answer, body, in_drops):
    with server(answer, in_drops=in_drops) as (url, _):
        assert connect(Provider(url)).look_up(SMS, 0.0, set(), monotonic() + HANG_S) == SendAccepted(body)


def test_no_answer_in_time_leaves_its_fate_unknown(connect):
    with server(None) as (url, _):
        outcome = connect(Provider(url)).send(SMS, within(answer_s=0.3))
    assert outcome == OutcomeUnknown("ReadTimeout", "the provider gave no answer")


def test_an_answer_that_parley_cannot_read_leaves_its_fate_unknown(connect):
    def fails():
        raise KeyError("sid")

    with server(OK) as (url, _):
        assert isinstance(connect(Provider(url, reads=fails)).send(SMS, soon()), OutcomeUnknown)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://no-such-host.invalid", "http://"])
def test_a_connection_that_never_came_about_carried_nothing(connect, url):
    assert isinstance(connect(Provider(url.format(port=free_port()))).send(SMS, soon()), RetryLater)


def test_a_server_that_does_not_accept_in_time_got_nothing(connect):
    with silent("127.0.0.1") as port:
        outcome = connect(Provider(f"http://127.0.0.1:{port}")).send(SMS, within(first_byte_s=0.1))
    assert outcome == RetryLater("ConnectTimeout", "the provider cannot be reached")


@contextmanager
def silent(address, port=0):
    """A port that answers no one who wants to connect: its queue of connections is full."""
    with socket.socket() as listener:
        listener.bind((address, port))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for each in waiting:
            each.close()


def test_a_certificate_that_nobody_vouches_for_got_nothing(connect, tmp_path):
    with tls_server(tmp_path) as (url, read):
        outcome = connect(Provider(url)).send(SMS, soon())
    assert outcome == RetryLater("SSLError", "the provider cannot be reached")
    assert read == []


def test_the_certificates_of_a_bundle_that_the_environment_names_are_trusted(connect, tmp_path, monkeypatch):
    with tls_server(tmp_path) as (url, read):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate"))
        assert connect(Provider(url)).send(SMS, soon()) == SendAccepted("t")
    assert len(read) == 1


def test_a_trusted_certificate_of_another_host_got_nothing(connect, tmp_path, monkeypatch):
    with tls_server(tmp_path) as (url, read):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate"))
        outcome = connect(Provider(url.replace("127.0.0.1", "localhost"))).send(SMS, soon())
    assert outcome == RetryLater("SSLError", "the provider cannot be reached")
    assert read == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"])
def test_tls_that_ends_before_the_answer_leaves_its_fate_unknown(connect, tmp_path, monkeypatch, answer):
    with tls_server(tmp_path, answer) as (url, read):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate"))
        outcome = connect(Provider(url)).send(SMS, soon())
    assert isinstance(outcome, OutcomeUnknown)
    assert outcome.code in ("ConnectionError", "ChunkedEncodingError")
    assert len(read) == 1


@contextmanager
def tls_server(folder, answer=OK):
    """A server on TLS that takes one request and answers it. Answers the requests that it read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder))
    read = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    read.append(read_request(secure))
                    secure.sendall(answer)
            except (ssl.SSLError, ConnectionError):
                read.clear()
            finally:
                connection.close()

        thread = Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", read
    thread.join(60)


def read_request(connection):
    request = b""
    while not request.endswith(b"\r\n\r\nhello"):
        request += connection.recv(65536)
    return request


@pytest.fixture
def proxied(monkeypatch):
    """Makes a URL the environment's proxy, for all but 127.0.0.9."""

    def use(url):
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, url)
        monkeypatch.setenv("no_proxy", "127.0.0.9")

    return use


def test_a_proxy_of_the_environment_is_handed_the_request(connect, proxied):
    with server(OK) as (url, read):
        proxied(url.replace("//", "//anna:s%20cret@"))
        assert connect(Provider("http://sms.example/api")).send(SMS, soon()) == SendAccepted("t")
    assert read[0].startswith(b"POST http://sms.example/api/send HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic YW5uYTpzIGNyZXQ=\r\n" in read[0]


def test_hosts_for_which_the_environment_wants_no_proxy_are_reached_without(connect, proxied):
    proxied(f"http://127.0.0.1:{free_port()}")
    assert connect(Provider(f"http://127.0.0.9:{free_port()}")).send(SMS, soon()).code == "ConnectionError"
    outcome = connect(Provider(f"http://127.0.0.1:{free_port()}")).send(SMS, soon())
    assert outcome == RetryLater("ProxyError", "the provider cannot be reached")


@pytest.mark.parametrize("secure", [False, True])
def test_tls_goes_through_a_proxys_tunnel(connect, proxied, tmp_path, monkeypatch, secure):
    with (
        tls_server(tmp_path) as (url, read),
        tunnel(certified=certificate(tmp_path) if secure else None) as (proxy, asked),
    ):
        proxied(proxy)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate"))
        client = connect(Provider(url))
        assert client.send(SMS, soon()) == SendAccepted("t")
        client.close()  # else the tunnel stays
    assert asked[0].startswith(f"CONNECT {url.removeprefix('https://')} HTTP/1.".encode())
    assert read[0].startswith(b"POST /send HTTP/1.1\r\n")


def test_a_tunnel_that_is_refused_carried_nothing(connect, proxied):
    with tunnel(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n") as (proxy, _):
        proxied(proxy)
        outcome = connect(Provider("https://127.0.0.1:9")).send(SMS, soon())
    assert outcome == RetryLater("ProxyError", "the provider cannot be reached")


@contextmanager
def tunnel(refusal=b"", certified=None):
    """A proxy that connects once, or refuses; on TLS, if it has a certificate and its key. Answers what it was asked."""
    asked = []
    scheme = "https" if certified else "http"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            ours, _ = listener.accept()
            if certified:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*certified)
                ours = context.wrap_socket(ours, server_side=True)
            with ours:
                asked.append(ours.recv(65536))
                if refusal:
                    ours.sendall(refusal)
                    return
                host, port = asked[0].split()[1].decode().split(":")
                with socket.create_connection((host, int(port))) as theirs:
                    ours.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                    back = Thread(target=pump, args=(theirs, ours))
                    back.start()
                    pump(ours, theirs)
                    back.join(60)

        thread = Thread(target=serve)
        thread.start()
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", asked
    thread.join(60)


def pump(source, drain):
    try:
        while data := source.recv(65536):
            drain.sendall(data)
        drain.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def certificate(folder):
    """A certificate of our own making and its key, as files; the same each time."""
    if (folder / "key").exists():
        return folder / "certificate", folder / "key"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(begins).not_valid_after(begins + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "certificate").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key").write_bytes(private)
    return folder / "certificate", folder / "key"


def test_a_look_up_asks_with_get_and_says_what_was_found(connect):
    by_s = monotonic() + HANG_S
    with server(OK) as (url, read):
        assert connect(Provider(url)).look_up(SMS, 0.0, {"other"}, by_s) == SendAccepted("ok")
    assert read[0].startswith(b"GET /sent?to=33600000001 ")
    with server(OK) as (url, _):
        assert connect(Provider(url)).look_up(SMS, 0.0, {"ok"}, by_s) == SmsNotFound()
    with server(b"") as (url, _):  # some ask once more, and nobody answers that
        soon_s = monotonic() + 0.2
        assert isinstance(connect(Provider(url)).look_up(SMS, 0.0, set(), soon_s), OutcomeUnknown)


@pytest.mark.parametrize(
    "code, label",
    [
        ("104", "104"), ("http 503", "http 503"), ("ReadTimeout", "ReadTimeout"), ("105", "other"), ("", "other"),
        ("http 999", "other"), ("http 5030", "other"), ("+33600000001", "other"), ("ValueError", "other"),
    ],
)  # fmt: skip
def test_a_code_that_is_not_known_is_no_label(connect, code, label):
    provider = Provider("http://127.0.0.1:9")
    provider.known_codes = frozenset(("104",))
    assert connect(provider).client.metric_code(code) == label


def test_the_codes_of_every_provider_that_decide_something_are_labels():
    for module in (octopush, twilio, vonage):
        assert {str(code) for code in module.OUTCOMES_BY_CODE} <= module.KNOWN_CODES


@pytest.mark.parametrize(
    "options, kind, purpose, optimize",
    [
        ({}, "sms_premium", "alert", None),
        ({"sms_low_cost": True}, "sms_low_cost", "alert", None),
        ({"purpose": "wholesale", "auto_optimize_text": True}, "sms_premium", "wholesale", True),
        ({"sms_low_cost": False, "auto_optimize_text": False}, "sms_premium", "alert", None),
    ],
)
def test_octopush_is_told_how_its_channel_sends(octopush, connect, options, kind, purpose, optimize):
    account = octopush_codec.Account(url=octopush.url, login=octopush.login, key=octopush.key)
    place = ProviderChannel("clinic", "+33700000001", "token")
    codec = octopush_codec.make_provider(place, account, octopush_codec.Options(**options))
    assert isinstance(connect(codec).send(SMS, soon()), SendAccepted)
    (received,) = octopush.ledger().received
    assert (received.kind, received.purpose, received.optimize) == (kind, purpose, optimize)
