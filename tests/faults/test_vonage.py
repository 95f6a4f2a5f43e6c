"""Vonage, whose long SMS come in parts, and which cannot be asked what it has: real processes, a fake Vonage."""

import json
from types import SimpleNamespace

import pytest
import requests

from tests.support import clinic
from tests.support.processes import TOKEN, Deployment
from tests.support.vonage import CUT, KEY, SECRET, FakeVonage
from tests.support.waiting import until

ANNA = clinic.number(1)
LONG = "Augusta Ada King, Countess of Lovelace"  # however short, it comes in parts


@pytest.fixture
def vonage():
    with FakeVonage() as vonage:
        yield vonage


@pytest.fixture
def deployment(own_valkey, vonage):
    nobody = SimpleNamespace(url="http://127.0.0.1:9", login="x", key="x")
    account = {
        "PARLEY_VONAGE_URL": vonage.url, "PARLEY_VONAGE_KEY": KEY, "PARLEY_VONAGE_SECRET": SECRET,
        "PARLEY_PUBLIC_URL": "https://sms.example.org",
    }  # fmt: skip
    with Deployment(own_valkey.url, own_valkey.broker_url, nobody, environment=account) as deployment:
        config = deployment.folder / "parley.toml"
        config.write_text(config.read_text().replace('"octopush"', '"vonage"'))
        yield deployment


def hear(deployment, text, identity, **more):
    """A person's SMS, or a part of it, as Vonage tells it by GET."""
    said = {
        "msisdn": ANNA.removeprefix("+"),
        "to": clinic.NUMBER.removeprefix("+"),
        "messageId": identity,
        "text": text,
    }
    answer = requests.get(deployment.webhook, said | {"type": "text"} | more, timeout=60)
    assert (answer.status_code, answer.content) == (200, b"")


def part(deployment, number, total=3):
    size = -(-len(LONG) // total)
    text = LONG[(number - 1) * size : number * size]
    place = {"concat": "true", "concat-ref": "93", "concat-total": str(total), "concat-part": str(number)}
    hear(deployment, text, f"0A{number}", **place)


def test_the_parts_of_a_long_sms_are_one_answer_in_whatever_order_and_however_often_they_come(
    deployment, vonage
):
    deployment.start()
    hear(deployment, "START", "01")
    until(lambda: len(vonage.sent) == 1, 30, "the first question was sent")
    for number in (3, 1, 3, 2):
        part(deployment, number)
    until(lambda: len(vonage.sent) == 2, 30, "the second question was sent")
    assert [sms["text"] for sms in vonage.sent] == [clinic.NAME, clinic.temperature(LONG)]
    assert {(sms["from"], sms["to"]) for sms in vonage.sent} == {("33700000001", ANNA.removeprefix("+"))}
    assert vonage.sent[0]["callback"] == f"https://sms.example.org/webhooks/{clinic.CHANNEL}?token={TOKEN}"


def test_an_sms_that_vonage_may_have_is_an_operators_and_is_not_sent_again(deployment, vonage):
    vonage.script.append(CUT)
    deployment.start()
    hear(deployment, "START", "01")
    hear(deployment, "Ada", "02")
    until(lambda: len(vonage.sent) == 2, 30, "the next SMS was sent")
    listed = deployment.command("dead", "list", "--json")
    listed.check_returncode()
    (letter,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert letter["reason"] == "uncertain"
    assert [sms["text"] for sms in vonage.received] == [clinic.NAME, clinic.temperature("Ada")]


def test_a_send_that_vonage_throttles_is_tried_again(deployment, vonage):
    vonage.script += ["1", "5"]
    deployment.start()
    hear(deployment, "START", "01")
    until(lambda: vonage.sent, 30, "it was sent")
    assert [sms["client-ref"] for sms in vonage.received] == [vonage.sent[0]["client-ref"]] * 3
