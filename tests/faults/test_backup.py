"""config/redis/BACKUP.md, from its first command to its last: a deployment is backed up while people text, everything is lost,
and it comes back from the backup alone."""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from itertools import count, takewhile
from threading import Event, Thread

import pytest
import redis

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from tests.faults.play import Play
from tests.support import clinic
from tests.support.documents import ROOT
from tests.support.hook_endpoint import SECRET, hook_endpoint
from tests.support.person import inbound
from tests.support.processes import SURVEYS, Deployment
from tests.support.twilio import FakeTwilio
from tests.support.twilio_deployment import TwilioDeployment
from tests.support.valkey_cli import write_programs
from tests.support.waiting import HANG_S, PATIENCE, until

pytestmark = [
    pytest.mark.stories,
    pytest.mark.processes,
    pytest.mark.one_server("a server of its own, which is lost with all that it has"),
]

PAGE = ROOT / "config" / "redis" / "BACKUP.md"
SHARDS = DEFAULT_SHARDS

SERVER = """
bind {host}
port 6379
dir {data}
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
"""

HOOK = """
[hooks.crm]
url = "{url}/crm"
secret_env = "PARLEY_CRM_SECRET"
begin = "beginning"
"""

OVER, OUT, OPEN, SINCE, TALKING = range(3), 3, range(4, 8), 8, 100
"""People who are through at the backup; opted out; are in the middle; write to us after it; all who text meanwhile."""


class Machine:
    """An address of this machine, with folders for configuration and data, and one elsewhere for the backup."""

    def __init__(self, folder, kind, archive):
        number = os.getpid()
        self.host = f"127.{20 + number % 200}.{number // 200 % 250}.9"
        self.url = f"redis://{self.host}:6379/0"
        self.broker_url = f"redis://{self.host}:6379/1"
        self._kind = kind
        self._folder = folder / "machine"
        self.etc, self.data, self.backup = self._folder / "etc", self._folder / "data", folder / "backup"
        self.archive = archive or str(self.data / "archive.db")
        self.archive_url = archive or f"sqlite:///{self.archive}"
        self._path = write_programs(folder / "programs")

    def begin(self):
        self.etc.mkdir(parents=True)
        self.data.mkdir()
        (self.etc / "lanes.conf").write_text(SERVER.format(host=self.host, data=self.data))
        self._run("valkey-server $etc/lanes.conf --daemonize yes --pidfile $data/lanes.pid")
        until(self._answers, 20, "the server answers")

    def client(self):
        return redis.Redis(self.host, protocol=2)

    def back_up(self, *only):
        """What the page says, in its order; or parts of it, in this one."""
        parts = self._blocks("## Back up")
        for part in only or parts:
            self._run(parts[part])

    def come_back(self):
        """What the page says up to the first start."""
        parts = self._blocks("## Come back")
        for part in ("configuration", self._kind, "Redis", "the archive's position"):
            if part != self._kind or self._has_archive():
                self._run(parts[part])

    def _has_archive(self):
        return any(self.backup.glob("archive.*"))

    def lose(self):
        """The server, and everything on the disk."""
        self.kill()
        shutil.rmtree(self._folder)

    def kill(self):
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((self.data / "lanes.pid").read_text()), signal.SIGKILL)
        until(lambda: not self._answers(), 20, "the server is gone")

    def _blocks(self, heading):
        """What is to be typed with this kind of archive, by the comment that it begins with."""
        text = PAGE.read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
        typed = {}
        for name, commands in re.findall(r"^```sh\n# (.*?)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            if name == self._kind or name not in ("SQLite", "PostgreSQL"):
                typed[name] = typed.get(name, "") + commands
        return typed

    def _run(self, commands):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")},
            "PATH": self._path, "PYTHONPATH": str(ROOT), "lanes": self.url, "archive": self.archive,
            "etc": str(self.etc), "data": str(self.data), "backup": str(self.backup),
        }  # fmt: skip
        done = subprocess.run(
            ["/bin/sh", "-euc", commands], env=environment, capture_output=True, text=True, timeout=HANG_S * PATIENCE, check=False
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"

    def _answers(self):
        with self.client() as client:
            try:
                return client.ping()
            except redis.RedisError:
                return False


def settings_of(machine):
    """What stands in `.env`."""
    lines = (machine.etc / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def configure(machine, deployment, *more):
    """Put this deployment's configuration where that of the machine lies."""
    shutil.copytree(SURVEYS, machine.etc / "surveys")
    (machine.etc / "parley.toml").write_text((deployment.folder / "parley.toml").read_text() + "".join(more))
    own = ("PARLEY_HOST", "PARLEY_PORT", "PARLEY_VAR", "PARLEY_CONFIG", "PARLEY_SURVEYS")
    kept = {
        name: value
        for name, value in deployment.environment.items()
        if name.startswith("PARLEY_") and name not in own
    }
    kept |= {
        "PARLEY_CONFIG": str(machine.etc / "parley.toml"),
        "PARLEY_SURVEYS": str(machine.etc / "surveys"),
    }
    (machine.etc / ".env").write_text("".join(f"{name}={value}\n" for name, value in kept.items()))


@pytest.fixture
def endpoint():
    with hook_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
def sqlite_machine(tmp_path):
    machine = Machine(tmp_path, "SQLite", "")
    yield machine
    machine.kill()


@contextmanager
def talking(play):
    """Meanwhile people begin, one after the other; at the end all are through."""
    over = Event()
    coming = takewhile(lambda _: not over.is_set(), count(TALKING))
    how = {"deadline_s": 60, "every_s": 0.1, "think_s": 0.3}
    talk = Thread(target=lambda: play.crowd.talk(map(play.person, coming), **how), daemon=True)
    talk.start()
    try:
        yield
    finally:
        over.set()
        talk.join()


def say(deployment, octopush, people, text, heard):
    """They say it, and hear this."""
    play = Play(deployment, octopush)
    play.crowd.post([inbound(clinic.number(n), text) for n in people])
    for n in people:
        until(lambda n=n: heard_by(octopush, n)[-1:] == [heard], 60, f"{n} hears {heard}")


def heard_by(octopush, n):
    return [sms.text for sms in octopush.accepted(clinic.number(n))]


@pytest.fixture(params=["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.databases)])
def machine(request, tmp_path):
    server = request.getfixturevalue("postgresql_server") if request.param == "PostgreSQL" else None
    archive = server.url(server.create_database()) if server else ""
    machine = Machine(tmp_path, request.param, archive)
    machine.postgresql = server
    yield machine
    machine.kill()
    if server:
        server.drop_database(archive.rpartition("/")[2])


def lose_everything(machine):
    machine.lose()
    if machine.postgresql:
        name = machine.archive.rpartition("/")[2]
        machine.postgresql.drop_database(name)
        machine.postgresql.execute(f"CREATE DATABASE {name}")


@pytest.mark.parametrize("archive_is_ahead", [False, True])
def test_what_is_backed_up_while_people_text_goes_on_when_all_else_is_lost(
    machine, octopush, endpoint, archive_is_ahead
):
    machine.begin()
    more = {
        "PARLEY_ARCHIVE_URL": machine.archive_url,
        "PARLEY_OPTOUT_KEY": "a-long-random-text",
        "PARLEY_HOOKS_ALLOW_PRIVATE": "1",
        "PARLEY_CRM_SECRET": SECRET,
        "PARLEY_SHARDS": str(SHARDS),
    }
    with Deployment(machine.url, machine.broker_url, octopush, environment=more) as deployment:
        configure(machine, deployment, HOOK.format(url=endpoint.url))
    with Deployment(
        machine.url, machine.broker_url, octopush, environment=settings_of(machine)
    ) as deployment:
        deployment.start()
        play = Play(deployment, octopush)
        play.hold(OVER)
        play.crowd.post([inbound(clinic.number(OUT), "STOP")])
        say(deployment, octopush, OPEN, "START", clinic.NAME)
        say(deployment, octopush, OPEN, "Ada", clinic.temperature("Ada"))
        until(lambda: len(ended(endpoint)) == len(OVER), 60, "the endpoint knows who is through")
        until(lambda: opted_out(deployment, OUT), 30, "the opt-out is listed")
        with talking(play):
            until(lambda: len(play.people) > len(OVER) + 10, 60, "people text")
            if archive_is_ahead:
                machine.back_up("configuration", "Redis")
                begun = len(play.people)
                until(lambda: len(play.people) > begun + 10, 60, "people text on")
                machine.back_up(machine._kind)
            else:
                machine.back_up()
            begun = len(play.people)
            until(lambda: len(play.people) > begun + 10, 60, "people text on")
        say(deployment, octopush, [SINCE], "START", clinic.NAME)
        told_before = len(endpoint.requests)
        through = {event["subject"] for event in ended(endpoint)[: len(OVER)]}
        heard_before = {n: heard_by(octopush, n) for n in OPEN}
    lose_everything(machine)

    machine.come_back()
    with machine.client() as client:
        positions = [keyspace.archived_key(k) for k in range(SHARDS)]
        assert not client.exists(*positions), "nothing leaves Redis that this archive may lack"
    with Deployment(
        machine.url, machine.broker_url, octopush, environment=settings_of(machine)
    ) as deployment:
        play = Play(deployment, octopush)
        deployment.start(delivery=0)
        assert {n: heard_by(octopush, n) for n in OPEN} == heard_before
        deployment.spawn("delivery")
        say(deployment, octopush, OPEN, "101.5", clinic.FEVER)
        say(deployment, octopush, OPEN, "yes", clinic.DOCTOR)
        play.crowd.post([inbound(clinic.number(SINCE), "START")])
        until(lambda: heard_by(octopush, SINCE) == [clinic.NAME] * 2, 30, "that they were asked is lost")
        for n in OPEN:
            assert heard_by(octopush, n) == clinic.feverish("Ada").hears
        assert opted_out(deployment, OUT)
        names = {clinic.number(n): f"P{n}" for n in OVER} | {clinic.number(n): "Ada" for n in OPEN}
        until(lambda: names.items() <= completed(deployment).items(), 60, "all is archived")
        for n in (*OVER, *OPEN):
            said = deployment.command("transcript", clinic.number(n)).stdout
            hears = clinic.feverish(names[clinic.number(n)]).hears
            assert [said.count(text) for text in hears] == [1] * len(hears)
        until(lambda: len(ended(endpoint, told_before)) >= len(OPEN), 60, "endpoints go on")
        assert not through & {event["subject"] for event in ended(endpoint, told_before)}
        until(lambda: nothing_waits(machine), 60, "all is sent")
        for number in {sms.to for sms in octopush.accepted()} - {clinic.number(SINCE)}:
            heard = [sms.text for sms in octopush.accepted(number)]
            assert len(heard) == len(set(heard)), f"{number} was told twice: {heard}"


def nothing_waits(machine):
    with machine.client() as client:
        return not any(client.zcard(keyspace.outbox_alarms_key(k)) for k in range(SHARDS))


def ended(endpoint, since=0):
    events = {event["id"]: event for told in list(endpoint.requests)[since:] for event in told.events}
    return [event for event in events.values() if event["type"] == "session.ended"]


def opted_out(deployment, n):
    return deployment.command("optout", "list", clinic.number(n)).returncode == 0


def completed(deployment):
    """The name that each gave who is through, by number."""
    shown = deployment.command("export", "clinic", "--out", "-", "--numbers", "--format", "jsonl")
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    return {row["number"]: row["answers"]["name"]["value"] for row in rows if row["state"] == "completed"}


def test_what_left_since_the_backup_is_asked_for_and_not_sent_again(sqlite_machine):
    machine = sqlite_machine
    machine.begin()
    anna = clinic.number(1)
    with FakeTwilio() as twilio:
        with TwilioDeployment(machine, twilio) as deployment:
            configure(machine, deployment)
            deployment.start(delivery=0, archive=0, hooks=0)
            deployment.text(anna, "START")
            until(lambda: deployment.waiting(anna) == 1, 30, "it waits to be sent")
            machine.back_up("configuration", "Redis")
            deployment.spawn("delivery")
            until(lambda: twilio.sent(anna) and not deployment.waiting(anna), 30, "it is sent")
        machine.lose()
        machine.come_back()
        with TwilioDeployment(machine, twilio, environment=settings_of(machine)) as deployment:
            deployment.start(delivery=0, archive=0, hooks=0)
            deployment.spawn("delivery")
            until(lambda: not deployment.waiting(anna), 60, "it is settled")
            assert twilio.received[-1].method == "GET"
            assert twilio.sent(anna) == [clinic.NAME]
            deployment.text(anna, "Ada")
            until(lambda: twilio.sent(anna) == [clinic.NAME, clinic.temperature("Ada")], 30, "it goes on")


def test_a_server_that_appends_starts_empty_on_a_snapshot(sqlite_machine):
    """Why the page does not simply start it."""
    machine = sqlite_machine
    machine.begin()
    with machine.client() as client:
        client.set("x", 1)
    machine.back_up("configuration", "Redis")
    machine.lose()
    machine.begin()
    machine.kill()
    shutil.rmtree(machine.data / "appendonlydir")
    shutil.copy(machine.backup / "lanes.rdb", machine.data / "dump.rdb")
    machine._run("valkey-server $etc/lanes.conf --daemonize yes --pidfile $data/lanes.pid")
    until(machine._answers, 20, "the server answers")
    with machine.client() as client:
        assert not client.keys()
