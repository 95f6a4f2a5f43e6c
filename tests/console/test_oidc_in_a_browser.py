"""Signing in by an OpenID provider in a real browser: one that others wrote, and one of ours; there, and back to the page that was wanted."""

import shlex

import msgspec
import pytest
import requests
from playwright.sync_api import expect

from tests.console.axe_check import assert_accessible
from tests.console.oidc_console import callback_url, oidc_console
from tests.console.visitor import base_url
from tests.support.openid_provider import OpenidProvider
from tests.support.processes import Process
from tests.support.waiting import HANG_S, free_port, until

pytestmark = [pytest.mark.processes, pytest.mark.console]


@pytest.fixture
def other_provider(tmp_path):
    """The address of the provider of PyPI's oidc-provider-mock, at which Ada has an account."""
    port = free_port()
    ada = {"sub": "ada", "email": "ada@example.org", "email_verified": True, "groups": ["records"]}
    claims = shlex.quote(msgspec.json.encode(ada).decode())
    command = f"python -m oidc_provider_mock --port {port} --require-nonce True --user-claims {claims}"
    process = Process("provider", command, {"PYTHONWARNINGS": "ignore"}, tmp_path / "provider.log")
    issuer = f"http://127.0.0.1:{port}"
    until(lambda: answers(f"{issuer}/.well-known/openid-configuration"), HANG_S, "the provider answers")
    yield issuer
    process.terminate()


def answers(url):
    try:
        return requests.get(url, timeout=HANG_S).ok
    except requests.ConnectionError:
        return False


def test_one_signs_in_at_a_provider_that_others_wrote(valkey, octopush, other_provider, browser, browser_log):
    with oidc_console(valkey, octopush, other_provider) as console:
        page = browser.new_page()
        page.goto(f"{base_url(console)}/audit?action=sign")
        page.get_by_role("link", name="Sign in with 127.0.0.1").click()
        expect(page.get_by_role("heading", name="Authorize Client")).to_be_visible()
        page.get_by_role("button", name="ada").click()
        expect(page.get_by_role("cell", name="console ada@example.org")).to_be_visible()
        assert page.url == f"{base_url(console)}/audit?action=sign"
        expect(page.get_by_role("cell", name="operator, privacy")).to_be_visible()
    browser_log[:] = [line for line in browser_log if "Failed to load resource" not in line]  # its style


def test_one_is_refused_and_then_let_in(valkey, octopush, browser, browser_log):
    provider = OpenidProvider()
    provider.user |= {"email": "eve@example.org"}
    with oidc_console(valkey, octopush, provider.issuer) as console:
        provider.redirect_uri = callback_url(console)
        page = browser.new_page()
        page.goto(f"{base_url(console)}/people")
        page.get_by_role("link", name="Sign in with 127.0.0.1").click()
        page.get_by_role("button", name="Go on as a1").click()
        expect(page.get_by_role("alert")).to_contain_text("eve@example.org may do nothing here")
        (refused,) = browser_log
        assert "403" in refused
        browser_log.clear()
        provider.user |= {"email": "ada@example.org"}
        page.get_by_role("link", name="Sign in with 127.0.0.1").click()
        page.get_by_role("button", name="Go on as a1").click()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.url == f"{base_url(console)}/people"
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        assert [each for each in browser.cookies() if each["name"].startswith("parley-console")] == []
        assert_accessible(page, f"{base_url(console)}/sign-in?next=/people")
    provider.close()
