"""Redis fails: replies are lost after the command was executed, the server is killed, or it hangs."""

from threading import Thread

import pytest
import requests

from config.store import lua_library
from tests.faults.play import Play
from tests.support import audit, clinic
from tests.support.person import inbound
from tests.support.processes import Deployment, odd_process, procfile
from tests.support.proxies import Proxies
from tests.support.waiting import until

FUNCTIONS = [
    "accept", "claim", "commit", "lease_sms", "update_outbox", "take_due_alarms", "acquire_permits",
]  # fmt: skip


@pytest.fixture
def proxy(own_valkey):
    with Proxies(own_valkey) as proxy:
        yield proxy


@pytest.fixture
def deployment(own_valkey, octopush, proxy):
    """As ever, but both of its Redis servers lie behind the proxy."""
    with Deployment(proxy.url, proxy.broker_url, octopush, limits={"sms_per_second": 1000}) as deployment:
        yield deployment


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_whose_reply_is_lost_is_done_once(deployment, play, proxy, function):
    deployment.start()
    proxy.lose_replies(f"_{function}\r\n".encode(), times=3)
    play.hold(range(5))
    until(lambda: proxy.lost, 30, "a reply was lost")
    play.judge()


def test_wake_ups_whose_reply_is_lost_on_a_server_of_their_own_wake_once(own_valkey, octopush):
    with (
        Proxies(own_valkey, lanes=False) as proxy,
        Deployment(own_valkey.url, proxy.broker_url, octopush) as deployment,
    ):
        deployment.start()
        proxy.lose_replies(b"_wake\r\n", times=3)
        play = Play(deployment, octopush)
        play.hold(range(5))
        assert proxy.lost == 3
        play.judge()


@pytest.mark.parametrize("retries", [0, 10])
def test_replies_that_are_lost_again_and_again_harm_nobody_however_often_clients_retry(
    deployment, play, proxy, own_valkey, retries
):
    deployment.start(**dict.fromkeys(procfile(), 0))
    for role in procfile():
        odd_process(deployment, role, f"retries-{retries}")
    deployment.wait_ready()
    deployment.wait_running()
    proxy.lose_replies(lua_library.LIBRARY_NAME.encode(), times=12, every=5)
    play.hold(range(10))
    assert proxy.lost > 5
    proxy.lose_replies(b"", times=0)
    play.judge()
    audit.settle(own_valkey.client(), own_valkey.client(own_valkey.broker_url))


def test_without_redis_nothing_is_acknowledged_and_when_it_is_back_all_goes_on(deployment, play, proxy):
    deployment.start()
    play.hold([0])
    proxy.refuse()
    body = inbound(clinic.number(1), "START")
    refused = requests.post(deployment.webhook, data=body, timeout=60)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert requests.get(f"{deployment.base}/readyz", timeout=60).status_code == 503
    assert requests.get(f"{deployment.base}/healthz", timeout=60).status_code == 200
    proxy.admit()
    play.hold([1, 2])
    play.judge()
    assert all(process.alive for process in deployment.processes)


def test_conversations_survive_a_server_that_is_killed_again_and_again(
    octopush, own_valkey, play, deployment
):
    deployment.start()
    talk = Thread(
        target=play.hold, args=(range(60),), kwargs={"deadline_s": 90, "at_once": 20, "every_s": 0.1}
    )
    talk.start()
    for heard in (20, 100, 180):
        until(lambda heard=heard: octopush.count() >= heard, 60, f"{heard} SMS were sent")
        own_valkey.kill9()
        own_valkey.start()
    talk.join()
    play.judge()


def test_a_server_that_forgot_our_functions_and_wake_ups_is_told_again(own_valkey, play, deployment):
    deployment.start()
    talk = Thread(target=play.hold, args=(range(30),), kwargs={"every_s": 0.1})
    talk.start()
    for _ in range(3):
        until(lambda: play.crowd.posts > 0, 30, "they talk")
        own_valkey.client().function_flush()
        own_valkey.client(own_valkey.broker_url).flushdb()
    talk.join()
    play.judge()
