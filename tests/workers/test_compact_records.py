"""PARLEY_COMPACT_RECORDS: what turns and tries record takes less of Redis, and says the same."""

import pytest

from config.store import keyspace
from config.store.event_entries import COMPACT_MARK
from engine.model.events import SmsSent, encode_event, kind_of
from workers.store.outboxes import OutboxUpdate

ANNA = "+33600000001"


@pytest.mark.parametrize("compact_records", ["0", "1"])
def test_it_is_compact_if_that_was_asked_for_alone(deploy, compact_records):
    """Otherwise 0.1.0 could not read it."""
    town = deploy(compact_records=compact_records)
    for text in ("START", "Ada"):
        town.accept(ANNA, text)
        town.drain()
    outboxes = town.world.outbox_store()
    (lease,) = outboxes.lease_oldest([ANNA])
    sent = SmsSent(1_796_138_209_699, "clinic", "s", "sx0", "sms_1", 1, 50_000)
    outboxes.apply_updates([OutboxUpdate(lease, "done", records=encode_event([sent]))])

    k = keyspace.shard_of(ANNA, town.world.settings.shards)
    entries = [fields[b"e"] for _, fields in town.client.xrange(keyspace.events_key(k))]
    assert [each.startswith(COMPACT_MARK) for each in entries] == 3 * [compact_records == "1"]
    kinds = [kind_of(record) for record in town.records(ANNA)]
    assert kinds == ["opened", "heard", "said", "heard", "said", "sent"]
    assert town.records(ANNA)[-1] == sent
