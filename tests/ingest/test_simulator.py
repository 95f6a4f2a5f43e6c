"""The simulator answers as Octopush does, so that what is tried out is what runs."""

from threading import Thread

import pytest
import requests

from config.store import keyspace
from engine.model.events import OutboundSms
from engine.providers import ChannelFault, ProviderChannel, SendAccepted, SendRejected
from engine.providers.octopush import Account, Options, make_provider
from ingest.webhooks import simulated_phone

PHONE = "+33698765432"


def send(base, text="Hello", id_="abc1s1", *, login="l", key="k", purpose="alert", phone=PHONE):
    """What the production codec makes of the simulator's answer."""
    url = f"{base}/simulator/v1/public"
    account = Account(url=url, login=login, key=key)
    codec = make_provider(ProviderChannel("clinic", "+33700000001", "t"), account, Options(purpose=purpose))
    request = codec.write_send_request(OutboundSms(id_, "clinic", phone, text), now=0)
    reply = requests.post(request.url, headers=request.headers, data=request.body, timeout=60)
    return codec.read_send_reply(reply.status_code, reply.content)


def ask(base, after, wait=0):
    return requests.get(
        f"{base}/simulator/phones/{PHONE}", params={"after": after, "wait": wait}, timeout=60
    ).json()


def test_a_phone_receives_each_sms_once_in_order(web):
    base = web()
    first, again, second = send(base, "1"), send(base, "1"), send(base, "2", "abc1s2")
    assert isinstance(first, SendAccepted)
    assert first.ticket.startswith("sms_")
    assert again == SendAccepted("")
    answer = ask(base, "0-0")
    assert [message["text"] for message in answer["messages"]] == ["1", "2"]
    assert [message["ticket"] for message in answer["messages"]] == [first.ticket, second.ticket]
    assert answer["messages"][0]["from"] == "33700000001"
    assert ask(base, answer["last"]) == {"messages": [], "last": answer["last"]}
    assert ask(base, "latest") == {"messages": [], "last": answer["last"]}


def test_what_a_phone_keeps_is_bounded(web, valkey):
    base = web()
    for count in range(3):
        send(base, str(count), f"abc1s{count}")
    names = [keyspace.simulator_key(PHONE, what) for what in ("sms", "requests")]
    assert all(0 < valkey.client().ttl(name) <= simulated_phone.KEPT_S for name in names)
    for count in range(simulated_phone.KEPT_SMS + 10):
        send(base, str(count), f"abc2s{count}")
    kept = [message["text"] for message in ask(base, "0-0")["messages"]]
    assert kept == [str(count) for count in range(10, simulated_phone.KEPT_SMS + 10)]
    assert valkey.client().zcard(names[1]) == simulated_phone.KEPT_SMS


def test_phones_are_so_many_and_the_one_that_was_silent_for_longest_goes(web, valkey, monkeypatch):
    monkeypatch.setattr(simulated_phone, "KEPT_PHONES", 3)
    base = web()
    for place in (0, 1, 2, 0, 3, 4):
        send(base, phone=f"+3369876543{place}", id_=f"abc{place}")
    pattern = keyspace.simulator_key("*", "sms")
    assert {name.decode() for name in valkey.client().scan_iter(pattern)} == {
        keyspace.simulator_key(f"+3369876543{place}", "sms") for place in (0, 3, 4)
    }
    assert len(valkey.client().keys("*")) == 6


@pytest.mark.parametrize("field", ["sender", "request_id", "phone_number"])
def test_what_is_kept_beside_the_text_is_short(web, valkey, field):
    body = {"recipients": [{"phone_number": PHONE}], "text": "Hello", "purpose": "alert"}
    target = body["recipients"][0] if field == "phone_number" else body
    target[field] = "1" * 65
    url = f"{web()}/simulator/v1/public/sms-campaign/send"
    headers = {"api-login": "l", "api-key": "k"}
    assert requests.post(url, json=body, headers=headers, timeout=60).status_code == 400
    assert not valkey.client().keys("*")


def test_waiting_ends_with_the_first_sms(web):
    base = web()
    answers = []
    waiting = Thread(target=lambda: answers.append(ask(base, "0-0", wait=20)))
    waiting.start()
    send(base)
    waiting.join(15)
    assert [message["text"] for message in answers[0]["messages"]] == ["Hello"]


@pytest.mark.parametrize(
    "how, outcome",
    [
        ({"login": ""}, ChannelFault),
        ({"text": ""}, SendRejected),
        ({"text": "x" * 1225}, SendRejected),
        ({"purpose": "wholesale"}, SendRejected),
    ],
)
def test_refusals_carry_octopushs_codes(web, how, outcome):
    assert isinstance(send(web(), **how), outcome)


def test_what_is_no_campaign_is_400(web):
    url = f"{web()}/simulator/v1/public/sms-campaign/send"
    assert requests.post(url, data=b"{", timeout=60).status_code == 400


def test_a_bad_wait_is_400_and_a_bad_id_too(web):
    url = f"{web()}/simulator/phones/{PHONE}"
    assert requests.get(url, params={"wait": "soon"}, timeout=60).status_code == 400
    assert requests.get(url, params={"after": "x", "wait": 0}, timeout=60).status_code == 400
