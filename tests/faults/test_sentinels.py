"""Parley behind Sentinel: its primary dies or hangs, another server takes over, and every conversation goes on."""

import asyncio
import os
import re
import signal
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from time import monotonic

import pytest
import redis

from config.connections.sentinel_connections import NoPrimaryError
from config.connections.server_connections import NotPrimaryError
from config.store import redis_client
from tests.support import audit
from tests.support.processes import Deployment
from tests.support.sentinels import SERVICE, Sentinel, ValkeyService
from tests.support.waiting import HANG_S, until

pytestmark = pytest.mark.topologies


@pytest.fixture
def service():
    with ValkeyService(replicas=2) as service:
        yield service


@pytest.fixture
def deployment(service, octopush):
    environment = {"PARLEY_REPLICAS": "1"}
    with Deployment(service.url, service.broker_url, octopush, environment=environment) as deployment:
        yield deployment


def test_conversations_survive_a_primary_that_is_killed_and_one_that_hangs(
    service, deployment, octopush, play
):
    deployment.start()
    talk = Thread(
        target=play.hold, args=(range(60),), kwargs={"deadline_s": 90, "at_once": 20, "every_s": 0.1}
    )
    talk.start()
    until(lambda: octopush.count() >= 20, 60, "20 SMS were sent")
    killed = service.primary
    killed.kill9()
    service.wait_failed_over(killed)
    killed.start()
    service.wait_complete()
    sent = octopush.count()
    until(lambda: octopush.count() >= min(sent + 20, 180), 60, "20 more were sent")
    hung = service.primary
    hung.sigstop()
    service.wait_failed_over(hung)
    hung.sigcont()
    talk.join()
    play.judge()
    audit.settle(service.client(), service.client(service.broker_url))
    assert all(process.alive for process in deployment.processes)


def test_a_server_that_sentinels_name_is_left_if_it_calls_itself_a_replica(service):
    """A Sentinel that has not heard of a failover."""
    with Sentinel(service.replicas[0]) as behind:
        url = f"redis+sentinel://127.0.0.1:{behind.port}/{SERVICE}"
        until(behind.state, 20, "it answers")
        with redis_client.connect(url, retries=0) as client, pytest.raises(NotPrimaryError, match="a slave"):
            client.ping()
        assert asyncio.run(_ping(url)) == "the server that the Sentinels name is a slave"


async def _ping(url):
    client = redis_client.connect_async(url, retries=0)
    try:
        await client.ping()
    except NotPrimaryError as e:
        return str(e)
    finally:
        await client.aclose()


def test_what_the_sentinels_announce_is_known_before_a_connection_finds_out(service):
    """Or each to a primary that hangs would cost a timeout. Those in use are left after their reply, which comes late."""
    with (
        redis_client.connect(service.url, retries=0, timeout_s=HANG_S) as lanes,
        redis_client.connect(service.broker_url, retries=0, timeout_s=HANG_S) as broker,
    ):
        assert lanes.ping()
        waiting = Thread(target=lambda: broker.blpop("nothing", 1))
        hung = service.primary
        waiting.start()
        until(lambda: hung.client().info("clients")["blocked_clients"], 20, "it waits")
        hung.sigstop()
        service.wait_failed_over(hung)
        begun_s = monotonic()
        until(lambda: lanes.connection_pool.master_address == _address(service.primary), 20, "it is known")
        assert lanes.ping()
        assert broker.ping()
        assert monotonic() - begun_s < HANG_S / 2
        hung.sigcont()
        waiting.join()


def test_an_announcement_that_nobody_hears_is_asked_for(service):
    """Subscriptions are ended again and again meanwhile."""
    over = Event()

    def deafen():
        while not over.wait(0.02):
            for each in service.sentinels:
                each.end_subscriptions()

    deafening = Thread(target=deafen)
    deafening.start()
    try:
        with redis_client.connect(service.url, retries=0, timeout_s=HANG_S) as client:
            assert client.ping()
            hung = service.primary
            hung.sigstop()
            service.wait_failed_over(hung)
            until(
                lambda: client.connection_pool.master_address == _address(service.primary), 20, "it is known"
            )
            assert client.ping()
            hung.sigcont()
    finally:
        over.set()
        deafening.join()


def test_who_listens_to_sentinels_ends_with_the_last_client_and_begins_anew_in_a_fork(service):
    with redis_client.connect(service.url) as lanes, redis_client.connect(service.broker_url) as broker:
        assert lanes.ping()
        assert broker.ping()
        assert _listeners() == len(service.sentinels)
        child = os.fork()
        if not child:
            status = 1
            try:
                status = 0 if lanes.ping() and _listeners() == len(service.sentinels) else 1
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        lanes.close()
        assert _listeners() == len(service.sentinels)
    until(lambda: not _listeners(), 20, "nobody listens")


def _listeners():
    return sum(each.name == "sentinel" for each in enumerate_threads())


def _address(server):
    return server.host, server.port


def test_sentinels_that_are_gone_or_hang_are_passed_over(service):
    service.sentinels[0].send_signal(signal.SIGSTOP)
    with redis_client.connect(service.url, retries=0) as client:
        assert client.ping()
    service.sentinels[0].send_signal(signal.SIGKILL)
    with redis_client.connect(service.url, retries=0) as client:
        assert client.ping()


def test_what_no_sentinel_names_is_told_by_where_was_asked():
    url = f"redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:2/{SERVICE}"
    told = f"no Sentinel of 127.0.0.1:1, 127.0.0.1:2 answers with a primary of '{SERVICE}'"
    with redis_client.connect(url, retries=0) as client, pytest.raises(NoPrimaryError) as raised:
        client.ping()
    assert str(raised.value) == told
    with pytest.raises(redis.exceptions.ConnectionError, match=re.escape(told)):
        asyncio.run(_ping(url))
