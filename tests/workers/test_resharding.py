"""Lanes are divided into more shards: whatever lies in Redis lies where it belongs afterwards, as it was, wherever the process
dies meanwhile."""

import random
import string
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.settings.shard_count import division_mark
from config.store import keyspace, redis_client
from tests.recorded import reading
from tests.support.clusters import ValkeyCluster
from tests.support.dying_redis import DiedError, dying_client
from tests.support.example_counts import examples
from workers.resharding import key_moves
from workers.resharding.census import find_differences, take_census
from workers.resharding.resharding import (
    MiscountError,
    begin_division,
    divide_lanes,
    end_division,
)
from workers.resharding.shard_split import ShardSplit, UnsplittableError, require_split
from workers.store.dead_letter_store import DeadLetter, encode_dead_letter

OLD, NEW = 2, 6
SPLIT = ShardSplit(OLD, NEW)
AT = 2_000_000_000_000
"""A moment that is to come."""

LAST = f"{AT}-7"


def shard(sender):
    return keyspace.shard_of(sender, OLD)


def fill(server, senders, seed=0):
    """A deployment of these people, with something of each kind of key."""
    with server.pipeline() as filling:
        _fill(filling, senders, random.Random(seed))
        filling.execute()


def _fill(client, senders, some):
    client.set(keyspace.SHARDS_KEY, OLD)
    for k in range(OLD):
        client.set(keyspace.fence_key(k), AT + k)
        client.hset(keyspace.server_key(k), mapping={"admitted": f"server {k}", "void": f"{k} {AT}"})
        client.xadd(keyspace.dead_letter_audit_key(k), {"id": "e:1", "by": "ada"}, f"{AT}-0")
        client.hset(keyspace.hook_positions_key("crm"), k, f"{AT + k}-0")
        client.hset(keyspace.campaigns_key(k), "spring", f"counts of {k}")
    client.hset(keyspace.dead_letters_key(0), "unreadable", b"\xc1")
    client.zadd(keyspace.dead_letter_index_key(0), {"unreadable": 1.5})
    for place, sender in enumerate(senders):
        fill_person(client, sender, place, some)
    for k in range(OLD):
        client.xadd(keyspace.events_key(k), {"e": "of nobody"}, f"{AT + 90}-{k}")
        client.xadd(keyspace.events_key(k), {"to": "", "e": ""}, f"{AT + 99}-{k}")
        client.xdel(keyspace.events_key(k), f"{AT + 99}-{k}")
        client.set(keyspace.archived_key(k), f"{AT + 2}-0 2")


def fill_person(client, sender, place, some):
    k = shard(sender)
    client.rpush(keyspace.mailbox_key(k, sender), *(f"R{place} {at}" for at in range(some.randint(1, 3))))
    client.set(keyspace.lane_key(k, sender), some.randbytes(20), pxat=AT + place)
    client.set(keyspace.lane_lock_key(k, sender), f"7 {AT} 1 0 me", pxat=AT)
    client.rpush(keyspace.outbox_key(k, sender), b"clinic\0" + some.randbytes(9))
    client.set(keyspace.outbox_lock_key(k, sender), f"0 {AT} 1 0 again")
    client.rpush(keyspace.failed_attempts_key(k, sender), "failed")
    client.rpush(keyspace.tickets_key(k, sender), "ticket")
    client.zadd(keyspace.lane_alarms_key(k), {sender: AT + place + 0.5})
    client.zadd(keyspace.outbox_alarms_key(k), {sender: AT - place})
    client.xadd(keyspace.events_key(k), {"to": sender, "e": some.randbytes(5)}, f"{AT + place}-0")
    client.set(keyspace.session_key(k, f"s{place}"), f"{AT} {sender}", pxat=AT + 5)
    client.set(keyspace.session_key(k, f"forgotten{place}"), "", pxat=AT + 6)
    client.set(keyspace.reference_key(OLD, f"r{place}"), "a fingerprint")
    client.hset(keyspace.held_invitations_key(k), f"i{place}", f"{sender}\0{AT}an event")
    client.zadd(keyspace.held_ids_key(k, some.choice(["clinic", "phones"])), {f"i{place}": AT + place})
    client.hset(keyspace.campaign_sessions_key(k), f"s{place}", f"open clinic clinic {place}")
    client.hset(keyspace.optouts_key(k), f"hash of {place}", "{}")
    client.zadd(keyspace.applied_events_key(k, f"hash of {place}"), {b"\0\xff": AT})
    reason = some.choice(["engine_error", "rejected"])
    letter = encode_dead_letter(
        DeadLetter(id=f"e:{place}", kind="event", reason=reason, sender=sender, at=AT, attempts=5, what=b"?")
    )
    client.hset(keyspace.dead_letters_key(k), letter.id, letter.content)
    client.zadd(keyspace.dead_letter_index_key(k), {letter.id: AT + place / 1_000})
    client.hincrby(keyspace.dead_letter_reasons_key(k), reason, 1)


def contents(client):
    """Key -> value and, of what goes by itself, when."""
    names = sorted(client.scan_iter(count=1_000))
    return {
        reading.text(name): (reading.sample("lanes", client, name)["value"], client.pexpiretime(name))
        for name in names
    }


def belongs(before, client):
    """What must lie where after SPLIT, said without the code under test: by key, by member, by entry."""
    after = {}

    def put(k, name, value, until=-1):
        after[f"{{{k}}}:{name}"] = (value, until)

    def add(k, name, members):
        known, _ = after.get(f"{{{k}}}:{name}", ([], -1))
        put(k, name, sorted([*known, *members]))

    people = _senders(before)
    of = {sender: keyspace.shard_of(reading.raw(sender).decode(), NEW) for sender in people}
    whose = {f"e:{place}": sender for place, sender in enumerate(people)}
    for name, (value, until) in before.items():
        if not name.startswith("{") or name.startswith("{hook"):
            continue
        k, rest = int(name[1 : name.index("}")]), name[name.index(":") + 1 :]
        kind, _, owner = rest.partition(":")
        parts = [part for part in range(NEW) if part % OLD == k]
        match kind:
            case "mail" | "lane" | "lock" | "outbox" | "outbox-lock" | "tries" | "tickets":
                put(of[owner], rest, value, until)
            case "reference":
                put(keyspace.shard_of(owner, NEW), rest, value, until)
            case "session" if value:
                put(of[value.partition(" ")[2]], rest, value, until)
            case "session" | "applied" | "optouts" | "fence" | "server":
                for part in parts:
                    put(part, rest, value, until)
            case "alarms" | "outbox-alarms":
                for sender, at in value:
                    add(of[sender], rest, [[sender, at]])
            case "held-mail":
                for identity, held in value:
                    add(of[held.partition("\0")[0]], rest, [[identity, held]])
            case "held":
                for identity, at in value:
                    add(of[people[int(identity[1:])]], rest, [[identity, at]])
            case "dead":
                for identity, letter in value:
                    add(of[whose[identity]] if identity in whose else k, rest, [[identity, letter]])
                    if identity in whose:
                        reason = "rejected" if "rejected" in letter else "engine_error"
                        part = of[whose[identity]]
                        counts = dict(after.get(f"{{{part}}}:dead-reasons", ([], -1))[0])
                        counts[reason] = str(int(counts.get(reason, 0)) + 1)
                        put(part, "dead-reasons", sorted([reason, many] for reason, many in counts.items()))
            case "dead-index":
                for identity, place in value:
                    add(of[whose[identity]] if identity in whose else k, rest, [[identity, place]])
            case "events":
                for part in parts:
                    theirs = [entry for entry in value if of.get(dict(entry[1]).get("to", ""), k) == part]
                    put(part, rest, theirs)
                    unarchived = sum(int(entry[0].partition("-")[0]) > AT + 2 for entry in theirs)
                    put(part, "archived", f"{AT + 2}-0 {len(theirs) - unarchived}")
            case "campaign-sessions":
                for session, line in value:
                    add(of[people[int(session[1:])]], rest, [[session, line]])
            case "dead-audit" | "campaigns":
                put(k, rest, value, until)
    positions = dict(before["{hook:crm}:positions"][0])
    after["{hook:crm}:positions"] = (
        sorted([str(part), positions[str(part % OLD)]] for part in range(NEW)),
        -1,
    )
    after["shards"] = (str(NEW), -1)
    return after


def _senders(before):
    """Everybody, by their place, as `contents` spells them."""
    places = {
        int(identity[2:]): letter
        for k in range(OLD)
        for identity, letter in before.get(f"{{{k}}}:dead", ([], -1))[0]
        if identity != "unreadable"
    }
    letters = [reading.READERS["dead"](reading.raw(places[place])) for place in sorted(places)]
    return [reading.text(letter["sender"].encode()) for letter in letters]


def without_order(found):
    return {name: (sorted(value) if isinstance(value, list) and "mail:" not in name and not name.endswith(":events") else value, until)
            for name, (value, until) in found.items()}  # fmt: skip


def divide(client, split=SPLIT):
    """As the command does it, again after a death."""
    if client.get(keyspace.SHARDS_KEY) != division_mark(*split).encode():
        begin_division(client, split, 0)
    divide_lanes(client, split, 0, lambda _: None)
    end_division(client, split, 0)


PEOPLE = [f"+336{at:08}" for at in range(9)]
NAMES = st.lists(
    st.text(st.sampled_from(string.digits + "+:{} aé"), min_size=1, max_size=12),
    min_size=1,
    max_size=20,
    unique=True,
)  # fmt: skip


@settings(max_examples=examples(25))
@given(senders=NAMES, seed=st.integers(0, 9))
def test_everything_lies_where_it_belongs_as_it_was(valkey_server, senders, seed):
    client = valkey_server.client()
    client.flushall()
    fill(client, senders, seed)
    before = contents(client)
    divide(client)
    assert without_order(contents(client)) == without_order(belongs(before, client))
    for k in range(NEW):
        shown = client.xinfo_stream(keyspace.events_key(k))
        assert shown["last-generated-id"] == f"{AT + 99}-{k % OLD}".encode(), "and no id is given out twice"
        assert shown["max-deleted-entry-id"] == shown["last-generated-id"], "and nothing is taken for lost"
    client.close()


def test_wherever_it_dies_the_next_run_goes_on(valkey, monkeypatch):
    monkeypatch.setattr(key_moves, "KEYS_A_STEP", 20)
    client = valkey.client()
    fill(client, PEOPLE)
    before = contents(client)
    expected = without_order(belongs(before, client))
    dying = dying_client(valkey.client())
    lives, ended = 0, False
    while not ended:
        client.flushall()
        fill(client, PEOPLE)
        dying.lives = lives
        try:
            divide(dying)
            ended = True
        except DiedError:
            dying.lives = lives * 2 // 3  # and once more
            with suppress(DiedError):
                divide(dying)
            if client.get(keyspace.SHARDS_KEY) != b"%d" % NEW:
                divide(client)
        client.delete(keyspace.RESHARDING_KEY)  # may be left by the last command of all
        assert without_order(contents(client)) == expected, f"it died after {lives} commands"
        lives += 1 + lives // 8
    dying.close()
    assert lives > 200


def test_what_expires_meanwhile_is_not_missed(valkey):
    client = valkey.client()
    fill(client, PEOPLE)
    client.set("{0}:lock:gone", "", px=3_600_000)
    begin_division(client, SPLIT, 0)
    for sender in PEOPLE[:3]:
        client.delete(keyspace.lane_lock_key(shard(sender), sender))
    with pytest.raises(MiscountError) as miscount:
        divide_lanes(client, SPLIT, 0, lambda _: None)
    assert miscount.value.differing == ["lock"]


def test_a_census_leaves_out_what_has_expired_by_the_next_one(valkey):
    client = valkey.client()
    fill(client, PEOPLE)
    sender = PEOPLE[0]
    client.pexpire(keyspace.lane_key(shard(sender), sender), 3_000)
    before = take_census(client, OLD)
    client.delete(keyspace.lane_key(shard(sender), sender))
    after = take_census(client, OLD)
    assert before.total("lane") == after.total("lane") + 1
    assert find_differences(before, after, ShardSplit(OLD, OLD)) == []
    client.delete(keyspace.mailbox_key(shard(sender), sender))
    assert find_differences(before, take_census(client, OLD), ShardSplit(OLD, OLD)) == ["mail"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda client: client.delete(keyspace.outbox_key(shard(PEOPLE[0]), PEOPLE[0])),
        lambda client: client.zrem(keyspace.lane_alarms_key(shard(PEOPLE[0])), PEOPLE[0]),
        lambda client: client.hdel(keyspace.optouts_key(0), *client.hkeys(keyspace.optouts_key(0))),
        lambda client: client.set(keyspace.lane_key(1 - shard(PEOPLE[0]), PEOPLE[0]), "in another's shard"),
    ],
)
def test_what_is_lost_or_misplaced_meanwhile_ends_it_before_anything_may_start(valkey, spoil):
    client = valkey.client()
    fill(client, PEOPLE)
    begin_division(client, SPLIT, 0)
    spoil(client)
    with pytest.raises(MiscountError):
        divide_lanes(client, SPLIT, 0, lambda _: None)
    assert client.get(keyspace.SHARDS_KEY) == b"2 to 6"


@pytest.mark.parametrize("old, new", [(16, 24), (16, 16), (16, 8), (3, 4), (16, 32_768)])
def test_what_is_no_multiple_is_refused(old, new):
    with pytest.raises(UnsplittableError, match=f"^{old} shards cannot become {new}: "):
        require_split(old, new)


def test_an_empty_deployment_is_divided_too(valkey):
    client = valkey.client()
    client.set(keyspace.SHARDS_KEY, OLD)
    divide(client)
    assert contents(client) == {keyspace.SHARDS_KEY: (str(NEW), -1)}


@pytest.mark.processes
def test_on_a_cluster_everything_goes_to_the_server_that_has_its_shard(valkey):
    fill(valkey.client(), PEOPLE)
    before = contents(valkey.client())
    with ValkeyCluster(primaries=3, replicas=0) as cluster, redis_client.connect(cluster.url) as client:
        for name in valkey.client().scan_iter():
            until_ms = max(0, valkey.client().pexpiretime(name))
            client.restore(name, until_ms, valkey.client().dump(name), absttl=True)
        divide(client)
        of_each = [contents(server) for server in redis_client.servers_of(client)]
        assert all(of_each)
        everything = {name: held for of_one in of_each for name, held in of_one.items()}
        assert without_order(everything) == without_order(belongs(before, client))
