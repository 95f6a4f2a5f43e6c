"""A deployment is stopped in the midst of conversations and divided into more shards; the command is killed, and typed again."""

from config.store import keyspace
from tests.support.person import inbound
from tests.support.waiting import until

PLACES = (
    "after_reshard_begun",
    "after_reshard_copy",
    "after_reshard_move",
    "after_reshard_stream",
    "after_reshard_replaced",
    "after_reshard_copy@5",
    "after_reshard_stream@3",
    "before_reshard_end",
)

REFUSAL = "and that is not done: run `parley reshard --to 64` until it says that it is done"


def reshard(deployment, **environment):
    return deployment.command("reshard", "--to", "64", "--yes", **environment)


def test_killed_anywhere_and_typed_again_it_loses_nothing(deployment, play, octopush, own_valkey):
    own_valkey.client().set(keyspace.SHARDS_KEY, 16)
    deployment.start()
    people = [play.person(place) for place in range(8)]
    play.crowd.post(inbound(person.number, person.opening) for person in people)
    until(lambda: len(octopush.accepted()) == len(people), 30, "everybody has been asked their name")
    lives = reshard(deployment)
    assert (lives.returncode, "lives: stop all processes" in lives.stderr) == (1, True), lives.stderr
    for process in deployment.processes:
        process.terminate()
    deployment.processes.clear()
    for place in PLACES:
        killed = reshard(deployment, PARLEY_FAULT=place)
        assert killed.returncode < 0, f"{place}: {killed.stdout} {killed.stderr}"
    assert REFUSAL in deployment.command("status").stderr
    process = deployment.spawn("conversation")
    assert (process.wait_dead(), REFUSAL in process.log.read_text()) == (2, True)
    deployment.processes.clear()
    done = reshard(deployment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert own_valkey.client().get(keyspace.SHARDS_KEY) == b"64"
    deployment.start()
    for person in people:
        person.opening = ""  # they have said it
    play.crowd.talk([*people, *(play.person(place) for place in range(8, 16))], 60)
    play.judge()
