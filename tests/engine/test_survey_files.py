"""A survey file is read as its author meant it, or every reason why not is told at once."""

import copy
import json
import re
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.events import Answer
from engine.proofs import survey_bounds
from engine.proofs.survey_loader import load_surveys
from engine.surveys.conditions import IncludesOption, OneOf, condition_holds
from engine.surveys.cut_texts import cut_text_warnings
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_stored_survey, read_survey
from engine.surveys.survey_registry import SurveyRegistry
from tests.engine.chat import SHIPPED, SimulatedPhone, policy_for, surveys_of
from tests.support.example_counts import examples

# The example in the description of the language, to the letter.
EXAMPLE = """
survey: clinic
title: Online clinic check-up
start: [START, "check ?up"]        # keywords: patterns matched against the whole SMS, case- and accent-folded
languages: [en, "no"]               # the first is the default
idle: 30s                           # silence after which the session is over (each SMS either way restarts it)
expires: 3d                         # absolute end of a session
cooldown: 30s                       # a START this soon after a close is ignored
steps:
  - id: name
    ask: {en: "What is your name?", no: "Hva heter du?"}
    answer: {type: text, max: 40}
  - id: temperature
    ask: "What is your temperature, {name}? (Fahrenheit, e.g. 98.6)"
    answer: {type: number, min: 80, max: 115}
    invalid: "Please answer with digits and a dot only."
    attempts: 3                     # invalid answers allowed; then `give_up`, else the session ends
    next:
      - {when: {at_least: 95}, go: fever}
      - {go: healthy}
  - id: fever
    ask: Do you have a fever?
    answer: {type: yes_no}
    remind: {after: 2h, times: 1, text: "Still there? Do you have a fever?"}
  - id: doctor
    say: You should see a doctor, our medic will call you soon.
    next: end
  - id: healthy
    say: Your health is good. Have a nice day!
    next: end
"""


def problems_of(text, file="f.yaml"):
    """The problems of a file, without its name and their lines."""
    problems = load_surveys({file: dedent(text).encode()})[1]
    placed = [re.match(re.escape(file) + r"(:[1-9][0-9]*)?: ", problem) for problem in problems]
    assert all(placed)
    return [problem[place.end() :] for place, problem in zip(placed, problems, strict=True)]


def survey(*steps, **fields):
    return json.dumps({"survey": "s", "steps": steps, **fields})


def ask(identity, text="?", **fields):
    return {"id": identity, "ask": text, "answer": {"type": "yes_no"}, **fields}


def say(identity, text="!", **fields):
    return {"id": identity, "say": text, **fields}


def phone_for(text):
    return SimulatedPhone(surveys_of({"s.yaml": text}), policy_for("s"))


def test_the_example_is_read_and_bounded():
    example = surveys_of({"clinic.yaml": EXAMPLE}).current("clinic")
    assert example.languages == ("en", "no")
    assert (example.idle_ms, example.expires_ms, example.cooldown_ms) == (30_000, 259_200_000, 30_000)
    # 3 times the name, 3 times the temperature, 3 times the fever and no reminder in 30 s of silence, the doctor
    assert survey_bounds(example).sms_out.most == 3 + 3 + 3 + 1


def test_a_norwegian_no_is_a_language_and_a_duplicate_key_an_error():
    assert problems_of("{survey: s, languages: [no], steps: [{id: a, say: {no: hei}}]}") == []
    assert problems_of("survey: s\nsurvey: t\n") == [
        "the key 'survey' stands twice in one mapping: take one of them out\n    survey: t\n    ^"
    ]
    assert problems_of('{"survey": "s", "survey": "t"}', "f.json") == [
        "the key 'survey' stands twice in one object"
    ]


def test_all_problems_of_all_files_are_told_at_once():
    clinic = """
        survey: clinic
        titel: Clinic
        idle: 30
        steps:
          - id: name
            ask: {en: What?, no: 3}
            answer: {type: text, max: abc}
          - id: temperature
            ask: What, {nme}?
            answer: {type: number, min: abc}
            next: [{when: {at_lest: 95}, go: fevr}]
          - id: fever
            ask: Fever?
            answer: {type: stars}
          - id: colour
            ask: "Which, {nme}?"
            answer: {type: choice, options: [Red, red, "1"], }
            next: [{when: {equals: blue}, go: fevr}]
            attempts: 0
          - id: colour
            say: "{later}"
          - {id: zip, ask: Zip?, answer: {type: text, pattern: "(a"}}
          - {say: Bye}
          - Bye
    """
    assert problems_of(clinic) == [
        "field titel is unknown: did you mean title?",
        "field idle: found 30, expected a duration such as 30s, 10m, 2h or 3d, or none",
        "step 'name', field ask.no: found 3, expected a text",
        "step 'name', field answer.max: found 'abc', expected a whole number",
        "step 'temperature', field answer.min: found 'abc', expected a number",
        "step 'temperature', field next[0].when.at_lest is unknown: did you mean at_least?",
        (
            "step 'fever', field answer.type: found 'stars', "
            "expected text, number, scale, yes_no, choice, choices, date, time, phone, anything or numeric"
        ),
        "step number 7, field id is missing",
        "step number 8, a mapping with `say` or `ask` is expected",
        "step 'colour', field answer.options[1]: 'red' also reads as option 1",
        "step 'colour', field answer.options[2]: '1' also reads as option 1",
        (
            "step 'colour', field ask: {nme} names no question and no session variable: "
            "correct it, or declare it with `variables: [nme]`"
        ),
        "step 'colour', field attempts: found 0, expected 1 or more",
        "step 'colour', field next[0].go: no step is called 'fevr': did you mean fever?",
        "step 'colour', field next[0].when.equals: 'colour' has no option 'blue'",
        "step 'colour', field id: another step has the same id",
        (
            "step 'colour', field say: {later} names no question and no session variable: "
            "correct it, or declare it with `variables: [later]`"
        ),
        "step 'zip', field answer.pattern: RE2 refuses '(a': missing ): (a",
    ]


def test_a_field_too_many_or_of_the_wrong_kind_hides_nothing_else():
    header = survey(say("a"), titel="x", idle=30, most_sms=0, languages=["en", "en"])
    assert [problem.split(":")[0] for problem in problems_of(header)] == [
        "field titel is unknown", "field idle", "field most_sms", "field languages",
    ]  # fmt: skip
    step = ask("a", "{nobody}", attempts="many", invalidd="x", give_up="b")
    assert [problem.split(":")[0] for problem in problems_of(survey(step))] == [
        "step 'a', field attempts",
        "step 'a', field invalidd is unknown",
        "step 'a', field ask",
        "step 'a', field give_up",
    ]


@pytest.mark.parametrize(
    "text, problem",
    [
        (survey(), "field steps: at least one step is expected"),
        (survey(say("a", next="b")), "step 'a', field next: no step is called 'b'"),
        (survey(say("a", next="b"), say("b", next="a")), "the steps 'a' -> 'b' -> 'a' go round"),
        (survey(ask("a", "{b}"), ask("b")), "step 'a', {b} is answered only later"),
        (survey(ask("a", "{a}")), "step 'a', {a} is answered only later"),
        (
            survey(say("a", "{b}"), say("b")),
            "step 'a', field say: {b} names a statement, which has no answer",
        ),
        (survey(say("a", "x" * 1225)), "step 'a', field say: it has 1225 characters, at most 1224"),
        (survey(say("a", " ")), "step 'a', field say: it is empty"),
        (survey(say("end")), "step 'end', field id: found 'end', expected letters"),
        (survey(say("a"), survey="1"), "field survey: found '1', expected letters"),
        (survey(say("a", {"fr": "x"})), "step 'a', field say: there is no text in 'en'"),
        (survey(say("a"), start="Info"), "field start: 'Info' is a word for STOP or HELP"),
        (survey(say("a"), most_sms=0), "field most_sms: found 0, expected 1 or more"),
        (survey(say("a"), start=["GO", " "]), "field start: a keyword is empty"),
        (survey(say("a"), languages=["english"]), "field languages: found 'english', expected a tag such as"),
        (survey({**say("a"), "ask": "b"}), "step 'a', either `say` or `ask` is expected, not both"),
        (survey({**say("a"), "attempts": 2}), "step 'a', field attempts is not one of those here"),
        (
            survey(ask("a", answer="yes_no")),
            "step 'a', field answer: found 'yes_no', expected a mapping such as",
        ),
        (
            survey(say("имя")),
            "step 'имя', field id: found 'имя', expected letters from a to z, digits",
        ),
        (
            "steps: [{id: a, ask: b, answer: {type: date, min: 2026-02-30}}]\nsurvey: s",
            "step 'a', field answer.min: found '2026-02-30', expected YYYY-MM-DD or today",
        ),
        (survey(say("a"), start="("), "field start: RE2 refuses '(': missing )"),
        (survey(say("a"), start=r"(a)\1"), r"field start: RE2 refuses '(a)\1': invalid escape sequence: \1"),
        (survey(say("a"), texts={"help": "{a}"}), "field texts.help: {a} names a statement"),
        (survey(ask("a"), texts={"help": "{a}"}), "field texts.help: it is sent outside a session"),
        (survey(say("a"), again="maybe"), "field again: found 'maybe', expected ignore, answer or restart"),
        (
            survey(ask("a", answer={"type": "choice", "options": []})),
            "step 'a', field answer.options: at least",
        ),
        (
            survey(ask("a", next=[{"go": "end", "when": {}}])),
            "step 'a', field next[0].when: it holds no condition",
        ),
        (
            survey(ask("a", next=[{"go": "end", "when": {"at_least": 3}}])),
            "step 'a', field next[0].when.at_least: the answer to 'a' is no number",
        ),
        (
            survey(ask("a", remind={"after": "0s", "text": "?"})),
            "step 'a', field remind.after: found no time",
        ),
        ("[1, 2]", "it holds no survey"),
        ("", "it holds no survey"),
        ("a: [", "a { or [ is never closed: close it"),
        ("a: &a [*a]", "it refers to itself"),
    ],
)
def test_a_file_is_refused_for(text, problem):
    problems = problems_of(text)
    assert any(each.startswith(problem) for each in problems), problems


def test_two_files_cannot_hold_one_survey():
    surveys, problems = load_surveys(
        {"a.yaml": survey(say("a")).encode(), "b.json": survey(say("b")).encode()}
    )
    assert problems == ["b.json: the survey 's' is in a.yaml already"]
    assert surveys.current("s").file == "a.yaml"


@pytest.mark.parametrize(
    "answer, text, word",
    [
        ("no", True, True),
        ("No!", True, True),
        ("I say: NO, thanks", True, True),
        ("nò way", True, True),
        ("know", True, False),
        ("now", True, False),
        ("a know-no", True, True),
        ("no1", True, False),
        ("nowhere to go, no", True, True),
        ("yes", False, False),
        ("so-so", True, True),
        ("also so", False, False),
        ("also-so", True, False),
        ("c++", True, True),
        ("objc++", True, False),
    ],
)
def test_a_text_is_looked_for_anywhere_and_a_word_as_a_word(answer, text, word):
    words = ["no", "so-so", "c++"]
    for condition, expected in (("contains", text), ("contains_word", word)):
        steps = (
            ask("a", answer={"type": "text"}, next=[{"when": {condition: words}, "go": "b"}, {"go": "end"}]),
            say("b", "found"),
        )
        phone = phone_for(survey(*steps))
        phone.text("START")
        assert phone.text(answer) == (["found"] if expected else []), condition


@pytest.mark.parametrize(
    "answer, word, problem",
    [
        ({"type": "text"}, "", "at least one word is expected, and no empty one"),
        ({"type": "text"}, [], "at least one word is expected, and no empty one"),
        (
            {"type": "choices", "options": ["x", "y"]},
            "x",
            "the answer to 'a' is options: name them with `contains`",
        ),
    ],
)
def test_a_word_that_nothing_can_contain_is_an_error(answer, word, problem):
    when = [{"when": {"contains_word": word}, "go": "end"}, {"go": "end"}]
    found = problems_of(survey(ask("a", answer=answer, next=when)))
    assert f"step 'a', field next[0].when.contains_word: {problem}" in found


def test_what_can_be_read_is_read_beside_what_cannot():
    surveys, problems = load_surveys({"a.yaml": b"\xff", "b.yaml": survey(say("b")).encode()})
    assert problems == [
        "a.yaml:1: character 1 is not written in UTF-8: save the file as UTF-8\n    \ufffd\n    ^"
    ]
    assert surveys.current_names() == ["s"]


def test_an_older_version_is_known_by_its_content_only():
    surveys = SurveyRegistry()
    source = survey(say("a")).encode()
    older = surveys.add_version(read_stored_survey("a.yaml", source))
    assert surveys.by_version(older.version) is older
    assert len(older.version) == 16
    assert (older.source, older.file) == (source, "a.yaml")
    assert surveys.current("s") is None
    with pytest.raises(InvalidSurveyError):
        surveys.add_version(read_stored_survey("a.yaml", b""))


def test_a_choice_is_numbered_under_its_question_and_its_label_goes_into_texts():
    options = ["Red", {"id": "green", "label": "Deep green", "aliases": ["g"]}]
    phone = phone_for(
        survey(
            ask("colour", "Which?", answer={"type": "choice", "options": options}),
            say("thanks", "{colour} it is."),
        )
    )
    assert phone.text("START") == ["Which?\n1. Red\n2. Deep green"]
    assert phone.text("3") == [
        "That is not one of the options. Please answer with a number from 1 to 2. Which?\n1. Red\n2. Deep green"
    ]
    assert phone.text("G.") == ["Deep green it is."]


@pytest.mark.parametrize(
    "written, answer, said",
    [
        ("Hi {a}.", "Ann", "Hi Ann."),
        ("Hi {a:2}.", "Ann", "Hi An."),
        ("Hi {a|you:2}.", "", "Hi you."),
        ("Hi {a|you}.", "{a|x} {b}", "Hi {a|x} {b}."),
        ("Hi {a}.", "  Ann\n", "Hi Ann."),
        ("{ a } {} {{", "Ann", "{ a } {} {{"),
    ],
)
def test_what_was_answered_is_put_in_and_never_interpreted(written, answer, said):
    phone = phone_for(survey(ask("a", answer={"type": "text", "min": 0}), say("b", written)))
    phone.text("START")
    assert phone.text(answer) == [said]


def test_a_text_never_outgrows_what_a_provider_takes():
    text = "x" * 1200 + "{a}"
    phone = phone_for(survey(ask("a", answer={"type": "text", "max": 500}), say("b", text)))
    phone.text("START")
    assert [len(said) for said in phone.text("y" * 500)] == [1224]


@pytest.mark.parametrize(
    "when, taken",
    [
        ({"at_least": 5}, [5, 6]),
        ({"at_most": 5}, [4, 5]),
        ({"above": 5}, [6]),
        ({"below": 5}, [4]),
        ({"equals": 5}, [5]),
        ({"one_of": [4, 6]}, [4, 6]),
        ({"above": 4, "below": 6}, [5]),
        ({"any": [{"below": 5}, {"above": 5}]}, [4, 6]),
        ({"all": [{"at_least": 5}, {"not": {"equals": 5}}]}, [6]),
        ({"matches": "[45]"}, [4, 5]),
        ({"contains": ["5", "6"]}, [5, 6]),
        ({"answered": True}, [4, 5, 6]),
        ({"answer": "other", "answered": True}, []),
        ({"answer": "other", "answered": False}, [4, 5, 6]),
        ({"answer": "other", "at_least": 0}, []),
    ],
)
def test_a_route_is_taken_when_its_condition_holds(when, taken):
    number = {"id": "n", "ask": "?", "answer": {"type": "number"}}
    steps = (
        {**number, "next": [{"when": when, "go": "yes"}, {"go": "no"}]},
        say("yes", next="end"),
        say("no", "?", next="end"),
        {**number, "id": "other"},
    )
    found = []
    for answer in (4, 5, 6):
        phone = phone_for(survey(*steps))
        phone.text("START")
        found += [answer] if phone.text(str(answer)) == ["!"] else []
    assert found == taken


@pytest.mark.parametrize("written, sms", [("yes", "oui"), (True, "ja"), ("no", "nope"), (False, "n")])
def test_yes_and_no_are_compared_as_they_are_read(written, sms):
    phone = phone_for(
        survey(ask("a", next=[{"when": {"equals": written}, "go": "b"}, {"go": "end"}]), say("b"))
    )
    phone.text("START")
    assert phone.text(sms) == ["!"]


def test_routes_without_a_default_go_on_to_the_following_step():
    phone = phone_for(survey(ask("a", next=[{"when": {"equals": "yes"}, "go": "end"}]), say("b")))
    phone.text("START")
    assert phone.text("no") == ["!"]


def test_too_many_invalid_answers_give_up():
    phone = phone_for(survey(ask("a", attempts=2, give_up="c"), say("b"), say("c", "Bye")))
    phone.text("START")
    assert phone.text("what") == ["That is neither yes nor no. Please answer yes or no. ?"]
    assert phone.text("what") == ["Bye"]
    assert phone.channel_state.ended_how == "completed"


def test_invalid_none_passes_over_what_is_no_answer():
    phone = phone_for(survey(ask("a", invalid="none"), say("b", "Bye")))
    phone.text("START")
    assert [phone.text("what") for _ in range(9)] == [[]] * 9
    assert phone.text("yes") == ["Bye"]


@pytest.mark.parametrize("beside", [{"attempts": 2}, {"give_up": "b"}])
def test_nothing_follows_answers_that_are_passed_over(beside):
    (problem,) = problems_of(survey(ask("a", invalid="none", **beside), say("b")))
    assert "`none` passes over invalid answers, however many" in problem


def test_what_a_lenient_survey_has_too_much_is_a_warning():
    steps = [ask("a", next="a"), say("nobody")]
    strict = problems_of(survey(*steps, most_sms=9))
    assert len(strict) == 1
    assert "'nobody'" in strict[0]
    assert problems_of(survey(*steps, most_sms=9, lenient=True)) == []
    (problem,) = problems_of(survey(*steps, lenient=True))
    assert "`most_sms` is expected beside it" in problem


@pytest.mark.parametrize(
    "written, sent",
    [(r"\{a} is {a}", "{a} is yes"), (r"\\{a}", r"\{a}"), (r"C:\dir {a}", r"C:\dir yes"), (r"\{", "{")],
)
def test_a_brace_behind_a_backslash_is_a_brace(written, sent):
    phone = phone_for(survey(ask("a"), say("b", written)))
    phone.text("START")
    assert phone.text("yes") == [sent]


def test_a_cycle_is_exhausted_at_most_sms():
    phone = phone_for(survey(ask("a", "Again?", next="a"), most_sms=4))
    assert [phone.text(text) for text in ("START", "y", "y", "y", "y")] == [["Again?"]] * 4 + [[]]
    assert phone.channel_state.ended_how == "exhausted"


def test_completed_is_said_at_the_end_and_none_is_nothing():
    phone = phone_for(survey(ask("a"), texts={"completed": "Thanks, {a}!", "unavailable": "none"}))
    phone.text("START")
    assert phone.text("yes") == ["Thanks, yes!"]
    assert phone.text("hello?") == []


def test_french_where_the_author_wrote_nothing():
    french = survey(ask("a", answer={"type": "number", "min": 1, "max": 9}), languages=["fr"])
    phone = phone_for(french)
    phone.text("START")
    assert phone.text("x") == ["Nous n'y trouvons pas de nombre. Veuillez répondre par un nombre de 1 à 9. ?"]
    assert phone.text("arrêt") == ["Vous ne recevrez plus de messages. Envoyez START pour revenir."]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DOCUMENTS = [json.loads(SHIPPED["tutorial.json"]), json.loads(survey(
    ask("a", remind={"after": "2h", "text": "?"}),
    ask("b", {"en": "{a}"}, answer={"type": "choice", "options": ["x", {"id": "y", "label": "Y"}]}),
    ask("c", answer={"type": "number", "min": 2}, next=[{"when": {"not": {"above": 3}}, "go": "a"}, {"go": "end"}]),
    ask("d", answer={"type": "text", "pattern": "a+"}, invalid="no", give_up="a"),
    languages=["en", "fr"], texts={"help": "none", "completed": {"en": "{a}"}}, idle="1h", start=["a?"],
))]  # fmt: skip


def paths(value, path=()):
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(found for key, child in children for found in paths(child, (*path, key)))]


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_no_file_whatever_raises(data):
    document = [copy.deepcopy(data.draw(st.sampled_from(DOCUMENTS)))]
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(paths(document)[1:]))
        holder = document
        for key in way:
            holder = holder[key]
        holder[last] = data.draw(VALUES)
    surveys, problems = load_surveys({"f.json": json.dumps(document[0]).encode()})
    assert surveys.current_names() or problems


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["f.yaml", "f.json", "f.yml", "f"]))
def test_no_bytes_whatever_raise(source, file):
    assert load_surveys({file: source})[1]


@pytest.mark.parametrize(
    "line, comment",
    [
        ("ask: Dial #5 now", "#5 now"),
        ("  say: We are #1!", "#1!"),
        ("- ask: Call us #now", "#now"),
        ("    en: Dial #5 now", "#5 now"),
        ("ask: Dial # five now", None),
        ("ask: Dial  # the first question", None),
        ('ask: "Dial #5 now"', None),
        ("ask: 'Dial #5 now'", None),
        ("ask: Dial#5 now", None),
        ("#ask: Dial #5 now", None),
        ("id: a #5", None),
    ],
)
def test_a_text_that_a_comment_cuts_is_warned_of(line, comment):
    found = list(cut_text_warnings(f"survey: s\n{line}\n", {"x": ["Dial", "We are", "Call us", "a"]}, ["en"]))
    assert [(each.line, each.reason) for each in found] == (
        [(2, f"field {line.split(':')[0].strip(' -')}: '{comment}' is a comment in YAML, and is not sent")]
        if comment
        else []
    )


def test_a_text_that_holds_what_looks_like_a_comment_is_not_warned_of():
    text = "survey: s\nsteps:\n  - id: a\n    say: |\n      ask: Dial #5 now\n      and wait\n"
    assert read_survey("s.yaml", text.encode())[1] == []
    (warning,) = read_survey("s.yaml", b"survey: s\nsteps:\n  - id: a\n    say: Dial #5 now\n")[1]
    assert (warning.level, warning.code) == ("warning", "cut_text")


def test_accents_are_put_onto_their_letters():
    decomposed = (
        "{survey: s, steps: [{id: a, say: 'Cafe\u0301 A\u030a \u212b'}, {id: b, say: x"
        + "\u0301" * 99
        + "}]}"
    )
    of, _ = read_survey("s.yaml", decomposed.encode())
    assert of.steps[0].text["en"] == "Caf\xe9 \xc5 \xc5"
    assert of.steps[1].text["en"] == "x" + "\u0301" * 99, "a heap of marks costs too much to sort"
    assert survey_bounds(of).segments["en"].most == 3


@pytest.mark.parametrize("stored", ["caf\xe9", "cafe\u0301"])
def test_an_option_that_was_stored_with_its_accent_apart_is_the_same_option(stored):
    one, several = Answer("1", stored, 0), Answer("1", (stored,), indexes=(0,))
    assert condition_holds(OneOf("a", frozenset(["caf\xe9"])), {"a": one})
    assert condition_holds(OneOf("a", frozenset(["caf\xe9"])), {"a": several})
    assert condition_holds(IncludesOption("a", frozenset(["caf\xe9"])), {"a": several})
