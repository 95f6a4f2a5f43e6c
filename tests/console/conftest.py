"""A console before a real pipeline, and those who look at it: with requests, and with a real browser."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.console.visitor import Visitor, sign_in
from tests.support.inviting import KEY, key_table
from tests.support.processes import Deployment
from tests.support.waiting import HANG_S, PATIENCE, free_port
from tests.workers.conftest import failing  # noqa: F401 (a fixture)

CHROMIUM = shutil.which("chromium")
CHROMIUM_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture
def console(valkey, octopush) -> Iterator[Deployment]:
    """Parley without limits, of which only `console` runs: `start` what else a test needs."""
    environment = {"PARLEY_CONSOLE_PORT": f"{free_port()}"}
    with Deployment(valkey.url, valkey.broker_url, octopush, environment=environment) as deployment:
        deployment.spawn("console")
        deployment.wait_running()
        yield deployment


@pytest.fixture
def inviting(valkey, octopush):
    """`web`, to which the console has a key."""
    environment = {"PARLEY_CONSOLE_PORT": f"{free_port()}", "PARLEY_API_KEY": KEY}
    with Deployment(valkey.url, valkey.broker_url, octopush, environment=environment) as deployment:
        config = deployment.folder / "parley.toml"
        config.write_text(config.read_text() + key_table())
        deployment.spawn("web")
        deployment.spawn("console")
        deployment.wait_ready()
        deployment.wait_running()
        yield deployment


@pytest.fixture
def operator(console) -> Visitor:
    """Signed in as who may everything."""
    return sign_in(console, "ada", "operator", "privacy")


@pytest.fixture
def viewer(console) -> Visitor:
    return sign_in(console, "vera", "viewer")


@pytest.fixture
def chromium() -> Iterator[Browser]:
    """A browser of the test's own: while one is there, nothing else in this thread can have an event loop."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        expect.set_options(timeout=HANG_S * PATIENCE * 1_000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_OPTIONS])
        yield browser
        browser.close()


@pytest.fixture
def browser_log() -> list[str]:
    """What the browser has to say of the pages. Who expects any of it takes it out."""
    return []


@pytest.fixture
def browser(chromium, browser_log) -> Iterator[BrowserContext]:
    """A browser that nobody has used, whose log must stay empty: a page that the policy stops, or that fails, says so there."""
    context = chromium.new_context(locale="en-GB", timezone_id="Europe/Paris")
    context.set_default_timeout(HANG_S * PATIENCE * 1_000)
    context.on("console", lambda message: browser_log.append(message.text))
    context.on("weberror", lambda error: browser_log.append(str(error.error)))
    yield context
    context.close()
    assert browser_log == []
