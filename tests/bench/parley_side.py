"""Parley, run and looked into: lanes are filled through the doors that ingest and the delivery worker use."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import TypeVar

from config.settings.settings import DEFAULT_SHARDS
from config.store import function_calls, keyspace, redis_client
from engine.model.effects import Effects
from engine.model.events import (
    InboundSms,
    OutboundSms,
    SmsReceived,
    SmsSent,
    decode_outbound,
    encode_event,
)
from tests.support.clinic import CHANNEL
from tests.support.valkey import Valkey
from tests.support.waiting import until
from workers.store.lanes import LaneClaim, LaneDraft
from workers.store.outboxes import OUTBOX_LEASE_MS, OutboxLease, OutboxStore, OutboxUpdate

T = TypeVar("T")

SHARDS = DEFAULT_SHARDS
BATCH = 500
SENDING_THREADS = 4
FILL_S = 300.0

STATE_BYTES, RECORD_CHARS, SMS_CHARS = 160, 159, 98
"""What makes the bare loop write as much as a turn of the clinic survey: 160 bytes of state, 190 of records, 130 of SMS."""

_ids = count(1)


class Lanes:
    """The lanes in `valkey`, from the outside."""

    def __init__(self, valkey: Valkey, *, compacts_records: bool = False) -> None:
        self._lanes = valkey.client()
        self._broker = valkey.client(valkey.broker_url)
        for client in (self._lanes, self._broker):
            redis_client.load_functions(client)
        self._outboxes = OutboxStore(self._lanes, SHARDS, OUTBOX_LEASE_MS, compacts_records=compacts_records)

    def put(self, texts: Iterable[tuple[str, str]], *, start: bool = False) -> None:
        """Mail from each of these senders, accepted as ingest does; nobody is woken."""
        for batch in batches(texts, BATCH):
            events = [
                (sender, start, encode_event(InboundSms(f"{next(_ids):016x}", CHANNEL, text, start)))
                for sender, text in batch
            ]
            redis_client.run_commands(self._lanes, function_calls.accept_commands(SHARDS, events)[0])

    def ring(self, queue: str, senders: Sequence[str]) -> None:
        for batch in batches(senders, BATCH):
            redis_client.run_commands(self._broker, [function_calls.wake_command(queue, batch)])

    def wait_spoken(self, lanes: int) -> None:
        """Until so many lanes have an SMS to send. Nothing may be delivering meanwhile."""
        outbound = keyspace.wakeup_queue_key(keyspace.OUTBOUND_QUEUE)
        until(lambda: self._broker.zcard(outbound) == lanes, FILL_S, f"{lanes} lanes have something to send")

    def open_sessions(self, senders: Sequence[str]) -> None:
        """Have the rate-limit worker open a session for each, by START."""
        self.put(((sender, "START") for sender in senders), start=True)
        self.ring(keyspace.STARTS_QUEUE, senders)
        self.wait_spoken(len(senders))

    def take_unsent(self, senders: Sequence[str]) -> dict[str, list[str]]:
        """The SMS that wait, by sender; they wait no longer, and nobody is told that they were sent."""
        texts: dict[str, list[str]] = {}
        for batch in batches(senders, BATCH):
            names = [keyspace.outbox_key(keyspace.shard_of(sender, SHARDS), sender) for sender in batch]
            entries = redis_client.run_commands(self._lanes, [("LRANGE", name, 0, -1) for name in names])
            texts |= {
                sender: [_text(entry) for entry in found]
                for sender, found in zip(batch, entries, strict=True)
            }
            self._lanes.delete(*names)
        self._lanes.delete(*(keyspace.outbox_alarms_key(k) for k in range(SHARDS)))
        self._broker.delete(keyspace.wakeup_queue_key(keyspace.OUTBOUND_QUEUE))
        return texts

    def send_all(self, senders: Sequence[str]) -> dict[str, list[str]]:
        """The SMS that wait, by sender, each settled as sent, as the delivery worker does."""
        with ThreadPoolExecutor(SENDING_THREADS) as pool:
            sent = [pair for pairs in pool.map(self._send, list(batches(senders, BATCH))) for pair in pairs]
        self._broker.delete(keyspace.wakeup_queue_key(keyspace.OUTBOUND_QUEUE))
        return {sender: [text] for sender, text in sent}

    def _send(self, senders: Sequence[str]) -> list[tuple[str, str]]:
        takes = self._outboxes.lease_oldest(senders)
        self._outboxes.apply_updates([sent_update(take) for take in takes])
        return [(take.sender, decode_outbound(take.sms_bytes).text) for take in takes]


def bare_draft(claim: LaneClaim) -> LaneDraft:
    """What a turn comes to without an engine, and as much of it."""
    effects = Effects(
        alarm=claim.now + 600_000,
        keep_until=claim.now + 86_400_000,
        records=[SmsReceived(claim.now, CHANNEL, "", "", "r" * RECORD_CHARS)],
        outbox=[OutboundSms("", CHANNEL, claim.sender, "o" * SMS_CHARS)],
    )
    return LaneDraft(claim=claim, state=b"s" * STATE_BYTES, effects=effects)


def sent_update(take: OutboxLease) -> OutboxUpdate:
    sms = decode_outbound(take.sms_bytes)
    sent = SmsSent(take.now, sms.channel, sms.session, sms.id, "sms_5f3fbce61266e")
    return OutboxUpdate(take, "done", records=encode_event([sent]))


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _text(entry: bytes) -> str:
    return decode_outbound(entry[entry.index(b"\0") + 1 :]).text
