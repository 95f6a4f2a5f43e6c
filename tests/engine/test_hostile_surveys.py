"""Surveys and senders that once got the better of the proofs."""

import json

import msgspec
import pytest

from engine.model.events import InboundSms, Invitation, Mail, SmsDecided
from engine.model.lane import Lane
from engine.model.segments import count_segments
from engine.proofs import survey_bounds, survey_findings
from engine.proofs.transcripts import parse_transcript
from engine.simulator.simulator import phone_for
from engine.surveys.survey_reader import read_survey
from engine.surveys.survey_registry import SurveyRegistry
from engine.turns.advance import advance
from tests.engine.chat import SIMULATED_CHANNEL, T0, policy_for
from tests.support.waiting import used_s

SENDER = "+33612345678"


def survey(*steps, **fields):
    return read_survey("s.json", json.dumps({"survey": "s", "steps": steps, **fields}).encode())[0]


def ask(identity, text="?", answer="yes_no", **fields):
    kind = answer if isinstance(answer, dict) else {"type": answer}
    return {"id": identity, "ask": text, "answer": kind, "attempts": 1, **fields}


def say(identity, text="!", **fields):
    return {"id": identity, "say": text, **fields}


def to(go, **when):
    return {"go": go, **({"when": when} if when else {})}


def sent(of, *events):
    """The session's SMS. An event is after how many ms, and what: a text, None, variables or an invitation."""
    policy = {SIMULATED_CHANNEL: msgspec.structs.replace(policy_for("s"), start_burst=0)}
    lane, now, texts = Lane(), T0, []
    for number, (waited, what) in enumerate(events):
        now += waited
        match what:
            case str():
                event = InboundSms(f"e{number}", SIMULATED_CHANNEL, what, what == "START")
            case dict():
                event = Invitation(f"e{number}", SIMULATED_CHANNEL, "s", **what)
            case _:
                event = None
        done = advance(lane, SENDER, [Mail(now, event)] if event else [], now, SurveyRegistry([of]), policy)
        texts += [record.text for record in done.records if isinstance(record, SmsDecided) and record.session]
    return texts


def errors(of):
    return [(each.code, each.step) for each in survey_findings(of) if each.level == "error"]


NUMBER = {"type": "number", "min": 0}
TEXT = {"type": "text"}


@pytest.mark.parametrize(
    "answer, routes, fields",
    [
        (NUMBER, [to("b", above=2_000_000), to("end")], {}),  # 2000000.0000000001 is no other float
        ({"type": "number"}, [to("b", below=-5e9), to("end")], {}),
        ({"type": "number"}, [to("b", at_least=10**400), to("b")], None),  # too large for a float: nothing raises
        ({"type": "number"}, [to("b", below=1e308), to("end", above=5), to("b")], None),
        (NUMBER, [to("b", variable="score", above=5), to("end")], {"variables": ["score"]}),
        (NUMBER, [to("b", variable="score", below=5), to("end")], {"variables": ["score"]}),
        ({"type": "date", "max": "9999-12-31"}, [to("b", below="2030-01-01"), to("end")], {}),
        ({"type": "date"}, [to("b", above="1000-01-01", at_most="9999-12-31"), to("b")], {}),
        ({"type": "yes_no", "yes": ["no"]}, [to("b", equals=False), to("end")], {}),
        ({"type": "text", "pattern": "[A-Z]{3}-[0-9]{3}"}, [*(to("b", matches=f"{c}.*") for c in "abcdef"), to("end")], {}),
    ],
)  # fmt: skip
def test_a_route_that_can_be_taken_is_no_error(answer, routes, fields):
    found = errors(survey(ask("a", "?", answer, next=routes), say("b"), **(fields or {})))
    if fields is not None:
        assert found == []
    else:
        assert ("unreachable", "b") not in found


def test_a_placeholder_that_nobody_can_leave_empty_is_no_error():
    implied = [  # whoever's answer is `yes` has one with `ye` in it
        ask("a", "?", TEXT, next=[to("b", contains="ye"), to("c")]),
        ask("b"),
        say("c", next=[to("d", answer="a", matches="yes"), to("end")]),
        say("d", "{b}"),
    ]
    many = [ask(f"q{n}") for n in range(16)]  # more to remember than can be
    asked = [{"answer": f"q{n}", "equals": "yes"} for n in range(16)]
    guarded = [
        *many,
        ask("g", next=[to("x", equals="yes"), to("y")]),
        ask("x"),
        say("y", next=[to("e", all=[{"answer": "g", "equals": "yes"}, *asked]), to("end")]),
        say("e", "{x}"),
    ]
    words = [  # more conditions on one text than are told apart
        ask("a", "?", TEXT, next=[to("b", contains="aa"), to("c")]),
        ask("b"),
        say("c", next=[*(to("z", answer="a", matches=f"{c}+") for c in "bcdef"), to("d", answer="a", contains="aa"), to("z")]),
        say("d", "{b}", next="end"),
        say("z"),
    ]  # fmt: skip
    for steps in (implied, guarded, words):
        of = survey(*steps)
        assert errors(of) == []
        assert [each.code for each in survey_findings(of)] == ["unanswered"]


@pytest.mark.parametrize(
    "answer, said, text",
    [
        ({"type": "scale", "from": 1, "to": 10}, "10", "x" * 159 + "{a}"),
        ("yes_no", "yes", "x" * 158 + "{a}"),
        ({"type": "choices", "options": ["x", "y", "zoo"], "max": 1}, "3", "x" * 158 + "{a}"),
        ({"type": "text", "min": 0, "max": 2, "pattern": "[a-z]*"}, "", "x" * 150 + "{a|somebody unknown}"),
        (NUMBER, "5", "x" * 150 + "{a|somebody unknown:0}"),
        ("yes_no", "yes", "{k|" + "x" * 200 + ":1}"),
        ({"type": "number", "min": 0, "max": 99, "decimals": 0}, "1", "{a}" + "x" * 1222 + "я"),
        ({"type": "text", "max": 600, "pattern": "[[:^digit:]]+"}, "😀" * 600, "{a}"),
    ],
)
def test_a_text_takes_no_more_segments_than_were_said(answer, said, text):
    of = survey(ask("a", "?", answer), say("b", text), variables={"k": 3})
    most = survey_bounds(of).segments["en"].most
    assert sum(count_segments(each).segments for each in sent(of, (0, "START"), (1000, said))) <= most


def test_a_text_is_bounded_by_what_twilio_counts_too():
    """It never splits what a person sees as one character, and gets three segments where operators have two."""
    text = "я" * 60 + "👨\u200d👩\u200d👧\u200d👦" + "я" * 60
    bound = survey_bounds(survey(say("a", text))).segments["en"]
    assert (bound.most, bound.attained) == (3, True)
    assert count_segments(text).segments == 2


def test_a_variable_that_is_empty_lets_the_default_stand():
    of = survey(
        ask("a", next=[to("b", variable="k", equals="v"), to("b")]),
        say("b", "{k|" + "x" * 161 + "}"),
        variables={"k": 3},
    )
    most = survey_bounds(of).segments["en"].most
    out = sent(of, (0, {"variables": {"k": ""}}), (1000, "yes"))
    assert sum(count_segments(each).segments for each in out) <= most


def test_an_invitation_that_lasts_longer_leaves_time_for_more_reminders():
    of = survey(
        ask("a", remind={"after": "40m", "times": 3, "text": "!"}), expires="1h", texts={"gave_up": "none"}
    )
    out = sent(of, (0, {"expires_at": T0 + 10**8}), (3 * 2_400_000, None))
    assert len(out) == 4
    assert survey_bounds(of).sms_out.most == 4
    assert survey_bounds(of).sms_out.attained


def test_whoever_answers_before_all_has_been_said_is_not_silent_for_longer_than_idle():
    steps = [say("x"), say("y"), say("z"), ask("a", attempts=2, remind={"after": "5s", "text": "!"})]
    of = survey(*steps, idle="1s")
    assert len(sent(of, (0, "START"), (0, "?"), (5_500, None))) <= survey_bounds(of).sms_out.most


def test_what_is_texted_to_a_session_that_is_over_is_not_counted_as_heard():
    reminded = {"remind": {"after": "40m", "text": "!"}}
    of = survey(ask("a", **reminded), ask("b", **reminded), expires="1h")
    proved = survey_bounds(of)
    assert (proved.sms_in.most, proved.sms_in.attained) == (3, True)
    transcript = parse_transcript(proved.sms_in.script)
    phone = phone_for(transcript, SurveyRegistry([of]))
    for entry in transcript.entries:
        assert phone.lane.lines == {} or phone.lane.lines[phone.channel].session is not None
        phone.play_action(entry)


@pytest.mark.parametrize("keyword", ["no", "[a-z]o"])
def test_a_keyword_in_the_middle_of_a_session_is_no_answer_that_attains_anything(keyword):
    of = survey(ask("a"), say("b"), start=["GO!", keyword])
    for bound in (survey_bounds(of).sms_out, survey_bounds(of).sms_in):
        transcript = parse_transcript(bound.script)
        phone = phone_for(transcript, SurveyRegistry([of]))
        for entry in transcript.entries:
            phone.play_action(entry)
        said = sum(isinstance(record, SmsDecided) and bool(record.session) for record in phone.records)
        assert bound.attained == (said == 2)


def test_the_coarse_bound_knows_what_is_said_at_the_end():
    of = survey(
        *(ask(f"q{n}", next=[{"go": "q0", "when": {"equals": "yes"}, "times": 1}, to(f"q{n + 1}" if n < 16 else "end")]) for n in range(17)),
        most_sms=20, texts={"completed": "x" * 1224},
    )  # fmt: skip
    out = sent(of, (0, "START"), *[(1000, "no")] * 17)
    assert sum(count_segments(each).segments for each in out) <= survey_bounds(of).segments["en"].most


@pytest.mark.parametrize(
    "steps, fields",
    [
        ([ask("a", "?", {"type": "text", "pattern": ".*a.{14}"})], {}),
        ([ask("a", "?", {"type": "text", "pattern": r"(\w+ ?){1,50}"})], {}),
        ([ask(f"q{n}", attempts=100, next=[to("q0", equals="yes"), to(f"q{n + 1}" if n < 59 else "end")]) for n in range(60)], {"most_sms": 500}),
        (
            [ask(f"q{n}", remind={"after": "1m", "times": 1000, "text": "!"}, next=[to("q0", equals="yes"), to(f"q{n + 1}" if n < 9 else "end")]) for n in range(10)],
            {"most_sms": 1000},
        ),
    ],
)  # fmt: skip
def test_it_is_proved_in_no_time(steps, fields):
    def prove():
        of = survey(*steps, **fields)
        survey_findings(of)
        assert survey_bounds(of) is not None

    assert used_s(prove) < 10, "what explodes takes minutes"
