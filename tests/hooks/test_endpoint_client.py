"""One request: where it may lead, whom it trusts, how long it takes, and what is made of the answer."""

import asyncio
import socket
import ssl
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from threading import Thread
from time import time

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.hooks.signature import parse_secret
from tests.support.hook_endpoint import OTHER_SECRET, SECRET, Answer, hook_endpoint
from tests.support.telling import hook_to
from workers.hooks import endpoint_client
from workers.hooks.endpoint_client import EndpointClient, RenderedEvent
from workers.sending.thread_resolver import ResolvedAddress, ThreadResolver

EVENT = RenderedEvent("1", b'{"id": "1"}')


def post(hook, *events, allow_private=True):
    async def once():
        async with EndpointClient(allow_private=allow_private) as client:
            return await client.post(hook, events or [EVENT])

    return asyncio.run(once())


@contextmanager
def listening(handle):
    """A server on loopback that gives each connection to `handle`; yields its port, and the connections."""
    server = socket.create_server(("127.0.0.1", 0))
    seen = []

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            seen.append(connection)
            Thread(target=handle, args=(connection,), daemon=True).start()

    Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1], seen
    finally:
        server.close()
        for connection in seen:
            connection.close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_an_address_that_is_not_public_is_not_called(endpoint, host):
    port = endpoint.url.rpartition(":")[2]
    hook = msgspec.structs.replace(hook_to(endpoint), url=f"http://{host}:{port}/events")
    reply = post(hook, allow_private=False)
    assert (reply.outcome, reply.why) == ("failed", "the address is not public")
    assert endpoint.requests == []


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1"])
def test_a_name_that_leads_to_an_address_that_is_not_public_is_not_called(endpoint, host):
    port = endpoint.url.rpartition(":")[2]
    hook = msgspec.structs.replace(hook_to(endpoint), url=f"http://{host}:{port}/events")
    reply = post(hook, allow_private=False)
    assert reply.outcome == "failed"

    assert endpoint.requests == []


def test_of_a_names_addresses_only_public_ones_are_called(endpoint, monkeypatch):
    """The address that was judged is the one that is called: a resolver is asked once."""
    asked = []

    async def resolve(self, host, port=0, family=socket.AF_INET):
        asked.append(host)
        return [
            ResolvedAddress(socket.AF_INET, 0, address, port)
            for address in ("10.0.0.1", "127.0.0.1", "93.184.216.34")
        ]

    monkeypatch.setattr(ThreadResolver, "resolve", resolve)

    async def addresses():
        resolver = endpoint_client._PublicResolver(allow_private=False)
        return [each["host"] for each in await resolver.resolve("crm.example.org", 443)]

    assert asyncio.run(addresses()) == ["93.184.216.34"]
    assert asked == ["crm.example.org"]


def test_a_certificate_that_nobody_vouches_for_is_a_failure(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _self_signed(context, tmp_path)

    def handle(connection):
        with suppress(OSError):
            context.wrap_socket(connection, server_side=True).recv(1)

    with listening(handle) as (port, _), hook_endpoint() as endpoint:
        hook = msgspec.structs.replace(hook_to(endpoint), url=f"https://127.0.0.1:{port}/")
        reply = post(hook)
    assert (reply.outcome, reply.why) == ("failed", "the certificate of the endpoint is not trusted")


def _self_signed(context, folder):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = folder / "certificate.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context.load_cert_chain(file)


def test_an_endpoint_that_is_silent_is_waited_for_so_long_and_no_longer(endpoint):
    with listening(lambda _: None) as (port, _):
        hook = msgspec.structs.replace(hook_to(endpoint), url=f"http://127.0.0.1:{port}/", timeout_s=0.2)
        reply = post(hook)
    assert (reply.outcome, reply.why) == ("failed", "no answer within 0.2 s")


def test_one_that_takes_an_event_and_drips_the_rest_of_its_answer_has_taken_it(endpoint, monkeypatch):
    monkeypatch.setattr(endpoint_client, "_BODY_PATIENCE_S", 0.1)

    def handle(connection):
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")

    with listening(handle) as (port, _):
        hook = msgspec.structs.replace(hook_to(endpoint), url=f"http://127.0.0.1:{port}/")
        assert post(hook).outcome == "delivered"


def test_nobody_listens(endpoint):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    reply = post(msgspec.structs.replace(hook_to(endpoint), url=f"http://127.0.0.1:{port}/?token=secret"))
    assert reply.outcome == "failed"
    assert "secret" not in reply.why


@pytest.mark.parametrize(
    "written, least_ms, most_ms",
    [("120", 120_000, 120_000), ("", 0, 0), ("soon", 0, 0), ("-5", 0, 0), ("9" * 40, 1, 10**13)],
)
def test_how_long_an_endpoint_asks_to_be_left_alone(written, least_ms, most_ms):
    with hook_endpoint(lambda _: Answer(429, headers={"Retry-After": written})) as endpoint:
        assert least_ms <= post(hook_to(endpoint)).retry_after_ms <= most_ms


def test_it_may_name_a_moment():
    with hook_endpoint(
        lambda _: Answer(503, headers={"Retry-After": formatdate(time() + 600, usegmt=True)})
    ) as endpoint:
        assert 590_000 < post(hook_to(endpoint)).retry_after_ms <= 600_000


def test_while_a_secret_is_changed_for_another_each_signs(endpoint):
    both = (parse_secret(OTHER_SECRET), parse_secret(SECRET))
    post(msgspec.structs.replace(hook_to(endpoint), secrets=both))  # the endpoint verifies with one of them
    assert endpoint.requests[0].headers["webhook-signature"].count("v1,") == 2


def test_cookies_are_not_kept(endpoint):
    endpoint.answer = lambda _: Answer(headers={"Set-Cookie": "who=me"})

    async def twice():
        async with EndpointClient(allow_private=True) as client:
            return [await client.post(hook_to(endpoint), [EVENT]) for _ in range(2)]

    asyncio.run(twice())
    assert len(endpoint.requests) == 2
    assert "cookie" not in endpoint.requests[1].headers
