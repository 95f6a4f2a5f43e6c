"""Does each release replay what the other gave up? An event that met a state which could not be read, and an SMS that the
provider refused: given up by one release's workers, replayed by the other's command, and answered by its workers."""

import subprocess
from collections.abc import Iterator, Mapping

from config.store import keyspace
from tests.support import audit
from tests.support.clinic import HEALTHY, NAME, number, temperature
from tests.support.octopush import FakeOctopush, Faults, Scripted
from tests.support.person import Crowd, inbound
from tests.support.processes import Deployment, Process, Release
from tests.support.valkey import Valkey
from tests.support.waiting import until

SHARDS = 16
SOON_S = 30.0
REPLAY = ("parley", "dead", "replay", "--all", "--yes")
AUDIT = ("parley", "dead", "audit", "--json")
REFUSED = Scripted(400, {"code": 151, "message": "Country not served"})
FIRST = 80_000_000
"""The people of an exchange have numbers that nobody in a soak has."""


class Exchange:
    """One direction, on a deployment in which nothing is under way. `place` tells it from others."""

    def __init__(self, deployment: Deployment, valkey: Valkey, octopush: FakeOctopush, place: int) -> None:
        self._deployment = deployment
        self._lanes = valkey.client()
        self._broker = valkey.client(valkey.broker_url)
        self._octopush = octopush
        self._crowd = Crowd(deployment.webhook, octopush)
        self._refused, self._unread = number(FIRST + 2 * place), number(FIRST + 2 * place + 1)

    def wrongs(self, maker: Release, mender: Release) -> Iterator[str]:
        """What `mender` does not mend of what `maker` gave up, in words."""
        try:
            self._run_only(maker)
            self._give_up()
            self._run_only(mender)
            yield from self._replay(mender, maker)
            for person in (self._refused, self._unread):
                self._says(person, "85")
                self._heard(person, 3)
            audit.settle(self._lanes, self._broker)
        except (TimeoutError, AssertionError, RuntimeError) as e:
            yield str(e)
            return
        for person in (self._refused, self._unread):
            if (texts := self._texts(person)) != [NAME, temperature("Ada"), HEALTHY]:
                yield f"{person} heard {texts}"

    def _give_up(self) -> None:
        for person in (self._refused, self._unread):
            self._says(person, "START")
            self._heard(person, 1)
        self._octopush.control(Faults(script=[REFUSED]))
        self._says(self._refused, "Ada")
        self._until_dead(1)
        self._octopush.control(Faults())
        name = keyspace.lane_key(keyspace.shard_of(self._unread, SHARDS), self._unread)
        lane = self._lanes.get(name)
        self._lanes.set(name, b"1 0 no lane", keepttl=True)
        self._says(self._unread, "Ada")
        self._until_dead(2)
        self._lanes.set(name, lane or b"", keepttl=True)

    def _replay(self, mender: Release, maker: Release) -> Iterator[str]:
        replayed = self._command(mender, *REPLAY)
        if replayed.returncode:
            yield f"`{' '.join(REPLAY)}` ends with {replayed.returncode}: {replayed.stdout}{replayed.stderr}"
        self._until_dead(0)
        for person in (self._refused, self._unread):
            self._heard(person, 2)
        told = self._command(maker, *AUDIT)
        if told.returncode or not told.stdout:
            yield f"`{' '.join(AUDIT)}` ends with {told.returncode}: {told.stdout}{told.stderr}"

    def _run_only(self, release: Release) -> None:
        """One process of each role, and none of another release."""
        running: dict[str, Process] = {}
        for process in self._deployment.processes:
            process.sigcont()
            process.terminate()
            running.setdefault(process.name, process)
        for process in running.values():
            process.release = release
            process.restart()
        self._deployment.wait_ready()

    def _command(self, release: Release, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment: Mapping[str, str] = {**self._deployment.environment, **release.environment}
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)

    def _says(self, person: str, text: str) -> None:
        self._crowd.post([inbound(person, text)])

    def _texts(self, person: str) -> list[str]:
        return [sms.text for sms in self._octopush.accepted(person)]

    def _heard(self, person: str, count: int) -> None:
        until(lambda: len(self._texts(person)) >= count, SOON_S, f"{person} has {count} SMS")

    def _until_dead(self, count: int) -> None:
        def letters() -> int:
            return sum(int(self._lanes.hlen(keyspace.dead_letters_key(k))) for k in range(SHARDS))

        until(lambda: letters() == count, SOON_S, f"there are {count} dead letters")
