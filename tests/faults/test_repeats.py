"""A webhook that comes again is known, whatever came between, and though the person was erased."""

import requests

from config.store.event_entries import entry_records
from engine.model.events import SmsReceived, decode_records
from tests.support import audit, clinic
from tests.support.person import inbound
from tests.support.waiting import until

ANNA = clinic.number(1)


def heard(client):
    """The ids of all SMS that were applied."""
    return [
        record.id
        for key in client.keys("*:events")
        for _, fields in client.xrange(key)
        for record in decode_records(entry_records(fields))
        if isinstance(record, SmsReceived)
    ]


def test_a_webhook_is_applied_once_after_many_others_and_after_an_erase(
    deployment, play, octopush, own_valkey
):
    client, broker = own_valkey.client(), own_valkey.client(own_valkey.broker_url)
    deployment.start()
    call = inbound(ANNA, "START")

    def post(*bodies):
        play.crowd.post(bodies)
        audit.settle(client, broker)

    post(call)
    (applied,) = heard(client)
    post(*(inbound(ANNA, f"my {count}th answer") for count in range(129)))
    before = len(octopush.accepted(ANNA))
    assert requests.post(deployment.webhook, data=call, timeout=60).status_code == 200
    post(inbound(ANNA, "the last"))
    assert heard(client).count(applied) == 1
    assert len(heard(client)) == 131
    deployment.command("erase", ANNA, "--yes").check_returncode()
    sent = len(octopush.accepted(ANNA))
    assert sent >= before
    post(call, call)
    assert heard(client) == []
    assert len(octopush.accepted(ANNA)) == sent
    post(inbound(ANNA, "START"))
    until(lambda: len(octopush.accepted(ANNA)) == sent + 1, 20, "a START of their own is answered")
