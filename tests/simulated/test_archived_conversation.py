"""The archive and the endpoints of the simulation work, and their oracles object when they should."""

import sqlite3

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from config.archive.database import EVENTS_SOURCE, Position
from config.store import keyspace
from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.plays.archived_conversation import ArchivedConversationPlay
from tests.simulated.plays.play import CALM_S
from tests.simulated.world.faults import Fault, Place
from tests.simulated.world.scheduler import START_US, Process, Scheduler
from tests.simulated.world.simulated_archive import SimulatedArchive

SECOND_US = 1_000_000


@pytest.fixture
def stage():
    """A stage on which a conversation has come to rest without faults."""
    play = ArchivedConversationPlay("calm", 60, (0.0,), failover_chance=0.0)
    stage = play.begin(ScheduledFaults({}), "a test")
    scheduler = stage.world.scheduler
    with stage.around[-1]:
        scheduler.run_until(scheduler.now_us + CALM_S * SECOND_US, stage.is_at_rest)
        yield stage
        scheduler.close()


def oracle_of(stage, name):
    return next(
        judge.__self__ for judge in stage.judges if type(getattr(judge, "__self__", None)).__name__ == name
    )


def test_what_happens_is_archived_and_told(stage):
    assert stage.is_at_rest()
    for judge in stage.judges:
        judge()
    told = oracle_of(stage, "ToldEventOracle")
    assert len(stage.watcher.entries) > 10
    assert all(endpoint.tellings for endpoint in told._endpoints.values())


def test_an_entry_that_is_not_in_the_archive_is_a_finding(stage):
    oracle = oracle_of(stage, "ArchivedEntryOracle")
    database = oracle._archive.database()
    with database.writing() as connection:
        connection.execute(text("DELETE FROM entries WHERE entry_seq = 0"))
    with pytest.raises(PromiseBroken, match="is not in the archive"):
        oracle.judge()


def test_an_event_that_is_not_told_is_a_finding(stage):
    oracle = oracle_of(stage, "ToldEventOracle")
    del oracle._endpoints["all"].tellings[3]
    with pytest.raises(PromiseBroken, match="told_at_least_once"):
        oracle.judge()


def test_events_that_are_told_in_another_order_are_a_finding(stage):
    oracle = oracle_of(stage, "ToldEventOracle")
    oracle._endpoints["all"].tellings.reverse()
    with pytest.raises(PromiseBroken, match="told_in_order"):
        oracle.judge()


def test_what_is_trimmed_too_soon_is_a_finding(stage):
    world = stage.world
    k = next(entry.k for entry in stage.watcher.entries)
    world.lanes.execute([("XTRIM", keyspace.events_key(k), "MAXLEN", 1)])
    with pytest.raises(PromiseBroken, match="trimmed_is_old"):
        [observe() for observe in world.scheduler.observers]


def test_what_is_deleted_below_another_that_was_is_not_taken_for_trimmed(stage):
    world, first = stage.world, stage.watcher.entries[0]
    k = first.k
    later = max(entry.id for entry in stage.watcher.entries if entry.k == k)
    for entry in (later, first.id):
        world.lanes.execute([("XDEL", keyspace.events_key(k), str(entry))])
        with pytest.raises(PromiseBroken, match="kept_while_open"):
            [observe() for observe in world.scheduler.observers]


class Writers:
    """An archive, and processes that write into it and note when and how that ended."""

    def __init__(self, **schedule):
        faults = {Place(name, call): fault for name, (call, fault) in schedule.items()}
        self.scheduler = Scheduler(ScheduledFaults(faults))
        self.archive = SimulatedArchive(self.scheduler, 1)
        self.lines = []

    def add(self, name, seconds):
        def begin(process):
            process.spawn("", lambda: self.write(process, seconds))

        Process(self.scheduler, name, begin).start()

    def write(self, process, seconds):
        database = self.archive.database(process)
        try:
            with database.writing() as connection:
                position = database.lock_position(connection, EVENTS_SOURCE, 0)
                self.scheduler.sleep_us(seconds * SECOND_US)
                moved = Position(position.last_ms + 1, 0, 0)
                database.move_position(connection, EVENTS_SOURCE, 0, moved)
        except OperationalError as e:
            self.note(f"{process.name}: {e.orig}")
        else:
            self.note(f"{process.name} {process.lives}")

    def note(self, what):
        self.lines.append((what, (self.scheduler.now_us - START_US) // SECOND_US))

    def run(self):
        self.scheduler.run_until(START_US + 100 * SECOND_US)
        self.scheduler.close()
        written = self.archive.positions[0].ms
        self.archive.close()
        return self.lines, written


def test_a_writer_waits_for_another_in_virtual_time():
    writers = Writers()
    writers.add("a", 10)
    writers.add("b", 10)
    assert writers.run() == ([("a 1", 10), ("b 1", 20)], 2)


def test_a_writer_gives_up_as_sqlite_does():
    writers = Writers()
    writers.add("a", 50)
    writers.add("b", 1)
    assert writers.run() == ([("b: database is locked", 30), ("a 1", 50)], 1)


@pytest.mark.parametrize("kind, written", [("die_before", 2), ("die_after", 3)])
def test_what_a_process_had_not_committed_when_it_died_is_undone(kind, written):
    writers = Writers(a=(1, Fault(kind)))
    writers.add("a", 5)
    writers.add("b", 5)
    lines, found = writers.run()
    assert [what for what, _ in lines] == ["b 1", "a 2"]
    assert found == written


def test_a_commit_may_be_made_though_nobody_hears_of_it():
    writers = Writers(a=(1, Fault("lose_commit_reply")))
    writers.add("a", 1)
    assert writers.run() == ([("a: the connection was lost", 1)], 1)


def test_connections_of_the_dead_are_closed():
    writers = Writers(a=(1, Fault("die_before")))
    writers.add("a", 1)
    writers.run()
    with pytest.raises(sqlite3.ProgrammingError):
        writers.archive.query("SELECT 1")
