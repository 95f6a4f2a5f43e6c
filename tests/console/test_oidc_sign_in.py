"""Who is let in to the console by an OpenID provider, and what everybody else comes to: with a token that is not the provider's, not for
this console, not of this sign-in, of another time; with a code that was used; from another browser; while the provider is away."""

import hmac
import time
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from config.host import Host
from config.store import redis_client
from tests.console.oidc_console import SECRET_VARIABLE, begin, callback_url, come_back, oidc_console
from tests.console.visitor import PROXY, Visitor, base_url, sign_in, text_of, trust_proxy
from tests.support.openid_provider import CLIENT_ID, OpenidProvider, ProviderPage, ec_key, rsa_key
from tests.support.waiting import HANG_S, until
from workers.console.sign_in.client_address import PROXY_SHARE, ClientAddress
from workers.console.sign_in.console_sessions import MAX_ATTEMPTS
from workers.console.sign_in.oidc_pages import PROVIDER_CALLS
from workers.console.sign_in.oidc_sign_ins import MAX_BEGUN, SIGN_IN_MS, OidcSignIns

pytestmark = [pytest.mark.processes, pytest.mark.console]


@pytest.fixture
def provider():
    provider = OpenidProvider()
    yield provider
    provider.close()


@pytest.fixture
def console(valkey, octopush, provider):
    with oidc_console(valkey, octopush, provider.issuer) as console:
        provider.redirect_uri = callback_url(console)
        yield console


@pytest.fixture
def visitor(console):
    return Visitor(base_url(console))


def is_in(visitor):
    return visitor.get("/people").status_code == 200


def assert_refused(visitor, told, why, status=403):
    assert told.status_code == status, told.text
    assert why in text_of(told)
    assert not is_in(visitor)


def with_claims(**claims):
    """A token whose claims are changed so, None for one that is missing."""

    def change(provider):
        return lambda good: {name: it for name, it in (good | claims).items() if it is not None}

    return change


def assert_each_refused(base, provider, wrong, changed):
    """Whoever signs in while `provider.changed` is one of `wrong` is refused, and why; and let in once it is as it was."""
    good = getattr(provider, changed)
    for what, (write, why) in wrong.items():
        visitor = Visitor(base)
        setattr(provider, changed, write(provider))
        told = come_back(visitor, provider)
        assert (what, told.status_code, why in text_of(told)) == (what, 403, True), text_of(told)
        assert not is_in(visitor), what
        setattr(provider, changed, good)
        assert come_back(visitor, provider).status_code == 303, what
        assert is_in(visitor)


def test_one_is_signed_in_and_brought_to_the_page_one_wanted(console, provider, visitor):
    page = visitor.get(visitor.get("/audit?action=sign").headers["Location"])
    assert f"Sign in with {urlsplit(provider.issuer).netloc}" in text_of(page)
    told = come_back(visitor, provider, "/audit?action=sign")
    assert (told.status_code, told.headers["Location"]) == (303, "/audit?action=sign")
    audit = text_of(visitor.get("/audit?action=sign"))
    assert "console ada@example.org sign in console" in audit
    assert provider.issuer in audit
    assert "ada@example.org" in console.command("console", "sessions").stdout


def test_cookies_are_for_what_a_browser_reads_itself(provider, visitor):
    begun = visitor.get("/sign-in/oidc")
    cookie = begun.headers["Set-Cookie"].split("; ")
    assert cookie[0].startswith("parley-oidc-")
    assert {"HttpOnly", "SameSite=Lax", "Path=/", f"Max-Age={SIGN_IN_MS // 1_000}"} == {*cookie[1:]}
    told = visitor.get(provider.give_code(begun.headers["Location"]).removeprefix(visitor.base))
    cookie = told.headers["Set-Cookie"].split("; ")
    assert cookie[0].startswith("parley-console-")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} == {*cookie[1:]}


def test_a_console_with_an_address_has_cookies_of_it_alone(valkey, octopush, provider):
    url = {"PARLEY_CONSOLE_URL": "https://console.example.org"}
    with oidc_console(valkey, octopush, provider.issuer, environment=url) as console:
        told = Visitor(base_url(console)).get("/sign-in/oidc")
    assert told.headers["Set-Cookie"].startswith("__Host-parley-oidc=")
    assert "Secure" in told.headers["Set-Cookie"]
    sent = parse_qs(urlsplit(told.headers["Location"]).query)
    assert sent["redirect_uri"] == ["https://console.example.org/sign-in/oidc/callback"]


def test_what_is_sent_to_the_provider_is_new_each_time_and_none_of_it_is_the_verifier(valkey, visitor):
    first, second = (parse_qs(urlsplit(begin(visitor)).query) for _ in range(2))
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]
    stored = redis_client.connect(valkey.url)
    sign_ins = [stored.get(key) for key in stored.scan_iter(match="*sign-in:*")]
    assert len(sign_ins) == 2
    assert not [it for it in sign_ins if first["state"][0].encode() in it], (
        "Redis has digests of states alone"
    )


def test_a_user_may_what_is_said_of_their_name_and_their_groups(provider, visitor):
    provider.user["groups"] = ["records", "others"]
    come_back(visitor, provider)
    assert visitor.get("/sessions").status_code == 200
    assert "operator, privacy" in text_of(visitor.get("/sessions"))


def test_a_group_is_enough(provider, visitor):
    provider.user |= {"email": "vera@example.org", "groups": "medics"}
    assert come_back(visitor, provider).status_code == 303
    assert visitor.get("/people").status_code == 200
    assert visitor.get("/sessions").status_code == 403, "a viewer"


def test_who_is_not_named_may_nothing(console, provider, visitor):
    provider.user |= {"email": "eve@example.org", "groups": ["operator", "privacy", 7, None]}
    assert_refused(visitor, come_back(visitor, provider), "eve@example.org may do nothing here")
    audit = text_of(sign_in(console, "olga", "operator").get("/audit"))
    assert "console eve@example.org refused sign-in" in audit


NOT_VERIFIED = "does not say that it has verified your e-mail"
NO_NAME = "does not say who you are"
WRONG_NAMES = {
    "of whom nobody says it is theirs": (with_claims(email_verified=None, groups=["medics"]), NOT_VERIFIED),
    "not theirs": (with_claims(email_verified=False, groups=["medics"]), NOT_VERIFIED),
    "theirs, as a word": (with_claims(email_verified="true"), NOT_VERIFIED),
    "theirs, as a number": (with_claims(email_verified=1), NOT_VERIFIED),
    "none": (with_claims(email=None, groups=["medics"]), NO_NAME),
    "empty": (with_claims(email="", groups=["medics"]), NO_NAME),
    "no text": (with_claims(email=["ada@example.org"]), NO_NAME),
    "of two lines": (with_claims(email="ada\n@example.org", groups=["medics"]), NO_NAME),
    "without an end": (with_claims(email="a" * 201, groups=["medics"]), NO_NAME),
}


def test_a_name_that_is_nobodys_for_certain_lets_nobody_in(console, provider):
    assert_each_refused(base_url(console), provider, WRONG_NAMES, "change_claims")


def test_the_name_may_be_another_claim(valkey, octopush, provider):
    with oidc_console(valkey, octopush, provider.issuer, user_claim="login", groups_claim="teams") as console:
        provider.redirect_uri = callback_url(console)
        provider.user = {"sub": "v", "login": "vera", "teams": ["medics"]}
        visitor = Visitor(base_url(console))
        assert come_back(visitor, provider).status_code == 303
        assert "vera" in visitor.get("/people").text


def test_a_public_client_needs_no_secret(valkey, octopush):
    public = OpenidProvider(is_public=True)
    with oidc_console(valkey, octopush, public.issuer, has_secret=False) as console:
        public.redirect_uri = callback_url(console)
        visitor = Visitor(base_url(console))
        assert come_back(visitor, public).status_code == 303
        assert is_in(visitor)
    public.close()


def test_what_the_token_does_not_say_the_provider_is_asked_for(provider, visitor):
    provider.in_userinfo = {**provider.user, "groups": ["medics"]}
    provider.user = {"sub": "a1"}
    assert come_back(visitor, provider).status_code == 303
    assert is_in(visitor)


SHARED, OTHERS = "ada@example.org", "eve@example.org"


@pytest.mark.parametrize(
    "in_token, in_userinfo, is_let_in",
    [
        ({"email": SHARED}, {"email": SHARED, "email_verified": True}, True),
        ({"email": SHARED}, {"email": OTHERS, "email_verified": True}, False),
        ({"email": SHARED}, {"email_verified": True}, False),
        ({"email_verified": True}, {"email": SHARED}, False),
        ({"email_verified": True}, {"email": SHARED, "email_verified": False}, False),
        ({"email": SHARED, "email_verified": False}, {"email": SHARED, "email_verified": True}, False),
    ],
)
def test_an_address_is_verified_by_who_says_that_address(provider, visitor, in_token, in_userinfo, is_let_in):
    provider.user = {"sub": "a1", **in_token}
    provider.in_userinfo = {"sub": "a1", "groups": ["medics"], **in_userinfo}
    told = come_back(visitor, provider)
    if is_let_in:
        assert told.status_code == 303
    else:
        assert_refused(visitor, told, NOT_VERIFIED)


def test_what_is_told_of_somebody_else_is_not_believed(provider, visitor):
    provider.in_userinfo = {**provider.user, "sub": "another"}
    provider.user = {"sub": "a1"}
    assert_refused(visitor, come_back(visitor, provider), "tells of somebody else")


NOW = time.time


WRONG_CLAIMS = {
    "another console's": (with_claims(aud="another"), "'aud'"),
    "nobody's": (with_claims(aud=None), "'aud'"),
    "for another of two": (with_claims(aud=[CLIENT_ID, "b"], azp="b"), "'azp'"),
    "for two, of nobody": (with_claims(aud=[CLIENT_ID, "b"]), "'azp'"),
    "another provider's": (with_claims(iss="https://evil.example"), "'iss'"),
    "another sign-in's": (with_claims(nonce="f" * 64), "'nonce'"),
    "no sign-in's": (with_claims(nonce=None), "'nonce'"),
    "of another access token": (with_claims(at_hash="A" * 22), "'at_hash'"),
    "over": (with_claims(exp=int(NOW()) - 120), "is over"),
    "for ever": (with_claims(exp=None), "'exp'"),
    "of tomorrow": (with_claims(iat=int(NOW()) + 86_400), "'iat'"),
    "of nobody": (with_claims(sub=None), "'sub'"),
}


def test_a_token_that_is_not_for_this_sign_in_lets_nobody_in(console, provider):
    assert_each_refused(base_url(console), provider, WRONG_CLAIMS, "change_claims")


def test_clocks_may_differ_by_a_little(provider, visitor):
    provider.change_claims = lambda claims: claims | {"exp": int(NOW()) - 5, "iat": int(NOW()) + 5}
    assert come_back(visitor, provider).status_code == 303


NO_ALGORITHM, HMAC_ALGORITHM = b'{"alg":"none"}', b'{"alg":"HS256","kid":"first"}'


def encoded(raw):
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def unsigned(provider):
    def write(claims):
        _, body, _ = provider.signed(claims).split(".")
        return f"{encoded(NO_ALGORITHM)}.{body}."

    return write


def signed_by_what_everybody_knows(provider):
    """An HMAC with the public key that is published, which joserfc does not make."""

    def write(claims):
        _, body, _ = provider.signed(claims).split(".")
        signed = f"{encoded(HMAC_ALGORITHM)}.{body}"
        return f"{signed}.{encoded(hmac.digest(provider.signing.as_pem(private=False), signed.encode(), 'sha256'))}"

    return write


def signed_by_a_published_secret(provider):
    secret = OctKey.generate_key(256, {"kid": "shared"})
    provider.published.append(secret.as_dict(private=True))
    return lambda claims: jwt.encode({"alg": "HS256", "kid": "shared"}, claims, secret)


def signed_by_another(provider):
    key = ec_key("first")
    return lambda claims: jwt.encode({"alg": "ES256", "kid": "first"}, claims, key)


def changed_afterwards(provider):
    def write(claims):
        head, _, signature = provider.signed(claims).split(".")
        _, body, _ = provider.signed(claims | {"email": "eve@example.org"}).split(".")
        return f"{head}.{body}.{signature}"

    return write


WRONG_TOKENS = {
    "unsigned": (unsigned, "is not signed by"),
    "signed by what everybody knows": (signed_by_what_everybody_knows, "is not signed by"),
    "signed by a published secret": (signed_by_a_published_secret, "is not signed by"),
    "signed by another": (signed_by_another, "signed by no key that the provider publishes"),
    "changed afterwards": (changed_afterwards, "signed by no key that the provider publishes"),
    "no token": (lambda _: lambda _claims: "no.token", "cannot be read"),
}


def test_a_token_that_is_not_the_providers_lets_nobody_in(console, provider):
    assert_each_refused(base_url(console), provider, WRONG_TOKENS, "write_token")


def test_an_hmac_is_refused_though_the_provider_offers_it(provider, visitor):
    provider.change_metadata = lambda it: it | {"id_token_signing_alg_values_supported": ["HS256", "none"]}
    assert_refused(visitor, come_back(visitor, provider), "The provider signs by none of")


def test_a_key_that_is_new_is_fetched_and_one_that_nobody_publishes_only_once(console, provider, visitor):
    assert come_back(visitor, provider).status_code == 303
    provider.rotate(rsa_key("second"))
    assert come_back(Visitor(visitor.base), provider).status_code == 303
    assert provider.asked.count("/realm/keys") == 2
    assert come_back(Visitor(visitor.base), provider).status_code == 303
    assert provider.asked.count("/realm/keys") == 2, "what is known is not asked for"
    provider.signing = ec_key("secret")
    stranger = Visitor(visitor.base)
    assert_refused(stranger, come_back(stranger, provider), "signed by no key")
    assert provider.asked.count("/realm/keys") == 3


def test_keys_that_are_not_for_signatures_are_no_mistake(provider, visitor):
    provider.published = [{"kty": "ML-DSA", "kid": "later"}, {"kid": "first"}, "?", *provider.published]
    assert come_back(visitor, provider).status_code == 303


def test_a_code_signs_in_once(console, provider, visitor):
    back = provider.give_code(begin(visitor)).removeprefix(visitor.base)
    assert visitor.get(back).status_code == 303
    again = visitor.get(back)
    assert again.status_code == 403
    assert "is over already" in text_of(again)


def test_a_code_that_the_provider_took_already_signs_nobody_in(provider, visitor):
    first, second = begin(visitor), begin(visitor)
    used = parse_qs(urlsplit(provider.give_code(first)).query)["code"][0]
    state = parse_qs(urlsplit(second).query)["state"][0]
    told = visitor.get("/sign-in/oidc/callback", code=used, state=state, iss=provider.issuer)
    assert_refused(visitor, told, "does not take the code any more")


def test_of_two_windows_that_sign_in_at_once_both_do(provider, visitor):
    first, second = begin(visitor, "/people"), begin(visitor, "/surveys")
    for begun, page in ((first, "/people"), (second, "/surveys")):
        told = visitor.get(provider.give_code(begun).removeprefix(visitor.base))
        assert (told.status_code, told.headers["Location"]) == (303, page)


def test_a_sign_in_is_finished_by_the_browser_that_began_it(console, provider, visitor):
    """Else a link would sign somebody in as whoever sends it."""
    back = provider.give_code(begin(visitor)).removeprefix(visitor.base)
    other = Visitor(visitor.base)
    assert_refused(other, other.get(back), "was not begun in this browser")
    begin(other)
    back = provider.give_code(begin(visitor)).removeprefix(visitor.base)
    assert_refused(other, other.get(back), "was not begun in this browser")
    assert_refused(visitor, visitor.get(back), "is over already")


def test_any_process_finishes_what_another_began(console, provider, visitor):
    back = provider.give_code(begin(visitor, "/people")).removeprefix(visitor.base)
    (process,) = console.of("console")
    process.kill9()
    process.log.write_bytes(b"")
    process.restart()
    console.wait_running()
    assert visitor.get(back).headers["Location"] == "/people"
    assert is_in(visitor)


def test_what_nobody_began_signs_nobody_in(visitor):
    begin(visitor)
    for state in ("", "f" * 64):
        told = visitor.get("/sign-in/oidc/callback", code="c", state=state)
        assert_refused(visitor, told, "was not begun in this browser")


def test_who_the_provider_did_not_sign_in_is_told(provider, visitor):
    state = parse_qs(urlsplit(begin(visitor)).query)["state"][0]
    told = visitor.get("/sign-in/oidc/callback", state=state, error="access_denied", iss=provider.issuer)
    assert_refused(visitor, told, "has not signed you in (access_denied)")
    state = parse_qs(urlsplit(begin(visitor)).query)["state"][0]
    told = visitor.get("/sign-in/oidc/callback", state=state, error="<b>Call +1 900</b>")
    assert_refused(visitor, told, "has not signed you in (no reason)")


def test_another_provider_does_not_send_anybody_back(provider, visitor):
    for iss in ("https://evil.example", None):
        provider.iss = iss
        assert_refused(visitor, come_back(visitor, provider), "that sent you back")
    assert "/realm/token" not in provider.asked, "nobody else's code is shown to it"


def test_a_provider_that_never_says_who_it_is_on_the_way_back_is_believed(provider, visitor):
    provider.change_metadata = lambda it: it | {"authorization_response_iss_parameter_supported": False}
    provider.iss = None
    assert come_back(visitor, provider).status_code == 303


def test_signing_in_leads_to_our_own_pages_alone(provider, visitor):
    for where in ("//evil.example", "https://evil.example", "////evil.example", "/\\evil.example", "//["):
        stranger = Visitor(visitor.base)
        assert come_back(stranger, provider, where).headers["Location"] in ("/", "/evil.example")
        assert stranger.get("/sign-in/oidc", next=where).headers["Location"] in ("/", "/evil.example")


def test_what_is_wrong_is_counted_and_then_nothing_is_tried(console, provider, visitor):
    back = provider.give_code(begin(visitor)).removeprefix(visitor.base)
    for _ in range(MAX_ATTEMPTS):
        state = parse_qs(urlsplit(begin(visitor)).query)["state"][0]
        assert visitor.get("/sign-in/oidc/callback", state=state, error="access_denied").status_code == 403
    asked = len(provider.asked)
    for path in (back, "/sign-in/oidc"):
        assert_refused(visitor, visitor.get(path), "Too many tries", 429)
    assert len(provider.asked) == asked


def test_a_page_of_a_stranger_that_leads_here_locks_nobody_out(console, provider, visitor):
    """As any page can, from within every browser: what nobody began is neither counted nor told to the audit."""
    stranger = Visitor(visitor.base)
    for _ in range(MAX_ATTEMPTS + 1):
        told = stranger.get("/sign-in/oidc/callback", code="c", state="f" * 64)
        assert_refused(stranger, told, "was not begun in this browser")
    assert come_back(visitor, provider).status_code == 303
    assert "refused sign-in" not in text_of(visitor.get("/audit"))


def test_what_one_begins_behind_a_trusted_proxy_is_bounded_apart_from_others_and_with_them(valkey):
    """One who is refused takes no room of theirs, and who could come from anywhere has no more than that."""
    sign_ins, stored = OidcSignIns(redis_client.connect(valkey.url), Host()), valkey.client()
    begun = [sign_ins.may_begin(ClientAddress("192.0.2.7", "10.0.0.1")) for _ in range(2 * MAX_BEGUN)]
    assert begun == [True] * MAX_BEGUN + [False] * MAX_BEGUN
    others = [
        sign_ins.may_begin(ClientAddress(f"2001:db8::{place:x}", "10.0.0.1"))
        for place in range(PROXY_SHARE * MAX_BEGUN)
    ]
    left = (PROXY_SHARE - 1) * MAX_BEGUN
    assert others == [True] * left + [False] * MAX_BEGUN
    assert stored.dbsize() == left + 2, "nor does one who is refused leave a key"
    assert sign_ins.may_begin(ClientAddress("192.0.2.8", "10.0.0.2"))


def test_who_begins_too_often_behind_a_trusted_proxy_is_alone_told_so(console, valkey):
    trust_proxy(console)
    sign_ins = OidcSignIns(redis_client.connect(valkey.url), Host())
    assert all(sign_ins.may_begin(ClientAddress("192.0.2.7", PROXY)) for _ in range(MAX_BEGUN))
    visitor = Visitor(base_url(console), address=PROXY)

    def begin_from(address):
        return visitor.get("/sign-in/oidc", {"X-Forwarded-For": address}).status_code

    assert [begin_from(f"192.0.2.{place}") for place in (7, 8)] == [429, 303]


def test_what_is_begun_is_bounded_and_does_not_stay(valkey):
    sign_ins = OidcSignIns(redis_client.connect(valkey.url), Host())
    stranger = ClientAddress("192.0.2.7")
    assert [sign_ins.may_begin(stranger) for _ in range(MAX_BEGUN + 1)] == [True] * MAX_BEGUN + [False]
    assert sign_ins.may_begin(ClientAddress("192.0.2.8"))
    sign_ins.begin("https://login.example.org", "", "/")
    stored = redis_client.connect(valkey.url)
    assert [0 < stored.pttl(key) <= SIGN_IN_MS for key in stored.scan_iter(match="*{console}:*")] == [
        True
    ] * 3


def test_a_sign_in_that_began_with_another_provider_is_not_finished_with_this_one(valkey):
    sign_ins = OidcSignIns(redis_client.connect(valkey.url), Host())
    begun = sign_ins.begin("https://old.example.org", "", "/")
    assert sign_ins.finish("https://new.example.org", begun.state, begun.browser) is None


def test_of_two_who_finish_a_sign_in_at_once_one_does(valkey):
    sign_ins = OidcSignIns(redis_client.connect(valkey.url), Host())
    begun = sign_ins.begin("https://login.example.org", "", "/people")
    finished = [sign_ins.finish("https://login.example.org", begun.state, begun.browser) for _ in range(2)]
    assert finished == [begun.sign_in, None]


def test_while_the_provider_is_away_one_is_told_and_a_link_signs_in(console, provider, visitor):
    provider.close()
    told = visitor.get("/sign-in/oidc")
    assert_refused(visitor, told, "does not answer", 503)
    assert "parley console link" in text_of(told)
    assert is_in(sign_in(console, "olga", "operator"))


def test_a_provider_that_goes_away_in_between_is_told_and_counts_as_nobodys_mistake(
    console, provider, visitor
):
    good = provider.answer
    for _ in range(MAX_ATTEMPTS + 1):
        back = provider.give_code(begin(visitor)).removeprefix(visitor.base)
        provider.answer = lambda *_: ProviderPage(status=0)
        assert_refused(visitor, visitor.get(back), "does not answer", 503)
        provider.answer = good
    assert come_back(visitor, provider).status_code == 303


@pytest.mark.parametrize(
    "change, why",
    [
        (
            lambda it: it | {"issuer": "https://evil.example"},
            "expected `issuer` of [console.oidc] to be just that",
        ),
        (
            lambda it: it | {"token_endpoint": "http://evil.example/token"},
            "a token_endpoint that is not https://",
        ),
        (lambda it: {name: it[name] for name in it if name != "jwks_uri"}, "`jwks_uri`"),
    ],
)
def test_what_a_provider_says_wrong_of_itself_is_told(console, provider, visitor, change, why):
    provider.change_metadata = change
    assert_refused(visitor, visitor.get("/sign-in/oidc"), why, 503)
    assert why in console.logs()


def test_a_secret_that_the_provider_does_not_take_is_told_and_not_shown(valkey, octopush, provider):
    wrong = {SECRET_VARIABLE: "quite-another-secret"}
    with oidc_console(valkey, octopush, provider.issuer, environment=wrong) as console:
        provider.redirect_uri = callback_url(console)
        visitor = Visitor(base_url(console))
        told = come_back(visitor, provider)
        assert_refused(visitor, told, "does not give this console what it asks for (invalid_client)", 503)
        assert "quite-another-secret" not in told.text + console.logs()


def test_whoever_waits_for_the_provider_holds_up_nobody_else(console, provider, visitor):
    olga = sign_in(console, "olga", "operator")
    provider.answers.clear()
    with ThreadPoolExecutor(12) as others:
        waiting = [others.submit(Visitor(visitor.base).get, "/sign-in/oidc") for _ in range(12)]
        until(lambda: provider.waiting == PROVIDER_CALLS, HANG_S, "the provider is asked")
        assert olga.get("/people").status_code == 200
        assert not [each for each in waiting if each.done()], "while all of them waited"
        provider.answers.set()
        assert {each.result().status_code for each in waiting} == {303}
    assert provider.most_at_once == PROVIDER_CALLS


def test_what_is_wrong_with_it_is_told_before_anything_starts(console):
    config = console.folder / "parley.toml"
    good = config.read_text()
    config.write_text(
        good.partition("[console.users]")[0] + '[console.oidc]\nissuer = "http://login.example.org"\n'
    )
    told = console.command("check")
    assert told.returncode == 2
    for expected in (
        "console.oidc: nobody may sign in by it: expected [console.users] or [console.groups]",
        "console.oidc.issuer is 'http://login.example.org': expected https://",
        "console.oidc.client_id is missing",
    ):
        assert expected in told.stderr
    config.write_text(good.partition("[console.oidc]")[0])
    told = console.command("check").stderr
    assert "console.groups: expected [console.oidc]" in told
    config.write_text(good)
    assert f"{SECRET_VARIABLE} is not set" in console.command("check", **{SECRET_VARIABLE: ""}).stderr
    told = console.command("check")
    assert told.returncode == 0, told.stderr
    assert callback_url(console) in told.stdout


def test_beyond_this_machine_it_listens_with_an_address_alone_whoever_may_sign_in(console):
    told = console.command("check", PARLEY_CONSOLE_HOST="0.0.0.0")
    assert "PARLEY_CONSOLE_HOST is '0.0.0.0', which others can reach" in told.stderr
    told = console.command("check", PARLEY_CONSOLE_URL="http://console.example.org")
    assert "PARLEY_CONSOLE_URL is 'http://console.example.org': expected https://" in told.stderr


def test_whether_the_provider_is_there_is_asked_beforehand(console, provider):
    told = console.command("check", "--live")
    assert f"console: {provider.issuer} is there\n" in told.stdout, told.stderr
    assert told.returncode == 0
    provider.close()
    told = console.command("check", "--live")
    assert f"console: {urlsplit(provider.issuer).netloc} does not answer" in told.stdout
    assert told.returncode == 1
