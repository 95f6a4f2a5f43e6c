"""`/metrics` tells of all processes of a machine, and keeps no webhook waiting."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest
import requests

from tests.support.processes import Deployment
from tests.support.waiting import free_port, until

SMS = {
    "number": "+33612345678",
    "text": "START",
    "reception_date": "2020-11-04 11:11:45",
    "message_id": "sms_1",
}


def test_a_redis_that_hangs_keeps_the_metrics_waiting_and_nothing_else(web, own_valkey):
    base = web(PARLEY_REDIS_URL=own_valkey.url, PARLEY_BROKER_URL=own_valkey.broker_url)
    requests.get(f"{base}/metrics", timeout=60).raise_for_status()
    own_valkey.sigstop()
    with ThreadPoolExecutor(1) as pool:
        begun_s = monotonic()
        metrics = pool.submit(
            lambda: until(
                lambda: (text := requests.get(f"{base}/metrics", timeout=60).text)
                and 'parley_redis_up{server="lanes"} 0.0' in text,
                10, "Redis is said to be away",
            )
        )  # fmt: skip
        waits_s = []
        while not metrics.done():
            asked_s = monotonic()
            assert requests.get(f"{base}/healthz", timeout=60).ok
            waits_s.append(monotonic() - asked_s)
        assert metrics.result()
    took_s = monotonic() - begun_s
    assert took_s > 1.0
    assert len(waits_s) > 20
    assert max(waits_s) < took_s / 2, "two servers are waited for, and nobody for one of them"
    own_valkey.sigcont()


@pytest.mark.processes
def test_on_a_port_of_its_own_nothing_else_is_there_and_it_is_nowhere_else(valkey, octopush):
    """Several processes may share that port too."""
    port = free_port()
    shared = {"PARLEY_METRICS_PORT": str(port)}
    with Deployment(valkey.url, valkey.broker_url, octopush, environment=shared) as deployment:
        for _ in range(2):
            deployment.spawn("web")
        deployment.wait_ready()
        deployment.wait_running()
        inside, outside = f"http://127.0.0.1:{port}", deployment.base
        found = {
            (base, path): requests.get(base + path, timeout=60).status_code
            for base in (inside, outside)
            for path in ("/metrics", "/healthz", "/webhooks/clinic", "/v1/openapi.json")
        }
        assert found == {
            (inside, "/metrics"): 200,
            (inside, "/healthz"): 200,
            (inside, "/webhooks/clinic"): 404,
            (inside, "/v1/openapi.json"): 404,
            (outside, "/metrics"): 404,
            (outside, "/healthz"): 200,
            (outside, "/webhooks/clinic"): 403,
            (outside, "/v1/openapi.json"): 200,
        }
        assert "parley_redis_up" in requests.get(f"{inside}/metrics", timeout=60).text


@pytest.mark.processes
def test_any_web_tells_what_all_processes_of_its_machine_have_counted(valkey, octopush, tmp_path):
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with Deployment(valkey.url, valkey.broker_url, octopush, environment=shared) as deployment:
        deployment.start()
        requests.post(deployment.webhook, json=SMS, timeout=60).raise_for_status()

        def told():
            lines = requests.get(f"{deployment.base}/metrics", timeout=60).text.splitlines()
            return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

        wanted = {
            'parley_inbound_total{channel="clinic",kind="sms"}',
            'parley_turns_total{outcome="committed",queue="starts"}',
            'parley_sends_total{channel="clinic",outcome="accepted"}',
        }

        def counted():
            found = told()
            return {name: found[name] for name in wanted if float(found.get(name, 0))}

        found = until(lambda: len(each := counted()) == len(wanted) and each, 15, "every stage has counted")
        assert set(found.values()) == {"1.0"}
        (starts,) = deployment.of("ratelimit")
        starts.kill9()
        starts.restart()
        deployment.wait_running()
        assert {told()[name] for name in wanted} == {"1.0"}
        until(lambda: told()['parley_processes{role="delivery"}'] == "1.0", 15, "processes are told")
