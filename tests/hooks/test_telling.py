"""An endpoint is told what happens: all that it wants, in order for each person, and after a clean end nothing twice."""

from collections import Counter

import pytest

from config.store import keyspace
from engine.model.events import OpeningRefused, PersonOptedOut, SmsReceived
from tests.support.archiving import add_entries, talk
from tests.support.hook_endpoint import Answer, hook_endpoint
from tests.support.telling import PSEUDONYMS, hook_to, telling
from tests.support.waiting import until
from workers.hooks import endpoint_runner, event_source
from workers.hooks.hook_store import HookStore

SHARDS = 4
AT = 1_700_000_000_000
TAKEN, NOTHING = Answer(200), Answer(0)
EVENTS_OF_A_TALK = [
    "session.opened", "message.received", "message.sent", "message.received", "answer.given", "session.ended",
    "message.delivered",
]  # fmt: skip


def sender(n):
    return f"+336{n:08}"


def say(client, people, session="s"):
    """Let these people talk, each in their shard."""
    for n in people:
        add_entries(client, keyspace.shard_of(sender(n), SHARDS), sender(n), talk(f"{session}{n}", AT + n))


def types_by_person(events):
    found = {}
    for event in events:
        found.setdefault(event["data"]["pseudonym"], []).append(event["type"])
    return found


def positions_of(client, hook):
    return {int(k): at for k, at in client.hgetall(keyspace.hook_positions_key(hook)).items()}


def told_all(endpoint, count, deadline_s=20):
    return until(lambda: len(endpoint.taken) >= count and list(endpoint.taken), deadline_s, f"{count} events")


def test_everything_is_told_in_order_for_each_person(client, endpoint):
    say(client, range(20))
    with telling(client, SHARDS, [hook_to(endpoint)]):
        told_all(endpoint, 70)
        say(client, range(20, 40))
        told = told_all(endpoint, 280)
    assert types_by_person(told) == {PSEUDONYMS.of(sender(n)): EVENTS_OF_A_TALK for n in range(40)}
    assert len({event["id"] for event in told}) == 280
    for person in {event["partitionkey"] for event in told}:
        sequence = [event["sequence"] for event in told if event["partitionkey"] == person]
        assert sequence == sorted(sequence)


def test_after_a_clean_end_nothing_is_told_twice_and_nothing_is_left_out(client, endpoint):
    say(client, range(8))
    hook = hook_to(endpoint, events=["session.ended"])
    with telling(client, SHARDS, [hook]):
        told_all(endpoint, 8)
    say(client, range(8, 16))
    with telling(client, SHARDS, [hook]):
        told_all(endpoint, 16)
        say(client, range(16, 24))
        told_all(endpoint, 24)
    assert Counter(event["subject"] for event in endpoint.taken) == {f"s{n}": 1 for n in range(24)}


def test_a_new_endpoint_begins_now_unless_it_is_to_begin_at_the_beginning(client, endpoint):
    say(client, range(4))
    hooks = [hook_to(endpoint, "new", "/new", begin="now"), hook_to(endpoint, "old", "/old")]
    with telling(client, SHARDS, hooks):
        until(lambda: len(endpoint.of("/old")) == 28, 10, "one is told from the beginning")
        until(lambda: client.hlen(keyspace.hook_positions_key("new")) == SHARDS, 10, "the other has begun")
        say(client, range(4, 8))
        until(lambda: len(endpoint.of("/old")) == 56, 10, "both go on")
        until(lambda: len(endpoint.of("/new")) == 28, 10, "both go on")
    assert {event["subject"] for event in endpoint.of("/new")} == {"s4", "s5", "s6", "s7"}


def test_an_event_is_told_if_all_filters_let_it_through(client, endpoint):
    say(client, range(4))
    k = keyspace.shard_of(sender(9), SHARDS)
    add_entries(client, k, sender(9), [[PersonOptedOut(AT, "clinic", "o9", "STOP")]])
    add_entries(client, k, sender(9), [[SmsReceived(AT, "bank", "", "b9", "hello")]])
    hooks = [
        hook_to(endpoint, "all", "/all"),
        hook_to(endpoint, "ends", "/ends", events=["session.ended", "session.opened"]),
        hook_to(endpoint, "bank", "/bank", channels=["bank"]),
        hook_to(endpoint, "survey", "/survey", surveys=["clinic"]),
        hook_to(endpoint, "both", "/both", surveys=["clinic"], channels=["bank"]),
        hook_to(endpoint, "outs", "/outs", events=["optout.changed"], channels=["clinic", "bank"]),
    ]
    with telling(client, SHARDS, hooks):
        until(lambda: len(endpoint.of("/all")) == 30, 10, "all is told")
        until(lambda: len(endpoint.of("/survey")) == 28, 10, "the survey's is told")
        until(lambda: len(endpoint.of("/ends")) == 8, 10, "ends are told")
        until(lambda: len(endpoint.of("/bank")) == len(endpoint.of("/outs")) == 1, 10, "others are told")
    assert {event["type"] for event in endpoint.of("/ends")} == {"session.ended", "session.opened"}
    assert endpoint.of("/bank")[0]["data"]["text"] == "hello"
    assert endpoint.of("/both") == []
    assert endpoint.of("/outs")[0]["type"] == "optout.changed"


def test_an_endpoint_that_wants_nothing_of_what_happens_moves_on_all_the_same(client, endpoint):
    say(client, range(4))
    with telling(client, SHARDS, [hook_to(endpoint, channels=["bank"])]):
        spoken = {keyspace.shard_of(sender(n), SHARDS) for n in range(4)}
        last = {k: client.xinfo_stream(keyspace.events_key(k))["last-generated-id"] for k in spoken}
        until(lambda: last.items() <= positions_of(client, "crm").items(), 10, "it has moved on")
    assert endpoint.requests == []


def test_how_far_it_is_is_known_though_what_came_last_was_not_wanted_and_nothing_follows(
    client, endpoint, monkeypatch
):
    """Its position is stored after a moment, or it would seem to be behind."""
    monkeypatch.setattr(endpoint_runner, "SKIPPED_COMMIT_INTERVAL_S", 0.2)
    shard = keyspace.shard_of(sender(1), SHARDS)

    def is_at_the_end():
        last = client.xinfo_stream(keyspace.events_key(shard))["last-generated-id"]
        return positions_of(client, "crm").get(shard) == last

    with telling(client, SHARDS, [hook_to(endpoint, channels=["bank"])]):
        for session in "abc":
            say(client, [1], session)
            until(is_at_the_end, 10, "it is known to have moved on")


def test_batches_have_as_many_events_as_they_may_and_are_in_order(client, endpoint):
    say(client, range(40))
    with telling(client, SHARDS, [hook_to(endpoint, batch=25)]):
        told = told_all(endpoint, 280)
    assert types_by_person(told) == {PSEUDONYMS.of(sender(n)): EVENTS_OF_A_TALK for n in range(40)}
    assert max(len(request.events) for request in endpoint.requests) <= 25
    assert len(endpoint.requests) <= 20  # 12 are full, and entries are not parted
    assert {request.headers["content-type"] for request in endpoint.requests} == {
        "application/cloudevents-batch+json; charset=utf-8"
    }


def test_numbers_are_told_to_those_alone_who_may_see_them(client, endpoint):
    say(client, [1])
    hooks = [hook_to(endpoint, "told", "/told", numbers=True), hook_to(endpoint, "hidden", "/hidden")]
    with telling(client, SHARDS, hooks):
        until(lambda: len(endpoint.of("/told")) == len(endpoint.of("/hidden")) == 7, 10, "both are told")
    assert {event["data"]["identifier"] for event in endpoint.of("/told")} == {sender(1)}
    assert {event["data"]["pseudonym"] for event in endpoint.of("/hidden")} == {PSEUDONYMS.of(sender(1))}
    assert sender(1)[1:] not in repr([request for request in endpoint.requests if request.path == "/hidden"])


def test_a_session_is_told_with_what_it_is_though_its_opening_was_told_before(client, endpoint):
    opening, *rest = talk("s1", AT)
    k = keyspace.shard_of(sender(1), SHARDS)
    add_entries(client, k, sender(1), [opening])
    hook = hook_to(endpoint)
    with telling(client, SHARDS, [hook]):
        told_all(endpoint, 2)
    add_entries(client, k, sender(1), rest)
    with telling(client, SHARDS, [hook]):  # it has not seen the opening
        told = told_all(endpoint, 7)
    assert {event["data"]["survey"] for event in told} == {"clinic"}
    sent = next(event for event in told if event["type"] == "message.sent")
    assert sent["data"]["text"] == "What is your temperature?"


def test_what_cannot_be_read_is_told_to_nobody_and_holds_up_nobody(client, endpoint):
    k = keyspace.shard_of(sender(1), SHARDS)
    client.xadd(keyspace.events_key(k), {"to": sender(1), "e": b"\xc1 nonsense"})
    client.xadd(keyspace.events_key(k), {"of": "another program"})
    say(client, [1])
    with telling(client, SHARDS, [hook_to(endpoint)]):
        told = told_all(endpoint, 7)
    assert [event["type"] for event in told] == EVENTS_OF_A_TALK


def test_a_refused_start_is_nobodys_event_and_a_refused_invitation_is(client, endpoint):
    k = keyspace.shard_of(sender(1), SHARDS)
    add_entries(client, k, sender(1), [[OpeningRefused(AT, "clinic", "r1", "cooldown")]])
    say(client, [1])
    with telling(client, SHARDS, [hook_to(endpoint)]):
        told = told_all(endpoint, 7)
    assert [event["type"] for event in told] == EVENTS_OF_A_TALK


@pytest.mark.parametrize("endpoints", [200])
def test_two_hundred_endpoints_are_told_all_though_some_are_dead(client, endpoints):
    def answer(told):
        number = int(told.path.removeprefix("/"))
        return NOTHING if number % 10 == 0 else TAKEN

    with hook_endpoint(answer) as endpoint:
        hooks = [
            hook_to(endpoint, f"h{n}", f"/{n}", events=["session.ended"], connections=2)
            for n in range(endpoints)
        ]
        with telling(client, SHARDS, hooks):
            say(client, range(10))
            alive = [n for n in range(endpoints) if n % 10]
            until(lambda: len(endpoint.taken) >= 10 * len(alive), 60, "all that live are told")
    for n in alive:
        assert {event["subject"] for event in endpoint.of(f"/{n}")} == {f"s{p}" for p in range(10)}


def test_a_page_that_another_endpoint_has_read_before_is_not_taken_for_all_there_is(
    client, endpoint, monkeypatch
):
    monkeypatch.setattr(event_source, "PAGE_KEPT_S", 600)
    store = HookStore(client, "operator")
    store.pause("late", "it is late", "ada")
    say(client, [1])
    with telling(client, SHARDS, [hook_to(endpoint, "soon", "/soon"), hook_to(endpoint, "late", "/late")]):
        until(lambda: len(endpoint.of("/soon")) == 7, 10, "one is told")
        say(client, [1], "t")
        until(lambda: len(endpoint.of("/soon")) == 14, 10, "and goes on")
        store.resume("late")
        until(lambda: len(endpoint.of("/late")) == 14, 10, "the other is told all")
