"""What an earlier release left in Redis is read as it was meant, and gone on with."""

import json
import subprocess
from pathlib import Path

import pytest

from config.store import keyspace, pauses
from tests.recorded import reading
from tests.recorded.__main__ import record
from tests.recorded.scene import HEARS, PEOPLE, SAYS, SIMULATED, SUB_NUMBER, Scene, deployment
from tests.support import audit
from tests.support.octopush import FakeOctopush
from tests.support.waiting import until

RELEASES = sorted(Path(__file__).parent.glob("*.jsonl"))

ELSEWHERE = {
    "invitation_bucket_key",
    "circuit_state_key",
    "failed_attempts_key",
    "dead_letter_reasons_key",
    "dead_letter_audit_key",
    keyspace.LIBRARIES_KEY,
}
"""Kinds of keys that the scene need not have."""

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
def test_this_release_goes_on_with_what_a_release_left(release, own_valkey, tmp_path):
    lanes, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    reading.restore(lanes, broker, recorded(release))
    assert pauses.decode_pause(lanes.get(keyspace.pause_key(SIMULATED))).why == "104: out of credit"
    with FakeOctopush() as octopush, deployment(own_valkey, octopush, tmp_path / "surveys") as parley:
        parley.start()
        scene = Scene(own_valkey, octopush, parley)
        at = WAITING | ANSWERED
        got = {name: scene.heard(name, 1) for name in ANSWERED}
        assert {name: [question(text) for text in texts] for name, texts in got.items()} == {
            name: [HEARS[place]] for name, place in ANSWERED.items()
        }
        go_on_to_the_end(scene, at, got | {name: [] for name in WAITING})
        scene.says("stopped", "START")
        scene.says("done", "START")
        for name in ("stopped", "done"):
            assert scene.heard(name, 1) == [HEARS[0]]
        strangers = {sms.to for sms in octopush.accepted()} - {
            PEOPLE[name] for name in (*at, "stopped", "done")
        }
        assert strangers == set(), "who has opted out, or cancelled, or was not asked, hears nothing"
        listed = subprocess.run(
            ["parley", "dead", "list", "--json"],
            env=parley.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(listed.stdout.splitlines()) == 3
        until(lambda: not left_over(lanes, broker), 30, "nothing else is left")


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
    assert (known.keys() | audit.FIXED) - kinds <= ELSEWHERE, "tests/recorded/scene.py has none of these"
    lanes, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    kept = [sample | {"ttl_ms": -1} for sample in samples]  # or some are gone before they are read
    reading.restore(lanes, broker, kept)
    again = {(each["db"], each["key"]): each["value"] for each in reading.samples(lanes, broker)}
    for sample in samples:
        assert again[sample["db"], sample["key"]] == sample["value"]
