"""config/redis/GROWTH.md, from its first command to its last, while people text: each machine is an address of this one."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from threading import Event, Thread

import pytest
import redis

from config.store import redis_client
from tests.faults.play import Play
from tests.support import audit
from tests.support.documents import ROOT
from tests.support.processes import Deployment
from tests.support.valkey_cli import write_programs
from tests.support.waiting import HANG_S, PATIENCE, until

PAGE = ROOT / "config" / "redis" / "GROWTH.md"
NAMES = "abcde"

TODAY = """
bind {here}
port 6379
dir {data}
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
"""


class LoopbackMachines:
    """Loopback addresses, with a folder each, and programs of Valkey on their PATH."""

    def __init__(self, folder):
        self._folder = folder
        number = os.getpid()
        self.addresses = {
            name: f"127.{20 + number % 200}.{number // 200 % 250}.{place}"
            for place, name in enumerate(NAMES, 1)
        }
        self._path = write_programs(folder / "programs")
        for name in NAMES:
            self.data(name).mkdir(parents=True)
            (folder / name / "etc").mkdir()

    def data(self, name):
        return self._folder / name / "data"

    def variables(self, name):
        return {
            **self.addresses,
            "here": self.addresses[name],
            "etc": str(self._folder / name / "etc"),
            "data": str(self.data(name)),
        }

    def run(self, name, commands):
        environment = {**os.environ, "PATH": self._path, "PYTHONPATH": str(ROOT), **self.variables(name)}
        done = subprocess.run(
            ["/bin/sh", "-euc", commands], env=environment, capture_output=True, text=True, timeout=HANG_S * PATIENCE, check=False
        )  # fmt: skip
        assert done.returncode == 0, f"on {name}:\n{commands}\n{done.stdout}{done.stderr}"

    def close(self):
        for file in self._folder.rglob("*.pid"):
            with suppress(ValueError, ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.fixture
def machines(tmp_path):
    machines = LoopbackMachines(tmp_path)
    yield machines
    machines.close()


def blocks():
    """(language, text) of each block of the page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


def restart(deployment, settings):
    """Each process with these settings, one after the other: the new one is there before the old one ends."""
    for old in [*deployment.processes]:
        new = deployment.spawn(old.name, **settings)
        until(lambda log=new.log: b"running" in log.read_bytes(), 30, f"{new.name} runs\n{new.log}")
        old.terminate()
        deployment.processes.remove(old)


@pytest.mark.clusters
def test_a_deployment_grows_to_sentinel_and_to_a_cluster_while_people_text(machines, octopush):
    a = machines.addresses["a"]
    here = machines.variables("a")
    (Path(here["etc"]) / "today.conf").write_text(TODAY.format_map(here))
    machines.run("a", "valkey-server $etc/today.conf --daemonize yes --pidfile $data/today.pid")
    until(lambda: _answers(a), 20, "today's server answers")
    settings = {}
    over = Event()
    with Deployment(
        f"redis://{a}:6379/0", "", octopush, environment={"PARLEY_SPOOL": str(machines.data("a") / "spool")}
    ) as deployment:
        deployment.start()
        play = Play(deployment, octopush)
        coming = takewhile(lambda _: not over.is_set(), count())
        how = {"deadline_s": 120, "every_s": 0.2, "think_s": 0.5}
        talk = Thread(target=lambda: play.crowd.talk(map(play.person, coming), **how), daemon=True)
        talk.start()
        try:
            for language, text in blocks():
                if language == "ini":
                    settings |= _settings(text, machines.addresses)
                    restart(deployment, settings)
                    sent = octopush.count()
                    until(lambda sent=sent: octopush.count() >= sent + 20, 60, "people are answered")
                else:
                    where, _, commands = text.partition("\n")
                    for name in where.removeprefix("# on ").split(", "):
                        machines.run(name, commands)
        finally:
            over.set()
            talk.join()
        play.judge()
        assert not play.crowd.refused, "what is not taken by Redis is spooled"
        assert all(process.alive for process in deployment.processes)
        with (
            redis_client.connect(settings["PARLEY_REDIS_URL"]) as lanes,
            redis_client.connect(settings["PARLEY_BROKER_URL"]) as bells,
        ):
            audit.settle(lanes, bells)
            assert len(redis_client.servers_of(lanes)) == 2
    lags_s = sorted(lag for person in play.people for lag in person.lags_s)
    print(
        f"{len(play.people)} people, lag {lags_s[-1]:.1f} s at most; {play.crowd.again} webhooks met the end of a `web`"
    )


def _settings(text, addresses):
    expanded = re.sub(r"\$(\w)", lambda found: addresses[found[1]], text)
    return dict(line.split("=", 1) for line in expanded.splitlines())


def _answers(host):
    with redis.Redis(host, protocol=2) as client:
        try:
            return client.ping()
        except redis.RedisError:
            return False
