"""Providers that are down, slow or picky, and channels that are paused, in the simulation; and oracles see what goes wrong."""

from types import SimpleNamespace

import pytest

from engine.model.events import OutboundSms, SmsDecided, SmsSent
from engine.providers import OutcomeUnknown, RetryLater, SendAccepted, SmsNotFound
from tests.simulated.actors.operators import Operator
from tests.simulated.actors.outages import VainTry
from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.oracles.circuits.outage_oracle import OutageOracle
from tests.simulated.oracles.delays import DelayOracle
from tests.simulated.oracles.limits import LimitOracle
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.plays import PLAYS
from tests.simulated.plays.conversation import STOPPED
from tests.simulated.plays.play import perform
from tests.simulated.world.faults import Fault, Place
from tests.simulated.world.ledger import Arrival, Ledger
from tests.simulated.world.scheduler import AnswerLater, Process, Scheduler
from tests.simulated.world.simulated_provider import (
    SimulatedProvider,
    SimulatedProviderClient,
    Trouble,
    run_alone,
)
from workers.sending.http_client import try_deadline

ANNA = "+33600000001"
SMS = OutboundSms("s1", "clinic", ANNA, "Hello.")
NOT_NOW = RetryLater("503", "not now")
S = 1_000_000


def perform_calmly(name, seed):
    return perform(PLAYS[name], ScheduledFaults({}), f"{name} {seed}")


def provider():
    return SimulatedProvider(
        Scheduler(ScheduledFaults({})), "clinic", "look_up", Ledger(), lambda: 0, lambda sms: None
    )


def client_that_asks(asked, call):
    """A client of this provider, which does at once what `call` says, and what came of it."""
    process = Process(asked.scheduler, "delivery", lambda process: None, outside=True)
    found = []
    process.spawn("", lambda: found.append(run_alone(call(SimulatedProviderClient(asked, process)))))
    asked.scheduler.run_until(asked.scheduler.now_us + 60 * S)
    return found[0]


def look_up(asked):
    by_s = asked.scheduler.now_us / S + 5
    return client_that_asks(asked, lambda client: client.look_up(SMS, 0.0, (), by_s))


def test_a_provider_in_trouble_answers_so_and_may_take_an_sms_all_the_same():
    for takes in (False, True):
        down = provider()
        down.trouble = lambda sms, takes=takes: Trouble(NOT_NOW, takes=takes)
        assert down.send(SMS, None) == NOT_NOW
        assert len(down.taken) == takes


def test_a_provider_in_trouble_says_nothing_of_an_sms_that_it_is_asked_for():
    down = provider()
    assert look_up(down) == SmsNotFound()
    down.trouble = lambda sms: Trouble(NOT_NOW)
    assert look_up(down) == NOT_NOW
    down.trouble = lambda sms: Trouble(NOT_NOW, after_ms=6_000)
    assert isinstance(look_up(down), OutcomeUnknown)
    down.trouble = lambda sms: Trouble(RetryLater("429", "not this one", this_sms_only=True))
    assert look_up(down) == SmsNotFound()


def test_a_slow_provider_has_taken_what_it_has_not_said_yet():
    slow = provider()
    slow.answers_after_ms = 1_000
    begun_us = slow.scheduler.now_us
    with pytest.raises(AnswerLater):
        slow.send(SMS, None)
    assert len(slow.taken) == 1
    deadline = try_deadline(begun_us / S)
    assert isinstance(client_that_asks(slow, lambda client: client.send(SMS, deadline)), SendAccepted)


@pytest.mark.parametrize("seed", [2, 40])
def test_an_outage_is_probed_and_ends(seed):
    stage = perform_calmly("outage", seed)
    (outage,) = [each.__self__.outage for each in stage.judges if isinstance(each.__self__, OutageOracle)]
    assert any(each.open_us for each in outage.tries)
    assert not any(each.began_us >= outage.until_us for each in outage.tries)
    assert {each.sms.to for each in stage.world.ledger.arrivals} == set(stage.senders)


def test_what_is_withdrawn_is_tried_in_vain_before():
    stage = perform_calmly("withdrawing", 17)
    assert [each.sms.text for each in stage.world.ledger.arrivals] == [STOPPED]


def test_nothing_is_sent_while_an_operator_has_paused_a_channel():
    stage = PLAYS["paced"].begin(ScheduledFaults({}), "paced 1")
    scheduler = stage.world.scheduler
    operator = Operator(stage.world, "another operator")
    begun_us = scheduler.now_us
    operator.type_later(operator.pause("clinic"), 1)
    operator.type_later(operator.resume("clinic"), 31)
    scheduler.run_until(begun_us + 40 * S)
    scheduler.close()
    moments_s = [(each.at_us - begun_us) / S for each in stage.world.ledger.arrivals]
    assert any(at_s < 1 for at_s in moments_s)
    assert any(31 < at_s < 32 for at_s in moments_s)
    assert not any(3 < at_s < 31 for at_s in moments_s)


def entries(**moments):
    """Records of SMS by id: when (s) each was decided, and when it was sent."""
    for identity, (decided_s, sent_s) in moments.items():
        text = STOPPED if identity == "stopped" else "Hello."
        decided = SmsDecided(1, "clinic", "", identity, "", text)
        yield decided, SimpleNamespace(at_us=decided_s * S)
        yield SmsSent(1, "clinic", "", identity, "t"), SimpleNamespace(at_us=sent_s * S)


def judge_outage(tries=(), letters=(), met=(), **moments):
    outage = SimpleNamespace(channel="clinic", tries=tries, until_us=60 * S, last_opened_us=10 * S)
    OutageOracle(
        outage,
        0,
        SimpleNamespace(records=lambda sender: list(entries(**moments))),
        SimpleNamespace(of_sender=lambda sender: letters),
        [ANNA],
        met,
    ).judge()


def test_an_outage_that_buries_an_sms_is_found():
    letter = SimpleNamespace(subject="s1", letter=SimpleNamespace(kind="sms", reason="tries_exhausted"))
    with pytest.raises(PromiseBroken, match="outage_buries_nothing"):
        judge_outage(letters=[letter])


def test_two_that_probe_at_once_are_found():
    def vain(sms, began_s, open_s=10):
        return VainTry(sms, began_s * S, (began_s + 3) * S, open_s * S)

    judge_outage([vain("s1", 20), vain("s2", 23)])
    judge_outage([vain("s1", 20), vain("s1", 21)])  # it is looked up, and sent
    judge_outage([vain("s1", 12), vain("s2", 13)])  # they were let through before the circuit opened
    judge_outage([vain("s1", 20, 0), vain("s2", 21, 0)])  # it is closed
    judge_outage([vain("s1", 20), vain("s2", 22, 16)])  # it was opened anew
    judge_outage([vain("s1", 20), vain("s2", 22)], met=[Fault("lose_reply")])
    with pytest.raises(PromiseBroken, match="one_probes"):
        judge_outage([vain("s1", 20), vain("s2", 22)])


def test_what_waits_on_after_an_outage_is_found():
    judge_outage(first=(1, 70), second=(1, 90))
    judge_outage(first=(1, 70), second=(80, 120))  # the outage is not why
    judge_outage(first=(1, 70), second=(1, 120), met=[Fault("die_after")])
    with pytest.raises(PromiseBroken, match="outage_ends"):
        judge_outage(first=(1, 70), second=(1, 120))


def test_only_texts_that_are_given_are_judged_by_how_long_they_waited():
    def judge(texts, met, **moments):
        world = SimpleNamespace(
            ledger=Ledger(), lanes=SimpleNamespace(was_set_twice_at_once=False), scheduler=None
        )
        watcher = SimpleNamespace(records=lambda sender: list(entries(**moments)))
        DelayOracle(world, watcher, [ANNA], met, texts=texts).judge()

    judge([STOPPED], {}, first=(1, 100), stopped=(101, 102))
    judge([STOPPED], {Place("delivery-1", 1): Fault("die_after")}, stopped=(1, 20))
    for texts in ([STOPPED], ()):
        with pytest.raises(PromiseBroken, match="not_too_late"):
            judge(texts, {}, stopped=(1, 20))
    with pytest.raises(PromiseBroken, match="not_too_late"):
        judge((), {}, first=(1, 100), stopped=(101, 102))


def judge_rate(arrivals, met=(), *more):
    ledger = Ledger()
    ledger.arrivals = [Arrival("clinic", SMS, "t", at_s * S, 0) for at_s in arrivals]
    limits = SimpleNamespace(
        sms_per_second=1,
        new_sessions_per_minute=0,
        sessions_per_sender_per_day=0,
        start_burst=0,
        sms_per_day=0,
    )
    LimitOracle(
        SimpleNamespace(ledger=ledger, scheduler=SimpleNamespace(observers=[])),
        SimpleNamespace(records=lambda sender: []),
        [ANNA],
        SimpleNamespace(limits=limits),
        met,
        *more,
    ).judge()


def test_what_leaves_faster_than_its_channel_may_is_found():
    judge_rate([0, 0, 0, 1, 2, 3])
    judge_rate([0] * 9, [Fault("freeze_before", 1_500)], 9 * S)
    for more in ((), ([Fault("freeze_before", 1_500)],), ((), 9 * S)):
        with pytest.raises(PromiseBroken, match="sms_per_second"):
            judge_rate([0, 0, 0, 0], *more)
