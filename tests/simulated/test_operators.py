"""Operators, inviters and dangerous answers do in the simulation what they do outside, and their oracles can object."""

import pytest

from tests.simulated.exploring.random_faults import ScheduledFaults
from tests.simulated.exploring.runs import run_schedule
from tests.simulated.oracles.violation import PromiseBroken
from tests.simulated.plays import PLAYS
from tests.simulated.plays.play import perform
from tests.simulated.world.faults import Fault, Place
from workers.store import dead_letter_store

OURS = (
    "raising",
    "killing",
    "rejected",
    "erasure",
    "campaign",
    "opting_out",
    "limited",
    "bad_release",
    "unreadable",
)


def perform_calmly(name, seed=0):
    return perform(PLAYS[name], ScheduledFaults({}), f"{name} {seed}")


def judge_all(stage):
    for judge in stage.judges:
        judge()


@pytest.mark.parametrize("name", OURS)
def test_a_run_without_faults_comes_to_rest(name):
    perform_calmly(name)


def test_what_kills_five_workers_becomes_a_dead_letter():
    stage = perform_calmly("killing")
    assert "worker_died" in {life.letter.reason for life in stage.letters.lives}


def test_copies_that_nobody_acknowledged_may_kill_a_worker_each():
    """A server that hangs lets in at once what was sent to it again and again meanwhile."""
    schedule = {Place("web-2/request", 0): Fault("hang", 12_000)}
    assert run_schedule(PLAYS["killing"], 5317, schedule).seen == ""


def test_what_a_bad_release_dies_of_is_no_dead_letter():
    assert perform_calmly("bad_release").letters.lives == []


def test_letters_go_as_operators_say():
    outcomes = {life.outcome for seed in range(4) for life in perform_calmly("rejected", seed).letters.lives}
    assert {"advanced", "dropped"} <= outcomes


def test_invitations_are_released_refused_and_cancelled():
    stage = perform_calmly("campaign")
    outcomes = {each.outcome for each in stage.world.ledger.invitations}
    assert "accepted" in outcomes


def test_a_letter_that_goes_without_a_word_is_noticed():
    stages = (perform_calmly("rejected", seed) for seed in range(9))
    stage = next(each for each in stages if not all(life.went for life in each.letters.lives))
    life = next(each for each in stage.letters.lives if not each.went)
    k = next(
        k for k in range(2) if dead_letter_store.find_by_sender(stage.world.onlooker(), k, life.letter.sender)
    )
    stage.world.onlooker().hdel(f"{{{k}}}:dead", life.letter.id)
    with pytest.raises(PromiseBroken, match="letters_are_audited"):
        stage.letters.look()


def test_a_trace_of_the_erased_is_noticed():
    stage = perform_calmly("erasure")
    sender = stage.senders[0]
    stage.world.onlooker().set(f"{{0}}:tickets:{sender}", "1")
    with pytest.raises(PromiseBroken, match="erased"):
        judge_all(stage)


def test_a_lane_that_forgets_an_opt_out_is_noticed():
    stage = perform_calmly("opting_out", 1)
    k = next(k for k in range(2) if stage.world.lanes.view.exists(f"{{{k}}}:optouts"))
    stage.world.onlooker().delete(f"{{{k}}}:optouts")
    with pytest.raises(PromiseBroken):
        judge_all(stage)
