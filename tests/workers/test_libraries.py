"""Server-side functions of earlier releases go once nobody calls them, and never before."""

import msgspec
import pytest

from config.store import keyspace
from config.telemetry import process_registry
from config.telemetry.process_registry import Process
from workers.clock import function_libraries
from workers.roles.clock import tidy

OLD, EARLIER = "parley_0badcafe", "parley"
CODE = "#!lua name={name}\nredis.register_function('{name}_f', function() return 1 end)"
DAY_MS = function_libraries.UNUSED_MS


@pytest.fixture
def client(pipeline):
    return pipeline().client


def load(client, name):
    client.function_load(CODE.format(name=name))


@pytest.fixture(autouse=True)
def clean(valkey):
    """Functions survive FLUSHALL, and the server is not ours alone."""
    valkey.client().function_flush()
    yield
    valkey.client().function_flush()


def loaded(client):
    return function_libraries._loaded(client)


def a_day_later(client):
    """As if all that was noted had been noted a day ago."""
    for name, _ in client.zscan_iter(keyspace.LIBRARIES):
        client.zincrby(keyspace.LIBRARIES, -DAY_MS - 1, name)


def test_what_nobody_uses_goes_after_a_day_and_what_is_not_ours_stays(client):
    for name in (OLD, EARLIER, "parley_ours_not", "other"):
        load(client, name)
    assert function_libraries.forget(client, [client]) == []
    assert function_libraries.forget(client, [client]) == []
    a_day_later(client)
    assert function_libraries.forget(client, [client]) == [EARLIER, OLD]
    assert loaded(client) == {keyspace.LIBRARY}
    assert len(keyspace.ask(client, ("FUNCTION", "LIST"))) == 3
    assert client.zrange(keyspace.LIBRARIES, 0, -1) == [keyspace.LIBRARY.encode()]


def test_what_a_living_process_uses_stays_however_old(client):
    load(client, OLD)
    load(client, EARLIER)
    now = keyspace.server_ms(client)
    process_registry.put(client, "web@here:1.a", Process(now, role="web", library=OLD))
    client.hset(keyspace.RUNS, "conversation@here:2", msgspec.msgpack.encode([now, {}]))
    function_libraries.forget(client, [client])
    a_day_later(client)
    assert function_libraries.forget(client, [client]) == []
    assert loaded(client) == {OLD, EARLIER, keyspace.LIBRARY}


def test_a_library_that_is_missed_all_the_same_is_loaded_again(client):
    keyspace.ask(client, ("FUNCTION", "DELETE", keyspace.LIBRARY))
    assert keyspace.ask(client, keyspace.ring_command("starts", ["+33600000001"])) == 1
    assert loaded(client) == {keyspace.LIBRARY}


def test_the_clock_tidies_both_servers(pipeline):
    world = pipeline().world
    load(world.broker, OLD)
    tidy(world)
    a_day_later(world.lanes)
    tidy(world)
    assert loaded(world.broker) == {keyspace.LIBRARY}
