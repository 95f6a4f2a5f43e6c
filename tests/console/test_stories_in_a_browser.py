"""Whole stories in a real browser: a dead letter judged, replayed and gone; two operators at once; a page that renews itself under
somebody's hands; what people write, shown."""

import re

import pytest
from playwright.sync_api import expect

from tests.console.axe_check import assert_accessible
from tests.console.lanes_of_test import open_town
from tests.console.test_dead_letters import people
from tests.console.test_people import NASTY
from tests.console.visitor import base_url, make_link
from tests.workers.dead_letters import fell, letters_of
from tests.workers.test_dead_commands import put

pytestmark = [pytest.mark.processes, pytest.mark.console]

ANNA = people(1)[0]


@pytest.fixture
def town(console, valkey):
    return open_town(console, valkey)


def signed_in(context, console, name, *roles):
    page = context.new_page()
    page.goto(make_link(console, name, *(roles or ("operator", "privacy"))))
    page.get_by_role("button", name="Sign in with this link").click()
    expect(page.get_by_role("link", name="Dead letters")).to_be_visible()
    return page


@pytest.fixture
def page(console, browser):
    return signed_in(browser, console, "ada")


def find(page, wanted):
    page.get_by_role("link", name="People", exact=True).click()
    page.get_by_label("Phone number").fill(wanted)
    page.keyboard.press("Enter")


def test_a_dead_letter_is_judged_replayed_and_gone(town, page, failing):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    find(page, ANNA)
    expect(page.get_by_role("heading", level=1)).to_contain_text(ANNA)
    page.get_by_role("link", name=letter.id).click()
    expect(page.get_by_text("It would be applied, and go.")).to_be_visible()
    expect(page.locator("ol.diff li")).to_contain_text("What is your temperature, Ada?")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("Done.")).to_be_visible()
    expect(page.get_by_role("cell", name="advanced")).to_be_visible()
    page.get_by_role("link", name="Dead letters", exact=True).first.click()
    expect(page.get_by_text("None like that.")).to_be_visible()
    page.get_by_role("link", name="What was done with dead letters").click()
    expect(page.get_by_role("cell", name="console ada")).to_be_visible()
    find(page, ANNA)
    expect(page.locator(".sms.in").last).to_contain_text("Ada")
    expect(page.get_by_text("to be sent")).to_be_visible()


def test_two_operators_see_how_far_a_replay_is_and_one_stops_it(
    console, town, chromium, browser, page, failing
):
    fell(town, failing, *people(20))
    page.get_by_role("link", name="Dead letters").click()
    page.get_by_role("link", name=re.compile("Replay all")).click()
    page.get_by_label("Letters a second").fill("0.5")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_text("It goes on.")).to_be_visible()
    job = page.url
    page.reload()
    expect(page.get_by_role("progressbar")).not_to_have_attribute("value", "0")
    with chromium.new_context() as second:
        other = signed_in(second, console, "olga", "operator")
        other.goto(job)
        expect(other.get_by_text("It goes on.")).to_be_visible()
        other.get_by_role("button", name="Stop").click()
        expect(other.get_by_text("Stopped.")).to_be_visible()
    expect(page.get_by_text("Stopped.")).to_be_visible()  # by itself
    assert 0 < len(letters_of(town)) < 20


def test_a_page_renews_itself_and_takes_nobody_by_the_hand(town, page, failing):
    fell(town, failing, ANNA)
    find(page, ANNA)
    link = page.get_by_role("link", name=letters_of(town)[0].id)
    link.focus()
    town.accept(ANNA, "Bea")
    town.drain()
    expect(page.get_by_text("Bea", exact=True)).to_be_visible()
    expect(link).to_be_focused()
    expect(page.locator(".sms time").last).not_to_contain_text("UTC")


def test_what_people_write_runs_nowhere(console, town, page, failing):
    """The browser's log is empty at the end: nothing was run, nor stopped."""
    failing.clear()
    failing.add(NASTY[1])
    for text in ("START", NASTY[0], *NASTY):
        town.accept(ANNA, text)
        town.drain()
    put(
        town,
        "worse",
        sender=ANNA,
        why=NASTY[1],
        code=NASTY[0],
        traceback=NASTY[1],
        channel=NASTY[0],
        survey=NASTY[1],
    )
    find(page, ANNA)
    for text in (NASTY[0], *NASTY[2:]):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    base = base_url(console)
    for letter in letters_of(town):
        page.goto(f"{base}/dead-letters/{letter.id}")
        expect(page.get_by_role("heading", level=1)).to_contain_text(letter.id)
    expect(page.get_by_text(NASTY[1]).first).to_be_visible()
    page.goto(f"{base}/dead-letters?error=%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    expect(page.get_by_text("worse")).to_be_visible()


@pytest.fixture
def full(console, town, failing):
    """A town with something on every page."""
    fell(town, failing, *people(3))
    put(
        town,
        "long",
        sender=ANNA,
        why="w" * 600,
        code="x",
        traceback="t" * 500,
        channel="clinic",
        survey="clinic",
    )
    for text in ("STOP", *NASTY):
        town.accept(ANNA, text)
    town.drain()
    return town


def test_pages_of_people_and_letters_are_for_everybody(console, full, page):
    base = base_url(console)
    find(page, ANNA)
    expect(page.get_by_role("heading", level=1)).to_contain_text(ANNA)
    person = page.url
    page.goto(f"{base}/dead-letters/replay")
    page.get_by_role("button", name="Say what would come of it").click()
    expect(page.get_by_text("Done.")).to_be_visible()
    job = page.url
    for address in (
        person,
        f"{person}/erase",
        f"{base}/people",
        f"{base}/dead-letters",
        f"{base}/dead-letters/long",
        f"{base}/dead-letters/{letters_of(full)[0].id}",
        f"{base}/dead-letters/replay",
        f"{base}/dead-letters/drop",
        f"{base}/dead-letters/audit",
        job,
    ):
        assert_accessible(page, address)


def test_the_keyboard_is_enough(town, page, failing):
    fell(town, failing, ANNA)
    (letter,) = letters_of(town)
    page.goto(page.url.rstrip("/") + f"/dead-letters/{letter.id}")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Replay":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_text("Done.")).to_be_visible()
    assert letters_of(town) == []
