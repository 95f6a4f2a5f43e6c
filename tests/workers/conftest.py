"""A pipeline in this process, on a real Valkey: webhooks' events go in, wake-ups are answered when a test says so."""

import logging
from itertools import count

import pytest
import structlog

from config.archive.database import ArchiveDatabase
from config.settings.shard_count import settle_shards
from config.settings.startup_check import load_settings_and_surveys
from config.store import function_calls, keyspace, redis_client
from engine.model.events import InboundSms, decode_outbound, encode_event
from engine.surveys.keywords import read_command
from workers.composition import build_turn_runner
from workers.store import event_stream
from workers.store.deployment import Deployment
from workers.store.survey_versions import publish_current
from workers.turns import drafts

SURVEY = b"""
survey: clinic
start: [START]
cooldown: 0s
texts: {refused: "Not today."}
steps:
  - {id: name, ask: "What is your name?", answer: {type: text}}
  - {id: age, ask: "How old are you, {name}?", answer: {type: number, min: 0, max: 150}, invalid: "Digits, please."}
  - {id: bye, say: "Goodbye, {name}.", next: end}
"""

CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
[channels.clinic.limits]
{limits}
"""

UNLIMITED = {"sessions_per_sender_per_day": 0, "start_burst": 0, "sms_per_second": 0, "pause_s": 0}


class Pipeline:
    """The lanes of one channel, `clinic`, and the workers that turn them."""

    def __init__(self, world):
        self.world = world
        self.client = world.lanes
        self.turns = build_turn_runner(world)
        self._ids = count(1)

    def accept(self, sender, *texts, event_id=None):
        """SMS into a mailbox, as ingest puts them there; whoever is to be woken is."""
        surveys = self.world.surveys
        for text in texts:
            command = read_command(text, ["clinic"], surveys)
            sms = InboundSms(
                event_id or f"{next(self._ids):016x}",
                "clinic",
                text,
                start=command == "start",
                may_be_stop=command == "stop",
            )
            self.deposit(sender, encode_event(sms), start=sms.start)

    def deposit(self, sender, event, *, start=False):
        commands, _ = function_calls.accept_commands(self.world.settings.shards, [(sender, start, event)])
        ((wake,),) = redis_client.run_commands(self.client, commands)
        for queue in keyspace.QUEUES_BY_NUMBER[wake]:
            redis_client.run_command(self.world.broker, function_calls.wake_command(queue, [sender]))

    def woken(self, queue):
        """Answer the bell of one queue once; the senders that were rung for."""
        popped = self.world.broker.zpopmin(keyspace.wakeup_queue_key(queue), 64)
        senders = [sender.decode() for sender, _ in popped]
        if senders:
            self.turns.handle_wakeup(queue, senders)
        return senders

    def drain(self):
        """Answer bells until none rings."""
        while self.woken("starts") or self.woken("replies"):
            pass

    def said(self, sender):
        """What was decided to be sent to them and has not left, oldest first."""
        k = keyspace.shard_of(sender, self.world.settings.shards)
        entries = self.client.lrange(keyspace.outbox_key(k, sender), 0, -1)
        return [decode_outbound(entry.split(b"\0", 1)[1]).text for entry in entries]

    def records(self, sender):
        """What the archive holds of them, oldest first."""
        k = keyspace.shard_of(sender, self.world.settings.shards)
        return [
            record
            for entry in event_stream.scan_entries(self.client, k)
            if entry.sender == sender
            for record in entry.records
        ]


@pytest.fixture
def sqlite_url(tmp_path):
    """Where the archive of a pipeline is, if a test makes one."""
    return f"sqlite:///{tmp_path / 'archive.db'}"


@pytest.fixture
def sqlite_archive(sqlite_url):
    """That archive, which is not there yet."""
    database = ArchiveDatabase(sqlite_url)
    yield database
    database.close()


@pytest.fixture
def client(valkey):
    """Of the lanes' server, which has the functions."""
    client = valkey.client()
    redis_client.load_functions(client)
    return client


@pytest.fixture
def pipeline(valkey, tmp_path, sqlite_url, monkeypatch):
    """A factory of a pipeline with these limits; what is not named is unlimited."""
    monkeypatch.setenv("PARLEY_ARCHIVE_URL", sqlite_url)  # for commands

    def build(survey=SURVEY, shards="", compact_records="0", **limits):
        (tmp_path / "surveys").mkdir(exist_ok=True)
        (tmp_path / "surveys" / "clinic.yaml").write_bytes(survey)
        lines = "\n".join(f"{name} = {value}" for name, value in (UNLIMITED | limits).items())
        (tmp_path / "parley.toml").write_text(CONFIG.format(limits=lines))
        environ = {
            "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
            "PARLEY_SURVEYS": str(tmp_path / "surveys"),
            "PARLEY_REDIS_URL": valkey.url,
            "PARLEY_BROKER_URL": valkey.broker_url,
            "PARLEY_ARCHIVE_URL": sqlite_url,
            "PARLEY_SHARDS": str(shards),
            "PARLEY_COMPACT_RECORDS": compact_records,
        }
        settings, surveys = load_settings_and_surveys(environ)
        client, broker = valkey.client(), valkey.client(valkey.broker_url)
        redis_client.load_functions(client)
        settings = settle_shards(client, settings)
        return Pipeline(Deployment(settings, client, broker, surveys))

    return build


@pytest.fixture
def logs_as_they_were():
    """A command sends logs to its stderr, which is gone with it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers, _ = handlers, root.setLevel(level)


@pytest.fixture
def deploy(pipeline, monkeypatch, tmp_path, valkey, logs_as_they_were):
    """A factory of pipelines whose deployment the commands reach."""

    def build(**how):
        town = pipeline(**how)
        publish_current(town.client, town.world.surveys)
        monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
        monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)
        monkeypatch.setenv("PARLEY_CONFIG", str(tmp_path / "parley.toml"))
        monkeypatch.setenv("PARLEY_SURVEYS", str(tmp_path / "surveys"))
        return town

    return build


@pytest.fixture
def failing(monkeypatch):
    """What `texts` are fails in the engine for as long as they are in this set."""
    texts = {"Ada"}
    advance = drafts.advance

    def broken(lane, sender, mail, *rest, **named):
        for each in mail:
            if getattr(each.event, "text", "") in texts:
                raise RuntimeError(f"cannot apply {len(each.event.text)} characters")
        return advance(lane, sender, mail, *rest, **named)

    monkeypatch.setattr(drafts, "advance", broken)
    return texts


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("workers.dead_letters.replay_order.BUSY_WAITS_S", (0.01, 0.01))
