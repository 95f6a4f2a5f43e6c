"""`parley status` tells first what people notice, and every number is what happened; a terminal of any size shows it."""

import json

import pytest
import requests

from tests.faults.play import Play
from tests.support import clinic
from tests.support.octopush import Faults
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.terminal import OwnTerminal
from tests.support.waiting import until

WAITING = [clinic.number(place) for place in range(50, 53)]

SIZES = {"small": (80, 24), "large": (200, 50), "tiny": (60, 12)}


@pytest.fixture
def busy(deployment, play, octopush):
    """Conversations that are over, and some that are open; what each process has noted is written."""
    deployment.start()
    play.hold(range(4))
    for number in WAITING:
        assert requests.post(deployment.webhook, data=inbound(number, "START")).status_code == 200
    heard = sum(len(each.hears) for each in play._plays.values()) + len(WAITING)
    until(lambda: len(octopush.accepted()) == heard, 60, "all are answered")
    until(lambda: service(deployment)["sms_today"] == heard, 30, "it is written")
    return deployment


def service(deployment):
    told = json.loads(deployment.command("status", "--json").stdout)["service"]
    return told | {"sms_today": told["channels"]["clinic"]["sms_today"]}


def test_every_number_is_what_happened(busy, play, octopush):
    told = service(busy)
    channel = told["channels"]["clinic"]
    said = sum(len(each.says) for each in play._plays.values()) + len(WAITING)
    minutes = 5 + told["now"] % 60_000 / 60_000
    assert channel["pace"] == told["pace"], "there is one channel"
    assert told["pace"]["sms_per_minute"] == pytest.approx(len(octopush.accepted()) / minutes, abs=0.06)
    assert told["pace"]["answers_per_minute"] == pytest.approx(said / minutes, abs=0.06), "one for each SMS"
    assert 0 < told["pace"]["p50_ms"] <= told["pace"]["p95_ms"] < 60_000
    assert told["open_conversations"] == len(WAITING)
    assert 0 <= told["now"] - channel["webhook_at"] < 600_000
    assert (told["dead_letters"], channel["invitations"], channel["sms_cap"]) == ({}, 0, 0)
    assert [each["living"] for each in told["roles"].values()] == [1] * 7


def test_how_long_people_wait_is_told_as_it_is(own_valkey, octopush):
    """A provider that is slow is seen in it; and of how many SMS they are, where there is a cap."""
    octopush.control(Faults(delay_ms=(1_000, 1_000)))
    with Deployment(
        own_valkey.url, own_valkey.broker_url, octopush, limits={"sms_per_day": 40}
    ) as deployment:
        deployment.start()
        Play(deployment, octopush).hold(range(1))
        until(lambda: service(deployment)["pace"]["answers_per_minute"], 30, "it is written")
        told = service(deployment)
    assert 900 <= told["pace"]["p50_ms"] < 10_000
    assert told["channels"]["clinic"]["sms_cap"] == 40
    assert told["channels"]["clinic"]["sms_today"] == len(octopush.accepted())


@pytest.mark.parametrize("size", SIZES)
def test_a_terminal_of_any_size_shows_it(busy, size):
    columns, rows = SIZES[size]
    with OwnTerminal(["parley", "status", "--watch"], busy.environment, columns, rows) as terminal:
        until(lambda: len(terminal.screen().lines) >= rows, 30, "it is drawn")
        shown = terminal.screen().lines
        assert terminal.end() == 0
        left = terminal.screen().text
    assert len(shown) <= rows
    assert max(map(len, shown)) <= columns
    assert shown[0] == "All is well."
    assert any(line.split() == ["conversations", "3", "open"] for line in shown)
    assert "half within" in " ".join(shown)
    table = [line.split()[0] for line in shown if line]
    assert ("hooks" in table) == (size != "tiny"), "who works is shown, if there is room"
    assert ("lanes" in table) == (size == "large"), "and servers, if there is more"
    assert ("more: in a larger window" in " ".join(shown[-3:])) == (size != "large")
    assert "wake-ups" in left, "all of it stays there at the end"
