"""Who is let in to the console, by which means, for how long; and what a stranger, another site or a stolen cookie comes to."""

from ipaddress import ip_network

import msgspec
import pytest

from config.host import Host
from config.settings.console_settings import ConsoleSettings
from config.store import redis_client
from tests.console.visitor import PROXY, Visitor, base_url, make_link, text_of, trust_proxy
from tests.support.waiting import HANG_S, free_port
from workers.console.sign_in.client_address import PROXY_SHARE, ClientAddress, find_client
from workers.console.sign_in.console_sessions import (
    IDLE_MS,
    MAX_ATTEMPTS,
    MAX_MS,
    ConsoleSessions,
    ConsoleUser,
)

pytestmark = [pytest.mark.processes, pytest.mark.console]

ADA = ConsoleUser("ada", ("operator", "privacy"))


class Hands:
    """A clock that is set by hand."""

    def __init__(self):
        self.ms = 1_800_000_000_000

    @property
    def host(self):
        return msgspec.structs.replace(Host(), wall_s=lambda: self.ms / 1_000)


@pytest.fixture
def clock():
    return Hands()


@pytest.fixture
def sessions(valkey, clock):
    return ConsoleSessions(redis_client.connect(valkey.url), clock.host)


def test_a_link_signs_in_once(console):
    link = make_link(console, "ada").partition("link=")[2]
    visitor = Visitor(base_url(console))
    assert visitor.get("/audit").headers["Location"] == "/sign-in?next=%2Faudit"
    assert visitor.post("/sign-in", link=link, next="/audit").headers["Location"] == "/audit"
    assert "sign in" in text_of(visitor.get("/audit"))
    another = Visitor(base_url(console))
    again = another.post("/sign-in", link=link)
    assert again.status_code == 403
    assert "used already" in again.text
    assert another.get("/audit").status_code == 303


def test_looking_at_a_link_does_not_use_it(console):
    link = make_link(console, "ada")
    visitor = Visitor(base_url(console))
    for _ in range(2):
        assert "Sign in with this link" in visitor.get("/sign-in?" + link.partition("?")[2]).text
    assert visitor.post("/sign-in", link=link.partition("link=")[2]).status_code == 303


def test_of_two_who_use_a_link_at_once_one_is_let_in(sessions):
    token = sessions.make_link(ADA)
    assert [sessions.use_link(token), sessions.use_link(token)] == [ADA, None]


def test_what_is_wrong_is_counted_and_then_refused_whatever_it_is(console):
    visitor = Visitor(base_url(console))
    for _ in range(MAX_ATTEMPTS):
        assert visitor.post("/sign-in", link="a guess").status_code == 403
    right = make_link(console, "ada").partition("link=")[2]
    assert visitor.post("/sign-in", link=right).status_code == 429


def test_redis_has_no_token(sessions, valkey):
    tokens = [sessions.make_link(ADA), sessions.open(ADA, "a browser")]
    stored = b"".join(
        key + (redis_client.connect(valkey.url).dump(key) or b"")
        for key in redis_client.connect(valkey.url).scan_iter()
    )
    assert [token for token in tokens if token.encode() in stored] == []


def test_a_session_that_nobody_uses_is_over(sessions, clock):
    token = sessions.open(ADA, "a browser")
    clock.ms += IDLE_MS
    assert sessions.find(token, "a browser").user == ADA
    clock.ms += IDLE_MS
    assert sessions.find(token, "a browser").user == ADA  # it was in use meanwhile
    clock.ms += IDLE_MS + 1
    assert sessions.find(token, "a browser") is None


def test_a_session_that_is_in_use_is_over_at_last(sessions, clock):
    token = sessions.open(ADA, "a browser")
    for _ in range(MAX_MS // IDLE_MS):
        clock.ms += IDLE_MS
        assert sessions.find(token, "a browser") is not None
    clock.ms += 1
    assert sessions.find(token, "a browser") is None
    assert sessions.list_open() == []


def test_a_session_that_was_revoked_is_not_opened_by_who_writes_late(sessions, clock, monkeypatch):
    token = sessions.open(ADA, "a browser")
    ((name, _),) = sessions.list_open()
    clock.ms += IDLE_MS  # so that the next look writes
    run_command = redis_client.run_command

    def revoked_between(client, command):
        if command[0] == "SET":
            sessions.revoke(name)
        return run_command(client, command)

    with monkeypatch.context() as patched:
        patched.setattr(redis_client, "run_command", revoked_between)
        sessions.find(token, "a browser")
    assert sessions.find(token, "a browser") is None


def test_a_stolen_cookie_is_not_the_session(console, operator):
    thief = Visitor(operator.base, agent="curl/8.0")
    thief.session.cookies.update(operator.session.cookies)
    assert thief.get("/audit").status_code == 303
    assert operator.get("/audit").status_code == 303, "whose cookie was shown by another is signed out too"


def test_who_signs_out_keeps_no_cookie(console):
    """A browser takes away a cookie whose name begins with `__Host-` only by one that it would take."""
    port, url = f"{free_port()}", "https://console.example.org"
    console.spawn("console", PARLEY_CONSOLE_PORT=port, PARLEY_CONSOLE_URL=url)
    console.wait_running()
    visitor = Visitor(f"http://127.0.0.1:{port}")
    told = visitor.post("/sign-in", link=make_link(console, "ada").partition("link=")[2])
    name, _, token = told.headers["Set-Cookie"].partition(";")[0].partition("=")
    visitor.session.headers["Cookie"] = f"{name}={token}"  # which requests sends over TLS alone
    told = visitor.post("/sign-out")
    assert (told.status_code, told.headers["Location"]) == (303, "/sign-in")
    taken = set(told.headers["Set-Cookie"].split("; "))
    assert {f'{name}=""', "expires=Thu, 01 Jan 1970 00:00:00 GMT", "Secure", "Path=/"} <= taken
    assert visitor.get("/audit").status_code == 303


def test_what_another_site_sends_changes_nothing(console, operator):
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ):
        assert operator.post("/sign-out", headers=headers).status_code == 403
    assert operator.get("/audit").status_code == 200
    assert operator.post("/sign-out", headers={"Origin": operator.base}).status_code == 303
    assert operator.get("/audit").status_code == 303


def test_a_name_of_others_that_leads_here_is_refused(operator):
    assert operator.get("/audit", headers={"Host": "evil.example"}).status_code == 403
    assert operator.get("/sign-in", headers={"Host": "localhost:1"}).status_code == 200


def test_a_viewer_looks_and_does_nothing(console, viewer):
    assert viewer.get("/").status_code == 200
    assert viewer.get("/sessions").status_code == 403
    refused = viewer.post("/sessions", session="all")
    assert refused.status_code == 403
    assert "This takes the role operator" in refused.text


def test_an_operator_ends_a_session(console, operator, viewer):
    told = console.command("console", "sessions").stdout
    assert "ada" in told
    assert "vera" in told
    assert console.command("console", "revoke", "--name", "vera").stdout == "1 session ended.\n"
    assert viewer.get("/").status_code == 303
    assert operator.get("/").status_code == 200
    assert console.command("console", "revoke", "--name", "vera").returncode == 1


def test_a_stream_ends_with_its_session(console, operator):
    with operator.session.get(operator.base + "/live/now", stream=True, timeout=HANG_S) as stream:
        assert next(stream.iter_lines())
        console.command("console", "revoke", "--all")
        list(stream.iter_lines())  # it ends


def test_streams_do_not_hold_up_the_end_of_the_process(console, operator):
    with operator.session.get(operator.base + "/live/now", stream=True, timeout=HANG_S) as stream:
        assert next(stream.iter_lines())
        (process,) = console.of("console")
        process.terminate()
        assert process.wait_dead() == 0
        assert "Error" not in process.log.read_text()


@pytest.mark.parametrize(
    "where", ["//evil.example", "https://evil.example", "////evil.example", "/\\evil.example", "//["]
)
def test_signing_in_leads_to_our_own_pages_alone(console, where):
    link = make_link(console, "ada").partition("link=")[2]
    told = Visitor(base_url(console)).post("/sign-in", link=link, next=where)
    assert told.headers["Location"] in ("/", "/evil.example")


def test_no_page_may_run_or_be_framed_by_what_is_not_ours(console, operator):
    for path in ("/", "/audit", "/nowhere", "/sign-in"):
        headers = operator.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


@pytest.fixture
def proxied(console):
    """A console that trusts a proxy."""
    trust_proxy(console, '[console.users]\n"ada@example.org" = ["operator"]\n')
    return console


def test_what_one_gets_wrong_behind_a_trusted_proxy_locks_out_nobody_else_there(proxied):
    def try_from(forwarded, address=PROXY, link="f" * 64):
        visitor = Visitor(base_url(proxied), address=address)
        headers = {"Sec-Fetch-Site": "same-origin", "X-Forwarded-For": forwarded}
        return visitor.post("/sign-in", headers, link=link).status_code

    stranger = "192.0.2.1"
    tries = [try_from(f"198.51.100.{place}, {stranger}") for place in range(MAX_ATTEMPTS + 1)]
    assert tries == [403] * MAX_ATTEMPTS + [429], "what stands before it counts for nothing"
    link = make_link(proxied, "ada").partition("link=")[2]
    assert try_from("192.0.2.2", link=link) == 303
    tries = [try_from(f"192.0.2.{place}", address="127.0.0.3") for place in range(MAX_ATTEMPTS + 1)]
    assert tries == [403] * MAX_ATTEMPTS + [429], "who is no trusted proxy says nothing"


TRUSTED = ConsoleSettings(proxies=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))


@pytest.mark.parametrize(
    "connected, forwarded, client",
    [
        ("192.0.2.9", "192.0.2.1", ("192.0.2.9", "")),
        ("10.0.0.1", "192.0.2.1", ("192.0.2.1", "10.0.0.1")),
        ("10.0.0.1", "1.1.1.1, 192.0.2.1", ("192.0.2.1", "10.0.0.1")),
        ("10.0.0.1", "1.1.1.1, 192.0.2.1,10.0.0.2 , 10.0.0.3", ("192.0.2.1", "10.0.0.1")),
        ("10.0.0.1", "192.0.2.1:4711", ("192.0.2.1", "10.0.0.1")),
        ("10.0.0.1", "::ffff:192.0.2.1", ("192.0.2.1", "10.0.0.1")),
        ("2001:db8::1", "[2001:DB9:0::1]:443, 2001:db8::2", ("2001:db9::1", "2001:db8::1")),
        ("10.0.0.1", "", ("10.0.0.1", "")),
        ("10.0.0.1", "10.0.0.7, 10.0.0.8", ("10.0.0.1", "")),
        ("10.0.0.1", "192.0.2.1, unknown", ("10.0.0.1", "")),
        ("10.0.0.1", "192.0.2.1, unknown, 10.0.0.2", ("10.0.0.1", "")),
        ("", "192.0.2.1", ("", "")),
    ],
)
def test_who_comes_by_trusted_proxies_comes_from_where_the_outermost_says(connected, forwarded, client):
    assert find_client(TRUSTED, connected, forwarded) == ClientAddress(*client)


def test_a_proxy_that_hands_on_what_it_got_lets_nobody_try_without_end(sessions):
    def get_wrong(place):
        client = ClientAddress(f"192.0.2.{place}", "10.0.0.1")
        if sessions.may_attempt(client):
            sessions.count_attempt(client)
            return True
        return False

    assert (
        sum(get_wrong(place) for place in range(PROXY_SHARE * MAX_ATTEMPTS + 5)) == PROXY_SHARE * MAX_ATTEMPTS
    )
    assert sessions.may_attempt(ClientAddress("192.0.2.1", "10.0.0.2"))
    assert sessions.may_attempt(ClientAddress("10.0.0.1"))


def test_a_trusted_proxy_says_who_it_is_and_nobody_else(proxied):
    def is_in(name, address):
        visitor = Visitor(base_url(proxied), address=address)
        return visitor.get("/", {"X-Forwarded-User": name}).status_code == 200

    assert is_in("ada@example.org", PROXY)
    assert not is_in("eve@example.org", PROXY)
    assert not is_in("ada@example.org", "127.0.0.3")
