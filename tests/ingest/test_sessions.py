"""A session is found by its id or its inviter's reference, in whatever state, by a key that may see it."""

from contextlib import closing
from time import time

import pytest
import requests

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase
from config.settings.settings import DEFAULT_SHARDS
from config.store import function_calls, keyspace, redis_client
from config.store.event_entries import compact_records
from config.store.server_functions import ReleasedInvitation, ReleaseInvitations
from engine.model import lane as lane_format
from engine.model.events import (
    Answer,
    Attachment,
    CancelSession,
    Invitation,
    OpeningRefused,
    ReceiptRecorded,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsReceived,
    SmsSent,
    decode_inbound,
    encode_event,
)
from engine.model.lane import ChannelLine, Lane, Session
from ingest.api import sessions
from tests.support.inviting import KEY, OTHER_KEY, Api, key_table

SHARDS = DEFAULT_SHARDS
PERSON = "+33612345678"
K = keyspace.shard_of(PERSON, SHARDS)
ID = "00000000000000aa"
CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
[channels.ward]
number = "+33700000003"
surveys = ["clinic"]
"""
OPENED = SessionOpened(1_000, "clinic", ID, "clinic", "v1", "en")
SAID = SmsDecided(1_000, "clinic", ID, f"{ID}x0", "name", "Name?")


@pytest.fixture
def base(web, tmp_path):
    config = (
        CONFIG
        + key_table()
        + key_table("other", OTHER_KEY, ["ward"])
        + key_table("both", "both", ["ward", "clinic"])
    )
    (tmp_path / "parley.toml").write_text(config)
    return web(PARLEY_CONFIG=str(tmp_path / "parley.toml"))


@pytest.fixture
def api(base):
    return Api(base)


class Store:
    """What the workers would have written."""

    def __init__(self, valkey):
        self.client = valkey.client()

    def index(self, since=1_000):
        self.client.set(keyspace.session_key(K, ID), f"{since} {PERSON}")

    def archive(self, *records, at):
        plain = encode_event(records)
        written = compact_records(plain) if at % 2 else plain
        self.client.xadd(keyspace.events_key(K), {"to": PERSON, "e": written}, id=f"{at}-*")

    def lane(self, session, line="clinic"):
        state = lane_format.encode_lane(Lane(lines={line: ChannelLine(session=session)}))
        self.client.set(keyspace.lane_key(K, PERSON), b"7 0 " + state)

    def mail(self):
        return [
            decode_inbound(entry[14:]) for entry in self.client.lrange(keyspace.mailbox_key(K, PERSON), 0, -1)
        ]

    def release(self, identity):
        """As the pacer does."""
        released = ReleasedInvitation(mailbox=keyspace.mailbox_key(K, PERSON), id=identity, sender=PERSON)
        call = ReleaseInvitations(
            lane_alarms=keyspace.lane_alarms_key(K),
            held_ids=keyspace.held_ids_key(K, "clinic"),
            held_invitations=keyspace.held_invitations_key(K),
            campaigns=keyspace.campaigns_key(K),
            campaign_sessions=keyspace.campaign_sessions_key(K),
            invitations=[released],
        )
        redis_client.run_command(self.client, function_calls.function_call(call))


@pytest.fixture
def store(valkey):
    return Store(valkey)


def test_what_came_with_an_sms_is_told_with_it(api, store):
    store.index()
    picture = Attachment("image/png", "https://media.example.org/1")
    store.archive(OPENED, SmsReceived(1_500, "clinic", ID, "e", "", attachments=(picture,)), at=1_500)
    assert api.session(ID).json()["transcript"] == [
        {
            "at": "1970-01-01T00:00:01.500000Z", "from": "person", "text": "",
            "attachments": [{"mediaType": "image/png", "url": "https://media.example.org/1"}],
        }
    ]  # fmt: skip


def test_an_invitation_that_is_held_is_found_by_reference_and_by_id(api):
    identity = api.invite(
        identifier=PERSON, channel="clinic", clientReference="a/b&c é", content="Hi"
    ).json()["id"]
    found = api.find(clientReference="a/b&c é", channel="clinic")
    assert found.json() == api.find(clientReference="a/b&c é").json() == api.session(identity).json()
    assert (found.json()["state"], found.json()["identifier"]) == ("held", PERSON)
    assert "startsAfter" in found.json()


def test_one_that_was_refused_is_told_with_the_reference_that_found_it(api, store):
    identity = api.invite(identifier=PERSON, channel="clinic", clientReference="r").json()["id"]
    store.release(identity)
    store.client.delete(keyspace.mailbox_key(K, PERSON))
    now = round(time() * 1000)
    store.archive(OpeningRefused(now, "clinic", identity, "opted_out"), at=now)
    found = api.find(clientReference="r", channel="clinic").json()
    assert (found["state"], found["reason"], found["clientReference"]) == ("refused", "opted_out", "r")


TOLD = {
    "identifier": PERSON, "channel": "clinic", "clientReference": "r", "language": "no",
    "userSessionVariables": {"Agent": "7"},
}  # fmt: skip


def is_told(session):
    """Whether it is said what was to be opened."""
    names = ("survey", "language", "clientReference", "variables")
    assert [session[name] for name in names] == ["clinic", "no", "r", {"Agent": "7"}]
    return True


def test_one_that_is_cancelled_while_it_is_held_is_told_as_it_was(api):
    identity = api.invite(**TOLD).json()["id"]
    held = api.session(identity).json()
    cancelled = api.cancel(identity).json()
    assert cancelled["state"] == "cancelled"
    assert is_told(held)
    assert is_told(cancelled)
    assert api.session(identity).json() == api.find(clientReference="r").json()
    assert is_told(api.session(identity).json())
    again = api.invite(**TOLD)
    assert (again.status_code, again.json()["state"], again.json()["id"]) == (200, "cancelled", identity)
    assert not {"reason", "startsAfter"} & again.json().keys()


def test_one_that_was_refused_is_told_as_it_was_also_when_it_is_posted_again(api, store):
    posted = api.invite(**TOLD)
    identity = posted.json()["id"]
    again = api.invite(**TOLD)
    assert (posted.status_code, again.status_code) == (202, 200)
    assert again.json() | {"startsAfter": ""} == posted.json() | {"startsAfter": ""}
    store.release(identity)
    (invitation,) = store.mail()
    store.client.delete(keyspace.mailbox_key(K, PERSON))
    now = round(time() * 1000)
    store.archive(OpeningRefused(now, "clinic", identity, "already_open", invitation), at=now)
    assert is_told(api.session(identity).json())
    again = api.invite(**TOLD)
    answered = again.json()
    assert (again.status_code, answered["state"], answered["reason"]) == (200, "refused", "already_open")


def test_one_whose_turn_has_come_waits_and_can_be_cancelled_once(api, store):
    identity = api.invite(identifier=PERSON, channel="clinic", clientReference="r").json()["id"]
    store.release(identity)
    assert api.session(identity).json()["state"] == "waiting"
    assert [api.cancel(identity).status_code for _ in range(2)] == [202, 202]
    invitation, cancel, again = store.mail()
    assert isinstance(invitation, Invitation)
    assert cancel == again == CancelSession(cancel.id, "clinic", identity)


def test_an_open_session_has_its_answers_from_the_lane_and_its_sms_from_the_archive(api, store):
    store.index()
    store.archive(OPENED, SAID, at=1_001)
    store.archive(SmsSent(1_200, "clinic", ID, f"{ID}x0", "t"), at=1_200)
    store.archive(SmsReceived(1_500, "clinic", ID, "e", "Ada", ""), at=1_500)
    answers = {"name": Answer("Ada", "Ada"), "$agentid": Answer("7", 7)}
    store.lane(Session(ID, "clinic", "v1", "en", 1_000, 1_500, answers=answers), line="clinic:+33700000011")
    session = api.session(ID).json()
    assert (session["state"], session["survey"], session["version"]) == ("open", "clinic", "v1")
    assert session["answers"] == {"name": {"raw": "Ada", "value": "Ada"}}
    assert session["variables"] == {"agentid": "7"}
    assert session["transcript"] == [
        {"at": "1970-01-01T00:00:01Z", "from": "us", "text": "Name?", "state": "accepted"},
        {"at": "1970-01-01T00:00:01.500000Z", "from": "person", "text": "Ada"},
    ]


def test_a_session_open_for_longer_than_the_archive_goes_back_is_open_still(api, store):
    store.index()
    store.lane(Session(ID, "clinic", "v1", "en", 1_000, 1_500))
    assert (api.session(ID).json()["state"], api.session(ID).json()["channel"]) == ("open", "clinic")


def test_a_session_is_found_among_many_entries_of_others(api, store, monkeypatch):
    monkeypatch.setattr(sessions, "STREAM_PAGE_SIZE", 3)
    store.index()
    for at in range(1_000, 1_020):
        store.client.xadd(
            keyspace.events_key(K), {"to": "+4412345", "e": encode_event([OPENED])}, id=f"{at}-*"
        )
        if at == 1_007:
            store.archive(OPENED, SAID, at=at)
    store.archive(SessionEnded(1_100, "clinic", ID, "expired"), at=1_100)
    session = api.session(ID).json()
    assert (session["state"], len(session["transcript"])) == ("expired", 1)


def test_a_receipt_of_the_day_after_is_told_and_the_archive_is_not_read_beyond(api, store):
    store.index()
    store.archive(OPENED, SAID, SessionEnded(1_000, "clinic", ID, "completed"), at=1_000)
    day = 86_400_000
    store.archive(ReceiptRecorded(day, "clinic", "t", "D", "delivered", sms=f"{ID}x0"), at=day)
    assert api.session(ID).json()["transcript"][0]["state"] == "delivered"


def test_what_is_over_cannot_be_cancelled(api, store):
    store.index()
    store.archive(OPENED, SAID, SessionEnded(1_000, "clinic", ID, "completed"), at=1_000)
    reply = api.cancel(ID)
    assert (reply.status_code, reply.json()["title"]) == (409, "the session is over")
    assert store.mail() == []


def test_one_that_was_accepted_and_is_nowhere_has_to_be_looked_for(api, store):
    """The worker gave it up: it is among the dead letters. Once the archive would have forgotten it, so have we."""
    identity = api.invite(identifier=PERSON, channel="clinic", clientReference="r").json()["id"]
    store.release(identity)
    store.client.delete(keyspace.mailbox_key(K, PERSON))
    session = api.find(clientReference="r").json()
    assert (session["id"], session["state"], session["reason"]) == (identity, "refused", "dead_letter")
    store.index(since=1)
    assert api.session(ID).status_code == 404


@pytest.mark.parametrize("archived, days", [(False, 29), (True, 6)])
def test_one_that_is_nowhere_was_lost_only_if_the_event_stream_would_know_of_it(
    base, store, tmp_path, archived, days
):
    """An archive that has its end lets it leave Redis sooner."""
    api, day = Api(base, "both"), 86_400_000
    if archived:
        with closing(ArchiveDatabase(f"sqlite:///{tmp_path / 'archive.db'}")) as database:
            archive_schema.migrate(database)
        store.client.set(keyspace.archived_key(K), "1-0 1")
    now = redis_client.server_time_ms(store.client)
    store.index(since=now - days * day)
    assert api.session(ID).json()["reason"] == "dead_letter"
    store.index(since=now - (days + 2) * day)
    assert api.session(ID).status_code == 404


@pytest.mark.parametrize("identity", ["0" * 16, "x", "0" * 15, "G" * 16, "%00", "*"])
def test_what_is_not_there_is_404(api, identity):
    for reply in (api.session(identity), api.cancel(identity)):
        assert (reply.status_code, reply.headers["Content-Type"]) == (404, "application/problem+json")


def test_a_key_sees_the_sessions_of_its_channels_only(base):
    mine, theirs = Api(base), Api(base, OTHER_KEY)
    identity = mine.invite(identifier=PERSON, channel="clinic", clientReference="r").json()["id"]
    assert theirs.session(identity).status_code == 404
    assert theirs.cancel(identity).status_code == 404
    assert theirs.find(clientReference="r", channel="clinic").status_code == 400
    assert Api(base, "wrong").session(identity).status_code == 401
    assert mine.session(identity).json()["state"] == "held"


def test_one_that_is_nowhere_is_seen_by_whoever_may_see_every_channel(base, store):
    """Nothing says any more which channel it was on, unless it is asked for by its reference on one."""
    mine, theirs, both = Api(base), Api(base, OTHER_KEY), Api(base, "both")
    identity = mine.invite(identifier=PERSON, channel="clinic", clientReference="r").json()["id"]
    store.release(identity)
    store.client.delete(keyspace.mailbox_key(K, PERSON))
    assert [each.session(identity).status_code for each in (theirs, mine, both)] == [404, 404, 200]
    assert theirs.cancel(identity).status_code == 404
    found = mine.find(clientReference="r").json()
    assert (found["reason"], found["channel"]) == ("dead_letter", "clinic")


def test_by_reference_the_channel_is_needed_where_there_are_several(base):
    one = Api(base, "both")
    one.invite(identifier=PERSON, channel="ward", clientReference="r")
    assert one.find(clientReference="r", channel="ward").status_code == 200
    reply = one.find(clientReference="r")
    assert (reply.status_code, "clinic or ward" in reply.json()["detail"]) == (400, True)
    assert one.find().status_code == 400
    assert "did you mean clientReference?" in one.find(clientreference="r").json()["detail"]


def test_other_routes_and_methods_are_problems_too(base):
    headers = {"Authorization": f"Bearer {KEY}"}
    for method, path, status in [
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/sessions", 405),
        ("GET", "/v1/surveys/clinic/invitations", 405),
    ]:
        reply = requests.request(method, base + path, headers=headers, timeout=60)
        assert (reply.status_code, reply.headers["Content-Type"]) == (status, "application/problem+json")
