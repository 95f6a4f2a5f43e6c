"""A primary with replicas, real Valkeys all, and the Sentinels that watch it. Servers can be killed, frozen and come back, or lie
on machines that can be cut off."""

import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.store import redis_client
from config.telemetry.library_internals import valkey_server_path
from tests.support.closing import Closing
from tests.support.machines import Machine
from tests.support.valkey import Valkey
from tests.support.waiting import HANG_S, free_port, until

SERVICE = "parley"
QUORUM = 2

START_S = 20.0
FAIL_OVER_S = 20.0

DOWN_AFTER_MS = 1_000

PATIENT_MS = 600_000
"""While all servers are down at once, how long Sentinels wait for the primary. They would take a replica that has not yet read again
what it missed, as soon as it is there first."""

ANSWER_S = 0.5
"""How soon a Sentinel answers that can be reached."""


class Sentinel(Closing):
    """One Sentinel that watches `primary`. Started when made."""

    def __init__(self, primary: Valkey, machine: Machine | None = None) -> None:
        self.port = free_port()
        self.host = machine.address if machine else "127.0.0.1"
        program = [str(valkey_server_path())]
        self._folder = Path(tempfile.mkdtemp(prefix="parley-sentinel-"))
        file = self._folder / "sentinel.conf"
        file.write_text(
            "\n".join(
                [
                    f"port {self.port}",
                    f"bind {self.host}",
                    "protected-mode no",
                    f"dir {self._folder}",
                    f"logfile {self._folder / 'sentinel.log'}",
                    f"sentinel monitor {SERVICE} {primary.host} {primary.port} {QUORUM}",
                    f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
                    f"sentinel failover-timeout {SERVICE} 1000",
                    f"sentinel parallel-syncs {SERVICE} 2",
                ]
            )
        )
        self._process = subprocess.Popen(
            [*(machine.command(*program) if machine else program), str(file), "--sentinel"],
            start_new_session=True,
        )

    def state(self) -> dict[str, str]:
        """What it knows of the primary; nothing while it does not answer."""
        with redis.Redis(
            self.host, self.port, protocol=2, decode_responses=True,
            socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0),
        ) as client:  # fmt: skip
            try:
                words = client.execute_command("SENTINEL", "MASTER", SERVICE)
            except redis.RedisError:
                return {}
        return dict(zip(words[::2], words[1::2], strict=True)) if isinstance(words, list) else words

    def primary_address(self) -> tuple[str, str]:
        """Host and port of the server that it names."""
        state = self.state()
        return state.get("ip", ""), state.get("port", "")

    def hears_primary(self) -> bool:
        """Whether the primary answered it lately."""
        state = self.state()
        return state.get("flags") == "master" and int(state["last-ok-ping-reply"]) < DOWN_AFTER_MS

    def be_patient(self, ms: int) -> None:
        """Take a server for gone only after so long."""
        with redis.Redis(self.host, self.port, protocol=2, socket_timeout=START_S) as client:
            client.execute_command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", ms)

    def end_subscriptions(self) -> None:
        """End every connection by which somebody listens to it."""
        with redis.Redis(self.host, self.port, protocol=2, socket_timeout=ANSWER_S) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB")

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(HANG_S)
        shutil.rmtree(self._folder, ignore_errors=True)


class ValkeyService(Closing):
    """A primary, `replicas` of it, and three Sentinels, who know all of them once this is made; on each of `machines` a Sentinel,
    and a server as far as they go, the primary on the first."""

    def __init__(
        self, replicas: int = 1, machines: Sequence[Machine] | tuple[None, ...] = (None, None, None)
    ) -> None:
        self._clients: list[redis.Redis] = []
        self.servers: list[Valkey] = []
        self.sentinels: list[Sentinel] = []
        try:
            first = Valkey(machine=machines[0])
            self.servers.append(first)
            leader = f"{first.host} {first.port}"
            for each in machines[1 : replicas + 1]:
                self.servers.append(Valkey(machine=each, replicaof=leader))
            for each in machines:
                self.sentinels.append(Sentinel(first, each))
            self.wait_complete()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where the lanes go."""
        hosts = ",".join(f"{each.host}:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    @property
    def broker_url(self) -> str:
        """Where the wake-ups go."""
        return self.url.removesuffix("/0") + "/1"

    @property
    def primary(self) -> Valkey:
        """The server that most of the Sentinels name."""
        named = until(self._named_by_most, START_S, "most Sentinels agree")
        assert named is not None
        return named

    @property
    def primaries(self) -> list[Valkey]:
        """The one that takes writes."""
        return [self.primary]

    @property
    def replicas(self) -> list[Valkey]:
        primary = self.primary
        return [each for each in self.servers if each is not primary]

    def client(self, url: str = "") -> redis.Redis:
        """A client as Parley's own, closed with the service."""
        client = redis_client.connect(url or self.url)
        self._clients.append(client)
        return client

    def be_patient(self, ms: int) -> None:
        """Have the Sentinels take a server for gone only after so long."""
        for each in self.sentinels:
            each.be_patient(ms)

    def wait_complete(self) -> None:
        """Until the Sentinels know of all servers and of each other."""
        until(self._is_complete, START_S, "the Sentinels know of all")

    def wait_failed_over(self, old: Valkey) -> None:
        """Until most Sentinels name another server than `old`, and it takes writes."""
        until(lambda: self._named_besides(old), FAIL_OVER_S, "another server is the primary")

    def start(self) -> None:
        """Start all servers that `stop` or `kill9` ended, and wait until the primary is one again, and has its replicas."""
        for each in reversed(self._replicas_first()):
            each.start()
        self._be_watched()

    def stop(self) -> None:
        """End all servers; the Sentinels wait for the same primary."""
        self.be_patient(PATIENT_MS)
        for each in self._replicas_first():
            each.stop()

    def kill9(self) -> None:
        """Kill all servers; the Sentinels wait for the same primary."""
        self.be_patient(PATIENT_MS)
        for each in self._replicas_first():
            each.kill9()

    def sigstop(self) -> None:
        """Freeze all servers; the Sentinels wait for the same primary."""
        self.be_patient(PATIENT_MS)
        for each in self._replicas_first():
            each.sigstop()

    def sigcont(self) -> None:
        """Let all servers go on."""
        for each in self.servers:
            each.sigcont()
        self._be_watched()

    def empty(self) -> None:
        """Take away all keys."""
        with self.client() as client:
            client.flushall()

    def close_clients(self) -> None:
        """Close every connection that `client` opened."""
        while self._clients:
            self._clients.pop().close()

    def close(self) -> None:
        self.close_clients()
        for each in (*self.sentinels, *self.servers):
            each.close()

    def _be_watched(self) -> None:
        """As ever, once the primary has its replicas again."""
        until(lambda: is_primary(self.primary), START_S, "the primary is one again")
        until(lambda: _has_replicas(self.primary, len(self.servers) - 1), START_S, "it has its replicas")
        until(lambda: all(each.hears_primary() for each in self.sentinels), START_S, "the Sentinels hear it")
        self.be_patient(DOWN_AFTER_MS)

    def _replicas_first(self) -> list[Valkey]:
        """Those that could take its place before the primary."""
        return [*self.replicas, self.primary]

    def _named_by_most(self) -> Valkey | None:
        words = Counter(each.primary_address() for each in self.sentinels)
        for server in self.servers:
            if words[server.host, str(server.port)] >= QUORUM:
                return server
        return None

    def _named_besides(self, old: Valkey) -> bool:
        named = self._named_by_most()
        return named is not None and named is not old and is_primary(named)

    def _is_complete(self) -> bool:
        return all(
            state.get("num-slaves") == str(len(self.servers) - 1)
            and state.get("num-other-sentinels") == str(len(self.sentinels) - 1)
            for state in (each.state() for each in self.sentinels)
        )


def is_primary(server: Valkey) -> bool:
    """Whether it says so. One that becomes a replica closes its connections, and is asked once more."""
    return until(lambda: _role(server), START_S, "it says what it is") == "master"


def _role(server: Valkey) -> str:
    return str(_replication(server).get("role", ""))


def _has_replicas(server: Valkey, count: int) -> bool:
    """Whether so many have all that it had when they came, and follow it."""
    state = _replication(server)
    return [state.get(f"slave{number}", {}).get("state") for number in range(count)] == ["online"] * count


def _replication(server: Valkey) -> dict[str, Any]:
    """What it says of its replication; nothing while it does not answer."""
    state: dict[str, Any] = {}
    with server.client() as client, suppress(redis.ConnectionError):
        state = client.info("replication")
    return state
