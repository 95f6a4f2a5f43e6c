"""A Valkey with a replica that can be cut off from it, and takes its place when it is lost. Clients reach it by a proxy."""

from pathlib import Path

import redis

from tests.support.closing import Closing
from tests.support.proxy import Proxy
from tests.support.stepped_clock import SteppedClock
from tests.support.valkey import Valkey
from tests.support.waiting import until

FOLLOWS_S = 20.0


class ReplicatedValkey(Closing):
    """What is done to it is done to the server that is the primary then. `folder` stays the same."""

    def __init__(self, clock: SteppedClock | None = None) -> None:
        self.primary = Valkey(clock)
        self.folder: Path = self.primary.folder
        self._link = Proxy(self.primary.url)
        self.replica = Valkey(clock, replicaof=f"127.0.0.1 {self._link.port}")
        until(self._follows, FOLLOWS_S, "it replicates")

    @property
    def url(self) -> str:
        return self.primary.url

    @property
    def broker_url(self) -> str:
        return self.primary.broker_url

    def client(self, url: str = "") -> redis.Redis:
        return self.primary.client(url)

    def start(self) -> None:
        self.primary.start()

    def kill9(self) -> None:
        self.primary.kill9()

    def sigstop(self) -> None:
        self.primary.sigstop()

    def sigcont(self) -> None:
        self.primary.sigcont()

    def cut_off(self) -> None:
        """Let the replica hear nothing more; clients still reach the primary."""
        self._link.swallow()

    def fail_over(self, way: Proxy) -> None:
        """Lose the primary, put its replica in its place, to which `way` leads then, and have the former primary follow that
        one: what it alone had is gone."""
        old, new = self.primary, self.replica
        old.kill9()
        new.promote()
        way.lead_to(new.url)
        self._link.lead_to(new.url)
        self._link.spit_out()
        old.follow(self._link.port)
        old.start()
        self.primary, self.replica = new, old

    def close(self) -> None:
        self.replica.close()
        self.primary.close()
        self._link.close()

    def _follows(self) -> bool:
        return bool(self.replica.client().info("replication").get("master_link_status") == "up")
