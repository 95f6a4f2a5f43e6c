"""A table of people is uploaded, checked and sent in a real browser; with a keyboard, at any width, with and without script."""

import pytest
from playwright.sync_api import expect

from tests.console.axe_check import assert_accessible
from tests.console.test_inviting import NASTY_NAME, held, people, table
from tests.console.visitor import base_url, make_link
from tests.support.clinic import number
from tests.support.waiting import HANG_S, until

pytestmark = [pytest.mark.processes, pytest.mark.console]

NASTY_CELL = "<img src=x onerror=alert(1)>"
CAMPAIGN = "winter <b>26</b>"


@pytest.fixture
def page(inviting, browser):
    return signed_in(browser, inviting)


def signed_in(context, inviting):
    page = context.new_page()
    page.goto(make_link(inviting, "ada", "operator"))
    page.get_by_role("button", name="Sign in with this link").click()
    expect(page.get_by_role("link", name="Campaigns")).to_be_visible()
    return page


def fill_in(page, content, **fields):
    page.get_by_role("link", name="Campaigns").click()
    page.get_by_role("link", name="Invite people").click()
    page.get_by_label("Campaign", exact=True).fill(CAMPAIGN)
    page.get_by_label("Table of people").set_input_files(
        {"name": NASTY_NAME, "mimeType": "text/csv", "buffer": content}
    )
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " ")).fill(value)
    page.get_by_role("button", name="Check it").click()


def test_people_are_uploaded_checked_seen_and_invited(inviting, valkey, page):
    rows = [*people(12), f"06,{NASTY_CELL}", *[f"{number(3)},{NASTY_CELL}"]]
    fill_in(page, table(*rows, head=f"phone,{NASTY_CELL}"))
    expect(page.get_by_role("heading", name="Invite people to clinic")).to_be_visible()
    expect(page.get_by_text("expected a key of letters").first).to_be_visible()
    fill_in(page, table(*rows), Price_of_a_segment="0.05", Budget_of_the_campaign="1000")
    expect(page.get_by_role("button", name="Invite 13 people")).to_be_visible()
    assert held(valkey) == 0
    check = page.url
    for address in (check, f"{base_url(inviting)}/invite"):
        assert_accessible(page, address)
    page.goto(check)
    page.get_by_role("button", name="Invite 13 people").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Done.")).to_be_visible()
    assert_accessible(page, page.url)
    page.get_by_role("link", name="The table").click()
    expect(page.get_by_text("13 invited, 0 had been before, 0 refused.")).to_be_visible()
    assert_accessible(page, page.url)
    assert held(valkey) == 13
    page.get_by_role("link", name=CAMPAIGN).click()
    expect(page.get_by_text("It costs at most")).to_be_visible()
    assert_accessible(page, page.url)


def test_without_script_it_is_the_same(inviting, valkey, chromium):
    with chromium.new_context(java_script_enabled=False) as context:
        page = signed_in(context, inviting)
        fill_in(page, table(*people(3)))
        invite = page.get_by_role("button", name="Invite 3 people")
        until(lambda: invite.is_visible() or page.reload() is None, HANG_S, "it is checked")
        invite.click()
        expect(page.get_by_role("heading", name="People are invited")).to_be_visible()
        until(
            lambda: page.get_by_text("Done.").is_visible() or page.reload() is None, HANG_S, "all are invited"
        )
        assert held(valkey) == 3


def test_a_table_that_is_too_large_is_told(inviting, page, browser_log):
    """A browser shows an answer only once it has sent all that it has to send."""
    fill_in(page, table(*people(1)) + b" " * 40_000_000)
    expect(page.get_by_text("A table may have 20 MB. Nobody was invited.")).to_be_visible()
    assert [line for line in browser_log if "413" not in line] == []
    browser_log.clear()
