"""A version of a survey is there for as long as anybody needs it, and `parley surveys` tells who does."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from config import keyspace, registry
from config.watching import LOOK_S
from engine import Surveys, read_surveys
from engine.accepting import reread_surveys
from tests.support.waiting import free_port, until
from workers import committing, processes, versions
from workers.processes import live_surveys, tidy
from workers.surveys import surveys as command

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"
KEEP_MS = 1_000_000
OLD_MS = 1

ONE = b"survey: clinic\nsteps: [{id: one, ask: One?, answer: {type: yes_no}}]\n"
TWO = b"survey: clinic\nsteps: [{id: two, ask: Two?, answer: {type: yes_no}}]\n"
OTHER = b"survey: other\nstart: OTHER\nsteps: [{id: one, ask: One?, answer: {type: yes_no}}]\n"
BROKEN = b"survey: clinic\nsteps: [{id: one, ask: 7}]\n"


def read(**files):
    """The surveys of these files, `clinic=ONE` being clinic.yaml."""
    surveys, problems = read_surveys({f"{name}.yaml": source for name, source in files.items()})
    assert problems == []
    return surveys


def reread(surveys, needed=(), **files):
    """What a change of the folder to these files comes to."""
    return reread_surveys({f"{name}.yaml": source for name, source in files.items()}, surveys, needed)


def version_of(source):
    (survey,) = (surveys := read(clinic=source)).names()
    return surveys.current(survey).version


def grow_old(town, version):
    """Nobody has been using the version for long."""
    assert town.client.zscore(versions.USED, version)
    town.client.zadd(versions.USED, {version: OLD_MS})


# What is current after a change


def test_what_changed_is_current_and_what_was_is_still_known():
    surveys = read(clinic=ONE, other=OTHER)
    was = surveys.current("clinic")
    found = reread(surveys, clinic=TWO, other=OTHER)
    surveys.replace(found.current)
    assert [each.steps[0].id for each in found.changed] == ["two"]
    assert surveys.current("clinic").steps[0].id == "two"
    assert surveys.version(was.version) is was
    assert (found.gone, found.refused, found.kept) == ((), {}, ())


def test_what_did_not_change_is_not_compiled_again():
    surveys = read(clinic=ONE, other=OTHER)
    found = reread(surveys, clinic=TWO, other=OTHER)
    assert any(each is surveys.current("other") for each in found.current)
    assert [each.name for each in found.changed] == ["clinic"]


def test_a_broken_file_keeps_its_survey_and_harms_no_other():
    surveys = read(clinic=ONE)
    found = reread(surveys, clinic=BROKEN, other=OTHER)
    assert list(found.refused) == ["clinic.yaml"]
    assert {each.name: each.version for each in found.current} == {
        "clinic": version_of(ONE),
        "other": found.changed[0].version,
    }
    assert found.kept == ()


def test_of_two_files_with_one_survey_the_one_that_runs_stays():
    surveys = read(clinic=ONE)
    found = reread(surveys, a_newcomer=TWO, clinic=ONE)
    assert found.refused == {"a_newcomer.yaml": ["the survey 'clinic' is in clinic.yaml already"]}
    assert found.changed == ()
    renamed = reread(surveys, a_newcomer=TWO)
    assert [each.file for each in renamed.current] == ["a_newcomer.yaml"]


def test_a_survey_that_no_file_holds_goes_unless_it_is_needed():
    surveys = read(clinic=ONE, other=OTHER)
    found = reread(surveys, needed={"clinic"}, third=OTHER.replace(b"other", b"third"))
    assert [each.name for each in found.current] == ["third", "clinic"]
    assert (found.gone, found.kept) == (("other",), ("clinic",))


def test_who_looks_twice_sees_one_set_of_surveys():
    surveys = read(clinic=ONE)
    still, edition = surveys.still(), surveys.edition
    surveys.replace(reread(surveys, clinic=TWO).current)
    assert still.current("clinic").version == version_of(ONE)
    assert still.version(version_of(TWO)) is surveys.current("clinic"), "though it learns what others learn"
    assert (still.edition, surveys.edition > edition) == (edition, True)


def test_all_lanes_of_a_batch_see_one_set_of_surveys(pipeline, monkeypatch):
    """The surveys change as soon as the first lane of the batch is drafted."""
    town = pipeline(ONE)
    draft = committing.draft

    def and_then_edit(*arguments):
        drafted = draft(*arguments)
        town.world.surveys.replace(read(clinic=TWO).still()._current.values())
        return drafted

    monkeypatch.setattr(committing, "draft", and_then_edit)
    for person in (ANNA, BORIS, CLARA):
        town.accept(person, "START")
    assert len(town.woken("starts")) == 3
    assert [town.said(person) for person in (ANNA, BORIS, CLARA)] == [["One?"]] * 3


# What is kept, and for how long


def test_a_version_is_kept_with_when_it_came_and_when_it_was_last_used(pipeline):
    town, version = pipeline(ONE), version_of(ONE)
    versions.publish(town.client, town.world.surveys)
    came = versions.times(town.client, versions.SINCE)[version]
    grow_old(town, version)
    versions.publish(town.client, town.world.surveys)
    assert versions.times(town.client, versions.SINCE)[version] == came
    assert versions.times(town.client, versions.USED)[version] >= came
    assert list(versions.stored(town.client)) == [version]


def test_only_what_is_wanted_is_learnt(pipeline):
    town = pipeline(ONE)
    versions.publish(town.client, read(clinic=TWO))
    versions.publish(town.client, read(other=OTHER))
    known = Surveys()
    versions.learn(town.client, known, [version_of(TWO), "of no survey"])
    assert known.version(version_of(TWO)).steps[0].id == "two"
    assert known.version(version_of(OTHER)) is None
    versions.learn(town.client, known)
    assert known.version(version_of(OTHER)).name == "other"


def test_a_version_that_nobody_needs_is_forgotten(pipeline):
    town = pipeline(ONE)
    for source in (ONE, TWO):
        versions.publish(town.client, read(clinic=source))
    grow_old(town, version_of(ONE))
    assert versions.forget(town.client, KEEP_MS) == [version_of(ONE)]
    assert list(versions.stored(town.client)) == [version_of(TWO)]
    assert versions.times(town.client, versions.SINCE).keys() == {version_of(TWO)}
    assert versions.times(town.client, versions.USED).keys() == {version_of(TWO)}


def test_a_version_stays_while_a_session_is_pinned_to_it(pipeline):
    town = pipeline(ONE)
    versions.publish(town.client, town.world.surveys)
    town.accept(ANNA, "START")
    town.drain()
    grow_old(town, version_of(ONE))
    assert versions.forget(town.client, KEEP_MS) == []
    assert versions.times(town.client, versions.USED)[version_of(ONE)] > OLD_MS, "a session uses it"
    new = pipeline(TWO)
    new.accept(ANNA, "yes", event_id="00000000000000aa")
    new.drain()
    grow_old(town, version_of(ONE))
    assert versions.forget(town.client, KEEP_MS) == [version_of(ONE)], "the session has ended"


def test_nothing_is_forgotten_while_a_lane_cannot_be_read(pipeline):
    town = pipeline(ONE)
    versions.publish(town.client, town.world.surveys)
    grow_old(town, version_of(ONE))
    town.client.set(keyspace.lane(3, ANNA), b"1 0 not a lane")
    assert versions.forget(town.client, KEEP_MS) == []
    town.client.delete(keyspace.lane(3, ANNA))
    assert versions.forget(town.client, KEEP_MS) == [version_of(ONE)]


def test_a_version_that_is_run_again_meanwhile_stays(pipeline):
    town = pipeline(ONE)
    versions.publish(town.client, town.world.surveys)
    assert not versions._drop(town.client, version_of(ONE), horizon=OLD_MS)
    assert list(versions.stored(town.client)) == [version_of(ONE)]


def test_what_an_earlier_release_kept_counts_as_used_now(pipeline):
    town = pipeline(ONE)
    versions.publish(town.client, town.world.surveys)
    town.client.delete(versions.USED, versions.SINCE)
    assert versions.forget(town.client, KEEP_MS) == []
    assert versions.times(town.client, versions.USED)[version_of(ONE)] > OLD_MS


def test_the_clock_keeps_versions_for_as_long_as_the_archive(pipeline):
    town = pipeline(ONE)
    versions.publish(town.client, town.world.surveys)
    now = keyspace.server_ms(town.client)
    keep_ms = town.world.settings.keep_events_ms
    town.client.zadd(versions.USED, {version_of(ONE): now - keep_ms + 60_000})
    tidy(town.world)
    assert list(versions.stored(town.client)) == [version_of(ONE)]
    town.client.zadd(versions.USED, {version_of(ONE): now - keep_ms})
    tidy(town.world)
    assert list(versions.stored(town.client)) == []


# What a process does meanwhile


def folder_of(town):
    return Path(town.world.settings.surveys)


def test_a_version_is_in_redis_before_it_is_current(pipeline):
    """With a Redis that does not answer, nothing becomes current."""
    town = pipeline(ONE)
    away = keyspace.connect(f"redis://127.0.0.1:{free_port()}/0", retries=0)
    world = processes.World(town.world.settings, town.world.surveys, away, town.world.broker)
    (folder_of(town) / "clinic.yaml").write_bytes(TWO)
    with capture_logs() as logs, live_surveys(world, "conversation"):
        until(lambda: [line for line in logs if line.get("what") == "surveys"], 10 * LOOK_S, "it tries")
    assert world.surveys.current("clinic").version == version_of(ONE)
    with live_surveys(town.world, "conversation"):
        until(lambda: world.surveys.current("clinic").version == version_of(TWO), 10 * LOOK_S, "taken up")
        assert version_of(TWO) in versions.stored(town.client)


def test_what_a_server_lost_is_there_again_soon(pipeline, monkeypatch):
    monkeypatch.setattr(versions, "PUBLISH_S", 0.01)
    monkeypatch.setattr(registry, "SAY_S", 0.01)
    town = pipeline(ONE)
    with live_surveys(town.world, "conversation"):
        until(lambda: town.world.surveys.edition, 10 * LOOK_S, "it has looked at its folder")
        town.client.flushdb()
        until(lambda: version_of(ONE) in versions.stored(town.client), 10, "it has said so again")
        until(lambda: registry.processes(town.client), 10, "it has said what it runs again")


def test_a_process_says_what_it_runs_until_it_stops(pipeline, monkeypatch):
    monkeypatch.setattr(registry, "SAY_S", 3_600.0)
    town = pipeline(ONE)
    with live_surveys(town.world, "conversation"):
        until(lambda: registry.processes(town.client), 10, "it has said so")
        ((process, said),) = registry.processes(town.client).items()
        assert process.startswith("conversation@")
        assert said.surveys == {"clinic": version_of(ONE)}
        (folder_of(town) / "clinic.yaml").write_bytes(TWO)
        until(
            lambda: registry.processes(town.client)[process].surveys == {"clinic": version_of(TWO)},
            20 * LOOK_S,
            "it says at once that it runs another version",
        )
    assert registry.processes(town.client) == {}


# The command


@pytest.fixture
def parley(pipeline, monkeypatch, tmp_path, valkey):
    """A function: arguments -> (exit status, output) of `parley surveys`, once `parley.town` has been built."""
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    monkeypatch.setenv("PARLEY_SURVEYS", str(tmp_path / "surveys"))
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)

    def run(*arguments):
        result = CliRunner().invoke(command, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, result.output

    return run


def objects(output):
    return [json.loads(line) for line in output.splitlines()]


def live(town, process="conversation@here:1"):
    """Somebody runs what the town runs."""
    versions.publish(town.client, town.world.surveys)
    surveys = processes.current_versions(town.world.surveys)
    registry.put(town.client, process, registry.Process(keyspace.server_ms(town.client), surveys))


def test_versions_are_listed_with_who_runs_them_and_their_open_sessions(pipeline, parley):
    old = pipeline(ONE)
    live(old)
    for person in (ANNA, BORIS):
        old.accept(person, "START")
    old.drain()
    new = pipeline(TWO)
    live(new)
    live(new, "conversation@there:1")
    new.accept(CLARA, "START", event_id="00000000000000aa")
    new.drain()
    status, output = parley("--json")
    assert status == 0
    first, second = objects(output)
    assert (first["version"], first["open_sessions"], first["processes"]) == (version_of(ONE), 2, [])
    assert (first["waiting"], first["in_folder"]) == ({"one": 2}, False)
    assert (second["version"], second["open_sessions"]) == (version_of(TWO), 1)
    assert second["processes"] == ["conversation@here:1", "conversation@there:1"]
    assert (second["channels"], second["in_folder"], second["file"]) == (["clinic"], True, "clinic.yaml")
    assert first["since"] <= second["since"]
    table = parley()[1]
    assert f"{version_of(ONE)}   clinic.yaml   no " in table
    assert f"{version_of(TWO)}   clinic.yaml   yes " in table
    assert "2 conversation" in table


def test_versions_that_nobody_uses_are_listed_on_request(pipeline, parley):
    versions.publish(pipeline(ONE).client, read(clinic=ONE))
    pipeline(TWO)
    assert [each["version"] for each in objects(parley("--json")[1])] == [version_of(TWO)]
    both = {each["version"] for each in objects(parley("--all", "--json")[1])}
    assert both == {version_of(ONE), version_of(TWO)}


def test_a_version_that_this_release_cannot_read_is_listed_all_the_same(pipeline, parley):
    town = pipeline(ONE)
    live(town)
    town.client.hset(keyspace.SURVEYS, "0" * 16, versions.encode(("old.yaml", b"steps: nonsense")))
    town.client.zadd(versions.USED, {"0" * 16: OLD_MS})
    unread, read = objects(parley("--all", "--json")[1])
    assert (unread["survey"], unread["version"], read["survey"]) == ("?", "0" * 16, "clinic")


UPGRADED = b"""
survey: clinic
start: [START, AGAIN]
idle: 2h
steps:
  - {id: name, ask: "Who are you?", answer: {type: text}}
  - {id: pulse, ask: "Your pulse?", answer: {type: number}}
  - {id: bye, say: "Goodbye, {name}.", next: end}
"""


def test_an_upgrade_is_told_step_by_step_with_whom_it_leaves_alone(pipeline, parley):
    old = pipeline()
    live(old)
    for person, texts in ((ANNA, ["START"]), (BORIS, ["START", "Boris"])):
        old.accept(person, *texts)
    old.drain()
    pipeline(UPGRADED)
    status, output = parley("upgrade", "--json")
    (change,) = objects(output)
    assert (status, change["open_sessions"], change["waiting"]) == (0, 2, {"name": 1, "age": 1})
    assert [(step["step"], step["kind"]) for step in change["upgrade"]["steps"]] == [
        ("name", "changed"), ("pulse", "added"), ("age", "removed")
    ]  # fmt: skip
    name = change["upgrade"]["steps"][0]["differences"]
    assert {"field": "ask", "was": "What is your name?", "now": "Who are you?"} in name
    assert {"field": "next", "was": "age", "now": "pulse"} in name, "though the author did not write it"
    assert {"start", "idle", "cooldown"} <= {each["field"] for each in change["upgrade"]["whole"]}
    told = parley("upgrade", "clinic")[1]
    assert "open sessions, which end as they began: 2 (1 at age, 1 at name)" in told
    assert "+ Who are you?" in told


def test_without_a_change_nothing_would_change(pipeline, parley):
    live(pipeline(ONE))
    assert parley("upgrade") == (0, "Nothing would change.\n")
    assert parley("upgrade", "nonsense")[0] == 1


def test_a_file_with_errors_is_named_and_changes_nothing(pipeline, parley, tmp_path):
    live(pipeline(ONE))
    (tmp_path / "surveys" / "clinic.yaml").write_bytes(BROKEN)
    for arguments in ((), ("upgrade",)):
        status, output = parley(*arguments)
        assert status == 1
        assert "clinic.yaml has errors and is refused; what ran of it runs on" in output
        assert "Nothing would change" not in output
    status, output = parley("upgrade", "--json")
    (refused,) = objects(output)
    assert (status, refused["refused"]) == (1, "clinic.yaml")


def test_a_survey_that_no_file_holds_and_a_new_one_are_told(pipeline, parley, tmp_path):
    live(pipeline(ONE))
    (tmp_path / "surveys" / "clinic.yaml").rename(tmp_path / "surveys" / "clinic.txt")
    (tmp_path / "surveys" / "other.yaml").write_bytes(OTHER)
    told = parley("upgrade")[1]
    assert "clinic, from" in told
    assert "no file holds it any more" in told
    assert "it runs on, as a channel offers it" in told
    assert f"other, to {version_of(OTHER)} (other.yaml)\n  nobody runs it yet" in told
