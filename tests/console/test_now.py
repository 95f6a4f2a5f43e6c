"""How things stand, live: the numbers are those of `parley status`, come by themselves, and say so when they do not."""

import json

import pytest
import requests
from playwright.sync_api import expect

from tests.console.visitor import make_link, text_of
from tests.support.clinic import number
from tests.support.person import inbound
from tests.support.processes import Deployment
from tests.support.waiting import HANG_S, PATIENCE, until

LIVE_MS = HANG_S * PATIENCE * 1_000


def text_start(parley: Deployment, person: int) -> None:
    assert requests.post(parley.webhook, data=inbound(number(person), "START"), timeout=HANG_S).ok


@pytest.fixture
def pipeline(console: Deployment) -> Deployment:
    """All of Parley, with its console."""
    return console.start(archive=0, hooks=0)


@pytest.mark.processes
@pytest.mark.console
def test_it_says_what_status_says(pipeline, operator):
    text_start(pipeline, 1)
    until(lambda: status_of(pipeline)["service"]["open_conversations"] == 1, HANG_S, "the session is open")
    shown = text_of(operator.get("/"))
    assert "Open conversations 1" in shown
    assert all(sentence[1:] in shown for sentence in status_of(pipeline)["wrong"])


@pytest.mark.processes
@pytest.mark.console
def test_what_operators_wrote_is_shown_as_it_is(console, operator):
    console.command("channel", "pause", "clinic", "--why", "a <b>test</b>")
    shown = operator.get("/").text
    assert "a &lt;b&gt;test&lt;/b&gt;" in shown


@pytest.mark.processes
@pytest.mark.console
def test_numbers_come_by_themselves_and_a_lost_connection_is_said(pipeline, browser, browser_log):
    page = browser.new_page()
    page.goto(make_link(pipeline, "ada"))
    page.get_by_role("button", name="Sign in with this link").click()
    tile = page.locator(".tile", has_text="Open conversations")
    expect(tile).to_contain_text("0")
    text_start(pipeline, 1)
    expect(tile).to_contain_text("1", timeout=LIVE_MS)
    (process,) = pipeline.of("console")
    process.kill9()
    process.wait_dead()
    lost = page.get_by_text("The connection to Parley is lost")
    expect(lost).to_be_visible(timeout=LIVE_MS)
    text_start(pipeline, 2)
    process.restart()
    expect(tile).to_contain_text("2", timeout=LIVE_MS)
    expect(lost).to_be_hidden()
    browser_log.clear()  # it tells of the lost connection too


def status_of(pipeline: Deployment) -> dict:
    return json.loads(pipeline.command("status", "--json").stdout)
