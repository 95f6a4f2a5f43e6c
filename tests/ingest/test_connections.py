"""A connection waits for its client for so long and holds so many bytes; where there are too many, the one that has waited
for the longest goes. Times are passed in, but for one test of each deadline over real sockets."""

import asyncio
import select
import socket
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from math import inf

import msgspec
import pytest
import uvicorn
from uvicorn.server import ServerState

from config.telemetry import metrics
from ingest.connections import ConnectionLimits, ConnectionWatch
from ingest.http_server import connections_within
from tests.ingest.conftest import serving
from tests.support.waiting import HANG_S, free_port, until

LIMITS = ConnectionLimits()
HOST = b"Host: x\r\n"
NEVER = 1e9
"""Seconds that no test lasts."""


async def answer(scope, receive, send, body=b"well"):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def ok(scope, receive, send):
    """Answers each request once all of it is there; `/early` before that, `/never` never, `/much` more than fits anywhere."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            await send({"type": f"{(await receive())['type']}.complete"})
        return
    if scope["path"] == "/never":
        while (await receive())["type"] != "http.disconnect":
            pass
    elif scope["path"] == "/much":
        await answer(scope, receive, send, bytes(64 << 20))
    else:
        while scope["path"] != "/early" and (message := await receive()).get("more_body"):
            if message["type"] == "http.disconnect":
                return
        await answer(scope, receive, send)


def refused(cause):
    return metrics.CONNECTIONS_REFUSED.labels(cause)._value.get()


@contextmanager
def served(**limits):
    """The port of a server that has no deadlines but those given."""
    patient = {"headers_s": NEVER, "stall_s": NEVER, "look_s": 0.02}
    with serving(ok, free_port(), ConnectionLimits(**patient | limits)) as base:
        yield int(base.rpartition(":")[2])


def connect(port, sent=b""):
    raw = socket.create_connection(("127.0.0.1", port), timeout=HANG_S)
    raw.sendall(sent)
    return raw


def heard(raw):
    """All that comes until the server closes the connection."""
    pieces = []
    try:
        while piece := raw.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def status_of(heard_bytes):
    return int(heard_bytes.split()[1]) if heard_bytes else None


def ask(port, request):
    """The status of what is answered to `request`, which wants no further ones."""
    with connect(port, request) as raw:
        return status_of(heard(raw))


def drip(raw, piece):
    """Send `piece` again and again, until something comes back."""
    while not select.select([raw], [], [], 0.01)[0]:
        raw.sendall(piece)
    return heard(raw)


def get(path=b"/", *headers):
    return b"GET %b HTTP/1.1\r\n%b%bConnection: close\r\n\r\n" % (path, HOST, b"".join(headers))


@pytest.mark.parametrize("length, status", [(LIMITS.header_bytes - 100, 200), (LIMITS.header_bytes, 431)])
@pytest.mark.parametrize("where", ["value", "name", "path"])
def test_headers_have_so_many_bytes_wherever_they_are(length, status, where):
    long = b"x" * length
    with served() as port:
        request = (
            get(b"/" + long)
            if where == "path"
            else get(b"/", long + b": v\r\n" if where == "name" else b"v: %b\r\n" % long)
        )
        assert ask(port, request) == status


@pytest.mark.parametrize("count, status", [(LIMITS.headers - 2, 200), (LIMITS.headers - 1, 431)])
def test_headers_are_so_many(count, status):
    with served() as port:
        assert ask(port, get(b"/", b"a:b\r\n" * count)) == status


def test_what_never_becomes_a_header_is_cut_off_too():
    """A value without end, and empty lines before a request, in pieces that the limit would hold."""
    with served() as port:
        for begin, piece in ((b"GET / HTTP/1.1\r\nv: ", b"x" * 1_000), (b"", b"\r\n" * 500)):
            with connect(port, begin) as raw:
                assert status_of(drip(raw, piece)) == 431


def test_trailers_are_headers():
    begin = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n"
    with served() as port:
        assert ask(port, begin + b"a:b\r\n" * 200) == 431
        with connect(port, begin + b"v: ") as raw:
            assert status_of(drip(raw, b"x" * 1_000)) == 431


def test_a_body_of_many_small_chunks_is_no_header():
    begin = b"POST / HTTP/1.1\r\n" + HOST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served() as port:
        assert ask(port, begin + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n") == 200


def test_headers_that_drip_are_408_and_counted():
    before = refused("slow_headers")
    with served(headers_s=0.2) as port, connect(port, b"GET / HTTP/1.1\r\nv: ") as raw:
        assert status_of(drip(raw, b"x")) == 408
    assert refused("slow_headers") == before + 1


def test_a_connection_that_asks_nothing_is_closed_without_a_word():
    with served(headers_s=0.2) as port:
        assert ask(port, b"") is None


@pytest.mark.parametrize("sent", [b"", b"x"], ids=["silent", "dripping"])
def test_a_body_that_stands_still_or_drips_is_408(sent):
    """The application learns that nobody waits any more."""
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 60000\r\n\r\nab"
    with served(stall_s=0.2, body_bytes_per_s=1e9) as port, connect(port, head) as raw:
        assert status_of(drip(raw, sent)) == 408


def test_what_is_left_of_a_body_that_is_answered_is_not_waited_for_longer():
    head = b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 60000\r\n\r\nab"
    with served(stall_s=0.2) as port, connect(port, head) as raw:
        while b"well" not in raw.recv(1 << 16):
            pass
        with suppress(BrokenPipeError, ConnectionResetError):
            assert drip(raw, b"x").count(b"HTTP/1.1") == 0, "one answer is enough"


def test_an_answer_that_is_not_taken_is_not_kept():
    before = refused("slow_reader")
    with served(stall_s=0.2) as port, connect(port, get(b"/much")) as raw:
        until(lambda: refused("slow_reader") == before + 1, 5, "its connection is ended")
        assert len(heard(raw)) < 64 << 20


def test_whoever_sends_all_is_answered_beside_any_number_of_those_who_do_not():
    """However many connect: of those that wait, the one that has waited for the longest goes."""
    halves = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nv: ", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"]
    before = refused("crowded")
    with served(connections=8) as port, ExitStack() as held:
        for count in range(40):
            held.enter_context(connect(port, halves[count % len(halves)]))
            if count % 4 == 3:
                assert ask(port, get()) == 200
        assert refused("crowded") >= before + 32


def test_where_all_are_being_answered_one_more_is_503():
    with served(connections=2) as port, ExitStack() as held:
        for _ in range(2):
            held.enter_context(connect(port, get(b"/never")))
        until(lambda: ask(port, get()) == 503, 5, "there is no room")
        with connect(port, get()) as raw:
            assert b"retry-after: 1\r\n" in heard(raw)
        held.close()
        until(lambda: ask(port, get()) == 200, 5, "there is room again")


def test_requests_that_do_not_wait_for_their_answers_are_so_many():
    before = refused("pipelined")
    with served() as port:
        request = b"GET /never HTTP/1.1\r\n" + HOST + b"\r\n"
        assert ask(port, request * 100) is None
        assert refused("pipelined") == before + 1
        with connect(port, (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 5 + get()) as raw:
            assert heard(raw).count(b"200 OK") == 6


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_an_upgrade_is_answered_as_if_nobody_had_asked_for_it(upgrade):
    request = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
    with served() as port, connect(port, request) as raw:
        assert raw.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_what_is_no_http_is_400_and_counted():
    before = refused("malformed")
    with served() as port:
        assert ask(port, b"EHLO example.org\r\n") == 400
    assert refused("malformed") == before + 1


# In time that is passed in


class FakeTransport:
    """What uvicorn asks of a transport."""

    def __init__(self):
        self.written, self.unsent, self.ended = b"", 0, False

    def get_extra_info(self, name):
        return None

    def get_write_buffer_size(self):
        return self.unsent

    def is_closing(self):
        return self.ended

    def write(self, data):
        self.written += data

    def close(self):
        self.ended = True

    abort = close

    def pause_reading(self):
        pass

    resume_reading = pause_reading


def lifetime_s(pieces, most_s, every_s=1.0, limits=LIMITS):
    """For how many seconds a connection lives (`most_s`: for longer) on which one of `pieces` comes every second, if the
    connections are looked at every `every_s` seconds."""

    async def live():
        config = uvicorn.Config(ok, log_config=None, lifespan="off")
        watch = ConnectionWatch(msgspec.structs.replace(limits, look_s=inf))  # those are by real time
        protocol = watch.protocol(
            config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
        )
        transport = FakeTransport()
        protocol.connection_made(transport)
        begun_s = protocol.since_s
        passed_s = 0.0
        for piece in pieces:
            if transport.ended or passed_s >= most_s:
                break
            if piece:
                protocol.data_received(piece)
            await asyncio.sleep(0)  # the application takes it
            passed_s += every_s
            protocol.look(begun_s + passed_s, every_s)
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        return passed_s

    return asyncio.run(live())


def dripping(head, piece):
    yield head
    while True:
        yield piece


HEAD = b"POST / HTTP/1.1\r\nContent-Length: 100000000\r\n\r\n"


@pytest.mark.parametrize(
    "pieces, least_s, most_s",
    [
        (dripping(b"", b""), 10, 12),
        (dripping(b"GET /", b"x"), 10, 12),
        (dripping(HEAD, b""), 30, 32),
        (dripping(HEAD, b"x" * 10), 30, 33),
        (dripping(HEAD, b"x" * 400), 140, 160),  # 30 s, and a second for each 500 bytes
        (dripping(HEAD, b"x" * 600), 5_000, None),
    ],
    ids=["nothing", "headers", "no body", "10 B/s", "400 B/s", "600 B/s"],
)
def test_how_long_a_slow_client_is_waited_for(pieces, least_s, most_s):
    lived_s = lifetime_s(pieces, 5_000)
    assert lived_s >= least_s
    assert most_s is None or lived_s <= most_s


def test_what_was_fast_may_not_rest_for_as_long_as_it_likes():
    pieces = [HEAD, *[b"x" * 50_000] * 20, *[b""] * 1_000]
    assert 50 <= lifetime_s(pieces, 1_000) <= 53


def test_in_a_flood_the_oldest_go_first_and_each_newcomer_costs_little():
    """Those that wait are put in order once for all of them, not once for each newcomer."""
    looked_at = Counter()

    class Waiting:
        def __init__(self, since_s, awaited="headers"):
            self.since_s, self.awaited, self.gone, self.loop = since_s, awaited, False, loop

        def awaits(self):
            looked_at["all"] += 1
            return self.awaited

        def refuse(self, cause):
            self.gone = cause == "crowded"

    loop = asyncio.new_event_loop()
    watch = ConnectionWatch(ConnectionLimits(connections=100))
    first = [Waiting(count, "answer" if count % 2 else "headers") for count in range(100)]
    flood = [Waiting(count) for count in range(100, 1_000)]
    assert all(watch.admit(each) for each in first + flood)
    assert [each.since_s for each in first + flood if not each.gone] == [
        *range(1, 100, 2),
        *range(950, 1_000),
    ]
    assert looked_at["all"] < 10 * len(flood)
    loop.close()


def test_each_connection_may_be_a_file_and_have_one_to_redis():
    assert [connections_within(files) for files in (0, 100, 256, 1_024, 2_100)] == [1, 1, 78, 462, 1_000]
