"""Who is at a step: each session once, page by page, and never more looked at than so many."""

import pytest
from sqlalchemy import update

from config.archive import step_sessions, tables
from config.archive.step_sessions import StepSessionFilter, count_version_sessions, read_step_sessions
from engine.model.events import Answer
from tests.support.archive_writer import T0, ArchiveWriter

NAME = [("name", Answer("Ada", "Ada"), "text")]


@pytest.fixture
def archive(tmp_path):
    with ArchiveWriter(f"sqlite:///{tmp_path / 'archive.db'}") as writer:
        yield writer


def all_pages(archive, wanted, limit):
    found, before, pages = [], 0, 0
    with archive.database.reading() as connection:
        while True:
            page = read_step_sessions(connection, wanted, before, limit)
            found += [each.session for each in page.sessions]
            pages += 1
            if not page.before:
                return found, pages
            assert not before or page.before < before
            before = page.before


def test_pages_have_each_session_once_the_newest_first(archive):
    sessions = [archive.add_session(NAME, version="v1", how="") for _ in range(7)]
    archive.add_session(NAME, survey="other", how="")
    found, pages = all_pages(archive, StepSessionFilter("clinic"), 3)
    assert found == sessions[::-1]
    assert pages == 3


def test_step_version_and_state_choose(archive):
    is_open = archive.add_session(NAME, version="v1", how="")
    left = archive.add_session(NAME, version="v2", how="idle")
    archive.add_session(NAME, version="v2", how="completed")
    assert all_pages(archive, StepSessionFilter("clinic", "bye"), 9)[0] == [left, is_open]
    assert all_pages(archive, StepSessionFilter("clinic", "bye", whereabouts="open"), 9)[0] == [is_open]
    assert all_pages(archive, StepSessionFilter("clinic", "bye", whereabouts="left"), 9)[0] == [left]
    assert all_pages(archive, StepSessionFilter("clinic", version="v1"), 9)[0] == [is_open]
    assert all_pages(archive, StepSessionFilter("clinic", "nowhere"), 9)[0] == []


def test_a_page_looks_at_so_many_and_says_where_the_next_goes_on(archive, monkeypatch):
    monkeypatch.setattr(step_sessions, "MAX_EXAMINED", 4)
    oldest = archive.add_session(NAME, version="v1", how="")
    for _ in range(9):
        archive.add_session(NAME, version="v1", how="completed")
    with archive.database.reading() as connection:
        first = read_step_sessions(connection, StepSessionFilter("clinic"), 0, 5)
    assert (first.sessions, first.examined) == ([], 4)
    found, pages = all_pages(archive, StepSessionFilter("clinic"), 5)
    assert (found, pages) == ([oldest], 3)


def test_sessions_that_opened_in_one_ms_are_on_one_page(archive):
    sessions = [archive.add_session(NAME, version="v1", how="") for _ in range(5)]
    with archive.database.writing() as connection:
        connection.execute(update(tables.sessions).values(opened_at=T0))
    found, pages = all_pages(archive, StepSessionFilter("clinic"), 2)
    assert sorted(found) == sorted(sessions)
    assert pages == 2


def test_versions_are_counted(archive):
    archive.add_session(NAME, version="v1", how="")
    archive.add_session(NAME, version="v1", how="completed")
    archive.add_session(NAME, version="v2", how="", survey="other")
    with archive.database.reading() as connection:
        found = {
            (each.survey, each.version): (each.open, each.sessions)
            for each in count_version_sessions(connection)
        }
        (only,) = count_version_sessions(connection, "other")
    assert found == {("clinic", "v1"): (1, 2), ("other", "v2"): (1, 1)}
    assert (only.version, only.open) == ("v2", 1)
