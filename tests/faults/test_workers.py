"""Workers that are late, wake-ups that are wrong, and events that kill."""

from threading import Event, Thread
from time import monotonic

import pytest

from config.store import function_calls, keyspace, redis_client
from tests.support import audit, clinic
from tests.support.clusters import ValkeyCluster
from tests.support.person import inbound
from tests.support.processes import KILLED_S, odd_process, procfile
from tests.support.sentinels import PATIENT_MS, ValkeyService
from tests.support.waiting import until


@pytest.mark.parametrize("place", ["before_commit", "after_claim"])
def test_a_worker_that_wakes_after_its_lease_changes_nothing(deployment, play, place):
    deployment.start(conversation=0)
    late = deployment.spawn("conversation", f"stop:{place}")
    talk = Thread(target=play.hold, args=(range(3),))
    talk.start()
    late.wait_stopped()
    deployment.spawn("conversation")
    talk.join()
    late.sigcont()
    play.hold([3, 4])
    play.judge()


def test_a_delivery_worker_that_wakes_after_its_lease_sends_nothing_twice(deployment, play):
    deployment.start(delivery=0)
    late = deployment.spawn("delivery", "stop:before_send")
    talk = Thread(target=play.hold, args=(range(3),))
    talk.start()
    late.wait_stopped()
    deployment.spawn("delivery")
    talk.join()
    late.sigcont()
    play.hold([3, 4])
    play.judge()


def test_wake_ups_that_are_all_lost_are_made_good_by_the_alarms(deployment, play, own_valkey):
    """The broker is emptied over and over: whatever gets through does so by alarm."""
    broker = own_valkey.client(own_valkey.broker_url)
    deployment.start()
    stop = Event()

    def empty():
        while not stop.is_set():
            broker.flushdb()

    thief = Thread(target=empty)
    thief.start()
    try:
        play.hold(range(3), deadline_s=120)
    finally:
        stop.set()
        thief.join()
    play.judge()


def test_wake_ups_doubled_late_and_for_nobody_do_nothing(deployment, play, own_valkey):
    broker = own_valkey.client(own_valkey.broker_url)
    deployment.start(conversation=3, ratelimit=2, delivery=2)
    stop = Event()
    everybody = [clinic.number(place) for place in range(40)]

    def ring():
        while not stop.is_set():
            for queue in (keyspace.STARTS_QUEUE, keyspace.REPLIES_QUEUE, keyspace.OUTBOUND_QUEUE):
                redis_client.run_command(broker, function_calls.wake_command(queue, everybody))

    noise = Thread(target=ring)
    noise.start()
    try:
        play.hold(range(20))
    finally:
        stop.set()
        noise.join()
    play.judge()
    audit.settle(own_valkey.client(), broker)


def test_workers_and_web_whose_clocks_are_five_minutes_apart_agree(deployment, play, own_valkey):
    deployment.start(**dict.fromkeys(procfile(), 0))
    for role in procfile():
        odd_process(deployment, role, "clock-5min-ahead")
        odd_process(deployment, role, "clock-5min-behind")
    deployment.wait_ready()
    deployment.wait_running()
    play.hold(range(20))
    play.judge()
    audit.settle(own_valkey.client(), own_valkey.client(own_valkey.broker_url))


def let_nobody_fail_over(topology):
    """However long a load holds a server up: what no replica has yet would be lost with it."""
    if isinstance(topology, ValkeyService | ValkeyCluster):
        topology.be_patient(PATIENT_MS)


def test_four_sms_each_from_200_people_back_to_back_are_answered_in_order(
    deployment, own_valkey, play, octopush
):
    let_nobody_fail_over(own_valkey)
    deployment.start(web=1, ratelimit=2, conversation=3, delivery=3)
    people = range(200)
    conversation = clinic.feverish("Ada")
    for place in people:
        play.person(place, conversation)
    crowds = [[place for place in people if place % 8 == part] for part in range(8)]

    def burst(places):
        play.crowd.post(inbound(clinic.number(place), text) for place in places for text in conversation.says)

    threads = [Thread(target=burst, args=(places,)) for places in crowds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: octopush.count() >= 800, 60, "800 SMS were sent")
    play.judge()


def test_a_flood_of_starts_from_one_sender_does_not_slow_others(deployment, play, octopush):
    deployment.start()
    play.hold(range(100, 110))
    calm = sorted(lag for person in play.hold(range(20), every_s=0.05) for lag in person.lags_s)
    stop = Event()

    def flood():
        while not stop.is_set():
            play.crowd.post([inbound("+33699999999", "START") for _ in range(50)])

    flooders = [Thread(target=flood) for _ in range(2)]
    for flooder in flooders:
        flooder.start()
    try:
        flooded = sorted(lag for person in play.hold(range(20, 40), every_s=0.05) for lag in person.lags_s)
    finally:
        stop.set()
        for flooder in flooders:
            flooder.join()
    assert flooded[len(flooded) // 2] < 4 * calm[len(calm) // 2] + 1
    assert octopush.accepted("+33699999999")[1:] == []


def test_a_stop_is_obeyed_within_ten_seconds_and_loses_nothing(deployment, play):
    deployment.start()
    talk = Thread(target=play.hold, args=(range(50),), kwargs={"every_s": 0.02})
    talk.start()
    for process in list(deployment.processes):
        if process.name != "web":
            told_s = monotonic()
            process.terminate()
            assert process.wait_dead(0) == 0
            assert monotonic() - told_s < KILLED_S
            process.restart()
    talk.join()
    play.judge()
