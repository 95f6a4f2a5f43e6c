"""`parley capacity`, as an operator types it."""

import json

import pytest
from click.testing import CliRunner

from workers.capacity.turn_costs import SHIPPED_COSTS, read_costs, render_costs
from workers.commands.capacity import capacity

LOAD = ["--turns-per-second", "2000", "--open", "1000000"]


def asked(*words):
    return CliRunner().invoke(capacity, words)


def test_the_first_line_is_the_first_wall():
    result = asked(*LOAD)
    assert result.exit_code == 0
    first = result.output.splitlines()[0]
    assert first.startswith("FIRST WALL: ")
    (row,) = (line for line in result.output.splitlines() if "<- first wall" in line)
    assert row.split("  ")[1] in first


def test_what_nothing_of_the_plan_carries_is_said_at_once():
    result = asked("--turns-per-second", "1000000", "--open", "1")
    said = result.output.partition("\n\n")[0]
    assert "core of the wake-ups' Redis" in said
    assert "keys of one channel" in said


def test_json_has_all_that_is_shown():
    told = json.loads(asked(*LOAD, "--json", "--hooks", "2").output)
    assert told["first_wall"] in told["walls"]
    assert [wall["at"] for wall in told["walls"]] == sorted(wall["at"] for wall in told["walls"])
    assert {role["role"] for role in told["plan"]["roles"]} >= {"web", "hooks", "archive"}
    assert told["workload"]["keep_ms"] == 7 * 86_400_000
    assert told["plan"]["redis"]["primaries"] > 1


def test_without_an_archive_redis_keeps_thirty_days():
    told = json.loads(asked(*LOAD, "--json", "--no-archive").output)
    assert told["workload"]["keep_ms"] == 30 * 86_400_000


@pytest.mark.parametrize(
    "words, said",
    [
        (["--open", "5"], "Missing option '--turns-per-second'"),
        (["--turns-per-second", "0", "--open", "5"], "0 is not in the range"),
        (["--turns-per-second", "nan", "--open", "5"], "'nan' is no number"),
        (["--turns-per-second", "inf", "--open", "5"], "inf is not in the range"),
        ([*LOAD, "--open", "-1"], "-1 is not in the range"),
        ([*LOAD, "--keep", "soon"], "expected a length of time such as"),
        ([*LOAD, "--keep", "36h"], "expected whole days, from 1d to 3650d"),
        ([*LOAD, "--keep", "7d", "--no-archive"], "without an archive Redis keeps what happened for 30d"),
        ([*LOAD, "--people", "5"], "5 people cannot have 1000000 conversations open"),
        ([*LOAD, "--busy", "0"], "0 is not in the range"),
        ([*LOAD, "--hook-batch", "501"], "501 is not in the range"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(words, said):
    result = asked(*words)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda text: "[" + text, "not TOML"),
        (lambda text: text.replace("web = ", "wab = ", 1), "unknown field `wab` - at `$.cpu_us`"),
        (lambda text: text.replace("[bytes]", "[byte]"), "unknown field `byte`"),
        (lambda text: text.replace("lanes = ", "lanes = -", 1), "cpu_us.lanes is -"),
        (lambda text: text.replace("fsync_us = ", "fsync_us = nan # "), "fsync_us is nan"),
        (lambda text: text.replace("fsync_us = ", "fsync_us = 'x' # "), "`$.fsync_us`"),
        (lambda text: text.replace("[standing_us]\nweb = ", "[standing_us]\nweb = 1000000 # "), "standing_us.web is 1000000"),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_file_of_costs_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path, change, said):
    file = tmp_path / "costs.toml"
    text = SHIPPED_COSTS.read_text()
    file.write_text(change(text))
    assert file.read_text() != text
    result = asked(*LOAD, "--costs", str(file))
    assert result.exit_code == 2
    assert str(file) in result.output
    assert said in result.output
    assert "python -m tests.bench --only capacity_cores --costs FILE" in result.output


def test_other_costs_give_other_machines(tmp_path):
    file = tmp_path / "costs.toml"
    file.write_text(SHIPPED_COSTS.read_text().replace("fsync_us = ", "fsync_us = 5 # "))
    assert json.loads(asked(*LOAD, "--json", "--costs", str(file)).output)["costs"]["fsync_us"] == 5


def test_the_file_that_ships_is_as_it_was_measured():
    assert render_costs(read_costs()) == SHIPPED_COSTS.read_text()
