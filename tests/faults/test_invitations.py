"""Invitations survive kill -9 of whoever has them in hand, and however often one is posted, a person is asked once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.faults.play import Play
from tests.support import clinic
from tests.support.inviting import Api, key_table
from tests.support.person import Person
from tests.support.processes import Deployment
from tests.support.waiting import until

PEOPLE = 40
DEADLINE_S = 60


@pytest.fixture
def invited(deployment):
    """The deployment, with a key to its API."""
    config = deployment.folder / "parley.toml"
    config.write_text(config.read_text() + key_table())
    return deployment


def numbers(count=PEOPLE, first=0):
    return [clinic.number(12_000_000 + first + place) for place in range(count)]


def bodies(people):
    return [
        {"identifier": number, "channel": "clinic", "clientReference": f"r{number}", "campaign": "spring"}
        for number in people
    ]


def post_until_done(base, people):
    """Post all of them in one request, again and again until every line is accepted."""

    def done():
        try:
            return {each["status"] for each in Api(base).invite_all(bodies(people))} <= {200, 202}
        except (requests.RequestException, AssertionError):
            return False

    until(done, DEADLINE_S, "every invitation is accepted")


def judge(octopush, people):
    """Everybody was asked for their name, once, and nobody else was asked anything."""
    until(lambda: octopush.count() >= len(people), DEADLINE_S, "everybody got an SMS")
    asked = sorted((sms.to, sms.text) for sms in octopush.accepted())
    assert asked == [(number, clinic.NAME) for number in sorted(people)]


@pytest.mark.parametrize(
    "name, fault",
    [
        ("web", "after_refer"),
        ("web", "after_hold"),
        ("clock", "before_release"),
        ("clock", "after_release"),
        ("ratelimit", "after_claim"),
        ("ratelimit", "after_commit"),
    ],
)
def test_a_campaign_survives(invited, octopush, name, fault):
    invited.start(**{name: 0})
    victim = invited.spawn(name, fault)
    if name == "web":
        invited.wait_ready()
    first_life = victim.pid
    with invited.respawning():
        post_until_done(invited.base, numbers())
        judge(octopush, numbers())
        assert victim.pid != first_life, "the fault point was never reached"
    post_until_done(invited.base, numbers())
    api = Api(invited.base)
    for number in numbers():
        assert api.find(clientReference=f"r{number}").json()["state"] == "open"
    assert api.get("/v1/campaigns/spring").json()["states"] == {"open": PEOPLE}
    judge(octopush, numbers())


def test_two_web_processes_and_two_clocks_ask_everybody_once(invited, octopush):
    invited.start(web=2, clock=2)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: post_until_done(invited.base, numbers()), range(4)))
    judge(octopush, numbers())


def test_invited_people_hold_their_conversation_to_the_end(invited, octopush, play):
    """And what became of each is found by reference: answers, and what was said, with what became of it."""
    invited.start()
    people = numbers(5)
    post_until_done(invited.base, people)
    judge(octopush, people)
    api = Api(invited.base)
    number = people[0]
    story = clinic.healthy("Ada")
    play.crowd.talk([clinic_person(number, story)], DEADLINE_S)
    session = until(
        lambda: (found := api.find(clientReference=f"r{number}").json())["state"] == "completed" and found,
        DEADLINE_S,
        "the session is completed",
    )
    assert [sms["text"] for sms in session["transcript"]] == [
        story.hears[0], story.says[1], story.hears[1], story.says[2], story.hears[2],
    ]  # fmt: skip
    assert session["answers"]["name"] == {"raw": "Ada", "value": "Ada"}
    until(
        lambda: (
            {sms.get("state") for sms in api.session(session["id"]).json()["transcript"]}
            == {None, "accepted"}
        ),
        DEADLINE_S,
        "the provider has accepted every SMS",
    )


def clinic_person(number, story):
    """Somebody who has been asked for their name, and answers to the end."""
    answers = {story.hears[0]: ""} | dict(zip(story.hears[1:], story.says[2:], strict=False))
    return Person(number, story.says[1], lambda heard: None if heard == story.hears[-1] else answers[heard])


def test_cancelling_works_at_every_state(invited, octopush):
    """Held, it is withdrawn and never sent; open, it ends; over, there is nothing to cancel."""
    invited.start(clock=0)
    api = Api(invited.base)
    first, second = numbers(2)
    post_until_done(invited.base, [first, second])
    held = api.find(clientReference=f"r{first}").json()
    assert held["state"] == "held"
    reply = api.cancel(held["id"])
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled")
    assert (api.session(held["id"]).json()["state"], api.cancel(held["id"]).status_code) == ("cancelled", 200)
    invited.spawn("clock")
    judge(octopush, [second])
    session = api.find(clientReference=f"r{second}").json()
    assert (session["state"], api.cancel(session["id"]).status_code) == ("open", 202)
    until(
        lambda: api.session(session["id"]).json()["state"] == "cancelled",
        DEADLINE_S,
        "the session is cancelled",
    )
    assert api.cancel(session["id"]).status_code == 200
    judge(octopush, [second])
    assert api.invite(**bodies([first])[0]).status_code == 200
    assert api.get("/v1/campaigns/spring").json()["states"] == {"cancelled": 2}


def test_a_person_in_conversation_is_not_kept_waiting_by_a_campaign(octopush, own_valkey):
    """The channel sends 20 SMS a second, and 300 people are invited: sent before the replies, they would take a quarter
    of a minute. Meanwhile nobody who answers waits for nearly as long, and the channel's rate is kept."""
    with Deployment(
        own_valkey.url, own_valkey.broker_url, octopush, limits={"sms_per_second": 20}
    ) as deployment:
        config = deployment.folder / "parley.toml"
        config.write_text(config.read_text() + key_table())
        deployment.start()
        invited_people = numbers(300)
        post_until_done(deployment.base, invited_people)
        until(lambda: octopush.count() >= 5, DEADLINE_S, "the campaign has begun")
        play = Play(deployment, octopush)
        talkers = play.hold(range(8), every_s=0.25)
        assert octopush.count() < 300, "the campaign was over before the conversations were"
        assert max(lag for person in talkers for lag in person.lags_s) < 5
        came_s = [sms.at_s for sms in octopush.accepted()]
        for place in range(len(came_s) - 60):
            assert came_s[place + 60] - came_s[place] > 1
