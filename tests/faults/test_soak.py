"""Half a thousand people talk while something is killed every second and the provider misbehaves."""

import random
from threading import Event, Thread

from tests.support import clinic
from tests.support.octopush import Faults

KILLS = 60
EVERY_S = 1.0


def test_500_conversations_survive_a_minute_of_kills(deployment, play, octopush):
    octopush.control(
        Faults(delay_ms=(1, 50), fail_500=0.05, congested_153=0.05, cut_after_accept=0.05, seed=1)
    )
    deployment.start(web=1, ratelimit=2, conversation=2, delivery=2, clock=2)
    chance = random.Random(7)
    over = Event()
    killed = []

    def kill():
        while len(killed) < KILLS and not over.wait(EVERY_S):
            victim = chance.choice(deployment.processes)
            victim.kill9()
            killed.append(victim.name)

    with deployment.respawning():
        killer = Thread(target=kill)
        killer.start()
        people = [
            play.person(place, chance.choice((clinic.feverish, clinic.healthy))(f"P{place}"))
            for place in range(500)
        ]
        try:
            play.crowd.talk(people, deadline_s=240, at_once=500, every_s=0.1)
        finally:
            over.set()
            killer.join()
    play.judge()
    assert set(killed) == {"web", "ratelimit", "conversation", "delivery", "clock"}
