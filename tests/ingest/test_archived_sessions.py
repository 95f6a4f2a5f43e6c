"""A session that Redis no longer knows is told from the archive; and an archive that is away keeps nobody else waiting."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from time import time

import pytest
import requests

from config.archive.database import ArchiveDatabase
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from engine.model.events import (
    Answer,
    Invitation,
    OpeningRefused,
    ReceiptRecorded,
    SessionEnded,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsReceived,
    SmsSent,
    encode_event,
)
from ingest.api import archive_reader
from tests.support.archiving import archive_everything
from tests.support.inviting import Api, key_table
from tests.support.proxy import Proxy
from tests.support.waiting import HANG_S, until

SHARDS = DEFAULT_SHARDS
PERSON = "+33612345678"
K = keyspace.shard_of(PERSON, SHARDS)
ID, OTHER_ID, YOUNG_ID = "00000000000000aa", "00000000000000bb", "00000000000000cc"
LONG_AGO = 1_700_000_000_000
CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
"""


class Town:
    """An API on a Redis and an archive, with what the workers would have written."""

    def __init__(self, web, client, tmp_path, archive_url, reached_by=""):
        (tmp_path / "parley.toml").write_text(CONFIG + key_table())
        self.client = client
        self.archive_url = archive_url
        config = str(tmp_path / "parley.toml")
        self.base = web(PARLEY_CONFIG=config, PARLEY_ARCHIVE_URL=reached_by or archive_url)
        self.api = Api(self.base)
        self._written = 0

    def write(self, at, *records):
        self._written += 1
        entry = {"to": PERSON, "e": encode_event(list(records))}
        self.client.xadd(keyspace.events_key(K), entry, id=f"{at}-{self._written}")

    def index(self, since):
        self.client.set(keyspace.session_key(K, ID), f"{since} {PERSON}")

    def archive(self):
        """Bring the archive to where the stream is."""
        database = ArchiveDatabase(self.archive_url)
        archive_everything(self.client, SHARDS, database)
        database.close()

    def forget(self):
        """As when the days are over for which Redis keeps anything."""
        self.client.delete(keyspace.events_key(K), keyspace.session_key(K, ID))

    def live(self, at, session=ID):
        """A session from its START to its end, and a receipt of the day after."""
        self.write(
            at,
            SessionOpened(at, "clinic", session, "clinic", "v1", "en"),
            SmsReceived(at, "clinic", session, session, "START"),
            SmsDecided(at, "clinic", session, f"{session}x0", "name", "Name?"),
        )
        self.write(at + 100, SmsSent(at + 100, "clinic", session, f"{session}x0", f"ticket-{session}"))
        self.write(
            at + 5_000,
            SmsReceived(at + 5_000, "clinic", session, f"e{session}", "Ada"),
            SessionEnded(at + 5_000, "clinic", session, "completed", {"name": Answer("Ada", "Ada")}),
        )
        self.write(at + 9_000, ReceiptRecorded(at + 9_000, "clinic", f"ticket-{session}", "D", "delivered"))


@pytest.fixture
def town(web, valkey, tmp_path, archive_url):
    return Town(web, valkey.client(), tmp_path, archive_url)


def test_a_session_that_a_start_opened_long_ago_is_told_as_it_was(town):
    town.live(LONG_AGO)
    town.live(LONG_AGO + 60_000, OTHER_ID)
    town.index(LONG_AGO)
    before = town.api.session(ID).json()
    assert (before["state"], len(before["transcript"])) == ("completed", 3)
    town.archive()
    assert town.api.session(ID).json() == before
    town.forget()
    assert town.api.session(ID).json() == before
    assert town.api.session(OTHER_ID).json()["id"] == OTHER_ID
    assert town.api.cancel(ID).status_code == 409


def test_an_invitation_that_was_refused_is_told_too(town):
    invitation = Invitation(ID, "clinic", "clinic", reference="r", variables={"Agent": "7"})
    town.write(LONG_AGO, OpeningRefused(LONG_AGO, "clinic", ID, "opted_out", invitation))
    town.archive()
    town.forget()
    told = town.api.session(ID).json()
    assert (told["state"], told["reason"], told["clientReference"]) == ("refused", "opted_out", "r")


def test_what_the_archive_has_not_yet_is_told_from_the_stream(town):
    """A session that is open for longer than the stream goes back, and an archive that lags."""
    invitation = Invitation(ID, "clinic", "clinic", reference="r")
    town.write(
        LONG_AGO,
        SessionOpened(LONG_AGO, "clinic", ID, "clinic", "v1", "en"),
        SessionInvited(LONG_AGO, "clinic", ID, invitation),
        SmsDecided(LONG_AGO, "clinic", ID, f"{ID}x0", "name", "Name?"),
    )
    town.index(LONG_AGO)
    town.archive()
    town.client.delete(keyspace.events_key(K))
    now = round(time() * 1000)
    town.write(now, SmsReceived(now, "clinic", ID, "e", "Ada"), SessionEnded(now, "clinic", ID, "completed"))
    told = town.api.session(ID).json()
    assert (told["state"], told["clientReference"]) == ("completed", "r")
    assert [sms["text"] for sms in told["transcript"]] == ["Name?", "Ada"]
    town.archive()
    assert town.api.session(ID).json() == told


def test_one_that_was_forgotten_on_purpose_is_not_looked_for(town):
    town.live(LONG_AGO)
    town.archive()
    town.client.set(keyspace.session_key(K, ID), "")
    assert town.api.session(ID).status_code == 404


def test_one_that_nobody_knows_is_404(town):
    town.live(LONG_AGO)
    town.archive()
    assert town.api.session("00000000000000dd").status_code == 404


# An archive that is away


SHORT_S = 0.5


@pytest.fixture
def briefly(monkeypatch):
    """A request waits for the archive for no longer than this."""
    monkeypatch.setattr(archive_reader.ArchiveReader.__init__, "__defaults__", (SHORT_S,))


def is_unaffected(town):
    """Whether what Redis knows is told meanwhile, and what comes in is taken."""
    now = round(time() * 1000)
    town.client.set(keyspace.session_key(K, YOUNG_ID), f"{now} {PERSON}")
    town.write(now, SessionOpened(now, "clinic", YOUNG_ID, "clinic", "v1", "en"))
    told = Api(town.base).session(YOUNG_ID).json()
    assert told["state"] == "open", "it is young enough to be in the stream"
    for number in range(20):
        body = {
            "number": PERSON,
            "text": "hello",
            "reception_date": "2020-11-04 11:11:45",
            "message_id": f"{number}",
        }
        posted = requests.post(
            f"{town.base}/webhooks/clinic", params={"token": "simulator"}, data=body, timeout=HANG_S
        )
        assert posted.status_code == 200
    assert town.client.llen(keyspace.mailbox_key(K, PERSON)) >= 20
    return True


def is_away(reply):
    """Whether it is said that the archive is, and when to come again."""
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert reply.json()["title"] == "the archive does not answer"
    return True


def archived_long_ago(web, valkey, tmp_path, archive_url, reached_by=""):
    town = Town(web, valkey.client(), tmp_path, archive_url, reached_by)
    town.live(LONG_AGO)
    town.archive()
    town.forget()
    return town


def test_a_locked_file_is_503_and_the_rest_goes_on(web, valkey, tmp_path, briefly):
    file = tmp_path / "archive.db"
    town = archived_long_ago(web, valkey, tmp_path, f"sqlite:///{file}")
    with closing(sqlite3.connect(file, isolation_level=None)) as locked:
        locked.execute("PRAGMA locking_mode=EXCLUSIVE")
        locked.execute("BEGIN EXCLUSIVE")
        assert is_away(town.api.session(ID))
        assert is_unaffected(town)
    town.forget()
    assert town.api.session(ID).json()["state"] == "completed"


def test_a_postgresql_that_stands_still_is_503_and_the_rest_goes_on(
    web, valkey, tmp_path, postgresql_server, briefly
):
    """However many ask for it."""
    name = postgresql_server.create_database()
    with Proxy(postgresql_server.url(name)) as proxy:
        town = archived_long_ago(
            web, valkey, tmp_path, postgresql_server.url(name), postgresql_server.url(name, proxy.port)
        )
        assert town.api.session(ID).json()["state"] == "completed"
        proxy.swallow()
        with ThreadPoolExecutor(12) as askers:
            asked = [askers.submit(town.api.session, ID) for _ in range(12)]
            assert is_unaffected(town)
            assert all(is_away(each.result()) for each in asked)
        proxy.spit_out()
        told = until(lambda: _told(town.api.session(ID)), 20, "it is told again")
        assert told["state"] == "completed"


def _told(reply):
    return reply.json() if reply.status_code == 200 else None


def test_an_invitation_is_taken_again_though_the_archive_is_away(web, valkey, tmp_path, briefly):
    """What became of it is not known now; that it was accepted is."""
    town = archived_long_ago(web, valkey, tmp_path, f"sqlite:///{tmp_path / 'archive.db'}")
    posted = town.api.invite(identifier=PERSON, channel="clinic", clientReference="r")
    identity = posted.json()["id"]
    town.client.set(keyspace.session_key(K, identity), f"{LONG_AGO} {PERSON}")
    town.client.delete(keyspace.held_invitations_key(K))
    with closing(sqlite3.connect(tmp_path / "archive.db", isolation_level=None)) as locked:
        locked.execute("PRAGMA locking_mode=EXCLUSIVE")
        locked.execute("BEGIN EXCLUSIVE")
        again = town.api.invite(identifier=PERSON, channel="clinic", clientReference="r")
    assert (posted.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == identity


def test_without_any_archive_a_session_that_redis_does_not_know_is_404(web, valkey, tmp_path):
    town = Town(web, valkey.client(), tmp_path, f"sqlite:///{tmp_path / 'none.db'}")
    assert town.api.session(ID).status_code == 404
    assert not (tmp_path / "none.db").exists()
    town.client.set(keyspace.archived_key(0), "1-0")
    assert is_away(town.api.session(ID)), "one was seen, and it may know"
