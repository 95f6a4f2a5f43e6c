"""`parley check` says of an archive what a process that starts here would come to, and for how long it keeps what people said."""

import os
import sys

import pytest

from config.archive.archive_schema import migrate
from config.archive.database import ArchiveDatabase
from config.settings.config_errors import ConfigError
from config.settings.settings import load_settings
from tests.support.processes import ROOT
from workers.archiving.archive_check import archive_sentences


def sentences(**environ):
    settings = load_settings(
        {"PARLEY_CONFIG": str(ROOT / "config" / "parley.toml")}
        | {f"PARLEY_{name}": str(value) for name, value in environ.items()}
    )
    return list(archive_sentences(settings))


def warnings(**environ):
    return [each.removeprefix("  warning: ") for each in sentences(**environ) if each.startswith("  ")]


@pytest.fixture
def archive(tmp_path):
    """A file that `archive` has made."""
    database = ArchiveDatabase(f"sqlite:///{tmp_path}/archive.db")
    migrate(database)
    database.close()
    return f"sqlite:///{tmp_path}/archive.db"


def test_where_it_is_and_for_how_long_it_keeps_what_people_said(archive):
    (told,) = sentences(ARCHIVE_URL=archive, KEEP_DAYS=90)
    assert told == (
        f"archive: {archive.removeprefix('sqlite:///')}; it keeps what people said for 90 days after their session "
        "(PARLEY_KEEP_DAYS, which is yours to decide), or for as long as a survey's `keep` says"
    )


def test_one_that_was_not_made_yet_is_well(tmp_path):
    assert warnings(VAR=tmp_path / "not" / "there") == []
    assert list(tmp_path.iterdir()) == [], "nothing is made"


def test_an_older_schema_waits_for_the_process_that_brings_it_there(tmp_path):
    (tmp_path / "archive.db").touch()
    (told,) = warnings(VAR=tmp_path)
    assert "the archive has the schema of nothing yet, this release needs" in told


def test_a_file_that_cannot_be_written_is_told(archive, monkeypatch):
    """As it is for anybody but root, who may write everywhere."""
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("archive.db"))
    (told,) = warnings(ARCHIVE_URL=archive)
    assert told == f"{archive.removeprefix('sqlite:///')} cannot be written here, which `archive` must"


def test_a_network_disk_is_a_mistake_before_there_is_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("config.archive.database.network_filesystem", lambda file: "nfs4")
    with pytest.raises(ConfigError, match="is on a network disk"):
        sentences(VAR=tmp_path)


@pytest.mark.parametrize(
    "host, warned", [("127.0.0.1", False), ("localhost", False), ("lanes.example.org", True)]
)
def test_a_file_beside_a_redis_of_another_machine_is_told(archive, host, warned):
    told = warnings(ARCHIVE_URL=archive, REDIS_URL=f"redis://{host}:6379/0")
    assert ["expected PostgreSQL in PARLEY_ARCHIVE_URL" in each for each in told] == [True] * warned


def test_a_server_that_does_not_answer_is_no_mistake_and_its_password_is_not_shown():
    told = sentences(ARCHIVE_URL="postgresql://parley:secret@127.0.0.1:1/parley", REDIS_URL="redis://x/0")
    assert told[0].startswith("archive: PostgreSQL at 127.0.0.1; it keeps")
    assert told[1:] == ["  warning: the archive cannot be read (OperationalError), and is not looked at"]


def test_without_its_driver_it_can_never_be_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match="whose driver is not installed"):
        sentences(ARCHIVE_URL="postgresql://parley:secret@127.0.0.1:1/parley")


@pytest.mark.parametrize("stream, keep, warned", [(7, 365, False), (9, 9, False), (10, 9, True)])
def test_redis_that_would_keep_what_happened_for_longer_than_the_archive_is_told(
    archive, stream, keep, warned
):
    told = warnings(ARCHIVE_URL=archive, STREAM_DAYS=stream, KEEP_DAYS=keep)
    assert [f"for {stream} days (PARLEY_STREAM_DAYS), longer than the archive" in each for each in told] == [
        True
    ] * warned
