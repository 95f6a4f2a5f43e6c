"""That something became a dead letter is told in the event stream: once for each, in order with what else happened to the person,
and so that release 0.1.0, which does not know the record, reads nothing in its place."""

import json

import msgspec
import pytest
from click.testing import CliRunner

from config.store import keyspace, redis_client
from engine.model.events import DeadLetterAdded, SmsReceived, decode_outbound, encode_event
from tests.support.archiving import (
    archive_everything,
    archive_page,
    archived_entries,
    derived_rows,
    rebuild_all,
    stream_entries,
)
from tests.workers.dead_letters import fell, letters_of, outcomes, shard
from workers.clock.retention import sweep_expired
from workers.commands.lane import lane
from workers.commands.replay import replay
from workers.commands.transcript import transcript
from workers.erasure.sender_eraser import SenderEraser
from workers.history.joined_history import HistoryReader
from workers.store.dead_letter_store import DeadLetter, EncodedDeadLetter, encode_dead_letter
from workers.store.optouts import open_opt_out_list
from workers.store.outboxes import OutboxStore, OutboxUpdate

ANNA, BORIS = "+33600000001", "+33600000002"


@pytest.fixture
def town(deploy):
    return deploy()


def told_of(letter):
    """What the event stream says of a letter that was put aside."""
    return DeadLetterAdded(
        letter.at, letter.channel, letter.session, letter.id, letter.kind, letter.reason, letter.survey, letter.code, letter.why,
    )  # fmt: skip


def added(town, sender=ANNA):
    return [record for record in town.records(sender) if isinstance(record, DeadLetterAdded)]


def test_an_event_that_becomes_a_dead_letter_is_told_of_where_it_fell(town, failing):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    assert letter.survey == "clinic"
    assert letter.session
    assert letter.why
    assert added(town) == [told_of(letter)]
    town.accept(ANNA, "Anna")
    town.drain()
    kinds = [type(record) for record in town.records(ANNA)]
    assert kinds.index(DeadLetterAdded) < len(kinds) - 1 - kinds[::-1].index(SmsReceived)


def test_a_letter_that_fails_again_keeps_its_place_and_is_not_told_of_again(town, failing):
    fell(town, failing, ANNA)
    failing.add("Ada")
    assert outcomes("--all") == ["failing"]
    assert [letter.attempts for letter in letters_of(town)] == [2]
    assert len(added(town)) == 1


def test_each_letter_of_a_person_is_told_of_though_the_one_before_is_gone(town, failing):
    fallen = []
    for _ in range(2):
        failing.add("Ada")
        fell(town, failing, ANNA)
        (letter,) = letters_of(town)
        fallen.append(letter.id)
        assert outcomes("--all", status=0) == ["advanced"]
    assert [each.id for each in added(town)] == fallen


@pytest.fixture
def tried(town):
    """An outbox whose first SMS is leased."""
    town.accept(ANNA, "START")
    town.drain()
    outboxes = OutboxStore(town.client, town.world.settings.shards, lease_ms=60_000)
    (lease,) = outboxes.lease_oldest([ANNA])
    return outboxes, lease


def sms_letter(lease, **fields):
    sms = decode_outbound(lease.sms_bytes)
    letter = DeadLetter(
        id=sms.id, kind="sms", reason="rejected", sender=ANNA, at=7, attempts=1, what=lease.sms_bytes, channel="clinic",
        session=sms.session, survey=sms.survey, code="151", why="Country not served",
    )  # fmt: skip
    return msgspec.structs.replace(letter, **fields)


def test_an_sms_that_becomes_a_dead_letter_is_told_of_once_though_the_reply_is_lost(town, tried):
    outboxes, lease = tried
    letter = sms_letter(lease)
    update = OutboxUpdate(lease, "done", records=b"", dead_letter=encode_dead_letter(letter))
    for _ in range(2):
        outboxes.apply_updates([update])
    assert letters_of(town) == [letter]
    assert added(town) == [told_of(letter)]
    town.accept(ANNA, "Ada")
    town.drain()
    (lease,) = outboxes.lease_oldest([ANNA])
    again = msgspec.structs.replace(letter, attempts=2)
    outboxes.apply_updates([OutboxUpdate(lease, "done", dead_letter=encode_dead_letter(again))])
    assert letters_of(town) == [again], "it is put aside once more, and keeps its place"
    assert added(town) == [told_of(letter)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x81\xa2id",
        msgspec.msgpack.encode({"kind": 3, "reason": None, "at": "x", "channel": ["c"]}),
    ],
)
def test_a_letter_that_cannot_be_read_is_put_aside_and_told_of_as_far_as_it_can_be(town, tried, content):
    outboxes, lease = tried
    k = shard(town, ANNA)
    outboxes.apply_updates([OutboxUpdate(lease, "done", dead_letter=EncodedDeadLetter("x", content))])
    assert town.client.hget(keyspace.dead_letters_key(k), "x") == content
    (found,) = added(town)
    now = redis_client.server_time_ms(town.client)
    assert msgspec.structs.replace(found, at=0) == DeadLetterAdded(0, "", "", "x", "", "")
    assert now - 60_000 < found.at <= now


def test_beside_the_record_there_is_an_empty_list_for_those_who_do_not_know_it(town, failing):
    fell(town, failing, ANNA)
    entries = [fields for _, fields in town.client.xrange(keyspace.events_key(shard(town, ANNA)))]
    (fields,) = [fields for fields in entries if b"d" in fields]
    assert fields.keys() == {b"to", b"e", b"d"}
    assert fields[b"e"] == encode_event([])
    assert b"\x91" + fields[b"d"] == encode_event(added(town)), "packed in Lua as Python packs it"


def test_the_archive_has_it_once_and_a_rebuild_keeps_it(town, failing, sqlite_archive):
    fell(town, failing, ANNA)
    shards, k = town.world.settings.shards, shard(town, ANNA)
    archive_everything(town.client, shards, sqlite_archive)
    entries, rows = archived_entries(sqlite_archive), derived_rows(sqlite_archive)
    assert entries == stream_entries(town.client, shards)
    (session,) = [row[0] for row in rows["sessions"]]
    assert added(town)[0].session == session
    assert rebuild_all(sqlite_archive, shards) == 0
    assert archived_entries(sqlite_archive) == entries
    assert derived_rows(sqlite_archive) == rows
    read = HistoryReader(town.client, sqlite_archive).read_sender(k, ANNA)
    assert [r for entry in read for r in entry.records if isinstance(r, DeadLetterAdded)] == added(town)
    assert archive_page(town.client, k, sqlite_archive) == 0


def test_commands_that_tell_what_happened_tell_of_it_before_and_after_it_is_archived(
    town, failing, sqlite_archive
):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    runner = CliRunner()

    def look():
        told = [json.loads(line) for line in runner.invoke(transcript, [ANNA, "--json"]).stdout.splitlines()]
        (dead,) = [each for each in told if each["event"] == "deadletter"]
        assert (dead["id"], dead["reason"], dead["survey"]) == (letter.id, "engine_error", "clinic")
        assert f"dead letter {letter.id}: engine_error" in runner.invoke(transcript, [ANNA]).stdout
        looked = runner.invoke(lane, [ANNA])
        assert f"dead letter {letter.id}: engine_error" in looked.stdout, looked.output
        assert runner.invoke(replay, [ANNA]).exit_code == 0

    look()
    archive_everything(town.client, town.world.settings.shards, sqlite_archive)
    look()
    town.client.delete(keyspace.events_key(shard(town, ANNA)))
    look()


def test_of_an_erased_person_nothing_tells_of_it(town, failing, sqlite_archive):
    fell(town, failing, ANNA, BORIS)
    shards = town.world.settings.shards
    archive_everything(town.client, shards, sqlite_archive)
    SenderEraser(town.world, open_opt_out_list(town.client, shards, "")).erase(ANNA)
    assert added(town) == []
    assert [row for row in archived_entries(sqlite_archive) if row[3] == ANNA] == []
    assert len(added(town, BORIS)) == 1


KEPT_BRIEFLY = b"""
survey: clinic
start: [START]
keep: 1d
steps:
  - {id: name, ask: "What is your name?", answer: {type: text}}
"""


def test_it_goes_with_its_session_when_that_is_not_kept_any_longer(deploy, failing):
    town = deploy(survey=KEPT_BRIEFLY)
    fell(town, failing, ANNA)
    town.accept(ANNA, "Anna")
    town.drain()
    world, now = town.world, redis_client.server_time_ms(town.client)
    sweep_expired(town.client, world.settings.shards, world.surveys, now)
    assert len(added(town)) == 1
    sweep_expired(town.client, world.settings.shards, world.surveys, now + 86_400_001 + 60_000)
    assert town.records(ANNA) == []
