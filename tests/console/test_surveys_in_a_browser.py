"""Surveys in a real browser: a conversation on the phone beside the graph, by the engine and live; a survey edited on disk."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.console.surveyed import CLINIC, EVIL_NAME, surveyed_console, write_archive
from tests.console.visitor import make_link

pytestmark = [pytest.mark.processes, pytest.mark.console]

WIDTHS = (360, 1_600)


@pytest.fixture
def surveyed(valkey, octopush, tmp_path, request):
    is_simulated = "simulated" in request.node.name
    with surveyed_console(valkey, octopush, tmp_path, is_simulated=is_simulated) as deployment:
        yield deployment


@pytest.fixture
def page(surveyed, browser):
    page = browser.new_page()
    page.goto(make_link(surveyed, "ada"))
    page.get_by_role("button", name="Sign in with this link").click()
    expect(page.get_by_role("link", name="Surveys")).to_be_visible()
    page.base = page.url.rstrip("/")
    return page


def text_it(page, text):
    page.get_by_label("Text").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".sms.out").last).to_contain_text(text)


def here(page, step):
    """The step is marked on the graph as where the conversation is."""
    expect(page.locator(f'.graph .step.here[data-step="{step}"]')).to_have_count(1)


def test_a_whole_conversation_by_the_engine_with_time_skipped(surveyed, page):
    page.goto(page.base + "/surveys/clinic")
    text_it(page, "START")
    here(page, "name")
    expect(page.get_by_label("Text")).to_be_focused()
    text_it(page, EVIL_NAME)
    here(page, "pain")
    expect(page.locator('.graph .step.been[data-step="name"]')).to_have_count(1)
    page.get_by_role("button", name="Skip 5 min").click()
    expect(page.locator(".sms.in").last).to_contain_text("Still there?")
    text_it(page, "a lot")
    here(page, "pain")
    page.get_by_role("button", name="Take it back").click()
    expect(page.locator(".sms.out").last).to_contain_text(EVIL_NAME)
    text_it(page, "7")
    here(page, "bye")
    expect(page.locator(".sms.in").last).to_contain_text("Get well soon.")
    expect(page.locator(".happening").last).to_contain_text("completed")
    page.get_by_text("As a transcript").click()
    expect(page.locator("pre")).to_contain_text("> 7")


def test_the_graph_changes_as_the_survey_is_edited_and_the_conversation_stays(surveyed, page):
    page.goto(page.base + "/surveys/clinic")
    text_it(page, "START")
    page.get_by_label("Text").fill("half a wo")
    surveyed.survey_file.write_text(CLINIC.replace("Get well soon.", "Take care of yourself."))
    expect(page.locator(".graph")).to_contain_text("Take care of yourself.")
    expect(page.get_by_label("Text")).to_have_value("half a wo")
    here(page, "name")
    surveyed.survey_file.write_text("survey: [")
    text_it(page, "Ada")
    expect(page.locator("#phone .problem")).to_contain_text("The survey has changed")
    here(page, "pain")


def test_numbers_on_the_graph_come_by_themselves(surveyed, page):
    page.goto(page.base + "/surveys/clinic")
    expect(page.locator("#survey-body")).to_contain_text("There is no archive")
    write_archive(surveyed)
    expect(page.locator(".graph")).to_contain_text("3 reached it")
    page.locator('.graph [data-step="bye"]').click()
    expect(page.locator("h1")).to_contain_text("at bye")
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_conversation_live_on_a_simulated_channel(surveyed, page):
    surveyed.start()
    page.goto(page.base + "/surveys/clinic?phone=live")
    text_it(page, "START")
    expect(page.locator(".sms.in").last).to_contain_text("Your name?")
    here(page, "name")
    text_it(page, EVIL_NAME)
    expect(page.locator(".sms.in").last).to_contain_text("How much pain")
    here(page, "pain")
    expect(page.locator("#survey-body")).to_contain_text("1 sessions opened: 1 open")
    page.get_by_role("link", name="2", exact=True).click()
    expect(page.locator("#live-screen")).to_contain_text("Nothing has come yet.")


@pytest.mark.parametrize(
    "path",
    ["/surveys", "/surveys/clinic", "/surveys/clinic?phone=live", "/surveys/clinic/people?step=bye", "/results", "/results/clinic"],
)  # fmt: skip
def test_axe_finds_nothing_wrong_with_what_people_wrote(surveyed, page, path):
    write_archive(surveyed)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            page.goto(page.base + path)
            expect(page.get_by_text("being counted")).to_have_count(0)
            expect(page.get_by_text("being proved")).to_have_count(0)
            if path == "/surveys/clinic":
                text_it(page, "START")
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_step_is_reached_without_a_mouse(surveyed, page):
    write_archive(surveyed)
    page.goto(page.base + "/surveys/clinic")
    expect(page.locator(".graph")).to_contain_text("3 reached it")
    page.locator('.graph a[aria-label="name"]').focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("at pain")
