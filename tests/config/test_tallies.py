"""What the processes of a machine count adds up, however they die, and whoever dies while it is added up."""

import errno
import fcntl
import json
import math
import os
import resource
import signal
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from threading import Event, Thread
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from config.telemetry import library_internals, metrics, multiprocess_metrics
from config.telemetry.multiprocess_metrics import MultiprocessMetrics
from tests.support.counting import CountingProcess
from tests.support.waiting import until

COUNTED, TURNS = "parley_duplicates_total", "parley_turn_seconds_count"
REFUSED, CREDIT = "parley_surveys_refused", "parley_credit"


def published(folder):
    """Sample's name -> value, of those without a bucket."""
    families = MultiprocessMetrics(folder).read_metrics()
    return {
        each.name: each.value for family in families for each in family.samples if "le" not in each.labels
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def process(tmp_path):
    """A factory of processes that count in tmp_path; they are killed at the end."""
    started = []

    def start(fault=""):
        started.append(CountingProcess(tmp_path, fault))
        return started[-1]

    yield start
    for each in started:
        each.kill9()


@pytest.mark.processes
def test_sums_are_exact_and_never_fall_while_processes_die_and_come_again(tmp_path):
    """Fifty lives, of five processes at once, every second of them ended by kill -9, while others read and fold."""
    seen, over = [], Event()

    def watch():
        while not over.wait(0.005):
            found = published(tmp_path)
            seen.append((found.get(COUNTED, 0), found.get(TURNS, 0)))

    def live(number):
        for life in range(10):
            each = CountingProcess(tmp_path)
            each.count(number)
            each.count(1)
            each.kill9() if life % 2 else each.end()

    watcher = Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(live, range(1, 6)))
    over.set()
    watcher.join()
    counted = 10 * sum(number + 1 for number in range(1, 6))
    found = published(tmp_path)
    assert (found[COUNTED], found[TURNS]) == (counted, counted)
    assert found["parley_turn_seconds_sum"] == pytest.approx(0.3 * counted)
    assert len(seen) > 50
    for kind in range(2):
        numbers = [each[kind] for each in seen]
        assert numbers == sorted(numbers)
    assert len(names(tmp_path)) < 5 * 5 + 4, "the files of the dead have gone"
    MultiprocessMetrics(tmp_path).fold_dead()
    assert names(tmp_path) == ["dead.lock", "dead.sums"]
    assert published(tmp_path) == found


@pytest.mark.parametrize(
    "fault",
    [
        "after_birth",
        "before_sums_are_kept",
        "after_sums_are_kept",
        *(f"after_a_file_of_the_dead_is_gone@{nth}" for nth in (1, 4, 5)),
    ],
)
def test_whoever_is_killed_while_it_folds_neither_loses_nor_doubles_a_count(tmp_path, process, fault):
    processes = [process() for _ in range(3)]
    for each, number in zip(processes, (3, 4, 100), strict=True):
        each.count(number)
    for each in processes[:2]:
        each.kill9()
    assert process(fault).wait_dead() == -signal.SIGKILL
    assert published(tmp_path)[COUNTED] == 107
    survivor = process()
    survivor.count(1)
    for _ in range(2):
        assert published(tmp_path)[COUNTED] == published(tmp_path)[TURNS] == 108
        MultiprocessMetrics(tmp_path).fold_dead()
    assert len([name for name in names(tmp_path) if name.endswith(".alive")]) == 2


def test_whoever_hangs_while_it_folds_keeps_nobody_from_reading(tmp_path, process):
    dead = process()
    dead.count(3)
    dead.kill9()
    for fault in ("stop:before_sums_are_kept", "stop:after_a_file_of_the_dead_is_gone"):
        hanging = process(fault)
        until(lambda pid=hanging.pid: _state(pid) == "T", 10, "it has stopped")
        MultiprocessMetrics(tmp_path).fold_dead()
        assert published(tmp_path)[COUNTED] == 3
        hanging.kill9()


def test_one_that_is_taken_for_dead_while_it_is_being_born_is_born_again(tmp_path, process):
    each = process("stop:before_birth")
    until(lambda: _state(each.pid) == "T", 10, "it has stopped")
    MultiprocessMetrics(tmp_path).fold_dead()
    os.kill(each.pid, signal.SIGCONT)
    each.wait_ready()
    each.count(3)
    MultiprocessMetrics(tmp_path).fold_dead()
    each.count(4)
    assert published(tmp_path)[COUNTED] == 7


def test_sums_are_told_though_they_cannot_be_folded(tmp_path, process):
    """As on a full disk."""
    dead = process()
    dead.count(3)
    dead.kill9()
    (tmp_path / "dead.sums.new").mkdir()
    for _ in range(2):
        process().count(4)
    assert published(tmp_path)[COUNTED] == 11


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=8), st.integers(0, 7))
def test_seconds_do_not_fall_by_their_last_bit_when_they_are_folded(tmp_path_factory, waited, dies):
    """Prometheus would take it for a restart, and count all of them again."""
    folder = tmp_path_factory.mktemp("seconds")
    names = ("parley_turn_seconds", "parley_turn_seconds_sum")
    key = mmap_key(*names, (), (), "Turns")
    with ExitStack() as living:
        for place, much in enumerate(waited):
            if place != dies % len(waited):
                living.enter_context(
                    multiprocess_metrics._file_lock(folder / f"{place}-abcd.alive", fcntl.LOCK_EX)
                )
            file = MmapedDict(str(folder / f"histogram_{place}-abcd.db"))
            file.write_value(mmap_key(names[0], names[0] + "_bucket", ("le",), ("+Inf",), "Turns"), 1.0, 0.0)
            file.write_value(key, much, 0.0)
            file.close()
        before = published(folder)[names[1]]
        MultiprocessMetrics(folder).fold_dead()
        assert published(folder)[names[1]] == before
    assert before == pytest.approx(sum(waited), abs=1e-3)


def test_a_lock_s_file_that_somebody_removed_makes_nobody_dead(tmp_path, process):
    """Whoever cleans folders of old files does: it is not written to after its process's start."""
    one = process()
    one.count(3)
    next(tmp_path.glob("*.alive")).unlink()
    MultiprocessMetrics(tmp_path).fold_dead()
    one.count(4)
    assert published(tmp_path)[COUNTED] == 7
    one.kill9()
    MultiprocessMetrics(tmp_path).fold_dead()
    assert names(tmp_path) == ["dead.lock", "dead.sums"]
    assert published(tmp_path)[COUNTED] == 7


def rows(number, counts):
    """Write so many, and what is then read of them, before they are closed."""
    for place in range(number):
        counts.write_value(f"key {place}", float(place), 0.0)
    with closing(counts):
        return [counts.read_value(f"key {place}")[0] for place in range(number)]


def test_what_is_counted_has_its_place_on_the_disk_before(tmp_path, process):
    """To write to a page for which a full disk has no block would be the process's death."""
    process().count(1)
    files = list(tmp_path.glob("*.db"))
    assert len(files) >= 2
    assert all(file.stat().st_blocks * 512 >= file.stat().st_size >= 65_536 for file in files)
    counts = library_internals.PreallocatedMmapDict(str(tmp_path / "counter_1-abcd.db"))
    assert rows(5_000, counts) == list(range(5_000))
    grown = (tmp_path / "counter_1-abcd.db").stat()
    assert grown.st_blocks * 512 >= grown.st_size > 65_536


def test_who_finds_the_disk_full_counts_for_itself_alone(tmp_path, monkeypatch, capsys):
    """What it had counted on the disk by then is told."""
    grown, new = (str(tmp_path / f"counter_{pid}-abcd.db") for pid in (1, 2))
    early = library_internals.PreallocatedMmapDict(grown)
    early.write_value("early", 1.0, 0.0)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "posix_fallocate", Mock(side_effect=full))
    for counts in (early, library_internals.PreallocatedMmapDict(new)):
        assert rows(5_000, counts) == list(range(5_000))
    assert names(tmp_path) == ["counter_1-abcd.db"]
    assert next(iter(MmapedDict.read_all_values_from_file(grown)))[:2] == ("early", 1.0)
    assert "its disk is full" in capsys.readouterr().err


def test_however_many_have_died_they_are_folded_with_the_few_files_that_a_process_may_open(tmp_path):
    """They pile up while the disk is full, say."""
    key = mmap_key(COUNTED, COUNTED, (), (), "Duplicates")
    for place in range(300):
        (tmp_path / f"{place}-abcd.alive").touch()
        file = MmapedDict(str(tmp_path / f"counter_{place}-abcd.db"))
        file.write_value(key, 1.0, 0.0)
        file.close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        for _ in range(5):
            MultiprocessMetrics(tmp_path).fold_dead()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert names(tmp_path) == ["dead.lock", "dead.sums"]
    assert published(tmp_path)[COUNTED] == 300


def test_what_one_wrote_while_it_was_being_looked_at_and_died_is_taken_in(tmp_path, process):
    each = process()
    folding = process("stop:before_the_dead_are_known")
    until(lambda: _state(folding.pid) == "T", 10, "it has stopped")
    each.gauge(7)
    each.kill9()
    os.kill(folding.pid, signal.SIGCONT)
    folding.wait_ready()
    assert published(tmp_path)[CREDIT] == 7


def test_nobody_is_born_as_one_whose_files_are_being_removed(tmp_path, process):
    each = process("stop:before_birth")
    until(lambda: _state(each.pid) == "T", 10, "it has stopped")
    folding = process("stop:after_sums_are_kept")
    until(lambda: _state(folding.pid) == "T", 10, "it has stopped")
    os.kill(each.pid, signal.SIGCONT)
    each.wait_ready()
    each.count(3)
    os.kill(folding.pid, signal.SIGCONT)
    folding.wait_ready()
    each.count(4)
    assert published(tmp_path)[COUNTED] == 7


def test_gauges_are_those_of_the_living(tmp_path, process):
    old, new = process(), process()
    old.gauge(5)
    new.gauge(7)
    assert published(tmp_path)[REFUSED] == 7
    new.kill9()
    assert published(tmp_path)[REFUSED] == 5, "before anyone has folded"
    old.kill9()
    assert REFUSED not in published(tmp_path)
    process()
    assert REFUSED not in published(tmp_path), "and after"


def test_what_a_provider_said_is_left_is_true_beyond_the_death_of_who_heard_it_for_a_day(
    tmp_path, process, monkeypatch
):
    first, second = process(), process()
    first.gauge(5)
    second.gauge(7)
    second.kill9()
    first.kill9()
    for _ in range(2):
        assert published(tmp_path)[CREDIT] == 7
        MultiprocessMetrics(tmp_path).fold_dead()
    monkeypatch.setattr(multiprocess_metrics, "_GAUGE_KEPT_S", 0.0)
    assert CREDIT not in published(tmp_path)


def test_a_child_counts_for_itself_and_does_not_keep_its_parent_alive(tmp_path, process):
    parent = process()
    parent.count(3)
    child = parent.fork()
    try:
        until(lambda: published(tmp_path)[COUNTED] == 4, 10, "both have counted")
        parent.gauge(7)
        parent.kill9()
        MultiprocessMetrics(tmp_path).fold_dead()
        assert published(tmp_path)[COUNTED] == 4
        assert REFUSED not in published(tmp_path)
        assert [name for name in names(tmp_path) if name.endswith(".alive")] == [
            name for name in names(tmp_path) if name.startswith(f"{child}-")
        ]
    finally:
        os.kill(child, signal.SIGKILL)


def test_processes_that_have_the_same_pid_are_two(tmp_path):
    one, other = MultiprocessMetrics(tmp_path), MultiprocessMetrics(tmp_path)
    assert one.process_identity() == one.process_identity() != other.process_identity()


@pytest.mark.parametrize("torn", ["", "zeros", "half", "garbage", "backwards"])
def test_of_a_torn_file_what_stands_before_the_tear_counts(tmp_path, torn):
    path = tmp_path / "counter_99999999-00000000.db"
    _count(path, {"whole": 3, "torn": 4})
    content = path.read_bytes()
    (used,) = struct.unpack_from("i", content)
    second = 8 + 4 + struct.unpack_from("i", content, 8)[0] + 4
    match torn:
        case "":
            content = b""
        case "zeros":
            content = content[:4096].ljust(len(content), b"\0")[: used - 40].ljust(len(content), b"\0")
        case "half":
            content = content[: used - 20]
        case "garbage":
            content = content[: used - 60] + os.urandom(60)
        case "backwards":
            content = content[:8] + struct.pack("i", -200) + content[12:]
    path.write_bytes(content)
    assert second < used
    expected = {} if torn in ("", "backwards") else {"parley_whole_total": 3}
    for _ in range(2):
        found = published(tmp_path)
        assert {name: value for name, value in found.items() if name == "parley_whole_total"} == expected
        assert all(math.isfinite(value) for value in found.values())
        MultiprocessMetrics(tmp_path).fold_dead()
    assert names(tmp_path) == ["dead.lock", "dead.sums"]


def test_files_whose_lock_somebody_removed_are_judged_by_pids(tmp_path, process):
    """Those of a pid that is here are somebody's; those of another are folded."""
    gone = process()
    gone.kill9()
    _count(tmp_path / f"counter_{os.getpid()}-0badcafe.db", {"living": 3})
    _count(tmp_path / f"counter_{gone.pid}-0badcafe.db", {"dead": 4})
    MultiprocessMetrics(tmp_path).fold_dead()
    assert published(tmp_path)["parley_living_total"] == 3
    assert published(tmp_path)["parley_dead_total"] == 4
    assert [name for name in names(tmp_path) if name.endswith(".db")] == [
        f"counter_{os.getpid()}-0badcafe.db"
    ]


def test_a_metric_whose_meaning_a_release_worded_otherwise_is_one_metric(tmp_path):
    _count(tmp_path / "counter_1-00000000.db", {"turns": 3}, "as it was worded")
    _count(tmp_path / "counter_1-00000001.db", {"turns": 4}, "as it is worded")
    assert published(tmp_path) == {"parley_turns_total": 7}
    MultiprocessMetrics(tmp_path).fold_dead()
    assert published(tmp_path) == {"parley_turns_total": 7}


@given(st.lists(st.floats(0, 3_000, allow_nan=False) | st.sampled_from([0.0025, 0.5, 1_800.0]), max_size=200))
@settings(max_examples=50, deadline=None)
def test_many_values_at_once_are_as_if_each_had_been_observed(tmp_path_factory, amounts):
    folder = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library_internals.FOLDER_VARIABLE, str(folder))
        patch.setattr(
            values, "ValueClass", values.MultiProcessValue(MultiprocessMetrics(folder).process_identity)
        )
        one_by_one, at_once = (
            library_internals.BatchHistogram(name, "A test", buckets=metrics._WAIT_BUCKETS_S, registry=None)
            for name in ("one_by_one", "at_once")
        )
        for amount in amounts:
            one_by_one.observe(amount)
        at_once.observe_many(iter(amounts[1:]))
        at_once.observe_times(amounts[0] if amounts else 1.0, len(amounts[:1]))
    found = {family.name: family.samples for family in MultiprocessMetrics(folder).read_metrics()}
    for expected, sample in zip(found["one_by_one"], found["at_once"], strict=True):
        assert expected.name.removeprefix("one_by_one") == sample.name.removeprefix("at_once")
        assert expected.labels == sample.labels
        assert expected.value == pytest.approx(sample.value)


def _count(path, counted, meaning="A test"):
    file = MmapedDict(str(path))
    for name, value in counted.items():
        key = mmap_key(f"parley_{name}", f"parley_{name}_total", [], [], meaning)
        assert json.loads(key)
        file.write_value(key, float(value), 0.0)
    file.close()


def _state(pid):
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0]
