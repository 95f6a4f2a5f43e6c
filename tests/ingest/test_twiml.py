"""What a web process does with webhooks that replies may answer, beside what tests/faults/test_twiml.py plays out."""

import asyncio
import time
from datetime import UTC
from functools import partial
from time import perf_counter
from types import SimpleNamespace

import msgspec
import pytest

from config.settings.channels import ChannelLimits
from config.settings.settings import DEFAULT_SHARDS
from config.store import function_calls, keyspace, redis_client, stored_values
from config.store.counts.answer_record import (
    AnswerNotes,
    answer_commands,
    parse_answers,
    wait_quantile_ms,
    write_notes,
)
from config.store.server_functions import (
    AttachedReply,
    AttachReplies,
    LeasedOutbox,
    LeaseSms,
    ReleaseOutbox,
    ReserveOutbox,
)
from engine.model.events import (
    DeliveryReceipt,
    InboundSms,
    OutboundSms,
    ProviderStop,
    decode_outbound,
    encode_event,
)
from engine.providers import ProviderChannel
from engine.providers.twilio import Account, Options, make_provider
from ingest.intake.mailboxes import AsyncRedisClient, InboundItem, MailboxWriter, RedisUnavailableError
from ingest.intake.spool import SpooledEvent, open_spool
from ingest.webhooks import inline_replies
from ingest.webhooks.inline_replies import InlineReplies
from tests.support.waiting import PATIENCE, until

ANNA = "+33600000001"
K = keyspace.shard_of(ANNA, DEFAULT_SHARDS)
CHANNEL = SimpleNamespace(name="clinic", limits=ChannelLimits(sms_per_second=0, pause_s=0))
TWILIO = make_provider(
    ProviderChannel("clinic", "+33700000001", webhook_url="https://sms.example.org/w"),
    Account(sid="AC" + "5e" * 16, token="12345"),
    Options(answer="twiml"),
)
START = InboundSms("0" * 16, "clinic", "START", True)
NOTHING = TWILIO.webhook_response


def ask(number, text="What is your name?", channel="clinic"):
    return OutboundSms(f"a{number}", channel, ANNA, text)


class Lane:
    """A lane that advances when a test says so."""

    def __init__(self, client):
        self.client = client

    def advance(self, *replies):
        """Apply all mail, and put these into the outbox, as a commit does."""
        entries = [sms.channel.encode() + b"\0" + encode_event(sms) for sms in replies]
        pipeline = self.client.pipeline(transaction=True)
        pipeline.delete(keyspace.mailbox_key(K, ANNA))
        if entries:
            pipeline.rpush(keyspace.outbox_key(K, ANNA), *entries)
        pipeline.execute()

    def entries(self):
        written = self.client.lrange(keyspace.outbox_key(K, ANNA), 0, -1)
        return [decode_outbound(entry.partition(b"\0")[2]) for entry in written]

    def lock(self):
        return (self.client.get(keyspace.outbox_lock_key(K, ANNA)) or b"").decode()


@pytest.fixture
def lane(valkey):
    client = valkey.client()
    client.flushall()
    return Lane(client)


class PatientRedisClient(AsyncRedisClient):
    """On a machine that has other things to do."""

    async def _bounded(self, run, commands, within_s, replicas):
        return await super()._bounded(run, commands, within_s * PATIENCE, replicas)


def play(valkey, scene, most=inline_replies.MAX_WAITING_WEBHOOKS, spool=None, notes=None):
    """Run `scene(hear)` in an event loop; hear(event) is a webhook's answer, and where the event is if there is a spool."""

    async def run():
        lanes, broker = (
            PatientRedisClient(redis_client.connect_async(url)) for url in (valkey.url, valkey.broker_url)
        )
        mailboxes = MailboxWriter(DEFAULT_SHARDS, lanes, broker, spool)
        noted = notes or AnswerNotes({CHANNEL.name: UTC})
        in_place = InlineReplies(DEFAULT_SHARDS, lanes, mailboxes, noted, most)

        async def hear(*events):
            letters = [InboundItem(ANNA, event, perf_counter()) for event in events]
            answer, kept = await in_place.handle(CHANNEL, TWILIO, letters)
            return (answer, kept) if spool else answer

        try:
            await scene(hear)
        finally:
            await mailboxes.close()

    asyncio.run(run())


async def heard(lane):
    """Until the SMS is in the mailbox."""
    there = partial(lane.client.exists, keyspace.mailbox_key(K, ANNA))
    await asyncio.to_thread(until, there, 10, "the SMS is in the mailbox")


def answered(valkey, lane, *replies):
    """The answer to a START that gets these replies."""
    answers = []

    async def scene(hear):
        answer = asyncio.ensure_future(hear(START))
        await heard(lane)
        lane.advance(*replies)
        answers.append(await answer)

    play(valkey, scene)
    return answers[0]


def test_what_is_answered_stays_in_the_outbox_marked_and_rests(valkey, lane):
    assert answered(valkey, lane, ask(1), ask(2, "Well?")).body.count(b"<Message") == 2
    assert [sms.uncertain for sms in lane.entries()] == [True, True]
    assert (lane.lock()[:2], lane.lock()[-1]) == ("0 ", "?")
    assert lane.client.zscore(keyspace.outbox_alarms_key(K), ANNA) is not None


def test_an_answer_is_noted_with_how_long_it_was_waited_for(valkey, lane):
    """Of what follows it, only that it was sent."""
    notes = AnswerNotes({CHANNEL.name: UTC})
    first = msgspec.structs.replace(ask(1), heard=time.time_ns() // 1_000_000 - 5_000)

    async def scene(hear):
        answer = asyncio.ensure_future(hear(START))
        await heard(lane)
        lane.advance(first, ask(2, "Well?"))
        assert (await answer).body.count(b"<Message") == 2

    play(valkey, scene, notes=notes)
    write_notes(valkey.client(), notes)
    now = time.time_ns() // 1_000_000
    found = redis_client.run_commands(valkey.client(), answer_commands(CHANNEL.name, UTC, now))
    found = parse_answers(iter(found), now)
    assert (found.sms, found.answers) == (2, 1)
    assert 4_500 < wait_quantile_ms(found.waits, 0.5) < 60_000


def told(sms, state="sent", ticket="SM1"):
    return DeliveryReceipt(f"r{sms}{state}", "clinic", ticket, state, state, sms=sms)


def test_the_outbox_rests_until_every_sms_of_the_answer_was_told_of(valkey, lane):
    answered(valkey, lane, ask(1), ask(2))
    entrusted = lane.lock()

    async def scene(hear):
        await hear(told("a2"))
        assert ([sms.id for sms in lane.entries()], lane.lock()) == (["a1"], entrusted)
        await hear(told("a1"))

    play(valkey, scene)
    assert (lane.entries(), lane.lock()) == ([], "")
    assert lane.client.zscore(keyspace.outbox_alarms_key(K), ANNA) is None


def test_until_it_is_told_of_the_next_reply_waits_for_20_seconds(valkey, lane):
    """The next one is not in the webhook's answer, and no delivery worker takes it up before the look-up is due."""
    answered(valkey, lane, ask(1))
    until_ms = stored_values.parse_lock(lane.lock().encode()).until
    left_ms = until_ms - redis_client.server_time_ms(lane.client)
    assert 0 < left_ms <= inline_replies.ANSWER_LOOKUP_DELAY_MS == 20_000
    again = InboundSms("2" * 16, "clinic", "Ada")

    async def scene(hear):
        assert await hear(again) == NOTHING
        lane.advance(ask(2, "Well?"))

    play(valkey, scene)
    assert [sms.id for sms in lane.entries()] == ["a1", "a2"]
    assert stored_values.parse_lock(lane.lock().encode()).until == until_ms
    lease = LeaseSms(
        fence=keyspace.fence_key(K), outbox_alarms=keyspace.outbox_alarms_key(K), server=keyspace.server_key(K),
        owner="worker", lease_ms=15_000, longest_pause_ms=60_000, uncertain_rest_ms=0, asked_channels=["clinic"],
        outboxes=[
            LeasedOutbox(
                mailbox=keyspace.mailbox_key(K, ANNA), outbox=keyspace.outbox_key(K, ANNA),
                outbox_lock=keyspace.outbox_lock_key(K, ANNA), sender=ANNA,
            )
        ],
    )  # fmt: skip
    assert redis_client.run_command(lane.client, function_calls.function_call(lease)) == [0]
    assert float(lane.client.zscore(keyspace.outbox_alarms_key(K), ANNA)) == until_ms
    play(valkey, lambda hear: hear(told("a1")))
    assert [sms.id for sms in lane.entries()] == ["a2"]
    rests_until = stored_values.parse_lock(lane.lock().encode()).until
    assert rests_until <= redis_client.server_time_ms(lane.client), "it may leave at once"


@pytest.mark.parametrize(
    "receipt", [told("a2"), told("a1", "failed"), told("", "sent"), told("a1", ticket="")]
)
def test_a_receipt_that_does_not_say_that_it_is_there_settles_nothing(valkey, lane, receipt):
    answered(valkey, lane, ask(1))
    before = (lane.entries(), lane.lock())
    play(valkey, lambda hear: hear(receipt))
    assert (lane.entries(), lane.lock()) == before


def test_a_receipt_while_a_worker_asks_is_left_to_the_worker(valkey, lane):
    answered(valkey, lane, ask(1))
    lane.client.set(keyspace.outbox_lock_key(K, ANNA), "7 99999999999999 1 1 owner?")
    play(valkey, lambda hear: hear(told("a1")))
    assert [sms.id for sms in lane.entries()] == ["a1"]


@pytest.mark.parametrize(
    "replies, texts",
    [
        ([ask(1), ask(2, "x" * 1601), ask(3)], [True, False, False]),
        ([ask(1), ask(2, channel="other"), ask(3)], [True, False, False]),
        ([ask(1, "x" * 1601), ask(2)], [False, False]),
        ([ask(1, channel="other"), ask(2)], [False, False]),
    ],
)
def test_no_reply_overtakes_one_that_the_answer_cannot_hold(valkey, lane, replies, texts):
    assert answered(valkey, lane, *replies).body.count(b"<Message") == sum(texts)
    assert [sms.uncertain for sms in lane.entries()] == texts
    assert "reserved" not in lane.lock()


def test_an_outbox_with_something_in_it_is_left_to_delivery(valkey, lane):
    lane.advance(ask(1))

    async def scene(hear):
        assert await hear(START) == NOTHING

    play(valkey, scene)
    assert [sms.uncertain for sms in lane.entries()] == [False]
    assert lane.lock() == ""


@pytest.mark.parametrize(
    "events",
    [
        [DeliveryReceipt("1" * 16, "clinic", "SM1", "sent")],
        [ProviderStop("1" * 16, "clinic")],
        [InboundSms("1" * 16, "clinic", "STOP", handled="stop")],
        [START, DeliveryReceipt("1" * 16, "clinic", "SM1", "sent")],
    ],
)
def test_what_gets_no_reply_is_not_waited_for(valkey, lane, events):
    async def scene(hear):
        assert await hear(*events) == NOTHING

    play(valkey, scene)
    assert lane.lock() == ""
    assert lane.client.llen(keyspace.mailbox_key(K, ANNA)) == len(events)


def test_only_so_many_wait_at_once_and_the_others_are_answered_with_nothing(valkey, lane):
    async def scene(hear):
        waiting = asyncio.ensure_future(hear(START))
        await heard(lane)
        assert await hear(START) == NOTHING
        assert not waiting.done()
        lane.advance(ask(1))
        assert b"name" in (await waiting).body
        lane.client.delete(keyspace.outbox_key(K, ANNA), keyspace.outbox_lock_key(K, ANNA))
        again = asyncio.ensure_future(hear(START))
        await heard(lane)
        lane.advance(ask(2))
        assert b"name" in (await again).body

    play(valkey, scene, most=1)


def test_an_sms_that_was_withdrawn_meanwhile_is_not_answered(valkey, lane, monkeypatch):
    """Between looking and entrusting, a STOP empties the outbox."""

    def stop(place):
        if place == "before_entrust":
            lane.client.delete(keyspace.outbox_key(K, ANNA))

    monkeypatch.setattr(inline_replies.faults, "reach", stop)
    assert answered(valkey, lane, ask(1)) == NOTHING
    assert "reserved" not in lane.lock()


def test_an_sms_that_could_not_be_written_down_leaves_nothing_reserved(valkey, lane, monkeypatch):
    async def refuse(self, letters):
        raise RedisUnavailableError("no")

    monkeypatch.setattr(MailboxWriter, "accept", refuse)

    async def scene(hear):
        with pytest.raises(RedisUnavailableError):
            await hear(START)

    play(valkey, scene)
    assert lane.lock() == ""


def test_what_goes_through_the_spool_is_answered_with_nothing_and_asks_redis_nothing(
    valkey, lane, tmp_path, monkeypatch
):
    """It has a reply once it is handed over, and that goes through the API."""
    monkeypatch.setattr(AsyncRedisClient, "run_commands", None)
    spool = open_spool(tmp_path / "spool", 1 << 20)
    spool.append([SpooledEvent(ANNA, encode_event(START), True, 1, "clinic", "sms")], begin=True)

    async def scene(hear):
        assert await hear(START) == (NOTHING, "spooled")
        assert await hear(told("a1")) == (NOTHING, "spooled")

    play(valkey, scene, spool=spool)
    assert spool.read_status().events == 3
    assert lane.client.keys() == []


def test_every_call_may_be_repeated_after_its_reply_was_lost(lane):
    redis_client.load_functions(lane.client)
    box = {"outbox": keyspace.outbox_key(K, ANNA), "outbox_lock": keyspace.outbox_lock_key(K, ANNA)}
    theirs = box | {"outbox_alarms": keyspace.outbox_alarms_key(K), "sender": ANNA}
    entry, marked = b"clinic\0one", b"clinic\0two"

    def twice(call):
        first, second = (
            redis_client.run_command(lane.client, function_calls.function_call(call)) for _ in range(2)
        )
        assert first == second
        return first

    def attach(token, entry, marked):
        replies = [AttachedReply(entry=entry, marked=marked)]
        mailbox = keyspace.mailbox_key(K, ANNA)
        return AttachReplies(**theirs, mailbox=mailbox, token=token, rest_ms=20_000, replies=replies)

    assert twice(ReserveOutbox(**box, token="t", lease_ms=5_000)) == 1
    assert twice(ReserveOutbox(**box, token="u", lease_ms=5_000)) == 0
    lane.client.rpush(box["outbox"], entry)
    assert twice(attach("u", entry, marked)) == 0
    assert twice(attach("t", marked, entry)) == 0
    assert twice(attach("t", entry, marked)) == 1
    assert twice(ReleaseOutbox(**theirs, token="t")) == 0
    assert lane.client.lrange(box["outbox"], 0, -1) == [marked]
