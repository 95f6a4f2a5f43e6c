"""Fixtures: real servers on free ports, one set for each test process. And three marks: without `processes` a test starts none,
without `databases` no PostgreSQL, and without `drawn` it draws nothing at random."""

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from config.archive import archive_schema
from config.archive.database import ArchiveDatabase
from tests.support.archive_writer import ArchiveWriter
from tests.support.clusters import ValkeyCluster
from tests.support.example_counts import EXAMPLES_EVENT, draws
from tests.support.fork_server import FORK_EVENT
from tests.support.octopush import FakeOctopush
from tests.support.parsed_once import parse_yaml_once
from tests.support.postgresql import PostgreSql, postgresql_programs
from tests.support.processes import Deployment
from tests.support.proxies import Proxies
from tests.support.topologies import ONE_SERVER, TOPOLOGIES, RedisTopology

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # how long an example takes says how busy the machine is

parse_yaml_once()

# processes take signals as they do at a terminal, also where these tests were started in the background, or by nohup
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what its processes have written."""
    report = yield
    if report.failed:
        deployments = (it for it in getattr(item, "funcargs", {}).values() if isinstance(it, Deployment))
        report.sections += [("Parley's processes", deployment.logs()) for deployment in deployments]
    return report


DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.databases)]
"""On which an archive may be."""

STARTERS = {"cluster", "deployed", "deployment", "own_postgresql", "own_valkey", "parley", "process"}
"""Fixtures that start processes."""

REDIS_FIXTURES = {"own_valkey", "valkey"}

POSTGRESQL_FIXTURES = {"own_postgresql", "postgresql_server"}

LONGEST = ("test_alerts.py", "test_soak.py")

_runs_unmarked = False
_is_without_database = False
_draws_nothing = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--redis", choices=sorted(TOPOLOGIES), default=ONE_SERVER,
        help="what `valkey` and `own_valkey` are; with another than `server`, only tests that take one of them run",
    )  # fmt: skip


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many tests run at once. Those with processes wait most of the time, so there is room for three a core; of the
    others, and of those that draw, for three on two."""
    cores = len(os.sched_getaffinity(0))
    computes = "not processes" in config.option.markexpr or config.option.markexpr.startswith("drawn")
    return max(2, cores * 3 // 2) if computes else cores * 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All of tests/faults is marked, and whoever takes one of STARTERS. Others who start processes mark themselves. Whoever
    takes one of POSTGRESQL_FIXTURES is marked `databases`; those who ask for it as they run have it from DATABASES. Whoever
    draws at random is marked `drawn`.

    The list is dealt to the test processes in even parts, in this order. Each part begins with its share of the marked,
    which take longest, and ends with short ones, so that none is left with a long one at the end.
    """
    for item in items:
        if item.path.parent.name == "faults" or STARTERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("processes")
        if POSTGRESQL_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("databases")
        if draws(getattr(item, "function", None)):
            item.add_marker("drawn")
    if config.option.redis != ONE_SERVER:
        _leave_out(config, items)
    kinds = [[item for item in items if _starts_processes(item) == starts] for starts in (True, False)]
    kinds[0].sort(
        key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
    )
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = [
        item
        for part in range(parts)
        for kind in kinds
        for item in kind[part * len(kind) // parts : (part + 1) * len(kind) // parts]
    ]


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What has no Redis of these fixtures is deselected, and what is true of one server alone is skipped, with its reason."""
    elsewhere = [item for item in items if not REDIS_FIXTURES.intersection(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in {*elsewhere}]
    for item in items:
        why = next((mark.args[0] for mark in item.iter_markers("one_server")), "")
        if why:
            item.add_marker(pytest.mark.skip(reason=f"of one server alone: {why}"))


def _starts_processes(item: pytest.Item) -> bool:
    return item.get_closest_marker("processes") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    global _is_without_database  # noqa: PLW0603 (as below)
    _is_without_database = item.get_closest_marker("databases") is None
    try:
        return (yield)
    finally:
        _is_without_database = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    global _runs_unmarked, _draws_nothing  # noqa: PLW0603 (an audit hook cannot be given anything, nor be removed)
    _runs_unmarked = not _starts_processes(item)
    _draws_nothing = item.get_closest_marker("drawn") is None
    try:
        return (yield)
    finally:
        _runs_unmarked = _draws_nothing = False


def _nothing_unmarked(event: str, arguments: tuple[object, ...]) -> None:
    if _runs_unmarked and event in ("subprocess.Popen", FORK_EVENT):
        raise AssertionError(f"mark this test `processes`: it starts {arguments[0]!r}")
    if _is_without_database and event == "subprocess.Popen" and str(arguments[0]).endswith("/initdb"):
        raise AssertionError("mark this test `databases`: it starts a PostgreSQL")
    if _draws_nothing and event == EXAMPLES_EVENT:
        raise AssertionError("mark this test `drawn`: it draws at random")


sys.addaudithook(_nothing_unmarked)


@pytest.fixture(scope="session")
def valkey_server(request: pytest.FixtureRequest) -> Iterator[RedisTopology]:
    """The server that this test process shares. Take `valkey` instead, which is empty."""
    with TOPOLOGIES[request.config.option.redis]() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: RedisTopology) -> Iterator[RedisTopology]:
    """A real Valkey without keys. Not to be stopped: see `own_valkey`."""
    valkey_server.empty()
    yield valkey_server
    valkey_server.close_clients()


@pytest.fixture
def own_valkey(request: pytest.FixtureRequest) -> Iterator[RedisTopology]:
    """A real Valkey for this test alone, which may kill it."""
    with TOPOLOGIES[request.config.option.redis]() as server:
        yield server


@pytest.fixture(scope="session")
def cluster_process() -> Iterator[ValkeyCluster]:
    """The cluster that this test process shares. Take `cluster` instead, which is whole and empty."""
    with ValkeyCluster(replicas=0) as servers:
        yield servers


@pytest.fixture
def cluster(cluster_process: ValkeyCluster) -> Iterator[ValkeyCluster]:
    """Three primaries without replicas. Each may be killed or frozen."""
    yield cluster_process
    cluster_process.close_clients()
    cluster_process.restore()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSql]:
    """The PostgreSQL that this test process shares; each test makes a database of its own."""
    if postgresql_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with PostgreSql() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSql]:
    """A PostgreSQL for this test alone, which may stop it."""
    if postgresql_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with PostgreSql() as server:
        yield server


@pytest.fixture(params=DATABASES)
def archive_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an archive may be made, as PARLEY_ARCHIVE_URL says it: on either database."""
    yield from _archive_urls(request, tmp_path)


def _archive_urls(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{folder / 'archive.db'}"
        return
    server: PostgreSql = request.getfixturevalue("postgresql_server")
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(scope="module", params=DATABASES)
def shared_archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ArchiveWriter]:
    """An archive that the tests of a file share, on either database: see ArchiveWriter.clear."""
    for url in _archive_urls(request, tmp_path_factory.mktemp("archive")):
        with ArchiveWriter(url) as writer:
            yield writer


@pytest.fixture
def archive_database(archive_url: str) -> Iterator[ArchiveDatabase]:
    """An archive of today's schema with nothing in it."""
    database = ArchiveDatabase(archive_url)
    archive_schema.migrate(database)
    yield database
    database.close()


@pytest.fixture(scope="session")
def octopush_process() -> Iterator[FakeOctopush]:
    """The fake Octopush that this test process shares. Take `octopush` instead, which has forgotten all."""
    with FakeOctopush() as fake:
        yield fake


@pytest.fixture
def octopush(octopush_process: FakeOctopush) -> FakeOctopush:
    """A fake Octopush with an empty ledger that behaves well until told otherwise."""
    octopush_process.reset()
    return octopush_process


@pytest.fixture
def proxy(valkey: RedisTopology) -> Iterator[Proxies]:
    """A way to `valkey` that can be broken."""
    with Proxies(valkey) as between:
        yield between


@pytest.fixture
def parley(valkey: RedisTopology, octopush: FakeOctopush) -> Iterator[Deployment]:
    """Parley without limits on `valkey` and `octopush`, no process of it running yet: see Deployment.start."""
    with Deployment(valkey.url, valkey.broker_url, octopush) as deployment:
        yield deployment


def pytest_collection_finish() -> None:
    """The thousands of collected tests are not garbage: searching them again and again takes seconds."""
    gc.collect()
    gc.freeze()
