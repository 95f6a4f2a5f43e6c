"""What was said in a session leaves the archive when it is due, whole and alone, at injected times, on both databases."""

import msgspec
import pytest
from sqlalchemy import delete, func, insert, select

from config.archive import tables
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.host import Host
from config.store import keyspace
from engine.model.events import (
    Answer,
    Invitation,
    OpeningRefused,
    PersonOptedOut,
    ReceiptRecorded,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsReceived,
    SmsSent,
    encode_event,
)
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry
from workers.archiving import archive_retention
from workers.archiving.archive_retention import RetentionCounts, run_retention, sweep_archive_hourly
from workers.archiving.archive_rows import EntryPlace
from workers.archiving.page_writer import write_page
from workers.archiving.projection import PageEntry
from workers.store.session_records import group_by_session

ANNA, BORIS = "+33600000001", "+33600000002"
DAY = 86_400_000
DAY_0 = 1_800_000_000_000
KEEP_DAYS = 30

BRIEF = b"survey: brief\nkeep: 2d\nsteps: [{id: a, ask: A?, answer: {type: yes_no}}]"
LONG = b"survey: long\nsteps: [{id: a, ask: A?, answer: {type: yes_no}}]"
LONGER = b"survey: longer\nkeep: 9999d\nsteps: [{id: a, ask: A?, answer: {type: yes_no}}]"


class Town:
    """An archive that a test fills by hand, and what keeps it small."""

    def __init__(self, pipeline, database):
        self.world = pipeline.world
        self.settings = msgspec.structs.replace(self.world.settings, keep_ms=KEEP_DAYS * DAY)
        self.client = pipeline.client
        self.database = database
        self.known = SurveyRegistry()
        self.brief, self.long, self.longer = map(self.store, (BRIEF, LONG, LONGER))
        self._written = 0

    def store(self, source, first_at=DAY_0):
        """A version of a survey, which the archive has."""
        survey = read_stored_survey("x.yaml", source)
        row = {
            "version": survey.version,
            "name": survey.name,
            "file": "x.yaml",
            "source": source,
            "first_at": first_at,
        }
        with self.database.writing() as connection:
            connection.execute(insert(tables.surveys), row)
        return survey

    def write(self, sender, *records):
        """Entries, each a run of records of one session, as a commit has them, at the time of their first."""
        k = keyspace.shard_of(sender, self.settings.shards)
        page = []
        for entry in group_by_session(records):
            self._written += 1
            place = EntryPlace(k, entry[0].at, self._written)
            page.append(PageEntry(place, sender, entry, encode_event(entry)))
        with self.database.writing() as connection:
            self.database.lock_position(connection, EVENTS_SOURCE, k)
            write_page(connection, page, lambda sender: f"hash{sender[-1]}")

    def hold(self, sender, session, survey, ended_at=None, opened_at=DAY_0):
        """A session with a row in every table."""
        self.write(
            sender,
            SmsReceived(opened_at, "clinic", session, session, "START"),
            SessionOpened(opened_at, "clinic", session, survey.name, survey.version, "en", "", {"contact": "Rey"}),
            SmsDecided(opened_at, "clinic", session, f"{session}x0", "a", "A?", "ask"),
            SmsSent(opened_at, "clinic", session, f"{session}x0", f"ticket-{session}"),
            ReceiptRecorded(opened_at, "clinic", f"ticket-{session}", "DELIVERED", "delivered"),
            SmsReceived(opened_at, "clinic", session, "e1", "yes", step="a", answer=Answer("yes", True), answer_type="yes_no"),
        )  # fmt: skip
        if ended_at is not None:
            self.write(
                sender, SessionEnded(ended_at, "clinic", session, "completed", {"a": Answer("yes", True)})
            )

    def clean(self, days, surveys=None):
        return run_retention(self.database, self.settings, surveys or self.known, DAY_0 + round(days * DAY))

    def sessions(self):
        with self.database.reading() as connection:
            return set(connection.execute(select(tables.sessions.c.session)).scalars())

    def rows(self):
        """How many rows each table has of people."""
        with self.database.reading() as connection:
            return {
                table.name: rows
                for table in tables.METADATA.sorted_tables
                if table.name not in ("positions", "surveys", "deployment", "audit")
                if (rows := connection.execute(select(func.count()).select_from(table)).scalar_one())
            }

    def versions(self):
        with self.database.reading() as connection:
            return set(connection.execute(select(tables.surveys.c.version)).scalars())


@pytest.fixture
def town(pipeline, archive_database):
    return Town(pipeline(), archive_database)


def test_a_session_goes_when_its_survey_says_so_and_no_other_does(town):
    town.hold(ANNA, "aa", town.brief, ended_at=DAY_0)
    town.hold(ANNA, "bb", town.brief, ended_at=DAY_0 + DAY)
    town.hold(ANNA, "cc", town.long, ended_at=DAY_0)
    town.hold(ANNA, "dd", town.brief)
    town.hold(BORIS, "ee", town.brief, ended_at=DAY_0)
    assert town.clean(2) == RetentionCounts()
    swept = town.clean(2.5)
    assert (swept.sessions, swept.entries) == (2, 8)
    assert town.sessions() == {"bb", "cc", "dd"}
    assert town.clean(2.5) == RetentionCounts()
    town.clean(KEEP_DAYS - 1)
    assert town.sessions() == {"cc", "dd"}


def test_it_goes_whole(town):
    town.hold(ANNA, "aa", town.brief, ended_at=DAY_0)
    assert {
        "entries",
        "sessions",
        "answers",
        "variables",
        "messages",
        "sends",
        "receipts",
    } == town.rows().keys()
    town.clean(3)
    assert town.rows() == {}


def test_keep_days_hold_for_every_session_also_of_one_that_never_ended(town):
    town.hold(ANNA, "aa", town.long, ended_at=DAY_0)
    town.hold(ANNA, "bb", town.longer, ended_at=DAY_0)
    town.hold(BORIS, "cc", town.long)
    town.hold(BORIS, "dd", town.long, ended_at=DAY_0 + 2 * DAY)
    town.write(BORIS, SmsReceived(DAY_0 + 2 * DAY, "clinic", "cc", "e9", "still here"))
    town.clean(KEEP_DAYS)
    assert town.sessions() == {"aa", "bb", "cc", "dd"}
    town.clean(KEEP_DAYS + 1)
    assert town.sessions() == {"cc", "dd"}
    town.clean(KEEP_DAYS + 3)
    assert town.rows() == {}


def test_an_invitation_that_was_refused_goes_as_a_session_of_its_survey_would(town):
    for name in ("brief", "long"):
        refused = OpeningRefused(DAY_0, "clinic", name, "opted_out", Invitation(name, "clinic", name))
        town.write(ANNA, SmsReceived(DAY_0, "clinic", "", "e1", "hello"), refused)
    today = SurveyRegistry([town.brief, town.long])
    town.clean(1, today)
    assert town.sessions() == {"brief", "long"}
    town.clean(3, today)
    assert town.sessions() == {"long"}
    assert town.rows()["refusals"] == 1


def test_what_belongs_to_no_session_goes_when_it_is_old_and_hashes_stay(town):
    town.hold(BORIS, "aa", town.long, ended_at=DAY_0 + DAY, opened_at=DAY_0 - DAY)
    town.write(
        ANNA,
        SmsReceived(DAY_0, "clinic", "", "e2", "STOP"),
        PersonOptedOut(DAY_0, "clinic", "e2", "STOP"),
        ReceiptRecorded(DAY_0, "clinic", "of no session", "DELIVERED"),
        OpeningRefused(DAY_0, "clinic", "e3", "throttled"),
    )
    before = town.rows()
    town.clean(KEEP_DAYS)
    assert town.rows() == before
    town.clean(KEEP_DAYS + 0.5)
    assert town.sessions() == {"aa"}, "what is as old, but of a session that is kept, stays"
    assert town.rows()["messages"] == 3
    assert "refusals" not in town.rows()
    assert town.rows()["opt_outs"] == 1


def test_a_receipt_that_came_after_its_session_was_deleted_does_not_stay(town):
    town.hold(ANNA, "aa", town.brief, ended_at=DAY_0)
    town.clean(3)
    town.write(ANNA, ReceiptRecorded(DAY_0 + 3 * DAY, "clinic", "t", "DELIVERED", sms="aax0"))
    town.clean(KEEP_DAYS + 2)
    assert town.rows().keys() == {"entries", "receipts"}
    town.clean(KEEP_DAYS + 4)
    assert town.rows() == {}


def test_many_pages_are_deleted(town, monkeypatch):
    for name in ("SESSIONS_A_PAGE", "ROWS_A_PAGE", "SESSIONS_FOUND_AT_ONCE"):
        monkeypatch.setattr(archive_retention, name, 3)
    for place in range(10):
        town.hold(ANNA, f"a{place}", town.brief, ended_at=DAY_0)
        town.hold(BORIS, f"b{place}", town.long, ended_at=DAY_0 + 40 * DAY)
        town.write(ANNA, SmsReceived(DAY_0, "clinic", "", f"e{place}", "hello"))
    assert town.clean(31).sessions == 10
    assert town.sessions() == {f"b{place}" for place in range(10)}
    assert town.rows()["messages"] == 30


def test_a_version_goes_that_nobody_runs_and_no_session_has(town):
    old = town.store(BRIEF + b" # old", first_at=DAY_0 - 100 * DAY)
    used = town.store(BRIEF + b" # used", first_at=DAY_0 - 100 * DAY)
    running = town.store(BRIEF + b" # running", first_at=DAY_0 - 100 * DAY)
    town.hold(ANNA, "aa", used)
    swept = town.clean(1, SurveyRegistry([running]))
    assert swept.surveys == 1
    assert town.versions() == {each.version for each in (used, running, town.brief, town.long, town.longer)}
    assert old.version not in town.versions()


def test_a_version_in_use_keeps_for_as_long_as_it_says_though_the_archive_has_it_not_yet(town):
    """The process that sweeps runs it."""
    with town.database.writing() as connection:
        connection.execute(delete(tables.surveys))
    town.hold(ANNA, "aa", town.brief, ended_at=DAY_0)
    town.clean(3, SurveyRegistry([town.brief]))
    assert town.sessions() == set()


def test_one_process_sweeps_in_an_hour_and_none_while_clocks_differ(town):
    world = msgspec.structs.replace(town.world, settings=town.settings)
    town.hold(ANNA, "aa", town.brief, ended_at=1_000)
    of_1970 = msgspec.structs.replace(world, host=Host(wall_s=lambda: 0.0))
    assert sweep_archive_hourly(of_1970, town.database) is None
    assert town.sessions() == {"aa"}
    assert sweep_archive_hourly(world, town.database).sessions == 1
    assert sweep_archive_hourly(world, town.database) is None
    assert 0 < town.client.pttl(keyspace.ARCHIVE_RETENTION_KEY) < 3_600_000


def test_a_session_that_is_no_longer_due_under_the_lock_stays(town, monkeypatch):
    """It was due when it was found; then more was heard of it."""
    town.hold(ANNA, "aa", town.long)
    find = archive_retention._find_sessions

    def found_then_heard_of(database, due):
        found = find(database, due)
        if found:
            town.write(ANNA, SmsReceived(DAY_0 + 40 * DAY, "clinic", "aa", "e9", "still here"))
        return found

    monkeypatch.setattr(archive_retention, "_find_sessions", found_then_heard_of)
    assert town.clean(KEEP_DAYS + 1).sessions == 0
    assert town.sessions() == {"aa"}


def test_nothing_is_swept_where_no_archive_is_yet(town, tmp_path):
    database = ArchiveDatabase(f"sqlite:///{tmp_path / 'none.db'}")
    assert sweep_archive_hourly(town.world, database) is None
    assert database.is_missing


def test_an_archive_of_another_deployment_is_left_alone(town):
    world = msgspec.structs.replace(town.world, settings=town.settings)
    town.hold(ANNA, "aa", town.brief, ended_at=1_000)
    with town.database.writing() as connection:
        connection.execute(insert(tables.deployment), {"name": "id", "value": b"one"})
    town.client.set(keyspace.DEPLOYMENT_KEY, "another")
    assert sweep_archive_hourly(world, town.database) is None
    assert town.sessions() == {"aa"}
