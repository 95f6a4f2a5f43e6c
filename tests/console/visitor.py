"""Someone who looks at the console with a program: what a browser sends, and no more."""

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from tests.support.processes import Deployment
from tests.support.waiting import HANG_S

PROXY = "127.0.0.2"

AGENT = "Mozilla/5.0 (of a test)"


def base_url(console: Deployment) -> str:
    return f"http://127.0.0.1:{console.environment['PARLEY_CONSOLE_PORT']}"


def make_link(console: Deployment, name: str, *roles: str) -> str:
    """A one-time link, as `parley console link` prints it."""
    options = [word for role in roles for word in ("--role", role)]
    told = console.command("console", "link", "--name", name, *options)
    assert told.returncode == 0, told.stderr
    return told.stdout.strip()


def sign_in(console: Deployment, name: str, *roles: str) -> "Visitor":
    visitor = Visitor(base_url(console))
    told = visitor.post("/sign-in", link=make_link(console, name, *roles).partition("link=")[2])
    assert told.status_code == 303, told.text
    return visitor


def trust_proxy(console: Deployment, tables: str = "") -> None:
    """Start its console anew with PROXY as a trusted one, and more `tables`."""
    config = console.folder / "parley.toml"
    config.write_text(f'{config.read_text()}\n[console]\nproxies = ["{PROXY}"]\n{tables}')
    (process,) = console.of("console")
    process.kill9()
    process.log.write_bytes(b"")
    process.restart()
    console.wait_running()


class _FromAddress(HTTPAdapter):
    """Connects from an address of this machine."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, **named, source_address=(self._address, 0))


class Visitor:
    def __init__(self, base: str, agent: str = AGENT, address: str = "") -> None:
        self.base = base
        self.session = requests.Session()
        if address:
            self.session.mount("http://", _FromAddress(address))
        self.session.headers["User-Agent"] = agent

    def get(self, path: str, headers: Mapping[str, str] | None = None, **query: str) -> requests.Response:
        return self.session.get(
            self.base + path, params=query, headers=headers, timeout=HANG_S, allow_redirects=False
        )

    def post(self, path: str, headers: Mapping[str, str] | None = None, **form: str) -> requests.Response:
        """What a form of the console's own page sends; other `headers` are in place of those that say so."""
        sent = {"Sec-Fetch-Site": "same-origin"} if headers is None else headers
        return self.session.post(
            self.base + path, data=form, headers=sent, timeout=HANG_S, allow_redirects=False
        )

    def upload(self, path: str, file_name: str, content: bytes, **form: str) -> requests.Response:
        """What a form with a file in it sends."""
        return self.session.post(
            self.base + path,
            data=form,
            files={"file": (file_name, content, "text/csv")},
            headers={"Sec-Fetch-Site": "same-origin"},
            timeout=HANG_S,
            allow_redirects=False,
        )


def text_of(page: requests.Response) -> str:
    """What a page says, without its tags."""
    return unescape(" ".join(re.sub("<[^>]*>", " ", page.text).split()))
