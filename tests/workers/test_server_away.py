"""While one server of a cluster is away, what lies on the others goes on; once it is back, so does what lies there."""

from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from config.archive import archive_schema
from config.archive.database import EVENTS_SOURCE
from config.connections.cluster_routing import slot_of_key
from config.store import keyspace, redis_client
from config.telemetry import process_registry
from engine.model.events import PersonOptedOut, SessionEnded, SessionOpened
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.survey_registry import SurveyRegistry
from tests.support.archiving import add_entries, archived_entries, hash_number, shard_groups, talk
from tests.support.clusters import ParleysCluster
from tests.support.hook_endpoint import hook_endpoint
from tests.support.telling import hook_to, telling
from tests.support.waiting import until
from tests.workers.test_campaigns import Held
from workers.archiving import stream_archiver
from workers.archiving.audit_mover import AUDIT_SOURCE, LETTERS_SOURCE, move_audit, read_positions
from workers.archiving.deployment_pairing import pair_with_redis
from workers.archiving.stream_archiver import StreamArchiver
from workers.clock import function_libraries, invitation_pacer
from workers.clock.retention import sweep_expired
from workers.clock.stream_trimming import trim_until_done
from workers.hooks import endpoint_runner, hook_process
from workers.store import survey_versions

pytestmark = pytest.mark.processes

SHARDS = 16
DAY = 86_400_000
AT = 1_800_000_000_000
BACK_S = 20
WITH_SHARDS_ALONE = 2
"""Which server has shards, and the hour's lock, but neither their number, nor surveys, the channel or the hook."""

WITH_THE_CHANNEL = 0
"""Which has the channel `clinic`, the hook `crm`, the audit, the deployment's id and the number of shards."""


@pytest.fixture(scope="module")
def cluster():
    with ParleysCluster(replicas=0) as cluster:
        yield cluster


@pytest.fixture
def valkey(cluster):
    """What `pipeline` has its deployment on."""
    yield cluster
    cluster.empty()
    cluster.close_clients()


@pytest.fixture
def client(valkey):
    with valkey.client() as client:
        redis_client.load_functions(client)
        yield client


@contextmanager
def without(cluster, number):
    """Meanwhile, this server is gone."""
    node = cluster.primaries[number]
    node.kill9()
    try:
        yield
    finally:
        node.start()
        cluster.wait_complete()


def lies_on(key):
    return slot_of_key(key) * 3 // 16_384


def shards_on(number):
    return {k for k in range(SHARDS) if lies_on(keyspace.server_key(k)) == number}


def person(k):
    return next(each for n in range(10_000) if keyspace.shard_of(each := f"+336{n:08d}", SHARDS) == k)


def test_the_servers_have_what_is_said_here_that_they_have():
    assert shards_on(WITH_SHARDS_ALONE)
    assert lies_on(keyspace.RETENTION_KEY) == WITH_SHARDS_ALONE
    with_channel = [keyspace.pause_key("clinic"), keyspace.hook_lease_key("crm"), keyspace.AUDIT_KEY,
                    keyspace.DEPLOYMENT_KEY, keyspace.SHARDS_KEY]  # fmt: skip
    assert {lies_on(each) for each in with_channel} == {WITH_THE_CHANNEL}
    assert lies_on(keyspace.hook_lease_key("erp")) == 1


@pytest.fixture
def archiver(make_archiver):
    return make_archiver()


@pytest.fixture
def make_archiver(client, sqlite_archive):
    archive_schema.migrate(sqlite_archive)
    client.hset(
        keyspace.SURVEYS_KEY, "v1", survey_versions.encode_survey_file(("clinic.yaml", b"survey: clinic"))
    )
    paired = pair_with_redis(client, sqlite_archive, SHARDS)
    with sqlite_archive.writing() as connection:
        sqlite_archive.make_positions(connection, EVENTS_SOURCE, SHARDS)

    def make(parts=1):
        groups = shard_groups(client, SHARDS)
        return StreamArchiver(client, sqlite_archive, groups, paired, hash_number, parts=parts)

    return make


def archived_shards(database):
    return {row[0] for row in archived_entries(database)}


@pytest.mark.parametrize("number", [WITH_SHARDS_ALONE, WITH_THE_CHANNEL])
def test_other_shards_are_archived(cluster, client, archiver, sqlite_archive, number, monkeypatch):
    """Also while the deployment's id cannot be read; and the one that is away at its own pace, which no other shares."""
    monkeypatch.setattr(stream_archiver, "LONGEST_REST_S", 0.1)
    for k in range(SHARDS):
        add_entries(client, k, person(k), talk(f"first{k}", AT))
    archiver.run_round()
    assert archived_shards(sqlite_archive) == {*range(SHARDS)}
    before = len(archived_entries(sqlite_archive))
    for k in range(SHARDS):
        add_entries(client, k, person(k), talk(f"second{k}", AT))
    with without(cluster, number), capture_logs() as logs:
        for _ in range(3):
            archiver.run_round()
        added = len(archived_entries(sqlite_archive)) - before
        assert added == 4 * (SHARDS - len(shards_on(number)))
        (line,) = logs
        assert "archived later" in line["event"]
        assert line["shards"] == sorted(shards_on(number)), "each is said once"

    def is_all_archived():
        archiver.run_round()
        return len(archived_entries(sqlite_archive)) == 2 * before

    until(is_all_archived, BACK_S, "what was away is archived")


def test_a_shards_first_page_that_fails_holds_up_no_other(cluster, client, archiver, sqlite_archive):
    """As a server goes between the look at all streams and that at its own."""
    for k in range(SHARDS):
        add_entries(client, k, person(k), talk(f"first{k}", AT))
    moves = archiver._move_group

    def failing(group):
        if {*group} & shards_on(WITH_SHARDS_ALONE):
            raise redis_client.ServerAwayError("gone")
        return moves(group)

    archiver._move_group = failing
    archiver.run_round()
    assert archived_shards(sqlite_archive) == {*range(SHARDS)} - shards_on(WITH_SHARDS_ALONE)


def test_a_part_that_is_away_as_a_whole_holds_up_no_other(cluster, client, make_archiver, sqlite_archive):
    """It is no failure: then all would wait."""
    archiver = make_archiver(parts=SHARDS)
    for k in range(SHARDS):
        add_entries(client, k, person(k), talk(f"first{k}", AT))
    with without(cluster, WITH_SHARDS_ALONE):
        for _ in range(SHARDS):
            archiver.run_round()
        assert archived_shards(sqlite_archive) == {*range(SHARDS)} - shards_on(WITH_SHARDS_ALONE)


def test_what_is_read_until_is_by_the_earliest_clock(client, archiver, monkeypatch):
    """An entry that a server writes whose clock is behind is after it."""
    now = redis_client.server_time_ms(client)
    monkeypatch.setattr(redis_client, "server_times_ms", lambda _: [now, now - 900])
    assert stream_archiver.read_tips(client, range(SHARDS)).now_ms == now - 900


def test_other_audits_are_moved(cluster, client, archiver, sqlite_archive):
    for k in range(SHARDS):
        client.xadd(keyspace.dead_letter_audit_key(k), {"id": "a", "by": "operator"})
    client.xadd(keyspace.AUDIT_KEY, {"actor": "a", "action": "b"})
    with without(cluster, WITH_THE_CHANNEL):
        assert move_audit(sqlite_archive, client, SHARDS) == SHARDS - len(shards_on(WITH_THE_CHANNEL))
    assert until(lambda: move_audit(sqlite_archive, client, SHARDS), BACK_S, "the others are moved")
    with sqlite_archive.reading() as connection:
        assert {place for place, at in read_positions(connection).items() if at.ms} == {
            (AUDIT_SOURCE, 0),
            *((LETTERS_SOURCE, k) for k in range(SHARDS)),
        }


def test_other_streams_are_trimmed(cluster, client):
    for k in range(SHARDS):
        add_entries(client, k, person(k), [[PersonOptedOut(AT, "clinic", "o", "STOP")]], ["1-0"])
    now = redis_client.server_time_ms(client)

    def left():
        return {k for k in shards if redis_client.run_command(client, ("XLEN", keyspace.events_key(k)))}

    shards = {*range(SHARDS)} - shards_on(WITH_SHARDS_ALONE)
    with without(cluster, WITH_SHARDS_ALONE):
        trim_until_done(client, SHARDS, now, DAY)
        assert left() == set()
    shards = {*range(SHARDS)}

    def trimmed():
        trim_until_done(client, SHARDS, now, DAY)
        return left() == set()

    until(trimmed, BACK_S, "the others are trimmed")


def test_other_shards_are_swept_and_the_one_that_is_away_later(cluster, client):
    """Whose references lie on others meanwhile."""
    known = SurveyRegistry()
    brief = known.add_version(
        read_stored_survey(
            "brief.yaml", b"survey: brief\nkeep: 2d\nsteps: [{id: a, ask: A?, answer: {type: yes_no}}]"
        )
    )
    survey_versions.store_versions(client, [brief])
    for k in range(SHARDS):
        entries = [
            [SessionOpened(AT, "clinic", f"s{k}", "brief", brief.version, "en")],
            [SessionEnded(AT, "clinic", f"s{k}", "completed", {})],
        ]
        add_entries(client, k, person(k), entries)
        client.set(keyspace.reference_key(SHARDS, f"s{k}"), "what was asked", px=10**9)
    away = shards_on(WITH_SHARDS_ALONE)
    with without(cluster, WITH_SHARDS_ALONE):
        swept = sweep_expired(client, SHARDS, SurveyRegistry(), AT + 3 * DAY)
        done = {
            k
            for k in {*range(SHARDS)} - away
            if not redis_client.run_command(client, ("XLEN", keyspace.events_key(k)))
        }
        kept = {k for k in range(SHARDS) if keyspace.shard_of(f"s{k}", SHARDS) in away}
        assert done == {*range(SHARDS)} - away - kept
        assert swept.sessions == len(done)
    until(
        lambda: (
            sweep_expired(client, SHARDS, SurveyRegistry(), AT + 3 * DAY).sessions
            and not sweep_expired(client, SHARDS, SurveyRegistry(), AT + 3 * DAY).sessions
        ),
        BACK_S,
        "all is swept",
    )
    for k in range(SHARDS):
        assert client.xlen(keyspace.events_key(k)) == 0
        assert client.get(keyspace.reference_key(SHARDS, f"s{k}")) == b""


@pytest.fixture
def backlog(pipeline):
    backlog = Held(pipeline(shards=SHARDS, invitations_per_second=10_000))
    backlog.hold(*map(person, range(SHARDS)))
    return backlog


def released(backlog):
    """Shards in whose mailboxes an invitation is, of those that can be read."""
    answers = redis_client.try_commands(
        backlog.client, [("LLEN", keyspace.mailbox_key(k, person(k))) for k in range(SHARDS)]
    )
    return {k for k, answer in enumerate(answers) if not isinstance(answer, Exception) and answer}


def release(backlog):
    backlog.campaigns.release_round()
    return released(backlog) == {*range(SHARDS)}


def test_invitations_of_other_shards_are_released(cluster, backlog):
    with without(cluster, WITH_SHARDS_ALONE), capture_logs() as logs:
        for _ in range(3):
            backlog.campaigns.release_round()
        assert released(backlog) == {*range(SHARDS)} - shards_on(WITH_SHARDS_ALONE)
        assert [each["of"] for each in logs if "invitations wait" in each["event"]] == ["some shards"]
    until(lambda: release(backlog), BACK_S, "the others are released")


def test_invitations_whose_server_goes_as_they_are_released_are_not_lost(cluster, backlog):
    real = redis_client.try_commands
    away = shards_on(WITH_SHARDS_ALONE)

    def failing(client, commands, **how):
        answers = real(client, commands, **how)
        if commands and commands[0][0] == "FCALL" and "release_invitations" in commands[0][1]:
            for at, command in enumerate(commands):
                if any(command[3].startswith(f"{{{k}}}") for k in away):
                    answers[at] = redis_client.ServerAwayError("gone")
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(invitation_pacer.redis_client, "try_commands", failing)
        backlog.campaigns.release_round()
    assert released(backlog) >= {*range(SHARDS)} - away
    until(lambda: release(backlog), BACK_S, "all are released, once")
    assert backlog.mailed() == SHARDS


def test_invitations_of_a_channel_that_is_away_wait(cluster, backlog):
    with without(cluster, WITH_THE_CHANNEL), capture_logs() as logs:
        for _ in range(3):
            backlog.campaigns.release_round()
        assert released(backlog) == set()
        assert sorted(each["of"] for each in logs) == ["some shards", "the channel clinic"]
    until(lambda: release(backlog), BACK_S, "they are released")


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setattr(endpoint_runner, "LONGEST_RETRY_S", 0.2)
    monkeypatch.setattr(endpoint_runner, "COMMIT_RETRY_S", 0.05)
    monkeypatch.setattr(hook_process, "SHARING_INTERVAL_S", 0.05)
    with hook_endpoint() as endpoint:
        yield endpoint


def told_of(endpoint, path):
    return {event["subject"] for event in endpoint.of(path)}


def say(client, name, shards):
    for k in shards:
        add_entries(client, k, person(k), talk(f"{name}{k}", AT))


def sessions(name, shards):
    return {f"{name}{k}" for k in shards}


def test_endpoints_are_told_of_other_shards(cluster, client, endpoint):
    there = {*range(SHARDS)} - shards_on(WITH_SHARDS_ALONE)
    with telling(client, SHARDS, [hook_to(endpoint)]):
        say(client, "a", range(SHARDS))
        until(lambda: told_of(endpoint, "/events") == sessions("a", range(SHARDS)), BACK_S, "all is told")
        with without(cluster, WITH_SHARDS_ALONE):
            say(client, "b", there)
            until(lambda: told_of(endpoint, "/events") >= sessions("b", there), BACK_S, "others are told")
        say(client, "c", range(SHARDS))
        until(lambda: told_of(endpoint, "/events") >= sessions("c", range(SHARDS)), BACK_S, "all is again")


def test_an_endpoint_that_lies_on_a_server_that_is_away_waits_alone(cluster, client, endpoint):
    there = {*range(SHARDS)} - shards_on(WITH_THE_CHANNEL)
    hooks = [hook_to(endpoint, "crm", "/crm"), hook_to(endpoint, "erp", "/erp")]
    with telling(client, SHARDS, hooks) as process:
        say(client, "a", range(SHARDS))
        for path in ("/crm", "/erp"):
            until(
                lambda path=path: told_of(endpoint, path) == sessions("a", range(SHARDS)),
                BACK_S,
                "all is told",
            )
        runner = process._runners["crm"]
        with without(cluster, WITH_THE_CHANNEL):
            say(client, "b", there)
            until(lambda: told_of(endpoint, "/erp") >= sessions("b", there), BACK_S, "the other is told")
            assert not told_of(endpoint, "/crm") & sessions("b", there)
        until(lambda: told_of(endpoint, "/crm") >= sessions("b", there), BACK_S, "it is told what it was not")
        assert process._runners["crm"] is runner, "its lease was not over: it went on where it was"


def test_old_functions_go_from_each_server_that_is_there(cluster, client):
    """A server that is away keeps them, until a day after it is seen again."""
    name = "parley_0badcafe"
    code = f"#!lua name={name}\nredis.register_function('{name}_f', function() return 1 end)"
    for server in redis_client.servers_of(client):
        server.function_load(code, replace=True)
    function_libraries.delete_unused_libraries(client, [client])
    client.zincrby(keyspace.LIBRARIES_KEY, -2 * DAY, name)
    with without(cluster, WITH_SHARDS_ALONE):
        assert function_libraries.delete_unused_libraries(client, [client]) == [name]
    until(lambda: set().union(*_loaded(client)) >= {name}, BACK_S, "the server is back")
    assert [name in each for each in _loaded(client)] == [False, False, True]
    client.zincrby(keyspace.LIBRARIES_KEY, -2 * DAY, name)
    function_libraries.delete_unused_libraries(client, [client])
    client.zincrby(keyspace.LIBRARIES_KEY, -2 * DAY, name)
    assert function_libraries.delete_unused_libraries(client, [client]) == [name]
    assert not any(name in each for each in _loaded(client))


def _loaded(client):
    found = []
    for server in redis_client.servers_of(client):
        try:
            found.append(function_libraries._loaded_libraries(server))
        except redis_client.AWAY_ERRORS:
            found.append(set())
    return found


def test_versions_of_surveys_are_kept_and_forgotten(client):
    survey = read_stored_survey(
        "brief.yaml", b"survey: brief\nsteps: [{id: a, ask: A?, answer: {type: yes_no}}]"
    )
    survey_versions.store_versions(client, [survey])
    assert [*survey_versions.stored_versions(client)] == [survey.version]
    client.zincrby(survey_versions.LAST_USED_KEY, -2 * DAY, survey.version)
    assert survey_versions.forget_unused(client, SHARDS, DAY) == [survey.version]
    assert survey_versions.stored_versions(client) == {}


def test_no_version_is_forgotten_while_lanes_cannot_be_read(cluster, client):
    """A session there may be pinned to it."""
    survey = read_stored_survey(
        "brief.yaml", b"survey: brief\nsteps: [{id: a, ask: A?, answer: {type: yes_no}}]"
    )
    survey_versions.store_versions(client, [survey])
    client.zincrby(survey_versions.LAST_USED_KEY, -2 * DAY, survey.version)
    with without(cluster, WITH_SHARDS_ALONE), pytest.raises(redis_client.AWAY_ERRORS):
        survey_versions.forget_unused(client, SHARDS, DAY)
    assert [*survey_versions.stored_versions(client)] == [survey.version]


def test_a_process_compares_its_clock_with_each_servers(client):
    """The one that differs most is told."""
    note = process_registry.ClockComparison().note_worst
    assert note([10_000, 14_000], 10_000, 10_001) == -3_999
    assert note([10_000, 5_000], 10_000, 10_001) == 5_000
    assert note([10_000, 10_001], 10_000, 10_001) == 0
    assert len(redis_client.server_times_ms(client)) == 3
