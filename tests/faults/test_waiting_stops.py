"""A STOP is acted on whoever is alive, and nothing leaves past one that was acknowledged and waits to be read."""

import pytest

from tests.faults.play import Play
from tests.support import audit, clinic
from tests.support.end_survey import ASKED, SURVEY
from tests.support.inviting import Api, key_table
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.waiting import until

PEOPLE = [clinic.number(place) for place in range(30)]
ACTED_ON_S = 20


@pytest.fixture
def deployment(own_valkey, octopush, tmp_path):
    (tmp_path / "clinic.yaml").write_text(SURVEY)
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush, surveys=tmp_path) as deployment:
        config = deployment.folder / "parley.toml"
        config.write_text(config.read_text() + key_table())
        yield deployment


def texts_to(octopush):
    got = {}
    for sms in octopush.accepted():
        got.setdefault(sms.to, []).append(sms.text)
    return got


def opted_out(client):
    return sum(client.hlen(key) for key in client.keys("*:optouts"))


def wait_opted_out(client, people=PEOPLE):
    until(lambda: opted_out(client) == len(people), ACTED_ON_S, "all of them are on the list")


def mail_of(client):
    return sum(client.llen(key) for key in client.keys("*:mail:*"))


def outbox_alarm(client, number):
    (key,) = client.keys(f"*:outbox:{number}")
    return client.zscore(f"{key.decode().partition(':')[0]}:outbox-alarms", number)


def wait_looked_at(client, number):
    """Until a delivery worker has looked at their outbox, and put it off."""
    before = outbox_alarm(client, number)
    until(lambda: outbox_alarm(client, number) != before, 20, "delivery has looked")


@pytest.mark.parametrize("how", ["none", "frozen"])
def test_a_stop_behind_a_start_is_acted_on_without_the_worker_of_starts(
    deployment, octopush, own_valkey, how
):
    client = own_valkey.client()
    deployment.start(ratelimit=0 if how == "none" else 1)
    if how == "frozen":
        deployment.of("ratelimit")[0].sigstop()
    crowd = Play(deployment, octopush).crowd
    crowd.post(inbound(number, "START") for number in PEOPLE)
    crowd.post(inbound(number, "STOP") for number in PEOPLE)
    wait_opted_out(client)
    if how == "none":
        deployment.spawn("ratelimit")
    else:
        deployment.of("ratelimit")[0].sigcont()
    until(lambda: octopush.count() == len(PEOPLE), 20, "everybody's STOP is confirmed")
    audit.settle(client, own_valkey.client(own_valkey.broker_url))
    assert texts_to(octopush) == {number: ["You will get no more."] for number in PEOPLE}
    assert opted_out(client) == len(PEOPLE)


def test_who_says_stop_before_the_worker_of_starts_is_back_is_not_invited(deployment, octopush, own_valkey):
    client = own_valkey.client()
    deployment.start(ratelimit=0)
    api = Api(deployment.base)
    api.invite_all({"identifier": number, "channel": clinic.CHANNEL} for number in PEOPLE)
    until(lambda: mail_of(client) == len(PEOPLE), 30, "every invitation waits for the worker of STARTs")
    Play(deployment, octopush).crowd.post(inbound(number, "STOP") for number in PEOPLE)
    wait_opted_out(client)
    deployment.spawn("ratelimit")
    audit.settle(client, own_valkey.client(own_valkey.broker_url))
    assert texts_to(octopush) == {number: ["You will get no more."] for number in PEOPLE}


def test_a_stop_is_acted_on_without_the_worker_of_replies(deployment, octopush, own_valkey):
    client = own_valkey.client()
    deployment.start(conversation=0)
    crowd = Play(deployment, octopush).crowd
    crowd.post(inbound(number, "START") for number in PEOPLE)
    until(lambda: octopush.count() == len(PEOPLE), 20, "everybody is asked")
    crowd.post(inbound(number, text) for number in PEOPLE for text in ("hello", "STOP"))
    wait_opted_out(client)
    deployment.spawn("conversation")
    audit.settle(client, own_valkey.client(own_valkey.broker_url))
    last = {number: texts[-1] for number, texts in texts_to(octopush).items()}
    assert last == dict.fromkeys(PEOPLE, "You will get no more.")


def test_nothing_leaves_while_a_word_that_may_be_a_stop_waits_and_nobody_reads_it(
    deployment, octopush, own_valkey
):
    client = own_valkey.client()
    stopping, ending, silent = PEOPLE[0], PEOPLE[1], PEOPLE[2]
    deployment.start(delivery=0)
    crowd = Play(deployment, octopush).crowd
    crowd.post(inbound(number, "START") for number in (stopping, ending, silent))
    until(lambda: len(client.keys("*:outbox:*")) == 3, 20, "all three are to be asked")
    for role in ("ratelimit", "conversation"):
        deployment.of(role)[0].kill9()
    crowd.post([inbound(stopping, "STOP"), inbound(ending, "End")])
    deployment.spawn("delivery")
    until(lambda: octopush.count() == 1, 20, "who has said nothing is asked")
    for number in (stopping, ending):
        for _ in range(2):
            wait_looked_at(client, number)
    assert texts_to(octopush) == {silent: [ASKED]}
    deployment.of("conversation")[0].restart()
    deployment.of("ratelimit")[0].restart()
    until(lambda: octopush.count() == 4, 20, "both are answered")
    assert texts_to(octopush) == {
        silent: [ASKED],
        stopping: ["You will get no more."],
        ending: [ASKED, "So be it."],
    }
    assert opted_out(client) == 1
