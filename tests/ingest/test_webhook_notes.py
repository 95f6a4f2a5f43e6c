"""A wrong token is the mistake that is made when a provider is connected: `web` says so, and so do those who are asked."""

import asyncio
import json

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from config.settings.settings import load_settings
from config.store import keyspace, redis_client
from config.store.counts.answer_record import AnswerNotes
from config.store.counts.webhook_record import (
    FORGED_MINUTES,
    NoticedWebhooks,
    parse_webhooks,
    record_commands,
    webhook_commands,
)
from config.telemetry.redis_stats import StatsReader
from ingest.intake.mailboxes import AsyncRedisClient
from ingest.webhooks import webhook_notes
from ingest.webhooks.webhook_notes import WebhookNotes
from tests.ingest.test_web import post, sms
from tests.support.waiting import free_port, until
from workers.commands.channel import channel

MINUTE_MS = 60_000


@pytest.fixture
def reading(valkey):
    """A function: what is told of the channel now."""
    found = load_settings({"PARLEY_REDIS_URL": valkey.url, "PARLEY_BROKER_URL": valkey.broker_url})
    reader = StatsReader(found)
    yield lambda: reader.read().channels["clinic"].webhooks
    reader.close()


def test_what_comes_is_noticed(web, reading, monkeypatch):
    """Good ones and forged ones, in one writing each few seconds; and the log is told once in a minute."""
    monkeypatch.setattr(webhook_notes, "WRITE_INTERVAL_S", 0.01)
    base = web()
    with capture_logs() as logs:
        for _ in range(3):
            assert post(base, sms(), token="wrong").status_code == 403
        until(lambda: reading().forged_lately == 3, 10, "the forged ones are counted")
        assert reading().good_ms == 0
        assert post(base, sms()).status_code == 200
        until(lambda: reading().good_ms, 10, "the good one is noticed")
    assert reading().good_ms >= reading().forged_ms > 0
    (warning,) = [each for each in logs if each["log_level"] == "warning"]
    assert (warning["channel"], warning["why"], warning["webhooks"]) == ("clinic", "wrong token", 1)


def test_nothing_is_written_while_a_request_is_answered(web, valkey, monkeypatch):
    """Nor ever again, if nothing comes; what was noticed last is written as the process ends."""
    monkeypatch.setattr(webhook_notes, "WRITE_INTERVAL_S", 3_600)
    assert post(web(), sms(), token="wrong").status_code == 403
    assert not valkey.client().keys("{channel:*")


def test_a_redis_that_is_away_loses_only_this():
    async def run():
        lanes = AsyncRedisClient(redis_client.connect_async(f"redis://127.0.0.1:{free_port()}/0"))
        notes = WebhookNotes(lanes, AnswerNotes({}))
        notes.note_good("clinic", 1.0)
        await notes.write()
        await lanes.close()

    asyncio.run(run())


def test_what_several_processes_notice_is_added_up_and_forgotten_after_a_while(valkey):
    client = valkey.client()
    now = redis_client.server_time_ms(client)
    for ago_min in (0, FORGED_MINUTES - 1, FORGED_MINUTES, FORGED_MINUTES + 1):
        for _ in range(2):
            noticed = NoticedWebhooks()
            noticed.add_forged(now - ago_min * MINUTE_MS)
            redis_client.run_commands(client, list(record_commands("clinic", noticed)))
    found = parse_webhooks(iter(redis_client.run_commands(client, webhook_commands("clinic", now))))
    assert found.forged_lately == 4
    keys = [keyspace.webhooks_key("clinic"), keyspace.forged_webhooks_key("clinic", now // MINUTE_MS)]
    assert all(client.pttl(key) > FORGED_MINUTES * MINUTE_MS for key in keys)


def test_channel_list_says_when_the_last_one_came(valkey, monkeypatch):
    client = valkey.client()
    monkeypatch.setenv("PARLEY_REDIS_URL", valkey.url)
    monkeypatch.setenv("PARLEY_BROKER_URL", valkey.broker_url)

    def listed(*arguments):
        result = CliRunner().invoke(channel, ["list", *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    row = json.loads(listed("--json"))
    assert (row["last_webhook"], row["last_forged_webhook"]) == (None, None)
    assert "never" in listed()
    redis_client.run_commands(
        client, list(record_commands("clinic", NoticedWebhooks(good_ms=1_795_283_600_000)))
    )
    assert json.loads(listed("--json"))["last_webhook"] == 1_795_283_600_000
    assert "wrong token" not in listed()
    redis_client.run_commands(
        client, list(record_commands("clinic", NoticedWebhooks(forged_ms=1_795_283_660_000)))
    )
    assert "wrong token" in listed()
