"""How many sessions of a campaign are in which state: counted once for each change, however calls are repeated."""

from collections import Counter

import msgspec
import pytest

from config.store import function_calls, keyspace, redis_client
from config.store.counts import campaigns
from config.store.server_functions import ForgetCampaigns
from engine.model.events import Invitation, encode_event
from tests.support.inviting import hold_command
from tests.support.proxies import Proxies
from workers.clock import retention
from workers.clock.invitation_pacer import forget_invitations
from workers.composition import build_invitation_pacer
from workers.store import event_stream

SPRING = "spring of this year\n"
FAR = 4_000_000_000_000


class Town:
    """A backlog of the channel `clinic`, whose pacer and workers are called by hand."""

    def __init__(self, pipeline, client=None):
        self.pipeline = pipeline
        self.shards = pipeline.world.settings.shards
        self.client = client or pipeline.client
        self.pacer = build_invitation_pacer(pipeline.world)

    def hold(self, *senders, campaign=SPRING, **fields):
        for sender in senders:
            event = Invitation(f"{int(sender[1:]):016x}", "clinic", "clinic", campaign=campaign, **fields)
            k = keyspace.shard_of(sender, self.shards)
            redis_client.run_command(self.client, hold_command(k, sender, event, FAR))

    def release(self):
        self.pacer.release_round()

    def counts(self, name=SPRING):
        commands = campaigns.read_commands(self.shards, name)
        found = campaigns.sum_campaign(name, redis_client.run_commands(self.pipeline.client, commands))
        states = Counter()
        for part in found.parts if found else ():
            states.update(part.states)
            states.update({f"refused {reason}": count for reason, count in part.reasons.items()})
        return dict(states)

    def ongoing(self):
        """What lies of sessions that are not over."""
        return sum(self.client.hlen(keyspace.campaign_sessions_key(k)) for k in range(self.shards))


@pytest.fixture
def town(pipeline):
    return lambda **limits: Town(pipeline(shards=16, **limits))


def people(count):
    return [f"+336{12_000_000 + n:08d}" for n in range(count)]


def test_a_session_is_in_one_state_at_a_time_from_beginning_to_end(town):
    spring = town()
    one, two, three = people(3)
    spring.hold(one, two, three)
    spring.hold(one, two)
    assert spring.counts() == {"held": 3}
    spring.release()
    assert spring.counts() == {"waiting": 3}
    spring.pipeline.drain()
    assert spring.counts() == {"open": 3}
    spring.pipeline.accept(one, "Ada", "33")
    spring.pipeline.accept(two, "STOP")
    spring.pipeline.drain()
    assert spring.counts() == {"completed": 1, "stopped": 1, "open": 1}
    assert spring.ongoing() == 1


def test_whoever_is_in_conversation_or_has_said_stop_is_counted_as_refused(town):
    spring = town()
    busy, gone = people(2)
    spring.pipeline.accept(busy, "START")
    spring.pipeline.accept(gone, "STOP")
    spring.pipeline.drain()
    spring.hold(busy, gone)
    spring.release()
    spring.pipeline.drain()
    assert spring.counts() == {"refused": 2, "refused already_open": 1, "refused opted_out": 1}
    spring.pipeline.accept(busy, "Ada", "33")
    spring.pipeline.drain()
    assert spring.counts()["refused"] == 2, "a session that nobody invited to is of no campaign"
    assert spring.ongoing() == 0


def test_one_that_expired_before_its_turn_is_refused(town):
    spring = town()
    spring.hold(*people(2), expires_at=1)
    spring.release()
    assert spring.counts() == {"refused": 2, "refused expired": 2}
    assert spring.ongoing() == 0


def test_one_that_becomes_a_dead_letter_is_counted_so_until_it_is_replayed(town, monkeypatch):
    spring = town()
    (one,) = people(1)

    def fail(*_args, **_more):
        raise RuntimeError("the engine fails")

    spring.hold(one)
    spring.release()
    with monkeypatch.context() as broken:
        broken.setattr("workers.turns.drafts.advance", fail)
        spring.pipeline.drain()
    assert spring.counts() == {"refused": 1, "refused dead_letter": 1}
    spring.pipeline.deposit(
        one, encode_event(Invitation(f"{int(one[1:]):016x}", "clinic", "clinic")), start=True
    )
    spring.pipeline.drain()
    assert spring.counts() == {"open": 1}, "as a replay opens it, which commits as any turn does"


def test_whoever_is_erased_is_counted_no_more_unless_it_was_over(town):
    spring = town()
    done, is_open, held = people(3)
    spring.hold(done, is_open)
    spring.release()
    spring.pipeline.drain()
    spring.pipeline.accept(done, "Ada", "33")
    spring.pipeline.drain()
    spring.hold(held)
    assert forget_invitations(spring.client, spring.shards, held) == 1
    for sender in (done, is_open):
        k = keyspace.shard_of(sender, spring.shards)
        for _ in range(2):
            event_stream.forget_sessions(spring.client, k, [f"{int(sender[1:]):016x}"])
    assert spring.counts() == {"completed": 1}
    assert spring.ongoing() == 0


def test_what_a_worker_of_0_1_0_did_not_count_is_made_up_for_by_the_next_change(town):
    spring = town()
    (one,) = people(1)
    spring.hold(one)
    spring.release()
    k, identity = keyspace.shard_of(one, spring.shards), f"{int(one[1:]):016x}"
    name, value = keyspace.campaign_sessions_key(k), f"held clinic clinic {SPRING}"
    spring.client.hset(name, identity, value)
    spring.client.hset(keyspace.campaigns_key(k), SPRING, '{"at":1,"counts":{"clinic clinic held":1}}')
    spring.pipeline.drain()
    assert spring.counts() == {"open": 1}


@pytest.mark.parametrize(
    "function", ["hold_invitations", "release_invitations", "commit", "withdraw_invitation"]
)
def test_a_reply_that_is_lost_counts_nothing_twice(pipeline, valkey, function):
    with Proxies(valkey, broker=False) as proxy:
        made = pipeline(shards=16)
        client = redis_client.connect(proxy.url)
        town = Town(made, client)
        lost = redis_client.connect(proxy.url)
        made.turns = type(made)(_with_lanes(made.world, lost)).turns
        town.pacer = build_invitation_pacer(_with_lanes(made.world, lost))
        redis_client.run_command(lost, ("PING",))
        redis_client.run_command(client, ("PING",))
        proxy.lose_replies(f"_{function}\r\n".encode(), times=1)
        expired = {"expires_at": 1} if function == "withdraw_invitation" else {}
        town.hold(*people(3), **expired)
        for _ in range(3):
            town.release()
            wake = function_calls.wake_command(keyspace.STARTS_QUEUE, people(3))  # as the clock does, soon
            redis_client.run_command(made.world.broker, wake)
            made.drain()
        assert proxy.lost == 1
    expected = {"refused": 3, "refused expired": 3} if expired else {"open": 3}
    assert town.counts() == expected


def test_what_is_idle_for_long_is_forgotten_with_what_is_left_of_it(town):
    spring = town()
    spring.hold(*people(4))
    spring.hold(*people(6)[4:], campaign="autumn")
    at = redis_client.server_time_ms(spring.client)
    assert retention.forget_idle_campaigns(spring.client, spring.shards, at - 60_000) == 0
    assert retention.forget_idle_campaigns(spring.client, spring.shards, at + 60_000) > 0
    assert (spring.counts(), spring.counts("autumn"), spring.ongoing()) == ({}, {}, 0)
    spring.release()
    assert spring.counts() == {}, "nor does it come back as less than nothing"


def test_one_that_changed_after_it_was_found_idle_is_not_forgotten(town):
    """Whoever forgets may be late."""
    spring = town()
    (one,) = people(1)
    spring.hold(one)
    k = keyspace.shard_of(one, spring.shards)
    call = ForgetCampaigns(
        campaigns=keyspace.campaigns_key(k), campaign_sessions=keyspace.campaign_sessions_key(k),
        before_ms=redis_client.server_time_ms(spring.client) - 60_000, names=[SPRING.encode()],
    )  # fmt: skip
    assert redis_client.run_command(spring.client, function_calls.function_call(call)) == 0
    assert spring.counts() == {"held": 1}


def _with_lanes(world, lanes):
    return msgspec.structs.replace(world, lanes=lanes)
