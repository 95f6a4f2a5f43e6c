"""What lies in Redis is told as it is, by the servers' clocks, and a server that is away costs a second at the most."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from time import monotonic
from unittest.mock import Mock

import dramatiq
import msgspec
import pytest
from dramatiq.brokers.redis import RedisBroker
from prometheus_client import Metric

from config.connections import redis_connections
from config.settings.hooks import Hook
from config.settings.settings import Secret
from config.store import keyspace, pauses, redis_client
from config.store.counts.answer_record import TREND_MINUTES, AnswerReading
from config.store.dead_letter_reasons import DEAD_LETTER_REASONS
from config.store.endpoint_health import EndpointHealth, encode_circuit
from config.store.entry_id import EntryId
from config.store.function_calls import function_call
from config.store.pauses import StoredPause
from config.store.server_functions import NoteArchived
from config.telemetry import exposition as expositions
from config.telemetry import hook_stats, metrics, process_registry
from config.telemetry.exposition import MetricsExposition, redis_gauges
from config.telemetry.hook_stats import HookStats, LagQuestions
from config.telemetry.library_internals import ScrapeTimeGauge
from config.telemetry.process_registry import ROLES, ProcessHeartbeat
from config.telemetry.redis_stats import (
    AlarmStats,
    ChannelStats,
    QueueStats,
    RedisStats,
    ServerStats,
    ShardStats,
    StatsReader,
    StreamStats,
)
from engine.hooks.event_filter import EventFilter
from engine.model.events import Invitation
from tests.support.inviting import hold_command
from tests.support.processes import procfile
from tests.support.waiting import HANG_S, until
from tests.workers.test_turns import die_holding
from workers.hooks.hook_store import HookStore

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"


@pytest.fixture
def town(pipeline):
    return pipeline(sms_per_day=3)


def take(town):
    with closing(StatsReader(town.world.settings)) as sounder:
        return sounder.read()


def shard_of(town, found, sender):
    return found.shards[keyspace.shard_of(sender, town.world.settings.shards)]


def test_an_empty_deployment(town):
    found = take(town)
    assert found.lanes.up
    assert found.broker.up
    assert found.lanes.memory > 100_000
    assert found.lanes.most_memory == 0
    assert found.queues == {"starts": QueueStats(), "replies": QueueStats(), "outbound": QueueStats()}
    assert len(found.shards) == town.world.settings.shards
    assert all(shard.lanes == shard.outboxes == AlarmStats() for shard in found.shards)
    assert found.dead_by_reason() == {}
    nothing = AnswerReading(span_ms=found.channels["clinic"].answers.span_ms)
    assert found.channels == {"clinic": ChannelStats(sms_cap=3, answers=nothing)}
    assert found.dramatiq_dead == {}
    for reason in DEAD_LETTER_REASONS:
        assert (metrics.DEAD_LETTERS_WAITING, (reason,), 0) in redis_gauges(found), (
            "there is a count to compare with"
        )


def test_depth_and_age_of_queues_are_those_of_the_bells(town):
    town.accept(ANNA, "START")
    now = redis_client.server_time_ms(town.world.broker)
    town.world.broker.zadd(keyspace.wakeup_queue_key("replies"), {BORIS: now - 90_000, CLARA: now - 1_000})
    queues = take(town).queues
    assert queues["starts"].depth == 1
    assert queues["starts"].oldest_ms < 10_000
    assert queues["replies"].depth == 2
    assert 90_000 <= queues["replies"].oldest_ms < 100_000


def test_ages_are_by_the_servers_clock(town, monkeypatch):
    town.accept(ANNA, "START")
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert 0 <= take(town).queues["starts"].oldest_ms < 10_000


def test_alarms_that_are_due_and_how_late_the_first_is(town):
    now = redis_client.server_time_ms(town.client)
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    town.client.zadd(
        keyspace.lane_alarms_key(k), {ANNA: now - 30_000, BORIS: now - 10_000, CLARA: now + 60_000}
    )
    town.client.zadd(keyspace.outbox_alarms_key(k), {ANNA: now + 60_000})
    shard = take(town).shards[k]
    assert (shard.lanes.set, shard.lanes.due) == (3, 2)
    assert 30_000 <= shard.lanes.late_ms < 40_000
    assert shard.outboxes == AlarmStats(1, 0, 0)


def test_lanes_are_held_while_a_lease_runs_and_abandoned_when_nobody_came_back(town):
    town.accept(ANNA, "hello")
    town.turns._lanes.claim("replies", [ANNA])
    town.accept(BORIS, "hello")
    die_holding(town, BORIS)
    found = take(town)
    assert (shard_of(town, found, ANNA).held, shard_of(town, found, ANNA).abandoned) == (1, 0)
    assert (shard_of(town, found, BORIS).held, shard_of(town, found, BORIS).abandoned) == (0, 1)


def test_a_session_that_waits_for_its_person_locks_nothing(town):
    town.accept(ANNA, "START")
    town.drain()
    shard = shard_of(town, take(town), ANNA)
    assert (shard.lanes.set, shard.held, shard.abandoned) == (1, 0, 0)


def test_dead_letters_by_reason_and_the_age_of_the_oldest(town):
    """A later release may have reasons of its own."""
    town.deposit(ANNA, b"\xc1 no event")
    town.drain()
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    now = redis_client.server_time_ms(town.client)
    town.client.zadd(keyspace.dead_letter_index_key(k), {"of a later release": now - 3_600_000})
    town.client.hincrby(keyspace.dead_letter_reasons_key(k), "of its own", 1)
    found = take(town)
    assert found.dead_by_reason() == {"undecodable": 1, "of its own": 1}
    assert (metrics.DEAD_LETTERS_WAITING, ("of its own",), 1) in redis_gauges(found)
    assert 3_600_000 <= found.shards[k].dead_oldest_ms < 3_700_000


def test_what_no_archive_has_is_told_from_redis_alone(town):
    """At the shard that is furthest behind, by the server's clock."""
    shards = town.world.settings.shards
    now = redis_client.server_time_ms(town.client)
    ids = {
        k: [f"{now - age}-0" for age in ages]
        for k, ages in {0: (900_000, 600_000, 3_000), 1: (60_000,)}.items()
    }
    for k, of_shard in ids.items():
        for entry_id in of_shard:
            town.client.xadd(keyspace.events_key(k), {"to": ANNA, "e": b"x"}, id=entry_id)

    def archive(k, entry_id, entries):
        call = NoteArchived(
            events=keyspace.events_key(k), archived=keyspace.archived_key(k), id=entry_id, entries=entries
        )
        assert redis_client.run_command(town.client, function_call(call)) == 1

    def told():
        found = take(town)
        assert len(found.shards) == shards
        return found.unarchived()

    assert (told().seen, told().waiting) == (False, 4)
    assert 900_000 <= told().oldest_ms < 930_000
    archive(0, ids[0][0], 1)
    assert (told().seen, told().waiting) == (True, 3)
    assert 600_000 <= told().oldest_ms < 630_000
    archive(0, ids[0][2], 2)
    assert told().waiting == 1
    assert 60_000 <= told().oldest_ms < 90_000, "the shard that nothing was archived of"
    archive(1, ids[1][0], 1)
    assert told() == StreamStats(seen=True)
    gauges = {(gauge, labels): value for gauge, labels, value in redis_gauges(take(town))}
    assert gauges[metrics.ARCHIVE_SEEN, ()] == 1
    assert gauges[metrics.ARCHIVE_LAG_SECONDS, ()] == 0
    assert gauges[metrics.ARCHIVE_WAITING_ENTRIES, ()] == 0


def test_what_a_person_is_erased_of_does_not_wait_for_an_archive(town):
    town.client.xadd(keyspace.events_key(0), {"to": ANNA, "e": b"x"}, id="1-0")
    town.client.xdel(keyspace.events_key(0), "1-0")
    assert take(town).unarchived() == StreamStats()


def test_what_an_archive_holds_back_is_in_its_heartbeat(valkey):
    url = f"{valkey.url}"
    metrics.ARCHIVE_HELD_SHARDS.set(2)
    try:
        with process_registry.send_heartbeats(url, "archive") as say:
            say()
            (heartbeat,) = process_registry.living_processes(valkey.client()).values()
    finally:
        metrics.ARCHIVE_HELD_SHARDS.set(0)
    assert (heartbeat.role, heartbeat.held_shards) == ("archive", 2)


HOOK = Hook("crm", "https://crm.example.org/parley", (), EventFilter())


def take_hooks(town, *names):
    """What is told of endpoints of these names; `crm` if none is given."""
    hooks = {name: msgspec.structs.replace(HOOK, name=name) for name in names or ("crm",)}
    with closing(StatsReader(msgspec.structs.replace(town.world.settings, hooks=hooks))) as sounder:
        return sounder.read()


def add_old(town, k, *ages_ms):
    """Add entries of these ages to the stream of shard `k`, the oldest first; their ids."""
    now = redis_client.server_time_ms(town.client)
    ids = [f"{now - age_ms}-0" for age_ms in ages_ms]
    for entry_id in ids:
        town.client.xadd(keyspace.events_key(k), {"to": ANNA, "e": b"x"}, id=entry_id)
    return ids


def test_how_far_an_endpoint_is_behind_is_told_from_redis_alone(town):
    """In the shard where the oldest lies that it has not got; not in those that it has no position in, or that had
    nothing since."""
    store = HookStore(town.client, "here:1.a")
    old, *_, last = add_old(town, 0, 900_000, 600_000, 3_000)
    (only,) = add_old(town, 1, 60_000)
    add_old(town, 2, 5_000_000)

    def lag_ms():
        return take_hooks(town).hooks["crm"].lag_ms

    assert take_hooks(town).hooks == {"crm": HookStats()}
    store.begin("crm", [EntryId.parse(old.encode()), EntryId(0, 0)])
    assert 600_000 <= lag_ms() < 630_000
    store.rewind("crm", {0: EntryId.parse(last.encode())})
    assert 60_000 <= lag_ms() < 90_000, "the other shard"
    store.rewind("crm", {1: EntryId.parse(only.encode())})
    assert lag_ms() == 0
    store.rewind("crm", {1: EntryId.parse(last.encode())})
    assert lag_ms() == 0, "a position may be beyond a server that has lost its tail"
    assert take_hooks(town).hooks["crm"].is_begun
    assert (metrics.HOOK_LAG_SECONDS, ("crm",), 0) in redis_gauges(take_hooks(town))


def test_an_endpoint_whose_entries_have_left_the_stream_is_behind_and_one_whose_person_is_erased_is_not(town):
    """What is trimmed can be read from the archive yet; what was deleted by itself is nowhere."""
    add_old(town, 0, 900_000)
    HookStore(town.client, "here:1.a").begin("crm", [EntryId(5, 0)])
    events = keyspace.events_key(0)
    town.client.xtrim(events, maxlen=0)
    assert 900_000 <= take_hooks(town).hooks["crm"].lag_ms < 930_000
    (erased,) = add_old(town, 0, 3_000)
    town.client.xdel(events, erased)
    assert take_hooks(town).hooks["crm"].lag_ms == 0


def test_of_an_endpoint_no_more_streams_are_asked_than_is_good_and_its_lag_is_told_at_the_least(
    town, monkeypatch
):
    """Those where its position is oldest; of the others it is known how old the last entry is."""
    store = HookStore(town.client, "here:1.a")
    now = redis_client.server_time_ms(town.client)
    positions = []
    for k in range(4):
        add_old(town, k, 1_000_000 * (4 - k), 600_000 * (4 - k))
        positions.append(EntryId(now - 10_000_000 * (k + 1), 0))
    for name in ("crm", "also", "paused"):
        store.begin(name, positions)
    asked = spy_on_ranges(monkeypatch)
    found = take_hooks(town, "crm", "also", "paused").hooks
    assert len(asked) == 4, "those that are as far as each other ask once"
    assert all(4_000_000 <= found[name].lag_ms < 4_030_000 for name in found)
    monkeypatch.setattr(hook_stats, "MAX_SHARDS_ASKED", 2)
    asked.clear()
    lag_ms = take_hooks(town).hooks["crm"].lag_ms
    assert asked == [keyspace.events_key(3), keyspace.events_key(2)]
    assert 2_400_000 <= lag_ms < 2_430_000, "as old as the last entry of the shard that was not asked"
    monkeypatch.setattr(hook_stats, "MAX_ENTRIES_READ", 3)
    store.rewind("also", {k: EntryId(now - 9_000_000, k) for k in range(4)})
    asked.clear()
    take_hooks(town, "crm", "also", "paused")
    assert len(asked) == 2, "three endpoints may ask once each, and two of them ask the same"


def spy_on_ranges(monkeypatch):
    """The streams that endpoints' lags are asked of, as they are asked."""
    asked = []
    of_questions = LagQuestions.commands

    def commands(self):
        for command in of_questions(self):
            asked.append(command[1])
            yield command

    monkeypatch.setattr(LagQuestions, "commands", commands)
    return asked


def test_who_has_an_endpoint_and_for_how_long_nobody_has(town):
    store = HookStore(town.client, "here:1.a")
    assert take_hooks(town).hooks["crm"].owner == ""
    assert (metrics.HOOK_HELD, ("crm",), False) in redis_gauges(take_hooks(town))
    (token,) = store.take(["crm"])
    assert take_hooks(town).hooks["crm"].owner == "here:1.a"
    assert (metrics.HOOK_HELD, ("crm",), True) in redis_gauges(take_hooks(town))
    now = redis_client.server_time_ms(town.client)
    town.client.set(keyspace.hook_lease_key("crm"), f"{token} {now - 1} 0 {now - 9} here:1.a")
    assert take_hooks(town).hooks["crm"].owner == "", "its process is gone"


def test_an_endpoint_that_an_operator_has_paused_and_one_that_fails(town):
    store = HookStore(town.client, "here:1.a")
    (token,) = store.take(["crm"])
    gauges = set(redis_gauges(take_hooks(town)))
    assert not any(gauge is metrics.HOOK_PAUSED for gauge, _, _ in gauges)
    store.pause("crm", "it moves house", "anna", 60_000)
    found = take_hooks(town).hooks["crm"]
    assert (found.pause.why, found.pause.who, found.circuit) == ("it moves house", "anna", EndpointHealth())
    assert 50_000 < found.pause_left_ms <= 60_000
    assert (metrics.HOOK_PAUSED, ("crm", "operator"), 1) in redis_gauges(take_hooks(town))
    store.resume("crm")
    (token,) = store.take(["crm"])
    for level in (0, 2):
        failing = EndpointHealth(failures=7, since=1, level=level, until=9, why="500 Internal Server Error")
        assert store.move("crm", token, {}, encode_circuit(failing))
        assert take_hooks(town).hooks["crm"].circuit == failing
        is_told = (metrics.HOOK_PAUSED, ("crm", "circuit"), 1) in redis_gauges(take_hooks(town))
        assert is_told == (level > 0), "single failures pause nothing"


def test_invitations_that_wait_and_the_days_sms(town):
    invitation = Invitation("0" * 16, "clinic", "clinic")
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    later = redis_client.server_time_ms(town.client) + 3_600_000
    redis_client.run_command(town.client, hold_command(k, ANNA, invitation, later))
    town.accept(BORIS, "START", "Bo", "old")
    town.drain()
    clinic = take(town).channels["clinic"]
    assert (clinic.held, clinic.sms_today, clinic.sms_cap) == (1, 3, 3)
    assert (metrics.SMS_BUDGET_EXHAUSTED, ("clinic",), True) in redis_gauges(take(town))


def test_an_invitation_that_is_to_be_sent_another_day_does_not_wait_for_its_turn_yet(town):
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    now = redis_client.server_time_ms(town.client)
    for hours in (-1, 11, 13, 400):
        invitation = Invitation(f"{hours + 1:016x}", "clinic", "clinic")
        hold = hold_command(k, ANNA, invitation, now + 10**10, now + hours * 3_600_000)
        redis_client.run_command(town.client, hold)
    found = take(town)
    assert (found.channels["clinic"].held, found.held_elsewhere) == (4, 0)
    assert (metrics.INVITATIONS_HELD, ("clinic",), 2) in redis_gauges(found)


@pytest.mark.parametrize("by", ["operator", "account", "circuit"])
def test_a_pause_by_whom_and_for_how_long(town, by):
    pause = StoredPause(by=by, why="an incident", since=1)
    town.client.set(keyspace.pause_key("clinic"), pauses.encode_pause(pause), px=60_000)
    found = take(town)
    assert found.channels["clinic"].pause == pause
    assert 50_000 < found.channels["clinic"].pause_left_ms <= 60_000
    assert (metrics.CHANNEL_PAUSED, ("clinic", by), 1) in redis_gauges(found)


def test_processes_that_live(town):
    with process_registry.send_heartbeats(town.world.settings.redis_url, "delivery") as say:
        say()
        assert [each.role for each in take(town).processes.values()] == ["delivery"]


def test_processes_that_hang(town):
    silent_ms = process_registry.HEARTBEAT_EXPIRY_MS + 1
    heartbeat = ProcessHeartbeat(redis_client.server_time_ms(town.client) - silent_ms, role="web")
    process_registry.store_heartbeat(town.client, "web@here:1.a", heartbeat)
    found = take(town)
    assert (list(found.processes), list(found.silent)) == ([], ["web@here:1.a"])
    silent = {
        labels: value for gauge, labels, value in redis_gauges(found) if gauge is metrics.PROCESSES_SILENT
    }
    assert silent == {(role,): role == "web" for role in ROLES}


def test_messages_in_dramatiqs_own_dead_letter_queues(town):
    broker = RedisBroker(client=town.world.broker)
    dramatiq.actor(broker=broker, queue_name="mails", actor_name="mail")(print)
    for _ in range(3):
        broker.enqueue(dramatiq.Message("mails", "mail", (), {}, {}))
        (fetched,) = broker.do_fetch("mails", 1)
        broker.do_nack("mails", msgspec.json.decode(fetched)["options"]["redis_message_id"])
    town.world.broker.set("not.a.zset.XQ", "1")
    assert take(town).dramatiq_dead == {"dramatiq:mails.XQ": 3}


def test_locks_are_looked_at_for_so_many_lanes_only(pipeline, monkeypatch):
    town = pipeline(shards=16)
    monkeypatch.setattr("config.telemetry.redis_stats.MAX_LOCKS_READ", town.world.settings.shards)
    people = [f"+3361{i:07}" for i in range(60)]
    for person in people:
        town.accept(person, "hello")
    town.turns._lanes.claim("replies", people)
    assert sum(shard.held for shard in take(town).shards) == town.world.settings.shards


def test_a_server_that_is_away_is_said_to_be_and_nothing_of_what_lies_there(town):
    town.accept(ANNA, "START")
    town.world.broker.zadd(keyspace.wakeup_queue_key("starts"), {ANNA: 1})
    nobody = Secret("redis://127.0.0.1:1/0")
    for away, there in (("lanes", "broker"), ("broker", "lanes")):
        name = {"lanes": "redis_url", "broker": "broker_url"}[away]
        with closing(StatsReader(msgspec.structs.replace(town.world.settings, **{name: nobody}))) as sounder:
            found = sounder.read()
        assert getattr(found, away).up is False
        assert getattr(found, away).why
        assert getattr(found, there).up
        gauges = list(redis_gauges(found))
        assert (metrics.REDIS_UP, (away,), False) in gauges
        of = {"lanes": metrics.ALARMS_WAITING, "broker": metrics.QUEUE_DEPTH}
        told = {gauge for gauge, _, _ in gauges}
        assert of[away] not in told
        assert of[there] in told


def test_a_server_that_does_not_answer_is_waited_for_a_second_and_found_again(pipeline, own_valkey):
    world = pipeline().world
    settings = msgspec.structs.replace(
        world.settings, redis_url=Secret(own_valkey.url), broker_url=Secret(own_valkey.broker_url)
    )
    with closing(StatsReader(settings)) as sounder:
        assert sounder.read().lanes.up
        own_valkey.sigstop()
        begun_s = monotonic()
        found = sounder.read()
        assert monotonic() - begun_s < redis_connections.SOCKET_TIMEOUT_S, "sooner than other clients give up"
        assert not found.lanes.up
        assert found.broker.up == redis_client.is_cluster(own_valkey.client()), (
            "which has a server of its own"
        )
        own_valkey.sigcont()
        own_valkey.kill9()
        own_valkey.start()
        assert sounder.read().lanes.up


def test_a_server_that_does_not_tell_its_memory_is_up(town, monkeypatch):
    servers = redis_client.servers_of(town.client)
    for server in servers:
        server.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        found = take(town)
    finally:
        for server in servers:
            server.execute_command("ACL", "SETUSER", "default", "+info")
    assert found.lanes.up
    told = [labels for gauge, labels, _ in redis_gauges(found) if gauge is metrics.REDIS_MEMORY_BYTES]
    assert "lanes" not in {server for server, _ in told}


def test_every_gauge_that_no_process_keeps_is_looked_up():
    """Those of the spool are told by `web`, which knows where it lies."""
    everything = RedisStats(
        lanes=ServerStats(up=True, memory=1, most_memory=2),
        broker=ServerStats(up=True),
        shards=[ShardStats(k=0, lanes=AlarmStats(), outboxes=AlarmStats(), dead={"uncertain": 1})],
        channels={"clinic": ChannelStats(pause=StoredPause(by="operator", why=""), sms_cap=1)},
        hooks={"crm": HookStats(circuit=EndpointHealth(level=1))},
        queues={"starts": QueueStats()},
    )
    found = {
        gauge._name for gauge, labels, _ in redis_gauges(everything) if len(labels) == len(gauge._labelnames)
    }
    seen = {
        each._name
        for each in vars(metrics).values()
        if isinstance(each, ScrapeTimeGauge) and "spool" not in each._name
    }
    assert found == seen


def test_the_roles_are_the_lines_of_the_procfile():
    assert set(ROLES) == set(procfile())


def test_every_role_is_told_though_no_process_of_it_lives(town):
    told = {
        labels
        for gauge, labels, value in redis_gauges(take(town))
        if gauge is metrics.PROCESSES and not value
    }
    assert told == {(role,) for role in ROLES}


def test_those_who_ask_at_once_get_one_reading_and_redis_is_asked_once_a_second(town, monkeypatch):
    asked, read, looked = [], [], []
    jumped_s = [0.0]
    of_lanes = StatsReader.read

    def look_at_the_clock():
        looked.append(1)
        return len(looked) / 1_000 + jumped_s[0]

    def read_while_all_ask(self):
        asked.append(1)
        until(
            lambda: len(looked) >= 3 + 15, HANG_S, "all have asked"
        )  # this one asked, began, and found it old
        return of_lanes(self)

    monkeypatch.setattr(expositions, "monotonic", look_at_the_clock)
    monkeypatch.setattr(StatsReader, "read", read_while_all_ask)
    counted = metrics.collect_counted
    monkeypatch.setattr(metrics, "collect_counted", lambda: (read.append(1), counted())[1])
    exposition = MetricsExposition(town.world.settings)
    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda _: exposition.text(), range(16)))
    assert all(b"parley_redis_up" in text for text in texts)
    assert len(asked) == 1
    assert len(read) <= 2  # those who came while the first was read share the second
    read.clear()
    jumped_s[0] = expositions.STATS_CACHE_S
    exposition.text()
    exposition.text()
    exposition.close()
    assert (len(asked), len(read)) == (2, 2)


def test_a_reading_that_failed_is_given_to_nobody_who_asked_at_the_same_time(town, monkeypatch):
    monkeypatch.setattr(expositions, "monotonic", lambda: 0.0)
    asked = MetricsExposition(town.world.settings)
    with monkeypatch.context() as failing:
        failing.setattr(metrics, "collect_counted", Mock(side_effect=PermissionError))
        with pytest.raises(PermissionError):
            asked.text()
    assert b"parley_redis_up" in asked.text()
    asked.close()


def test_what_is_counted_is_told_at_once(town):
    exposition = MetricsExposition(town.world.settings)
    exposition.text()
    metrics.DROPPED.labels("clinic", "another_test").inc(2)
    assert b'parley_dropped_total{channel="clinic",reason="another_test"} 2.0' in exposition.text()
    exposition.close()


def test_an_error_of_a_server_names_no_number(town):
    """What lies there may be damaged: then the server is not up for us, and says so without quoting what was asked."""
    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    town.client.zadd(keyspace.lane_alarms_key(k), {ANNA: 1})
    town.client.lpush(keyspace.dead_letter_index_key(k), "not a sorted set")
    found = take(town)
    assert not found.lanes.up
    assert "WRONGTYPE" in found.lanes.why
    assert ANNA not in found.lanes.why


def test_an_exposition_is_of_families_that_prometheus_knows(town):
    exposition = MetricsExposition(town.world.settings)
    families = list(exposition.collect())
    exposition.close()
    assert all(isinstance(family, Metric) for family in families)
    names = [family.name for family in families]
    assert len(names) == len(set(names))


def test_how_people_are_answered_is_asked_for_only_where_it_is_shown(town):
    """Each scrape is a reading too."""

    def questions(**how):
        town.client.config_resetstat()
        with closing(StatsReader(town.world.settings)) as reader:
            reader.read(**how)
        return town.client.info("commandstats")["cmdstat_hgetall"]["calls"]

    exposition = MetricsExposition(town.world.settings)
    town.client.config_resetstat()
    assert b"parley_redis_up" in exposition.text()
    scraped = town.client.info("commandstats")["cmdstat_hgetall"]["calls"]
    exposition.close()
    assert scraped == questions()
    assert questions(with_answers=True) == scraped + TREND_MINUTES + 1
