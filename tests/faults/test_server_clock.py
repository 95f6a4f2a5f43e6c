"""The clock of Redis is set back or ahead under real processes: nothing stands still for longer than a moment, nobody's
conversation ends, and nothing that is open is gone."""

import pytest

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from config.store.event_entries import entry_records
from engine.model.events import SessionOpened, decode_records
from tests.faults.play import Play
from tests.support import clinic
from tests.support.person import inbound
from tests.support.processes import Deployment, odd_process
from tests.support.stepped_clock import SteppedClock
from tests.support.valkey import Valkey
from tests.support.waiting import until

HOUR_S, MONTH_S = 3_600, 31 * 86_400
PEOPLE = range(15)


@pytest.fixture
def clock():
    try:
        stepped = SteppedClock()
    except FileNotFoundError as e:
        pytest.skip(str(e))
    with stepped:
        yield stepped


@pytest.fixture
def own_valkey(clock):
    with Valkey(clock=clock) as server:
        yield server


def post(play, people, text):
    play.crowd.post(inbound(clinic.number(place), text) for place in people)


def heard(octopush, place):
    return [sms.text for sms in octopush.accepted(clinic.number(place))]


def alarms(server):
    """When each person's lane is looked at, by place."""
    numbers = {place: clinic.number(place) for place in PEOPLE}
    client = server.client()
    return {
        place: client.zscore(keyspace.lane_alarms_key(keyspace.shard_of(number, DEFAULT_SHARDS)), number)
        for place, number in numbers.items()
    }


def test_what_waits_for_its_turn_waits_no_longer_once_the_clock_is_set_back(own_valkey, octopush, clock):
    """The channel's rate is short, people rest between two SMS, and one worker of each kind has just died."""
    limits = {"sms_per_second": 2, "pause_s": 1}
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush, limits=limits) as deployment:
        play = Play(deployment, octopush)
        deployment.start(conversation=0, delivery=0)
        sending, turning = (
            deployment.spawn("delivery", "after_take"),
            deployment.spawn("conversation", "after_claim"),
        )
        post(play, PEOPLE, "START")
        sending.wait_dead()
        post(play, PEOPLE[:1], "Ada")
        turning.wait_dead()
        clock.step_to(-HOUR_S)
        sending.restart()
        turning.restart()
        post(play, PEOPLE[1:], "Ada")
        until(lambda: octopush.count() == 2 * len(PEOPLE), 90, "everybody has been asked twice")
        assert all(heard(octopush, place) == [clinic.NAME, clinic.temperature("Ada")] for place in PEOPLE)


def test_booked_places_are_kept_when_the_clock_is_set_back(own_valkey, octopush, clock):
    limits = {"sms_per_second": 2, "pause_s": 1}
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush, limits=limits) as deployment:
        play = Play(deployment, octopush)
        deployment.start()
        post(play, PEOPLE, "START")
        until(lambda: octopush.count() >= 3, 30, "the first are asked")
        clock.step_to(-HOUR_S)
        until(lambda: octopush.count() == len(PEOPLE), 60, "and so are the others")
        assert all(heard(octopush, place) == [clinic.NAME] for place in PEOPLE)


@pytest.mark.parametrize("ahead_s", [HOUR_S, MONTH_S])
def test_nobodys_conversation_ends_while_the_clock_is_ahead_for_a_moment(
    deployment, play, own_valkey, octopush, clock, ahead_s
):
    deployment.start()
    post(play, PEOPLE, "START")
    until(lambda: octopush.count() == len(PEOPLE) and all(alarms(own_valkey).values()), 30, "all are asked")
    before = alarms(own_valkey)
    clock.step_to(ahead_s)
    post(play, PEOPLE[:1], "Ada")
    until(lambda: octopush.count() == len(PEOPLE) + 1, 30, "mail is applied as ever")

    def looked_at():
        now = alarms(own_valkey)
        return all(now[place] != before[place] for place in PEOPLE[1:])

    until(looked_at, 30, "every deadline was looked at")
    clock.step_to(0)
    post(play, PEOPLE[1:], "Ada")
    post(play, PEOPLE, "85")
    until(lambda: octopush.count() == 3 * len(PEOPLE), 60, "all are through")
    for place in PEOPLE:
        assert heard(octopush, place) == [clinic.NAME, clinic.temperature("Ada"), clinic.HEALTHY]
        opened = [each for each in archived(own_valkey, place) if isinstance(each, SessionOpened)]
        assert len(opened) == 1, "what was said before is in the archive"


def archived(server, place):
    number = clinic.number(place)
    for _, fields in server.client().xrange(keyspace.events_key(keyspace.shard_of(number, DEFAULT_SHARDS))):
        if fields[b"to"] == number.encode():
            yield from decode_records(entry_records(fields))


@pytest.mark.parametrize("oddity", ["clock-5min-ahead", "clock-5min-behind"])
def test_a_machine_whose_clock_is_wrong_says_so_and_ends_nobodys_conversation(
    deployment, play, own_valkey, oddity
):
    """Its worker is the only one, and people take longer to answer than a wrong clock would let them."""
    deployment.start(conversation=0)
    wrong = odd_process(deployment, "conversation", oddity)
    play.hold(PEOPLE)
    play.judge()
    until(
        lambda: b"this machine's clock is not that of Redis" in wrong.log.read_bytes(), 20, "it has said so"
    )
