"""kill -9 of `hooks` at every step, while Redis or the archive goes away, beside others that are late: each event arrives, what
comes again is known by its id, and each person's events come in order."""

import signal
from collections import Counter
from threading import Event

import pytest
import requests

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace, redis_client
from config.store.entry_id import BEGINNING
from tests.hooks.test_telling import AT, EVENTS_OF_A_TALK, sender
from tests.support import clinic
from tests.support.archiving import add_entries, talk
from tests.support.hook_endpoint import SECRET, Answer, hook_endpoint
from tests.support.octopush import Faults
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.proxy import Proxy
from tests.support.waiting import until
from workers.hooks.hook_store import HookStore
from workers.store import dead_letter_store

SHARDS = DEFAULT_SHARDS
CONNECTIONS = 4
MOST_EVENTS_OF_AN_ENTRY = 3  # of a talk
PLACES = (
    "after_take_hook",
    "before_hook_request",
    "after_hook_request",
    "before_hook_commit",
    "after_hook_commit",
    "before_hook_letter",
    "after_hook_letter",
)
ENDPOINT = f"""
[hooks.crm]
url = "%s"
secret_env = "PARLEY_CRM_SECRET"
begin = "beginning"
connections = {CONNECTIONS}
"""


@pytest.fixture
def endpoint():
    with hook_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def deployment(own_valkey, octopush, endpoint):
    """As ever, with an endpoint that sees numbers: it needs no archive, as there is none."""
    environment = {
        "PARLEY_HOOKS_ALLOW_PRIVATE": "1",
        "PARLEY_CRM_SECRET": SECRET,
        "PARLEY_SHARDS": str(SHARDS),  # or what is said before anybody starts would be taken for 0.1.0's
    }
    with Deployment(own_valkey.url, own_valkey.broker_url, octopush, environment=environment) as deployment:
        configure(deployment, endpoint, "numbers = true")
        yield deployment


@pytest.fixture
def client(own_valkey):
    return own_valkey.client()


def configure(deployment, endpoint, *more):
    """Have it tell `crm`, and nobody else."""
    file = deployment.folder / "parley.toml"
    before = file.read_text().partition("\n[hooks.")[0]
    file.write_text("\n".join([before + ENDPOINT % f"{endpoint.url}/crm", *more, ""]))


def say(client, people, entries=slice(None), session="s"):
    """Let these people talk, each in their shard; or some entries of what they say."""
    for n in people:
        k = keyspace.shard_of(sender(n), SHARDS)
        add_entries(client, k, sender(n), talk(f"{session}{n}", AT + n)[entries])


def expected(people, session="s"):
    """(session, type of event), of each the number."""
    return Counter((f"{session}{n}", kind) for n in people for kind in EVENTS_OF_A_TALK)


def arrived(endpoint, path="/crm"):
    """As `expected`, without repeats. What the endpoint refused or lost has arrived too."""
    return Counter((event["subject"], event["type"]) for event in first_arrivals(endpoint, path))


def first_arrivals(endpoint, path="/crm"):
    """Events in the order in which they came first."""
    return list({event["id"]: event for event in reversed(endpoint.of(path))}.values())[::-1]


def arrives(endpoint, people, path="/crm"):
    until(lambda: arrived(endpoint, path) == expected(people), 30, "all is told")


def judge(endpoint, path="/crm", repeats=0):
    """In order for each person; and what came again, and that was not too much, was the same."""
    told = endpoint.of(path)
    firsts = {}
    sequences = {}
    for event in told:
        if event["id"] not in firsts:
            sequences.setdefault(event["partitionkey"], []).append(event["sequence"])
        assert firsts.setdefault(event["id"], event) == event
    assert all(each == sorted(each) for each in sequences.values())
    assert len(told) - len(firsts) <= repeats


def free(client, hook="crm"):
    """Let another have the endpoint, as time does."""
    client.delete(keyspace.hook_lease_key(hook))


def slow_down(endpoint):
    """Let it take a while over each request, until what this answers is set."""
    hurries = Event()

    def answer(_):
        hurries.wait(0.05)
        return Answer()

    endpoint.answer = answer
    return hurries


def letters_of(client):
    return [letter for k in range(SHARDS) for letter in dead_letter_store.scan_unordered(client, k)]


def is_at_the_end(client, hook="crm"):
    """Are the endpoint's positions where the streams end?"""
    positions = {int(k): at for k, at in client.hgetall(keyspace.hook_positions_key(hook)).items()}
    ends = {k: client.xrevrange(keyspace.events_key(k), count=1) for k in range(SHARDS)}
    return all(positions.get(k) == last[0][0] for k, last in ends.items() if last)


# kill -9


@pytest.mark.parametrize("batch", [1, 10])
@pytest.mark.parametrize("place", PLACES)
def test_a_death_anywhere_leaves_nothing_out_and_repeats_what_was_under_way(
    deployment, client, endpoint, place, batch
):
    """What is refused for good has one letter, however often it was sent."""
    configure(deployment, endpoint, "numbers = true", f"batch = {batch}")
    refuses = "letter" in place

    def answer(told):
        return Answer(422) if refuses and any(e["type"] == "answer.given" for e in told.events) else Answer()

    endpoint.answer = answer
    say(client, range(12))
    victim = deployment.spawn("hooks", f"{place}@{1 if place == 'after_take_hook' else 3}")
    victim.wait_dead()
    say(client, range(12, 18))
    free(client)
    victim.restart()
    arrives(endpoint, range(18))
    until(lambda: is_at_the_end(client), 30, "it is known that all is told")
    if refuses:  # each of a batch that is refused is sent again, alone
        assert Counter(letter.session for letter in letters_of(client)) == {f"s{n}": 1 for n in range(18)}
        judge(endpoint, repeats=len(endpoint.of("/crm")))
    else:
        judge(endpoint, repeats=CONNECTIONS * (batch if batch > 1 else MOST_EVENTS_OF_AN_ENTRY))
        assert letters_of(client) == []
    assert victim.alive


def test_who_dies_on_and_on_comes_to_the_end_all_the_same(deployment, client, endpoint):
    """Two processes: one that dies each time that it has told something, and another."""
    say(client, range(12))
    victim = deployment.spawn("hooks", "after_hook_commit@2")
    other = deployment.spawn("hooks")
    for _ in range(6):
        until(lambda: not victim.alive or arrived(endpoint) == expected(range(12)), 30, "it dies")
        free(client)
        if not victim.alive:
            victim.restart("after_hook_commit@2")
    arrives(endpoint, range(12))
    judge(endpoint, repeats=7 * CONNECTIONS * MOST_EVENTS_OF_AN_ENTRY)
    assert other.alive


# SIGSTOP


@pytest.mark.parametrize("place", ["before_hook_request", "after_hook_request", "before_hook_commit"])
def test_one_that_stands_still_moves_nothing_back_when_it_wakes(deployment, client, endpoint, place):
    say(client, range(12))
    late = deployment.spawn("hooks", f"stop:{place}@3")
    late.wait_stopped()
    free(client)
    other = deployment.spawn("hooks")
    say(client, range(12, 18))
    arrives(endpoint, range(18))
    until(lambda: is_at_the_end(client), 30, "it is known that all is told")
    late.sigcont()
    late.terminate()  # it ends what it was about to do
    assert is_at_the_end(client)
    say(client, range(18, 24))
    arrives(endpoint, range(24))
    judge(endpoint, repeats=CONNECTIONS * MOST_EVENTS_OF_AN_ENTRY)
    assert other.alive


@pytest.mark.parametrize("place", ["after_hook_request", "before_hook_commit"])
def test_one_that_stands_still_moves_nothing_forward_that_was_put_back(deployment, client, endpoint, place):
    say(client, range(12))
    late = deployment.spawn("hooks", f"stop:{place}@5")
    late.wait_stopped()
    operator = HookStore(client, "operator")
    operator.pause("crm", "it is put back", "ada")
    operator.rewind("crm", dict.fromkeys(range(SHARDS), BEGINNING))
    before = len(endpoint.requests)
    late.sigcont()
    late.terminate()
    assert set(operator.load("crm", 0).positions.values()) == {BEGINNING}
    assert before > 0
    operator.resume("crm")
    deployment.spawn("hooks")
    arrives(endpoint, range(12))
    until(lambda: len(endpoint.of("/crm")) >= before + 12 * len(EVENTS_OF_A_TALK), 30, "it is told again")


# SIGTERM


def test_one_that_is_told_to_end_ends_what_it_has_begun_and_nothing_is_told_twice(
    deployment, client, endpoint
):
    """Though each request takes a while, and an entry takes several."""
    hurries = slow_down(endpoint)
    say(client, range(60))
    process = deployment.spawn("hooks")
    for told in (20, 60, 120):
        until(lambda told=told: len(endpoint.requests) >= told, 30, "it is under way")
        process.signal(signal.SIGTERM)
        assert process.wait_dead() == 0
        assert client.get(keyspace.hook_lease_key("crm")) is None
        assert not is_at_the_end(client), "it was under way"
        process.restart()
    hurries.set()
    arrives(endpoint, range(60))
    judge(endpoint, repeats=0)


def test_an_endpoint_that_never_answers_keeps_nobody_from_ending_in_time(deployment, client, endpoint):
    answered = Event()
    endpoint.answer = lambda _: Answer() if answered.wait(60) else Answer(0)
    say(client, range(12))
    process = deployment.spawn("hooks")
    until(lambda: len(endpoint.requests) == CONNECTIONS, 30, "requests are under way")
    process.signal(signal.SIGTERM)
    assert process.wait_dead() == 0, "it was not ended by force"
    assert client.get(keyspace.hook_lease_key("crm")) is None
    answered.set()
    process.restart()
    arrives(endpoint, range(12))
    judge(endpoint, repeats=CONNECTIONS)


# Redis


def test_a_redis_that_is_started_again_with_all_that_it_had_costs_nothing(
    deployment, own_valkey, client, endpoint
):
    say(client, range(12))
    hurries = slow_down(endpoint)
    process = deployment.spawn("hooks")
    until(lambda: len(endpoint.requests) >= 20, 30, "it is under way")
    own_valkey.kill9()
    until(lambda: b"no endpoint is looked after" in process.log.read_bytes(), 30, "it says so")
    told = len(endpoint.requests)
    own_valkey.start()
    hurries.set()
    say(own_valkey.client(), range(12, 18))
    arrives(endpoint, range(18))
    judge(endpoint, repeats=0)
    assert told < len(endpoint.requests)
    assert process.alive


@pytest.mark.one_server("it cuts the end off the append-only file")
def test_what_follows_a_lost_tail_is_told(deployment, own_valkey, client, endpoint):
    """A server comes back without the last of it, as one that was promoted, and its clock is behind: what happens now has ids
    below those that the endpoint was told."""
    say(client, range(6))
    process = deployment.spawn("hooks")
    arrives(endpoint, range(6))
    until(lambda: is_at_the_end(client), 30, "it is known that all is told")
    (file,) = (own_valkey.folder / "appendonlydir").glob("*.incr.aof")
    before = file.stat().st_size
    ahead_ms = redis_client.server_time_ms(client) + 60_000
    for n in range(6):
        k = keyspace.shard_of(sender(n), SHARDS)
        ids = [f"{ahead_ms + n}-{place}" for place in range(4)]
        add_entries(client, k, sender(n), talk(f"lost{n}", AT + n), ids)
    told = expected(range(6)) + expected(range(6), "lost")
    until(lambda: arrived(endpoint) == told, 30, "it is told what will be lost")
    own_valkey.kill9()
    with file.open("r+b") as aof:
        aof.truncate(before)
    own_valkey.start()
    say(own_valkey.client(), range(6), session="new")
    told += expected(range(6), "new")
    until(lambda: arrived(endpoint) == told, 30, "it is told what happens now")
    assert process.alive


# The archive


@pytest.fixture
def proxy(own_postgresql):
    with Proxy(own_postgresql.url()) as proxy:
        yield proxy


@pytest.fixture
def outage(request, own_postgresql, proxy):
    """How the archive goes away, and comes back."""
    return {
        "gone": (own_postgresql.stop, own_postgresql.start),
        "hanging": (proxy.swallow, proxy.spit_out),
    }[request.param]


@pytest.mark.parametrize("outage", ["gone", "hanging"], indirect=True)
def test_while_the_archive_is_away_endpoints_that_need_nothing_of_it_go_on(
    deployment, client, endpoint, own_postgresql, proxy, outage
):
    """Sessions that were opened before the process began are known from the stream. What was trimmed waits, and holds up
    nobody else."""
    configure(
        deployment,
        endpoint,
        "[hooks.late]",
        f'url = "{endpoint.url}/late"',
        'secret_env = "PARLEY_CRM_SECRET"',
        'begin = "beginning"',
    )
    HookStore(client, "operator").pause("late", "it is late", "ada")
    goes, comes_back = outage
    postgresql_url = own_postgresql.url(own_postgresql.create_database(), proxy.port)
    archiving = deployment.spawn("archive", PARLEY_ARCHIVE_URL=postgresql_url)
    say(client, range(4))
    say(client, range(4, 8), slice(1))
    until(lambda: is_archived(client), 30, "all is archived")
    process = deployment.spawn("hooks", PARLEY_ARCHIVE_URL=postgresql_url)
    until(lambda: is_at_the_end(client), 30, "it is told what there is")
    process.terminate()
    archiving.terminate()
    for n in range(4):
        client.xtrim(keyspace.events_key(keyspace.shard_of(sender(n), SHARDS)), maxlen=0, approximate=False)
    process.restart()
    until(lambda: client.get(keyspace.hook_lease_key("crm")), 30, "it has found the archive")
    goes()
    say(client, range(4, 8), slice(1, None))
    say(client, range(8, 12))
    say(client, range(4), session="t")
    everything = expected(range(12)) + expected(range(4), "t")
    until(lambda: arrived(endpoint) == everything, 30, "it goes on")
    assert {event["data"]["survey"] for event in endpoint.of("/crm")} == {"clinic"}
    HookStore(client, "operator").resume("late")
    until(
        lambda: b"endpoints are not told" in process.log.read_bytes(), 30, "the other waits for the archive"
    )
    assert not {f"s{n}" for n in range(4)} & {event["subject"] for event in endpoint.of("/late")}
    comes_back()
    until(lambda: arrived(endpoint, "/late") == everything, 30, "the other is told all")
    judge(endpoint)
    judge(endpoint, "/late")
    by_id = {event["id"]: event for event in endpoint.of("/crm")}
    assert all(by_id[event["id"]] == event for event in endpoint.of("/late"))
    assert process.alive


def is_archived(client):
    """Does Redis know that the archive has all?"""
    ends = {k: client.xrevrange(keyspace.events_key(k), count=1) for k in range(SHARDS)}
    known = {k: client.get(keyspace.archived_key(k)) for k in ends}
    return all(known[k] and known[k].split()[0] == last[0][0] for k, last in ends.items() if last)


def test_before_there_is_an_archive_nobody_is_told_pseudonyms_and_then_all(
    deployment, client, endpoint, tmp_path
):
    configure(deployment, endpoint)
    say(client, range(6))
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    process = deployment.spawn("hooks", PARLEY_ARCHIVE_URL=url)
    until(lambda: b"before there is the archive" in process.log.read_bytes(), 30, "it waits")
    assert endpoint.requests == []
    deployment.spawn("archive", PARLEY_ARCHIVE_URL=url)
    arrives(endpoint, range(6))
    judge(endpoint)


# All of it


def test_an_endpoint_is_told_of_conversations_as_they_go_on_though_who_tells_it_dies(
    deployment, play, client, endpoint
):
    configure(deployment, endpoint)
    deployment.start(hooks=0)
    victim = deployment.spawn("hooks", "after_hook_request@9")
    with deployment.respawning():
        died = victim.pid
        play.hold(range(6))
        until(lambda: victim.pid != died, 30, "it has died")
        free(client)
        until(lambda: count_of(endpoint, "session.ended") == 6, 60, "all ends are told")
        until(lambda: count_of(endpoint, "message.sent") == 24, 30, "all that was sent is told")
    play.judge()
    told = {}
    for event in first_arrivals(endpoint):
        told.setdefault(event["partitionkey"], []).append(event["type"])
    assert len(told) == 6
    for types in told.values():
        assert types[0] == "session.opened"
        assert [each for each in types if each.startswith(("session", "answer"))] == [
            "session.opened", "answer.given", "answer.given", "answer.given", "session.ended",
        ]  # fmt: skip
    judge(endpoint, repeats=2 * CONNECTIONS * MOST_EVENTS_OF_AN_ENTRY)


def count_of(endpoint, kind):
    return sum(event["type"] == kind for event in first_arrivals(endpoint))


def test_an_endpoint_is_told_of_a_dead_letter(deployment, octopush, endpoint):
    configure(deployment, endpoint, 'events = ["dead_letter.added"]')
    deployment.start()
    octopush.control(Faults(reject=1))
    body = inbound(clinic.number(1), "START")
    assert requests.post(deployment.webhook, data=body, timeout=60).status_code == 200
    until(lambda: endpoint.taken, 60, "it is told")
    (event,) = endpoint.taken
    assert (event["type"], event["data"]["kind"], event["data"]["survey"]) == (
        "dead_letter.added",
        "sms",
        "clinic",
    )
