"""kill -9 of every kind of process at every step: nothing lost, nothing twice, everything in order."""

import pytest

DEATHS = [
    ("web", "before_accept"),
    ("web", "after_accept"),
    ("web", "before_ring"),
    ("ratelimit", "after_claim"),
    ("ratelimit", "before_commit"),
    ("ratelimit", "after_commit"),
    ("conversation", "after_claim"),
    ("conversation", "before_commit"),
    ("conversation", "after_commit"),
    ("delivery", "after_take"),
    ("delivery", "before_send"),
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


def test_a_conversation_survives_the_death_of_a_clock_that_put_an_alarm_off_and_rang_for_nobody(
    deployment, play, own_valkey
):
    deployment.start(clock=0, conversation=0, ratelimit=0)
    victim = deployment.spawn("clock", "after_tick")
    with deployment.respawning():
        first_life = victim.pid
        person = play.person(0)
        play.crowd.post([], 1)
        own_valkey.client(own_valkey.broker_url).flushdb()
        deployment.spawn("ratelimit", "after_claim")
        deployment.spawn("conversation")
        play.crowd.talk([person], 60)
        assert victim.pid != first_life
    play.judge()
