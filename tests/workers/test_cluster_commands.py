"""What operators are told of a cluster: each command works on one, says which shards it could not read while a server is away, and
`status` and `check` say what the cluster does not keep of what was promised."""

import json
from contextlib import closing, contextmanager

import click
import msgspec
import pytest
from click.testing import CliRunner

from config import cli
from config.service import server_wording
from config.settings.config_errors import ConfigError
from config.settings.durability import durability_gaps, require_durability
from config.settings.redis_rights import CLUSTER_URL_SENTENCE, explained_refusals
from config.settings.shard_count import find_shards
from config.store import keyspace, redis_client
from config.telemetry import metrics
from config.telemetry.exposition import redis_gauges
from config.telemetry.redis_stats import RedisStats, StatsReader
from config.telemetry.server_stats import NodeStats, ServerStats, is_too_old
from engine.commands.exit_status import EXIT_PROBLEMS
from tests.support.archiving import archive_everything
from tests.support.clusters import ParleysCluster, ValkeyCluster
from tests.support.hook_endpoint import SECRET
from tests.support.waiting import HANG_S, until
from tests.workers.test_server_away import (
    SHARDS,
    WITH_SHARDS_ALONE,
    WITH_THE_CHANNEL,
    person,
    shards_on,
    without,
)
from workers.commands import connect
from workers.commands.status import DeploymentState, assess_health
from workers.store.deployment import Deployment
from workers.store.replication_check import find_history

pytestmark = pytest.mark.processes

BACK_S = 20
ANNA = person(3)
HOOK = '\n[hooks.crm]\nurl = "http://127.0.0.1:1/"\nsecret_env = "PARLEY_CRM_SECRET"\n'


@pytest.fixture(scope="module")
def cluster():
    with ParleysCluster(replicas=0) as cluster:
        yield cluster


@pytest.fixture
def valkey(cluster):
    """What `deploy` has its deployment on."""
    yield cluster
    cluster.empty()
    cluster.close_clients()


@pytest.fixture
def client(valkey):
    with valkey.client() as client:
        redis_client.load_functions(client)
        yield client


@pytest.fixture
def town(deploy, tmp_path, monkeypatch):
    """A deployment in which somebody has said something in each shard, and an endpoint that refuses connections."""
    monkeypatch.setenv("PARLEY_CRM_SECRET", SECRET)
    monkeypatch.setenv("PARLEY_HOOKS_ALLOW_PRIVATE", "1")
    monkeypatch.setenv("PARLEY_VAR", str(tmp_path / "var"))
    town = deploy(shards=SHARDS)
    config = tmp_path / "parley.toml"
    config.write_text(config.read_text() + HOOK)
    for k in range(SHARDS):
        town.accept(person(k), "START", "Ada")
        town.drain()
    return town


@pytest.fixture
def archived(town, sqlite_archive):
    archive_everything(town.client, SHARDS, sqlite_archive)
    return town


def run(*words):
    """What a command says, and how it ends; never by an error that nobody has told."""
    done = CliRunner().invoke(cli.main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


WORKS = [
    "channel list", "channel pause clinic --why test", "channel resume clinic", "hooks list", "hooks pause crm --why test",
    "hooks resume crm", "hooks rewind crm --to now --yes", "hooks rewind crm --to beginning --yes", "surveys",
    "surveys upgrade", "archive status", "archive rebuild", f"lane {ANNA}", f"transcript {ANNA}", f"replay {ANNA}", "replay --all",
    "results clinic", "funnel clinic", "optout list", "optout export", f"optout add {ANNA}", f"optout remove {ANNA}",
    "audit", "dead list", "dead audit", "dead replay --all --dry-run", f"erase --yes --dry-run {ANNA}", f"erase --yes {ANNA}",
    "check",
]  # fmt: skip


def test_each_command_works(archived):
    for words in WORKS:
        done = run_until_answered(*words.split())
        assert done.exit_code == 0, (words, done.output)


def run_until_answered(*words):
    """As who types a command again if it says so: a node that stands still for a moment, on a busy machine, is away."""
    for _ in range(5):
        done = run(*words)
        if "type this again" not in done.output:
            break
    return done


LEAVES_OUT = ["channel list", "dead list", "dead audit"]
READS_ALL = [
    "optout export", "surveys", "hooks rewind crm --to now --yes", "audit", f"erase --yes {person(0)}", "replay --all",
    f"lane {person(0)}",
]  # fmt: skip


def test_while_a_server_is_away_each_command_tells(cluster, archived):
    """Those that list what all shards have list what can be read, and say what cannot; others that need it say so, and end with
    status 1; those that do not work."""
    left = ", ".join(map(str, sorted(shards_on(WITH_SHARDS_ALONE))))
    with without(cluster, WITH_SHARDS_ALONE):
        for words in LEAVES_OUT:
            done = run(*words.split())
            assert done.exit_code == 0, (words, done.output)
            assert f"shards {left} cannot be read, as a server of the cluster is away" in done.output
        for words in READS_ALL:
            done = run(*words.split())
            assert done.exit_code == 1, (words, done.output)
            assert "failed" in done.output or "cannot be read, as a server" in done.output
        for words in (
            "channel pause clinic --why test",
            "channel resume clinic",
            f"lane {ANNA}",
            "hooks list",
        ):
            done = run(*words.split())
            assert done.exit_code == 0, (words, done.output)
        assert run("archive", "status").output.count("its server is away") == len(
            shards_on(WITH_SHARDS_ALONE)
        )


@contextmanager
def set_at(cluster, number, **settings):
    """Meanwhile, one server has these settings."""
    node = cluster.primaries[number]
    before = {}
    for name, value in settings.items():
        name = name.replace("_", "-")  # noqa: PLW2901
        before[name] = node.ask("CONFIG", "GET", name)
        node.ask("CONFIG", "SET", name, value)
    try:
        yield node.address
    finally:
        for name, value in before.items():
            node.ask("CONFIG", "SET", name, value[name] if isinstance(value, dict) else value[1])


def test_status_lists_the_servers_and_says_what_one_lost_server_costs(cluster, town):
    found = json.loads(run("status", "--json").output)
    assert [node["slots"] for node in found["lanes"]["nodes"]] == [5461, 5461, 5462]
    assert [set(node["shards"]) for node in found["lanes"]["nodes"]] == list(map(shards_on, range(3)))
    assert all(node["memory"] > 100_000 and node["up"] for node in found["lanes"]["nodes"])
    (note,) = [each for each in found["notes"] if "replica" in each]
    assert all(node.address in note for node in cluster.primaries)
    told = run("status").output
    assert all(node.address in told for node in cluster.primaries)
    assert "cannot be read" not in told


@pytest.mark.parametrize("number", [0, 1, 2])
def test_status_says_which_server_is_away_and_what_waits(cluster, town, number, monkeypatch):
    """Also if it is the one that has the number of shards, which the settings have to say then."""
    monkeypatch.setenv("PARLEY_SHARDS", str(SHARDS))
    address = cluster.primaries[number].address
    slots = 5462 if number == 2 else 5461
    with without(cluster, number):
        until(
            lambda: f"{slots} of 16384 slots" in run("status").output, BACK_S, "it is told"
        )  # a server is believed for a moment
        done = run("status", "--json")
        assert done.exit_code == EXIT_PROBLEMS
        found = json.loads(done.output)
        assert found["wrong"][0].startswith(
            f"{slots} of 16384 slots of the Redis cluster of the lanes have no server that answers: {address}"
        )
        assert found["away_shards"] == sorted(shards_on(number))
        assert {shard["k"] for shard in found["shards"]} == {*range(SHARDS)} - shards_on(number)
        unread = {0: ["the channel clinic", "the hook crm"], 1: ["which processes live"], 2: []}[number]
        assert found["unread"] == unread
        assert ("no process of Parley lives" in found["wrong"]) == (number != 1)
        assert run("status").exit_code == EXIT_PROBLEMS
        settings = msgspec.structs.replace(town.world.settings, shards_are_set=True)
        with closing(StatsReader(settings)) as reader:
            assert (metrics.REDIS_SLOTS_UNCOVERED, (), slots) in redis_gauges(reader.read())


def test_status_says_a_plain_url_is_not_a_clusters(cluster, town, monkeypatch):
    """In place of the number of a slot."""
    monkeypatch.setenv("PARLEY_SHARDS", str(SHARDS))
    monkeypatch.setenv("PARLEY_REDIS_URL", f"redis://{cluster.primaries[1].address}")
    assert CLUSTER_URL_SENTENCE in json.loads(run("status", "--json").output)["wrong"][0]
    done = run("lane", ANNA)
    assert done.exit_code == 1
    assert CLUSTER_URL_SENTENCE in done.output
    plain = redis_client.connect(f"redis://{cluster.primaries[1].address}")
    with pytest.raises(ConfigError, match="redis\\+cluster://"), explained_refusals():
        find_shards(plain, town.world.settings)


def test_of_each_server_it_is_told_if_it_forgets(cluster, town, client):
    with set_at(cluster, 1, appendfsync="everysec") as address:
        assert durability_gaps(client) == {f"appendfsync at {address}": "everysec"}
        with pytest.raises(
            ConfigError, match=f"appendfsync at {address} is 'everysec'; CONFIG SET appendfsync always"
        ):
            require_durability(client, "strict")
        require_durability(client, "relaxed")
        said = f"Redis may lose what was acknowledged: appendfsync at {address} is 'everysec', not 'always'"
        assert said in json.loads(run("status", "--json").output)["wrong"]
        done = run("check")
        assert done.exit_code == 2
        assert f"appendfsync at {address} is 'everysec'" in done.output
    assert durability_gaps(client) == {}


def test_it_is_told_if_one_lost_server_stops_all(cluster, town):
    with set_at(cluster, 2, cluster_require_full_coverage="yes") as address:
        said = (
            "if one server of the Redis cluster of the lanes is lost, none answers any more: "
            f"cluster-require-full-coverage is 'yes' at {address}; set it to no"
        )
        assert any(each.startswith(said) for each in json.loads(run("status", "--json").output)["wrong"])
        assert said in run("check").output
    assert "cluster-require-full-coverage" not in run("check").output


def test_a_server_that_is_away_is_not_asked_how_it_keeps_what_it_has(cluster, client):
    with without(cluster, WITH_THE_CHANNEL):
        assert durability_gaps(client) == {}


def test_the_number_of_shards_is_judged_by_the_keys_of_all_servers(cluster, town, client):
    """As of 0.1.0, which stored none."""
    client.delete(keyspace.SHARDS_KEY)
    for k in {*range(SHARDS)} - shards_on(WITH_SHARDS_ALONE):
        client.delete(*redis_client.server_of(client, keyspace.server_key(k)).keys(f"{{{k}}}:*") or ["none"])
    settings = msgspec.structs.replace(town.world.settings, shards=4, shards_are_set=True)
    with pytest.raises(ConfigError, match="not divided into 4"):
        find_shards(client, settings)


def test_both_urls_may_lead_to_one_cluster(cluster, town):
    settings = town.world.settings
    first, *others = [node.address for node in cluster.nodes]
    same = redis_client.connect(f"redis+cluster://{','.join([*others, first])}")
    one = redis_client.connect(f"redis+cluster://{first}")
    assert Deployment(settings, one, same).distinct_servers == [same]
    assert Deployment(settings, one, town.world.broker).distinct_servers == [town.world.broker, one]


def test_operators_are_told_if_replicas_have_not_what_they_did():
    """Those of each primary."""
    with ValkeyCluster(primaries=2) as cluster:
        lanes = redis_client.connect(cluster.url)
        with closing(lanes):
            settings = msgspec.convert({"replicas": 1}, type=_Replicas)
            deployment = _Connected(settings, lanes, find_history(settings, lanes))
            confirm_again(deployment)
            primary = cluster.primaries[1]
            (replica,) = cluster.replicas_of(primary)
            replica.sigstop()
            with pytest.raises(click.ClickException, match="only 0 of 1 replicas have what was written"):
                connect.confirm_replicated(deployment)
            replica.sigcont()
            cluster.wait_complete()
            confirm_again(deployment)
            cluster.fail_over(replica)
            cluster.wait_complete()
            with pytest.raises(click.ClickException, match="failed over"):
                connect.confirm_replicated(deployment)


def confirm_again(deployment):
    """As often as the sentence says so: a replica that stands still for a moment, on a busy machine, has nothing in time."""

    def confirmed():
        try:
            connect.confirm_replicated(deployment)
        except click.ClickException as e:
            if "only 0 of 1 replicas have what was written" not in e.message:
                raise
            return False
        return True

    until(confirmed, HANG_S, "replicas have what was done")


class _Replicas(msgspec.Struct):
    replicas: int


class _Connected(msgspec.Struct):
    settings: _Replicas
    lanes: object
    history: str


# What is said, without a server


def node(name="a", **fields):
    return NodeStats(**{"address": f"{name}:6379", "slots": 8192, "up": True, "now": 1_000_000} | fields)


def judged(*nodes, wanted=0, uncovered=0, **lanes):
    replicas = min((each.replicas for each in nodes if each.up), default=0)
    server = ServerStats(up=True, now=1, nodes=nodes, uncovered=uncovered, replicas=replicas, **lanes)
    found = RedisStats(lanes=server, broker=ServerStats(up=True), replicas_wanted=wanted)
    verdict = assess_health(DeploymentState(found))
    return [each for each in verdict.wrong if "cluster" in each], [
        each for each in verdict.notes if "cluster" in each
    ]


def test_replicas_are_missed_of_each_primary():
    (said,), notes = judged(node("a", replicas=1, shards=[1]), node("b", replicas=0, shards=[2, 3]), wanted=1)
    assert said == (
        "0 replicas follow b:6379 of the Redis cluster of the lanes, and PARLEY_REPLICAS is 1: for shards 2, 3 nothing "
        "is accepted but what the spool takes, and no SMS leaves"
    )
    assert notes == []
    assert judged(node("a", replicas=1), node("b", replicas=1), wanted=1) == ([], [])


def test_primaries_without_a_replica_are_noted_where_none_is_asked_for():
    wrong, (note,) = judged(node("a", replicas=1), node("b"))
    assert wrong == []
    assert note.startswith("b:6379 of the Redis cluster of the lanes has no replica")


def test_clocks_of_servers_that_are_apart():
    (said,), _ = judged(node("a", replicas=1), node("b", replicas=1, now=1_005_000), wanted=1)
    assert said == (
        "the clocks of servers of the Redis cluster of the lanes are apart: that of b:6379 is 5 s ahead of that of "
        "a:6379, and one of them is wrong"
    )
    assert judged(node("a", replicas=1), node("b", replicas=1, now=1_001_000), wanted=1) == ([], [])


def test_slots_that_nobody_has():
    (said,), _ = judged(node("a", replicas=1), uncovered=8192)
    assert said == (
        "8192 of 16384 slots of the Redis cluster of the lanes have no server that answers: what is there waits until one "
        "has them"
    )


def test_many_are_counted():
    nodes = [node(str(n), replicas=1, needs_all_slots=True) for n in range(12)]
    (said,), _ = judged(*nodes)
    assert "7:6379 and 4 more; set it to no" in said


@pytest.mark.parametrize(
    "release, old", [("7.0.15", True), ("6.2", True), ("7.2.4", False), ("8.0", False), ("", False)]
)
def test_a_release_that_is_too_old_is_told(release, old):
    assert is_too_old(release) == old
    (said,) = server_wording.release_problems(["7.0.15 at a:6379"])
    assert (
        said
        == "the Redis of the lanes is too old (7.0.15 at a:6379): expected Redis 7.2 or Valkey 8, or later"
    )
    assert list(server_wording.release_problems([])) == []
