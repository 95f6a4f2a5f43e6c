"""An endpoint is one process's at a time, and who is late changes nothing."""

from collections import Counter
from threading import Event

from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING, EntryId
from config.store.lua_library import LIBRARY_SOURCE
from config.telemetry.process_registry import ProcessHeartbeat, store_heartbeat
from engine.model.events import encode_event
from tests.hooks.test_telling import AT, SHARDS, say, sender
from tests.support.archiving import add_entries, talk
from tests.support.hook_endpoint import Answer, hook_endpoint
from tests.support.telling import hook_to, owner_of, telling
from tests.support.waiting import until
from workers.hooks import hook_process
from workers.hooks.hook_store import HOOK_LEASE_MS, HookLease, HookStore

HERE, THERE = EntryId(5, 0), EntryId(9, 0)


def test_one_that_is_late_moves_nothing_any_more(client):
    late, other = HookStore(client, "late"), HookStore(client, "other")
    (token,) = late.take(["crm"])
    late.begin("crm", [BEGINNING])
    assert other.take(["crm"]) == [0]
    assert late.move("crm", token, {0: HERE}, b"")
    client.delete(keyspace.hook_lease_key("crm"))  # as time does
    (others,) = other.take(["crm"])
    assert others > token
    assert late.take(["crm"]) == [0]
    assert not late.move("crm", token, {0: THERE}, b"failing")
    late.release("crm", token)
    assert other.load("crm", others).positions == {0: HERE}
    assert other.take(["crm"]) == [others]


def fail_over(client):
    """In one moment with what follows, the server is another, which was promoted, and whose functions remember nothing."""
    pipeline = client.pipeline()
    pipeline.execute_command("REPLICAOF", "127.0.0.1", "1")
    pipeline.execute_command("REPLICAOF", "NO", "ONE")
    pipeline.function_load(LIBRARY_SOURCE, replace=True)
    return pipeline


def test_what_was_in_mind_on_another_server_moves_nothing(own_client):
    """This one may lack what a position was behind, and have given its id to another entry."""
    store, other = HookStore(own_client, "process"), HookStore(own_client, "other")
    (token,) = store.take(["crm"])
    assert store.move("crm", token, {0: HERE}, b"")
    fail_over(own_client).execute()
    assert not store.move("crm", token, {0: THERE}, b"failing")
    assert other.take(["crm"]) == [0]
    (again,) = store.take(["crm"])
    assert again > token
    assert not store.move("crm", token, {0: THERE}, b"failing")
    assert store.load("crm", again) == HookLease(again, {0: HERE}, b"")
    assert store.take(["crm"]) == [again]


def test_a_lease_of_an_earlier_release_names_no_server_and_holds(client):
    store, name = HookStore(client, "process"), keyspace.hook_lease_key("crm")
    HookStore(client, "earlier").take(["crm"])
    client.set(name, client.get(name).partition(b";")[0])
    assert store.take(["crm"]) == [0]
    assert owner_of(client, "crm") == "earlier"
    store.take(["other"])
    assert owner_of(client, "other") == "process"


def test_what_has_the_id_of_a_position_since_a_failover_is_told_and_before_what_follows_it(
    own_client,
):
    client = own_client
    key, positions = keyspace.events_key(0), keyspace.hook_positions_key("crm")
    old, new = talk("old", AT), talk("new", AT)
    with hook_endpoint() as endpoint, telling(client, 1, [hook_to(endpoint)]):
        add_entries(client, 0, sender(1), old[:1])
        until(lambda: client.hexists(positions, 0) and endpoint.taken, 10, "the beginning is told")
        until(lambda: client.hget(positions, 0) == client.xrevrange(key)[0][0], 10, "that is stored")
        stream, position = client.dump(key), client.hget(positions, 0)
        add_entries(client, 0, sender(1), old[1:2])
        until(
            lambda: client.hget(positions, 0) == client.xrevrange(key)[0][0], 10, "what will be lost is told"
        )
        lost, told = client.hget(positions, 0), len(endpoint.taken)
        with fail_over(client) as failover:
            failover.restore(key, 0, stream, replace=True)
            failover.hset(positions, 0, position)
            for n, records in enumerate(new[:2]):
                entry = {"to": sender(2), "e": encode_event(list(records))}
                failover.xadd(key, entry, id=lost if n == 0 else lost.partition(b"-")[0] + b"-9")
            failover.execute()
        news = until(
            lambda: len(endpoint.taken) > told + 2 and endpoint.taken[told:], 10, "the news are told"
        )
    assert {event["subject"] for event in news} == {"new"}
    assert [event["type"] for event in news][:2] == ["session.opened", "message.received"]
    assert len({event["id"] for event in news}) == len(news)


def test_who_asks_again_has_the_same(client):
    store = HookStore(client, "asks again")
    assert store.take(["crm"]) == store.take(["crm"])
    (token,) = store.take(["crm"])
    for _ in range(2):  # as a reply that was lost
        assert store.move("crm", token, {0: HERE}, b"{}")
    assert store.load("crm", token).positions == {0: HERE}
    assert client.get(keyspace.hook_circuit_key("crm")) == b"{}"
    assert store.move("crm", token, {}, b"")
    assert client.get(keyspace.hook_circuit_key("crm")) is None


def test_a_lease_ends_in_time_though_the_clock_was_set_back(client):
    store, other = HookStore(client, "before"), HookStore(client, "after")
    store.take(["crm"])
    fence, till, *rest = client.get(keyspace.hook_lease_key("crm")).split(b" ")
    ahead = int(till) + 3_600_000
    client.set(keyspace.hook_lease_key("crm"), b" ".join([fence, b"%d" % ahead, *rest]))
    assert other.find_free(["crm"]) == ["crm"]
    now = redis_client.server_time_ms(client)
    assert other.take(["crm"]) == [0]
    client.set(keyspace.hook_lease_key("crm"), b" ".join([fence, b"%d" % (now - 1), *rest]))
    assert other.take(["crm"]) != [0]
    assert int(client.get(keyspace.hook_lease_key("crm")).split(b" ")[1]) <= now + 2 * HOOK_LEASE_MS


def test_positions_put_elsewhere_by_an_operator_stay_there(client):
    store, operator = HookStore(client, "process"), HookStore(client, "operator")
    (token,) = store.take(["crm"])
    store.move("crm", token, {0: THERE, 1: THERE}, b"{}")
    operator.rewind("crm", {0: BEGINNING, 1: HERE})
    assert not store.move("crm", token, {0: THERE}, b"")
    (again,) = store.take(["crm"])
    assert again != token
    assert store.load("crm", again).positions == {0: BEGINNING, 1: HERE}
    assert store.load("crm", again).circuit == b""


def test_an_endpoint_that_is_rewound_while_a_request_is_under_way_is_told_from_there(client):
    arrived, go_on = Event(), Event()

    def answer(_):
        arrived.set()
        return Answer() if go_on.wait(60) else Answer(0)

    with hook_endpoint(answer) as endpoint:
        say(client, range(4))
        with telling(client, SHARDS, [hook_to(endpoint, events=["session.ended"])]):
            assert arrived.wait(60)
            HookStore(client, "operator").rewind("crm", dict.fromkeys(range(SHARDS), BEGINNING))
            go_on.set()
            until(lambda: len({e["subject"] for e in endpoint.taken}) == 4, 10, "all are told")
            until(lambda: len(endpoint.taken) > 4, 10, "what was under way is told again")


def test_processes_share_the_endpoints_and_go_on_with_those_of_one_that_ends(client, endpoint):
    now = redis_client.server_time_ms(client)
    for name in ("one", "two"):
        store_heartbeat(client, name, ProcessHeartbeat(now, role="hooks"))
    hooks = [hook_to(endpoint, f"h{n}", f"/{n}", events=["session.ended"]) for n in range(10)]

    def owners():
        return Counter(owner_of(client, hook.name) for hook in hooks)

    with telling(client, SHARDS, hooks):
        with telling(client, SHARDS, hooks):
            until(lambda: sorted(owners().values()) == [5, 5], 20, "each has its half")
            say(client, range(4))
            until(lambda: len(endpoint.taken) == 40, 20, "all are told")
        client.hdel(keyspace.PROCESSES_KEY, "two")
        until(lambda: list(owners().values()) == [10], 20, "the other has all")
        say(client, range(4, 8))
        until(lambda: len(endpoint.taken) == 80, 20, "all are told")
    assert set(Counter((e["subject"], t.path) for t in endpoint.requests for e in t.events).values()) == {1}


def test_an_endpoint_that_is_resumed_is_told_nothing_twice(client, endpoint, monkeypatch):
    """It is resumed at the worst moment: a process has renewed its lease just now."""
    operator = HookStore(client, "operator")
    operator.pause("crm", "the CRM moves house", "ada")
    read_marks, is_time = HookStore.read_marks, Event()

    def resume_and_read(store, names):
        if is_time.is_set():
            is_time.clear()
            operator.resume("crm")
        return read_marks(store, names)

    monkeypatch.setattr(HookStore, "read_marks", resume_and_read)
    say(client, range(4))
    with telling(client, SHARDS, [hook_to(endpoint)]):
        until(lambda: owner_of(client, "crm"), 10, "it is taken")
        is_time.set()
        until(lambda: len(endpoint.taken) >= 28, 20, "all is told")
    assert set(Counter(event["id"] for event in endpoint.taken).values()) == {1}


def test_endpoints_that_are_given_back_while_they_are_slow_hold_up_nobody(client, endpoint, monkeypatch):
    monkeypatch.setattr(hook_process, "STOP_TIMEOUT_S", 600.0)
    monkeypatch.setattr(hook_process, "COUNTING_INTERVAL_S", 0.05)
    go_on = Event()
    with hook_endpoint(lambda _: Answer() if go_on.wait(60) else Answer(0)) as slow:
        say(client, range(4))
        hooks = [hook_to(endpoint), hook_to(slow, "slow", timeout_s=60)]
        with telling(client, SHARDS, hooks):
            until(lambda: slow.requests and len(endpoint.taken) == 28, 20, "both are told")
            now = redis_client.server_time_ms(client)
            for name in ("one", "two"):
                store_heartbeat(client, name, ProcessHeartbeat(now, role="hooks"))
            until(lambda: rests(client, "slow"), 20, "one is given back")
            say(client, range(4, 8))
            until(lambda: len(endpoint.taken) == 56, 20, "the other is told all the same")
            go_on.set()


def rests(client, hook):
    """Has its lease not been renewed for a while?"""
    ends_ms = int(client.get(keyspace.hook_lease_key(hook)).split(b" ")[1])
    return ends_ms - redis_client.server_time_ms(client) < HOOK_LEASE_MS - 500
