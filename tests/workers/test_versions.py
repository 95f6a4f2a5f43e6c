"""A version of a survey is there for as long as anybody needs it, and `parley surveys` tells who does."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from config.store import keyspace, redis_client
from config.telemetry import process_registry
from config.telemetry.hot_reload import RELOAD_INTERVAL_S
from engine.proofs.survey_loader import load_surveys, reload_surveys
from engine.surveys.survey_registry import SurveyRegistry
from tests.support.waiting import free_port, until
from workers.commands.surveys import surveys as command
from workers.roles import worker_process
from workers.roles.clock import run_housekeeping
from workers.roles.worker_process import hot_reloaded_surveys
from workers.store import survey_versions
from workers.turns import committing

ANNA, BORIS, CLARA = "+33600000001", "+33600000002", "+33600000003"
KEEP_MS = 1_000_000
OLD_MS = 1

ONE = b"survey: clinic\nsteps: [{id: one, ask: One?, answer: {type: yes_no}}]\n"
TWO = b"survey: clinic\nsteps: [{id: two, ask: Two?, answer: {type: yes_no}}]\n"
OTHER = b"survey: other\nstart: OTHER\nsteps: [{id: one, ask: One?, answer: {type: yes_no}}]\n"
BROKEN = b"survey: clinic\nsteps: [{id: one, ask: 7}]\n"


def read(**files):
    """The surveys of these files, `clinic=ONE` being clinic.yaml."""
    surveys, problems = load_surveys({f"{name}.yaml": source for name, source in files.items()})
    assert problems == []
    return surveys


def reread(surveys, needed=(), **files):
    """What a change of the folder to these files comes to."""
    return reload_surveys({f"{name}.yaml": source for name, source in files.items()}, surveys, needed)


def version_of(source):
    (survey,) = (surveys := read(clinic=source)).current_names()
    return surveys.current(survey).version


def grow_old(town, version):
    """Nobody has been using the version for long."""
    assert town.client.zscore(survey_versions.LAST_USED_KEY, version)
    town.client.zadd(survey_versions.LAST_USED_KEY, {version: OLD_MS})


# What is current after a change


def test_what_changed_is_current_and_what_was_is_still_known():
    surveys = read(clinic=ONE, other=OTHER)
    was = surveys.current("clinic")
    found = reread(surveys, clinic=TWO, other=OTHER)
    surveys.replace_current(found.current)
    assert [each.steps[0].id for each in found.changed] == ["two"]
    assert surveys.current("clinic").steps[0].id == "two"
    assert surveys.by_version(was.version) is was
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
    still, edition = surveys.snapshot(), surveys.edition
    surveys.replace_current(reread(surveys, clinic=TWO).current)
    assert still.current("clinic").version == version_of(ONE)
    assert still.by_version(version_of(TWO)) is surveys.current("clinic"), (
        "though it learns what others learn"
    )
    assert (still.edition, surveys.edition > edition) == (edition, True)


def test_all_lanes_of_a_batch_see_one_set_of_surveys(pipeline, monkeypatch):
    """The surveys change as soon as the first lane of the batch is drafted."""
    town = pipeline(ONE)
    draft = committing.draft_lane

    def and_then_edit(*arguments):
        drafted = draft(*arguments)
        town.world.surveys.replace_current(read(clinic=TWO).snapshot()._current.values())
        return drafted

    monkeypatch.setattr(committing, "draft_lane", and_then_edit)
    for person in (ANNA, BORIS, CLARA):
        town.accept(person, "START")
    assert len(town.woken("starts")) == 3
    assert [town.said(person) for person in (ANNA, BORIS, CLARA)] == [["One?"]] * 3


# What is kept, and for how long


def test_a_version_is_kept_with_when_it_came_and_when_it_was_last_used(pipeline):
    town, version = pipeline(ONE), version_of(ONE)
    survey_versions.publish_current(town.client, town.world.surveys)
    came = survey_versions.version_times(town.client, survey_versions.FIRST_STORED_KEY)[version]
    grow_old(town, version)
    survey_versions.publish_current(town.client, town.world.surveys)
    assert survey_versions.version_times(town.client, survey_versions.FIRST_STORED_KEY)[version] == came
    assert survey_versions.version_times(town.client, survey_versions.LAST_USED_KEY)[version] >= came
    assert list(survey_versions.stored_versions(town.client)) == [version]


def test_only_what_is_wanted_is_learnt(pipeline):
    town = pipeline(ONE)
    survey_versions.publish_current(town.client, read(clinic=TWO))
    survey_versions.publish_current(town.client, read(other=OTHER))
    known = SurveyRegistry()
    survey_versions.load_versions(town.client, known, [version_of(TWO), "of no survey"])
    assert known.by_version(version_of(TWO)).steps[0].id == "two"
    assert known.by_version(version_of(OTHER)) is None
    survey_versions.load_versions(town.client, known)
    assert known.by_version(version_of(OTHER)).name == "other"


def test_a_version_that_nobody_needs_is_forgotten(pipeline):
    town = pipeline(ONE)
    for source in (ONE, TWO):
        survey_versions.publish_current(town.client, read(clinic=source))
    grow_old(town, version_of(ONE))
    assert survey_versions.forget_unused(town.client, town.world.settings.shards, KEEP_MS) == [
        version_of(ONE)
    ]
    assert list(survey_versions.stored_versions(town.client)) == [version_of(TWO)]
    assert survey_versions.version_times(town.client, survey_versions.FIRST_STORED_KEY).keys() == {
        version_of(TWO)
    }
    assert survey_versions.version_times(town.client, survey_versions.LAST_USED_KEY).keys() == {
        version_of(TWO)
    }


def test_a_version_stays_while_a_session_is_pinned_to_it(pipeline):
    town = pipeline(ONE)
    survey_versions.publish_current(town.client, town.world.surveys)
    town.accept(ANNA, "START")
    town.drain()
    grow_old(town, version_of(ONE))
    assert survey_versions.forget_unused(town.client, town.world.settings.shards, KEEP_MS) == []
    assert (
        survey_versions.version_times(town.client, survey_versions.LAST_USED_KEY)[version_of(ONE)] > OLD_MS
    ), "a session uses it"
    new = pipeline(TWO)
    new.accept(ANNA, "yes", event_id="00000000000000aa")
    new.drain()
    grow_old(town, version_of(ONE))
    assert survey_versions.forget_unused(town.client, town.world.settings.shards, KEEP_MS) == [
        version_of(ONE)
    ], "the session has ended"


def test_nothing_is_forgotten_while_a_lane_cannot_be_read(pipeline):
    town = pipeline(ONE)
    survey_versions.publish_current(town.client, town.world.surveys)
    grow_old(town, version_of(ONE))
    town.client.set(keyspace.lane_key(3, ANNA), b"1 0 not a lane")
    assert survey_versions.forget_unused(town.client, town.world.settings.shards, KEEP_MS) == []
    town.client.delete(keyspace.lane_key(3, ANNA))
    assert survey_versions.forget_unused(town.client, town.world.settings.shards, KEEP_MS) == [
        version_of(ONE)
    ]


def test_a_version_that_is_run_again_meanwhile_stays(pipeline):
    town = pipeline(ONE)
    survey_versions.publish_current(town.client, town.world.surveys)
    assert not survey_versions._delete_if_unused(town.client, version_of(ONE), horizon=OLD_MS)
    assert list(survey_versions.stored_versions(town.client)) == [version_of(ONE)]


def test_the_clock_keeps_versions_for_as_long_as_the_archive(pipeline):
    town = pipeline(ONE)
    survey_versions.publish_current(town.client, town.world.surveys)
    now = redis_client.server_time_ms(town.client)
    keep_ms = town.world.settings.longest_stream_ms
    town.client.zadd(survey_versions.LAST_USED_KEY, {version_of(ONE): now - keep_ms + 60_000})
    run_housekeeping(town.world)
    assert list(survey_versions.stored_versions(town.client)) == [version_of(ONE)]
    town.client.zadd(survey_versions.LAST_USED_KEY, {version_of(ONE): now - keep_ms})
    run_housekeeping(town.world)
    assert list(survey_versions.stored_versions(town.client)) == []


def test_a_version_stays_while_the_event_streams_have_what_is_older_than_its_last_use(pipeline):
    """They have it for as long as an archive that is behind does not, which will want the version with it."""
    town = pipeline(ONE)
    survey_versions.publish_current(town.client, town.world.surveys)
    shards = town.world.settings.shards
    events = keyspace.events_key(shards - 1)
    town.client.zadd(survey_versions.LAST_USED_KEY, {version_of(ONE): 5_000})
    town.client.xadd(events, {"to": ANNA, "e": b"x"}, id="4999-0")
    town.client.xadd(events, {"to": ANNA, "e": b"x"}, id="5001-0")
    assert survey_versions.forget_unused(town.client, shards, KEEP_MS) == []
    town.client.xtrim(events, minid="5001-0", approximate=False)
    assert survey_versions.forget_unused(town.client, shards, KEEP_MS) == [version_of(ONE)]


# What a process does meanwhile


def folder_of(town):
    return Path(town.world.settings.surveys)


def test_a_version_is_in_redis_before_it_is_current(pipeline):
    """With a Redis that does not answer, nothing becomes current."""
    town = pipeline(ONE)
    away = redis_client.connect(f"redis://127.0.0.1:{free_port()}/0", retries=0)
    world = msgspec.structs.replace(town.world, lanes=away)
    (folder_of(town) / "clinic.yaml").write_bytes(TWO)
    with capture_logs() as logs, hot_reloaded_surveys(world, "conversation"):
        until(
            lambda: [line for line in logs if line.get("what") == "surveys"],
            10 * RELOAD_INTERVAL_S,
            "it tries",
        )
    assert world.surveys.current("clinic").version == version_of(ONE)
    with hot_reloaded_surveys(town.world, "conversation"):
        until(
            lambda: world.surveys.current("clinic").version == version_of(TWO),
            10 * RELOAD_INTERVAL_S,
            "taken up",
        )
        assert version_of(TWO) in survey_versions.stored_versions(town.client)


def test_what_a_server_lost_is_there_again_soon(pipeline, monkeypatch):
    monkeypatch.setattr(survey_versions, "VERSION_PUBLISH_INTERVAL_S", 0.01)
    monkeypatch.setattr(process_registry, "HEARTBEAT_INTERVAL_S", 0.01)
    town = pipeline(ONE)
    with hot_reloaded_surveys(town.world, "conversation"):
        until(lambda: town.world.surveys.edition, 10 * RELOAD_INTERVAL_S, "it has looked at its folder")
        town.client.flushdb()
        until(
            lambda: version_of(ONE) in survey_versions.stored_versions(town.client),
            10,
            "it has said so again",
        )
        until(lambda: process_registry.living_processes(town.client), 10, "it has said what it runs again")


def test_a_process_says_what_it_runs_until_it_stops(pipeline, monkeypatch):
    monkeypatch.setattr(process_registry, "HEARTBEAT_INTERVAL_S", 3_600.0)
    town = pipeline(ONE)
    with hot_reloaded_surveys(town.world, "conversation"):
        until(lambda: process_registry.living_processes(town.client), 10, "it has said so")
        ((process, said),) = process_registry.living_processes(town.client).items()
        assert process.startswith("conversation@")
        assert said.surveys == {"clinic": version_of(ONE)}
        (folder_of(town) / "clinic.yaml").write_bytes(TWO)
        until(
            lambda: (
                process_registry.living_processes(town.client)[process].surveys == {"clinic": version_of(TWO)}
            ),
            20 * RELOAD_INTERVAL_S,
            "it says at once that it runs another version",
        )
    assert process_registry.living_processes(town.client) == {}


# The command


@pytest.fixture
def parley(pipeline, monkeypatch, tmp_path, valkey):
    """A function: arguments -> (exit status, output) of `parley surveys`, once `parley.town` has been built."""
    monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
    monkeypatch.setenv("PARLEY_SURVEYS", str(tmp_path / "surveys"))
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)

    def run(*arguments):
        result = CliRunner().invoke(command, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, result.output

    return run


def objects(output):
    return [json.loads(line) for line in output.splitlines()]


def live(town, process="conversation@here:1"):
    """Somebody runs what the town runs."""
    survey_versions.publish_current(town.client, town.world.surveys)
    surveys = worker_process.current_versions(town.world.surveys)
    process_registry.store_heartbeat(
        town.client,
        process,
        process_registry.ProcessHeartbeat(redis_client.server_time_ms(town.client), surveys),
    )


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
    survey_versions.publish_current(pipeline(ONE).client, read(clinic=ONE))
    pipeline(TWO)
    assert [each["version"] for each in objects(parley("--json")[1])] == [version_of(TWO)]
    both = {each["version"] for each in objects(parley("--all", "--json")[1])}
    assert both == {version_of(ONE), version_of(TWO)}


def test_a_version_that_this_release_cannot_read_is_listed_all_the_same(pipeline, parley):
    town = pipeline(ONE)
    live(town)
    town.client.hset(
        keyspace.SURVEYS_KEY, "0" * 16, survey_versions.encode_survey_file(("old.yaml", b"steps: nonsense"))
    )
    town.client.zadd(survey_versions.LAST_USED_KEY, {"0" * 16: OLD_MS})
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
