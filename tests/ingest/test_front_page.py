"""`GET /` says where things are, and nothing that is anybody's."""

import re

import pytest
import requests

from config.settings.settings import load_settings
from ingest.front_page import FrontPageResource
from tests.support.waiting import free_port

SHIPPED = "config/parley.toml"


def paths_on(page):
    return set(re.findall(r"^  (/\S+)", page, re.MULTILINE))


def test_every_path_on_it_is_there(web):
    base = web()
    answer = requests.get(f"{base}/", timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert paths_on(answer.text) == {
        "/webhooks/<channel>", "/v1/openapi.json", "/readyz", "/healthz", "/metrics", "/simulator/phones/<number>",
    }  # fmt: skip
    for path in paths_on(answer.text):
        there = path.replace("<channel>", "clinic").replace("<number>", "1?wait=0")
        assert requests.get(f"{base}{there}", timeout=60).status_code != 404


def test_metrics_that_are_elsewhere_are_not_on_it(web):
    page = requests.get(f"{web(PARLEY_METRICS_PORT=str(free_port()))}/", timeout=60).text
    assert "/metrics" not in paths_on(page)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_it_is_only_read(web, method):
    assert requests.request(method, f"{web()}/", timeout=60).status_code == 405


def test_it_tells_nothing_of_the_deployment(tmp_path):
    (tmp_path / "parley.toml").write_text(
        '[channels.secret-clinic]\nprovider = "octopush"\nnumber = "+33700000001"\nsurveys = ["clinic"]\n'
        'token_env = "TOKEN"\n'
    )
    environ = {
        "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
        "TOKEN": "s3cret",
        "PARLEY_OCTOPUSH_KEY": "k3y",
    }
    page = FrontPageResource(load_settings(environ))._page.decode()
    for told in ("secret-clinic", "33700000001", "s3cret", "k3y", "octopush", "simulator"):
        assert told not in page
