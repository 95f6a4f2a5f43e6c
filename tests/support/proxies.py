"""Ways to whatever a test's Redis is, which can be broken: a proxy before each server of it, and all of them do the same.

Clients are led there by what servers say: a cluster's nodes announce the proxies' ports, and Sentinels are reached through proxies
of their own, which are never broken and put the others' ports in the place of the servers'.
"""

from contextlib import suppress

import redis

from tests.support.closing import Closing
from tests.support.clusters import ValkeyCluster
from tests.support.proxy import Loss, Proxy
from tests.support.sentinels import SERVICE, ValkeyService
from tests.support.topologies import RedisTopology
from tests.support.valkey import Valkey


class Proxies(Closing):
    """Before all of `valkey`, or its `lanes` or its `broker` alone: `url` and `broker_url` lead through them, where they are. A
    context manager."""

    def __init__(self, valkey: RedisTopology, *, lanes: bool = True, broker: bool = True) -> None:
        self.url, self.broker_url = valkey.url, valkey.broker_url
        self._proxies: list[Proxy] = []
        self._sentinels: list[Proxy] = []
        self._cluster: ValkeyCluster | None = None
        try:
            match valkey:
                case ValkeyCluster():
                    if lanes:
                        self.url = self._before_nodes(valkey)
                    if broker:
                        self.broker_url = self._before(valkey.broker).url
                case _:
                    url = (
                        self._before_service(valkey)
                        if isinstance(valkey, ValkeyService)
                        else self._before(valkey).url
                    )
                    if lanes:
                        self.url = url
                    if broker:
                        self.broker_url = url.removesuffix("/0") + "/1"
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> int:
        """How many replies did not get through."""
        return sum(each.lost for each in self._proxies)

    def lose_replies(self, match: bytes, times: int = 1, skip: int = 0, every: int = 1) -> None:
        """Lose replies, whichever server they are from: see Proxy."""
        loss = Loss(match, times, skip, every)
        for each in self._proxies:
            each.lose(loss)

    def delay(self, seconds: float) -> None:
        for each in self._proxies:
            each.delay(seconds)

    def refuse(self) -> None:
        """Be as if all servers were gone."""
        for each in self._proxies:
            each.refuse()

    def admit(self) -> None:
        for each in self._proxies:
            each.admit()

    def swallow(self) -> None:
        for each in self._proxies:
            each.swallow()

    def spit_out(self) -> None:
        for each in self._proxies:
            each.spit_out()

    def lead_to(self, url: str, *, cut: bool = True) -> None:
        """Lead from the one server to another: see Proxy."""
        (proxy,) = self._proxies
        proxy.lead_to(url, cut=cut)

    def close(self) -> None:
        if self._cluster is not None:
            with suppress(redis.RedisError):  # of a node that was stopped for good
                self._cluster.announce(dict.fromkeys(self._cluster.nodes, 0))
        for each in (*self._sentinels, *self._proxies):
            each.close()

    def _before(self, server: Valkey) -> Proxy:
        proxy = Proxy(server.url)
        self._proxies.append(proxy)
        return proxy

    def _before_nodes(self, cluster: ValkeyCluster) -> str:
        ports = {node: self._before(node).port for node in cluster.nodes}
        self._cluster = cluster
        cluster.announce(ports)
        return f"redis+cluster://{','.join(f'{node.host}:{port}' for node, port in ports.items())}"

    def _before_service(self, service: ValkeyService) -> str:
        ports = {b"%d" % each.port: b"%d" % self._before(each).port for each in service.servers}
        self._sentinels += [Proxy(f"redis://{each.host}:{each.port}", ports) for each in service.sentinels]
        addresses = ",".join(f"127.0.0.1:{each.port}" for each in self._sentinels)
        return f"redis+sentinel://{addresses}/{SERVICE}/0"
