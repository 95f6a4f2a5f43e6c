"""Server-side functions of earlier releases go once nobody calls them, and never before."""

import pytest

from config.store import function_calls, keyspace, lua_library, redis_client
from config.telemetry import process_registry
from config.telemetry.process_registry import ProcessHeartbeat
from workers.clock import function_libraries
from workers.roles.clock import run_housekeeping

OLD, EARLIER = "parley_0badcafe", "parley_00000001"
CODE = "#!lua name={name}\nredis.register_function('{name}_f', function() return 1 end)"
DAY_MS = function_libraries.UNUSED_LIBRARY_KEPT_MS


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
    return function_libraries._loaded_libraries(client)


def a_day_later(client):
    """As if all that was noted had been noted a day ago."""
    for name, _ in client.zscan_iter(keyspace.LIBRARIES_KEY):
        client.zincrby(keyspace.LIBRARIES_KEY, -DAY_MS - 1, name)


def test_what_nobody_uses_goes_after_a_day_and_what_is_not_ours_stays(client):
    for name in (OLD, EARLIER, "parley_ours_not", "parley", "other"):
        load(client, name)
    assert function_libraries.delete_unused_libraries(client, [client]) == []
    assert function_libraries.delete_unused_libraries(client, [client]) == []
    a_day_later(client)
    assert function_libraries.delete_unused_libraries(client, [client]) == [EARLIER, OLD]
    assert loaded(client) == {lua_library.LIBRARY_NAME}
    assert len(redis_client.run_command(client, ("FUNCTION", "LIST"))) == 4
    assert client.zrange(keyspace.LIBRARIES_KEY, 0, -1) == [lua_library.LIBRARY_NAME.encode()]


def test_what_a_living_process_uses_stays_however_old(client):
    now = redis_client.server_time_ms(client)
    for library, role in ((OLD, "web"), (EARLIER, "conversation")):
        load(client, library)
        process_registry.store_heartbeat(
            client, f"{role}@here:1.a", ProcessHeartbeat(now, role=role, library=library)
        )
    function_libraries.delete_unused_libraries(client, [client])
    a_day_later(client)
    assert function_libraries.delete_unused_libraries(client, [client]) == []
    assert loaded(client) == {OLD, EARLIER, lua_library.LIBRARY_NAME}


def test_a_library_that_is_missed_all_the_same_is_loaded_again(client):
    client.function_delete(lua_library.LIBRARY_NAME)
    assert redis_client.run_command(client, function_calls.wake_command("starts", ["+33600000001"])) == 1
    assert loaded(client) == {lua_library.LIBRARY_NAME}


def test_the_clock_tidies_both_servers(pipeline):
    world = pipeline().world
    load(world.broker, OLD)
    run_housekeeping(world)
    a_day_later(world.lanes)
    run_housekeeping(world)
    assert loaded(world.broker) == {lua_library.LIBRARY_NAME}
