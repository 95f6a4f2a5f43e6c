"""Whoever replays dead letters may be killed, be one of two, or meet live traffic: each letter is dealt with once."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from threading import Event, Thread
from time import monotonic, process_time

import pytest

from config.store import keyspace, redis_client
from engine.model.events import InboundSms, OpeningRefused, encode_event
from tests.support.waiting import until
from tests.workers.dead_letters import call, fell, letters_of, outcomes, shard, told, true_to_itself
from workers.store.dead_letter_store import DeadLetter, encode_dead_letter
from workers.store.lanes import KeptDeadLetter

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"
PARLEY = str(Path(sys.executable).with_name("parley"))
PLACES = ("before_reopen", "after_reopen", "before_commit", "after_commit", "before_stay", "after_stay")


@pytest.fixture
def town(deploy):
    return deploy()


@pytest.fixture
def parley(tmp_path):
    """A factory of `parley dead` commands in processes of their own, which die at `fault`. They end with the test."""
    running = []

    def start(*arguments, fault=""):
        with (tmp_path / f"{len(running)}.log").open("wb") as log:
            environment = os.environ | {"PARLEY_FAULT": fault}
            running.append(
                subprocess.Popen([PARLEY, "dead", *arguments], env=environment, stdout=log, stderr=log)
            )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def lapse(town, *people):
    """Let the leases of whoever holds these lanes end, without waiting for it."""
    for person in people:
        name = keyspace.lane_lock_key(shard(town, person), person)
        if lock := town.client.get(name):
            fence, _, rest = lock.split(b" ", 2)
            town.client.set(name, b" ".join([fence, b"1", rest]))


@pytest.mark.parametrize("place", PLACES)
def test_a_replay_that_is_killed_anywhere_is_finished_by_the_next(town, failing, parley, place):
    """Anna's and Boris' letters go; Clara's fails, and stays."""
    fell(town, failing, ANNA, BORIS)
    town.deposit(CLARA, b"poison")
    town.drain()
    before = {letter.id: letter for letter in letters_of(town)}
    killed = parley("replay", "--all", "--yes", fault=place)
    assert killed.wait(120) == -9
    left = {letter.id for letter in letters_of(town)}
    audited = [entry["id"] for entry in told("audit") if entry["outcome"] == "advanced"]
    assert sorted(audited) == sorted(before.keys() - left), "whatever is gone is in the audit, once"
    true_to_itself(town)
    lapse(town, ANNA, BORIS, CLARA)
    assert set(outcomes("--all", status=1)) <= {"advanced", "failing"}
    for person in (ANNA, BORIS):
        assert town.said(person) == ["What is your name?", "How old are you, Ada?"]
    (letter,) = letters_of(town)
    assert letter.sender == CLARA
    assert Counter(e["id"] for e in told("audit") if e["outcome"] == "advanced") == Counter(
        before.keys() - {letter.id}
    )
    true_to_itself(town)
    town.accept(ANNA, "36")
    town.drain()
    assert town.said(ANNA)[-1] == "Goodbye, Ada."


def test_a_lane_whose_replay_died_is_taken_up_by_workers_and_nothing_is_blamed(town, failing, parley):
    fell(town, failing, ANNA)
    killed = parley("replay", "--all", fault="after_reopen")
    assert killed.wait(120) == -9
    town.accept(ANNA, "Bo", "36")
    assert town.woken("replies") == [ANNA]
    assert town.said(ANNA) == ["What is your name?"], "the lease holds"
    lapse(town, ANNA)
    (claim,) = town.turns._lanes.claim_suspect("replies", ANNA).claimed
    assert (claim.attempts, len(claim.mail)) == (1, 2)


def test_two_operators_at_once_replay_each_letter_once(town, parley):
    people = [letter.sender for letter in many(town, 200)]
    operators = [parley("replay", "--all", "--yes", "--as", name) for name in ("eve", "max")]
    assert [operator.wait(240) for operator in operators] == [0, 0]
    assert letters_of(town) == []
    audit = told("audit")
    assert Counter(entry["outcome"] for entry in audit) == {"advanced": 200}
    assert len({entry["id"] for entry in audit}) == 200
    assert all(town.said(person) == ["What is your name?"] for person in people)
    true_to_itself(town)


def test_live_traffic_of_the_same_person_goes_on_in_order_and_nothing_is_lost(town, failing, parley):
    """Each of many texts is said to be no number; those that fell, too, when they are replayed."""
    people = [f"+336{i:08}" for i in range(4)]
    fell(town, failing, *people)
    failing |= {f"fell {i}" for i in range(5)}
    for person in people:
        town.accept(person, "Bo")
        town.drain()
        town.accept(person, *(f"fell {i}" for i in range(5)))
    town.drain()
    failing.clear()
    stop = Event()

    def work():
        while not stop.is_set():
            town.drain()

    worker = Thread(target=work)
    worker.start()
    try:
        replaying = parley("replay", "--all", "--yes", "--stale")
        for i in range(30):
            for person in people:
                town.deposit(
                    person, encode_event(InboundSms(f"f{person[-4:]}{i:011x}", "clinic", f"live {i}"))
                )
        assert replaying.wait(240) == 0
        for k in range(town.world.settings.shards):
            until(
                lambda k=k: not any(map(town.client.llen, town.client.keys(f"{{{k}}}:mail:*"))),
                30,
                "all is applied",
            )
    finally:
        stop.set()
        worker.join()
    for person in people:
        heard = [record.text for record in town.records(person) if type(record).__name__ == "SmsReceived"]
        assert [text for text in heard if text.startswith("live")] == [f"live {i}" for i in range(30)]
        assert [text for text in heard if text.startswith("fell")] == [f"fell {i}" for i in range(5)]
    assert letters_of(town) == []
    true_to_itself(town)


def test_a_younger_letter_never_goes_before_an_older_one_that_is_held_up(town, failing, impatient):
    failing.add("36")
    town.accept(ANNA, "START")
    town.drain()
    town.accept(ANNA, "Ada", "36")
    town.drain()
    failing.discard("36")
    fell(town, failing, BORIS)
    town.accept(ANNA, "live")
    town.turns._lanes.claim("replies", [ANNA])
    assert sorted(outcomes("--all", status=1)) == ["advanced", "busy", "busy"]
    assert {letter.sender for letter in letters_of(town)} == {ANNA}
    assert town.said(ANNA) == ["What is your name?"]


def test_what_is_held_for_a_moment_is_waited_for(town, failing, parley):
    fell(town, failing, ANNA)
    town.accept(ANNA, "live")
    (claim,) = town.turns._lanes.claim("replies", [ANNA]).claimed
    server = redis_client.server_of(
        town.client, keyspace.lane_key(keyspace.shard_of(ANNA, town.world.settings.shards), ANNA)
    )
    calls = lambda: server.info("commandstats")["cmdstat_fcall"]["calls"]  # noqa: E731
    before = calls()
    replaying = parley("replay", "--all")
    until(lambda: calls() > before, 20, "it has been tried")
    town.turns._lanes.release_kept([KeptDeadLetter(ANNA, claim.fence, "", "nobody", "")])
    assert replaying.wait(120) == 0
    assert town.said(ANNA)[1:] == ["How old are you, Ada?"]


def many(town, count):
    """So many people's STARTs are dead letters. Put there as `bury` would, but in few round trips."""
    at = redis_client.server_time_ms(town.client)
    letters = [
        DeadLetter(
            id=f"e{i:08}", kind="event", reason="engine_error", sender=f"+336{i:08}", at=at, attempts=1, state=b"",
            what=keyspace.START_PREFIX + b"%013d" % at + encode_event(InboundSms(f"{i:016x}", "clinic", "START", start=True)),
        )
        for i in range(count)
    ]  # fmt: skip
    pipeline = town.client.pipeline(transaction=False)
    for place, letter in enumerate(letters):
        k = shard(town, letter.sender)
        pipeline.hset(keyspace.dead_letters_key(k), letter.id, encode_dead_letter(letter).content)
        pipeline.zadd(keyspace.dead_letter_index_key(k), {letter.id: at + place / 1_000})
        pipeline.hincrby(keyspace.dead_letter_reasons_key(k), "engine_error", 1)
    pipeline.execute()
    return letters


def test_ten_thousand_letters_are_replayed_at_once_or_at_a_rate(town):
    letters = many(town, 10_000)
    begun = monotonic()
    paced = outcomes(*(letter.id for letter in letters[:400]), "--rate", "400", status=0)
    assert (len(paced), monotonic() - begun >= 0.9) == (400, True)
    begun = process_time()
    assert Counter(outcomes("--all", status=0)) == {"advanced": 9_600}
    assert process_time() - begun < 30, "a hundred thousand take minutes"
    assert letters_of(town) == []
    assert town.said(letters[-1].sender) == ["What is your name?"]
    true_to_itself(town)


def test_starts_are_replayed_at_the_pace_of_their_channel_and_none_is_spent_on_a_refusal(deploy, impatient):
    town = deploy(new_sessions_per_minute=3)
    many(town, 10)
    assert Counter(outcomes("--all", status=1)) == {"advanced": 3, "busy": 7}
    assert len(letters_of(town)) == 7
    assert not any(
        isinstance(record, OpeningRefused)
        for letter in letters_of(town)
        for record in town.records(letter.sender)
    )


def test_a_dry_run_knows_that_the_days_sms_leave_no_room_for_a_session(deploy, impatient):
    town = deploy(sms_per_day=2)
    many(town, 3)
    looked = [each["outcome"] for each in told("replay", "--all", "--dry-run")]
    assert looked == ["advanced", "advanced", "busy"]
    assert outcomes("--all", status=1) == looked


def outcomes_of_all(town, *arguments):
    """What became of each letter. On a cluster, a command that met a server that did not answer says so, and is run again."""
    found = []

    def is_done():
        result = call(*arguments, "--json")
        found.extend(json.loads(line)["outcome"] for line in result.stdout.splitlines())
        return "run it again" not in result.stderr

    if not is_done():
        assert redis_client.is_cluster(town.client)
        until(is_done, 10, "it is done")
    return found


@pytest.mark.parametrize("function", ["commit", "discard_dead_letters", "claim_for_replay", "release_kept"])
def test_a_command_whose_replies_are_lost_does_all_of_it_once(town, failing, proxy, monkeypatch, function):
    people = [f"+336{i:08}" for i in range(5)]
    fell(town, failing, *people)
    town.deposit(CLARA, b"poison")
    town.drain()
    monkeypatch.setenv("PARLEY_REDIS_URL", proxy.url)
    proxy.lose_replies(f"_{function}\r\n".encode(), times=3)
    assert set(outcomes_of_all(town, "replay", "--reason", "engine_error", "--yes")) <= {"advanced", "gone"}
    assert "failing" in outcomes_of_all(town, "replay", "--reason", "undecodable", "--yes")
    outcomes_of_all(town, "drop", "--all", "--yes")
    assert proxy.lost
    for person in people:
        assert town.said(person) == ["What is your name?", "How old are you, Ada?"]
    audited = Counter(entry["outcome"] for entry in told("audit"))
    assert audited.pop("failing") == 1 or redis_client.is_cluster(town.client), "each time that it was run"
    assert audited == {"advanced": 5, "dropped": 1}
    assert letters_of(town) == []


def test_a_redis_that_goes_away_is_told_and_the_rest_is_replayed_later(town, failing, proxy, monkeypatch):
    fell(town, failing, ANNA, BORIS)
    monkeypatch.setenv("PARLEY_REDIS_URL", proxy.url)
    monkeypatch.setattr("workers.dead_letters.replay.REPLAY_BATCH", 1)
    proxy.lose_replies(b"_commit\r\n", times=100)
    failed = call("replay", "--all", "--yes", status=1)
    assert "run it again" in failed.stderr
    proxy.lose_replies(b"", times=0)
    lapse(town, ANNA, BORIS)
    assert set(outcomes("--all", status=0)) <= {"advanced"}
    for person in (ANNA, BORIS):
        assert town.said(person) == ["What is your name?", "How old are you, Ada?"]
    assert Counter(entry["outcome"] for entry in told("audit")) == {"advanced": 2}
