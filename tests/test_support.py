"""The harness itself: what breaks on purpose breaks as it says, and what judges the others judges right."""

import json
import os
import sys
from pathlib import Path
from threading import Event
from unittest.mock import Mock

import pytest
import redis
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.soak.mischief import Deed, Mischief
from tests.soak.soak import Sums, metric_wrongs
from tests.support import clinic
from tests.support.example_counts import EXAMPLES_EVENT, draws, examples
from tests.support.fork_server import ForkServer
from tests.support.octopush import Faults, Scripted
from tests.support.person import Crowd, Person, inbound
from tests.support.processes import ROOT, Process
from tests.support.waiting import free_port, until

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def send(octopush, request_id="a1", key="key"):
    body = {"recipients": [{"phone_number": "+33600000001"}], "text": "hello", "request_id": request_id}
    headers = {"api-login": "login", "api-key": key}
    return requests.post(octopush.send_url, json=body, headers=headers, timeout=60)


def test_octopush_accepts_an_sms_once_whatever_is_sent_again(octopush):
    assert send(octopush).json()["sms_ticket"]
    assert send(octopush).json()["code"] == 120
    assert [sms.request_id for sms in octopush.accepted()] == ["a1"]
    assert [request.status for request in octopush.ledger().received] == [201, 400]


def test_octopush_accepts_and_cuts_and_knows_it_later(octopush):
    octopush.control(Faults(cut_after_accept=1))
    with pytest.raises(requests.ConnectionError):
        send(octopush)
    assert octopush.count() == 1
    octopush.control(Faults())
    assert send(octopush).json()["code"] == 120


def test_octopush_answers_by_its_script_and_then_as_usual(octopush):
    octopush.control(Faults(script=[Scripted(429), Scripted(400, {"code": 104, "message": "no credit"})]))
    assert [send(octopush).status_code for _ in range(3)] == [429, 400, 201]
    assert send(octopush, "a2", key="wrong").status_code == 401


@pytest.mark.one_server("a proxy, and a plain client, lead to one")
def test_a_lost_reply_is_lost_after_the_command_was_executed(valkey, proxy):
    with redis.Redis.from_url(proxy.url, protocol=2, retry=None) as client:
        assert client.ping()
        proxy.lose_replies(b"LPUSH", skip=1)
        assert client.lpush("list", 1) == 1
        with pytest.raises(redis.ConnectionError):
            client.lpush("list", 2)
        assert client.lrange("list", 0, -1) == [b"2", b"1"]
    assert proxy.lost == 1


@pytest.mark.one_server("a proxy, and a plain client, lead to one")
def test_a_refusing_proxy_is_as_a_server_that_is_gone(proxy):
    with redis.Redis.from_url(proxy.url, protocol=2, retry=None) as client:
        assert client.ping()
        proxy.refuse()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        proxy.admit()
        assert client.ping()


@pytest.mark.one_server("a proxy, and a plain client, lead to one")
def test_a_proxy_that_swallows_takes_what_is_said_and_brings_it_nowhere(proxy, valkey):
    with redis.Redis.from_url(proxy.url, protocol=2, retry=None, socket_timeout=0.3) as client:
        assert client.ping()
        proxy.swallow()
        for _ in range(2):  # on the connection that there is, and on a new one
            with pytest.raises(redis.TimeoutError):
                client.set("key", "value")
        proxy.spit_out()
        assert client.get("key") is None
        assert valkey.client().get("key") is None


def test_what_valkey_acknowledged_outlives_a_kill(own_valkey):
    own_valkey.client().set("key", "value")
    own_valkey.kill9()
    own_valkey.start()
    assert own_valkey.client().get("key") == b"value"


def test_each_inbound_sms_is_like_no_other():
    assert len({inbound("+33600000001", "yes") for _ in range(10_000)}) == 10_000


def test_a_conversation_goes_through_the_real_processes_word_for_word(parley, octopush):
    parley.start()
    plays = {clinic.number(i): clinic.feverish(f"Ada{i}") for i in range(20)}
    people = [Person(number, play.says[0], play.answers().get) for number, play in plays.items()]
    crowd = Crowd(parley.webhook, octopush)
    for person in crowd.talk(people, deadline_s=30):
        assert person.heard == plays[person.number].hears
    assert octopush.count() == sum(len(play.hears) for play in plays.values())


@pytest.mark.parametrize("end, status", [("0", 0), ("3", 3), ("-9", -9), ("raise", 1)])
@pytest.mark.processes
def test_a_forked_process_is_as_one_that_was_executed(tmp_path, end, status):
    environment = {
        "PATH": PATH,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PARLEY_FAULT": "after_claim",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C.UTF-8",
    }
    portraits, ends = [], []
    for forked in (False, True, True):
        command = f"python -m tests.support.process_portrait {end} 'two words'"
        process = Process("portrait", command, environment, tmp_path / "log", forked=forked)
        assert process.wait_dead() == status
        assert not process.alive
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)
        drawn, *ended = (tmp_path / "log").read_text().splitlines()
        (tmp_path / "log").unlink()
        portraits.append(json.loads(drawn))
        ends.append((ended[0], ended[-1]))
    assert len({portrait.pop("chance") for portrait in portraits}) == 3
    assert portraits[1] == portraits[2] == portraits[0]
    assert portraits[0]["fault"] == "after_claim"
    assert ends[1] == ends[2] == ends[0]


@pytest.mark.processes
def test_whoever_is_gone_leaves_no_forked_process_behind(tmp_path):
    server = ForkServer()
    with (tmp_path / "log").open("wb") as log, Path(os.devnull).open("rb") as nothing:
        forked = server.fork(
            "python -m http.server 0 --bind 127.0.0.1", {},
            stdin=nothing.fileno(), stdout=log.fileno(), stderr=log.fileno(),
        )  # fmt: skip
    assert forked.poll() is None
    server.close()
    with pytest.raises(ProcessLookupError):
        os.kill(forked.pid, 0)


def test_a_soak_that_is_late_undoes_what_is_over_before_it_goes_on():
    deployment, valkey = Mock(), Mock()
    victim = Mock()
    victim.terminate = lambda: Event().wait(0.3)
    deployment.processes = [victim]
    mischief = Mischief(deployment, [], valkey, Mock(), Mock(), {}, letters=True)
    mischief.start(
        iter(
            [
                Deed(0.0, "stop redis", 0, 0.1, "calm"),
                Deed(0.01, "terminate", 0, 0.1, "calm"),
                Deed(0.2, "kill redis", 0, 0.1, "calm"),
            ]
        )
    )
    until(lambda: mischief.done["kill redis"], 5, "all is done")
    mischief.end()
    assert [each[0] for each in valkey.method_calls] == ["sigstop", "sigcont", "kill9", "start"]


def test_a_soak_sees_the_metric_files_of_processes_that_are_gone(tmp_path):
    for pid in range(40):
        (tmp_path / f"{pid}-0a1b2c3d.alive").touch()
        (tmp_path / f"counter_{pid}-0a1b2c3d.db").touch()
    (tmp_path / "dead.sums").touch()
    assert list(metric_wrongs(tmp_path, {str(pid) for pid in range(40)})) == []
    (wrong,) = metric_wrongs(tmp_path, {"9"})
    assert wrong.startswith("78 metric files")


def test_a_soak_sees_a_sum_that_falls_and_minds_no_gauge():
    sums = Sums("")
    for turns, lanes in (("2.0", "5.0"), ("2.5", "1.0")):
        sums.hear(f"# TYPE turns_total counter\nturns_total {turns}\n# TYPE lanes gauge\nlanes {lanes}\n")
    assert sums.wrongs == []
    sums.hear("# TYPE turns_total counter\nturns_total 2.4999999999999996\n")
    sums.hear("")
    assert len(sums.wrongs) == 2


def how_many():
    return examples(10)


def test_who_draws_at_random_is_found_by_what_it_uses():
    def draws_inside():
        @given(st.none())
        def check(nothing):
            assert nothing is None

        check()

    assert draws(given(st.none())(lambda nothing: nothing))
    assert draws(draws_inside)
    assert draws(lambda: how_many())  # noqa: PLW0108 (it is found by its name)
    assert not draws(send)


def test_who_draws_at_random_and_is_not_found_is_told():
    with pytest.raises(AssertionError, match="mark this test `drawn`"):
        sys.audit(EXAMPLES_EVENT, 10)


def test_a_port_is_told_of_once_as_whoever_was_told_may_not_listen_yet():
    told = [free_port() for _ in range(400)]
    assert len({*told}) == len(told)
