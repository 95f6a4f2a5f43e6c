"""An invitation is accepted once, told what is wrong with it field by field, and held until its turn."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from hashlib import blake2b
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
import pytest
import requests

from config.settings.settings import DEFAULT_SHARDS
from config.settings.startup_check import load_settings_and_surveys
from config.store import keyspace
from engine.model import lane as lane_format
from engine.model.events import Invitation, decode_inbound, derive_session_id
from engine.model.lane import ChannelLine, Lane, Session
from ingest.api import backlog, invitations
from tests.support.inviting import KEY, LINES, OTHER_KEY, Api, key_table, lines_of
from tests.support.proxies import Proxies
from workers.store.optouts import open_opt_out_list

SHARDS = DEFAULT_SHARDS
PERSON = "+33612345678"
OTHER = "+33698765432"
CONFIG = """
[channels.clinic]
provider = "octopush"
token_env = "CLINIC"
number = "+33700000001"
surveys = ["clinic", "satisfaction"]
originators = ["+33700000011", "+33698765400"]
quiet_hours = "{quiet}"
[channels.trial]
provider = "octopush"
token_env = "CLINIC"
number = "+33700000002"
surveys = ["clinic"]
[channels.ward]
provider = "octopush"
token_env = "CLINIC"
number = "+33700000003"
surveys = ["clinic"]
"""
SECRETS = {"CLINIC": "s3cr3t", "PARLEY_OCTOPUSH_LOGIN": "l", "PARLEY_OCTOPUSH_KEY": "k"}


def hour(ahead):
    """A time of day so many hours from now, in UTC."""
    return (datetime.now(UTC) + timedelta(hours=ahead)).strftime("%H:%M")


def in_days(days, zone=UTC):
    """A time so many days from now, as RFC 3339 has it."""
    return (datetime.now(UTC) + timedelta(days=days)).astimezone(zone).isoformat(timespec="seconds")


@pytest.fixture
def api(web, tmp_path):
    """A function: -> a client of an API whose key is for the channels `clinic` and `trial`."""

    def start(quiet="", per_minute=0, **variables):
        config = CONFIG.format(quiet=quiet) + key_table(channels=["clinic", "trial"], per_minute=per_minute)
        config += key_table("other", OTHER_KEY, channels=["ward"])
        (tmp_path / "parley.toml").write_text(config)
        return Api(web(PARLEY_CONFIG=str(tmp_path / "parley.toml"), **SECRETS, **variables))

    return start


def moment_ms(written):
    return round(datetime.fromisoformat(written).timestamp() * 1000)


def held(valkey, channel="clinic"):
    """The invitations that wait, as (sender, event), in no order."""
    client = valkey.client()
    mails = {}
    for k in range(SHARDS):
        ids = set(client.zrange(keyspace.held_ids_key(k, channel), 0, -1))
        mails |= {
            id_: mail for id_, mail in client.hgetall(keyspace.held_invitations_key(k)).items() if id_ in ids
        }
    return [
        (mail.split(b"\0", 1)[0].decode(), decode_inbound(mail.split(b"\0", 1)[1][13:]))
        for mail in mails.values()
    ]


def errors(reply):
    assert reply.headers["Content-Type"] == "application/problem+json"
    return {error["pointer"]: error["detail"] for error in reply.json()["errors"]}


def test_an_invitation_is_held_when_202_comes_back(api, valkey):
    expiry, send_at = (
        in_days(25, zone=timezone(timedelta(hours=1))),
        in_days(3, zone=timezone(timedelta(hours=-5))),
    )
    before = round(time.time() * 1000)
    reply = api().invite(
        identifier="+33 6 12 34 56 78", identifierType="Phone", channel="clinic", content="Hello,", clientReference="r1",
        expiryTime=expiry, language="en-GB", originator="+33700000011", campaign="winter", sendAt=send_at,
        userSessionVariables=[{"key": "agentid", "value": 7}, {"key": "vip", "value": True}],
    )  # fmt: skip
    answer = reply.json()
    assert reply.status_code == 202
    assert (answer["session"], answer["state"], answer["clientReference"]) == (answer["id"], "accepted", "r1")
    ((sender, event),) = held(valkey)
    assert sender == PERSON
    assert before <= event.asked_at <= time.time() * 1000
    assert event.starts_after == moment_ms(answer["startsAfter"])
    assert msgspec.structs.replace(event, asked_at=0, starts_after=0) == Invitation(
        id=answer["id"], channel="clinic", survey="clinic", language="en", content="Hello,", reference="r1",
        variables={"agentid": "7", "vip": "true"}, expires_at=moment_ms(expiry), originator="+33700000011",
        campaign="winter", not_before=moment_ms(send_at),
    )  # fmt: skip


def test_one_to_be_sent_later_is_held_until_then(api, valkey):
    later = in_days(3)
    answer = api().invite(identifier=PERSON, channel="clinic", sendAt=later, campaign="winter").json()
    assert moment_ms(answer["startsAfter"]) == moment_ms(later)
    k = keyspace.shard_of(PERSON, SHARDS)
    assert valkey.client().zscore(keyspace.held_ids_key(k, "clinic"), answer["id"]) == moment_ms(later)


def test_one_to_be_sent_in_quiet_hours_is_held_until_they_end(api):
    """The hours are those of the third day from now, where the person is."""
    there = datetime.now(UTC).astimezone(ZoneInfo("Europe/Paris")) + timedelta(days=3)
    asleep, awake = there.replace(hour=4, minute=0), there.replace(hour=8, minute=0)
    one = api("20:00-08:00")
    for sent_at, starts in ((asleep, awake), (there.replace(hour=12), there.replace(hour=12))):
        fields = {"identifier": PERSON, "channel": "clinic", "sendAt": sent_at.isoformat(timespec="seconds")}
        found = datetime.fromisoformat(one.invite(**fields).json()["startsAfter"])
        assert found == starts.replace(second=0 if starts is awake else starts.second, microsecond=0)


def test_one_that_was_to_be_sent_a_moment_ago_is_sent_at_once(api, valkey):
    now = round(time.time() * 1000)
    answer = api().invite(identifier=PERSON, channel="clinic", sendAt=in_days(-0.5)).json()
    assert moment_ms(answer["startsAfter"]) >= now


def test_a_time_of_the_day_is_the_next_such_where_the_person_is(api, valkey):
    there = (datetime.now(UTC) + timedelta(hours=20)).astimezone(ZoneInfo("Europe/Paris"))
    asked = {"identifier": PERSON, "channel": "clinic", "sendAt": there.strftime("%H:%M")}
    reply = api().invite(**asked)
    starts = datetime.fromisoformat(reply.json()["startsAfter"]).astimezone(ZoneInfo("Europe/Paris"))
    assert starts.strftime("%H:%M") == there.strftime("%H:%M")
    assert datetime.now(UTC) < starts < datetime.now(UTC) + timedelta(hours=26)
    ((_, event),) = held(valkey)
    assert event.not_before == moment_ms(reply.json()["startsAfter"])


def test_a_time_of_the_day_is_content_as_it_was_written(api, valkey, web_clock):
    """The next day it is another moment, and the same invitation; though it is expired by then."""
    one = api()
    soon = (datetime.now(UTC) + timedelta(hours=2)).astimezone(ZoneInfo("Europe/Paris"))
    asked = {"identifier": PERSON, "channel": "clinic", "clientReference": "r", "sendAt": soon.strftime("%H:%M"),
             "expiryTime": in_days(0.5)}  # fmt: skip
    first = one.invite(**asked)
    assert first.status_code == 202
    web_clock.ahead_s = 4 * 3_600
    assert one.invite(**asked).status_code == 200
    told = errors(one.invite(**asked | {"clientReference": "s"}))
    assert told == {"/sendAt": "it is expired by then: expected a moment before its expiryTime"}
    web_clock.ahead_s = 3 * 86_400
    assert one.invite(**asked).status_code == 200
    assert one.invite(**asked | {"sendAt": "09:99"}).status_code == 422
    web_clock.ahead_s = 0
    other = (soon.astimezone(UTC) + timedelta(minutes=30)).astimezone(soon.tzinfo).strftime("%H:%M")
    assert one.invite(**asked | {"sendAt": other}).status_code == 409
    assert len(held(valkey)) == 1


def test_a_repetition_is_one_though_it_was_to_be_sent_long_ago_by_then(api, valkey, web_clock):
    one = api()
    asked = {"identifier": PERSON, "channel": "clinic", "clientReference": "r", "sendAt": in_days(1)}
    assert one.invite(**asked).status_code == 202
    web_clock.ahead_s = 5 * 86_400
    assert one.invite(**asked).status_code == 200
    assert list(errors(one.invite(**asked | {"clientReference": "s"}))) == ["/sendAt"]
    assert len(held(valkey)) == 1


def test_campaign_and_moment_are_content_and_when_it_was_accepted_is_not(api, valkey, web_clock):
    one = api()
    asked = {
        "identifier": PERSON,
        "channel": "clinic",
        "clientReference": "r",
        "campaign": "a",
        "sendAt": in_days(1),
    }
    assert one.invite(**asked).status_code == 202
    web_clock.ahead_s = 3_600
    assert one.invite(**asked).status_code == 200
    for other in ({"campaign": "b"}, {"campaign": ""}, {"sendAt": in_days(2)}, {"sendAt": ""}):
        assert one.invite(**asked | other).status_code == 409


def test_what_0_1_0_accepted_may_be_posted_again(api, valkey):
    """Its fingerprint is what 0.1.0 computed of the same body."""
    one = api()
    session = derive_session_id("clinic", "r")
    key = keyspace.reference_key(SHARDS, session)
    content = (PERSON, "clinic", "en", "Hi", [("a", "1")], 0, "")
    fingerprint = blake2b(msgspec.msgpack.encode(content), digest_size=12).hexdigest()
    valkey.client().set(key, fingerprint, px=600_000)
    k = keyspace.shard_of(PERSON, SHARDS)
    valkey.client().set(keyspace.session_key(k, session), f"{int(time.time() * 1000)} {PERSON}", px=600_000)
    asked = {"identifier": PERSON, "channel": "clinic", "clientReference": "r", "language": "en", "content": "Hi",
             "userSessionVariables": {"a": 1}}  # fmt: skip
    assert one.invite(**asked).status_code == 200
    assert one.invite(**asked | {"campaign": "a"}).status_code == 409
    assert not held(valkey)


def test_its_turn_comes_after_those_that_wait_and_a_repetition_is_told_the_same(api, valkey, web_clock):
    """The channel lets five a second go. Many are invited meanwhile, and the clock goes on."""
    one = api()
    one.invite_all(people(20))
    before = round(time.time() * 1000)
    asked = {"identifier": PERSON, "channel": "clinic", "clientReference": "r"}
    first = one.invite(**asked).json()
    told = moment_ms(first["startsAfter"])
    assert before + 4_000 <= told <= time.time() * 1000 + 4_000
    one.invite_all(people(80, first=20))
    web_clock.ahead_s = 3_600
    again = one.invite(**asked)
    assert (again.status_code, again.json()) == (200, first)
    assert moment_ms(one.session(first["id"]).json()["startsAfter"]) == told
    assert (
        moment_ms(one.invite(identifier=OTHER, channel="clinic").json()["startsAfter"])
        >= told + 16_000 + 3_500_000
    )


def test_those_of_the_same_moment_wait_for_each_other_then(api, valkey):
    one = api()
    later = in_days(2)
    one.invite_all([each | {"sendAt": later} for each in people(10)])
    starts = one.invite(identifier=PERSON, channel="clinic", sendAt=later).json()["startsAfter"]
    assert moment_ms(starts) == moment_ms(later) + 2_000


def test_whoever_is_told_of_its_turn_by_a_late_process_is_told_what_holds(api, valkey):
    """Two requests for one invitation: whichever is written first says when its turn comes, to both."""
    one = api()

    def post(place):
        asked = {"identifier": PERSON, "channel": "clinic", "clientReference": "r"}
        return Api(one.base).invite_persistently(**asked).json()["startsAfter"]

    with ThreadPoolExecutor(12) as pool:
        assert len(set(pool.map(post, range(24)))) == 1


@pytest.fixture
def lanes(valkey):
    """A function: stores a lane of PERSON, with `line` of a channel."""

    def store(channel="clinic", **line):
        state = lane_format.encode_lane(Lane(lines={channel: ChannelLine(**line)}))
        k = keyspace.shard_of(PERSON, SHARDS)
        valkey.client().set(keyspace.lane_key(k, PERSON), b"7 0 " + state)

    return store


def open_session():
    _, surveys = load_settings_and_surveys({"PARLEY_REDIS_URL": "redis://nowhere"})
    now, version = round(time.time() * 1000), surveys.current("clinic").version
    return Session("0123456789abcdef", "clinic", version, "en", opened_at=now, last_sms_at=now, step=0)


def test_whoever_has_opted_out_is_refused_at_once(api, valkey, lanes):
    """In a request of one and in one of many; posted again, the same is answered."""
    one = api()
    lanes(opted_out_at=1)
    asked = {
        "identifier": PERSON,
        "channel": "clinic",
        "clientReference": "r",
        "campaign": "spring",
        "sendAt": in_days(2),
    }
    first = one.invite(**asked)
    expected = {"state": "refused", "reason": "opted_out", "clientReference": "r"}
    assert (first.status_code, {name: first.json()[name] for name in expected}) == (200, expected)
    assert "startsAfter" not in first.json()
    assert one.invite(**asked).json() == first.json()
    found = one.session(first.json()["id"]).json()
    assert (found["state"], found["reason"], found["campaign"]) == ("refused", "opted_out", "spring")
    many = one.invite_all([asked | {"clientReference": "s"}, *people(1)])
    assert [(each["status"], each.get("state"), each.get("reason")) for each in many] == [
        (200, "refused", "opted_out"), (202, None, None),
    ]  # fmt: skip
    assert one.get("/v1/campaigns/spring").json()["reasons"] == {"opted_out": 2}
    lanes()
    assert one.invite(**asked).json() == first.json(), "what was refused stays so"
    assert len(held(valkey)) == 1


@pytest.mark.parametrize("secret", ["", "kept apart"])
def test_whoever_the_list_of_opt_outs_has_is_refused_though_they_have_no_lane(api, valkey, secret):
    client = valkey.client()
    optouts = open_opt_out_list(client, SHARDS, secret)
    optouts.add_opt_outs([(PERSON, "clinic")], "an operator's list")
    one = api(PARLEY_OPTOUT_KEY=secret)
    assert one.invite(identifier=PERSON, channel="clinic").json()["reason"] == "opted_out"
    assert one.invite(identifier=PERSON, channel="trial").status_code == 202
    assert one.invite(identifier=OTHER, channel="clinic").status_code == 202


def test_whoever_is_in_conversation_is_refused_at_once_unless_it_would_be_later(api, valkey, lanes):
    """`clinic` has sub-numbers, of which one is free; `trial` has none."""
    one = api()
    lanes("trial", session=open_session())
    asked = {"identifier": PERSON, "channel": "trial"}
    assert one.invite(**asked, sendAt=in_days(1)).status_code == 202
    assert one.invite_all([asked])[0]["status"] == 202
    valkey.client().flushall()
    lanes("trial", session=open_session())
    found = Api(api().base).invite(**asked)
    assert (found.status_code, found.json()["reason"]) == (200, "already_open")


def test_what_cannot_be_read_refuses_nobody(api, valkey):
    k = keyspace.shard_of(PERSON, SHARDS)
    valkey.client().set(keyspace.lane_key(k, PERSON), b"7 0 no lane")
    assert api().invite(identifier=PERSON, channel="clinic").status_code == 202


def test_variables_may_be_an_object_too(api, valkey):
    assert (
        api().invite(identifier=PERSON, channel="clinic", userSessionVariables={"agentid": "7"}).status_code
        == 202
    )
    assert held(valkey)[0][1].variables == {"agentid": "7"}


def test_sms_is_the_only_channel_that_there_is_to_choose(api, valkey):
    one = api()
    assert one.invite("satisfaction", identifier=PERSON, channel="SMS").status_code == 202
    assert "clinic or trial" in errors(one.invite("clinic", identifier=PERSON, channel="SMS"))["/channel"]


def test_every_field_that_is_wrong_is_told(api, valkey):
    reply = api().invite(
        identifier="+33123456789", identifierType="Fax", channel="clinic", content="x" * 700, clientReference=7,
        expiryTime="tomorrow", userSessionVariables=[{"key": "7", "value": "x"}, {"key": "a", "value": "1"}, {"key": "A", "value": "2"}],
        language="xx", originator="+33700000099", contnt="x",
    )  # fmt: skip
    assert (reply.status_code, reply.json()["status"]) == (422, 422)
    told = errors(reply)
    assert told.pop("/language").startswith("the survey does not speak it: expected en")
    assert told == {
        "/contnt": "no such field: did you mean content?",
        "/identifierType": "expected Phone, got 'Fax'",
        "/content": "expected 612 characters at the most",
        "/clientReference": "expected a text, got a number",
        "/identifier": "this is no mobile, and gets no SMS: expected a mobile number in full, such as +33612345678",
        "/expiryTime": "expected RFC 3339 with a zone, such as 2026-12-01T18:00:00+01:00",
        "/userSessionVariables/0": "expected a key of letters, digits, - and _, not beginning with a digit",
        "/userSessionVariables/2": "this key is there already; keys are alike in any case",
        "/originator": "no such sub-number: expected +33700000011 or +33698765400",
    }
    assert not held(valkey)


@pytest.mark.parametrize(
    "fields, pointer, why",
    [
        ({}, "/identifier", "it is missing"),
        ({"identifier": None}, "/identifier", "expected a text, got null"),
        ({"identifier": "+33700000001"}, "/identifier", "looks like this"),
        ({"identifier": PERSON, "channel": "clinik"}, "/channel", "did you mean clinic"),
        ({"identifier": PERSON, "channel": ""}, "/channel", "clinic or trial"),
        ({"identifier": "+33698765400", "channel": "trial"}, "/identifier", "a number of ours"),
        ({"identifier": PERSON, "expiryTime": "2026-12-24T18:00:00"}, "/expiryTime", "with a zone"),
        ({"identifier": PERSON, "expiryTime": "1798131600"}, "/expiryTime", "with a zone"),
        ({"identifier": PERSON, "expiryTime": "0001-01-01T00:00:00+23:59"}, "/expiryTime", "past"),
        ({"identifier": PERSON, "expiryTime": "9999-12-31T23:59:59-23:59"}, "/expiryTime", "within a year"),
        ({"identifier": PERSON, "expiryTime": "2020-12-24T18:00:00Z"}, "/expiryTime", "past"),
        ({"identifier": PERSON, "expiryTime": in_days(367)}, "/expiryTime", "within a year"),
        ({"identifier": PERSON, "sendAt": "2026-12-24T18:00:00"}, "/sendAt", "with a zone"),
        ({"identifier": PERSON, "sendAt": "soon"}, "/sendAt", "with a zone"),
        ({"identifier": PERSON, "sendAt": "2020-12-24T18:00:00Z"}, "/sendAt", "more than a day ago"),
        ({"identifier": PERSON, "sendAt": in_days(31)}, "/sendAt", "within 30 days"),
        ({"identifier": PERSON, "sendAt": "9999-12-31T23:59:59-23:59"}, "/sendAt", "within 30 days"),
        ({"identifier": PERSON, "sendAt": in_days(3), "expiryTime": in_days(2)}, "/sendAt", "expired by then"),
        ({"identifier": PERSON, "campaign": "x" * 129}, "/campaign", "128 characters at the most"),
        ({"identifier": PERSON, "campaign": 7}, "/campaign", "expected a text, got a number"),
        ({"identifier": PERSON, "userSessionVariables": [{"key": "a"}]}, "/userSessionVariables/0", "the field value is missing"),
        ({"identifier": PERSON, "userSessionVariables": [{"key": "a", "value": []}]}, "/userSessionVariables/0/value", "expected true or false or a number or a text, got a list"),
        ({"identifier": PERSON, "userSessionVariables": [{"key": "a", "value": 1, "x": 1}]}, "/userSessionVariables/0", "no such field, x"),
        ({"identifier": PERSON, "userSessionVariables": 7}, "/userSessionVariables", "expected an object or a list, got a number"),
        ({"identifier": PERSON, "userSessionVariables": {"a b": 1}}, "/userSessionVariables/a b", "a key"),
        ({"identifier": PERSON, "userSessionVariables": {"a": "x" * 1001}}, "/userSessionVariables/a", "1000"),
        ({"identifier": PERSON, "userSessionVariables": {f"a{n}": 1 for n in range(101)}}, "/userSessionVariables", "100"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_field(api, fields, pointer, why):
    reply = api().invite(**({"channel": "clinic"} | fields))
    assert reply.status_code == 422
    assert why in errors(reply)[pointer]


def test_of_a_flood_of_unknown_fields_a_few_are_told(api, valkey):
    """What each was meant to be is guessed, and webhooks wait meanwhile."""
    unknown = {f"identifierTyp{n}": 0 for n in range(2_500)}
    told = errors(api().invite(identifier=PERSON, channel="clinik", **unknown))
    assert sum(pointer.startswith("/identifierTyp") for pointer in told) == 10
    assert "did you mean clinic" in told["/channel"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"\xff", b'"x"', b"[" * 100_000, b'{"identifier": "\\ud800"}']
)
def test_what_is_no_object_is_told_so(api, body):
    reply = api().post(body)
    assert (reply.status_code, reply.headers["Content-Type"]) in [
        (422, "application/problem+json"),
        (413, "application/problem+json"),
    ]


def test_the_same_reference_is_the_same_session(api, valkey):
    one = api()
    first = one.invite(
        identifier=PERSON, channel="clinic", clientReference="r", userSessionVariables={"a": 1, "b": 2}
    )
    again = one.invite(
        identifier="0033612345678",
        channel="clinic",
        clientReference="r",
        userSessionVariables={"b": 2, "a": 1},
    )
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert len(held(valkey)) == 1


def test_the_same_reference_with_other_content_is_a_conflict(api, valkey):
    one = api()
    one.invite(identifier=PERSON, channel="clinic", clientReference="r")
    for other in ({"identifier": OTHER}, {"content": "Hi"}, {"userSessionVariables": {"a": "1"}}):
        reply = one.invite(**({"identifier": PERSON, "channel": "clinic", "clientReference": "r"} | other))
        assert (reply.status_code, list(errors(reply))) == (409, ["/clientReference"])
    assert len(held(valkey)) == 1


def test_a_reference_is_one_on_each_channel(api, valkey):
    one = api()
    ids = {
        one.invite(identifier=PERSON, channel=channel, clientReference="r").json()["id"]
        for channel in ("clinic", "trial")
    }
    assert len(ids) == 2


def test_without_a_reference_nothing_is_the_same(api, valkey):
    one = api()
    assert [one.invite(identifier=PERSON, channel="clinic").status_code for _ in range(2)] == [202, 202]
    assert len(held(valkey)) == 2


def test_a_repetition_is_one_though_it_has_expired_meanwhile(api, valkey, web_clock):
    one = api()
    soon = {"identifier": PERSON, "channel": "clinic", "clientReference": "r", "expiryTime": in_days(1)}
    assert one.invite(**soon).status_code == 202
    web_clock.ahead_s = 2 * 86_400
    assert one.invite(**soon).status_code == 200
    assert one.invite(**soon | {"content": "x"}).status_code == 422
    assert one.invite(**soon | {"clientReference": "s"}).status_code == 422
    assert len(held(valkey)) == 1


def test_posted_many_times_in_parallel_it_is_one(api, valkey):
    one = api()

    def post(_):
        asked = {"identifier": PERSON, "channel": "clinic", "clientReference": "r"}
        return Api(one.base).invite_persistently(**asked).status_code

    with ThreadPoolExecutor(12) as pool:
        statuses = sorted(pool.map(post, range(24)))
    assert statuses in ([200] * 23 + [202], [200] * 24), (
        "the new one may have been accepted without an answer"
    )
    assert len(held(valkey)) == 1


@pytest.mark.parametrize("function", ["take_references", "hold_invitations"])
def test_a_refusal_whose_reply_is_lost_is_recorded_once(api, valkey, lanes, function):
    lanes(opted_out_at=1)
    asked = {"identifier": PERSON, "channel": "clinic", "clientReference": "r", "campaign": "c"}
    with Proxies(valkey, broker=False) as proxy:
        one = api(PARLEY_REDIS_URL=proxy.url, PARLEY_BROKER_URL=valkey.broker_url)
        one.invite(identifier=OTHER, channel="clinic")
        proxy.lose_replies(f"_{function}\r\n".encode(), times=2)
        reply = one.invite(**asked)
        assert (reply.status_code, reply.json()["reason"], proxy.lost) == (200, "opted_out", 2)
        assert one.get("/v1/campaigns/c").json()["states"] == {"refused": 1}
    assert valkey.client().xlen(keyspace.events_key(keyspace.shard_of(PERSON, SHARDS))) == 1


@pytest.mark.parametrize("function", ["take_references", "hold_invitations"])
def test_a_reply_of_redis_that_is_lost_loses_and_doubles_nothing(api, valkey, function):
    with Proxies(valkey, broker=False) as proxy:
        one = api(PARLEY_REDIS_URL=proxy.url, PARLEY_BROKER_URL=valkey.broker_url)
        one.invite(identifier=OTHER, channel="clinic")
        proxy.lose_replies(f"_{function}\r\n".encode(), times=2)
        reply = one.invite(identifier=PERSON, channel="clinic", clientReference="r")
        assert reply.status_code in (200, 202)
        assert proxy.lost == 2
    assert sorted(sender for sender, _ in held(valkey)) == [PERSON, OTHER]


def test_a_connection_cut_after_acceptance_and_posted_again_is_one(api, valkey):
    """The client sends and leaves without reading; what it does not know, it repeats."""
    one = api()
    body = json.dumps({"identifier": PERSON, "channel": "clinic", "clientReference": "r"}).encode()
    parts = urlsplit(one.base)
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.sendall(
            b"POST /v1/surveys/clinic/invitations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (KEY.encode(), len(body), body)
        )
        client.recv(1)
    assert one.post(body).status_code == 200
    assert len(held(valkey)) == 1


def test_forgotten_on_purpose_it_is_still_not_accepted_again(api, valkey):
    """`parley erase` and retention leave an empty value: the person is not invited once more by a repetition."""
    one = api()
    identity = one.invite(identifier=PERSON, channel="clinic", clientReference="r").json()["id"]
    client = valkey.client()
    k = keyspace.shard_of(PERSON, SHARDS)
    client.delete(keyspace.held_ids_key(k, "clinic"), keyspace.held_invitations_key(k))
    client.set(keyspace.session_key(k, identity), "", xx=True, keepttl=True)
    client.set(keyspace.reference_key(SHARDS, identity), "", xx=True, keepttl=True)
    for person in (PERSON, OTHER):
        assert one.invite(identifier=person, channel="clinic", clientReference="r").status_code == 200
    late = one.invite(
        identifier=PERSON, channel="clinic", clientReference="r", expiryTime="2020-12-24T18:00:00Z"
    )
    assert late.status_code == 200
    assert not held(valkey)
    assert one.session(identity).status_code == 404


def test_without_redis_it_is_503(api, own_valkey):
    one = api(PARLEY_REDIS_URL=own_valkey.url, PARLEY_BROKER_URL=own_valkey.broker_url)
    own_valkey.stop()
    reply = one.invite(identifier=PERSON, channel="clinic", clientReference="r")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_a_key_is_needed(api, valkey):
    one = api()
    url = f"{one.base}/v1/surveys/clinic/invitations"
    for authorization in (None, "", "Bearer", "Bearer wrong", "Basic eDp5", "bearer \u00e9"):
        headers = {"Authorization": authorization.encode()} if authorization is not None else {}
        reply = requests.post(
            url, json={"identifier": PERSON, "channel": "clinic"}, headers=headers, timeout=60
        )
        assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, 'Bearer realm="parley"')
    assert not valkey.client().keys("*held*")


def test_a_key_is_for_its_channels(api, valkey):
    reply = api().invite(identifier=PERSON, channel="ward")
    assert (reply.status_code, list(errors(reply))) == (403, ["/channel"])
    assert Api(api().base, OTHER_KEY).invite(identifier=PERSON, channel="ward").status_code == 202


def test_a_key_used_too_often_has_to_wait(api):
    one = api(per_minute=2)
    statuses = [one.invite(identifier=PERSON, channel="clinic") for _ in range(3)]
    assert [reply.status_code for reply in statuses] == [202, 202, 429]
    assert statuses[-1].headers["Retry-After"] == "30"


def test_a_survey_that_nobody_offers_is_not_there(api):
    one = api()
    assert one.invite("quiz", identifier=PERSON).status_code == 404
    assert one.invite("nothing", identifier=PERSON).status_code == 404
    reply = one.invite("satisfaction", identifier=PERSON, channel="trial")
    assert errors(reply)["/channel"] == "it does not offer satisfaction: it offers clinic"


def test_another_media_type_is_told_which(api):
    reply = api().post(b"<x/>", media_type="text/xml")
    assert (reply.status_code, "application/json" in reply.json()["detail"]) == (415, True)


def test_in_quiet_hours_it_is_held_until_they_end(api, valkey):
    """In Paris, where the person is; the channel's own zone is UTC."""
    one = api(quiet=f"{hour(0)}-{hour(3)}")
    quiet_in_paris = one.invite(identifier=PERSON, channel="clinic").json()["startsAfter"]
    starts = datetime.fromisoformat(quiet_in_paris)
    assert starts > datetime.now(UTC) + timedelta(minutes=30)
    k = keyspace.shard_of(PERSON, SHARDS)
    ((_, score),) = valkey.client().zrange(keyspace.held_ids_key(k, "clinic"), 0, -1, withscores=True)
    assert score == round(starts.timestamp() * 1000)


# many at once


def people(count, first=0):
    return [
        {
            "identifier": f"+336{12_000_000 + first + n:08d}",
            "channel": "clinic",
            "clientReference": f"r{first + n}",
        }
        for n in range(count)
    ]


def test_each_line_has_its_own_result_in_order(api, valkey):
    lines = [
        *map(json.dumps, people(2)),
        '{"identifier": "+33123456789", "channel": "clinic"}',
        "",
        "{",
        json.dumps(people(1)[0] | {"content": "other"}),
        json.dumps(people(1)[0]),
        '{"identifier": "+33612345678", "channel": "ward"}',
        "x" * 70_000,
        json.dumps(people(1, first=2)[0]),
    ]
    results = lines_of(api().post("\r\n".join(lines).encode(), media_type=LINES))
    assert [(each["line"], each["status"]) for each in results] == [
        (1, 202), (2, 202), (3, 422), (5, 422), (6, 409), (7, 200), (8, 403), (9, 413), (10, 202),
    ]  # fmt: skip
    assert [each.get("clientReference") for each in results] == [
        "r0", "r1", None, None, "r0", "r0", None, None, "r2",
    ]  # fmt: skip
    assert results[2]["errors"][0]["pointer"] == "/identifier"
    assert results[0]["id"] == results[5]["id"]
    assert len(held(valkey)) == 3


def test_a_thousand_at_once_twice_are_a_thousand(api, valkey):
    one = api()
    assert {each["status"] for each in one.invite_all(people(1_000))} == {202}
    assert {each["status"] for each in one.invite_all(people(1_000))} == {200}
    assert len(held(valkey)) == 1_000


def test_too_many_lines_are_told_where_it_stopped(api, valkey, monkeypatch):
    monkeypatch.setattr(invitations, "MAX_LINES", 150)
    results = api().invite_all(people(400))
    assert [each["status"] for each in results] == [202] * 150 + [413]
    assert results[-1]["line"] == 151
    assert len(held(valkey)) == 150


def test_whoever_writes_it_all_before_reading_gets_every_result(api, valkey):
    """And whoever writes it in small pieces: the answer begins when the body has ended."""
    one = api()
    body = "".join(json.dumps(each) + "\n" for each in people(3_000)).encode()
    pieces = (body[at : at + 1_000] for at in range(0, len(body), 1_000))
    assert len(lines_of(one.post(pieces, media_type=LINES))) == 3_000
    parts = urlsplit(one.base)
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.settimeout(60)
        client.sendall(
            b"POST /v1/surveys/clinic/invitations HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
            b"Connection: close\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n"
            % (KEY.encode(), len(body))
        )
        client.sendall(body)
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answer.count(b'"status":200') == 3_000


def test_if_redis_goes_away_the_lines_after_say_503_and_may_be_sent_again(api, own_valkey, monkeypatch):
    monkeypatch.setattr("ingest.api.backlog.RETRY_PAUSE_S", 0.01)
    one = api(PARLEY_REDIS_URL=own_valkey.url, PARLEY_BROKER_URL=own_valkey.broker_url)
    body = [json.dumps(each).encode() + b"\n" for each in people(1_500)]

    def pieces():
        yield b"".join(body[:900])
        own_valkey.stop()
        yield b"".join(body[900:])

    statuses = [each["status"] for each in lines_of(one.post(pieces(), media_type=LINES))]
    assert set(statuses) <= {202, 503}
    assert statuses[-1] == 503
    own_valkey.start()
    assert {each["status"] for each in one.invite_all(people(1_500))} <= {200, 202}
    assert len(held(own_valkey)) == 1_500


@pytest.mark.parametrize("function", ["take_references", "hold_invitations"])
def test_of_many_only_those_of_the_round_trip_that_lost_its_reply_are_tried_again(api, valkey, function):
    with Proxies(valkey, broker=False) as proxy:
        one = api(PARLEY_REDIS_URL=proxy.url, PARLEY_BROKER_URL=valkey.broker_url)
        proxy.lose_replies(f"_{function}\r\n".encode(), times=1)
        statuses = [each["status"] for each in one.invite_all(people(400))]
        assert proxy.lost == 1
    assert set(statuses) <= {200, 202}
    assert statuses.count(202) >= 200
    assert len(held(valkey)) == 400


def test_long_lines_are_written_a_few_at_a_time(api, valkey, monkeypatch):
    """However long a line may be, what is kept of a request is bounded."""
    written = []
    accept = backlog.InvitationIntake.accept

    def note(self, asked, *of):
        written.append(len(asked))
        return accept(self, asked, *of)

    monkeypatch.setattr(backlog.InvitationIntake, "accept", note)
    body = b"".join(json.dumps(each).encode() + b" " * 50_000 + b"\n" for each in people(40))
    assert {each["status"] for each in lines_of(api().post(body, media_type=LINES))} == {202}
    assert sum(written) == 40
    assert max(written) <= invitations.BYTES_PER_WRITE // 50_000 + 1


def test_while_many_are_taken_others_are_answered_soon(api, valkey):
    """The process serves webhooks too: none of them waits for more than a slice."""
    one = api()
    with ThreadPoolExecutor(1) as pool, requests.Session() as session:
        bulk = pool.submit(one.invite_all, people(8_000))
        waits = []
        since = time.perf_counter()
        while not bulk.done():
            begun = time.perf_counter()
            session.get(f"{one.base}/healthz", timeout=60)
            waits.append(time.perf_counter() - begun)
        assert {each["status"] for each in bulk.result()} == {202}
    took = time.perf_counter() - since
    waits.sort()
    assert len(waits) > 20
    assert waits[len(waits) * 9 // 10] < took / 10
