"""A machine's disk: locks go with their process, and what was not synced goes with the power."""

import errno
from pathlib import Path

import pytest

from ingest.intake import spool
from ingest.intake.spool import Spool, SpooledEvent, SpoolError
from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.world.faults import Fault, Place
from tests.simulated.world.machine import simulated_host
from tests.simulated.world.scheduler import START_US, Process, Scheduler
from tests.simulated.world.simulated_disk import SimulatedDisk

EVENT = SpooledEvent("+33600000001", b"event", False, 1, "clinic", "sms")


class Machine:
    """A disk, and processes that write to the spool on it, with faults by actor and call."""

    def __init__(self, **faults):
        places = {Place(*name.rsplit("__", 1)): fault for name, fault in faults.items()}
        self.scheduler = Scheduler(
            ScheduledFaults({Place(actor, int(call)): fault for (actor, call), fault in places.items()})
        )
        self.disk = SimulatedDisk(self.scheduler)
        self.found = []

    def process(self, name, work):
        def begin(process):
            on_disk = Spool(Path("/spool"), 1 << 20, simulated_host(process, "seed"))
            process.spawn("", lambda: self.found.append((name, work(on_disk))))

        process = Process(self.scheduler, name, begin)
        self.disk.processes.append(process)
        process.start()

    def run(self, seconds=30):
        with self.disk.mounted(spool):
            self.scheduler.run_until(START_US + seconds * 1_000_000)
            self.scheduler.close()
        assert self.scheduler.crashes == []
        return self.found

    @property
    def events(self):
        return self.disk.content("/spool/events").count(b"\n") - 1


def append(on_disk):
    try:
        return on_disk.append([EVENT], begin=True)
    except SpoolError as e:
        return e.reason


def test_what_is_appended_is_in_the_file():
    machine = Machine()
    machine.process("a", append)
    machine.process("b", append)
    machine.run()
    assert [name for name, _ in machine.found] == ["a", "b"]
    assert machine.events == 2


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_process_that_dies_with_the_lock_lets_go_of_it(call):
    """Calls: the lock, a truncation of what nobody lived to finish, the write, its sync."""
    machine = Machine(**{f"a__{call}": Fault("die_after")})
    machine.process("a", append)
    machine.process("b", append)
    machine.run()
    assert sorted(name for name, _ in machine.found) == ["a", "b"]
    assert machine.events >= 2


def test_what_was_not_synced_is_gone_with_the_power():
    machine = Machine(a__3=Fault("power_cut"))
    machine.process("a", append)
    machine.run(seconds=0.5)
    assert machine.disk.content("/spool/events") == b""
    assert machine.found == []


def test_a_write_that_fails_is_taken_back():
    machine = Machine(a__2=Fault("disk_full"))
    machine.process("a", append)
    assert machine.run() == [("a", "disk_full")]
    assert machine.disk.content("/spool/events") == b""


def test_a_write_that_ends_early_goes_on():
    machine = Machine(a__2=Fault("half_written"))
    machine.process("a", append)
    machine.run()
    assert machine.events == 1


def test_what_is_not_there_cannot_be_opened():
    machine = Machine()

    def work(_spool):
        with pytest.raises(FileNotFoundError) as e:
            machine.disk.open("/spool/none", machine.disk.O_RDONLY)
        return e.value.errno

    machine.process("a", work)
    assert machine.run() == [("a", errno.ENOENT)]
