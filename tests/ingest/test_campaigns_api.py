"""How many of a campaign's invitations are in which state is told as it stands, to keys that may see them."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
import requests

from config.settings.invitation_pace import InvitationPace
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from config.store.channel_readings import daily_sms_key
from config.store.counts import campaigns
from tests.support.inviting import KEY, OTHER_KEY, Api, key_table
from tests.support.proxies import Proxies

CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic", "satisfaction"]
limits = {invitations_per_second = 2, sms_per_day = 10}
[channels.ward]
number = "+33700000003"
surveys = ["clinic"]
"""
PEOPLE = [f"+336{12_000_000 + n:08d}" for n in range(40)]
SPRING = "Spring 1/2: ünï"


@pytest.fixture
def base(web, tmp_path):
    config = (
        CONFIG + key_table(channels=["clinic", "ward"]) + key_table("other", OTHER_KEY, channels=["ward"])
    )
    config += key_table("reader", "reader", channels=["clinic"], more="read_only = true")
    config += key_table("only", "only", channels=["clinic"], more='surveys = ["satisfaction"]')
    (tmp_path / "parley.toml").write_text(config)
    return web(PARLEY_CONFIG=str(tmp_path / "parley.toml"))


def invite(base, count, campaign=SPRING, channel="clinic", survey="clinic", first=0, **fields):
    bodies = [
        {"identifier": number, "channel": channel, "campaign": campaign, "clientReference": f"{campaign}{number}{survey}"}
        | fields
        for number in PEOPLE[first : first + count]
    ]  # fmt: skip
    return [each["id"] for each in Api(base).invite_all(bodies, survey=survey)]


def campaign(base, name=SPRING, key=None):
    reply = (Api(base, key) if key else Api(base)).get(f"/v1/campaigns/{quote(name, safe='')}")
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_invitations_are_counted_by_state_channel_and_survey(base):
    first, *_ = invite(base, 5)
    invite(base, 5)
    invite(base, 2, channel="ward")
    invite(base, 3, survey="satisfaction")
    invite(base, 1, campaign="")
    assert Api(base).cancel(first).status_code == 200
    found = campaign(base)
    assert (found["name"], found["state"], found["invitations"]) == (SPRING, "running", 10)
    assert found["states"] == {"held": 9, "cancelled": 1}
    assert {(part["channel"], part["survey"]): part["states"] for part in found["parts"]} == {
        ("clinic", "clinic"): {"held": 4, "cancelled": 1},
        ("clinic", "satisfaction"): {"held": 3},
        ("ward", "clinic"): {"held": 2},
    }


def test_a_key_sees_what_is_of_its_channels_and_surveys(base):
    invite(base, 2)
    invite(base, 1, channel="ward")
    invite(base, 1, campaign="theirs", survey="satisfaction")
    assert campaign(base, key=OTHER_KEY)["states"] == {"held": 1}
    reply = Api(base, OTHER_KEY).get("/v1/campaigns/theirs")
    assert (reply.status_code, reply.headers["Content-Type"]) == (404, "application/problem+json")
    assert Api(base, "nobody").get("/v1/campaigns").status_code == 401
    listed = {
        key: [each["name"] for each in Api(base, key).get("/v1/campaigns").json()["campaigns"]]
        for key in (OTHER_KEY, "only")
    }
    assert listed == {OTHER_KEY: [SPRING], "only": ["theirs"]}


def test_they_are_listed_those_that_changed_last_first(base, monkeypatch):
    monkeypatch.setattr("ingest.api.campaigns.campaign_reader.MOST_CAMPAIGNS", 2)
    for name in ("a", "b", "c", "b"):
        invite(base, 1, campaign=name, first="abcb".index(name) if name != "b" else 5)
    invite(base, 1, campaign="a", first=9)
    found = Api(base).get("/v1/campaigns").json()
    assert found["campaigns"][0]["name"] == "a"
    assert (len(found["campaigns"]), found["more"]) == (2, True)
    assert Api(base).get("/v1/campaigns", {"x": "1"}).status_code == 400


def test_when_it_ends_depends_on_what_is_held_the_pace_and_the_days_sms(base, valkey):
    """Two a second, ten SMS a day, of which four are decided; and eight of another campaign before its own three."""
    client, today = valkey.client(), datetime.now(UTC)
    client.set(daily_sms_key("clinic", ZoneInfo("UTC"), round(today.timestamp() * 1000)), 4)
    invite(base, 8, campaign="before")
    invite(base, 3, first=8)
    (part,) = campaign(base)["parts"]
    assert (part["before"], part["invitationsPerSecond"]) == (11, 2.0)
    assert (part["smsPerDay"], part["smsToday"]) == (10, 4)
    ends = datetime.fromisoformat(part["endsAfter"])
    assert ends.date() == today.date() + timedelta(days=1)
    assert ends - ends.replace(hour=0, minute=0, second=0, microsecond=0) == timedelta(seconds=2)


def test_it_ends_no_sooner_than_its_last_is_due(base):
    later = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    invite(base, 1, sendAt=later.isoformat())
    invite(base, 2, campaign="other", first=1)
    assert datetime.fromisoformat(campaign(base)["endsAfter"]) == later
    assert campaign(base, "other")["parts"][0]["before"] == 2


def change(base, body, name=SPRING, key=KEY):
    url = f"{base}/v1/campaigns/{quote(name, safe='')}"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    return requests.patch(url, data=json.dumps(body), headers=headers, timeout=60)


def test_a_campaign_is_paused_on_the_channels_of_the_key_until_it_goes_on(base, valkey):
    invite(base, 2)
    invite(base, 1, channel="ward")
    theirs = change(base, {"paused": True}, key=OTHER_KEY).json()
    assert (theirs["state"], len(theirs["parts"])) == ("paused", 1)
    assert campaign(base)["state"] == "running", "the other channel's go on"
    for _ in range(2):
        found = change(base, {"paused": True, "why": "the phones are down"}).json()
        assert (found["state"], "endsAfter" in found) == ("paused", False)
        assert [part["why"] for part in found["parts"]] == ["the phones are down"] * 2
    assert [
        campaigns.decode_pauses(valkey.client().hgetall(keyspace.campaign_pauses_key(name)))[SPRING].who
        for name in ("clinic", "ward")
    ] == ["tests", "tests"]
    for _ in range(2):
        found = change(base, {"paused": False}).json()
        assert (found["state"], "endsAfter" in found) == ("running", True)
    assert not valkey.client().keys("*pauses*")


def test_a_change_that_is_none_or_not_the_keys_to_make_changes_nothing(base):
    invite(base, 1)
    for body in ({}, {"paused": "yes"}, {"paused": True, "x": 1}, [], {"paused": True, "why": "x" * 201}):
        reply = change(base, body)
        assert (reply.status_code, "expected" in reply.json()["errors"][0]["detail"]) == (422, True)
    assert change(base, {"paused": True}, name="other").status_code == 404
    assert change(base, {"paused": True}, key="reader").status_code == 403
    assert campaign(base)["state"] == "running"


@pytest.mark.parametrize("paused", [True, False])
def test_a_change_whose_reply_is_lost_may_be_made_again(web, valkey, tmp_path, paused):
    (tmp_path / "parley.toml").write_text(CONFIG + key_table(channels=["clinic"]))
    with Proxies(valkey, broker=False) as proxy:
        base = web(
            PARLEY_CONFIG=str(tmp_path / "parley.toml"),
            PARLEY_REDIS_URL=proxy.url,
            PARLEY_BROKER_URL=valkey.broker_url,
        )
        invite(base, 1)
        assert change(base, {"paused": not paused}).status_code == 200
        proxy.lose_replies(b"campaign-pauses", times=1)
        statuses = [change(base, {"paused": paused}).status_code for _ in range(2)]
        assert (statuses[-1], proxy.lost) == (200, 1)
        assert campaign(base)["state"] == ("paused" if paused else "running")


def test_the_pace_within_the_days_sms():
    day = 86_400_000
    at = 20_000 * day + 3_600_000
    free = InvitationPace(2, ZoneInfo("UTC"))
    assert free.turn_at(at, 0) == at
    assert free.turn_at(at, 9) == at + 4_500
    bounded = InvitationPace(2, ZoneInfo("UTC"), per_day=10, left_today=4)
    assert [bounded.turn_at(at, before) for before in (0, 3, 4, 5, 13, 14)] == [
        at, at + 1_500, 20_001 * day, 20_001 * day + 500, 20_001 * day + 4_500, 20_002 * day,
    ]  # fmt: skip
    paris = InvitationPace(2, ZoneInfo("Europe/Paris"), per_day=10, left_today=0)
    assert paris.turn_at(at, 0) == 20_001 * day - 2 * 3_600_000


def test_what_cannot_be_read_counts_as_nothing(base, valkey):
    invite(base, 3)
    k = keyspace.shard_of(PEOPLE[0], DEFAULT_SHARDS)
    valkey.client().hset(keyspace.campaigns_key(k), SPRING, b"\xff")
    assert campaign(base)["invitations"] < 3
    invite(base, 1, first=20)
    assert campaign(base)["invitations"] >= 1


def test_without_redis_it_is_503(web, own_valkey, tmp_path):
    (tmp_path / "parley.toml").write_text(CONFIG + key_table(channels=["clinic"]))
    base = web(
        PARLEY_CONFIG=str(tmp_path / "parley.toml"),
        PARLEY_REDIS_URL=own_valkey.url,
        PARLEY_BROKER_URL=own_valkey.broker_url,
    )
    own_valkey.stop()
    assert Api(base).get("/v1/campaigns/x").status_code == 503
    assert Api(base).get("/v1/campaigns").status_code == 503
