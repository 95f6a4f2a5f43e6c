"""A server of a cluster is not taken for one that is alone: it refuses what that is asked for at once."""

import pytest

from config.settings.config_errors import ConfigError
from config.settings.server_mode import require_server_mode
from config.store import redis_client
from tests.support.clusters import ValkeyCluster
from tests.support.valkey import Valkey

pytestmark = pytest.mark.processes


def test_one_server_is_what_its_url_says():
    with Valkey() as valkey, redis_client.connect(valkey.url) as client:
        require_server_mode(client)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_server_of_a_cluster_is_refused_unless_it_does_not_say_so(hidden):
    with Valkey(cluster_enabled="yes") as valkey, redis_client.connect(valkey.url) as client:
        if hidden:
            valkey.client().acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-info"])
            require_server_mode(client)
            return
        with pytest.raises(ConfigError, match=r"must begin with redis\+cluster://"):
            require_server_mode(client)


def test_a_cluster_is_what_its_url_says():
    with ValkeyCluster(primaries=1, replicas=0) as cluster, redis_client.connect(cluster.url) as client:
        require_server_mode(client)
