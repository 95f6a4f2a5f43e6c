"""kill -9 of every kind of process at every step: nothing lost, nothing twice, everything in order."""

from contextlib import suppress
from pathlib import Path

import pytest
import requests

from tests.faults.play import Play
from tests.soak import ledger
from tests.support import clinic
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.waiting import until

DEATHS = [
    ("web", "before_accept"),
    ("web", "after_accept"),
    ("ratelimit", "after_fetch"),
    ("ratelimit", "after_claim"),
    ("ratelimit", "before_commit"),
    ("ratelimit", "after_commit"),
    ("conversation", "after_fetch"),
    ("conversation", "after_claim"),
    ("conversation", "before_commit"),
    ("conversation", "after_commit"),
    ("delivery", "after_fetch"),
    ("delivery", "after_take"),
    ("delivery", "before_send"),
    ("delivery", "after_connect"),
    ("delivery", "after_write"),
    ("delivery", "after_send"),
    ("delivery", "before_settle"),
    ("delivery", "after_settle"),
]


@pytest.mark.parametrize("name, fault", DEATHS)
def test_a_conversation_survives(deployment, play, name, fault):
    deployment.start(**{name: 0})
    victim = deployment.spawn(name, fault)
    if name == "web":
        deployment.wait_ready()
    with deployment.respawning():
        first_life = victim.pid
        play.hold(range(3))
        assert victim.pid != first_life, "the fault point was never reached"
    play.judge()


@pytest.mark.one_server("on a cluster the wake-ups are on another server anyway")
def test_a_conversation_survives_a_web_that_dies_before_it_rings_on_another_server(
    own_valkey, valkey, octopush
):
    with Deployment(own_valkey.url, valkey.broker_url, octopush) as deployment:
        deployment.start(web=0)
        victim = deployment.spawn("web", "before_ring")
        deployment.wait_ready()
        play = Play(deployment, octopush)
        with deployment.respawning():
            first_life = victim.pid
            play.hold(range(3))
            assert victim.pid != first_life, "the fault point was never reached"
        play.judge()


@pytest.mark.one_server("the wake-ups are in another database of the lanes' server")
@pytest.mark.parametrize(
    "name, fault", [("web", "after_accept"), ("ratelimit", "after_commit"), ("conversation", "after_commit")]
)
def test_nobody_waits_for_the_clock_as_what_accepts_or_commits_rings_too(deployment, octopush, name, fault):
    """Whoever asked for it dies before they hear that it is done, and no clock is there that would ring again."""
    deployment.start(clock=0, **{name: 0})
    victim = deployment.spawn(name, fault)
    deployment.wait_ready()
    texts = ["START", "Ada"] if name == "conversation" else ["START"]
    for number, text in enumerate(texts, start=1):
        with suppress(requests.ConnectionError):  # of a `web` that dies
            requests.post(deployment.webhook, data=inbound(clinic.number(0), text), timeout=60)
        until(lambda number=number: octopush.count() == number, 30, "it is answered")
    until(lambda: not victim.alive, 30, "the fault point was reached")


def test_whoever_is_killed_leaves_no_process_behind(deployment):
    """A line of the Procfile is one process: it has no children that could go on without it."""
    deployment.start()
    for process in deployment.processes:
        children = [file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/children")]
        assert "".join(children) == "", f"{process.name} has children"


def test_a_conversation_survives_a_clock_that_puts_an_alarm_off_and_dies_before_it_rings(deployment, play):
    """Once a rate-limit worker died with the lane in hand, only the clock rings for it."""
    deployment.start(clock=0, ratelimit=0)
    ratelimit = deployment.spawn("ratelimit", "after_claim")
    clock = deployment.spawn("clock", "after_tick")
    with deployment.respawning():
        lives = ratelimit.pid, clock.pid
        play.hold([0])
        assert ratelimit.pid != lives[0]
        assert clock.pid != lives[1]
    play.judge()


def test_that_a_stop_withdrew_an_sms_is_known_though_its_worker_dies_right_after(
    deployment, play, own_valkey
):
    redis = own_valkey.client()
    deployment.start(conversation=0, delivery=0)
    worker = deployment.spawn("conversation", "after_commit")
    play.crowd.post([inbound(clinic.number(1), "START")])
    until(lambda: redis.keys("*:outbox:*"), 30, "the question is decided, and waits")
    (ratelimit,) = deployment.of("ratelimit")  # which would read the STOP too
    ratelimit.kill9()
    play.crowd.post([inbound(clinic.number(1), "STOP")])
    worker.wait_dead()
    (question,) = ledger.stories(redis)[clinic.number(1)].unsent
    assert question.endswith("x0")
