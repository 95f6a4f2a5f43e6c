"""A try ends by its deadline, and begins to send before its moment or not at all, whatever the network does: on real sockets."""

import gzip
import socket
import tracemalloc
from contextlib import contextmanager, suppress
from threading import Event, Thread
from threading import enumerate as living_threads
from time import monotonic

import msgspec
import pytest

from engine.providers import OutcomeUnknown, ProviderRequest, RetryLater, SendAccepted
from tests.support.blocking_client import BlockingClient
from tests.support.waiting import HANG_S, free_port, until
from tests.workers.test_wires import OK, SMS, Provider, read_request, server, silent, soon, within
from workers.sending import deadline_transport, send_steps, thread_resolver
from workers.sending.deadline_transport import DeadlineTransport
from workers.sending.http_client import TRY_TIMEOUT_S, ProviderClient
from workers.sending.http_connection import MAX_ANSWER_BYTES
from workers.sending.provider_route import MAX_RESOLVING
from workers.store.outboxes import OUTBOX_LEASE_MS

LATE_S = 10.0
"""Sooner than this after its deadline a try has ended, however busy the machine is; one that has none has not."""

UNREACHABLE = RetryLater("ConnectTimeout", "the provider cannot be reached")
NO_ANSWER = OutcomeUnknown("ReadTimeout", "the provider gave no answer")
UNREADABLE = OutcomeUnknown("ContentDecodingError", "Parley could not read the provider's answer")


@pytest.fixture
def connect():
    """A factory of clients of a provider; `resolve` answers for its host's addresses."""
    clients = []

    def build(provider, resolve=socket.getaddrinfo):
        transport = DeadlineTransport(provider.url, resolve)
        clients.append(BlockingClient(ProviderClient(provider, transport)))
        return clients[-1]

    yield build
    for client in clients:
        client.close()


@contextmanager
def peer(behave, connections=1, room=1 << 20):
    """A server that does `behave(connection)` with each of so many connections, for which it keeps `room` bytes until they
    are read. Answers its port and the connections."""
    made = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)

        def serve():
            for _ in range(connections):
                connection, _ = listener.accept()
                made.append(connection)
                with connection, suppress(ConnectionError):
                    behave(connection)

        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], made
    thread.join(HANG_S)


def hold(connection):
    """Say nothing, and end with the other side."""
    while connection.recv(65536):
        pass


def test_a_lease_lasts_for_a_whole_try_that_begins_as_late_as_it_may():
    latest_s = max(send_steps.MAX_START_DELAY_S, send_steps.MAX_START_DELAY_AFTER_LOOK_UP_S)
    assert latest_s + TRY_TIMEOUT_S < OUTBOX_LEASE_MS / 1000


def addresses(*hosts):
    def resolve(host, port, **more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (each, port)) for each in hosts]

    return resolve


def test_silent_addresses_before_the_good_one_share_its_deadline(connect):
    with server(OK) as (url, read):
        port = int(url.rpartition(":")[2])
        with quiet_addresses(port) as quiet:
            client = connect(Provider(f"http://sms.example:{port}"), addresses(*quiet, "127.0.0.1"))
            assert client.send(SMS, within()) == SendAccepted("t")
    assert len(read) == 1


def test_a_host_of_silent_addresses_is_given_up_by_the_deadline(connect):
    port = free_port()
    with quiet_addresses(port) as quiet:
        client = connect(Provider(f"http://sms.example:{port}"), addresses(*quiet))
        begun_s = monotonic()
        assert client.send(SMS, within(first_byte_s=0.5)) == UNREACHABLE
    assert monotonic() - begun_s < LATE_S


@contextmanager
def quiet_addresses(port, last=8):
    """127.0.0.2 and so on, on a port of which nobody is connected."""
    if last == 1:
        yield []
        return
    with quiet_addresses(port, last - 1) as others, silent(f"127.0.0.{last}", port):
        yield [*others, f"127.0.0.{last}"]


def test_a_resolver_that_hangs_holds_no_try_beyond_its_deadline(connect, monkeypatch):
    """Nor more threads than a few; and once it answers, all goes on."""
    monkeypatch.setattr(thread_resolver, "RESOLVING_TIMEOUT_S", 0.02)
    free, asked = Event(), []

    def resolve(host, port, **more):
        asked.append(host)
        assert free.wait(HANG_S)
        return addresses("127.0.0.1")(host, port)

    with server(OK) as (url, _):
        client = connect(Provider(url.replace("127.0.0.1", "sms.example")), resolve)
        begun_s = monotonic()
        outcomes = [client.send(SMS, within(first_byte_s=0.1)) for _ in range(2 * MAX_RESOLVING)]
        assert monotonic() - begun_s < LATE_S
        assert all(isinstance(each, RetryLater) for each in outcomes)
        assert len(asked) == MAX_RESOLVING
        assert all(thread.daemon for thread in living_threads() if thread.name == "resolve")
        free.set()
        until(lambda: client.send(SMS, soon()) == SendAccepted("t"), 10, "the resolver answers again")


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "no such host"), MemoryError(), UnicodeError("label empty")]
)
def test_a_name_that_is_not_found_is_not_waited_for_and_nothing_is_sent(connect, error):
    def resolve(host, port, **more):
        raise error

    outcome = connect(Provider("http://sms.example"), resolve).send(SMS, soon())
    assert outcome == RetryLater("ConnectionError", "the provider cannot be reached")


def test_a_resolver_for_which_there_is_no_thread_loses_no_room(connect, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    with server(OK) as (url, _), monkeypatch.context() as patched:
        patched.setattr(thread_resolver, "call_in_thread", refuse)
        client = connect(Provider(url.replace("127.0.0.1", "sms.example")), addresses("127.0.0.1"))
        outcomes = [client.send(SMS, soon()) for _ in range(MAX_RESOLVING + 1)]
        assert {*outcomes} == {RetryLater("ConnectionError", "the provider cannot be reached")}
        patched.undo()
        assert client.send(SMS, soon()) == SendAccepted("t")


def drip_body(connection):
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    drip(connection, b"a")


def drip_headers(connection):
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    drip(connection, b"a: b\r\n")


def drip_status(connection):
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 ")
    drip(connection, b"O")


def drip(connection, piece):
    """A piece now and then, until nobody listens any more."""
    connection.settimeout(0.02)
    while True:
        connection.sendall(piece)
        with suppress(TimeoutError):
            if not connection.recv(1):
                return


@pytest.mark.parametrize("behave", [drip_body, drip_headers, drip_status, hold])
def test_an_answer_that_comes_in_drops_or_never_is_given_up_by_the_deadline(connect, behave):
    with peer(behave) as (port, _):
        client = connect(Provider(f"http://127.0.0.1:{port}"))
        begun_s = monotonic()
        outcome = client.send(SMS, within(answer_s=0.4))
        assert monotonic() - begun_s < LATE_S
    assert outcome == NO_ANSWER


def test_a_provider_that_never_reads_a_request_is_given_up_and_gets_no_more_of_it(connect):
    got, given_up = [], Event()

    def behave(connection):
        assert given_up.wait(HANG_S)
        while more := connection.recv(65536):
            got.append(len(more))

    long = msgspec.structs.replace(SMS, text="hello" * 200_000)
    with peer(behave, room=4_096) as (port, _):
        begun_s = monotonic()
        assert connect(Provider(f"http://127.0.0.1:{port}")).send(long, within(answer_s=0.4)) == NO_ANSWER
        assert monotonic() - begun_s < LATE_S
        given_up.set()
    assert sum(got) < len(long.text)


def test_what_has_not_got_across_by_the_deadline_does_not_arrive_later(connect):
    """The connection is reset: the kernel sends nothing of it again."""
    resets = []

    def behave(connection):
        try:
            hold(connection)
        except ConnectionResetError:
            resets.append(True)

    with peer(behave) as (port, _):
        assert connect(Provider(f"http://127.0.0.1:{port}")).send(SMS, within(answer_s=0.2)) == NO_ANSWER
    assert resets == [True]


def test_a_tls_handshake_that_hangs_got_nothing(connect):
    with peer(hold) as (port, _):
        begun_s = monotonic()
        assert (
            connect(Provider(f"https://127.0.0.1:{port}")).send(SMS, within(first_byte_s=0.3)) == UNREACHABLE
        )
        assert monotonic() - begun_s < LATE_S


@pytest.mark.parametrize("bundle", ["missing", "damaged"])
def test_a_bundle_of_certificates_that_cannot_be_read_got_nothing(connect, monkeypatch, tmp_path, bundle):
    (tmp_path / "damaged").write_text("no certificate")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / bundle))
    outcome = connect(Provider(f"https://127.0.0.1:{free_port()}")).send(SMS, soon())
    assert outcome == RetryLater("SSLError", "the provider cannot be reached")


def test_a_proxy_that_hangs_got_nothing(connect, monkeypatch):
    with peer(hold) as (port, _):
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        begun_s = monotonic()
        assert connect(Provider("https://sms.example")).send(SMS, within(first_byte_s=0.3)) == UNREACHABLE
        assert monotonic() - begun_s < LATE_S


@pytest.mark.parametrize("kept", [False, True])
def test_a_connection_that_is_there_too_late_carries_nothing(connect, monkeypatch, kept):
    """However long everything stands still between the connection and the first byte."""
    got = []

    def behave(connection):
        while more := connection.recv(65536):
            got.append(more)
            connection.sendall(OK)

    with peer(behave) as (port, _):
        client = connect(Provider(f"http://127.0.0.1:{port}"))
        if kept:
            assert client.send(SMS, soon()) == SendAccepted("t")
        deadline = within(first_byte_s=0.3)

        def reach(place):
            if place == "after_connect":
                until(lambda: monotonic() > deadline.first_byte_s, 1, "its moment is over")

        monkeypatch.setattr("config.telemetry.faults.reach", reach)
        assert client.send(SMS, deadline) is None
        client.close()
    assert len(got) == kept


def endless_body(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        connection.sendall(b"a" * 65536)


def endless_chunks(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")


def endless_headers(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"a: " + b"b" * 1000 + b"\r\n")


def endless_line(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\na: ")
    while True:
        connection.sendall(b"b" * 65536)


def endless_trailer(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\na: ")
    while True:
        connection.sendall(b"b" * 65536)


@pytest.mark.parametrize(
    "answer", [endless_body, endless_chunks, endless_headers, endless_line, endless_trailer]
)
def test_of_an_answer_without_end_only_the_beginning_is_read(connect, answer):
    def behave(connection):
        read_request(connection)
        answer(connection)

    with peer(behave) as (port, _):
        client = connect(Provider(f"http://127.0.0.1:{port}"))
        outcome, peak = measured(lambda: client.send(SMS, within()))
    assert isinstance(outcome, OutcomeUnknown)
    assert outcome == UNREADABLE or answer in (endless_headers, endless_line)
    assert peak < 4 * MAX_ANSWER_BYTES


def test_a_compressed_answer_was_not_asked_for_and_is_not_unpacked(connect):
    bomb = gzip.compress(bytes(100 << 20), 9)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    with server(head + bomb) as (url, _):
        client = connect(Provider(url))
        outcome, peak = measured(lambda: client.send(SMS, within()))
    assert outcome == UNREADABLE
    assert peak < MAX_ANSWER_BYTES


def test_a_charset_in_the_place_of_a_compression_is_passed_over(connect):
    with server(OK.replace(b"\r\n\r\n", b"\r\nContent-Encoding: utf-8\r\n\r\n")) as (url, _):
        assert connect(Provider(url)).send(SMS, soon()) == SendAccepted("t")


def measured(do):
    """What it answers, and how many bytes were in use at once, of those that it took."""
    tracemalloc.start()
    try:
        return do(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_longest_page_of_a_look_up_is_read(connect):
    page = b"a" * MAX_ANSWER_BYTES
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page) as (url, _):
        assert connect(Provider(url)).look_up(SMS, 0.0, set(), monotonic() + HANG_S).ticket == page.decode()


def test_a_connection_is_kept_for_the_next_try(connect):
    def behave(connection):
        for _ in range(3):
            read_request(connection)
            connection.sendall(OK)

    with peer(behave) as (port, made):
        client = connect(Provider(f"http://127.0.0.1:{port}"))
        assert [client.send(SMS, soon()) for _ in range(3)] == [SendAccepted("t")] * 3
    assert len(made) == 1


@pytest.mark.parametrize("stands_still", [False, True])
def test_a_connection_that_was_closed_while_nobody_used_it_is_made_anew(connect, stands_still):
    """Even if the try comes before anybody could hear of it: the loop stands still meanwhile, and goes on with the try."""
    may_close, closed = Event(), Event()

    def behave(connection):
        read_request(connection)
        connection.sendall(OK)
        if len(made) == 1:
            assert may_close.wait(HANG_S)
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            closed.set()

    with peer(behave, connections=2) as (port, made):
        client = connect(Provider(f"http://127.0.0.1:{port}"))

        async def send_once_closed():
            may_close.set()
            assert closed.wait(HANG_S)
            return await client.client.send(SMS, soon())

        assert client.send(SMS, soon()) == SendAccepted("t")
        if stands_still:
            outcome = client._wait_for(send_once_closed())
        else:
            may_close.set()
            assert closed.wait(HANG_S)
            outcome = client.send(SMS, soon())
    assert outcome == SendAccepted("t")
    assert len(made) == 2


def test_a_connection_that_nobody_uses_is_closed(connect, monkeypatch):
    monkeypatch.setattr(deadline_transport, "KEPT_S", 0.05)
    ended = Event()

    def behave(connection):
        read_request(connection)
        connection.sendall(OK)
        hold(connection)
        ended.set()

    with peer(behave) as (port, _):
        assert connect(Provider(f"http://127.0.0.1:{port}")).send(SMS, soon()) == SendAccepted("t")
        assert ended.wait(HANG_S)


def test_a_connection_that_nobody_has_used_for_so_long_carries_no_other_try(connect, monkeypatch):
    """Also before it is closed: its server may be about to."""
    monkeypatch.setattr(deadline_transport, "KEPT_S", HANG_S)
    with peer(lambda connection: (read_request(connection), connection.sendall(OK)), 2) as (port, made):
        client = connect(Provider(f"http://127.0.0.1:{port}"))
        assert client.send(SMS, soon()) == SendAccepted("t")
        monkeypatch.setattr(deadline_transport, "KEPT_S", 0.0)
        assert client.send(SMS, soon()) == SendAccepted("t")
    assert len(made) == 2


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        OK + OK,
    ],
    ids=["it says so", "HTTP/1.0", "more came than was asked for"],
)
def test_a_connection_that_is_not_to_be_kept_carries_no_other_try(connect, answer):
    def behave(connection):
        read_request(connection)
        connection.sendall(answer)
        hold(connection)

    with peer(behave, connections=2) as (port, made):
        client = connect(Provider(f"http://127.0.0.1:{port}"))
        assert [client.send(SMS, soon()) for _ in range(2)] == [SendAccepted("t")] * 2
        client.close()
    assert len(made) == 2


@pytest.mark.parametrize("value", ["b\r\nc: d", "no \udcff text"])
def test_a_header_that_cannot_be_written_leaves_nothing(connect, value):
    provider = Provider("http://127.0.0.1:9")
    provider.write_send_request = lambda sms, now: ProviderRequest(provider.url, {"a": value}, b"hello")
    assert connect(provider).send(SMS, soon()) == RetryLater("InvalidHeader", UNREACHABLE.why)
