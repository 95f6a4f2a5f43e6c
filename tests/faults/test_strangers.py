"""Whoever reaches `web` can send it what they like: it stays reachable for providers, and stays as small as it is."""

import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from tests.support.person import inbound
from tests.support.processes import THIS, Process, procfile
from tests.support.waiting import HANG_S

HALF = b"POST /webhooks/clinic?token=x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nnum"
HALVES = [HALF[:0], HALF[:20], HALF[:60], HALF]
"""Of a request, as much as a stranger sends of it."""

MOST_KB = 8_192
"""By how much a connection may make a process grow, which reads 256 KB in one go; it is less than 2,000."""


def half_sent(parley, count, held):
    """Connections on which a part of a request has been sent and nothing more comes."""
    for place in range(count):
        raw = socket.create_connection(("127.0.0.1", parley.port), timeout=HANG_S)
        held.enter_context(raw)
        raw.sendall(HALVES[place % len(HALVES)])


def post(parley, place):
    return requests.post(
        parley.webhook, data=inbound(f"+3361234{place:04}", "START"), timeout=HANG_S
    ).status_code


def peak_kb(process):
    """The most memory that it ever had."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1])


def send_all(parley, pieces):
    """What is answered to so many pieces on one connection, which are sent for as long as anybody takes them."""
    with socket.create_connection(("127.0.0.1", parley.port), timeout=HANG_S) as raw:
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                raw.sendall(piece)
        try:
            return raw.recv(1 << 16)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("few", ["files", "connections"])
def test_300_half_sent_requests_keep_no_provider_out(parley, few):
    """Of as many connections as the system, or the operator, lets the process have."""
    if few == "files":
        command = f"sh -c 'ulimit -n 256 && exec {procfile()['web']}'"
        environment = parley.environment
    else:
        command, environment = procfile()["web"], {**parley.environment, "PARLEY_WEB_CONNECTIONS": "100"}
    log = parley.folder / "web.log"
    parley.processes.append(Process("web", command, environment, log, THIS, forked=few == "connections"))
    parley.wait_ready()
    with ExitStack() as held:
        half_sent(parley, 300, held)
        for place in range(20):
            assert post(parley, place) == 200
            half_sent(parley, 20, held)


def long_header():
    yield b"GET / HTTP/1.1\r\nHost: x\r\nv: "
    yield from (b"x" * 1_000_000 for _ in range(100))


def many_headers():
    yield b"GET / HTTP/1.1\r\nHost: x\r\n"
    yield from (b"name: value\r\n" * 12_000 for _ in range(100))


def many_trailers():
    yield b"POST /webhooks/clinic?token=x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n"
    yield from (b"name: value\r\n" * 12_000 for _ in range(100))


def long_path():
    yield b"GET /"
    yield from (b"x" * 1_000_000 for _ in range(100))


def many_requests():
    yield from (b"GET / HTTP/1.1\r\n\r\n" * 20_000 for _ in range(100))


def endless_body():
    yield b"POST /webhooks/clinic?token=x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield from (b"186a0\r\n" + b"x" * 100_000 + b"\r\n" for _ in range(1_000))


@pytest.mark.parametrize(
    "pieces", [long_header, many_headers, many_trailers, long_path, many_requests, endless_body]
)
def test_a_connection_takes_little_memory_whatever_is_sent_on_it(parley, pieces):
    web = parley.spawn("web")
    parley.wait_ready()
    assert post(parley, 1) == 200
    before_kb = peak_kb(web)
    send_all(parley, pieces())
    assert peak_kb(web) - before_kb < MOST_KB
    assert post(parley, 2) == 200
