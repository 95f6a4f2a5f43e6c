"""What we sign, the library verifies that customers are told to use; a secret that is wrong is told of, and never shown."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from engine.hooks.signature import InvalidSecretError, batch_id, parse_secret, sign_message

OLD, NEW, OTHER = (
    f"whsec_{base64.b64encode(bytes(range(first, first + 32))).decode()}" for first in (0, 100, 200)
)
BODY = '{"text":"Fièvre ?"}'.encode()
ID = "5b1d8e4f0a6c4c0f9f6d3e2b1a008877"


def signed(*secrets, body=BODY):
    return sign_message([parse_secret(each) for each in secrets], ID, int(time.time()), body)


def test_the_library_of_standard_webhooks_verifies_it():
    assert Webhook(OLD).verify(BODY, signed(OLD)) == {"text": "Fièvre ?"}


def test_a_signature_is_of_these_bytes_at_this_time():
    """By the specification's rule: base64 of HMAC-SHA256 over id.timestamp.body. Computed with openssl."""
    secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert sign_message([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}') == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("known", [OLD, NEW])
def test_while_a_secret_is_replaced_either_verifies(known):
    headers = signed(OLD, NEW)
    assert len(headers["webhook-signature"].split(" ")) == 2
    Webhook(known).verify(BODY, headers)


def test_another_secret_another_body_another_id_and_another_time_do_not_verify():
    headers = signed(OLD)
    changed = [
        (OTHER, BODY, headers),
        (OLD, BODY + b" ", headers),
        (OLD, BODY, headers | {"webhook-id": ID[::-1]}),
        (OLD, BODY, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
    ]
    for secret, body, sent in changed:
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, sent)


@given(st.binary(min_size=24, max_size=64), st.text(), st.booleans())
def test_any_secret_of_24_to_64_bytes_will_do(key, said, padded):
    encoded = base64.b64encode(key).decode()
    secret = f"whsec_{encoded if padded else encoded.rstrip('=')}"
    body = said.encode(errors="replace")
    Webhook(secret).verify(body, signed(secret, body=body), json_parse=False)


GOOD = OLD.removeprefix("whsec_")


@pytest.mark.parametrize("text, complaint", [
    ("", "it is empty"),
    (GOOD, "does not begin with whsec_"),
    (f"WHSEC_{GOOD}", "does not begin with whsec_"),
    (f" {OLD}", "white space"),
    (f"{OLD}\n", "white space"),
    (f"whsec_{GOOD[:20]}-_{GOOD[22:]}", "no base64"),
    (f"whsec_{GOOD[:20]} {GOOD[20:]}", "no base64"),
    (f"whsec_{GOOD[:20]}----{GOOD[20:]}", "no base64"),
    (f"whsec_é{GOOD}", "no base64"),
    (f"whsec_{GOOD[:-3]}", "no base64"),
    (f"whsec_{base64.b64encode(b'k' * 23).decode()}", "23 bytes, and a secret has 24 to 64"),
    (f"whsec_{base64.b64encode(b'k' * 65).decode()}", "65 bytes, and a secret has 24 to 64"),
    ("whsec_", "0 bytes"),
])  # fmt: skip
def test_what_is_no_secret_is_told_of_and_not_shown(text, complaint):
    with pytest.raises(InvalidSecretError, match=complaint) as caught:
        parse_secret(text)
    shown = f"{caught.value!r}{caught.value.__cause__!r}"
    assert not [
        part
        for at in range(0, len(text) - 6, 3)
        if (part := text[at : at + 7]) in shown and "whsec" not in part.lower()
    ]


def test_a_secret_does_not_show_itself():
    secret = parse_secret(OLD)
    assert f"{secret} {secret!r}" == "WebhookSecret() WebhookSecret()"


def test_a_batch_has_the_id_of_the_events_that_it_brings():
    assert batch_id(["a", "b"]) == batch_id(iter(["a", "b"]))
    assert (
        len({batch_id(each) for each in ([], ["a"], ["b"], ["a", "b"], ["b", "a"], ["ab"], ["a", "", "b"])})
        == 7
    )
