"""Pages as a real browser shows them: nothing that the policy stops, no mistake of a script, and what axe finds wrong."""

from itertools import product

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.console.visitor import make_link

pytestmark = [pytest.mark.processes, pytest.mark.console]

PAGES = (
    "/", "/people", "/dead-letters", "/dead-letters/audit", "/surveys", "/surveys/clinic", "/surveys/clinic/people",
    "/results", "/results/clinic", "/campaigns", "/invite", "/channels/clinic", "/hooks", "/audit", "/sessions",
)  # fmt: skip
WIDTHS = (360, 1_600)


@pytest.fixture
def page(console, browser):
    """A page of someone who has signed in with a click."""
    page = browser.new_page()
    page.goto(make_link(console, "ada", "operator"))
    page.get_by_role("button", name="Sign in with this link").click()
    expect(page.get_by_role("link", name="Now")).to_be_visible()
    return page


def test_axe_finds_nothing_wrong_and_nothing_runs_over_the_margin(page):
    base = page.url.rstrip("/")
    for path, scheme, width in product(PAGES, ("light", "dark"), WIDTHS):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        page.goto(base + path)
        found = Axe().run(page)
        assert found.violations_count == 0, f"{path} {scheme} {width}\n{found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} {width}"


def test_times_are_those_of_whoever_looks(page):
    page.goto(page.url + "audit")
    shown = page.locator("time").first
    expect(shown).not_to_contain_text("UTC")
    assert shown.get_attribute("datetime").endswith("+00:00")
