"""A webhook is answered 200 once its event is in the mailbox, and in every other case says why not."""

import hmac
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, time

import pytest
import requests

from config.settings.settings import DEFAULT_SHARDS
from config.settings.startup_check import load_settings_and_surveys
from config.store import keyspace
from engine.model.events import DeliveryReceipt, InboundSms, SmsPart, decode_inbound
from engine.turns.inbound_sms import may_opt_out
from tests.support.proxies import Proxies
from tests.support.waiting import until

SENDER = "+33612345678"
SHARDS = DEFAULT_SHARDS
WITHIN_S = 8
"""A provider is told within two seconds that Redis is away; the rest is the machine's, which may be busy. Whoever waits for
a client's retries waits for longer."""


def post(base, body, token="simulator", channel="clinic"):
    return requests.post(f"{base}/webhooks/{channel}", params={"token": token}, data=body, timeout=60)


def sms(text="98.6", number=SENDER, date="2020-11-04 11:11:45"):
    return {"number": number, "text": text, "reception_date": date, "message_id": "sms_1"}


def mail(valkey, sender=SENDER):
    """The events in a mailbox, with the byte that says which worker they are for."""
    entries = valkey.client().lrange(keyspace.mailbox_key(keyspace.shard_of(sender, SHARDS), sender), 0, -1)
    return [(entry[:1], decode_inbound(entry[1 + 13 :])) for entry in entries]


def rung(valkey, queue):
    return [
        sender.decode()
        for sender in valkey.client(valkey.broker_url).zrange(keyspace.wakeup_queue_key(queue), 0, -1)
    ]


def metric(base, name):
    lines = requests.get(f"{base}/metrics", timeout=60).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_an_sms_is_in_its_mailbox_when_200_comes_back(web, valkey):
    reply = post(web(), sms(" Yes\n"))
    assert (reply.status_code, reply.content, reply.headers["content-length"]) == (200, b"", "0")
    ((kind, event),) = mail(valkey)
    assert kind == keyspace.REPLY_PREFIX
    assert event == InboundSms(event.id, "clinic", " Yes\n", reply_to="sms_1")
    until(lambda: rung(valkey, "replies") == [SENDER], 5, "the conversation worker is rung for")


def test_a_start_goes_to_the_rate_limit_worker(web, valkey):
    assert post(web(), sms("start")).status_code == 200
    ((kind, event),) = mail(valkey)
    assert (kind, event.start) == (keyspace.START_PREFIX, True)
    until(lambda: rung(valkey, "starts") == [SENDER], 5, "the rate-limit worker is rung for")


@pytest.mark.parametrize(
    "text", ["STOP", "Stop please!", "end", "ne plus m'envoyer de sms", "désabonnez-moi"]
)
def test_what_may_be_a_stop_says_so_and_both_workers_are_rung_for(web, valkey, text):
    base = web()
    assert post(base, sms("start")).status_code == 200
    assert post(base, sms(text)).status_code == 200
    events = [event for _, event in mail(valkey)]
    assert [event.may_be_stop for event in events] == [False, True]
    assert all(may_opt_out(event) == event.may_be_stop for event in events)
    for queue in ("starts", "replies"):
        until(lambda queue=queue: rung(valkey, queue) == [SENDER], 5, "the worker is rung for")


def test_however_a_number_is_written_it_is_one_mailbox_in_the_order_accepted(web, valkey):
    base = web()
    for text, number in enumerate(["0033612345678", "33612345678", "+33 6 12 34 56 78"]):
        assert post(base, sms(text, number)).status_code == 200
    assert [event.text for _, event in mail(valkey)] == ["0", "1", "2"]


def test_a_receipt_is_an_event_of_whom_it_was_sent_to(web, valkey):
    body = {"number": SENDER, "message_id": "sms_9", "status": "DELIVERED", "delivery_date": "x"}
    assert post(web(), body).status_code == 200
    ((_, event),) = mail(valkey)
    assert event == DeliveryReceipt(event.id, "clinic", "sms_9", "DELIVERED", "delivered")


GATEWAY = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
provider = "webhook"
send_url = "http://127.0.0.1:9/send"
secret_env = "WORD"
originators = ["19601234567890", "+36111"]
"""
WORD = "open sesame, open sesame"


def gateway(web, tmp_path):
    """The base URL of a web process whose channel has originators, and a function that posts to it signed."""
    (tmp_path / "parley.toml").write_text(GATEWAY)
    base = web(PARLEY_CONFIG=str(tmp_path / "parley.toml"), WORD=WORD)

    def tell(*objects, word=WORD):
        body = json.dumps(objects).encode()
        timestamp = str(int(time())).encode()
        right = hmac.digest(word.encode(), timestamp + b".in.clinic." + body, "sha256").hex()
        headers = {"Parley-Timestamp": timestamp, "Parley-Signature": f"v2={right}"}
        return requests.post(f"{base}/webhooks/clinic", data=body, headers=headers, timeout=60)

    return base, tell


def told(id_, to="", text="98.6", **fields):
    return {"type": "sms", "id": id_, "from": SENDER, "to": to, "text": text, **fields}


def test_an_sms_says_which_originator_it_was_sent_to_as_the_settings_write_it(web, valkey, tmp_path):
    """And nothing if it was sent to the channel's own number, or to one that is not the channel's."""
    _, tell = gateway(web, tmp_path)
    part = {"type": "part", "id": "7", "from": SENDER, "to": "36111", "text": "x", "reference": "r"}
    reply = tell(
        told("1", "+19601234567890"),
        told("2", "19601234567890"),
        told("3", "36111"),
        told("4", "+33700000001"),
        told("5", "+19609999999999"),
        told("6"),
        part | {"number": 1, "total": 2},
        part | {"id": "8", "to": "33700000001", "number": 2, "total": 2},
    )
    assert (reply.status_code, reply.content) == (200, b"")
    events = [event for _, event in mail(valkey)]
    assert [event.originator for event in events] == ["19601234567890"] * 2 + [
        "+36111",
        "",
        "",
        "",
        "+36111",
        "",
    ]
    assert [type(event) for event in events] == [InboundSms] * 6 + [SmsPart] * 2


def test_originators_do_not_talk_to_themselves(web, valkey, tmp_path):
    _, tell = gateway(web, tmp_path)
    assert tell(*(told(str(n), **{"from": own}) for n, own in enumerate(["36111", "19601234567890"]))).ok
    assert not valkey.client().keys("*:mail:*")


def test_a_start_that_the_provider_took_for_help_starts_nothing_and_one_that_it_took_for_a_start_does(
    web, valkey, tmp_path
):
    _, tell = gateway(web, tmp_path)
    handled = ["", "help", "start"]
    assert (
        tell(*(told(str(n), text="START", handled=how) for n, how in enumerate(handled))).status_code == 200
    )
    assert [event.start for _, event in mail(valkey)] == [True, False, True]


def test_a_forged_webhook_is_403_whichever_door_it_comes_to(web, valkey, tmp_path):
    base, tell = gateway(web, tmp_path)
    assert tell(told("1"), word="open barley, open barley").status_code == 403
    body = iter([b'{"type": "stop",', b' "id": "1", "from": "+336"}'])
    assert requests.post(f"{base}/webhooks/clinic", data=body, timeout=60).status_code == 403
    assert not valkey.client().keys(keyspace.SHARD_KEY_PATTERN)


@pytest.mark.parametrize("number, reason", [("+33700000001", "own_number"), ("Orange", "not_a_number")])
def test_whoever_cannot_be_answered_is_dropped_and_counted(web, valkey, number, reason):
    base = web()
    counter = f'parley_dropped_total{{channel="clinic",reason="{reason}"}}'
    before = metric(base, counter)
    assert post(base, sms(number=number)).status_code == 200
    assert metric(base, counter) == before + 1
    assert not valkey.client().keys("*:mail:*")


def test_refusals(web, valkey):
    base = web()
    wrong = post(base, sms(), token="wrong")
    assert (wrong.status_code, wrong.json()["description"]) == (403, "wrong token")
    assert requests.post(f"{base}/webhooks/clinic", data=sms(), timeout=60).status_code == 403
    assert post(base, sms(), token="ß\u2028").status_code == 403
    assert post(base, sms(), channel="nobody").status_code == 404
    unreadable = post(base, b"{}")
    assert (unreadable.status_code, unreadable.json()["description"]) == (400, "the callback has no number")
    assert requests.put(f"{base}/webhooks/clinic", timeout=60).status_code == 405
    assert not valkey.client().keys(keyspace.SHARD_KEY_PATTERN)


@pytest.mark.parametrize("path", [b"/webhooks/clinic", b"/healthz", b"/nowhere"])
def test_a_query_of_bytes_that_are_no_text_does_not_get_as_far_as_falcon_which_fails_on_it(web, path):
    host, port = web().removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(b"GET %b?token=\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)
        assert raw.recv(64).split()[1] == b"400"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_is_refused_said_or_found(web, chunked):
    body = b"x" * 70_000
    assert post(web(), iter([body[:40_000], body[40_000:]]) if chunked else body).status_code == 413


@pytest.mark.parametrize("chunked", [False, True])
def test_a_part_of_a_body_is_no_webhook_though_it_can_be_read(web, valkey, chunked):
    """As much of a form as came before the connection broke is a form."""
    host, port = (base := web()).removeprefix("http://").split(":")
    body = b"number=%2B33612345678&reception_date=2020-11-04+11%3A11%3A45&message_id=sms_1&text=I+do+no"
    framed = b"%x\r\n%b\r\n" % (len(body), body) if chunked else body
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % (len(body) + 10)
    counter = 'parley_webhooks_total{channel="clinic",outcome="unreadable"}'
    before = metric(base, counter)
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(
            b"POST /webhooks/clinic?token=simulator HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n%b\r\n\r\n%b" % (length, framed)
        )
    until(lambda: metric(base, counter) == before + 1, 5, "it is counted")
    assert not valkey.client().keys("*:mail:*")


def test_a_webhook_may_be_a_get_and_is_verified_too(web):
    """Octopush makes none, so a genuine one says nothing that can be read."""
    base = web()
    assert requests.get(f"{base}/webhooks/clinic?token=simulator", timeout=60).status_code == 400
    assert requests.get(f"{base}/webhooks/clinic", timeout=60).status_code == 403
    assert requests.get(f"{base}/webhooks/nobody", timeout=60).status_code == 404


def test_many_at_once_all_arrive(web, valkey):
    base = web()
    with requests.Session() as session, ThreadPoolExecutor(16) as pool:

        def one(n):
            return session.post(
                f"{base}/webhooks/clinic?token=simulator", data=sms(n, f"+336{n:08}"), timeout=60
            ).status_code

        assert set(pool.map(one, range(300))) == {200}
    senders = [f"+336{n:08}" for n in range(300)]
    assert [[event.text for _, event in mail(valkey, sender)] for sender in senders] == [
        [str(n)] for n in range(300)
    ]


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_without_redis_it_is_503_soon_and_never_200(web, own_valkey, how):
    base = web(PARLEY_REDIS_URL=own_valkey.url)
    assert post(base, sms("before")).status_code == 200
    own_valkey.stop() if how == "stopped" else own_valkey.sigstop()
    began = monotonic()
    reply = post(base, sms("while away"))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert monotonic() - began < WITHIN_S
    assert requests.get(f"{base}/healthz", timeout=60).status_code == 200
    ready = requests.get(f"{base}/readyz", timeout=60)
    assert (ready.status_code, ready.json()["redis"]) == (503, False)
    own_valkey.start() if how == "stopped" else own_valkey.sigcont()
    until(lambda: post(base, sms("after")).status_code == 200, 10, "it accepts again")


@pytest.mark.parametrize("spool", ["", "spool"])
def test_whoever_has_too_much_mail_waiting_is_503_and_nobody_else(web, valkey, tmp_path, spool):
    """Nor is it spooled, as nothing would come after it."""
    base = web(PARLEY_SPOOL=str(tmp_path / spool) if spool else "")
    mailbox = keyspace.mailbox_key(keyspace.shard_of(SENDER, SHARDS), SENDER)
    valkey.client().rpush(mailbox, *[b"R" + b"1" * 13] * 10_000)
    with ThreadPoolExecutor(4) as pool:
        numbers = [SENDER, "+33612345679", SENDER, "+33612345680"]
        replies = list(pool.map(lambda number: post(base, sms(number=number)), numbers))
    assert [reply.status_code for reply in replies] == [503, 200, 503, 200]
    assert replies[0].headers["retry-after"] == "1"
    assert valkey.client().llen(mailbox) == 10_000
    valkey.client().ltrim(mailbox, 0, 5_000)
    assert post(base, sms()).status_code == 200
    assert valkey.client().llen(mailbox) == 5_002


def test_a_redis_that_lost_our_functions_gets_them_again(web, valkey):
    base = web()
    assert post(base, sms("1")).status_code == 200
    valkey.client().function_flush()
    assert post(base, sms("2")).status_code == 200
    assert [event.text for _, event in mail(valkey)] == ["1", "2"]


def test_a_failed_ring_is_no_failure_of_the_webhook(web, valkey):
    with Proxies(valkey, lanes=False) as proxy:
        base = web(PARLEY_BROKER_URL=proxy.broker_url)
        before = metric(base, "parley_rings_failed_total")
        proxy.refuse()
        assert post(base, sms()).status_code == 200
        assert len(mail(valkey)) == 1
        until(lambda: metric(base, "parley_rings_failed_total") == before + 1, 5, "the ring is counted")


def test_health_and_metrics(web):
    base = web()
    assert requests.get(f"{base}/readyz", timeout=60).json() == {
        "ready": True,
        "redis": True,
        "broker": True,
        "surveys": True,
    }
    assert metric(base, "parley_webhook_seconds_count") >= 0


def test_the_simulator_is_not_there_where_a_channel_is_real(web, tmp_path):
    toml = 'channels.real = {number = "+33700000009", surveys = ["clinic"], provider = "octopush", token_env = "REAL"}'
    (tmp_path / "parley.toml").write_text(toml)
    secrets = {"REAL": "s3cr3t", "PARLEY_OCTOPUSH_LOGIN": "l", "PARLEY_OCTOPUSH_KEY": "k"}
    environ = {"PARLEY_CONFIG": str(tmp_path / "parley.toml"), **secrets}
    assert load_settings_and_surveys(environ)
    base = web(**environ)
    assert requests.get(f"{base}/simulator/phones/+336", timeout=60).status_code == 404
    assert post(base, sms(), token="s3cr3t", channel="real").status_code == 200
