"""What was said in a session goes when its survey says so, whole and alone: on a real stream, at injected times."""

import pytest

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
from tests.workers.dead_letters import stored
from workers.clock.retention import sweep_expired, sweep_hourly
from workers.store.dead_letter_store import DeadLetter, encode_dead_letter
from workers.store.session_records import group_by_session
from workers.store.survey_versions import store_versions

ANNA, BORIS = "+33600000001", "+33600000002"
DAY = 86_400_000
DAY_0 = 1_800_000_000_000

BRIEF = b"survey: brief\nkeep: 2d\nsteps: [{id: a, ask: A?, answer: {type: yes_no}}]"
LONG = b"survey: long\nsteps: [{id: a, ask: A?, answer: {type: yes_no}}]"


@pytest.fixture
def town(pipeline):
    """A pipeline whose archive a test fills by hand."""
    town = pipeline()
    known = SurveyRegistry()
    town.brief, town.long = (
        known.add_version(read_stored_survey(f"{i}.yaml", source)) for i, source in enumerate((BRIEF, LONG))
    )
    store_versions(town.client, [town.brief, town.long])
    return town


def shard(town, sender):
    return keyspace.shard_of(sender, town.world.settings.shards)


def write(town, sender, *records, together=False):
    """Entries of the archive: one a run of records of one session, as a commit has them."""
    for entry in [list(records)] if together else group_by_session(records):
        town.client.xadd(keyspace.events_key(shard(town, sender)), {"to": sender, "e": encode_event(entry)})


def hold(town, sender, session, survey, ended_at=None):
    """A session that is in the archive, in a dead letter and in the index."""
    write(
        town, sender,
        SessionOpened(DAY_0, "clinic", session, survey.name, survey.version, "en"),
        SmsReceived(DAY_0, "clinic", session, "e1", "I feel ill"),
        SmsDecided(DAY_0, "clinic", session, f"{session}x0", "a", "A?"),
        SmsSent(DAY_0, "clinic", session, f"{session}x0", f"ticket-{session}"),
    )  # fmt: skip
    if ended_at is not None:
        write(
            town, sender, SessionEnded(ended_at, "clinic", session, "completed", {"a": Answer("yes", True)})
        )
    k = shard(town, sender)
    letter = DeadLetter(
        id=f"s{session}", kind="sms", reason="rejected", sender=sender, at=DAY_0, attempts=1, what=b"", session=session
    )  # fmt: skip
    town.client.hset(keyspace.dead_letters_key(k), letter.id, encode_dead_letter(letter).content)
    town.client.zadd(keyspace.dead_letter_index_key(k), {letter.id: DAY_0})
    town.client.set(keyspace.session_key(k, session), f"{DAY_0} {sender}", px=10**9)


def sessions_in(town, sender):
    return {getattr(record, "session", "") for record in town.records(sender)}


def letters(town):
    return {letter.session for letter in stored(town.client, town.world.settings)}


def clean(town, days):
    return sweep_expired(town.client, town.world.settings.shards, SurveyRegistry(), DAY_0 + round(days * DAY))


def test_a_session_goes_when_its_survey_says_so_and_no_other_does(town):
    hold(town, ANNA, "aa", town.brief, ended_at=DAY_0)
    hold(town, ANNA, "bb", town.brief, ended_at=DAY_0 + DAY)
    hold(town, ANNA, "cc", town.long, ended_at=DAY_0)
    hold(town, ANNA, "dd", town.brief)
    hold(town, BORIS, "ee", town.brief, ended_at=DAY_0)
    clean(town, 2)
    assert sessions_in(town, ANNA) == {"aa", "bb", "cc", "dd"}
    swept = clean(town, 2.5)
    assert (swept.sessions, swept.dead_letters) == (2, 2)
    assert sessions_in(town, ANNA) == {"bb", "cc", "dd"}
    assert sessions_in(town, BORIS) == set()
    assert letters(town) == {"bb", "cc", "dd"}
    assert clean(town, 2.5).sessions == 0
    clean(town, 100)
    assert sessions_in(town, ANNA) == {"cc", "dd"}


def test_an_invitation_that_was_refused_goes_as_a_session_of_its_survey_would(town):
    known = SurveyRegistry([town.brief, town.long])
    k = shard(town, ANNA)
    for name in ("brief", "long"):
        refused = OpeningRefused(DAY_0, "clinic", name, "opted_out", Invitation(name, "clinic", name))
        write(town, ANNA, SmsReceived(DAY_0, "clinic", "", "e1", "hello"), refused)
        town.client.set(keyspace.session_key(k, name), f"{DAY_0} {ANNA}", px=10**9)

    def left(days):
        sweep_expired(town.client, town.world.settings.shards, known, DAY_0 + round(days * DAY))
        return [record.id for record in town.records(ANNA) if isinstance(record, OpeningRefused)]

    assert left(1) == ["brief", "long"]
    assert left(3) == ["long"]
    assert len(town.records(ANNA)) == 3
    assert town.client.get(keyspace.session_key(k, "brief")) == b""
    assert town.client.get(keyspace.session_key(k, "long")) != b""


def test_whose_it_was_is_found_no_more_though_that_it_was_is(town):
    hold(town, ANNA, "aa", town.brief, ended_at=DAY_0)
    reference = keyspace.reference_key(town.world.settings.shards, "aa")
    town.client.set(reference, "a hash with the number in it", px=1_000_000)
    clean(town, 3)
    for key in (keyspace.session_key(shard(town, ANNA), "aa"), reference):
        assert town.client.get(key) == b""
        assert town.client.pttl(key) > 0


def test_receipts_go_with_their_session_and_evidence_of_a_stop_stays(town):
    hold(town, ANNA, "aa", town.brief)
    write(
        town, ANNA,
        ReceiptRecorded(DAY_0, "clinic", "t", "delivered", "delivered", sms="aax0"),
        ReceiptRecorded(DAY_0, "clinic", "ticket-aa", "DELIVERED"),
        SmsReceived(DAY_0, "clinic", "aa", "e2", "STOP"),
        PersonOptedOut(DAY_0, "clinic", "e2", "STOP"),
        SessionEnded(DAY_0, "clinic", "aa", "stopped"),
    )  # fmt: skip
    write(town, ANNA, ReceiptRecorded(DAY_0, "clinic", "of no session", "DELIVERED"))
    clean(town, 3)
    assert town.records(ANNA) == [
        PersonOptedOut(DAY_0, "clinic", "e2", "STOP"),
        ReceiptRecorded(DAY_0, "clinic", "of no session", "DELIVERED"),
    ]


@pytest.mark.parametrize("apart, gone", [(0, True), (5, False)])
def test_an_entry_of_several_sessions_goes_when_all_of_them_are_due(town, apart, gone):
    """No commit of this release makes one."""
    for session, ended_at in (("aa", DAY_0), ("bb", DAY_0 + apart * DAY)):
        write(town, ANNA, SessionOpened(DAY_0, "clinic", session, "brief", town.brief.version, "en"))
        write(town, ANNA, SessionEnded(ended_at, "clinic", session, "completed"))
    both = [SmsReceived(DAY_0, "clinic", session, "e1", "x") for session in ("aa", "bb")]
    write(town, ANNA, *both, together=True)
    clean(town, 3)
    assert [record for record in town.records(ANNA) if isinstance(record, SmsReceived)] == (
        [] if gone else both
    )


def test_a_real_conversation_leaves_entries_that_can_go(pipeline):
    """What the engine decides in one commit is laid down by session."""
    town = pipeline(BRIEF.replace(b"brief", b"clinic"))
    store_versions(town.client, [town.world.surveys.current("clinic")])
    town.accept(ANNA, "START", "STOP")
    town.drain()
    town.accept(BORIS, "START")
    town.drain()
    now = town.records(ANNA)[-1].at
    assert any(isinstance(record, PersonOptedOut) for record in town.records(ANNA))
    sweep_expired(town.client, town.world.settings.shards, SurveyRegistry(), now + 3 * DAY)
    assert sessions_in(town, ANNA) == {""}
    assert any(isinstance(record, PersonOptedOut) for record in town.records(ANNA))
    assert town.records(BORIS)


def test_many_pages_are_swept(town, monkeypatch):
    monkeypatch.setattr("workers.store.event_stream.STREAM_PAGE_SIZE", 3)
    for place in range(10):
        hold(town, ANNA, f"a{place}", town.brief, ended_at=DAY_0)
        hold(town, ANNA, f"b{place}", town.long, ended_at=DAY_0)
    assert clean(town, 3).sessions == 10
    assert sessions_in(town, ANNA) == {f"b{place}" for place in range(10)}


def test_one_clock_sweeps_in_an_hour(town):
    def look():
        return sweep_hourly(town.client, town.world.settings.shards, SurveyRegistry())

    assert look() is not None
    assert look() is None
    assert 0 < town.client.pttl(keyspace.RETENTION_KEY) < 3_600_000
    town.client.delete(keyspace.RETENTION_KEY)
    assert look() is not None
