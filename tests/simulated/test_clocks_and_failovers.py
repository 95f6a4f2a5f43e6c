"""What is of before a failover is told by tokens, whatever clocks say; and a clock that is set is known for one."""

import contextlib
from types import SimpleNamespace

import pytest
import redis

from config.store import function_calls, keyspace, redis_client, stored_values
from engine.model.events import InboundSms, OutboundSms, SmsDecided, SmsReceived, encode_event
from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.oracles.doubts import DoubtOracle
from tests.simulated.oracles.stream_watcher import StreamWatcher
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.plays.conversation import CHANNELS, deployment_files
from tests.simulated.plays.play import load_files
from tests.simulated.world.faults import Fault
from tests.simulated.world.ledger import Acceptance
from tests.simulated.world.simulated_world import SimulatedWorld
from workers.composition import build_alarm_clock, build_turn_runner
from workers.store.lanes import LaneDraft

SENDER = "+33612000000"
SECOND_US = 1_000_000


@pytest.fixture
def world():
    files = load_files(deployment_files)
    world = SimulatedWorld(files.settings, files.surveys, CHANNELS, ScheduledFaults({}), "failover clocks")
    world.scheduler.now_us += SECOND_US
    return world


@pytest.fixture
def deployment(world):
    return world.deployment(world.outside)


@pytest.fixture
def lanes(deployment):
    return deployment.lane_store(deployment.open_opt_out_list())


def accept(deployment, event_id, *, start=False):
    sms = InboundSms(event_id, "repeats", "START" if start else "hello", start=start)
    commands, _ = function_calls.accept_commands(
        deployment.settings.shards, [(SENDER, start, encode_event(sms))]
    )
    redis_client.run_commands(deployment.lanes, commands)


def promote(world, behind_us=0):
    """A replica takes over that lacks nothing; its clock is so much behind."""
    world.scheduler.now_us += SECOND_US
    world.lanes.model.promote()
    world.lanes.clock_ahead_us = -behind_us


def unchanged(claim):
    return LaneDraft(claim=claim, state=claim.state)


def test_commits_stand_though_the_clock_is_set_back_after_a_failover(world, deployment, lanes):
    turns = build_turn_runner(deployment)
    for event_id in ("a" * 16, "c" * 16):
        accept(deployment, event_id)
        turns.handle_wakeup("replies", [SENDER])
        promote(world)
    accept(deployment, "d" * 16)
    turns.handle_wakeup("replies", [SENDER])
    world.lanes.set_clock(-40 * SECOND_US)
    accept(deployment, "b" * 16)
    (claim,) = lanes.claim("replies", [SENDER]).claimed
    assert not claim.loss_possible
    assert lanes.commit([unchanged(claim)])[0].succeeded


@pytest.mark.parametrize("behind_us", [0, 60 * SECOND_US])
def test_a_claim_of_before_a_failover_is_void_whatever_the_new_clock_says(
    world, deployment, lanes, behind_us
):
    accept(deployment, "a" * 16)
    (claim,) = lanes.claim("replies", [SENDER]).claimed
    promote(world, behind_us)
    assert not lanes.commit([unchanged(claim)])[0].succeeded


def test_mail_of_before_a_failover_may_be_lost_though_the_clock_is_set_back(world, deployment, lanes):
    accept(deployment, "a" * 16)
    promote(world)
    lanes.claim("replies", ["+33612000001"])  # whoever comes first looks
    world.lanes.set_clock(-40 * SECOND_US)
    (claim,) = lanes.claim("replies", [SENDER]).claimed
    assert claim.loss_possible


def test_the_key_of_the_opt_outs_that_a_failover_takes_back_is_put_there_again(
    world, deployment, monkeypatch
):
    put, lost = deployment.lanes.set, []

    def put_and_lose(*args, **named):
        put(*args, **named)
        if not lost:
            lost.append(world.lanes.model.lose_last(1))

    monkeypatch.setattr(deployment.lanes, "set", put_and_lose)
    deployment.open_opt_out_list()
    assert lost == [1]
    assert world.lanes.view.exists(keyspace.OPTOUT_SECRET_CHECK_KEY)


def test_a_worker_knows_a_step_of_the_clock_before_its_first_lane(world, deployment):
    turns = build_turn_runner(deployment)
    world.lanes.set_clock(-3_600 * SECOND_US)
    accept(deployment, "a" * 16)
    (claim,) = turns._lanes.claim("replies", [SENDER]).claimed
    assert claim.clock.correction_ms == pytest.approx(3_600_000, abs=1_000)


def test_a_clock_that_stood_still_knows_that_the_servers_was_ahead_meanwhile(world, deployment, lanes):
    alarms = keyspace.outbox_alarms_key(keyspace.shard_of(SENDER, world.settings.shards))
    clock = build_alarm_clock(deployment)
    clock.wake_due()
    world.scheduler.now_us += 5 * SECOND_US
    world.lanes.set_clock(3_600 * SECOND_US)
    accept(deployment, "a" * 16)
    assert lanes.claim("replies", [SENDER]).claimed
    deployment.lanes.zadd(alarms, {SENDER: world.lanes.now_ms + 60_000})
    world.lanes.set_clock(0)
    world.scheduler.now_us += 5 * SECOND_US
    clock.wake_due()
    assert world.lanes.view.score(alarms, SENDER) - world.lanes.now_ms == pytest.approx(60_000, abs=10_000)


def queue_marked_reply(world, offered_us):
    """Queue an SMS that is marked from the start, because of one that was offered then; return who judges that."""
    heard = SmsReceived(1, "blind", "", "e1", "hm")
    decided = SmsDecided(1, "blind", "", "e1r0", "not_found", "What?")
    entry = SimpleNamespace(records=[heard, decided])
    watcher = SimpleNamespace(records=lambda sender, with_lost: [(heard, entry), (decided, entry)])
    oracle = DoubtOracle(world, watcher, [SENDER])
    with contextlib.suppress(redis.ConnectionError):
        world.lanes.perform([], 0, Fault("fail_over", 0))
    sms = encode_event(OutboundSms("e1r0", "blind", SENDER, "What?", uncertain=True))
    outbox = keyspace.outbox_key(keyspace.shard_of(SENDER, world.settings.shards), SENDER)
    world.onlooker().rpush(outbox, stored_values.outbox_entry("blind", sms))
    oracle.look()
    event = InboundSms("e1", "blind", "hm")
    world.ledger.acceptances.append(Acceptance(SENDER, event, offered_us, offered_us, 1, offered_us))
    return oracle


def test_a_reply_that_is_doubted_after_a_failover_that_was_before_all_of_it_is_found(world):
    oracle = queue_marked_reply(world, world.scheduler.now_us + SECOND_US)
    with pytest.raises(PromiseBroken, match="as_ever"):
        oracle.judge()


def test_a_reply_to_what_came_before_a_failover_may_be_doubted(world):
    queue_marked_reply(world, world.scheduler.now_us - SECOND_US).judge()


def test_a_copy_changes_nothing_while_the_servers_clock_is_days_ahead(world, deployment):
    turns, watcher = build_turn_runner(deployment), StreamWatcher(world)
    for ahead_days in (0, 10):
        world.lanes.set_clock(ahead_days * 86_400 * SECOND_US)
        accept(deployment, "a" * 16, start=True)
        turns.handle_wakeup("starts", [SENDER])
        watcher.look()
    assert [type(each.record) for each in watcher.records(SENDER)].count(SmsReceived) == 1
