"""What leaves for Redis is what redis-py would send."""

import redis
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st

from config.connections import server_connections
from config.store import redis_client

URL = "redis://127.0.0.1:1"

arguments = st.text() | st.binary() | st.integers() | st.floats(allow_nan=False)
names = st.sampled_from(["GET", "FCALL", "CONFIG GET"])


@given(names, st.lists(arguments, max_size=8))
def test_a_command_is_packed_as_redis_py_packs_it(name, rest):
    packed = b"".join(redis.Connection().pack_command(name, *rest))
    ours = redis_client.connect(URL).connection_pool.make_connection()
    assert b"".join(ours.pack_command(name, *rest)) == packed
    ours = redis_client.connect_async(URL).connection_pool.make_connection()
    assert b"".join(ours.pack_command(name, *rest)) == packed


def test_both_clients_pack_without_looking_into_each_argument():
    for url in (URL, "rediss://127.0.0.1:1", "unix:///nowhere?db=1"):
        ours = redis_client.connect(url).connection_pool.make_connection()
        assert ours._command_packer is server_connections.HiredisPacker
        ours = redis_client.connect_async(url).connection_pool.make_connection()
        assert ours.pack_command("GET", "x") == server_connections.HiredisPacker.pack("GET", "x")


def test_each_scheme_has_its_kind_of_connection():
    for url, kind in (
        (URL, "Connection"),
        ("rediss://127.0.0.1:1", "SSLConnection"),
        ("unix:///nowhere", "UnixDomainSocketConnection"),
    ):
        ours = redis_client.connect(url).connection_pool.make_connection()
        assert isinstance(ours, getattr(redis, kind))
        ours = redis_client.connect_async(url).connection_pool.make_connection()
        assert isinstance(ours, getattr(redis.asyncio, kind))
