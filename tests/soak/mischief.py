"""What is done to a deployment, when, and to whom: drawn from a seed, so that a soak can be had again."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import Event, Thread
from time import monotonic
from typing import NamedTuple

import msgspec
from redis.crc import key_slot

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from tests.soak.redis_kinds import SoakRedis
from tests.support.carriers import CARRIERS, Carrier, FakeCarriers
from tests.support.clusters import ValkeyCluster
from tests.support.octopush import Faults
from tests.support.processes import Deployment, Process
from tests.support.proxy import Proxy
from tests.support.replicated_valkey import ReplicatedValkey
from tests.support.stepped_clock import SteppedClock

EVERY_S = (0.3, 1.2)
"""Between two deeds."""

PROVIDER = {
    "calm": Faults(delay_ms=(1, 10)),
    "slow": Faults(delay_ms=(200, 1500)),
    "failing": Faults(delay_ms=(1, 10), fail_500=0.3, congested_153=0.1),
    "cutting": Faults(delay_ms=(1, 10), cut_after_accept=0.2),
    "down": Faults(fail_500=1.0),
    "hanging": Faults(hang=True),
}
PROVIDER_WEIGHTS = (6, 2, 3, 3, 1, 1)
SPARED = "unsubscribed"
"""In every confirmation of a STOP. If one is rejected, its letter stays: nobody may text who has opted out."""

DEEDS = {
    "kill": 40, "stop": 8, "terminate": 8, "provider": 10, "black hole": 3, "reject": 6, "lose": 8, "slow redis": 3,
    "cut redis": 3, "kill redis": 2, "stop redis": 2, "forget redis": 3,
}  # fmt: skip
"""Deed -> how often, relative to the others."""

CLOCK_DEEDS = {"step clock of redis": 3}
"""Deeds that take a server whose clock can be stepped."""

FAILOVER_DEEDS = {"fail over redis": 2, "cut off redis": 2}
"""Deeds that take a server with a replica."""

CLUSTER_DEEDS = {
    "kill node of redis": 8, "stop node of redis": 6, "fail over node of redis": 6, "move slot of redis": 8,
}  # fmt: skip
"""Deeds that take a cluster. No two of its nodes are away at once: that is more than is promised of one replica each."""

STEPS_S = (-60, -2, 2, 60, 3_600)
"""How far the server's clock is off, for a while. Behind for no longer than a session waits for an answer: a worker that begins
meanwhile takes the server's clock for right, and what waits since then has waited for too long once it is."""

HOLE_S = 4.0
"""How much longer than other deeds a black hole lasts: some requests to a provider come to no answer in their time."""


class Deed(NamedTuple):
    """`at_s` from the beginning; `whom` a number that picks a victim, `for_s` how long it lasts, if it does."""

    at_s: float
    name: str
    whom: int
    for_s: float
    provider: str


def schedule(seed: int, seconds: float, deeds: Mapping[str, int] = DEEDS) -> Iterator[Deed]:
    """What happens in so many seconds. Redis has a third of the time without anything that stops it."""
    chance = random.Random(seed)
    at_s = 1.0
    calm_from_s = 0.0
    while at_s < seconds:
        (name,) = chance.choices(list(deeds), list(deeds.values()))
        for_s = chance.uniform(0.5, 6.5)
        (provider,) = chance.choices(list(PROVIDER), PROVIDER_WEIGHTS)
        deed = Deed(at_s, name, chance.randrange(1_000), for_s, provider)
        at_s += chance.uniform(*EVERY_S)
        if "redis" in name:
            if deed.at_s < calm_from_s:
                continue
            calm_from_s = deed.at_s + 2 * for_s
        yield deed


class Mischief:
    """Does what the schedule says, in a thread of its own, to all of `deployment` but `spared`. `done` counts. What is done
    to a provider is done to one of those that have a gate."""

    def __init__(
        self, deployment: Deployment, spared: Sequence[Process], valkey: SoakRedis,
        proxy: Proxy, carriers: FakeCarriers, gates: Mapping[Carrier, Proxy], clock: SteppedClock | None = None, *, letters: bool,
    ) -> None:  # fmt: skip
        self._victims = [process for process in deployment.processes if process not in spared]
        self._valkey = valkey
        self._proxy = proxy
        self._carriers = carriers
        self._gates = gates
        self._clock = clock
        self._letters = letters
        self._faults = dict.fromkeys(CARRIERS, PROVIDER["calm"])
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._over = Event()
        self.done: Counter[str] = Counter()
        self.history: list[str] = []
        self.failure: BaseException | None = None

    def start(self, deeds: Iterator[Deed]) -> None:
        self._thread = Thread(target=self._run, args=(deeds,), name="mischief")
        self._thread.start()

    def end(self) -> None:
        """No more of it, and nothing that was done lasts any longer."""
        self._over.set()
        self._thread.join()
        for _, undo in self._later:
            undo()
        for carrier in self._gates:
            self._calm(carrier)
        if self.failure is not None:
            raise self.failure

    def _run(self, deeds: Iterator[Deed]) -> None:
        begun_s = monotonic()
        try:
            for deed in deeds:
                self._undo(monotonic())
                while (left_s := begun_s + deed.at_s - monotonic()) > 0:
                    if self._over.wait(min(left_s, 0.05)):
                        return
                    self._undo(monotonic())
                begun_s -= left_s  # what a deed that took its time put off, it puts off for all that follow
                self._do(deed)
        except BaseException as e:  # noqa: BLE001 (whoever ends this is told)
            self.failure = e

    def _undo(self, now_s: float) -> None:
        due = [undo for at_s, undo in self._later if at_s <= now_s]
        self._later = [each for each in self._later if each[0] > now_s]
        for undo in due:
            undo()

    def _for(self, deed: Deed, undo: Callable[[], None], more_s: float = 0.0) -> None:
        self._later.append((monotonic() + deed.for_s + more_s, undo))

    def _do(self, deed: Deed) -> None:
        victim = self._victims[deed.whom % len(self._victims)]
        carrier = sorted(self._gates)[deed.whom % len(self._gates)] if self._gates else CARRIERS[0]
        told = deed.name
        match deed.name:
            case "kill":
                victim.kill9()
                told = f"kill {victim.name}"
            case "stop":
                victim.sigstop()
                self._for(deed, victim.sigcont)
                told = f"stop {victim.name}"
            case "terminate":
                victim.sigcont()
                victim.terminate()
                told = f"terminate {victim.name}"
            case "provider":
                self._faults[carrier] = PROVIDER[deed.provider]
                self._carriers.control(self._faults[carrier], carrier)
                self._for(deed, partial(self._calm, carrier))
                told = f"{carrier} {deed.provider}"
            case "black hole":
                self._gates[carrier].swallow()
                self._for(deed, self._gates[carrier].spit_out, HOLE_S)
                told = f"{carrier} behind a black hole"
            case "reject":
                if not self._letters:
                    return
                faults = msgspec.structs.replace(
                    self._faults[carrier], reject=1 + deed.whom % 3, spares=SPARED
                )
                self._carriers.control(faults, carrier)
                told = f"{carrier} rejects"
            case "lose":
                functions = (
                    "accept", "claim", "commit", "lease_sms", "update_outbox", "take_due_alarms", "wake", "move_hook",
                )  # fmt: skip
                function = functions[deed.whom % len(functions)]
                self._proxy.lose_replies(f"_{function}\r\n".encode(), times=3)  # of whatever release
                told = f"lose {function}"
            case "slow redis":
                self._proxy.delay(0.03)
                self._for(deed, lambda: self._proxy.delay(0))
            case "cut redis":
                self._proxy.refuse()
                self._for(deed, self._proxy.admit)
            case "kill redis":
                self._valkey.kill9()
                self._valkey.start()
            case "stop redis":
                self._valkey.sigstop()
                self._for(deed, self._valkey.sigcont)
            case "forget redis":
                self._valkey.client().function_flush()
                self._valkey.client(self._valkey.broker_url).flushdb()
            case "fail over redis" if isinstance(self._valkey, ReplicatedValkey):
                self._valkey.fail_over(self._proxy)
            case "cut off redis" if isinstance(self._valkey, ReplicatedValkey):
                self._valkey.cut_off()
                self._for(deed, partial(self._valkey.fail_over, self._proxy))
            case "kill node of redis" if isinstance(self._valkey, ValkeyCluster):
                self._valkey.wait_complete()
                node = self._valkey.nodes[deed.whom % len(self._valkey.nodes)]
                node.kill9()
                self._for(deed, self._valkey.start)
            case "stop node of redis" if isinstance(self._valkey, ValkeyCluster):
                self._valkey.wait_complete()
                node = self._valkey.nodes[deed.whom % len(self._valkey.nodes)]
                node.sigstop()
                self._for(deed, node.sigcont)
            case "fail over node of redis" if isinstance(self._valkey, ValkeyCluster):
                self._valkey.wait_complete()
                primaries = self._valkey.primaries
                (replica, *_) = self._valkey.replicas_of(primaries[deed.whom % len(primaries)])
                self._valkey.fail_over(replica)
            case "move slot of redis" if isinstance(self._valkey, ValkeyCluster):
                self._valkey.wait_complete()
                slot = key_slot(keyspace.events_key(deed.whom % DEFAULT_SHARDS).encode())
                others = [
                    each for each in self._valkey.primaries if each is not self._valkey.primary_of(slot)
                ]
                self._valkey.move_slot(slot, others[deed.whom % len(others)])
            case "step clock of redis":
                if self._clock is None:
                    return
                step_s = STEPS_S[deed.whom % len(STEPS_S)]
                self._clock.step_to(step_s)
                self._for(deed, partial(self._clock.step_to, 0))
                told = f"step clock of redis {step_s:+} s"
            case unknown:
                raise ValueError(f"no such deed: {unknown}")
        self.done[told] += 1
        self.history.append(f"{deed.at_s:7.2f} {told} {deed.for_s:.1f}")

    def _calm(self, carrier: Carrier) -> None:
        self._faults[carrier] = PROVIDER["calm"]
        self._carriers.control(self._faults[carrier], carrier)
