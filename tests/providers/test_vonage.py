"""Vonage's SMS API, both ways. The other side of signatures is the package vonage-http-client."""

import hashlib
import json
from itertools import pairwise
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from vonage_http_client.auth import Auth

from config.settings.settings import Secret
from engine.model.events import OutboundSms
from engine.providers import (
    ForgedWebhookError,
    ProviderChannel,
    UnreadableWebhookError,
    UnusableChannelError,
    WebhookCall,
)
from engine.providers.vonage import Account, Options, _webhook_fields, make_provider
from tests.providers.fuzz import MOST, fuzz
from tests.providers.recorded.vonage import CHANNEL, OUTCOMES, RECEIPT, SMS, WEBHOOKS, as_json, form, get

URL = "https://sms.example.org/webhooks/clinic"
NOW = 1_577_880_000
PLACE = ProviderChannel(CHANNEL, "+447700900000", token="t0ken", webhook_url=URL)
ACCOUNT = Account(key="abcd1234", secret="a-secret")
ASK = OutboundSms("a1b2c3x1", CHANNEL, "+447700900001", "What is your name?")

vonage = make_provider(PLACE, ACCOUNT, Options())


def signing(method, fresh_s=300):
    account = replace(ACCOUNT, signature_secret="secret", signature_method=method)
    return make_provider(PLACE, account, Options(fresh_s=fresh_s))


def theirs(params, method):
    """What Vonage's package, or (for the hash that it leaves out) its guide, makes of `params`."""
    params = {"timestamp": str(NOW)} | params
    if method == "md5hash":
        said = "".join(f"&{k}={v.replace('&', '_').replace('=', '_')}" for k, v in sorted(params.items()))
        return params | {"sig": hashlib.md5(f"{said}secret".encode()).hexdigest()}
    auth = Auth(api_key="abcd1234", signature_secret="secret", signature_method=method)
    return params | {"sig": auth.sign_params(dict(params))}


def at(call, now=NOW):
    return replace(
        call, query=call.query.replace(b"token=t0ken&", b"").replace(b"token=t0ken", b""), now=float(now)
    )


def forged(codec, call):
    with pytest.raises(ForgedWebhookError) as caught:
        codec.verify_webhook(call)
    assert "secret" not in str(caught.value).split()
    return str(caught.value)


SIGNED_VALUE = str.maketrans("&=", "__")
METHODS = ["md5hash", "md5", "sha1", "sha256", "sha512"]
names = st.text(st.characters(codec="utf-8", exclude_characters="&="), min_size=1, max_size=10).filter(
    lambda k: k not in ("sig", "timestamp")
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", [get, form, as_json])
@given(params=st.dictionaries(names, st.text(st.characters(codec="utf-8"), max_size=20), max_size=6))
def test_what_was_signed_is_accepted_and_nothing_else(params, method, way):
    codec, genuine = signing(method), theirs(params, method)
    codec.verify_webhook(at(way(genuine)))
    codec.verify_webhook(at(way(genuine | {"sig": genuine["sig"].upper()})))
    assert "wrong" in forged(codec, at(way(genuine | {"new": "1"})))
    assert "wrong" in forged(codec, at(way(genuine | {"timestamp": str(NOW + 1)})))
    assert "missing" in forged(codec, at(way(params)))


def test_the_vector_in_which_values_hold_what_separates_them():
    params = {
        "msisdn": "447700900000", "to": "447700900001", "messageId": "0A0000000123ABCD1", "text": "a=b&c", "type": "text",
        "keyword": "A=B&C", "message-timestamp": "2020-01-01 12:00:00", "timestamp": "1577880000", "nonce": "n1",
        "sig": "d377bce920f29022f8c5ebc2b74455e07d8627e9457ee8fd1dbbc7c553472818",
    }  # fmt: skip
    for way in (get, form, as_json):
        signing("sha256").verify_webhook(at(way(params)))


def said(params):
    """What Vonage signs, spelled out."""
    return "".join(f"&{k}={v.translate(SIGNED_VALUE)}" for k, v in sorted(params.items()) if k != "sig")


def recuts(params):
    """Other parameters with the very text that was signed: two neighbours made one, by a name that holds the first one's
    value and the second's name. Some sort elsewhere by that name, and are left out."""
    names = sorted(set(params) - {"sig"})
    for first, second in pairwise(names):
        rest = {name: value for name, value in params.items() if name not in (first, second)}
        cut = rest | {f"{first}={params[first].translate(SIGNED_VALUE)}&{second}": params[second]}
        if said(cut) == said(params):
            yield cut


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", [get, form, as_json])
def test_what_was_signed_cannot_be_cut_anew(method, way):
    """Of a part of a long SMS, without its reference, say, or to nobody."""
    genuine = theirs(
        SMS | {"concat": "true", "concat-part": "1", "concat-ref": "r", "concat-total": "2"}, method
    )
    found = list(recuts(genuine))
    assert len(found) > 5
    for each in found:
        forged(signing(method), at(way(each)))


@pytest.mark.parametrize("away", [-301, 301])
def test_a_signed_webhook_is_fresh_or_refused(away):
    call = get(theirs(SMS, "sha256"))
    signing("sha256").verify_webhook(at(call, NOW + away * 300 // 301))
    assert "timestamp" in forged(signing("sha256"), at(call, NOW + away))
    signing("sha256", fresh_s=86_400).verify_webhook(at(call, NOW + away))


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"", b"&".join([b"a=1"] * 101)])
def test_what_cannot_be_read_is_not_signed(body):
    forged(signing("sha256"), WebhookCall("POST", b"", [], body, NOW))


def test_without_signatures_the_token_is_asked_for():
    for way in (get, form, as_json):
        vonage.verify_webhook(way(SMS))
        forged(vonage, at(way(SMS)))
        forged(vonage, replace(way(SMS), query=b"token=wrong"))
    forged(vonage, replace(form(SMS), query=b"", body=urlencode({"token": "t0ken"} | SMS).encode()))


def test_somebody_must_be_proven_to_speak():
    with pytest.raises(UnusableChannelError, match="token_env"):
        make_provider(ProviderChannel(CHANNEL, "+447700900000", webhook_url=URL), ACCOUNT, Options())


@pytest.mark.parametrize("call, events", [row[1:] for row in WEBHOOKS], ids=[row[0] for row in WEBHOOKS])
def test_webhooks(call, events):
    found = vonage.read_webhook(CHANNEL, call)
    assert [(sender, replace(event, id="")) for sender, event in found] == events
    assert all(len(event.id) == 16 and int(event.id, 16) >= 0 for _, event in found)
    assert len({event.id for _, event in found}) == len(found)


def test_an_sms_that_is_told_again_has_the_same_id_by_whatever_way():
    ids = {
        vonage.read_webhook(CHANNEL, way(SMS | {"message-timestamp": str(way)}))[0][1].id
        for way in (get, form, as_json)
    }
    assert len(ids) == 1
    assert ids != {vonage.read_webhook(CHANNEL, form(SMS | {"messageId": "0B"}))[0][1].id}


@pytest.mark.parametrize(
    "call",
    [
        form({}),
        get({}),
        as_json({}),
        form({"messageId": "1"}),
        as_json({"msisdn": "1"}),
        form(RECEIPT | {"msisdn": " "}),
    ],
)
def test_what_is_no_webhook_is_unreadable(call):
    with pytest.raises(UnreadableWebhookError):
        vonage.read_webhook(CHANNEL, call)


@pytest.mark.parametrize(
    "sms, changed",
    [
        (ASK, {}),
        (replace(ASK, text="été ç 🌡"), {"text": "été ç 🌡", "type": "unicode"}),
        (replace(ASK, text="{€}"), {"text": "{€}"}),
        (replace(ASK, originator="+447700900099"), {"from": "447700900099"}),
    ],
)
def test_a_send(sms, changed):
    request = vonage.write_send_request(sms, 0.0)
    assert (request.url, request.headers) == (
        "https://rest.nexmo.com/sms/json",
        {"Content-Type": "application/json"},
    )
    plain = {
        "api_key": "abcd1234", "api_secret": "a-secret", "from": "447700900000", "to": "447700900001", "text": ASK.text,
        "client-ref": "a1b2c3x1", "callback": f"{URL}?token=t0ken",
    }  # fmt: skip
    assert {"type": "text"} | json.loads(request.body) == {"type": "text"} | plain | changed


def test_secrets_that_hide_themselves_are_written_out():
    hidden = make_provider(
        PLACE, replace(ACCOUNT, key=Secret("abcd1234"), secret=Secret("a-secret")), Options()
    )
    assert hidden.write_send_request(ASK, 0.0).body == vonage.write_send_request(ASK, 0.0).body


def test_signed_receipts_need_no_token_and_without_a_public_url_the_accounts_own_is_called():
    assert json.loads(signing("md5").write_send_request(ASK, 0.0).body)["callback"] == URL
    there = make_provider(replace(PLACE, webhook_url=""), ACCOUNT, Options())
    assert "callback" not in json.loads(there.write_send_request(ASK, 0.0).body)


@pytest.mark.parametrize("status, body, outcome", OUTCOMES)
def test_outcomes(status, body, outcome):
    assert vonage.read_send_reply(status, body) == outcome


@given(st.integers(100, 599), st.binary(max_size=60))
def test_no_reply_raises(status, body):
    vonage.read_send_reply(status, body)


def test_what_vonage_may_have_is_never_sent_again_since_it_cannot_be_asked():
    assert vonage.recourse == "none"


def with_token(call):
    return replace(call, query=call.query if call.method == "GET" else b"token=t0ken")


def resigned(call):
    """A mutant, as Vonage would have signed it, were it Vonage's."""
    try:
        params = _webhook_fields(call)
    except UnreadableWebhookError:
        return at(call)
    return at(form(theirs({k: v for k, v in params.items() if k not in ("sig", "timestamp")}, "md5hash")))


RECORDED = [call for _, call, _ in WEBHOOKS]


def test_webhooks_at_random_are_events_or_refused():
    fuzz(vonage, CHANNEL, RECORDED, with_token)


def test_signed_webhooks_at_random_are_events_or_refused():
    fuzz(signing("md5hash"), CHANNEL, [resigned(call) for call in RECORDED], resigned, most=MOST // 5)
