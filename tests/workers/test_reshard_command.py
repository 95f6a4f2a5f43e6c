"""`parley reshard` divides a deployment that is stopped: conversations, the archive and endpoints go on as if nothing had been,
and nothing starts before it is done."""

import json
import sys
from collections import Counter
from itertools import count

import msgspec
import pytest
from click.testing import CliRunner
from sqlalchemy import select

from config.archive import tables
from config.archive.archived_entries import read_last_before
from config.archive.watermark import read_watermark
from config.settings.config_errors import ConfigError
from config.settings.shard_count import find_shards, settle_shards
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from config.telemetry import process_registry
from config.telemetry.process_registry import ProcessHeartbeat
from config.telemetry.redis_stats import StatsReader
from tests.support.archiving import archived_entries, derived_rows, run_rounds, stream_entries, table_rows
from tests.support.hook_endpoint import hook_endpoint
from tests.support.telling import hook_to, telling
from tests.support.waiting import until
from tests.workers.conftest import Pipeline
from workers.archiving.rebuild import rebuild_shard
from workers.commands.dead import dead
from workers.commands.optout import optout
from workers.commands.replay import replay
from workers.commands.reshard import reshard
from workers.erasure.sender_eraser import SenderEraser
from workers.history.joined_history import HistoryReader
from workers.hooks.hook_store import HookStore
from workers.resharding import resharding
from workers.resharding.resharding import end_division
from workers.roles.archive import prepare_archiver

OLD, NEW = 4, 16
PEOPLE = [f"+336000000{place:02}" for place in range(24)]
STOPPED, ERASED, FAILING = PEOPLE[3], PEOPLE[4], PEOPLE[5]
ARCHIVE_TABLES = ("entries", "sessions", "messages", "sends", "receipts", "refusals")


def typed(command, *words, status=0):
    done = CliRunner().invoke(command, words)
    assert done.exit_code == status, done.output
    return done.output


class Town:
    """A deployment whose people talk, with an archive that is behind, and endpoints."""

    def __init__(self, pipeline, database):
        self.pipeline = pipeline
        self.database = database

    @property
    def client(self):
        return self.pipeline.client

    @property
    def shards(self):
        return self.pipeline.world.settings.shards

    def k(self, sender):
        return keyspace.shard_of(sender, self.shards)

    def says(self, sender, *texts, **how):
        for text in texts:
            self.pipeline.accept(sender, text, **how)
            self.pipeline.drain()

    def archive(self):
        run_rounds(prepare_archiver(self.pipeline.world, self.database))

    def trim(self):
        """Have the streams only what is not archived."""
        for k in range(self.shards):
            archived = self.client.get(keyspace.archived_key(k)).partition(b" ")[0].decode()
            if archived != "0-0":
                self.client.xtrim(keyspace.events_key(k), minid=archived, approximate=False)

    def optouts(self):
        return self.pipeline.world.open_opt_out_list()

    def go_on_with(self, shards):
        """As processes do that start then."""
        settings = msgspec.structs.replace(self.pipeline.world.settings, shards=shards)
        self.pipeline = Pipeline(msgspec.structs.replace(self.pipeline.world, settings=settings))
        self.pipeline._ids = count(1_000)

    def said(self):
        return {sender: self.pipeline.said(sender) for sender in PEOPLE}


@pytest.fixture
def town(deploy, sqlite_archive, failing):
    """People at every point of a conversation. What was said first is archived, and in the streams no more."""
    town = Town(deploy(shards=OLD), sqlite_archive)
    settle_shards(town.client, town.pipeline.world.settings)
    for place, sender in enumerate(PEOPLE):
        if sender != FAILING:
            town.says(sender, *("START", "Bob", "36")[: place % 4], event_id=None)
    town.archive()
    town.trim()
    town.says(PEOPLE[6], "Cleo")
    town.says(STOPPED, "START", "STOP")
    town.says(ERASED, "START", event_id="erased-start")
    town.says(ERASED, "STOP")
    SenderEraser(town.pipeline.world, town.optouts()).erase(ERASED)
    town.says(FAILING, "START", "Ada")
    return town


def divide(town):
    output = typed(reshard, "--to", str(NEW), "--yes")
    town.go_on_with(NEW)
    return output


def go_on(town, failing):
    """What everybody says next."""
    failing.clear()
    for sender in PEOPLE[6:]:
        town.says(sender, "Dora", "41", "START")
    town.says(ERASED, "START", event_id="erased-start")
    typed(dead, "replay", "--all", "--yes")
    town.pipeline.drain()
    town.says(FAILING, "41")


def everything_ever(town):
    """(ms, seq, sender, content) of what is in the archive or in a stream."""
    entries = [*archived_entries(town.database), *stream_entries(town.client, town.shards)]
    return {tuple(entry[1:]) for entry in entries}


def take_copy(client):
    return [(name, client.dump(name), max(0, client.pexpiretime(name))) for name in client.scan_iter()]


def put_back(client, copy):
    client.flushall()
    for name, content, until_ms in copy:
        client.restore(name, until_ms, content, absttl=True)


def test_conversations_go_on_word_for_word(town, failing):
    before, copy = town.said(), take_copy(town.client)
    town.go_on_with(OLD)
    go_on(town, failing)
    undivided = town.said()
    put_back(town.client, copy)
    failing.add("Ada")
    town.go_on_with(OLD)
    assert "done: the lanes are divided into 16 shards" in divide(town)
    assert town.said() == before
    go_on(town, failing)
    assert town.said() == undivided
    assert len(set(map(tuple, undivided.values()))) > 4
    assert town.said()[FAILING][-2:] == ["How old are you, Ada?", "Goodbye, Ada."]
    assert town.said()[ERASED] == [], "a copy of an SMS that was applied is known"
    assert town.optouts().opt_outs_of(ERASED)
    assert town.optouts().opt_outs_of(STOPPED)
    (line,) = json.loads(typed(optout, "list", "--json"))
    assert line == {"channel": "clinic", "source": "person", "people": 2}


def test_the_archive_goes_on_with_every_entry_once(town, failing):
    derived = {name: table_rows(town.database, name) for name in ("answers", "variables")}
    watermark = read_watermark_of(town)
    divide(town)
    assert {name: table_rows(town.database, name) for name in derived} == derived
    assert read_watermark_of(town) == watermark
    go_on(town, failing)
    expected = everything_ever(town)
    town.archive()
    archived = archived_entries(town.database)
    assert {entry[1:] for entry in archived} == expected
    assert len(archived) == len(expected)
    for name in ARCHIVE_TABLES:
        table = tables.METADATA.tables[name].c
        with town.database.reading() as connection:
            for k, sender in connection.execute(select(table.shard, table.sender)):
                assert k == keyspace.shard_of(sender, NEW), name
    rows = derived_rows(town.database)
    assert rebuild_everything(town) == rows, "and what is made of them is made of the same"
    for sender in PEOPLE:
        of_theirs = [(*each.id, each.sender, each.content) for each in read_history(town, sender)]
        assert of_theirs == sorted(each for each in expected if each[2] == sender)
    assert typed(replay, "--all").endswith(" 0 different, 0 cannot be run again\n")


def read_watermark_of(town):
    with town.database.reading() as connection:
        return read_watermark(connection)


def rebuild_everything(town):
    hash_number = town.optouts().hash_number
    assert not any(rebuild_shard(town.database, k, hash_number) for k in range(NEW))
    return derived_rows(town.database)


def read_history(town, sender):
    return HistoryReader(town.client, town.database).read_sender(town.k(sender), sender)


def test_endpoints_are_told_the_rest_once_and_nothing_again(town, failing):
    """One is where the streams end, and one has everything before it."""
    with hook_endpoint() as endpoint:
        told = hook_to(endpoint, "told", "/told")
        with telling(town.client, OLD, [told], town.database):
            wait_until_told(town, "told")
        before = len(endpoint.of("/told"))
        town.says(PEOPLE[7], "Eve")
        divide(town)
        go_on(town, failing)
        fresh = hook_to(endpoint, "fresh", "/fresh")
        with telling(town.client, NEW, [told, fresh], town.database):
            wait_until_told(town, "fresh")
            wait_until_told(town, "told")
        ids = [event["id"] for event in endpoint.of("/told")]
        assert 0 < before < len(ids)
        assert max(Counter(ids).values()) == 1
        assert by_person(endpoint.of("/told")) == by_person(endpoint.of("/fresh"))


def test_an_endpoint_that_is_behind_what_was_trimmed_is_told_that_too(town, failing):
    with hook_endpoint() as endpoint:
        late = hook_to(endpoint, "late", "/late")
        with telling(town.client, OLD, [late], town.database):
            wait_until_told(town, "late")
        everything = by_person(endpoint.of("/late"))
        HookStore(town.client, "").rewind("late", dict.fromkeys(range(OLD), BEGINNING))
        divide(town)
        endpoint.requests.clear()
        with telling(town.client, NEW, [late], town.database):
            wait_until_told(town, "late")
        assert by_person(endpoint.of("/late")) == everything


def by_person(events):
    found = {}
    for event in events:
        found.setdefault(event["data"]["pseudonym"], []).append(event["id"])
    return found


def wait_until_told(town, hook):
    """Return once an endpoint needs nothing any more of what happened, whether it is in a stream or in the archive alone."""

    def last_entry(connection, k):
        in_stream = town.client.xrevrange(keyspace.events_key(k), count=1)
        return max(
            read_last_before(connection, k, 2**50), *(EntryId.parse(each) for each, _ in in_stream), BEGINNING
        )

    def is_told():
        positions = HookStore(town.client, "").load(hook, 0).positions
        with town.database.reading() as connection:
            return all(last_entry(connection, k) <= positions.get(k, BEGINNING) for k in range(town.shards))

    until(is_told, 20, f"all is told to {hook}")


# What is refused


def test_it_refuses_while_a_process_lives(town):
    heartbeat = ProcessHeartbeat(redis_client.server_time_ms(town.client), role="web")
    process_registry.store_heartbeat(town.client, "web@desk:1.abcd", heartbeat)
    assert "web@desk:1.abcd lives: stop all processes" in typed(reshard, "--to", "16", "--yes", status=1)
    assert town.client.get(keyspace.SHARDS_KEY) == b"4"
    process_registry.remove_processes(town.client, ["web@desk:1.abcd"])
    divide(town)


def test_it_refuses_what_is_no_multiple(town):
    assert "4 shards cannot become 6: expected a multiple of 4" in typed(reshard, "--to", "6", status=2)
    assert "there is nothing to do" in typed(reshard, "--to", "4")


def test_it_asks_first(town):
    assert "there is no way back" in typed(reshard, "--to", "16", status=1)
    assert town.client.get(keyspace.SHARDS_KEY) == b"4"


def test_a_dry_run_counts_and_changes_nothing(town):
    before = take_copy(town.client)
    said = typed(reshard, "--to", "16", "--dry-run")
    assert "lanes" in said
    assert "of the archive: rows of entries" in said
    assert sorted(take_copy(town.client)) == sorted(before)


def test_nothing_but_itself_starts_while_it_is_half_done(town, monkeypatch):
    monkeypatch.setattr(resharding, "end_division", lambda *_: sys.exit(9))
    typed(reshard, "--to", "16", "--yes", status=9)
    settings = town.pipeline.world.settings
    for find in (settle_shards, find_shards):
        with pytest.raises(ConfigError, match="from 4 shards into 16, and that is not done: run `parley"):
            find(town.client, settings)
    assert "parley reshard --to 16" in typed(optout, "list", status=2)
    assert "parley reshard --to 16" in StatsReader(settings).read().lanes.why
    assert "run `parley reshard --to 16`" in typed(reshard, "--to", "64", "--yes", status=1)
    assert not town.client.get(keyspace.SHARDS_KEY).isdigit(), "so no release takes it for a number"
    monkeypatch.setattr(resharding, "end_division", end_division)
    divide(town)


def test_an_archive_that_is_elsewhere_is_asked_for_before_anything_is_moved(town, monkeypatch, tmp_path):
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", f"sqlite:///{tmp_path / 'another.db'}")
    assert "not where PARLEY_ARCHIVE_URL says" in typed(reshard, "--to", "16", "--yes", status=1)
    assert town.client.get(keyspace.SHARDS_KEY) == b"4"


def test_an_archive_that_was_put_back_is_divided_alone(town, sqlite_archive, tmp_path):
    file = tmp_path / "archive.db"
    assert sqlite_archive.checkpoint()
    copy = file.read_bytes()
    divide(town)
    town.archive()
    expected = sorted(archived_entries(town.database))
    sqlite_archive.close()
    for left in tmp_path.glob("archive.db*"):
        left.unlink()
    file.write_bytes(copy)
    with pytest.raises(ConfigError, match="is divided into 4 shards, the Redis of the lanes into 16"):
        town.archive()
    assert "in 16 shards, as before" in typed(reshard, "--to", "16")
    town.archive()
    assert sorted(archived_entries(town.database)) == expected


def test_statistics_follow_a_number_that_changes(town):
    settings = msgspec.structs.replace(town.pipeline.world.settings, shards_are_set=False)
    reader = StatsReader(settings)
    assert len(reader.read().shards) == OLD
    divide(town)
    assert len(reader.read().shards) == NEW
    reader.close()
