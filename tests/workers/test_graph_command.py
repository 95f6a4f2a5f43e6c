"""`parley graph`: which form goes where, and what is said when there is nothing to draw."""

import pytest
from click.testing import CliRunner

import engine.proofs
from tests.engine.chat import ROOT
from workers.commands.reports.survey_graph import graph

CLINIC = str(ROOT / "config" / "surveys" / "clinic.yaml")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(graph, [str(each) for each in arguments])


@pytest.mark.parametrize("options, opening", [
    ((), "<svg "), (("--as", "svg"), "<svg "), (("--as", "dot"), "digraph "), (("--as", "mermaid"), "%% Online"),
    (("--output", "-"), "<svg "),
])  # fmt: skip
def test_it_prints_where_it_is_piped(options, opening, tmp_path):
    result = run(CLINIC, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(opening)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, opening", [
    ("a.svg", "<svg "), ("a.SVG", "<svg "), ("a.dot", "digraph "), ("a.gv", "digraph "), ("a.mmd", "%% Online"),
    ("a.md", "```mermaid\n"),
])  # fmt: skip
def test_the_ending_of_the_output_chooses_the_form(name, opening, tmp_path):
    result = run(CLINIC, "--output", name)
    assert (result.exit_code, result.stdout) == (0, "")
    assert name in result.stderr
    assert (tmp_path / name).read_text().startswith(opening)


def test_a_form_that_is_given_wins_over_the_ending(tmp_path):
    assert run(CLINIC, "--as", "dot", "--output", "a.txt").exit_code == 0
    assert (tmp_path / "a.txt").read_text().startswith("digraph ")


def test_in_a_terminal_an_svg_goes_to_a_file_called_as_the_survey(tmp_path, monkeypatch):
    monkeypatch.setattr("workers.commands.reports.survey_graph._is_terminal", lambda: True)
    result = run(CLINIC)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "clinic.svg" in result.stderr
    assert (tmp_path / "clinic.svg").read_text().startswith("<svg ")
    assert run(CLINIC, "--as", "dot").stdout.startswith("digraph ")


def test_an_ending_that_says_no_form_is_refused(tmp_path):
    result = run(CLINIC, "--output", "a.png")
    assert result.exit_code == 2
    assert "--as" in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_language_chooses_the_texts():
    assert "Hva heter du?" in run(CLINIC, "--language", "no").stdout
    assert "Hva heter du?" not in run(CLINIC).stdout


def test_a_language_that_the_survey_lacks_is_refused():
    result = run(CLINIC, "--language", "fr")
    assert result.exit_code == 2
    assert "en, no" in result.stderr


def test_every_problem_of_a_file_is_printed_and_nothing_is_drawn(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        "survey: bad\nsteps:\n  - {id: a, say: x, next: nowhere}\n  - {id: b, say: y, next: gone}\n"
    )
    result = run(file)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nowhere" in result.stderr
    assert "gone" in result.stderr


def test_what_lint_refuses_is_drawn_all_the_same(tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text("survey: odd\nsteps:\n  - {id: a, say: x, next: end}\n  - {id: b, say: y}\n")
    result = run(file)
    assert result.exit_code == 0
    assert "never reached" in result.stdout


def test_an_output_that_cannot_be_written_is_said_to_be_so(tmp_path):
    result = run(CLINIC, "--output", tmp_path / "none" / "a.svg")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_the_dearest_path_is_marked_from_the_entry_to_the_end():
    drawn = run(CLINIC, "--dearest").stdout
    assert "the dearest path in en" in drawn
    assert 'class="node entry marked"' in drawn
    assert 'class="node end marked"' in drawn


def test_where_no_dearest_path_is_known_the_survey_is_drawn_without(monkeypatch):
    monkeypatch.setattr(engine.proofs, "dearest_path", lambda survey, language: [])
    result = run(CLINIC, "--dearest")
    assert result.exit_code == 0
    assert "No dearest path" in result.stderr
    assert "marked" not in result.stdout
