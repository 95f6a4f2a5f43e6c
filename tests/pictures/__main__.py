"""`python -m tests.pictures`: let a clinic work for some minutes, and take the pictures of README.md."""

from pathlib import Path

import click
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.bench.console_side import WAITING_WORDS
from tests.console.conftest import CHROMIUM, CHROMIUM_OPTIONS
from tests.console.visitor import make_link
from tests.pictures.clinic_day import clinic_at_work, let_people_text
from tests.support.processes import Deployment

FOLDER = Path(__file__).parent
SCHEMES = ("light", "dark")
NOW_SIZE, SURVEY_SIZE = (1_200, 800), (1_060, 800)
"""Width and height."""

MAX_BYTES = 150_000
LIVE_MS = 5_000
"""A page that is live has been brought up to date by then."""

TALK = ("START", "Amina", "101.5")
"""What is said on the phone beside the graph."""


@click.command()
@click.option(
    "--minutes", default=12, show_default=True, help="Of the clinic's day; a curve of ten takes eleven."
)
def main(minutes: int) -> None:
    """Take the pictures anew.

    \b
    Example:
      make pictures MINUTES=3
    """
    assert CHROMIUM, "chromium is not installed: apt-get install chromium"
    with clinic_at_work() as (deployment, octopush):
        let_people_text(deployment, octopush, minutes)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_OPTIONS])
            take_pictures(deployment, browser)


def take_pictures(deployment: Deployment, browser: Browser) -> None:
    """Each picture in light and dark, for who reads README.md in either."""
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Paris")
    page = context.new_page()
    page.goto(make_link(deployment, "ada", "operator"))
    page.get_by_role("button", name="Sign in with this link").click()
    expect(page.locator(".tile").first).to_be_visible()
    take(page, "now", NOW_SIZE)
    survey = page.url + "surveys/clinic"
    while page.goto(survey) and WAITING_WORDS in page.content():
        page.wait_for_timeout(LIVE_MS)
    page.wait_for_timeout(LIVE_MS)  # who comes is sent first what others were sent last
    for text in TALK:
        page.get_by_label("Text").fill(text)
        page.keyboard.press("Enter")
        expect(page.locator(".sms.out").last).to_contain_text(text)
    expect(page.locator(".graph .step.here")).to_have_count(1)
    expect(page.locator(".graph")).to_contain_text("reached it")
    take(page, "survey", SURVEY_SIZE)
    context.close()


def take(page: Page, name: str, size: tuple[int, int]) -> None:
    """The upper part of the page, without a caret that blinks."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.evaluate(
        "document.activeElement.blur(); document.querySelectorAll('main, section').forEach(it => it.scrollTo(0, 0))"
    )
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        path = FOLDER / f"{name}-{scheme}.png"
        page.screenshot(path=path)
        assert path.stat().st_size <= MAX_BYTES, f"{path.name} has {path.stat().st_size:,} bytes"
        click.echo(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
