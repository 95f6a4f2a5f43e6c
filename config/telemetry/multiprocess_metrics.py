"""What have all processes of a machine counted, those included that are dead?

They share a directory (PROMETHEUS_MULTIPROC_DIR), in which prometheus-client keeps files of each. A process is known
there by an identity that no other ever has (pids come again, and in containers all are 1), and as long as it lives it
holds a lock on `<identity>.alive`, which ends with it however it dies.

Laws. A sum never falls: what the dead have counted is folded into one file, `dead.sums`, before theirs go, and nothing
is rounded when it is. A count is in one place: `dead.sums` names whom it has taken in, so that files of theirs which are
still there, because whoever folded was killed, are not counted again. Whoever reads while others fold notices that
`dead.sums` has been replaced, and reads again. A gauge is true only of the living, unless it says "mostrecent": that one
is kept for a day.
"""

import fcntl
import json
import math
import os
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from secrets import token_hex
from time import time
from typing import NamedTuple

import msgspec
from prometheus_client import Metric

from config.settings.config_errors import ConfigError, unwritable_problem
from config.telemetry import faults
from config.telemetry.library_internals import FOLDER_VARIABLE, format_bound, read_counts

_ALIVE_SUFFIX, _COUNTS_SUFFIX = ".alive", ".db"
_SUMS_FILE, _NEW_SUMS_FILE, _FOLD_LOCK_FILE = "dead.sums", "dead.sums.new", "dead.lock"

_KEPT_GAUGE_KIND = "gauge_mostrecent"
_SUMMED_KINDS = ("counter", "histogram")
_GAUGE_KEPT_S = 86_400.0
"""How long the gauge of a dead process is kept, if it is of those that are."""

_SUM_PRECISION = 2.0**-20
"""Parts of sums are multiples of it, so that to add them is exact, in whatever order: seconds that are folded would else
make a sum that is smaller by its last bit, and Prometheus takes any fall for a restart from zero."""

_MAX_FOLDED_AT_ONCE = 64
"""Processes folded at once: each takes an open file, of which a process may have some hundreds."""

_DAMAGED_FILE_ERRORS = (struct.error, RuntimeError, UnicodeDecodeError, OverflowError)
"""The errors that prometheus-client raises where a file is torn."""


class SeriesKey(NamedTuple):
    """One number among many: its kind as in its file's name, and its key there, in JSON."""

    kind: str
    key: str


class SeriesValue(NamedTuple):
    """`at` (s since 1970) is when a gauge was set; 0 of what is summed, and of a gauge that never was."""

    value: float
    at: float = 0.0


SeriesValues = dict[SeriesKey, SeriesValue]
LabelPairs = tuple[tuple[str, str], ...]


class DeadSums(msgspec.Struct, array_like=True):
    """The content of `dead.sums`. The files of the processes `taken_in` do not count any more, and are about to be
    removed."""

    taken_in: list[str] = []
    rows: list[tuple[str, str, float, float]] = []  # kind, key, value, at


_decode_dead = msgspec.msgpack.Decoder(DeadSums).decode
_encode_dead = msgspec.msgpack.Encoder().encode


class MultiprocessMetrics:
    """What is counted in one directory, which is made if it is not there. This process's part of it begins when it is
    first asked for its identity."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._pid = 0
        self._identity = ""
        self._alive_descriptor = -1
        os.register_at_fork(after_in_child=self._forget_after_fork)

    def process_identity(self) -> str:
        """This process's; a child that was forked has one of its own. Asked at every count."""
        if self._pid != os.getpid():
            self._identity, self._alive_descriptor = _create_identity(self._folder)
            self._pid = os.getpid()
        return self._identity

    def read_metrics(self) -> list[Metric]:
        """The sums of the living and the dead, and the gauges of the living."""
        while True:
            with _open_sums(self._folder) as sums:
                tally = _kept_values(sums.dead)
                for identity, files in _files_by_process(self._folder).items():
                    if identity not in sums.dead.taken_in:
                        _add_files(tally, files, living=not self._is_dead(identity))
                if sums.is_current():
                    return _metric_families(tally)

    def fold_dead(self) -> None:
        """Add the sums of the dead to the file of the dead, and remove theirs; unless another process is at it, or the
        disk is full, say. Nothing is wrong while their files stay, but that there are more and more of them."""
        with suppress(OSError), _file_lock(self._folder / _FOLD_LOCK_FILE, fcntl.LOCK_EX) as alone:
            if alone:
                self._fold_alone()

    def _fold_alone(self) -> None:
        with _open_sums(self._folder) as sums:
            dead = sums.dead
        files = _files_by_process(self._folder)
        for identity in dead.taken_in:
            self._remove_files(identity, files.pop(identity, []))
        faults.reach("before_the_dead_are_known")
        with ExitStack() as holding:
            dead_ones = (identity for identity in files if self._is_dead(identity, holding))
            gone = list(islice(dead_ones, _MAX_FOLDED_AT_ONCE))
            if not gone:
                return
            files = _files_by_process(self._folder)  # with what they wrote before they died
            tally = _kept_values(dead)
            for identity in gone:
                _add_files(tally, files.get(identity, []), living=False)
            self._write_sums(DeadSums(gone, [(*series, *value) for series, value in tally.items()]))
            for identity in gone:
                self._remove_files(identity, files.get(identity, []))

    def _write_sums(self, dead: DeadSums) -> None:
        new = self._folder / _NEW_SUMS_FILE
        with new.open("wb") as file:
            file.write(_encode_dead(dead))
            file.flush()
            faults.reach("before_sums_are_kept")
            os.fsync(file.fileno())
        new.rename(self._folder / _SUMS_FILE)
        faults.reach("after_sums_are_kept")

    def _remove_files(self, identity: str, files: list[Path]) -> None:
        """The lock's file goes last: without it, nobody could tell that the others' owner is dead."""
        for file in files:
            file.unlink(missing_ok=True)
            faults.reach("after_a_file_of_the_dead_is_gone")
        (self._folder / f"{identity}{_ALIVE_SUFFIX}").unlink(missing_ok=True)

    def _is_dead(self, identity: str, holding: ExitStack | None = None) -> bool:
        """Whether the process of this identity is dead. If so, `holding` keeps its lock, so that no process
        becomes it."""
        if identity == self._identity:
            return False
        try:
            with ExitStack() as briefly:
                keep = holding or briefly
                mode = fcntl.LOCK_EX if holding else fcntl.LOCK_SH
                return keep.enter_context(
                    _file_lock(self._folder / f"{identity}{_ALIVE_SUFFIX}", mode, make=False)
                )
        except FileNotFoundError:
            pid = identity.partition("-")[0]  # somebody has removed the lock's file
            return not (pid.isdigit() and _process_exists(int(pid)))

    def _forget_after_fork(self) -> None:
        """The lock that a fork shares with its parent is the parent's."""
        if self._alive_descriptor >= 0:
            os.close(self._alive_descriptor)
            self._alive_descriptor, self._pid, self._identity = -1, 0, ""


def join_folder(folder: Path) -> MultiprocessMetrics:
    """Open the directory that this process counts into from now on. Raises ConfigError."""
    try:
        tallies = MultiprocessMetrics(folder)
        tallies.process_identity()
    except OSError as e:
        raise ConfigError([unwritable_problem(folder, e, FOLDER_VARIABLE)]) from e
    tallies.fold_dead()  # so that files do not pile up where nobody asks for the sums
    return tallies


def _create_identity(folder: Path) -> tuple[str, int]:
    """Create an identity, and return it with the descriptor of its locked `.alive` file. A folding process may remove the
    file before it is locked; then another is made."""
    while True:
        identity = f"{os.getpid()}-{token_hex(4)}"  # no '_', which parts a file's name
        path = folder / f"{identity}{_ALIVE_SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        faults.reach("before_birth")
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            faults.reach("after_birth")
            if _is_same_file(path, descriptor):
                return identity, descriptor
        os.close(descriptor)


@contextmanager
def _file_lock(path: Path, mode: int, *, make: bool = True) -> Iterator[bool]:
    """True while the lock on this file is ours; False if another has it. Raises FileNotFoundError."""
    descriptor = os.open(path, (os.O_RDWR | os.O_CREAT) if make else os.O_RDONLY, 0o644)
    try:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield _is_same_file(path, descriptor)
    finally:
        os.close(descriptor)


def _is_same_file(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at this path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


class _OpenSums(NamedTuple):
    """The content of `dead.sums`, if there is one; open, so that no other file can be taken for it."""

    dead: DeadSums
    path: Path
    descriptor: int | None

    def is_current(self) -> bool:
        return (
            not self.path.exists() if self.descriptor is None else _is_same_file(self.path, self.descriptor)
        )


@contextmanager
def _open_sums(folder: Path) -> Iterator[_OpenSums]:
    path = folder / _SUMS_FILE
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield _OpenSums(DeadSums(), path, None)
        return
    with file:
        yield _OpenSums(_decode_sums(file.read()), path, file.fileno())


def _decode_sums(content: bytes) -> DeadSums:
    """A file that cannot be read, after a power cut, say, counts as none: the sums begin anew."""
    try:
        return _decode_dead(content)
    except msgspec.MsgspecError:
        return DeadSums()


def _files_by_process(folder: Path) -> dict[str, list[Path]]:
    """The files of each process that is known here, living or dead."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == _ALIVE_SUFFIX:
            found.setdefault(path.stem, [])
        elif path.suffix == _COUNTS_SUFFIX:
            found.setdefault(path.stem.rpartition("_")[2], []).append(path)
    return found


def _kept_values(dead: DeadSums) -> SeriesValues:
    """The sums, and the gauges that are still kept."""
    horizon = time() - _GAUGE_KEPT_S
    return {
        SeriesKey(kind, key): SeriesValue(value, at)
        for kind, key, value, at in dead.rows
        if kind in _SUMMED_KINDS or at > horizon
    }


def _add_files(tally: SeriesValues, files: list[Path], *, living: bool) -> None:
    for file in files:
        kind = file.stem.rpartition("_")[0]
        if living or kind in _SUMMED_KINDS or kind == _KEPT_GAUGE_KIND:
            for key, value in _read_rows(file):
                series = SeriesKey(kind, key)
                part = SeriesValue(_round_down(value.value)) if kind in _SUMMED_KINDS else value
                tally[series] = _combine_values(kind, tally.get(series, SeriesValue(0.0)), part)


def _round_down(value: float) -> float:
    """Round a sum down to a multiple of _SUM_PRECISION; as the sum never falls, neither does the result."""
    return math.floor(value / _SUM_PRECISION) * _SUM_PRECISION


def _combine_values(kind: str, one: SeriesValue, other: SeriesValue) -> SeriesValue:
    """Combine the values of two processes: a sum, or of a gauge what was set last."""
    if kind in _SUMMED_KINDS:
        return SeriesValue(one.value + other.value)
    return other if other.at > one.at else one


def _read_rows(file: Path) -> Iterator[tuple[str, SeriesValue]]:
    """Yield what a process counted: of a torn file, what stands before the tear; nothing of a file that is gone."""
    with suppress(FileNotFoundError, *_DAMAGED_FILE_ERRORS):
        for key, value, at in read_counts(file):
            if _parse_key(key) is None:
                return
            if math.isfinite(value):
                yield key, SeriesValue(value, at)


@lru_cache(maxsize=16_384)
def _parse_key(key: str) -> tuple[str, str, LabelPairs, str] | None:
    """The metric, the sample, its labels and the metric's meaning; None if the key is torn."""
    try:
        metric, sample, labels, meaning = json.loads(key)
        return metric, sample, tuple(labels.items()), meaning
    except (ValueError, AttributeError, TypeError):
        return None


def _metric_families(tally: SeriesValues) -> list[Metric]:
    """The series as prometheus-client publishes them, each metric once, whatever its help is in another release."""
    families: dict[str, Metric] = {}
    samples: dict[str, dict[tuple[str, LabelPairs], SeriesValue]] = defaultdict(dict)
    for series, value in tally.items():
        if parsed := _parse_key(series.key):
            metric, sample, labels, meaning = parsed
            families[metric] = Metric(metric, meaning, series.kind.partition("_")[0])
            place = (sample, labels)
            samples[metric][place] = _combine_values(
                series.kind, samples[metric].get(place, SeriesValue(0.0)), value
            )
    for name, family in families.items():
        if family.type == "histogram":
            _add_histogram(family, samples[name])
        else:
            _add_samples(family, samples[name])
    return [family for family in families.values() if family.samples]


def _add_samples(family: Metric, samples: Mapping[tuple[str, LabelPairs], SeriesValue]) -> None:
    for (sample, labels), value in samples.items():
        if family.type != "gauge" or value.at:  # a gauge that was never set says nothing
            family.add_sample(sample, dict(labels), value.value)


def _add_histogram(family: Metric, samples: Mapping[tuple[str, LabelPairs], SeriesValue]) -> None:
    """Each value is counted in one bucket; what is published of a bucket includes those below it."""
    buckets: dict[LabelPairs, dict[float, float]] = defaultdict(dict)
    for (_, labels), value in samples.items():
        if bound := dict(labels).get("le"):
            buckets[tuple(pair for pair in labels if pair[0] != "le")][float(bound)] = value.value
    for labels, counts in buckets.items():
        total = 0.0
        for upper, count in sorted(counts.items()):
            total += count
            bound = format_bound(upper)
            family.add_sample(family.name + "_bucket", {**dict(labels), "le": bound}, total)
        family.add_sample(family.name + "_count", dict(labels), total)
        summed = samples.get((family.name + "_sum", labels), SeriesValue(0.0))
        family.add_sample(family.name + "_sum", dict(labels), summed.value)
