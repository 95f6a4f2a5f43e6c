"""What Parley tells a survey by itself, {$contact} {$number} {$messages}, is put in, compared, and proved about."""

import json

import msgspec
import pytest

from engine.model.events import Invitation
from engine.model.lane import decode_lane, encode_lane
from engine.proofs import survey_bounds, survey_findings
from engine.simulator.simulator import SIMULATED_SENDER
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_survey
from engine.surveys.variables import (
    CONTACT_KEY,
    MESSAGES_KEY,
    MOST_COUNTED_MESSAGES,
    NUMBER_KEY,
    message_count,
)
from tests.engine.chat import SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of

NUMBER_OF_OURS = "+15005550006"


def survey(*steps, **fields):
    return json.dumps({"survey": "s", "steps": steps, **fields})


def ask(identity, text="?", answer="yes_no", **fields):
    kind = answer if isinstance(answer, dict) else {"type": answer}
    return {"id": identity, "ask": text, "answer": kind, **fields}


def say(identity, text="!", **fields):
    return {"id": identity, "say": text, **fields}


def to(go, times=None, **when):
    return {"go": go, **({"when": when} if when else {}), **({"times": times} if times else {})}


def phone_for(*steps, contact="Rey", number=NUMBER_OF_OURS, **fields):
    contacts = {SIMULATED_SENDER: contact} if contact else {}
    policy = msgspec.structs.replace(policy_for("s"), number=number, contacts=contacts)
    return SimulatedPhone(surveys_of({"s.json": survey(*steps, **fields)}), policy)


def found(*steps, **fields):
    """Level, step and sentence of everything found."""
    compiled, written = read_survey("s.json", survey(*steps, **fields).encode())
    return [(each.level, each.step, str(each)) for each in (*survey_findings(compiled), *written)]


def problems(*steps, **fields):
    """Without their line, of which the file has one."""
    try:
        read_survey("s.json", survey(*steps, **fields).encode())
    except InvalidSurveyError as e:
        return [each.removeprefix("line 1: ") for each in e.problems]
    return []


def most_segments(*steps, **fields):
    compiled, _ = read_survey("s.json", survey(*steps, **fields).encode())
    return survey_bounds(compiled).segments["en"]


# -- what is put in


@pytest.mark.parametrize(
    "text, contact, said",
    [
        ("{$contact} wrote to {$number}", "Rey", "Rey wrote to +15005550006"),
        ("{$Contact|Friend} {$MESSAGES}", "Rey", "Rey 1"),
        ("Dear {$contact|Friend},", "", "Dear Friend,"),
        ("Dear {$contact},", "", "Dear ,"),
        ("{$contact:3}", "Skywalker", "Sky"),
        ("{$contact}", "{$number}", "{$number}"),
        ("{$number:3} {$messages:1}", "", "+15 1"),
        ("{$contact}", "007", "007"),
    ],
)
def test_a_text_holds_what_parley_tells(text, contact, said):
    assert phone_for(say("a", text), contact=contact).text("START") == [said]


def test_a_name_is_cut_to_the_length_that_the_survey_declares():
    phone = phone_for(say("a", "{$contact}"), contact="Skywalker", variables={"$contact": 5})
    assert phone.text("START") == ["Skywa"]


def test_every_sms_of_a_session_is_counted_whatever_it_is():
    phone = phone_for(ask("a", "{$messages}", attempts=9, invalid="No"), ask("b", "{$messages}"))
    assert phone.text("START") == ["1"]
    assert phone.text("perhaps") == ["No 2"]
    phone.text("HELP")
    assert phone.text("well, perhaps") == ["No 4"]
    assert phone.text("yes") == ["5"]


def test_whoever_was_invited_has_sent_nothing_yet():
    phone = phone_for(ask("a", "{$messages} {$contact}"), say("b", "{$messages}"))
    said = phone.apply_event(Invitation("0f", SIMULATED_CHANNEL, "s"))
    assert [sms.text for sms in said] == ["0 Rey"]
    assert phone.text("yes") == ["1"]


def test_the_count_begins_anew_with_every_session():
    phone = phone_for(ask("a", "{$messages}", "text"), say("b", "{$messages}"), cooldown="0s", idle="1h")
    assert phone.text("START") == ["1"]
    assert phone.text("x") == ["2"]
    assert phone.text("START", after_ms=60_000) == ["1"]


def test_the_count_stops_where_texts_were_proved_to_have_their_length():
    assert (message_count(7).raw, message_count(7).value) == ("7", 7)
    assert message_count(MOST_COUNTED_MESSAGES) == message_count(MOST_COUNTED_MESSAGES + 1)


def test_what_an_inviter_calls_the_same_is_something_else():
    text = "{contact} {number} {messages} / {$contact} {$number} {$messages}"
    phone = phone_for(say("a", text), variables=["contact", "number", "messages"])
    variables = {"contact": "A", "number": "B", "messages": "C"}
    said = phone.apply_event(Invitation("0f", SIMULATED_CHANNEL, "s", variables=variables))
    assert [sms.text for sms in said] == ["A B C / Rey +15005550006 0"]


@pytest.mark.parametrize("key", ["$number", "$messages", "$MESSAGES"])
def test_no_inviter_tells_what_parley_tells(key):
    phone = phone_for(say("a", "{$number} {$messages}"))
    said = phone.apply_event(Invitation("0f", SIMULATED_CHANNEL, "s", variables={key: "forged"}))
    assert [sms.text for sms in said] == ["+15005550006 0"]


def test_a_survey_that_is_told_nothing_keeps_nothing():
    told, untold = phone_for(ask("a", "{$messages}")), phone_for(ask("a", "?"))
    told.text("START")
    untold.text("START")
    assert set(told.channel_state.session.answers) == {MESSAGES_KEY}
    assert untold.channel_state.session.answers == {}
    assert decode_lane(encode_lane(told.lane)) == told.lane


@pytest.mark.parametrize(
    "text, condition, told",
    [
        ("?", None, set()),
        ("{$contact|x}", None, {CONTACT_KEY}),
        ("{$NUMBER}{$messages}", None, {NUMBER_KEY, MESSAGES_KEY}),
        ("?", {"not": {"variable": "$messages", "equals": 3}}, {MESSAGES_KEY}),
        ("{contact} {messages}", None, set()),
    ],
)
def test_a_survey_says_what_it_is_to_be_told(text, condition, told):
    steps = [ask("a", text, next=[to("b", **condition), to("b")] if condition else "b"), say("b")]
    compiled, _ = read_survey("s.json", survey(*steps, variables=["contact", "messages"]).encode())
    assert compiled.told == told


# -- conditions


@pytest.mark.parametrize(
    "condition, third",
    [
        ({"at_least": 3}, "yes"),
        ({"at_least": 4}, "no"),
        ({"below": 3.5, "above": 2}, "yes"),
        ({"equals": 3}, "yes"),
        ({"one_of": [2, 4]}, "no"),
        ({"matches": "[0-9]"}, "yes"),
        ({"answered": True}, "yes"),
    ],
)
def test_a_condition_compares_how_often_somebody_wrote(condition, third):
    phone = phone_for(
        ask("a"), ask("b", next=[to("yes", variable="$messages", **condition), to("no")]),
        say("yes", "yes", next="end"), say("no", "no"),
    )  # fmt: skip
    phone.text("START")
    phone.text("yes")
    assert phone.text("yes") == [third]


@pytest.mark.parametrize(
    "variable, condition, contact, said",
    [
        ("$contact", {"answered": True}, "Rey", "yes"),
        ("$contact", {"answered": True}, "", "no"),
        ("$Contact", {"equals": "rey"}, "Rey", "yes"),
        ("$number", {"equals": "+15005550006"}, "", "yes"),
        ("$number", {"one_of": ["+15005550007"]}, "", "no"),
        ("$number", {"matches": r"\+1500.*"}, "", "yes"),
        ("$number", {"contains": "0006"}, "", "yes"),
    ],
)
def test_a_condition_asks_who_wrote_and_to_whom(variable, condition, contact, said):
    phone = phone_for(
        say("a", next=[to("yes", variable=variable, **condition), to("no")]),
        say("yes", "yes", next="end"), say("no", "no"), contact=contact,
    )  # fmt: skip
    assert phone.text("START")[-1] == said


@pytest.mark.parametrize(
    "when, problem",
    [
        ({"variable": "$number", "at_least": 3}, "field next[0].when.at_least: no number of a channel is more"),
        ({"variable": "$number", "equals": 15005550006}, "field next[0].when.equals: found 15005550006, expected a number in quotation marks"),
        ({"variable": "$messages", "equals": "many"}, "field next[0].when.equals: found 'many', but $messages is a number"),
        ({"variable": "$messages", "one_of": [True]}, "field next[0].when.one_of: found 'True', but $messages is a number"),
        ({"variable": "$messages", "at_least": "3"}, "field next[0].when.at_least: found '3', expected a number"),
    ],
)  # fmt: skip
def test_a_condition_that_makes_no_sense_is_refused(when, problem):
    (told,) = problems(ask("a", next=[{"when": when, "go": "b"}, to("b")]), say("b"))
    assert told.startswith(f"step 'a', {problem}")


# -- what is proved


@pytest.mark.parametrize(
    "steps, told",
    [
        ([say("a", "{$contact}")], "step 'a', {$contact} is empty for whoever is not among the channel's contacts"),
        ([say("a", "{$contact|you} {$number} {$messages}")], None),
        ([say("a", "{$contct|you}")], "step 'a', $contct is nothing that Parley tells: did you mean $contact?"),
        ([say("a", "{$agentId}")], "step 'a', $agentId is nothing that Parley tells: write $contact, $number, $messages,"),
        ([say("a", "It costs {$5}")], "step 'a', field say: '{$5}' is sent as it is written"),
        ([ask("a", next=[to("b", variable="$mesages", equals=3), to("b")]), say("b")], "step 'a', $mesages is nothing"),
        ([ask("a", next=[to("b", variable="$messages", at_least=1), to("b")]), say("b")], "step 'a', next[1], the default, is never taken"),
        ([ask("a", next=[to("b", variable="$messages", below=1), to("b")]), say("b")], "step 'a', next[0] ($messages is below 1) is never taken"),
        ([say("a", next=[to("b", variable="$messages", below=1), to("b")]), say("b")], None),  # who was invited
        ([ask("a", next=[to("b", variable="$messages", equals=1), to("b")]), say("b")], None),  # theirs, too
        ([say("a", next=[to("b", variable="$number", answered=False), to("b")]), say("b")], "step 'a', next[0] ($number is not answered) is never taken"),
        ([ask("a", next=[to("b", variable="$messages", above=9_999), to("b")]), say("b")], "step 'a', next[0] ($messages is above 9999) is never taken"),
        ([ask("a", next=[to("b", variable="$messages", below=9), to("c", variable="$messages", at_least=9), to("c")]), say("b"), say("c")],
         "step 'a', next[2], the default, is never taken"),
        ([ask("a", next=[to("b", variable="$number", matches="[a-z]+"), to("b")]), say("b")], None),
    ],
)  # fmt: skip
def test_what_is_odd_about_what_parley_tells_is_found(steps, told):
    reasons = [sentence for _, _, sentence in found(*steps)]
    if told is None:
        assert reasons == []
    else:
        assert [reason.startswith(told) for reason in reasons].count(True) == 1


@pytest.mark.parametrize("step", [say("a", "{$x}"), say("a", "{$x|y:3}")])
def test_a_stored_file_with_such_a_thing_is_still_read(step):
    assert problems(step) == []
    assert [(level, where) for level, where, _ in found(step)] == [("error", "a")]
    phone = phone_for(step)
    assert phone.text("START") == [step["say"]]


@pytest.mark.parametrize(
    "text, fields, segments",
    [
        ("x" * 144 + "{$number}", {}, 1),
        ("x" * 145 + "{$number}", {}, 2),
        ("x" * 156 + "{$messages}", {}, 1),
        ("x" * 157 + "{$messages}", {}, 2),
        ("{$contact}", {}, 4),  # a hundred emoji, of which 33 go into a segment
        ("{$contact:35}", {}, 1),
        ("{$contact}", {"variables": {"$contact": 35}}, 1),
        ("{$contact}x", {"variables": {"$contact": 35}}, 2),
        ("x" * 160 + "{$contact|1:0}", {}, 2),
    ],
)
def test_a_text_costs_at_most_what_the_longest_that_is_told_costs(text, fields, segments):
    assert most_segments(say("a", text), **fields).most == segments


def test_a_bound_that_a_name_and_a_number_come_to_is_played():
    bound = most_segments(ask("a", "{$contact:40} {$number}" + "x" * 60, "text"))
    assert bound.attained
    assert f"! told number=+999999999999999 contact={'😀' * 100}" in bound.script


def test_a_cycle_ends_by_what_is_counted_not_by_how_often_somebody_wrote():
    steps = [ask("a", next=[to("a", variable="$messages", below=9), to("end")])]
    assert any("can go round for ever" in sentence for _, _, sentence in found(*steps))


def test_conditions_on_the_count_are_looked_at_together():
    """Of two conditions that exclude each other no walk takes both: the bound is that of the longer way."""
    steps = [
        ask("a", next=[to("b", variable="$messages", below=5), to("c", variable="$messages", at_least=5)]),
        say("b", next="end"),
        say("c"),
        say("d"),
    ]
    assert most_segments(*steps).path[-1].step == "d"
    assert not [sentence for level, _, sentence in found(*steps) if level == "error"]


# -- the file


@pytest.mark.parametrize(
    "variables, problem",
    [
        ({"$contact": 30}, None),
        (["$contact"], None),
        ({"$contact": 0}, "field variables.$contact: found 0, expected 1 to 1224 characters"),
        ({"$number": 3}, "field variables: found '$number', expected letters"),
        (["$messages"], "field variables: found '$messages', expected letters"),
    ],
)
def test_the_length_of_a_name_may_be_declared_and_the_others_are_known(variables, problem):
    told = problems(say("a", "{$contact|x}"), variables=variables)
    assert told == [] if problem is None else told[0].startswith(problem)


def test_a_fixed_text_outside_a_session_is_told_nothing():
    (problem,) = problems(say("a"), texts={"help": "{$messages}"})
    assert problem.startswith("field texts.help: it is sent outside a session")
    phone = phone_for(say("a"), texts={"completed": "Bye, {$contact|you}"})
    assert phone.text("START")[-1] == "Bye, Rey"


@pytest.mark.parametrize("keep, ms", [(None, None), ("30d", 2_592_000_000), ("1s", 1_000)])
def test_a_survey_says_how_long_it_is_kept(keep, ms):
    fields = {} if keep is None else {"keep": keep}
    compiled, written = read_survey("s.json", survey(say("a"), **fields).encode())
    assert (compiled.keep_ms, written) == (ms, [])


@pytest.mark.parametrize(
    "keep, problem",
    [
        ("0d", "field keep: found no time at all"),
        ("a month", "field keep: found 'a month', expected a duration such as 30s, 10m, 2h or 3d"),
        (30, "field keep: found 30, expected a duration"),
        ("none", "field keep: found 'none', expected a duration"),
    ],
)
def test_how_long_a_survey_is_kept_is_a_time(keep, problem):
    (told,) = problems(say("a"), keep=keep)
    assert told.startswith(problem)
