"""What supervisors are told: by `/healthz`, by `/metrics` of each process, and by systemd's datagrams."""

import re
import socket
from contextlib import ExitStack, closing, contextmanager, suppress
from queue import SimpleQueue
from threading import Thread

import pytest
import requests

from config.archive.archive_schema import has_schema
from config.archive.database import ArchiveDatabase
from config.telemetry.process_registry import ROLES
from config.telemetry.supervision import NOTIFY_TIMEOUT_S, LoopRounds, notify_supervisor, supervised
from tests.support.clinic import feverish, number
from tests.support.person import Crowd, Person, inbound
from tests.support.processes import odd_process
from tests.support.waiting import HANG_S, PATIENCE, free_port, until

WATCHDOG_US = "200000"
CLOSE = b"close"


class FakeSystemd:
    """Hears what processes tell at `address`."""

    def __init__(self, address):
        self.address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0"))
        self._told = SimpleQueue()
        self._thread = Thread(target=self._listen)
        self._thread.start()

    def hear(self):
        return self._told.get(timeout=HANG_S)

    def hear_until(self, state):
        """All that is told before that."""
        told = []
        while (heard := self.hear()) != state:
            told.append(heard)
        return told

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(CLOSE, self.address.replace("@", "\0"))
        self._thread.join()
        self._socket.close()

    def _listen(self):
        while (told := self._socket.recv(100)) != CLOSE:
            self._told.put(told.decode())


@contextmanager
def systemd_at(address):
    listener = FakeSystemd(address)
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    with systemd_at(tmp_path / "notify") as listener:
        monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
        yield listener


def get(port, path):
    return requests.get(f"http://127.0.0.1:{port}{path}", timeout=HANG_S)


def test_each_process_answers_for_itself(parley, octopush):
    """What each has counted adds up to what was done, and one of them tells what lies in Redis beside `web`."""
    ports = {role: free_port() for role in ROLES}
    for role in ROLES:
        parley.spawn(role, PARLEY_METRICS_PORT=f"{ports[role]}")
    parley.wait_ready()
    for port in ports.values():
        until(lambda port=port: _answers(port), 20, "it answers")
    play = feverish("Ada")
    crowd = Crowd(parley.webhook, octopush)
    crowd.talk([Person(number(1), play.says[0], play.answers().get)], 60)
    until(
        lambda: _sum(get(ports["delivery"], "/metrics").text, "parley_sends_total") == len(play.hears),
        20,
        "all that was sent is counted",
    )
    texts = {role: get(port, "/metrics").text for role, port in ports.items()}
    sent = {role: _sum(text, "parley_sends_total") for role, text in texts.items()}
    assert sent == dict.fromkeys(ROLES, 0) | {"delivery": len(play.hears)}
    assert _sum(texts["ratelimit"], "parley_turns_total") == 1
    assert _sum(texts["conversation"], "parley_turns_total") == len(play.says) - 1
    assert {role for role, text in texts.items() if "parley_redis_up{" in text} == {"web", "clock"}
    assert get(ports["clock"], "/").status_code == 404


def test_a_delivery_whose_tries_hold_up_their_loop_says_so_though_its_consumer_goes_round(parley, octopush):
    port = free_port()
    parley.start(delivery=0)
    odd_process(parley, "delivery", "holds-loop+hangs-after-5s", PARLEY_METRICS_PORT=f"{port}")
    until(lambda: _answers(port), 20, "it is well")
    Crowd(parley.webhook, octopush).post([inbound(number(1), "START")])
    until(lambda: not _answers(port), 60, "it says so")
    told = get(port, "/healthz")
    assert told.status_code == 503
    assert told.text.startswith('the loop "tries clinic" of this process has not gone round for ')


def _answers(port):
    try:
        return get(port, "/healthz").status_code == 200
    except requests.ConnectionError:
        return False


def _sum(text, name):
    return sum(float(found) for found in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


def _has_archive(deployment):
    with closing(ArchiveDatabase(f"sqlite:///{deployment.environment['PARLEY_VAR']}/archive.db")) as archive:
        return has_schema(archive)


@pytest.mark.parametrize("role", ROLES)
def test_systemd_is_told_that_a_process_has_begun_goes_round_and_ends(parley, tmp_path, role):
    with systemd_at(tmp_path / "notify") as systemd:
        process = parley.spawn(role, NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC=WATCHDOG_US)
        assert systemd.hear() == "READY=1"
        assert systemd.hear() == "WATCHDOG=1"
        assert systemd.hear() == "WATCHDOG=1"
        if role == "archive":
            until(lambda: _has_archive(parley), 20, "what takes longer than it may take to end is done")
        process.terminate()
        assert set(systemd.hear_until("STOPPING=1")) <= {"WATCHDOG=1"}


def test_an_abstract_address_is_heard_too(monkeypatch):
    with systemd_at(f"@parley-test-{free_port()}") as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
        with supervised(LoopRounds()):
            assert systemd.hear() == "READY=1"


def test_a_systemd_that_does_not_listen_keeps_nobody_from_ending(tmp_path, monkeypatch):
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with ExitStack() as stack:
        deaf, sender = (
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) for _ in range(2)
        )
        deaf.bind(address)
        sender.setblocking(False)
        with suppress(BlockingIOError):  # once nothing more fits
            while True:
                sender.sendto(b"WATCHDOG=1", address)
        telling = Thread(target=notify_supervisor, args=("STOPPING=1",), daemon=True)
        telling.start()
        telling.join(NOTIFY_TIMEOUT_S * PATIENCE)
        assert not telling.is_alive()


def test_a_loop_that_hangs_is_told_by_nobody_and_to_whoever_asks(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    port = free_port()
    with supervised(LoopRounds(hangs_after_s=-1), "127.0.0.1", port):
        answer = get(port, "/healthz")
    assert (answer.status_code, answer.text) == (503, "the loop of this process has not gone round for 0 s\n")
    assert systemd.hear() == "READY=1"
    assert systemd.hear() == "STOPPING=1"


def test_the_watchdog_of_another_process_is_not_fed(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    port = free_port()
    with supervised(LoopRounds(), "127.0.0.1", port):
        assert get(port, "/healthz").ok
    assert systemd.hear() == "READY=1"
    assert systemd.hear() == "STOPPING=1"


def test_a_port_that_is_taken_is_a_warning(capsys):
    with ExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(supervised(LoopRounds(), "127.0.0.1", taken.getsockname()[1]))
    assert "PARLEY_METRICS_PORT cannot be had" in capsys.readouterr().out
