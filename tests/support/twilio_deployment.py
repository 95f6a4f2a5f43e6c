"""A deployment of real processes whose one channel is with a fake Twilio that knows it by a public name."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import requests

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from config.store.event_entries import entry_records
from engine.model.events import ArchiveRecord, PersonOptedOut, decode_records
from tests.support import clinic
from tests.support.octopush import FakeOctopush
from tests.support.processes import SURVEYS, UNLIMITED, Deployment
from tests.support.twilio import FakeTwilio
from tests.support.valkey import Valkey

PUBLIC = "https://sms.example.org"
PATH = f"/webhooks/{clinic.CHANNEL}"
SHARDS = DEFAULT_SHARDS


class TwilioDeployment(Deployment):
    """`options` are the channel's, `limits` its limits; without those there are none."""

    def __init__(
        self,
        valkey: Valkey,
        twilio: FakeTwilio,
        *,
        options: str = "",
        limits: Mapping[str, float] | None = None,
        surveys: Path = SURVEYS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        nobody = SimpleNamespace(url="http://127.0.0.1:9", login="x", key="x")
        account = {
            "PARLEY_TWILIO_URL": twilio.url, "PARLEY_TWILIO_SID": twilio.sid, "PARLEY_TWILIO_TOKEN": twilio.token,
            "PARLEY_PUBLIC_URL": PUBLIC, **(environment or {}),
        }  # fmt: skip
        super().__init__(
            valkey.url, valkey.broker_url, cast(FakeOctopush, nobody), environment=account, surveys=surveys
        )
        self.twilio = twilio
        self.redis = valkey.client()
        lines = "\n".join(f"{name} = {value}" for name, value in (UNLIMITED | dict(limits or {})).items())
        (self.folder / "parley.toml").write_text(
            f'[channels.{clinic.CHANNEL}]\nprovider = "twilio"\nnumber = "{clinic.NUMBER}"\nsurveys = ["clinic"]\n'
            f"{options}\n[channels.{clinic.CHANNEL}.limits]\n{lines}\n"
        )

    def text(self, sender: str, body: str, sid: str = "") -> requests.Response:
        """A person's SMS, as Twilio tells it; what the answer says is done."""
        return self.twilio.text(self.base + PATH, sender, clinic.NUMBER, body, public=PUBLIC + PATH, sid=sid)

    def lost(self, sender: str, body: str, sid: str = "") -> str:
        """The same, but the answer gets lost on its way to Twilio. What it said."""
        fields = self.twilio.inbound(sender, clinic.NUMBER, body, sid)
        return self.twilio.post(self.base + PATH, fields, PUBLIC + PATH).text

    def waiting(self, sender: str) -> int:
        """How many SMS are in their outbox."""
        return int(self.redis.llen(keyspace.outbox_key(keyspace.shard_of(sender, SHARDS), sender)))

    def mail(self, sender: str) -> int:
        """How many events are in their mailbox."""
        return int(self.redis.llen(keyspace.mailbox_key(keyspace.shard_of(sender, SHARDS), sender)))

    def reserved(self, sender: str) -> bool:
        """Is their outbox kept for a webhook's answer?"""
        return b"reserved" in (self._lock(sender) or b"")

    def hurry(self, sender: str) -> None:
        """Let a sender who rests rest no more, and be looked at."""
        k = keyspace.shard_of(sender, SHARDS)
        lock = self._lock(sender)
        if lock is not None and lock.startswith(b"0 "):
            fence, _, rest = lock.split(b" ", 2)
            self.redis.set(keyspace.outbox_lock_key(k, sender), b" ".join((fence, b"1", rest)), keepttl=True)
        self.redis.zadd(keyspace.outbox_alarms_key(k), {sender: 1})

    def resting(self, sender: str) -> bool:
        """Does their outbox's lock say that the provider may have the oldest SMS, and nobody tries it?"""
        k = keyspace.shard_of(sender, SHARDS)
        lock: Any = self.redis.get(keyspace.outbox_lock_key(k, sender))
        return (
            lock is not None
            and lock.startswith(b"0 ")
            and lock.endswith(b"?")
            and not lock.startswith(b"0 1 ")
        )

    def opted_out(self, sender: str) -> bool:
        return any(isinstance(record, PersonOptedOut) for record in self.records(sender))

    def records(self, sender: str) -> list[ArchiveRecord]:
        """What the archive holds of them."""
        entries: Any = self.redis.xrange(keyspace.events_key(keyspace.shard_of(sender, SHARDS)))
        return [
            record
            for _, fields in entries
            if fields[b"to"] == sender.encode()
            for record in decode_records(entry_records(fields))
        ]

    def _lock(self, sender: str) -> bytes | None:
        lock: Any = self.redis.get(keyspace.outbox_lock_key(keyspace.shard_of(sender, SHARDS), sender))
        return None if lock is None else bytes(lock)
