"""What an endpoint does wrong costs nothing but its position, and holds up nobody else."""

from collections import Counter
from threading import Event, Semaphore

import msgspec
import pytest

from config.store import keyspace
from tests.hooks.test_endpoint_client import listening
from tests.hooks.test_telling import EVENTS_OF_A_TALK, SHARDS, say, sender
from tests.support.hook_endpoint import Answer, hook_endpoint
from tests.support.telling import hook_to, telling
from tests.support.waiting import until
from workers.hooks import circuit, event_source
from workers.hooks.hook_store import HookStore
from workers.hooks.refused_events import event_of_letter
from workers.store import dead_letter_store

EVERYTHING = {f"s{n}": len(EVENTS_OF_A_TALK) for n in range(6)}


def letters_of(client):
    return [letter for k in range(SHARDS) for letter in dead_letter_store.scan_unordered(client, k)]


def distinct(endpoint):
    """How many different events were taken of each session."""
    return Counter(subject for subject, _ in {(event["subject"], event["id"]) for event in endpoint.taken})


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429, 301, 302, 307, 101, 0])
def test_what_an_endpoint_does_not_take_it_gets_again(client, status):
    failures = Semaphore(3)
    with hook_endpoint(
        lambda _: Answer(status) if failures.acquire(blocking=False) else Answer()
    ) as endpoint:
        say(client, range(6))
        with telling(client, SHARDS, [hook_to(endpoint)]):
            until(lambda: distinct(endpoint) == EVERYTHING, 20, "all is told")
        assert len(endpoint.taken) == sum(EVERYTHING.values())  # and none that was taken
        assert len(endpoint.requests) >= len(endpoint.taken) + 3
    assert letters_of(client) == []


def test_a_redirect_is_not_followed(client, endpoint):
    leads_away = Answer(307, headers={"Location": f"{endpoint.url}/elsewhere"})
    asked = Event()

    def answer(_):
        asked.set()
        return leads_away

    with hook_endpoint(answer) as redirecting:
        say(client, [1])
        with telling(client, SHARDS, [hook_to(redirecting)]):
            until(lambda: len(redirecting.requests) > 3, 10, "it is tried again")
    assert endpoint.requests == []


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413, 422])
def test_what_an_endpoint_refuses_for_good_is_a_dead_letter_with_its_answer(client, status):
    def answer(told):
        (event,) = told.events
        return Answer(status, b"no\nsuch\x00 answer") if event["type"] == "answer.given" else Answer()

    with hook_endpoint(answer) as endpoint:
        say(client, range(6))
        with telling(client, SHARDS, [hook_to(endpoint)]):
            until(lambda: distinct(endpoint) == {f"s{n}": 6 for n in range(6)}, 20, "the rest is told")
            until(lambda: len(letters_of(client)) == 6, 10, "what was refused is put aside")
        refused = [event for event in endpoint.of("/events") if event["type"] == "answer.given"]
    letters = {letter.session: letter for letter in letters_of(client)}
    assert len(refused) == 6  # each once
    for n in range(6):
        letter = letters[f"s{n}"]
        assert (letter.kind, letter.reason, letter.hook, letter.queue) == (
            "hook",
            "endpoint_refused",
            "crm",
            "hooks",
        )
        assert (letter.sender, letter.channel, letter.survey) == (sender(n), "clinic", "clinic")
        assert letter.code == str(status)
        assert letter.why.startswith(f"{status} ")
        assert letter.why.endswith(": no such? answer")


def test_of_a_batch_that_is_refused_the_rest_arrives(client):
    def answer(told):
        return Answer(422) if any(event["type"] == "answer.given" for event in told.events) else Answer()

    with hook_endpoint(answer) as endpoint:
        say(client, range(6))
        with telling(client, SHARDS, [hook_to(endpoint, batch=10)]):
            until(lambda: distinct(endpoint) == {f"s{n}": 6 for n in range(6)}, 20, "the rest is told")
            until(lambda: len(letters_of(client)) == 6, 10, "what was refused is put aside")
    assert {letter.session for letter in letters_of(client)} == {f"s{n}" for n in range(6)}


def test_an_endpoint_that_refuses_everything_costs_a_letter_a_probe_and_not_one_an_event(client):
    with hook_endpoint(lambda _: Answer(401)) as endpoint:
        say(client, range(200))
        with telling(client, SHARDS, [hook_to(endpoint)]):
            until(
                lambda: b'"level":' in (client.get(keyspace.hook_circuit_key("crm")) or b""), 10, "it opens"
            )
            before = len(endpoint.requests)
            until(lambda: len(endpoint.requests) >= before + 3, 10, "it is probed")
        assert len(letters_of(client)) < 200
        endpoint.answer = lambda _: Answer()
        refused = {event_of_letter(letter).id for letter in letters_of(client)}
        with telling(client, SHARDS, [hook_to(endpoint)]):
            until(
                lambda: len(refused | {event["id"] for event in endpoint.taken}) == 1400,
                20,
                "the rest is told",
            )
    assert len(letters_of(client)) == len(refused)


def test_one_that_is_slow_or_dead_holds_up_nobody_else(client, endpoint):
    go_on = Event()
    with (
        hook_endpoint(lambda _: Answer() if go_on.wait(60) else Answer(0)) as slow,
        hook_endpoint(lambda _: Answer(0)) as dead,
    ):
        say(client, range(6))
        hooks = [
            hook_to(endpoint, "well"),
            *(hook_to(slow, f"slow{n}", timeout_s=60) for n in range(20)),
            hook_to(dead, "dead"),
        ]
        with telling(client, SHARDS, hooks):
            until(lambda: distinct(endpoint) == EVERYTHING, 20, "the one that is well is told")
            say(client, range(6, 12))
            until(lambda: len(endpoint.taken) == 84, 20, "and goes on")
            until(lambda: len(slow.requests) == 20 * SHARDS, 10, "others wait for their answers")
            assert slow.taken == []
            go_on.set()
            until(
                lambda: len({(t.path, e["id"]) for t in slow.requests for e in t.events}) == 84,
                60,
                "and get all",
            )


def test_an_endpoint_that_flaps_is_left_alone_for_longer_and_longer_and_gets_all(client):
    works = Event()
    with hook_endpoint(lambda _: Answer() if works.is_set() else Answer(503)) as endpoint:
        say(client, range(6))
        with telling(client, SHARDS, [hook_to(endpoint)]):
            until(lambda: len(endpoint.requests) >= 10, 20, "it is tried")
            until(
                lambda: b'"level":' in (client.get(keyspace.hook_circuit_key("crm")) or b""), 10, "it opens"
            )
            works.set()
            until(lambda: distinct(endpoint) == EVERYTHING, 20, "all is told")
            until(lambda: client.get(keyspace.hook_circuit_key("crm")) is None, 10, "the circuit is closed")
    assert len(endpoint.taken) == 42


def test_an_endpoint_that_ends_connections_once_it_has_read_knows_repeats_by_their_ids(client):
    cut = Semaphore(10)
    kept = []

    def answer(told):
        kept.extend(told.events)
        return Answer(0) if cut.acquire(blocking=False) else Answer()

    with hook_endpoint(answer) as endpoint:
        say(client, range(6))
        with telling(client, SHARDS, [hook_to(endpoint)]):
            until(lambda: distinct(endpoint) == EVERYTHING, 20, "all is told")
    by_id = {event["id"]: event for event in kept}
    assert len(kept) == 52
    assert len(by_id) == 42
    assert all(by_id[event["id"]] == event for event in kept)


def test_while_an_operator_has_paused_it_it_is_told_nothing_and_afterwards_all(client, endpoint):
    store = HookStore(client, "operator")
    store.pause("crm", "the CRM moves house", "ada")
    say(client, range(6))
    hooks = [hook_to(endpoint), hook_to(endpoint, "other", "/other")]
    with telling(client, SHARDS, hooks):
        until(lambda: len(endpoint.of("/other")) == 42, 20, "the other is told")
        assert endpoint.of("/events") == []
        store.resume("crm")
        until(lambda: len(endpoint.of("/events")) == 42, 20, "it is told")


@pytest.mark.parametrize("answer", [b"x" * 3_000_000, b"\xff" * 70_000, b""])
def test_of_an_answer_no_more_is_read_than_an_operator_wants_to_see(client, answer):
    with hook_endpoint(lambda told: Answer(400, answer)) as endpoint:
        say(client, [1])
        with telling(client, SHARDS, [hook_to(endpoint, events=["session.ended"])]):
            until(lambda: letters_of(client), 20, "it is refused")
    (letter,) = letters_of(client)
    assert len(letter.why) <= 500


@pytest.mark.parametrize("deed", ["pause", "fail"])
def test_a_person_who_is_erased_while_an_endpoint_is_away_is_not_told_of_when_it_is_back(
    client, deed, monkeypatch
):
    monkeypatch.setattr(event_source, "PAGE_KEPT_S", 0.0)
    works = Event()
    with hook_endpoint(lambda _: Answer() if works.is_set() else Answer(500)) as endpoint:
        say(client, [1, 2])
        store = HookStore(client, "operator")
        with telling(client, SHARDS, [hook_to(endpoint)]) as process:
            until(lambda: endpoint.requests, 10, "it is tried")
            if deed == "pause":
                store.pause("crm", "x", "ada")
                runner = process._runners["crm"]
                until(lambda: runner._is_paused and not runner._busy, 10, "nothing is under way")
            else:
                until(lambda: len(endpoint.requests) > 8, 10, "it has failed for a while")
            key = keyspace.events_key(keyspace.shard_of(sender(1), SHARDS))
            theirs = [entry for entry, fields in client.xrange(key) if fields[b"to"].decode() == sender(1)]
            client.xdel(key, *theirs)
            tried = len(endpoint.requests)
            until(
                lambda: deed == "pause" or len(endpoint.requests) > tried + 2 * SHARDS, 10, "it is tried on"
            )
            works.set()
            store.resume("crm")
            until(lambda: distinct(endpoint)["s2"] == 7, 10, "the other is told of")
    assert distinct(endpoint) == {"s2": 7}


def test_an_endpoint_whose_words_are_no_text_is_an_endpoint_all_the_same(client, endpoint):
    def handle(connection):
        connection.recv(65_536)
        connection.sendall(
            "HTTP/1.1 422 Entit\u00e9 \u001b[31m\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
        )
        connection.close()

    with listening(handle) as (port, _):
        say(client, [1])
        hook = msgspec.structs.replace(
            hook_to(endpoint, events=["session.ended"]), url=f"http://127.0.0.1:{port}/"
        )
        with telling(client, SHARDS, [hook]):
            until(lambda: letters_of(client), 10, "it is refused")
    (letter,) = letters_of(client)
    assert letter.code == "422"
    assert letter.why.isprintable()


def test_of_batches_that_are_refused_the_rest_arrives_though_the_circuit_is_open(client, monkeypatch):
    """Each probe comes to something: what was refused together is not sent together again."""
    monkeypatch.setattr(circuit, "CIRCUIT_FAILURES", 1)
    monkeypatch.setattr(circuit, "CIRCUIT_FAILURES_SPAN_MS", 0)

    def answer(told):
        return Answer(422) if any(event["type"] == "answer.given" for event in told.events) else Answer()

    with hook_endpoint(answer) as endpoint:
        say(client, range(6))
        with telling(client, SHARDS, [hook_to(endpoint, batch=10)]):
            until(lambda: distinct(endpoint) == {f"s{n}": 6 for n in range(6)}, 20, "the rest is told")
            until(lambda: len(letters_of(client)) == 6, 10, "what was refused is put aside")
