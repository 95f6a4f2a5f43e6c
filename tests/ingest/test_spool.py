"""What was put into the spool comes out of it in order, whatever was cut off or damaged; and what is in it is told."""

import asyncio
import errno
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from config.host import THIS_HOST
from config.settings.config_errors import ConfigError
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from engine.model.events import decode_inbound
from engine.turns.advance import _MOST_APPLIED_EVENTS
from ingest.intake import spool as spools
from ingest.intake import spool_drain
from ingest.intake.spool import MAX_AGE_MS, Spool, SpooledEvent, SpoolError, SpoolStatus, open_spool
from tests.ingest.test_web import SENDER, WITHIN_S, mail, metric, post, sms
from tests.support.processes import ROOT
from tests.support.waiting import until

MOST = 1 << 20
NOW = 1_795_000_000_000


def event(number, text="x", at=NOW):
    return SpooledEvent(f"+336{number:08}", text.encode(), False, at, "clinic", "sms")


@pytest.fixture
def spool(tmp_path):
    return open_spool(tmp_path / "spool", MOST)


def put(spool, *numbers, **how):
    return spool.append([event(number, **how) for number in numbers], begin=True)


def rest(spool, most=1_000):
    """All that is not yet handed over."""
    return spool.read_part(spool.read_position(), most)


def numbers(part):
    return [int(each.sender.removeprefix("+336")) for each in part.events]


def content(spool):
    return (spool.damaged_file.parent / "events").read_bytes()


def change(spool, written):
    (spool.damaged_file.parent / "events").write_bytes(written)


def test_what_was_put_in_comes_out_in_order_part_by_part_and_the_place_outlives_the_process(spool):
    put(spool, 1, 2)
    put(spool, 3, 4, 5)
    first = rest(spool, 2)
    assert (numbers(first), first.last) == ([1, 2], False)
    spool.save_position(first.end_position)
    other = Spool(spool.damaged_file.parent, MOST)
    second = rest(other, 2)
    assert (numbers(second), second.last, second.end_position.lines) == ([3, 4], False, 4)
    other.save_position(second.end_position)
    last = rest(spool)
    assert (numbers(last), last.last) == ([5], True)


def test_nothing_is_in_it_until_something_is_and_once_it_is_emptied(spool):
    assert not spool.in_use
    assert spool.append([event(1)], begin=False) == -1
    assert not spool.in_use
    assert put(spool, 1) == 0
    assert spool.in_use
    assert spool.append([event(2)], begin=False) > 0
    with spool.locked_file() as file:
        spool.truncate_file(file)
    assert not spool.in_use
    assert spool.append([event(3)], begin=False) == -1
    put(spool, 4)
    assert numbers(rest(spool)) == [4], "nor does the place outlive what it was the place of"


def test_a_file_that_was_cut_off_anywhere_keeps_what_is_whole_and_hides_nothing_that_follows(tmp_path):
    spool = open_spool(tmp_path / "cut", MOST)
    put(spool, 1, 2, 3)
    whole = content(spool)
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(1, len(whole), 2):
        change(spool, whole[:length])
        before = [1, 2, 3][: sum(end <= length for end in ends[1:])]
        assert numbers(rest(spool)) == before
        assert rest(spool).last
        put(spool, 4, 5)
        part = rest(spool)
        assert (numbers(part), part.damaged) == ([*before, 4, 5], []), length


@pytest.mark.parametrize("garbage", [b"\0" * 300, b"\n\n\n", b"\xff\n~\n" * 9, b"a" * 5_000])
def test_what_was_damaged_in_the_middle_is_put_aside_and_the_rest_goes_on(spool, garbage):
    put(spool, 1, 2, 3)
    lines = content(spool).splitlines(keepends=True)
    change(spool, b"".join([*lines[:2], garbage, *lines[2:]]))
    part = rest(spool)
    assert set(numbers(part)) >= {1, 3}
    assert all(line and line in garbage + lines[2] for line in part.damaged if line)
    spool.put_aside([b"one", b"two"])
    spool.put_aside([b"three"])
    assert spool.damaged_file.read_bytes() == b"one\ntwo\nthree\n"
    assert spool.damaged_file.stat().st_mode & 0o077 == 0


def test_one_byte_that_changed_harms_two_events_at_the_most_and_none_that_it_made_up_comes_out(tmp_path):
    spool = open_spool(tmp_path / "flip", MOST)
    put(spool, *range(6))
    whole = content(spool)
    head = whole.index(b"\n") + 1
    for at in range(0, len(whole), 3):
        change(spool, whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        part = rest(spool)
        found = numbers(part)
        assert found == sorted(set(found))
        assert len(found) >= (4 if at >= head else 6)
        assert set(part.events) <= {event(number) for number in range(6)}


def test_a_place_that_cannot_be_read_is_the_beginning(spool):
    put(spool, 1, 2)
    spool.save_position(rest(spool, 1).end_position)
    change(spool, b"#" + content(spool)[1:])
    assert numbers(rest(spool)) == [1, 2]


def test_a_full_spool_takes_nothing_more_and_loses_nothing(tmp_path):
    spool = open_spool(tmp_path / "full", 1_000)
    assert spool.has_room()
    put(spool, 1, 2)
    with pytest.raises(SpoolError, match="PARLEY_SPOOL_MB") as refused:
        put(spool, 3, text="x" * 900)
    assert refused.value.reason == "full"
    put(spool, 4)
    assert numbers(rest(spool)) == [1, 2, 4]


@contextmanager
def files_of_at_most(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_refuses_what_it_has_no_room_for_and_harms_nothing(spool):
    """The kernel writes what it can, and that is taken back."""
    put(spool, 1)
    size = len(content(spool))
    with files_of_at_most(size + 40), pytest.raises(SpoolError) as refused:
        put(spool, 2, 3)
    assert refused.value.reason == "disk_full"
    assert len(content(spool)) == size
    put(spool, 4)
    assert numbers(rest(spool)) == [1, 4]


def test_a_sync_that_fails_acknowledges_nothing(spool, monkeypatch):
    put(spool, 1)

    def fail(fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(spools.os, "fsync", fail)
    with pytest.raises(SpoolError, match="Input/output error") as refused:
        put(spool, 2)
    monkeypatch.undo()
    assert refused.value.reason == "failed"
    assert numbers(rest(spool)) == [1]


class Taking:
    """Mailboxes, and a Redis, that take whatever they are handed."""

    def __init__(self):
        self.events = []

    async def accept_spooled(self, events, _within_s):
        self.events += events

    async def is_reachable(self):
        return True


def test_what_a_failing_disk_takes_back_does_not_hide_what_comes_in_its_place(spool, monkeypatch):
    """Another process hands over while a large write is being synced, and gets no further than its first part."""
    put(spool, 0)
    taking, moved = Taking(), Event()
    handing = spool_drain.SpoolDrain(spool, taking, taking)
    thread = Thread(target=lambda: asyncio.run(handing.drain_if_ours()))
    sync, move = os.fsync, spool.save_position

    def once(place):
        move(place)
        handing._stopping.set()
        moved.set()

    def fail(_fd):
        monkeypatch.setattr(os, "fsync", sync)
        thread.start()
        moved.wait(0.5)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(spool, "save_position", once)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SpoolError):
        put(spool, *range(1, 41))
    thread.join()
    put(spool, 41)
    monkeypatch.setattr(spool, "save_position", move)
    asyncio.run(spool_drain.SpoolDrain(spool, taking, taking).drain_if_ours())
    assert event(41) in taking.events
    assert not spool.in_use


def test_what_was_written_is_synced_with_its_folder_before_it_is_acknowledged(spool, monkeypatch):
    synced = []
    monkeypatch.setattr(
        spools.os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
    )
    put(spool, 1)
    assert synced == ["events", "spool"]
    put(spool, 2)
    assert synced == ["events", "spool", "events"]


def test_it_is_one_process_s_turn_until_it_is_over(spool):
    other = Spool(spool.damaged_file.parent, MOST)
    with spool.drain_lock() as ours, other.drain_lock() as theirs:
        assert (ours, theirs) == (True, False)
    with other.drain_lock() as theirs:
        assert theirs


def test_whoever_writes_waits_for_whoever_writes_but_not_for_ever(spool, monkeypatch):
    monkeypatch.setattr(spools, "LOCK_TIMEOUT_S", 0.2)
    other = Spool(spool.damaged_file.parent, MOST)
    with spool.locked_file(), pytest.raises(SpoolError) as refused:
        put(other, 1)
    assert refused.value.reason == "busy"
    monkeypatch.undo()
    with spool.locked_file():
        writer = Thread(target=put, args=(other, 2))
        writer.start()
        assert numbers(rest(spool)) == []
    writer.join()
    assert numbers(rest(spool)) == [2]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["put", "move", "empty", "other"]), max_size=20))
def test_however_often_it_is_asked_it_tells_what_there_is(tmp_path_factory, steps):
    spool = open_spool(tmp_path_factory.mktemp("standing") / "spool", MOST)
    waiting = []
    for number, step in enumerate(steps):
        match step:
            case "put":
                put(spool, number, number, at=NOW + number)
                waiting += [number, number]
            case "move" if waiting:
                spool.save_position(rest(spool, 1).end_position)
                del waiting[0]
            case "empty":
                with spool.locked_file() as file:
                    spool.truncate_file(file)
                waiting.clear()
            case "other":
                spool = Spool(spool.damaged_file.parent, MOST)
        size = len(content(spool))
        assert spool.read_status() == SpoolStatus(len(waiting), size, NOW + waiting[0] if waiting else 0)


def test_ages_are_of_one_clock_and_never_of_the_future_nor_of_another_age():
    assert [event(1, at=NOW - ago).age_ms(NOW) for ago in (0, 70_000, -5, NOW)] == [0, 70_000, 0, MAX_AGE_MS]


RECORDED = b"7fbf07c1 lqwrMzM2MDAwMDAwMDHEBZOjc21zw88AAAGh7lZeAKZjbGluaWOjc21z"
"""A line that the first release with a spool wrote."""


def test_a_line_of_the_first_release_is_read_for_ever(spool):
    put(spool, 1)
    change(spool, content(spool).splitlines(keepends=True)[0] + RECORDED + b"\n")
    assert rest(spool).events == [SpooledEvent("+33600000001", b"\x93\xa3sms", True, NOW, "clinic", "sms")]


@pytest.mark.parametrize("folder", ["file", "file/below", "no/where"])
def test_a_folder_that_cannot_be_used_ends_the_process_at_its_start_with_a_sentence(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"PARLEY_SPOOL is '.*': cannot be used .*: expected a folder"):
        open_spool(tmp_path / folder, MOST)


@pytest.mark.processes
def test_the_process_says_so_and_nothing_else(tmp_path):
    (tmp_path / "file").touch()
    environ = {
        **os.environ,
        "PARLEY_REDIS_URL": "redis://127.0.0.1:1",
        "PARLEY_SPOOL": str(tmp_path / "file"),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "ingest"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("PARLEY_SPOOL is")


@pytest.fixture
def spooling(web, own_valkey, tmp_path):
    """The base URL of a web process with a spool, on `own_valkey`."""
    return web(
        PARLEY_REDIS_URL=own_valkey.url,
        PARLEY_BROKER_URL=own_valkey.broker_url,
        PARLEY_SPOOL=str(tmp_path / "spool"),
        PARLEY_SPOOL_MB="1",
    )


def spooled(base):
    return metric(base, "parley_spool_events")


def until_handed_over(base):
    until(lambda: spooled(base) == 0, 10, "what was spooled is handed over")


def ready(base):
    reply = requests.get(f"{base}/readyz", timeout=60)
    return reply.status_code, reply.json()


class Away:
    """A Redis that takes nothing, in one of three ways."""

    def __init__(self, valkey, how):
        self._valkey, self._how = valkey, how

    def __enter__(self):
        match self._how:
            case "stopped":
                self._valkey.stop()
            case "frozen":
                self._valkey.sigstop()
            case "full":
                self._valkey.client().config_set("maxmemory", 1)

    def __exit__(self, *_):
        match self._how:
            case "stopped":
                self._valkey.start()
            case "frozen":
                self._valkey.sigcont()
            case "full":
                self._valkey.client().config_set("maxmemory", 0)


@pytest.mark.parametrize("how", ["stopped", "frozen", "full"])
def test_what_redis_does_not_take_waits_in_the_spool_and_goes_before_what_is_newer(spooling, own_valkey, how):
    base = spooling
    assert post(base, sms("0")).status_code == 200
    with Away(own_valkey, how):
        began_s, began_ms = monotonic(), THIS_HOST.wall_ms()
        for text in ("1", "2", "3"):
            assert post(base, sms(text)).status_code == 200
        ended_ms = THIS_HOST.wall_ms()
        assert monotonic() - began_s < WITHIN_S
        status, checks = ready(base)
        assert (status, checks["ready"], checks["redis"], checks["spool"]) == (200, True, False, True)
        assert checks.get("redis_why") == ("Redis is full" if how == "full" else None)
        assert checks["spooled"] == 3
    assert post(base, sms("4")).status_code == 200
    until(lambda: ready(base)[1]["spooled"] == 0, 10, "what was spooled is handed over")
    assert post(base, sms("5")).status_code == 200
    heard = list(dict.fromkeys(text for _, text in accepted(own_valkey)))
    assert heard == ["0", "1", "2", "3", "4", "5"], "and copies of what the frozen one was sent are behind"
    found = [at for at, text in accepted(own_valkey) if text in ("2", "3")]
    assert all(began_ms - 100 <= at <= ended_ms + 100 for at in found), "as if it had been in the mailbox"


def test_how_the_spool_stands_is_told(spooling, own_valkey):
    base = spooling

    def told(*names):
        return [metric(base, f"parley_{name}") for name in names]

    def outcomes():
        name = 'webhooks_total{{channel="clinic",outcome="{}"}}'
        return told(name.format("accepted"), name.format("spooled"), "inbound_total", "spooled_total")

    before = outcomes()
    with Away(own_valkey, "stopped"):
        for text in "123":
            assert post(base, sms(text)).status_code == 200
        assert told("spool_events", "spool_limit_bytes") == [3, 1 << 20]
        assert told("spool_bytes")[0] > 300
        until(lambda: told("spool_oldest_seconds")[0] > 0.2, 5, "the oldest event has an age")
        assert [now - was for now, was in zip(outcomes(), before, strict=True)] == [0, 3, 0, 3]
    until_handed_over(base)
    assert told("spool_events", "spool_bytes", "spool_oldest_seconds") == [0, 0, 0]
    assert post(base, sms("4")).status_code == 200
    assert [now - was for now, was in zip(outcomes(), before, strict=True)] == [1, 3, 4, 3]


def accepted(valkey):
    """When each SMS in the mailbox was accepted (ms), and its text."""
    entries = valkey.client().lrange(
        keyspace.mailbox_key(keyspace.shard_of(SENDER, DEFAULT_SHARDS), SENDER), 0, -1
    )
    return [(int(entry[1:14]), decode_inbound(entry[14:]).text) for entry in entries]


def sms_bytes(text):
    return json.dumps(sms(text)).encode()


def test_a_full_spool_is_a_503_that_says_why_and_what_it_took_is_handed_over(spooling, own_valkey):
    base = spooling
    before = metric(base, 'parley_spool_refused_total{channel="clinic",reason="full"}')
    own_valkey.stop()
    long, taken = "x" * 60_000, 0
    while (reply := post(base, sms(f"{taken} {long}"))).status_code == 200:
        taken += 1
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.json() == {
        "title": "Redis does not answer",
        "description": "the spool is full: 1 MB, as PARLEY_SPOOL_MB allows",
    }
    assert taken > 8
    by_the_other_door = post(base, iter([sms_bytes(long)]))
    assert (by_the_other_door.status_code, by_the_other_door.json()) == (503, reply.json())
    assert metric(base, 'parley_spool_refused_total{channel="clinic",reason="full"}') == before + 2
    assert post(base, sms("short")).status_code == 200
    own_valkey.start()
    until_handed_over(base)
    texts = [event.text.removesuffix(f" {long}") for _, event in mail(own_valkey)]
    assert texts == [*map(str, range(taken)), "short"]


def test_a_mailbox_that_is_none_stops_nobody_else(spooling, own_valkey, tmp_path):
    """What it was for is put aside, with what was damaged on the disk."""
    base, other = spooling, "+33612345679"
    before = metric(base, 'parley_spool_refused_total{channel="",reason="damaged"}')
    own_valkey.client().set(
        keyspace.mailbox_key(keyspace.shard_of(SENDER, DEFAULT_SHARDS), SENDER), "no list"
    )
    own_valkey.stop()
    for text, number in enumerate([other, SENDER, other]):
        assert post(base, sms(text, number)).status_code == 200
    with (tmp_path / "spool" / "events").open("ab") as file:
        file.write(b"nonsense\n")
    own_valkey.start()
    until_handed_over(base)
    assert [event.text for _, event in mail(own_valkey, other)][:1] == ["0"]
    assert {event.text for _, event in mail(own_valkey, other)} == {"0", "2"}
    assert metric(base, 'parley_spool_refused_total{channel="",reason="damaged"}') == before + 2
    aside = (tmp_path / "spool" / "damaged").read_bytes().splitlines()
    assert aside[1] == b"nonsense"
    assert b"nonsense" not in aside[0]
    assert post(base, sms("now", SENDER)).status_code == 503, "as without a spool"


def test_a_process_that_finds_a_spool_at_its_start_hands_it_over(web, valkey, tmp_path):
    put_by = open_spool(tmp_path / "spool", MOST)
    for number in range(40):
        put(put_by, number % 2, text=str(number))
    base = web(PARLEY_SPOOL=str(tmp_path / "spool"))
    until_handed_over(base)
    for who in (0, 1):
        entries = mail_of(valkey, f"+336{who:08}")
        assert entries == [str(number).encode() for number in range(who, 40, 2)]


def test_a_large_spool_keeps_nobody_waiting_while_it_is_handed_over(web, valkey, tmp_path):
    """Who writes meanwhile is answered, and goes behind what that sender had in it."""
    put_by = open_spool(tmp_path / "spool", 16 * MOST)
    put(put_by, *range(10_000), 12_345_678)
    base = web(PARLEY_SPOOL=str(tmp_path / "spool"), PARLEY_SPOOL_MB="16")
    waits_s = []
    begun_s = monotonic()
    while spooled(base):
        began_s = monotonic()
        assert post(base, sms(str(len(waits_s)), "+33612345678")).status_code == 200
        waits_s.append(monotonic() - began_s)
    assert len(waits_s) > 3
    assert sorted(waits_s)[len(waits_s) // 2] < (monotonic() - begun_s) / 4
    entries = mail_of(valkey, "+33612345678")
    assert entries[0] == b"x"
    assert [decode_inbound(entry).text for entry in entries[1:]] == [str(n) for n in range(len(waits_s))]


def test_a_lane_remembers_as_much_as_may_be_handed_over_twice():
    assert spool_drain.LARGEST_PART_EVENTS <= _MOST_APPLIED_EVENTS


def mail_of(valkey, sender):
    entries = valkey.client().lrange(
        keyspace.mailbox_key(keyspace.shard_of(sender, DEFAULT_SHARDS), sender), 0, -1
    )
    return [entry[14:] for entry in entries]


def test_without_a_spool_there_is_none(web, own_valkey):
    base = web(PARLEY_REDIS_URL=own_valkey.url)
    assert metric(base, "parley_spool_limit_bytes") == 0
    assert "spool" not in ready(base)[1]
