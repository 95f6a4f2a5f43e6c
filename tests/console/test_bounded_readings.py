"""What a page of the console reads is bounded, however much lies behind it; and what takes long is not done for each look."""

import asyncio
from contextlib import closing
from itertools import count

import msgspec
import pytest

from config.archive import archive_schema
from config.archive.audit_entries import AuditFilter
from config.archive.database import ArchiveDatabase
from config.host import Host
from config.store import keyspace, redis_client
from config.store.audit import audit_command
from tests.support.waiting import HANG_S
from tests.workers.conftest import deploy, logs_as_they_were, pipeline, sqlite_url  # noqa: F401 (fixtures)
from workers.archiving.audit_mover import move_audit
from workers.console.blocking_calls import BlockingCalls
from workers.console.kept_readings import KeptReading
from workers.console.pages import audit_page, now_page
from workers.console.pages.now_page import CHECKS_FRESH_S, NowReader
from workers.console.surveys.survey_view import SurveyViews
from workers.diagnosis import snapshot_reader
from workers.diagnosis.snapshot_reader import read_snapshot
from workers.store.channel_contents import count_leftovers

ANNA = "+33600000001"


@pytest.fixture
def town(deploy):  # noqa: F811
    return deploy(shards=64)


def tell(town, *subjects, actor="console ada"):
    """Acts, each of a ms of its own."""
    for subject in subjects:
        redis_client.run_command(town.client, audit_command(actor, "read lane", subject))
        told_at = redis_client.server_time_ms(town.client)
        while redis_client.server_time_ms(town.client) == told_at:
            pass


def pages(town, **wanted):
    """The subjects of each page, from the newest to the last."""
    before, shown = 0, []
    while True:
        found = audit_page.read_acts(town.world, AuditFilter(before=before, **wanted))
        shown.append([act.subject for act in found.acts])
        before = found.before
        if not before:
            return shown


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(audit_page, "ACTS_SHOWN", 3)
    monkeypatch.setattr(audit_page, "ACTS_EXAMINED", 4)


def test_pages_of_the_audit_leave_nothing_out_of_either_place(town, small_pages, sqlite_url):  # noqa: F811
    tell(town, "1", "2", "3", "4", "5", "6")
    with closing(ArchiveDatabase(sqlite_url)) as database:
        archive_schema.migrate(database)
        move_audit(database, town.client, town.world.settings.shards)
    tell(town, "7", "8", "9", "10", "11", "12", "13")
    shown = [subject for page in pages(town) for subject in page]
    assert list(dict.fromkeys(shown)) == [str(each) for each in range(13, 0, -1)]


def test_acts_of_one_ms_are_on_one_page_each_once(town, small_pages):
    for place, subject in enumerate("abcdefgh"):
        command = [*audit_command("console zoe" if subject in "adf" else "console ada", "read lane", subject)]
        command[command.index("*")] = f"{1_000 + place // 3}-{place}"
        redis_client.run_command(town.client, tuple(command))
    shown = [subject for page in pages(town, actor="zoe") for subject in page]
    assert shown == ["f", "d", "a"]


def test_more_acts_of_one_ms_than_a_page_looks_at_are_no_end(town, small_pages):
    for place in range(9):
        command = [*audit_command("console ada", "read lane", f"{place}")]
        command[command.index("*")] = f"1000-{place}"
        redis_client.run_command(town.client, tuple(command))
    assert pages(town, actor="zoe")[-1] == []


@pytest.mark.parametrize("is_archived", [True, False])
def test_what_hardly_anybody_did_is_looked_for_among_so_many_acts_a_page(
    town, small_pages, sqlite_url, is_archived  # noqa: F811
):  # fmt: skip
    tell(town, "rare", actor="console zoe")
    tell(town, *map(str, range(9)))
    if is_archived:
        with closing(ArchiveDatabase(sqlite_url)) as database:
            archive_schema.migrate(database)
            move_audit(database, town.client, town.world.settings.shards)
    first = audit_page.read_acts(town.world, AuditFilter(actor="zoe"))
    assert (first.acts, first.is_cut) == ([], True)
    shown = pages(town, actor="zoe")
    assert len(shown) >= 2
    assert [subject for page in shown for subject in page] == ["rare"]


def reads_of_server(town):
    return int(town.client.info("stats")["total_reads_processed"])


def test_looking_for_removed_channels_takes_no_round_trip_for_each_shard(town):
    people = [f"+336000000{person:02}" for person in range(50)]
    for person in people:
        town.accept(person, "START")
    town.drain()
    before = reads_of_server(town)
    left = count_leftovers(town.client, range(64), ["another"], 4_096)
    assert left["clinic"].sessions == len(people)
    assert reads_of_server(town) - before < 32


class Checks:
    """Counts how often it is checked what takes longer."""

    def __init__(self, monkeypatch):
        self.times = count()
        check = now_page.check_state
        monkeypatch.setattr(now_page, "check_state", lambda *given: (next(self.times), check(*given))[1])

    @property
    def done(self):
        return int(repr(self.times)[6:-1])


def test_numbers_are_read_each_time_and_what_takes_longer_is_checked_once_in_a_while(town, monkeypatch):
    ticks, passed_s = count(), [0.0]
    host = Host(monotonic_s=lambda: passed_s[0] + next(ticks) / 1_000)
    reader = NowReader(msgspec.structs.replace(town.world, host=host))
    checks = Checks(monkeypatch)
    assert reader.read().service.open_conversations == 0
    town.accept(ANNA, "START")
    town.drain()
    assert reader.read().service.open_conversations == 1
    assert checks.done == 1
    passed_s[0] += CHECKS_FRESH_S
    reader.read()
    assert checks.done == 2


def test_after_a_reading_that_failed_what_was_read_before_is_not_taken_for_now(town, monkeypatch):
    """By threads that waited for it: they asked before it began."""
    now_s = [1.0]
    reader = NowReader(msgspec.structs.replace(town.world, host=Host(monotonic_s=lambda: now_s[0])))
    before = reader.read()
    now_s[0] = 10.0
    with monkeypatch.context() as patch:
        patch.setattr(now_page, "assess_health", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            reader.read()
    assert reader.read() is not before


def test_a_version_that_runs_here_is_not_compiled_again_to_look_at_a_person(town, monkeypatch):
    town.accept(ANNA, "START")
    town.drain()

    def refuse(*_):
        raise AssertionError("a survey is compiled")

    monkeypatch.setattr(snapshot_reader, "read_stored_survey", refuse)
    monkeypatch.setattr("engine.proofs.survey_loader.load_survey", refuse)
    (thread,) = read_snapshot(town.world, ANNA).threads
    assert thread.session.step == "name"
    assert not thread.session.problem
    assert town.client.hlen(keyspace.SURVEYS_KEY) == 1


class Together:
    """Readings none of which is there before all are asked for."""

    def __init__(self, many):
        self.all_asked = asyncio.Barrier(many)

    async def look(self, key, count, **_):
        await self.all_asked.wait()
        return KeptReading(0)


def test_what_a_page_waits_for_is_waited_for_together(town):
    async def look():
        views = SurveyViews(town.world, Together(3), BlockingCalls())
        listed = await views.list_surveys()
        assert [row.report for row in listed.rows] == [None]
        views = SurveyViews(town.world, Together(2), BlockingCalls())
        await views.view(town.world.surveys.current("clinic"), "en")

    asyncio.run(asyncio.wait_for(look(), HANG_S))
