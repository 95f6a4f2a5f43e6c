"""What is wrong with a survey is proved before it runs, and told with its step, its reason and what mends it."""

import json

import pytest

from engine.proofs import survey_bounds, survey_findings
from engine.proofs.keyword_clashes import keyword_clashes
from engine.proofs.survey_loader import load_surveys
from engine.surveys.survey_reader import read_survey


def survey(*steps, **fields):
    return json.dumps({"survey": "s", "steps": steps, **fields}).encode()


def ask(identity, text="?", answer="yes_no", **fields):
    kind = answer if isinstance(answer, dict) else {"type": answer}
    return {"id": identity, "ask": text, "answer": kind, **fields}


def say(identity, text="!", **fields):
    return {"id": identity, "say": text, **fields}


def to(go, **when):
    return {"go": go, **({"when": when} if when else {})}


NUMBER = {"type": "number", "min": 80, "max": 115}
WHOLE = {"type": "number", "min": 0, "max": 9, "decimals": 0}
CHOICE = {"type": "choice", "options": ["red", "green", "blue"]}
CHOICES = {"type": "choices", "options": ["red", "green", "blue"], "max": 2}
DATE = {"type": "date", "min": "2026-01-01", "max": "2026-12-31"}


def found(*steps, **fields):
    """Level, step and sentence of everything found."""
    compiled, written = read_survey("s.json", survey(*steps, **fields))
    return [
        (each.level, each.code, each.step, each.reason) for each in (*survey_findings(compiled), *written)
    ]


def test_a_survey_in_which_all_is_well_is_told_nothing():
    steps = [
        ask("t", "Hot, {who|you}?", NUMBER, next=[to("yes", at_least=95), to("no")], remind={"after": "1h", "text": "?"}),
        say("yes", "{t} is much", next="end"),
        say("no", "{t} is fine"),
    ]  # fmt: skip
    assert found(*steps, variables=["who"]) == []


@pytest.mark.parametrize(
    "answer, routes, reason",
    [
        (NUMBER, [to("b", at_least=95), to("c", at_least=97), to("end")], "at least 97) is never taken: next[0] takes"),
        (NUMBER, [to("b", above=100), to("c", at_most=100), to("end")], "next[2], the default, is never taken"),
        (NUMBER, [to("b", at_least=120), to("c")], "at least 120) is never taken: no answer that can be given"),
        (NUMBER, [to("b", below=95), to("c", at_least=95), to("b", equals=95)], "next[1] takes every answer"),
        (NUMBER, [to("b", at_least=95), to("c", below=90), to("b", above=94.5, below=95.5), to("end")], ""),
        (WHOLE, [to("b", at_least=5), to("c", above=4, below=5), to("end")], "no answer that can be given is like that"),
        (WHOLE, [to("b", below=3), to("b", above=5), to("c", one_of=[3, 4, 5]), to("end")], "the default, is never taken"),
        ("yes_no", [to("b", equals="yes"), to("c", equals="no"), to("end")], "the default, is never taken"),
        ("yes_no", [to("b", equals="yes"), to("c", all=[{"equals": "yes"}, {"equals": "no"}]), to("c")], "no answer"),
        (CHOICE, [to("b", one_of=["red", "green"]), to("c", equals="red"), to("c")], "next[0] takes every answer"),
        (CHOICE, [to("b", matches="x.*"), to("c")], "no answer that can be given"),
        (CHOICE, [to("b", equals="red"), to("c", **{"not": {"equals": "red"}}), to("c")], "default, is never taken"),
        (CHOICES, [to("b", contains="red"), to("c", equals="red"), to("c")], "next[0] takes every answer"),
        (CHOICES, [to("b", contains="red"), to("c", contains=["green", "blue"]), to("c")], "default, is never taken"),
        (CHOICES, [to("b", all=[{"contains": "red"}, {"contains": "green"}, {"contains": "blue"}]), to("c")], "no answer"),
        (DATE, [to("b", below="2026-06-01"), to("c", at_most="2026-05-31"), to("c")], "next[0] takes every answer"),
        (DATE, [to("b", at_least="2027-01-01"), to("c")], "no answer that can be given"),
        ({"type": "scale", "to": 5}, [to("b", at_least=3), to("c", at_most=2), to("end")], "default, is never taken"),
        ({"type": "text"}, [to("b", equals="yes"), to("c", equals="YES"), to("c")], "next[0] takes every answer"),
        ({"type": "text"}, [to("b", equals="yes"), to("c", matches="y.*"), to("c")], ""),
        ({"type": "phone"}, [to("b", matches=r"\+33.*"), to("c", contains="47"), to("c")], ""),
    ],
)  # fmt: skip
def test_routes_are_proved_taken_or_not_by_intervals_and_sets(answer, routes, reason):
    shadowed = [
        each[3] for each in found(ask("a", "?", answer, next=routes), say("b", next="end"), say("c", next="end"))
        if each[1] == "shadowed"
    ]  # fmt: skip
    if not reason:
        assert shadowed == []
    else:
        assert len(shadowed) == 1
        assert reason in shadowed[0]


def test_a_route_that_an_earlier_answer_forbids_is_never_taken():
    """Not each condition for itself: what was answered before is known."""
    steps = [
        ask("a", "?", NUMBER, next=[to("b", at_least=100), to("end")]),
        ask("b", "?", next=[to("c", answer="a", below=90), to("d")]),
        say("c", next="end"),
        say("d"),
    ]
    assert ("error", "unreachable", "c", "it is never reached") in found(*steps)
    shadowed = [each for each in found(*steps) if each[1] == "shadowed"]
    assert [(each[2], each[3][:8]) for each in shadowed] == [("b", "next[0] ")]


@pytest.mark.parametrize(
    "answer, routes, samples",
    [
        (NUMBER, [to("b", at_least=95), to("end", below=90)], "'90'"),
        ("yes_no", [to("b", equals="yes")], "'no'"),
        (CHOICE, [to("b", one_of=["red", "blue"])], "'2'"),
        (NUMBER, [to("b", at_least=95), to("end", below=95)], None),
    ],
)
def test_answers_that_no_route_takes_are_named(answer, routes, samples):
    warned = [each for each in found(ask("a", "?", answer, next=routes), say("b")) if each[1] == "no_route"]
    if samples is None:
        assert warned == []
    else:
        ((level, _, step, reason),) = warned
        assert (level, step) == ("warning", "a")
        assert samples in reason
        assert "go on to 'b', the step after" in reason


@pytest.mark.parametrize(
    "steps, fields, problem",
    [
        (
            [say("a", next="b"), say("b", next="a")],
            {},
            ("", "the steps 'a' -> 'b' -> 'a' go round without asking"),
        ),
        ([say("a", next="a")], {"most_sms": 5}, ("", "the steps 'a' -> 'a' go round without asking")),
        ([ask("a", next="a")], {}, ("a", "'a' -> 'a' can go round for ever")),
        ([ask("a", give_up="a")], {}, ("a", "'a' -> 'a' can go round for ever")),
        (
            [ask("a"), ask("b", next=[to("a", equals="yes"), to("end")])],
            {},
            ("a", "'a' -> 'b' -> 'a' can go round"),
        ),
        ([ask("a", next="a")], {"most_sms": 5}, None),
        ([ask("a", next=[{**to("a", equals="yes"), "times": 3}, to("end")])], {}, None),
        ([ask("a"), ask("b", next=[{"go": "a", "times": 1}])], {}, None),
    ],
)
def test_it_ends_or_is_refused(steps, fields, problem):
    endless = [(step, reason) for _, code, step, reason in found(*steps, **fields) if code == "endless"]
    if problem is None:
        assert endless == []
        assert survey_bounds(read_survey("s.json", survey(*steps, **fields))[0]) is not None
    else:
        ((step, reason),) = endless
        assert step == problem[0]
        assert reason.startswith(problem[1])
        assert load_surveys({"s.json": survey(*steps, **fields)})[1]


@pytest.mark.parametrize(
    "steps, problem",
    [
        ([ask("a", "{b}"), ask("b")], "{b} is answered only later"),
        ([ask("a", "{a}")], "{a} is answered only later"),
        (
            [ask("a", next=[to("b", equals="yes"), to("c")]), ask("b"), say("c", "{b}")],
            "{b} is not answered on every way to it, as by 'a' -> 'c'",
        ),
        ([ask("a", give_up="b"), say("b", "{a}")], "{a} is not answered on every way to it, as by 'a' -> 'b'"),
        ([ask("a", next=[to("b", equals="yes"), to("c")]), ask("b"), say("c", "{b|none}")], None),
        ([ask("a", next=[to("b", equals="yes"), to("c")]), ask("b"), say("c", "{b|}")], None),
        # what leads to the text without an answer is ruled out by the same condition
        (
            [ask("a", next=[to("b", equals="yes"), to("c")]), ask("b"), say("c", next=[to("d", answer="a", equals="yes"), to("end")]), say("d", "{b}")],
            None,
        ),
        ([ask("a", remind={"after": "1h", "text": "{b}"}), ask("b")], "{b} is answered only later"),
        ([ask("a", invalid="{b}"), ask("b")], "{b} is answered only later"),
    ],
)  # fmt: skip
def test_a_placeholder_has_something_to_put_in_on_every_way(steps, problem):
    errors = [(level, reason) for level, code, _, reason in found(*steps) if code == "unanswered"]
    assert errors == ([] if problem is None else [("error", problem)])


def test_what_completes_a_survey_knows_only_what_every_way_answers():
    steps = [ask("a", next=[to("b", equals="yes"), to("end")]), ask("b")]
    (problem,) = [each for each in found(*steps, texts={"completed": "{b}"}) if each[1] == "unanswered"]
    assert problem[2:] == ("", "{b} is not answered on every way to it, as by 'a' -> the end")


@pytest.mark.parametrize(
    "text, languages, reason",
    [
        ("Ça va ?", ["fr"], None),
        ("Votre reçu est prêt à être retiré à l'accueil, merci de venir cette semaine, avant vendredi.", ["fr"],
         "field say (fr): 'ç' (U+00E7) and 'ê' (U+00EA) make it UCS-2, 2 segments instead of 1"),
        ("It’s ready – come and get it, at the desk, before the end of the week.", ["en"],
         "field say (en): '–' (U+2013) and '’' (U+2019) make it UCS-2, 70 characters a segment instead of 160"),
        ("Здравствуйте! Ваш заказ готов, его можно забрать на стойке до конца этой недели. Спасибо!", ["ru"], None),
        ("x" * 160, ["en"], None),
    ],
)  # fmt: skip
def test_a_few_characters_that_double_the_price_are_named_with_what_to_write(text, languages, reason):
    warned = [each[3] for each in found(say("a", text), languages=languages) if each[1] == "ucs2"]
    assert warned == ([reason] if reason else [])


def test_where_we_would_speak_english_is_told():
    mute = dict.fromkeys(
        ("gave_up", "unavailable", "not_found", "expired", "stopped", "help", "opted_in"), "none"
    )
    unspoken = [
        each[3]
        for each in found(ask("a", invalid="Да?"), languages=["ru"], texts=mute)
        if each[1] == "unspoken_language"
    ]
    assert unspoken == ["we have no words in 'ru', and would speak English: the words for yes and no of 'a'"]
    known = found(
        ask("a", invalid="Да?", answer={"type": "yes_no", "yes": ["да"], "no": ["нет"]}),
        languages=["ru"],
        texts=mute,
    )
    assert "unspoken_language" not in [each[1] for each in known]
    assert "unspoken_language" not in [each[1] for each in found(ask("a"), languages=["fr-CA"])]
    (reason,) = [each[3] for each in found(ask("a"), languages=["ru"]) if each[1] == "unspoken_language"]
    assert reason.endswith("`texts.unavailable`, `texts.not_found`, `texts.expired` and 6 more")


def test_the_rest_of_what_is_odd():
    assert [each[1:3] for each in found(say("a", {"en": "x"}), languages=["en", "fr"])] == [
        ("one_language", "a"), ("language_missing", "a"),
    ]  # fmt: skip
    assert found(say("a", "x"), languages=["en", "fr"])[0][3].startswith(
        "one text stands for all of en, fr in 1 of 1"
    )
    assert found(ask("a", "?", {"type": "text"}), say("b", "{a}" * 2))[0][1:3] == ("too_long", "b")
    assert found(say("a", "{agentId}"))[0][1:3] == ("no_variable", "a")
    assert found(say("a", "{whom|x}"))[0][1] == "undeclared_variable"
    late = ask("a", remind={"after": "2h", "text": "?"})
    assert found(late, idle="1h")[0][1:3] == ("never_reminded", "a")
    assert found(late, expires="1h")[0][1:3] == ("never_reminded", "a")
    assert found(late, expires="1d") == []
    assert found(late, expires="60m")[0][3].endswith("its last reminder, after 60m")
    assert found(ask("a", remind={"after": "48h", "text": "?"}), idle="24h")[0][3] == (
        "field remind.after: its reminder, after 48h, is never sent: silence ends the session after 24h"
    )
    assert found(late, idle="90m")[0][3].endswith("silence ends the session after 90m")


@pytest.mark.parametrize(
    "start, said",
    [
        ({"en": ["GO", "START"], "no": ["begynn", "start"]}, "'start' stands there for 'en' and for 'no'"),
        ({"en": "go+", "no": "Go+"}, "'Go+' stands there for 'en' and for 'no'"),
        ({"en": "*", "no": " * "}, "' * ' stands there for 'en' and for 'no'"),
        ({"en": "GO", "no": "BEGYNN"}, None),
        (["GO", "go"], None),
    ],
)
def test_a_keyword_for_two_languages_starts_the_first(start, said):
    warned = found(say("a", {"en": "x", "no": "y"}), languages=["en", "no"], start=start)
    if said is None:
        assert warned == []
    else:
        assert warned == [("warning", "keyword", "", f"field start: {said}: it starts the survey in 'en'")]


@pytest.mark.parametrize(
    "answer, fields, words",
    [
        ({"type": "choice", "options": ["Go on", {"id": "x", "label": "Stop!"}]}, {}, ["'stop' is no answer that can be given: it is a STOP"]),
        ({"type": "choice", "options": ["end", "info"]}, {}, []),  # these may be answers
        ({"type": "choice", "options": ["again", "go"]}, {"start": "GO"}, ["'go' is no answer that can be given: it is a keyword"]),
        ({"type": "choice", "options": ["again", "go"]}, {"start": "GO", "again": "answer"}, []),
        ({"type": "scale", "to": 2, "labels": {"1": "Help"}}, {}, ["'help' is no answer that can be given: it is a HELP"]),
        ("yes_no", {"start": "OK"}, ["'ok' is no answer that can be given: it is a keyword"]),
        ("text", {}, ["'quit' is no answer that can be given: it is a STOP"]),
    ],
)  # fmt: skip
def test_an_answer_that_is_a_command_is_told(answer, fields, words):
    steps = [
        ask("a", "?", answer, **({"next": [to("b", equals="Quit"), to("b")]} if answer == "text" else {})),
        say("b"),
    ]
    warned = [each[3] for each in found(*steps, **fields) if each[1] == "command"]
    assert len(warned) == len(words)
    assert all(reason.startswith(word) for reason, word in zip(warned, words, strict=True))


def test_what_looks_like_a_placeholder_and_is_none_is_told():
    texts = ["{a:abc}", "{ a }", "{a", "{}"]
    assert [[each[1] for each in found(ask("a"), say("b", text))] for text in texts] == [["braces"]] * 4
    assert found(ask("a"), say("b", "{a} :-{ }")) != []
    assert found(ask("a"), say("b", "{a|} :-{")) == []
    assert found(ask("a"), say("b", r"\{a:abc} \{ a } \{a {a}")) == []


def test_a_title_that_costs_is_named_once_and_not_the_texts_it_stands_in():
    warned = [
        each[3]
        for each in found(say("a"), title="Nordlys – kundeservice", languages=["en", "no"])
        if each[1] == "ucs2"
    ]
    assert len(warned) == 1
    assert warned[0].startswith("field title (en): '–' (U+2013) makes it UCS-2")


@pytest.mark.parametrize(
    "one, other, text",
    [
        ("START", "start", "start"),
        ("CHECKUP", "check ?up", "checkup"),
        ("join [a-z]+", "join (now|later)", "join now|join later"),
        ("join [a-z]+", "join [0-9]+", None),
        ("a{1,3}b?", "aab", "aab"),
        (r"\pL+", "xyz", "xyz"),
        (r"\pL+", "x+", None),  # what only RE2 knows is not looked into; nothing is claimed
    ],
)
def test_keywords_of_two_surveys_that_one_sms_matches_are_found(one, other, text):
    first, second = (
        read_survey(f"{name}.json", survey(say("a"), start=keyword, survey=name))[0]
        for name, keyword in (("one", one), ("other", other))
    )
    warned = [finding.reason for finding in keyword_clashes([first, second])]
    if text is None:
        assert warned == []
    else:
        assert any(
            warned == [f"'{each}' starts 'one' and would start 'other' as well"] for each in text.split("|")
        )


def test_a_survey_with_errors_does_not_start_and_warnings_do_not_matter():
    unreachable = survey(say("a", next="end"), say("b"))
    surveys, problems = load_surveys(
        {"s.json": unreachable, "t.json": survey(say("a", "{who|x}"), survey="t")}
    )
    assert problems == ["s.json:1: step 'b', it is never reached: let a route lead to it, or take it out"]
    assert surveys.current_names() == ["t"]
