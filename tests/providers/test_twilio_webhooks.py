"""Twilio's webhooks: who signed them, and what they say. The other side is the `twilio` package's own validator."""

import hmac
import json
from base64 import b64encode
from hashlib import sha256
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace
from twilio.request_validator import RequestValidator

from engine.model.events import InboundSms
from engine.providers import (
    ForgedWebhookError,
    ProviderChannel,
    UnreadableWebhookError,
    UnusableChannelError,
    WebhookCall,
)
from engine.providers.twilio import MOST_WEBHOOK_PARAMETERS, Account, Options, _form_pairs, make_provider
from tests.providers.fuzz import fuzz
from tests.providers.recorded.twilio import CHANNEL, SMS, STATUS, WEBHOOKS, form, get

URL = "https://sms.example.org/webhooks/clinic"
ACCOUNT = Account(sid="AC" + "5e" * 16, token="12345", shared_keys="webhooks_sharedkey_1=s3=cret, k2=t")


def codec(url=URL, **options):
    return make_provider(
        ProviderChannel(CHANNEL, "+33700000001", webhook_url=url), ACCOUNT, Options(**options)
    )


class Many(dict):
    """Parameters with several values each, as web frameworks hand them to the validator."""

    def getall(self, name):
        return self[name]


def signed(call, url=URL, params=None, secret="12345", settings=""):
    """`call` with the validator's signature of `url` and `params`."""
    if call.query and "?" not in url:
        url += "?" + call.query.decode()
    algorithm = "HMAC_SHA256" if "SHA256" in settings else None
    signature = RequestValidator(secret).compute_signature(url, params or {}, algorithm)
    headers = [*call.headers, (b"x-twilio-signature", signature.encode())]
    if settings:
        headers.append((b"x-twilio-webhooks-signature-settings", settings.encode()))
    return replace(call, headers=headers)


def forged(call, twilio=None):
    with pytest.raises(ForgedWebhookError) as caught:
        (twilio or codec()).verify_webhook(call)
    return str(caught.value)


VECTOR = {
    "CallSid": "CA1234567890ABCDE", "Digits": "1234", "From": "+14158675309", "To": "+18005551212",
    "Caller": "+14158675309",
}  # fmt: skip
SHA256 = "key=,algorithm=HMAC_SHA256"


def vector(signature, fields=VECTOR, query=b"foo=1&bar=2", settings="", body=None):
    headers = [(b"x-twilio-signature", signature)]
    if settings:
        headers.append((b"x-twilio-webhooks-signature-settings", settings.encode()))
    return WebhookCall("POST", query, headers, urlencode(fields).encode() if body is None else body, 0.0)


@pytest.mark.parametrize(
    "url, call",
    [
        ("https://mycompany.com/myapp.php", vector(b"RSOYDt4T1cUTdK1PDd93/VVr8B8=")),
        ("https://mycompany.com:443/myapp.php", vector(b"RSOYDt4T1cUTdK1PDd93/VVr8B8=")),
        ("https://mycompany.com/myapp.php", vector(b"kvajT1Ptam85bY51eRf/AJRuM3w=")),
        ("https://mycompany.com:443/myapp.php", vector(b"kvajT1Ptam85bY51eRf/AJRuM3w=")),
        ("http://mycompany.com/myapp.php", vector(b"0ZXoZLH/DfblKGATFgpif+LLRf4=")),
        ("http://mycompany.com:1234/myapp.php", vector(b"Zmvh+3yNM1Phv2jhDCwEM3q5ebU=")),
        ("https://mycompany.com/myapp.php", vector(b"033hgUJA9M/hXIZsYjwkerEP/DBm35nEri5FhCYjA5s=", settings=SHA256)),
        (
            "https://mycompany.com/myapp.php",
            vector(
                b"IK+Dwps556ElfBT0I3Rgjkr1wJU=",
                [("Sid", "CA123"), ("SidAccount", "AC123"), ("Digits", "5678"), ("Digits", "1234"), ("Digits", "1234")],
            ),
        ),
        (
            "https://mycompany.com/myapp.php",
            vector(
                b"a9nBmqA0ju/hNViExpshrM61xv4=",
                query=b"foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620",
                body=b'{"property": "value", "boolean": true}',
            ),
        ),
    ],
)  # fmt: skip
def test_the_vectors_of_twilios_own_tests(url, call):
    twilio = codec(url)
    twilio.verify_webhook(call)
    forged(replace(call, query=call.query + b"&a=b"), twilio)
    forged(replace(call, body=call.body + b"&a=b"), twilio)


texts = st.text(st.characters(codec="utf-8"), max_size=20)
several = st.dictionaries(texts, st.lists(texts, min_size=1, max_size=3), max_size=6)
ways = st.sampled_from(
    [
        "",
        "algorithm=HMAC_SHA1",
        "key=k2,algorithm=HMAC_SHA256",
        "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256",
    ]
)
secrets = {"k2": "t", "webhooks_sharedkey_1": "s3=cret"}


def secret_of(settings):
    return next((secret for key, secret in secrets.items() if key in settings), "12345")


@given(several, ways)
@example({"Body": ["", " "], "Bo": ["dy"], "é": ["\0", "&=+%"]}, "")
def test_a_form_is_accepted_as_it_was_signed_and_not_otherwise(params, settings):
    """Any parameters, known or not, blank or not, several values of one: Twilio's validator signs, ours agrees."""
    call = form([(key, value) for key, values in params.items() for value in values])
    genuine = signed(call, params=Many(params), secret=secret_of(settings), settings=settings)
    codec().verify_webhook(genuine)
    forged(replace(genuine, body=genuine.body + (b"&" if genuine.body else b"") + b"New=1"))
    forged(replace(genuine, query=b"sms=1"))
    forged(signed(call, params=Many(params), secret="another", settings=settings))


@given(several, ways)
def test_a_get_is_accepted_as_it_was_signed_and_not_otherwise(params, settings):
    call = get([(key, value) for key, values in params.items() for value in values])
    genuine = signed(call, secret=secret_of(settings), settings=settings)
    codec().verify_webhook(genuine)
    forged(replace(genuine, query=genuine.query + b"&New=1"))


@given(st.binary(max_size=200), st.binary(max_size=10), ways)
def test_json_is_accepted_with_the_hash_that_its_signed_url_has_and_not_otherwise(body, other, settings):
    query = b"a=1&bodySHA256=" + sha256(body).hexdigest().encode()
    call = WebhookCall("POST", query, [(b"content-type", b"application/json")], body, 0.0)
    genuine = signed(call, secret=secret_of(settings), settings=settings)
    codec().verify_webhook(genuine)
    if other:
        forged(replace(genuine, body=body + other))


@pytest.mark.parametrize(
    "url", ["https://[2001:db8::1]:8443/w", "https://u:pw@h.example/w", "https://u:pw@h.example:8443/w"]
)
def test_ports_of_addresses_and_of_urls_with_a_login_are_told_from_what_they_look_like(url):
    codec(url).verify_webhook(signed(form(SMS), url, SMS))


@pytest.mark.parametrize(
    "headers, why",
    [
        ([], "missing"),
        ([(b"x-twilio-signature", b"")], "missing"),
        ([(b"x-twilio-signature", b"RSOYDt4T1cUTdK1PDd93/VVr8B8=")], "wrong"),
        ([(b"x-twilio-signature", b"\xff\xfe")], "wrong"),
        ([(b"x-twilio-signature", b"x"), (b"x-twilio-webhooks-signature-settings", b"key=other,algorithm=HMAC_SHA256")], "SHARED_KEYS"),
        ([(b"x-twilio-signature", b"x"), (b"x-twilio-webhooks-signature-settings", b"algorithm=none")], "algorithm"),
        ([(b"x-twilio-signature", b"x"), (b"x-twilio-webhooks-signature-settings", b"\xff,,=,=")], "wrong"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_signature_is_said_without_the_secret(headers, why):
    said = forged(replace(form(SMS), headers=headers))
    assert why in said
    assert "12345" not in said


def test_a_body_of_too_many_parameters_is_not_even_sorted():
    params = {f"p{i}": "" for i in range(MOST_WEBHOOK_PARAMETERS + 1)}
    assert "parameters" in forged(signed(form(params), params=params))


def without_id(event):
    return replace(event, id="")


@pytest.mark.parametrize("call, events", [row[1:] for row in WEBHOOKS], ids=[row[0] for row in WEBHOOKS])
def test_webhooks(call, events):
    found = codec().read_webhook(CHANNEL, call)
    assert [(sender, without_id(event)) for sender, event in found] == events
    assert all(len(event.id) == 16 and int(event.id, 16) >= 0 for _, event in found)
    assert len({event.id for _, event in found}) == len(found)
    assert codec().read_webhook(CHANNEL, call) == found


def test_json_says_what_a_form_says():
    body = json.dumps(SMS | {"NumMedia": 0, "Flag": True, "Nothing": None, "More": [1]}).encode()
    call = WebhookCall("POST", b"bodySHA256=" + sha256(body).hexdigest().encode(), [], body, 0.0)
    assert codec().read_webhook(CHANNEL, call) == codec().read_webhook(CHANNEL, form(SMS))


def test_json_with_half_an_emoji_is_heard_without_it():
    body = json.dumps(SMS | {"Body": "yes \ud83d"}).encode()
    call = WebhookCall("POST", b"bodySHA256=" + sha256(body).hexdigest().encode(), [], body, 0.0)
    ((_, sms),) = codec().read_webhook(CHANNEL, call)
    assert sms.text == "yes ?"


def test_the_same_sms_has_the_same_id_whatever_else_twilio_says_of_it_and_another_has_another():
    def one(call):
        ((_, event),) = codec().read_webhook(CHANNEL, call)
        return event.id

    again = form(SMS | {"ErrorCode": "11200", "ErrorUrl": "https://x", "Body": "changed"})
    assert one(again) == one(form(SMS))
    assert one(form(SMS | {"MessageSid": "SM2"})) != one(form(SMS))
    assert one(form(STATUS)) != one(form(STATUS | {"MessageStatus": "sent"}))


@pytest.mark.parametrize("word", ["STOP", "QUIT", "HELP"])
def test_a_number_whose_words_twilio_does_not_answer_leaves_them_to_us(word):
    ((_, event),) = codec(default_keywords=False).read_webhook(CHANNEL, form(SMS | {"Body": word}))
    assert isinstance(event, InboundSms)
    assert event.handled == ""


@pytest.mark.parametrize(
    "call",
    [
        form({}), form({"MessageSid": "SM1"}), form({"MessageSid": "SM1", "From": " "}), get({}), form(STATUS | {"To": ""}),
        WebhookCall("POST", b"bodySHA256=0", [], b"[]", 0.0), WebhookCall("POST", b"bodySHA256=0", [], b"\xff", 0.0),
        WebhookCall("POST", b"bodySHA256=0", [], b'{"a":' + b"[" * 60_000, 0.0),
    ],
)  # fmt: skip
def test_what_is_no_webhook_of_messaging_is_unreadable(call):
    with pytest.raises(UnreadableWebhookError):
        codec().read_webhook(CHANNEL, call)


@pytest.mark.parametrize(
    "account, options, url, said",
    [
        (ACCOUNT, Options(), "", "PARLEY_PUBLIC_URL"),
        (replace(ACCOUNT, key_sid="SK1"), Options(), URL, "PARLEY_TWILIO_KEY_SECRET"),
        (replace(ACCOUNT, shared_keys="abc"), Options(), URL, "PARLEY_TWILIO_SHARED_KEYS"),
        (ACCOUNT, Options(answer="twiml", content_retention="discard"), URL, "content_retention"),
        (ACCOUNT, Options(answer="twiml", address_retention="obfuscate"), URL, "address_retention"),
    ],
)
def test_settings_that_cannot_work_are_said_so(account, options, url, said):
    with pytest.raises(UnusableChannelError, match=said):
        make_provider(ProviderChannel(CHANNEL, "+33700000001", webhook_url=url), account, options)


def resigned(call):
    """A mutant with the signature that Twilio would give it, were its bytes Twilio's."""
    rest = (b"?" + call.query if call.query else b"") + b"".join(
        key + value for key, value in sorted(set(_form_pairs(call.body))) if call.method == "POST"
    )
    if b"bodySHA256" in call.query:
        return call
    signature = b64encode(hmac.digest(b"12345", URL.encode() + rest, "sha1"))
    return replace(call, headers=[(b"x-twilio-signature", signature)])


RECORDED = [resigned(call) for _, call, _ in WEBHOOKS]


def test_webhooks_at_random_are_events_or_refused():
    fuzz(codec(), CHANNEL, RECORDED, resigned)
