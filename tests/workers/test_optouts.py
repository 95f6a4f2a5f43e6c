"""Who said stop is known for good, by a hash: lanes come and go, and the list tells the new ones."""

import json
import re

import pytest
from click.testing import CliRunner

from config.settings.settings import DEFAULT_SHARDS, ConfigError, Secret
from config.store import keyspace, redis_client
from engine.model import lane as lane_format
from engine.model.events import (
    InboundSms,
    Invitation,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ProviderStop,
    SessionEnded,
    encode_event,
)
from engine.model.lane import Lane
from engine.model.sender_numbers import normalize_number
from workers.commands.cli_numbers import InvalidNumberError, parse_reachable_number, parse_sender_argument
from workers.commands.optout import optout
from workers.store.optouts import open_opt_out_list

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"


@pytest.fixture
def town(pipeline, monkeypatch, tmp_path, valkey):
    town = pipeline()
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    return town


def call(*arguments, status=0, text=None):
    result = CliRunner().invoke(optout, [*arguments], input=text, catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.stdout


def shard(town, sender):
    return keyspace.shard_of(sender, town.world.settings.shards)


def known(town, sender):
    return open_opt_out_list(town.client, town.world.settings.shards, "").opt_outs_of(sender)


def forget_lane(town, sender):
    """Its time is over."""
    town.client.delete(keyspace.lane_key(shard(town, sender), sender))


def invite(town, sender, identity):
    town.deposit(sender, encode_event(Invitation(identity, "clinic", "clinic")), start=True)
    town.drain()


def test_a_stop_outlives_its_lane_and_a_start_ends_it(town):
    town.accept(ANNA, "STOP")
    town.drain()
    assert [source for _, source in known(town, ANNA).values()] == ["person"]
    assert 0 < town.client.pttl(keyspace.lane_key(shard(town, ANNA), ANNA)) <= 7 * 24 * 3_600_000
    forget_lane(town, ANNA)
    invite(town, ANNA, "00000000000000a1")
    (refused,) = [record for record in town.records(ANNA) if isinstance(record, OpeningRefused)]
    assert (refused.reason, refused.invitation) == (
        "opted_out",
        Invitation("00000000000000a1", "clinic", "clinic"),
    )
    forget_lane(town, ANNA)
    town.accept(ANNA, "START")
    town.drain()
    assert town.said(ANNA)[-1] == "What is your name?"
    assert known(town, ANNA) == {}
    forget_lane(town, ANNA)
    invite(town, ANNA, "00000000000000a2")
    assert town.said(ANNA)[-1] == "What is your name?"


def test_what_providers_tell_is_known_by_its_source(town):
    town.deposit(ANNA, encode_event(ProviderStop("s1", "clinic")))
    town.deposit(BORIS, encode_event(ProviderStop("s2", "clinic", source="import x.csv")))
    town.drain()
    assert [source for _, source in known(town, ANNA).values()] == ["provider"]
    assert [source for _, source in known(town, BORIS).values()] == ["import x.csv"]


def test_an_entry_that_cannot_be_read_is_not_taken_for_none(town):
    optouts = open_opt_out_list(town.client, town.world.settings.shards, "")
    town.client.hset(keyspace.optouts_key(shard(town, ANNA)), optouts.hash_number(ANNA), "garbage")
    town.accept(ANNA, "START")
    town.accept(BORIS, "START")
    town.drain()
    assert town.said(ANNA) == []
    assert town.said(BORIS) == ["What is your name?"]


@pytest.mark.parametrize(
    "event, source",
    [(InboundSms("b1", "clinic", "Stop."), "person"), (InboundSms("b1", "clinic", "?", handled="stop"), "person"),
     (ProviderStop("b1", "clinic"), "provider")],
    ids=["word", "handled", "callback"],
)  # fmt: skip
def test_a_stop_holds_though_the_survey_of_its_session_is_not_known(town, event, source):
    """Nothing else of the lane can be advanced, so it is not confirmed, and is among the dead letters too."""
    town.accept(ANNA, "START")
    town.drain()
    name = keyspace.lane_key(shard(town, ANNA), ANNA)
    lane = lane_format.decode_lane(town.client.get(name).split(b" ", 2)[2])
    lane.lines["clinic"].session.version = "nobody knows it"
    town.client.set(name, b"7 0 " + lane_format.encode_lane(lane))
    town.deposit(ANNA, encode_event(event))
    town.accept(ANNA, "Ada")
    town.drain()
    assert [source for _, source in known(town, ANNA).values()] == [source]
    assert town.said(ANNA) == []
    stop, end = [record for record in town.records(ANNA) if isinstance(record, PersonOptedOut | SessionEnded)]
    assert (stop.id, end.how) == ("b1", "stopped")
    assert town.client.hlen(keyspace.dead_letters_key(shard(town, ANNA))) == 1


def test_a_stop_holds_though_the_lane_cannot_be_read(town):
    town.accept(ANNA, "START")
    town.drain()
    town.client.set(keyspace.lane_key(shard(town, ANNA), ANNA), b"7 0 garbage")
    town.accept(ANNA, "STOP")
    town.drain()
    assert [source for _, source in known(town, ANNA).values()] == ["person"]
    assert town.said(ANNA) == []
    forget_lane(town, ANNA)
    invite(town, ANNA, "00000000000000a1")
    town.drain()
    assert town.said(ANNA) == []


@pytest.mark.parametrize("said", ["Ada", ""], ids=["an answer", "its deadline"])
def test_whoever_said_stop_while_their_lane_could_not_be_read_is_texted_no_more_once_it_can(town, said):
    town.accept(ANNA, "START")
    town.drain()
    name = keyspace.lane_key(shard(town, ANNA), ANNA)
    stored = town.client.get(name)
    town.client.set(name, b"7 0 of a later release")
    town.accept(ANNA, "STOP")
    town.drain()
    assert town.said(ANNA) == []
    due = b" ".join([stored.split(b" ", 1)[0], b"1", stored.split(b" ", 2)[2]])
    town.client.set(name, stored if said else due)
    if said:
        town.accept(ANNA, said)
        town.drain()
    else:
        town.turns.handle_wakeup("replies", [ANNA])
    assert town.said(ANNA) == []
    (ended,) = [record for record in town.records(ANNA) if isinstance(record, SessionEnded)]
    assert ended.how == "stopped"
    assert sum(isinstance(record, PersonOptedOut) for record in town.records(ANNA)) == 1
    town.accept(ANNA, "START")
    town.drain()
    assert town.said(ANNA) == ["What is your name?"]
    assert known(town, ANNA) == {}


def test_no_number_is_in_the_list(town):
    call("add", ANNA, BORIS)
    for key in town.client.keys("*optout*"):
        stored = town.client.dump(key)
        assert ANNA[1:].encode() not in stored
        assert BORIS[1:].encode() not in stored


def test_another_key_is_refused_in_one_sentence(town):
    town.client.flushdb()
    open_opt_out_list(town.client, 16, "one")
    open_opt_out_list(town.client, 16, Secret("one"))
    with pytest.raises(ConfigError, match="PARLEY_OPTOUT_KEY is not the key"):
        open_opt_out_list(town.client, 16, "two")
    with pytest.raises(ConfigError, match="PARLEY_OPTOUT_KEY is not the key"):
        open_opt_out_list(town.client, 16, "")


def test_a_key_that_parley_made_may_be_set_later(town):
    made = open_opt_out_list(town.client, 16, "")
    secret = town.client.get(keyspace.OPTOUT_SECRET_KEY).decode()
    assert open_opt_out_list(town.client, 16, secret).hash_number(ANNA) == made.hash_number(ANNA)
    assert len(secret) == 64


def test_a_worker_with_another_key_does_not_start(parley):
    parley.spawn("conversation", PARLEY_OPTOUT_KEY="one")
    parley.wait_running()
    other = parley.spawn("ratelimit", PARLEY_OPTOUT_KEY="two")
    assert other.wait_dead() == 2
    assert "PARLEY_OPTOUT_KEY is not the key" in other.log.read_text()
    assert "two" not in other.log.read_text().split()


def test_an_import_ends_open_sessions_and_reaches_people_without_a_lane(town, tmp_path):
    town.accept(ANNA, "START")
    town.drain()
    listed = tmp_path / "blocked.csv"
    listed.write_text(f"number\n{ANNA}\n\n0033 6 00 00 00 02,clinic\n{CLARA},nowhere\n12\n+1\nAnna\n{ANNA}\n")
    result = CliRunner().invoke(optout, ["import", str(listed)])
    assert result.exit_code == 1
    assert result.stdout == "2 new, 0 known, 4 lines of no use\n"
    assert re.findall(r"line \d+: (?:no channel|'[^']*')", result.stderr) == [
        "line 5: no channel", "line 6: '12'", "line 7: '+1'", "line 8: 'Anna'",
    ]  # fmt: skip
    town.turns.handle_wakeup("replies", [ANNA])
    assert [record.how for record in town.records(ANNA) if isinstance(record, SessionEnded)] == ["stopped"]
    assert [record.source for record in town.records(ANNA) if isinstance(record, PersonOptedOut)] == [
        "import blocked.csv"
    ]
    assert town.said(ANNA) == []
    assert known(town, BORIS)["clinic"][1] == "import blocked.csv"
    assert not town.client.keys(f"*{BORIS}")
    assert call("import", str(listed), status=1) == "0 new, 2 known, 4 lines of no use\n"


def test_somebody_whose_first_sms_is_being_worked_on_is_reached_by_an_import(town):
    town.accept(ANNA, "START")
    (claim,) = town.turns._lanes.claim("starts", [ANNA]).claimed
    assert claim.opted_out == {}
    call("add", ANNA)
    town.turns._turn_claims("starts", [claim], 0.0)
    assert town.said(ANNA) == ["What is your name?"]
    town.turns.handle_wakeup("replies", [ANNA])
    assert town.said(ANNA) == []


def test_somebody_who_opted_in_again_after_an_import_can_be_imported_again(town):
    call("add", ANNA)
    town.accept(ANNA, "START")
    town.drain()
    call("add", ANNA)
    town.turns.handle_wakeup("replies", [ANNA])
    assert known(town, ANNA)
    assert town.said(ANNA) == []


def test_removing_opts_in_again_whoever_knew_of_it(town):
    town.accept(ANNA, "STOP")
    town.drain()
    call("add", BORIS)
    assert call("remove", ANNA, BORIS, CLARA) == "2 removed\n"
    assert isinstance(town.records(ANNA)[-1], PersonOptedIn)
    for place, person in enumerate((ANNA, BORIS)):
        invite(town, person, f"{place:016x}")
        assert town.said(person)[-1] == "What is your name?"
        assert known(town, person) == {}


def test_removing_does_not_overwrite_what_a_worker_is_about_to_commit(town, monkeypatch):
    monkeypatch.setattr("workers.store.optouts._REMOVE_ATTEMPTS", 2)
    town.accept(ANNA, "STOP")
    town.drain()
    town.accept(ANNA, "hello")
    (claim,) = town.turns._lanes.claim("replies", [ANNA]).claimed
    assert "a worker has their lane" in CliRunner().invoke(optout, ["remove", ANNA]).output
    town.turns._turn_claims("replies", [claim], 0.0)
    assert known(town, ANNA)


def test_an_export_can_be_imported_with_the_same_key(town, tmp_path, monkeypatch):
    monkeypatch.setenv("PARLEY_OPTOUT_KEY", "ours")
    for key in (keyspace.OPTOUT_SECRET_CHECK_KEY, keyspace.OPTOUT_SECRET_KEY):
        town.client.delete(key)
    call("add", ANNA, BORIS)
    exported = call("export")
    assert "600000001" not in exported
    before = call("list", "--json")
    town.client.flushdb()
    town.client.set(keyspace.SHARDS_KEY, town.world.settings.shards)
    redis_client.load_functions(town.client)
    k = shard(town, ANNA)
    town.client.set(keyspace.lane_key(k, ANNA), b"1 0 " + lane_format.encode_lane(Lane()))
    assert call("import", "-", text=exported) == "2 new, 0 known, 0 lines of no use\n"
    assert call("list", "--json") == before
    assert call("export").splitlines() == exported.splitlines()
    assert town.client.exists(keyspace.mailbox_key(k, ANNA)), "a lane that is there is told"
    monkeypatch.setenv("PARLEY_OPTOUT_KEY", "theirs")
    town.client.flushdb()
    assert "another key" in CliRunner().invoke(optout, ["import", "-"], input=exported).output


def test_a_list_of_other_shards_is_refused_line_by_line(town, monkeypatch):
    call("add", ANNA)
    exported = call("export").replace(f"/{DEFAULT_SHARDS}", "/8")
    assert call("import", "-", status=1, text=exported) == "0 new, 0 known, 1 lines of no use\n"


def test_the_list_is_counted_and_asked(town):
    assert call("list") == "Nobody has opted out.\n"
    call("add", ANNA, BORIS)
    assert json.loads(call("list", "--json")) == [{"channel": "clinic", "source": "operator", "people": 2}]
    assert "operator" in call("list")
    assert "opted out of clinic" in call("list", ANNA)
    assert call("list", CLARA, status=1) == f"{CLARA} has not opted out\n"
    assert json.loads(call("list", ANNA, "--json"))["opted_out"]["clinic"]["source"] == "operator"


@pytest.mark.parametrize(
    "number", ["0612345678", "INFO", "+33", "+3361234", "+3361234567890123", "33612345678", ""]
)
def test_what_is_no_number_is_refused(number):
    with pytest.raises(InvalidNumberError):
        parse_reachable_number(number)


@pytest.mark.parametrize("number", ["+33 6 12 34 56 78", "0033612345678", "+33(0)612345678"])
def test_a_number_is_written_as_lanes_are_called(number):
    assert parse_reachable_number(number) == "+33612345678"


@pytest.mark.parametrize(
    "written", ["+44 (0)7911 123456", "00 49 151-2345.6789", "+33612345678", "+54 9 11 2345 6789"]
)
def test_a_list_and_the_lanes_call_a_number_alike(written):
    assert parse_reachable_number(written) == parse_sender_argument(written) == normalize_number(written)
