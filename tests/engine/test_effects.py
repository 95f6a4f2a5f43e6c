"""Effects that are decided one event after another come to one commit: nothing is lost, nothing is said twice."""

import pytest

from engine.model.effects import Effects
from engine.model.events import InboundSms, Mail, OutboundSms
from engine.model.lane import Lane
from engine.turns.advance import advance
from tests.engine.chat import SIMULATED_CHANNEL, policy_for, surveys_of
from tests.support.full_effects import full_effects


def sms(identity, channel="c", session=""):
    return OutboundSms(identity, channel, "+33600000001", "text", session)


@pytest.mark.parametrize("field", Effects.__struct_fields__)
def test_no_field_is_lost_when_effects_are_merged(field):
    assert getattr(full_effects(), field) != getattr(Effects(), field), (
        "let `full_effects` say something of it"
    )
    first, last = Effects(), full_effects()
    first.merge_later(full_effects())
    last.merge_later(Effects())
    assert getattr(first, field) == getattr(last, field) == getattr(full_effects(), field)


def test_merging_leaves_the_later_effects_as_they_are():
    later, merged = full_effects(), full_effects()
    merged.merge_later(later)
    merged.merge_later(Effects(silenced=["e"], sessions=[("t", 2)], outbox=[sms("b")]))
    assert later == full_effects()


def test_counts_add_up_lists_grow_and_the_last_times_hold():
    whole = full_effects()
    whole.merge_later(
        Effects(
            outbox=[sms("b")],
            alarm=0,
            keep_until=9,
            silenced=["d"],
            sessions=[("t", 2)],
            opened_by_channel={"c": 2, "d": 1},
            duplicates=2,
        )
    )
    assert [each.id for each in whole.outbox] == ["a", "b"]
    assert (whole.alarm, whole.keep_until, whole.duplicates) == (0, 9, 3)
    assert (whole.silenced, whole.sessions) == (["d"], [("s", 1), ("t", 2)])
    assert whole.opened_by_channel == {"c": 3, "d": 1}


def test_a_later_stop_or_cancellation_withdraws_what_was_decided_before_it_and_not_its_own():
    whole = Effects(outbox=[sms("a", "c", "s"), sms("b", "c", "t"), sms("c", "d", "u")])
    whole.merge_later(Effects(withdrawn={"s": "cancelled"}, outbox=[sms("d", "c", "s")]))
    assert [each.id for each in whole.outbox] == ["b", "c", "d"]
    whole.merge_later(Effects(silenced=["c"], withdrawn={"t": "unreachable"}, outbox=[sms("e", "c")]))
    assert [each.id for each in whole.outbox] == ["c", "e"]
    unsent = [(each.id, each.code) for each in whole.records]
    assert unsent == [("a", "cancelled"), ("b", "stopped"), ("d", "stopped")], (
        "a STOP outdoes any other reason"
    )


def test_the_first_reason_for_a_withdrawal_holds():
    whole = Effects(withdrawn={"s": "cancelled"})
    whole.merge_later(Effects(withdrawn={"s": "unreachable", "t": "unreachable"}))
    assert whole.withdrawn == {"s": "cancelled", "t": "unreachable"}


def test_the_last_that_is_said_of_an_opt_out_holds():
    whole = Effects(opt_outs={"c": (5, "provider"), "d": (6, "person")})
    whole.merge_later(Effects(opt_outs={"c": (0, "person")}))
    assert whole.opt_outs == {"c": (0, "person"), "d": (6, "person")}


@pytest.mark.parametrize("field", Effects.__struct_fields__)
def test_what_is_more_than_an_alarm_and_a_time_to_be_kept_is_a_change(field):
    only = Effects(**{field: getattr(full_effects(), field)})
    assert only.changes_only_times == (field in ("alarm", "keep_until", "has_open", "duplicates"))


SURVEY = """
survey: s
start: START
steps:
  - {id: a, ask: A?, answer: {type: text}}
  - {id: bye, say: Goodbye.}
"""


def test_a_sessions_last_words_are_decided_no_earlier_than_its_end_though_the_clock_was_set_back():
    """By this the replay of a dead letter knows them for its last words."""
    surveys, policy = surveys_of({"s.yaml": SURVEY}), {SIMULATED_CHANNEL: policy_for("s")}
    lane = Lane()
    for id_, text, now in (("1", "START", 1_000_000), ("2", "x", 998_000)):
        mail = [Mail(now, InboundSms(id_, SIMULATED_CHANNEL, text, text == "START"))]
        effects = advance(lane, "+33600000001", mail, now, surveys, policy)
    (line,) = lane.lines.values()
    assert [each.text for each in effects.outbox] == ["Goodbye."]
    assert effects.outbox[-1].decided >= line.ended_at > 0
