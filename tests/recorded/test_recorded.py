"""What a release before this one left in Redis is read as it was meant, and gone on with."""

import json
from collections import Counter
from datetime import UTC
from pathlib import Path
from typing import NamedTuple

import pytest

from config.store import keyspace, pauses, redis_client, stored_values
from engine.model import lane
from engine.model.events import InboundSms, Mail
from engine.model.policy import ChannelPolicy
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import advance
from tests.recorded import reading
from tests.recorded.__main__ import record
from tests.recorded.ageing import DAY_MS, aged
from tests.recorded.scene import (
    CHANNEL,
    EXPIRES_DAYS,
    HEARS,
    PAUSED,
    PEOPLE,
    SAYS,
    SHARDS,
    SOON_S,
    SUB_NUMBER,
    WHY_PAUSED,
    Scene,
    deployment,
)
from tests.support import audit
from tests.support.inviting import Api
from tests.support.octopush import FakeOctopush
from tests.support.waiting import until
from workers.store import survey_versions

RELEASES = sorted(Path(__file__).parent.glob("*.jsonl"))

ANSWERED = {
    "start_waits": 0, "reply_waits": 3, "parts": 1, "released": 0, "held": 0, "unsent": 3, "booked": 3, "backing_off": 3,
    "uncertain": 1, "worker_died": 1, "sender_died": 1, "entrusted": 0,
}  # fmt: skip
"""Whom something is owed, and which SMS of the conversation."""

WAITING = {
    "half_way": 3,
    "asked": 0,
    "misread": 1,
    "unreadable": 0,
    "rejected": 1,
    "came_back": 0,
    "sub_number": 0,
}
"""Who is to say the next thing, and to which SMS."""

DEAD = ("rejected", "unreadable_state", "undecodable")
"""The dead letters of the scene."""


class Age(NamedTuple):
    """How long ago the release stopped, and who is not answered any more: `uncertain` may have got their SMS, which is put
    aside; `late` are invited no more."""

    days: int
    uncertain: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()

    @property
    def silent(self) -> frozenset[str]:
        return self.uncertain | self.late


AGES = (
    Age(0),
    Age(2, uncertain=frozenset({"uncertain", "sender_died", "backing_off"})),  # verdicts.CERTAIN_MS is over
    Age(40, late=frozenset({"held"})),  # and keyspace.MOST_HELD_MS
)
"""What is known of a try is forgotten after a week (FORGET_MS of lua/values.lua): whoever has been away for longer sends
the SMS again."""


def recorded(release):
    return [json.loads(line) for line in release.read_text().splitlines()]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.stem)
def test_all_that_a_release_wrote_means_what_it_meant(release):
    meant = 0
    for sample in recorded(release):
        if sample["means"] is not None:
            now = reading.means(sample["key"], sample["value"])
            assert reading.still(sample["means"], now), f"{sample['key']}: {sample['means']} is read as {now}"
            meant += 1
    assert meant > 20


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.stem)
def test_a_session_that_a_release_left_open_is_given_up_with_a_word(release):
    """0.1.0 gave up without one. The version is as it was stored, and says nothing of it."""
    stored = {sample["key"]: sample["value"] for sample in recorded(release)}
    k = keyspace.shard_of(PEOPLE["misread"], SHARDS)
    held = reading.raw(stored[keyspace.lane_key(k, PEOPLE["misread"])])
    left = lane.decode_lane(stored_values.lane_state(held))
    versions = SurveyRegistry()
    for _, file in stored[keyspace.SURVEYS_KEY]:
        versions.add_version(read_stored_survey(*survey_versions.decode_survey_file(reading.raw(file))))
    policies = {CHANNEL: ChannelPolicy(surveys=("sampler",), timezone=UTC)}
    mail = Mail(left.clock + 1, InboundSms("1" * 16, CHANNEL, "old"))
    effects = advance(left, PEOPLE["misread"], [mail], mail.at, versions, policies)
    (told,) = effects.outbox
    assert told.text.startswith("We could not read your answers")
    assert left.lines[CHANNEL].ended_how == "gave_up"


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.stem)
def test_what_a_release_recorded_of_conversations_comes_out_the_same(release, own_valkey, tmp_path):
    """As far as it recorded them: 0.1.0 did not say what an SMS was for, nor what one answered."""
    lanes, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    reading.restore(lanes, broker, aged(recorded(release), redis_client.server_time_ms(lanes)))
    with FakeOctopush() as octopush, deployment(own_valkey, octopush, tmp_path / "surveys") as parley:
        assert sessions_that_come_out_the_same(parley) > 10
        parley.start()
        scene = Scene(own_valkey, octopush, parley)
        scene.says("half_way", SAYS[4], SAYS[5])
        scene.heard("half_way", 2)
        assert sessions_that_come_out_the_same(parley) > 10, "also where this release went on"


@pytest.mark.parametrize(
    "age, shards",
    [*((age, None) for age in AGES), (AGES[0], 256)],
    ids=lambda given: f"{given.days} days old" if isinstance(given, Age) else f"{given or 'as many'} shards",
)
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.stem)
def test_this_release_goes_on_with_what_a_release_left(release, age, shards, own_valkey, tmp_path):
    lanes, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    samples = aged(recorded(release), redis_client.server_time_ms(lanes), age.days * DAY_MS)
    reading.restore(lanes, broker, samples)
    assert pauses.decode_pause(lanes.get(keyspace.pause_key(PAUSED))).why == WHY_PAUSED
    with FakeOctopush() as octopush, deployment(own_valkey, octopush, tmp_path / "surveys") as parley:
        if shards is not None:
            lanes.delete(keyspace.PROCESSES_KEY)  # nothing of then lives
            divided = parley.command("reshard", "--to", str(shards), "--yes")
            assert divided.returncode == 0, divided.stderr
        parley.start()
        scene, api = Scene(own_valkey, octopush, parley), Api(parley.base)
        answered = {name: place for name, place in ANSWERED.items() if name not in age.silent}
        got = {name: scene.heard(name, 1) for name in answered}
        assert {name: [question(text) for text in texts] for name, texts in got.items()} == {
            name: [HEARS[place]] for name, place in answered.items()
        }
        dead = Counter(DEAD) + Counter(uncertain=len(age.uncertain))
        until(lambda: reasons(parley) == dead, SOON_S, "what may have been delivered is put aside")
        at = {name: place for name, place in (WAITING | ANSWERED).items() if name not in age.late}
        go_on_to_the_end(scene, at, {name: got.get(name, []) for name in at})
        assert state_once_refused(api, invite(api, "stopped")) == "opted_out"
        for name in age.late:
            assert state_once_refused(api, invited(api, name)) == "expired"
        if age.days > EXPIRES_DAYS:
            until(
                lambda: invited(api, "expiring")["state"] == "expired",
                SOON_S,
                "the session has ended by time",
            )
        for name in ("stopped", "done"):
            scene.says(name, "START")
            assert scene.heard(name, 1) == [HEARS[0]]
        assert Counter(sms.to for sms in octopush.accepted()) == {
            PEOPLE[name]: count for name, count in hearing(at, got).items()
        }, "who has opted out, or cancelled, or was not asked, hears nothing, and nobody hears anything twice"
        assert reasons(parley) == dead
        until(lambda: not left_over(lanes, broker), SOON_S, "nothing else is left")


def sessions_that_come_out_the_same(parley):
    """How many `parley replay` has run; all of them."""
    done = parley.command("replay", "--all", "--json")
    done.check_returncode()
    summary = json.loads(done.stdout)
    assert (summary["different"], summary["impossible"]) == (0, {})
    return summary["same"]


def reasons(parley):
    """Why there are dead letters, and how many."""
    listed = parley.command("dead", "list", "--json")
    listed.check_returncode()
    return Counter(json.loads(line)["reason"] for line in listed.stdout.splitlines())


def hearing(at, got):
    """How many SMS each of them gets until the end; a START of "stopped" and "done" is answered by one."""
    return {name: len(HEARS) - place - (name not in got) for name, place in at.items()} | {
        "stopped": 1,
        "done": 1,
    }


def invite(api, name):
    return api.invite("sampler", identifier=PEOPLE[name], channel=CHANNEL).json()


def invited(api, name):
    """What has become of the scene's invitation, once the archive can tell where Redis has let go."""

    def find():
        found = api.find(clientReference=f"ref-{name}", channel=CHANNEL).json()
        return found if "id" in found else None

    return until(find, SOON_S, f"{name} is found")


def state_once_refused(api, session):
    """Why it is refused."""
    return until(lambda: api.session(session["id"]).json().get("reason"), SOON_S, "it is refused")


def question(text):
    """Without the options that follow it."""
    return text.partition("\n")[0]


def go_on_to_the_end(scene, at, got):
    """Everybody answers what they heard last, until there is nothing to answer."""
    for place in range(len(HEARS) - 1):
        saying = [name for name, heard in at.items() if heard <= place]
        for name in saying:
            to = SUB_NUMBER if name == "sub_number" else "+33700000001"
            scene.says(name, SAYS[place + 1], to=to)
        for name in saying:
            got[name] = scene.heard(name, len(got[name]) + 1)
            assert question(got[name][-1]) == HEARS[place + 1]


def left_over(lanes, broker):
    """What is amiss, but for what the scene has reserved and paused."""
    theirs = (PEOPLE["reserved"], PEOPLE["simulated"], "a key parley")
    return [each for each in audit.wrongs(lanes, broker) if not any(their in each for their in theirs)]


def test_the_scene_has_something_of_every_kind_of_key(tmp_path, own_valkey):
    """So whoever adds a kind adds it to the scene, and the next release's samples have it. What is restored is what was."""
    file = tmp_path / "this.jsonl"
    record(file)
    samples = recorded(file)
    known = audit.patterns()
    kinds = {audit.kind_of(sample["key"], known) for sample in samples}
    assert None not in kinds
    assert (known.keys() | audit.FIXED) - kinds == set(), "tests/recorded/scene.py has none of these"
    lanes, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    kept = [sample | {"ttl_ms": -1} for sample in samples]  # or some are gone before they are read
    reading.restore(lanes, broker, kept)
    again = {(each["db"], each["key"]): each["value"] for each in reading.samples(lanes, broker)}
    for sample in samples:
        assert again[sample["db"], sample["key"]] == sample["value"]
    found = [each for sample in samples if sample["means"] for each in structs_in(sample["means"])]
    for tag, field in FIELDS_SINCE_0_1_0:
        assert any(each.get("") == tag and each[field] for each in found), f"nothing of a {tag} has {field}"


FIELDS_SINCE_0_1_0 = (
    ("said", "kind"), ("heard", "step"), ("heard", "answer"), ("heard", "answer_type"), ("sent", "segments"),
    ("sent", "cost_micros"), ("receipt", "cost_micros"), ("receipt", "currency"), ("invitation", "campaign"), ("invitation", "asked_at"),
    ("invitation", "not_before"), ("part", "attachments"),
)  # fmt: skip
"""By the tags of events and records: what 0.1.0 did not store."""


def structs_in(value):
    match value:
        case dict():
            yield value
            for each in value.values():
                yield from structs_in(each)
        case list():
            for each in value:
                yield from structs_in(each)
