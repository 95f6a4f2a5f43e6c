"""`parley lint` prints each finding with step, reason and mend, and what a survey costs at most."""

import json

import pytest
from click.testing import CliRunner

from engine.commands.chat import chat
from engine.commands.lint import lint
from engine.proofs import survey_bounds
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import ROOT, SHIPPED
from tests.support.waiting import used_s

CLINIC = ROOT / "config" / "surveys" / "clinic.yaml"


def run(*words):
    return CliRunner().invoke(lint, list(map(str, words)))


@pytest.fixture
def written(tmp_path):
    """Writes a survey's file."""

    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_every_shipped_survey_runs_and_its_bounds_are_attained():
    result = run(*(CLINIC.parent / name for name in SHIPPED))
    assert result.exit_code == 0, result.output
    assert "perhaps less" not in result.output
    assert result.output.count("It ends: at most") == len(SHIPPED)


def test_the_price_and_the_dearest_path_are_told():
    printed = run(CLINIC, "--price", "0.05").output
    assert "It ends: at most 11 SMS out, at most 10 in" in printed
    assert "en: at most 16 segments, 0.80 at 0.05 each" in printed
    assert "by name x3 -> temperature x3 -> fever x3 +1 reminder -> doctor" in printed


def test_a_path_that_goes_round_is_told_in_a_line():
    printed = run(CLINIC.parent / "conversation.yaml").output
    assert "      by count (99 times) -> last\n" in printed


def test_errors_are_told_with_step_reason_and_mend_and_exit_with_1(written):
    bad = written("bad.yaml", "{survey: s, steps: [{id: a, say: x, next: end}, {id: b, say: y}]}")
    result = run(bad, CLINIC)
    assert result.exit_code == 1
    assert (
        f"  error   {bad}:1: step 'b', it is never reached\n           let a route lead to it, or take it out"
        in result.output
    )
    assert "2 files, 1 error, 1 warning" in result.output
    broken = run(file := written("broken.yaml", "survey: s\nsteps:\n  - id: a\n    say: Note: call\n"))
    assert broken.exit_code == 1
    assert (
        f"  error   {file}:4: a text in this line has a colon\n"
        "                  say: Note: call\n"
        "                           ^\n"
        "           quote a text that has a colon\n"
    ) in broken.output
    wrong = run(file := written("wrong.yaml", "survey: s\nsteps:\n  - id: a\n    say: x\n    nxt: y\n"))
    assert f"  error   {file}:5: step 'a', field nxt is unknown: did you mean next?\n" in wrong.output


def test_warnings_exit_with_1_only_if_one_is_strict():
    tutorial = CLINIC.with_name("tutorial.json")
    assert run(tutorial).exit_code == 0
    assert run(tutorial, "--strict").exit_code == 1
    assert run(CLINIC, "--strict").exit_code == 0


def test_what_it_prints_for_programs_is_all_of_it(written):
    bad = written("bad.yaml", "{survey: s, steps: [{id: a, say: x, next: end}, {id: b, say: y}]}")
    first, second, between = map(json.loads, run(CLINIC, bad, "--json", "--price", "0.1").output.splitlines())
    assert first["bounds"]["sms_out"]["most"] == 11
    assert first["bounds"]["segments"]["no"]["attained"] is True
    assert first["bounds"]["segments"]["en"]["path"][2] == {"step": "fever", "said": 3, "reminded": 1}
    assert first["cost"] == {"en": pytest.approx(1.6), "no": pytest.approx(1.6)}
    assert second["findings"] == [{
        "level": "error", "code": "unreachable", "step": "b", "reason": "it is never reached",
        "mend": "let a route lead to it, or take it out", "line": 1, "excerpt": "",
    }]  # fmt: skip
    assert between["file"] == ""
    assert [each["reason"] for each in between["findings"]] == [
        "'start' starts 'clinic' and would start 's' as well"
    ]


@pytest.mark.parametrize("days, warned", [("30", False), ("29", True)])
def test_a_keep_longer_than_the_deployment_keeps_anything_is_told(written, monkeypatch, days, warned):
    file = written("a.yaml", "{survey: s, keep: 30d, steps: [{id: a, say: x}]}")
    told = f"{file}:1: field keep: 30d is longer than PARLEY_KEEP_DAYS, {days}, which holds for everything"
    assert (told in run(file, "--keep-days", days).output) == warned
    monkeypatch.setenv("PARLEY_KEEP_DAYS", days)
    assert (told in run(file).output) == warned
    assert run(file, "--strict").exit_code == int(warned)


@pytest.mark.parametrize("price", ["0,05", "abc", "-1", "nan"])
def test_what_is_no_price_is_told(price):
    result = run(CLINIC, "--price", price)
    assert result.exit_code == 2
    assert f"{price} is no price: expected what one segment costs, as in 0.05" in result.output


def test_one_segment_is_one(written):
    assert "en: at most 1 segment\n" in run(written("a.yaml", "{survey: s, steps: [{id: a, say: x}]}")).output


@pytest.mark.parametrize("name", SHIPPED)
def test_the_dearest_conversation_can_be_played_and_costs_what_was_said(name, tmp_path):
    file = CLINIC.parent / name
    survey, _ = read_survey(name, file.read_bytes())
    for language, bound in survey_bounds(survey).segments.items():
        script = tmp_path / "dearest.txt"
        script.write_text(run(file, "--dearest", language).output)
        played = CliRunner().invoke(chat, [str(file), "--script", str(script)])
        assert f"{bound.most} segment" in played.output.splitlines()[-1], played.output


def test_an_unknown_language_is_told():
    result = run(CLINIC, "--dearest", "fr")
    assert result.exit_code == 1
    assert "no dearest conversation in 'fr' is known" in result.output


@pytest.mark.parametrize("shape", ["line", "cycle", "branches"])
def test_a_survey_of_1000_steps_is_proved_in_about_a_second(shape):
    """Measured by `make bench`; here only that nothing explodes."""
    steps = []
    for n in range(1000):
        routes = {
            "line": None,
            "cycle": [{"when": {"equals": "no"}, "go": "s0"}, {"go": f"s{(n + 1) % 1000}"}],
            "branches": [
                {"when": {"answer": f"s{n // 2}", "equals": "yes"}, "go": f"s{n + 2}" if n < 998 else "end"}
            ],
        }[shape]
        step = {"id": f"s{n}", "ask": f"{{s{n // 2}|?}} and?", "answer": {"type": "yes_no"}}
        steps.append({**step, "next": routes} if routes else step)
    source = json.dumps({"survey": "s", "steps": steps, **({"most_sms": 60} if shape == "cycle" else {})})
    survey, _ = read_survey("s.json", source.encode())
    found = []
    assert used_s(lambda: found.append(survey_bounds(survey))) < 20
    assert found[0].sms_out.most
