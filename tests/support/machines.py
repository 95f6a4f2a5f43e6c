"""Machines, as network namespaces of Linux: each has an address of its own, by which the others and this process reach it, and
can be cut off from all of them or from some. Only root can make them, and only with `ip` (Debian's iproute2).

A bridge joins them, in a namespace of its own, where no firewall of this machine forwards. What is cut off loses what is sent,
both ways, and nobody is told: connections stay open, as when a cable is pulled.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from tests.support.closing import Closing
from tests.support.waiting import HANG_S, until

NETWORKS = "198.18.0.0/15"
"""Of which each set of machines takes eight addresses. RFC 2544: for tests, and nowhere else in use."""

MOST_MACHINES = 5
_MOST_NETWORKS = 1 << 14

_NOBODY = "02:00:00:00:00:01"
"""A hardware address that nothing has."""

NAMESPACES = Path("/run/netns")


class NoMachinesError(Exception):
    """None can be made here. Says why."""


class Machine:
    """One of them. What runs on it is started by `command`, or by a fork that enters `namespace`."""

    def __init__(self, namespace: str, switch: str, address: str, port: str) -> None:
        self.namespace, self.address = namespace, address
        self._switch, self._port = switch, port
        self._unheard: list[Machine] = []

    def command(self, *arguments: str) -> list[str]:
        """What runs `arguments` on it, in the process that is started."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def cut_off(self) -> None:
        """From everybody. What runs on it still reach each other."""
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def cut_off_from(self, others: Sequence["Machine"]) -> None:
        """From these, and these from it."""
        for other in others:
            self._mislead(other)
            other._mislead(self)

    def join(self) -> None:
        """Undo `cut_off`, or `cut_off_from`."""
        _ip("-n", self._switch, "link", "set", self._port, "up")
        for other in [*self._unheard]:
            self._find(other)
            other._find(self)

    def _mislead(self, other: "Machine") -> None:
        self._unheard.append(other)
        _ip(*self._neighbour("replace", other), "lladdr", _NOBODY, "nud", "permanent")

    def _find(self, other: "Machine") -> None:
        self._unheard.remove(other)
        _ip(*self._neighbour("del", other))

    def _neighbour(self, verb: str, other: "Machine") -> Sequence[str]:
        return "-n", self.namespace, "neighbour", verb, other.address, "dev", "eth0"


class Machines(Closing):
    """So many of them, and `address`, by which they reach this process. Raises NoMachinesError."""

    def __init__(self, number: int = 3) -> None:
        assert number <= MOST_MACHINES
        self._namespaces: list[str] = []
        try:
            self._switch, self.addresses = self._claim_network()
            self._port = f"{self._switch}-p"
            self.address = self.addresses[-1]
            self._connect()
            self.all = [self._add(place) for place in range(number)]
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> Sequence[str]:
        """Of all namespaces."""
        return tuple(self._namespaces)

    def close(self) -> None:
        """Remove them, and kill what still runs there."""
        for namespace in self._namespaces:
            until(lambda name=namespace: not _killed(name), HANG_S, "nothing runs there")  # type: ignore[misc]
        if self._namespaces:
            with suppress(NoMachinesError):  # it may not be there yet
                _ip("link", "delete", f"{self._namespaces[0]}-p")
        while self._namespaces:
            _ip("netns", "delete", self._namespaces.pop())

    def _claim_network(self) -> tuple[str, Sequence[str]]:
        """The bridge's namespace, whose name nobody else has, and the addresses that belong to it."""
        for number in count(os.getpid()):
            place = number % _MOST_NETWORKS
            name = f"parley{place}"
            if not (NAMESPACES / name).exists():
                with suppress(FileExistsError):
                    self._add_namespace(name)
                    return name, _addresses(place)
        raise AssertionError

    def _add_namespace(self, name: str) -> None:
        try:
            _ip("netns", "add", name)
        except NoMachinesError as e:
            if "File exists" in str(e):
                raise FileExistsError(name) from None
            raise
        self._namespaces.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def _connect(self) -> None:
        """Lay the bridge, and a cable from it to this process."""
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")
        self._lay_cable("port", self._port)
        _ip("address", "add", f"{self.address}/29", "dev", self._port)
        _ip("link", "set", self._port, "up")

    def _add(self, place: int) -> Machine:
        name, port, address = f"{self._switch}-{place}", f"port{place}", self.addresses[place]
        self._add_namespace(name)
        self._lay_cable(port, "eth0", "netns", name)
        _ip("-n", name, "address", "add", f"{address}/29", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        return Machine(name, self._switch, address, port)

    def _lay_cable(self, port: str, *end: str) -> None:
        """From the bridge's `port`; its other `end` is here unless it says in which namespace."""
        name, *where = end
        where = where or ["netns", str(os.getpid())]
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", name, *where)
        _ip("-n", self._switch, "link", "set", port, "master", "bridge", "up")


def _addresses(place: int) -> Sequence[str]:
    """Those of hosts in the network of this place, of /29."""
    first = (198 << 24 | 18 << 16) + place * 8
    return [".".join(map(str, (first + host).to_bytes(4, "big"))) for host in range(1, 7)]


def _killed(namespace: str) -> Sequence[int]:
    """Kill what runs there. Returns what that was."""
    pids = [int(pid) for pid in _ip("netns", "pids", namespace).split()]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def _ip(*arguments: str) -> str:
    """What `ip` answers. Raises NoMachinesError."""
    if os.geteuid() != 0:
        raise NoMachinesError("only root can make network namespaces")
    if shutil.which("ip") is None:
        raise NoMachinesError("there is no `ip`: apt-get install --no-install-recommends iproute2")
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=HANG_S, check=False)
    if done.returncode:
        raise NoMachinesError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
