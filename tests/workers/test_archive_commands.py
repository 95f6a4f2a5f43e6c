"""`parley archive` says how far the archive is, makes anew what is made of its entries, and goes on after a loss."""

import json
from threading import Thread

import pytest
from click.testing import CliRunner

from config.archive import tables
from config.archive.database import EVENTS_SOURCE, ArchiveDatabase
from config.store import keyspace, redis_client
from tests.support.archiving import (
    add_entries,
    archived_entries,
    derived_rows,
    run_rounds,
    stream_entries,
    talk,
)
from tests.support.waiting import until
from workers.archiving import rebuild as rebuilding
from workers.archiving.lost_tail import LONGEST_LOST_TAIL_MS
from workers.commands.archive import archive as command
from workers.roles.archive import prepare_archiver

ANNA, BORIS = "+33600000001", "+33600000002"
AT = 1_700_000_000_000


class Town:
    """A deployment with an archive, which commands reach, and what a process of the role does."""

    def __init__(self, pipeline, url):
        self.client = pipeline.client
        self.shards = pipeline.world.settings.shards
        self.database = ArchiveDatabase(url)
        self._archiver = prepare_archiver(pipeline.world, self.database)

    def talks(self, sender, session, **how):
        k = keyspace.shard_of(sender, self.shards)
        add_entries(self.client, k, sender, talk(session, AT), **how)
        return k

    def archive(self):
        run_rounds(self._archiver)


@pytest.fixture
def town(deploy, archive_url, monkeypatch):
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", archive_url)
    town = Town(deploy(shards=16), archive_url)
    yield town
    town.database.close()


def typed(words, status=0):
    done = CliRunner().invoke(command, words.split())
    assert done.exit_code == status, done.output
    return done.output


def test_its_status_says_how_far_it_is_and_what_it_has(town):
    k = town.talks(ANNA, "s")
    town.archive()
    town.talks(BORIS, "t")
    told = json.loads(typed("status --json"))
    assert told["counts"] | {"sessions": 1, "answers": 1, "entries": 4} == told["counts"]
    shard = told["shards"][k]
    assert shard["archived"] == shard["last"]
    assert shard["waiting_since_ms"] == 0
    other = told["shards"][keyspace.shard_of(BORIS, town.shards)]
    assert other["archived"] == "0-0"
    assert 0 < other["waiting_since_ms"] <= told["now_ms"]
    assert told["kept_since_ms"] == AT + 5_000
    assert "a-password" not in typed("status")
    assert "4 entries, 1 sessions" in typed("status")
    assert "keeps     sessions for 365 d" in typed("status")


def test_where_there_is_no_archive_it_says_who_makes_one(deploy, tmp_path, monkeypatch):
    deploy()
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", f"sqlite:///{tmp_path / 'none.db'}")
    done = CliRunner().invoke(command, ["status"])
    assert done.exit_code == 2
    assert "the process `archive` makes it" in done.output


def test_an_archive_that_does_not_answer_is_said_without_its_password(deploy, monkeypatch):
    deploy()
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", "postgresql://ada:a-password@127.0.0.1:1/parley")
    said = typed("status", status=1)
    assert "does not answer (OperationalError)" in said
    assert "a-password" not in said


def test_what_is_made_of_entries_is_made_anew(town):
    for n in range(6):
        town.talks(f"+3360000000{n}", f"s{n}")
    town.archive()
    right = derived_rows(town.database)
    with town.database.writing() as connection:
        connection.execute(tables.answers.delete())
        connection.execute(tables.sessions.update().values(state="open"))
        connection.execute(
            tables.audit.insert(),
            {"source": "audit", "shard": 0, "entry_ms": 1, "entry_seq": 0, "actor": "a", "action": "b"},
        )
    assert typed("rebuild") == "24 entries projected anew\n"
    assert derived_rows(town.database) == right
    with town.database.reading() as connection:
        assert len(connection.execute(tables.audit.select()).all()) == 1


def test_entries_that_cannot_be_read_still_are_said(town):
    k = town.talks(ANNA, "s")
    town.client.xadd(keyspace.events_key(k), {"to": ANNA, "e": b"\x91\x91\xa6future"})
    town.archive()
    assert "1 entry cannot be read by this release, and stay as they are" in typed("rebuild", status=1)


def test_one_that_dies_has_changed_nothing_of_its_shard_and_is_typed_again(town, monkeypatch):
    for n in range(6):
        town.talks(f"+3360000000{n}", f"s{n}")
    town.archive()
    right = derived_rows(town.database)
    monkeypatch.setattr(rebuilding, "ENTRIES_A_STEP", 3)

    def die(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuilding.rebuild_shard(town.database, keyspace.shard_of("+33600000000", town.shards), str, die)
    assert derived_rows(town.database) == right
    typed("rebuild")
    assert derived_rows(town.database) == right


def test_it_may_be_rebuilt_while_it_is_archived(town):
    for n in range(40):
        town.talks(f"+336000000{n:02}", f"s{n}")
    town.archive()
    thread = Thread(target=typed, args=("rebuild",))
    thread.start()
    for n in range(40, 80):
        town.talks(f"+336000000{n:02}", f"s{n}")
        town.archive()
    thread.join()
    until(
        lambda: town.archive() or archived_entries(town.database) == stream_entries(town.client, town.shards),
        10,
        "all is there",
    )
    before = derived_rows(town.database)
    assert len(before["sessions"]) == 80
    typed("rebuild")
    assert derived_rows(town.database) == before


def test_a_shard_that_is_held_goes_on_when_a_person_says_so(town):
    now = redis_client.server_time_ms(town.client)
    since = now - LONGEST_LOST_TAIL_MS - 60_000
    k = town.talks(ANNA, "s", ids=[f"{since}-0", f"{since + 1}-0", f"{now}-0", f"{now}-1"])
    town.archive()
    town.client.delete(keyspace.events_key(k))
    said = typed(f"resume --shard {k}")
    assert f"shard {k} goes on; 4 entries that Redis has not stay in the archive\n" in said
    town.talks(ANNA, "t")
    town.archive()
    assert len(archived_entries(town.database)) == 8
    with town.database.writing() as connection:
        assert town.database.lock_position(connection, EVENTS_SOURCE, k).last_ms >= now
    assert "there are 16 shards" in typed("resume --shard 16", status=2)
