"""URLs of a Redis: where they lead, what is wrong with those that lead nowhere, and that no password is shown."""

import pytest

from config.connections.redis_url import (
    RedisUrlError,
    check_redis_url,
    database_beside,
    default_broker_url,
    read_cluster_url,
    read_sentinel_url,
)
from config.store import redis_client


def test_a_service_is_read_with_all_its_sentinels():
    found = read_sentinel_url(
        "redis+sentinel://ada:s%40crt@one,two:26380,[::1]:5/main/3?health_check_interval=9"
    )
    assert found.sentinels == (("one", 26_379), ("two", 26_380), ("::1", 5))
    assert found.name == "main"
    assert found.server_url == "redis://ada:s%40crt@service/3?health_check_interval=9"
    assert read_sentinel_url("redis://host:6379/0") is None


def test_sentinels_have_credentials_of_their_own():
    found = read_sentinel_url("rediss+sentinel://:pw@one/main?sentinel_username=s&sentinel_password=t%26u")
    assert found.credentials == {"username": "s", "password": "t&u"}
    assert "sentinel" not in found.server_url


@pytest.mark.parametrize("connect", [redis_client.connect, redis_client.connect_async])
def test_servers_are_reached_with_what_the_url_says(connect):
    pool = connect(
        "rediss+sentinel://ada:pw@one,two/main/3?sentinel_password=t&ssl_ca_certs=/ca.pem"
    ).connection_pool
    options = pool.connection_kwargs
    assert (options["username"], options["password"], options["db"]) == ("ada", "pw", 3)
    assert options["ssl_ca_certs"] == "/ca.pem"
    assert (pool.service_name, pool.is_master) == ("main", True)
    for sentinel in pool.sentinel_manager.sentinels:
        asked = sentinel.connection_pool.connection_kwargs
        assert (asked["password"], asked.get("username")) == ("t", None)
        assert asked["ssl_ca_certs"] == "/ca.pem"


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://host", "begins with redis://"),
        ("host:6379", "begins with redis://"),
        ("redis+sentinel://one,two", "expected the service that the Sentinels know"),
        ("redis+sentinel://one/main/first", "expected the service that the Sentinels know"),
        ("redis+sentinel://one,,two/main", "expected the Sentinels as hosts"),
        ("redis+sentinel://one:port/main", "expected the Sentinels as hosts"),
        ("redis+sentinel://one:0/main", "expected the Sentinels as hosts"),
        ("redis+sentinel:///main", "expected the Sentinels as hosts"),
        ("redis+cluster://one,,two", "expected servers of the cluster as hosts"),
        ("redis+cluster://one/1", "and no database"),
        ("rediss+cluster://", "rediss\\+cluster://host,host:6379"),
    ],
)
def test_what_leads_nowhere_is_refused_with_what_was_expected(url, expected):
    with pytest.raises(RedisUrlError, match=expected):
        check_redis_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://ada:secret@one:x/main",
        "redis+sentinel://:secret@one",
        "redis+cluster://ada:secret@one:x",
    ],
)
def test_a_refusal_shows_no_password(url):
    with pytest.raises(RedisUrlError) as refused:
        check_redis_url(url)
    assert "secret" not in str(refused.value)


def test_a_cluster_is_read_with_all_its_seeds():
    found = read_cluster_url("rediss+cluster://ada:pw@one,[::1]:7000/?ssl_ca_certs=/ca.pem")
    assert found == ((("one", 6_379), ("::1", 7_000)), "rediss://ada:pw@server/0?ssl_ca_certs=/ca.pem")
    assert read_cluster_url("redis://host:6379/0") is None
    assert default_broker_url("redis+cluster://one") == "", "a cluster has one database"


def test_the_next_database_of_a_service_is_behind_its_name():
    assert default_broker_url("redis+sentinel://one,two/main") == "redis+sentinel://one,two/main/1"
    assert (
        default_broker_url("rediss+sentinel://:pw@one/main/3?a=b") == "rediss+sentinel://:pw@one/main/4?a=b"
    )


@pytest.mark.parametrize(
    "url, other, database",
    [
        ("redis://host:6379/0", "redis://host:6379/1", 1),
        ("redis://host", "redis://host/0", 0),
        ("rediss://ada:pw@host/3?ssl_ca_certs=/ca.pem", "rediss://ada:pw@host/4?ssl_ca_certs=/ca.pem", 4),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=1", 1),
        ("unix:///run/redis.sock?db=2&password=pw", "unix:///run/redis.sock?password=pw&db=3", 3),
        ("redis+sentinel://one,two/main/0", "redis+sentinel://one,two/main/1", 1),
        ("redis+sentinel://one,two/main", "redis+sentinel://one,two/main/7", 7),
        ("redis://host:6379/0", "redis://host:6380/1", None),
        ("redis://host/0", "rediss://host/1", None),
        ("redis://ada:pw@host/0", "redis://bob:pw@host/1", None),
        ("redis://host/0?db=1", "redis://host/2", None),
        ("redis://host/0", "redis://host/0?db=1", None),
        ("unix:///run/redis.sock", "unix:///run/other.sock", None),
        ("redis+sentinel://one,two/main/0", "redis+sentinel://one,two/other/1", None),
        ("redis+cluster://one,two", "redis+cluster://one,two", None),
        ("redis+cluster://one,two", "redis://one/1", None),
    ],
)
def test_a_database_beside_another_is_one_of_the_same_server_for_the_same_user(url, other, database):
    assert database_beside(url, other) == database


@pytest.mark.parametrize(
    "url", ["redis://host:6379/0", "unix:///run/redis.sock?db=0", "redis+sentinel://one/main"]
)
def test_the_default_of_the_wake_ups_is_beside_the_lanes(url):
    assert database_beside(url, default_broker_url(url)) == 1
