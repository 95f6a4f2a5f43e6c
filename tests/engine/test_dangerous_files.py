"""One file of surveys, whatever is in it, is refused by itself: at little cost, with a sentence, and without an error that
keeps the others from being read."""

import json
import re
import subprocess
import sys
from textwrap import dedent

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine import proofs
from engine.proofs.keyword_clashes import keyword_clashes
from engine.proofs.survey_loader import load_surveys, reload_surveys
from engine.surveys.documents import (
    FILE_LIMITS,
    DocumentLimits,
    DocumentSyntaxError,
    UnreadableFile,
    parse_document,
)
from engine.surveys.findings import MOST_FINDINGS, InvalidSurveyError
from engine.surveys.survey_reader import read_stored_survey, read_survey
from engine.surveys.survey_registry import SurveyRegistry
from tests.support.example_counts import examples
from tests.support.waiting import used_s

GOOD = b"{survey: good, steps: [{id: bye, say: Bye.}]}"

NESTED_ALIASES = b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 8)
)
"""A hundred million values in 400 bytes."""

NESTED_MERGES = b"a0: &a0 {x: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [%s]}\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 8)
)


def survey(*steps, **fields):
    return json.dumps({"survey": "s", "steps": steps, **fields}).encode()


def ask(identity, answer, **fields):
    return {"id": identity, "ask": "?", "answer": answer, **fields}


def say(identity, text="!", **fields):
    return {"id": identity, "say": text, **fields}


def problems_of(file, source):
    """Every problem of a file beside a good one, which must be read all the same."""
    surveys, problems = load_surveys({file: source, "good.yaml": GOOD})
    assert "good" in surveys.current_names()
    placed = [re.match(re.escape(file) + r"(:[1-9][0-9]*)?: ", problem) for problem in problems]
    assert all(placed)
    return [problem[place.end() :] for place, problem in zip(placed, problems, strict=True)]


SCALE = {"type": "scale", "from": 1, "to": 3}

DANGEROUS = [
    ("f.yaml", NESTED_ALIASES, "it holds more than 100,000 values, each alias"),
    ("f.yaml", NESTED_MERGES, "it holds more than 100,000 values, each alias"),
    ("f.yaml", b"a: &a {b: *a}", "it refers to itself"),
    ("f.yaml", b"a: &a {<<: *a}", "it refers to itself"),
    ("f.yaml", b"t: &t " + b"x" * 20_000 + b"\nsteps: [" + b"*t, " * 100 + b"]", "with each alias written out"),
    ("f.yaml", b"[" * 5_000, "it is nested too deeply"),
    ("f.json", b"[" * 100_000, "it is nested too deeply"),
    ("f.json", b"[" * 120 + b"]" * 120, "it is nested too deeply"),
    ("f.yaml", b"a: " + b"[" * 120 + b"]" * 120, "it is nested too deeply"),
    ("f.yaml", b"#" * (FILE_LIMITS.size + 1), "it has more than 1,048,576 bytes"),
    ("f.json", b"[" + b"1," * 100_001 + b"1]", "it holds more than 100,000 values"),
    ("f.json", b'{"survey": ' + b"9" * 5_000 + b"}", "it holds a number of 5,000 digits"),
    ("f.yaml", b"survey: " + b"9" * 5_000, "it holds a number of 5,000 digits"),
    ("f.yaml", b"survey: 0x" + b"f" * 5_000, "it holds a number of 5,002 digits"),
    ("f.yaml", b"survey: s\nsteps: !!set {a, b}", "could not determine a constructor"),
    ("f.yaml", b"survey: s\nsteps: !!pairs [a: 1]", "could not determine a constructor"),
    ("f.yaml", b"survey: s\nsteps: !!binary aGk=", "could not determine a constructor"),
    ("f.yaml", b"survey: s\nsteps: !!python/name:os.system x", "could not determine"),
    ("f.yaml", UnreadableFile("it cannot be read (Permission denied)"), "it cannot be read (Permission denied)"),
    (
        "f.json",
        survey(ask("a", {**SCALE, "labels": {"1": "bad", "3": {"en": 5, "fr": 6}}})),
        "step 'a', field answer.labels.3.en: found 5, expected a text",
    ),
    (
        "f.json",
        survey(ask("a", {**SCALE, "labels": {"1": {"en": "bad"}, "3": {"en": "good", "fr": 6}}})),
        "step 'a', field answer.labels.3.fr: found 6, expected a text",
    ),
    (
        "f.json",
        survey(ask("a", {"type": "choice", "options": [{"id": "r", "label": {"en": 1, "fr": 2}}]})),
        "step 'a', field answer.options[0].label.en: found 1, expected a text",
    ),
    (
        "f.yaml",
        b"{survey: s, steps: [{id: a, ask: b, answer: {type: scale, to: 3, labels: {1: {en: x}, 2: {3.5: y}}}}]}",
        "step 'a', field answer.labels.2: found the key 3.5, expected a text",
    ),
    ("f.json", survey(say("a"), languages=[f"x-{n:05}" for n in range(9_000)]), "field languages: found 9000"),
    ("f.json", survey(say("a", "{a}" * 100_000)), "step 'a', field say: it has 300000 characters"),
    ("f.json", survey(say("a", next="x" * 500_000)), "step 'a', field next: no step is called 'xxx"),
    ("f.json", survey(say("a"), **{"x" * 500_000: 1}), "field xxx"),
]  # fmt: skip


@pytest.mark.parametrize("file, source, problem", DANGEROUS)
def test_a_dangerous_file_is_refused_with_a_short_sentence(file, source, problem):
    found = problems_of(file, source)
    assert any(each.startswith(problem) for each in found), [each[:200] for each in found]
    assert all(len(each) < 1_000 for each in found)


def test_every_number_that_is_a_label_in_every_language_is_told():
    labels = {"1": {"en": 5, "fr": 6}, "3": {"en": 7, "fr": "bien"}}
    assert problems_of("f.json", survey(ask("a", {**SCALE, "labels": labels}))) == [
        "step 'a', field answer.labels.1.en: found 5, expected a text",
        "step 'a', field answer.labels.1.fr: found 6, expected a text",
        "step 'a', field answer.labels.3.en: found 7, expected a text",
    ]


QUADRATIC = [
    survey(say("a"), **{f"nobody_knows_{n}": 1 for n in range(40_000)}),
    survey(*(say(f"step{n}", next=f"stop{n}") for n in range(10_000))),
    survey(*(say("same") for _ in range(10_000))),
    survey(*({"id": f"a{n}", "say": "!", "x": 1} for n in range(10_000))),
    survey(say("a", next=[{"go": f"b{n}", "when": {"answer": f"c{n}", "equals": 1}} for n in range(10_000)])),
    json.dumps([{"text": 1} for _ in range(10_000)]).encode(),
    ("{" + ", ".join(f'"k{n}": 1' for n in range(40_000)) + ', "k39999": 2}').encode(),
]


@pytest.mark.parametrize("source", QUADRATIC)
def test_so_many_mistakes_are_not_all_looked_for(source):
    found = []
    assert used_s(lambda: found.extend(problems_of("f.json", source))) < 15, "all of them take minutes"
    assert 1 <= len(found) <= MOST_FINDINGS + 1
    assert len(found) == 1 or found[-1] == "there is more that is wrong: mend this first"


def test_a_file_as_large_as_it_may_be_is_read():
    source = survey(say("a")).ljust(FILE_LIMITS.size)
    assert problems_of("f.json", source) == []
    assert problems_of("f.json", source + b" ") != []


LONG_LINES = [
    "# " + " " * 900_000 + "#",
    "title: a" + " " * 900_000 + "#b",
    "title: '" + "e\u0301" * 300_000 + "'",
    "title: 'e" + "\u0301\u0316" * 200_000 + "'",
    "title: " + "- " * 90,
    "#" * 900_000,
]


@pytest.mark.parametrize("line", LONG_LINES, ids=range(len(LONG_LINES)))
def test_a_long_line_is_read_in_no_time(line):
    source = f"survey: s\nsteps: [{{id: a, say: b}}]\n{line}".encode()
    assert used_s(lambda: problems_of("f.yaml", source)) < 15, "what is quadratic takes hours"


def test_what_ran_once_is_read_whatever_its_size():
    source = survey(say("a")).ljust(FILE_LIMITS.size + 1)
    assert read_stored_survey("f.json", source).name == "s"


def test_aliases_that_cost_little_are_read():
    source = dedent("""
        survey: s
        steps:
          - {id: a, ask: "?", answer: &yn {type: yes_no}, next: &next [{when: {equals: yes}, go: c}, {go: end}]}
          - {id: b, ask: "?", answer: *yn, next: *next}
          - {id: c, ask: "?", answer: {<<: *yn}, next: b}
    """)
    assert read_survey("f.yaml", source.encode())[0].name == "s"


def test_an_error_that_nobody_foresaw_refuses_its_file_only(monkeypatch):
    """In reading, and in proving."""

    def fail(*_):
        raise ZeroDivisionError("of all things")

    for place in ("engine.surveys.survey_reader.compile_survey", "engine.proofs.survey_findings"):
        with monkeypatch.context() as patched:
            patched.setattr(place, fail)
            running = SurveyRegistry()
            result = reload_surveys({"a.yaml": GOOD, "b.yaml": b"[", "c.json": b"[1"}, running, ())
        assert result.current == ()
        assert result.refused["a.yaml"] == [
            "Parley fails at it, by a mistake of its own (ZeroDivisionError: of all things)"
        ]
        assert sorted(result.refused) == ["a.yaml", "b.yaml", "c.json"]


@pytest.mark.parametrize(
    "step",
    [
        ask("a", {"type": "text", "max": 10**12}),
        ask("a", {"type": "text", "min": 10**9, "max": 10**12}),
        ask("a", {"type": "text"}, attempts=10**9),
        ask("a", {"type": "text"}, remind={"after": "1s", "times": 10**9, "text": "?"}),
        ask("a", {"type": "text"}, next=[{"go": "a", "times": 10**9}, {"go": "end"}]),
        ask("a", {"type": "text", "pattern": ".*a" + "." * 22}),
        ask("a", {"type": "text", "pattern": "(a|b)*a" + "(a|b)" * 22}),
    ],
)
def test_a_number_or_a_pattern_of_any_size_costs_the_proofs_nothing(step):
    of, _ = read_survey("f.json", survey(step, say("b", "{a}")))

    def prove():
        proofs.survey_findings(of)
        assert proofs.survey_bounds(of) is not None

    assert used_s(prove) < 5, "what is written out takes gigabytes"


def test_patterns_of_any_size_are_compared_in_no_time():
    patterns = [".*a" + "." * 22, "(a|b)*b" + "[ab]" * 22]
    both = [
        read_survey("f.json", survey(say("a"), survey=f"s{n}", start=each))[0]
        for n, each in enumerate(patterns)
    ]
    assert used_s(lambda: keyword_clashes(both)) < 5


def test_a_survey_of_thousands_of_steps_is_proved_before_long():
    steps = [say(f"a{n}") for n in range(3_000)]
    steps += [ask(f"b{n}", {"type": "yes_no"}) for n in range(1_000)]
    of, _ = read_survey("f.json", survey(*steps))
    assert used_s(lambda: proofs.survey_findings(of)) < 60


IN_LITTLE_MEMORY = """
import resource, sys
from engine.proofs.survey_loader import load_surveys
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_surveys({sys.argv[1]: sys.stdin.buffer.read()})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used)
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    "file, source",
    [
        ("f.yaml", NESTED_ALIASES),
        ("f.yaml", NESTED_MERGES),
        ("f.yaml", b"[" + b"x," * 500_000 + b"]"),
        ("f.json", survey(say("a"), **{f"{n}": 1 for n in range(40_000)})),
    ],
)
def test_no_file_takes_much_memory(file, source):
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, file], input=source, capture_output=True, check=True
    )
    assert int(done.stdout) < 300_000, "kB"


# -- whatever is written

WORDS = """
survey steps id say ask answer type options labels next go when all any not equals at_least one_of languages start texts
variables idle remind after text times attempts min max from to pattern yes_no choice choices number scale date time
phone a b end en fr 30s none START {a} (a|b)+ [ .*
"""
words = st.sampled_from(WORDS.split())
scalars = (
    words
    | st.integers(-3, 12)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.text(max_size=5)
    | st.sampled_from([10**400, "2030-01-01", "12:00", "\ud800"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=30,
)
YAML_PIECES = [
    "&a ", "*a", "<<: ", "- ", "? ", ": ", "[", "]", "{", "}", ", ", "\n", "\n  ", "|\n", ">-\n", "'", '"', "# ",
    "!!set ", "!!omap ", "!!int ", "!!float ", "!!str ", "!x ", "%YAML 1.1\n", "---\n", "...\n", "\t", "0x", "1_0",
    "1:30", ".inf", ".nan", "2026-01-01", "~", "no", "\u2028", "\x85", "\ufeff", "steps: ", "survey: s\n", "id: a",
]  # fmt: skip
yaml_texts = st.lists(st.sampled_from(YAML_PIECES) | words, max_size=25).map("".join)


def loads_or_refuses(file, source):
    surveys, problems = load_surveys({file: source, "good.yaml": GOOD})
    assert "good" in surveys.current_names()
    assert not any("by a mistake of its own" in problem for problem in problems), problems


@settings(max_examples=examples(300), deadline=None)
@given(yaml_texts | st.text(max_size=40))
@example("? [a]\n: b")
@example("!!omap [survey: s]")
@example("!!int x")
@example("!!float x")
@example("!!int ''")
@example("a: !!timestamp []")
@example("<<: 1")
def test_whatever_is_written_in_yaml_is_read_or_refused(text):
    loads_or_refuses("f.yaml", text.encode("utf-8", "surrogatepass"))


@settings(max_examples=examples(300), deadline=None)
@given(values)
def test_whatever_is_written_in_json_is_read_or_refused(value):
    loads_or_refuses("f.json", json.dumps(value).encode())


@settings(max_examples=examples(150), deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "survey": st.just("s"),
            "steps": st.lists(
                st.fixed_dictionaries(
                    {"id": st.sampled_from("abc"), "ask": st.just("{a}?"), "answer": st.dictionaries(words, values, max_size=3).map(lambda d: {"type": "number"} | d)},
                    optional={"next": values, "remind": values, "invalid": values, "attempts": scalars},
                ),
                max_size=3,
            ),
        },
        optional={"languages": values, "start": values, "texts": values, "variables": values, "most_sms": scalars},
    )
)  # fmt: skip
def test_whatever_resembles_a_survey_is_read_or_refused(value):
    loads_or_refuses("f.json", json.dumps(value).encode())


def test_the_limits_are_of_one_document():
    with pytest.raises(DocumentSyntaxError):
        parse_document("f.yaml", NESTED_ALIASES)
    with pytest.raises(InvalidSurveyError):
        read_survey("f.yaml", NESTED_ALIASES)


@pytest.mark.parametrize("file", ["f.yaml", "f.json"])
def test_values_are_counted_to_the_last(file):
    limits = DocumentLimits(values=101)
    assert parse_document(file, b"[" + b"1," * 99 + b"1]", limits) == [1] * 100
    with pytest.raises(DocumentSyntaxError, match="more than 101 values"):
        parse_document(file, b"[" + b"1," * 100 + b"1]", limits)
