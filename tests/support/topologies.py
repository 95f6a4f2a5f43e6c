"""What a test's Redis may be: `pytest --redis=sentinel` runs on a service of Sentinels what else runs on one server."""

from collections.abc import Callable, Mapping

from tests.support.clusters import ValkeyCluster
from tests.support.sentinels import ValkeyService
from tests.support.valkey import Valkey

RedisTopology = Valkey | ValkeyService | ValkeyCluster
"""Each has `url`, `broker_url`, `client`, `empty` and `close_clients`."""

ONE_SERVER = "server"

TOPOLOGIES: Mapping[str, Callable[[], RedisTopology]] = {
    ONE_SERVER: Valkey,
    "sentinel": ValkeyService,
    "cluster": ValkeyCluster,
}
