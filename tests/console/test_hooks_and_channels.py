"""An operator pauses, resumes and tries from the console what they would by commands; whoever only looks cannot."""

import json

import pytest

from tests.console.visitor import sign_in, text_of
from tests.support.hook_endpoint import SECRET, hook_endpoint
from tests.support.processes import Deployment
from tests.support.waiting import free_port

pytestmark = [pytest.mark.processes, pytest.mark.console]

HOOK = '\n[hooks.crm]\nurl = "{}"\nsecret_env = "PARLEY_CRM_SECRET"\n'


def acts(console):
    told = console.command("audit", "--json").stdout.splitlines()
    return [(each["actor"], each["action"], each["subject"]) for each in map(json.loads, told)]


def test_a_channel_is_paused_and_resumed(console, operator):
    assert "Open." in text_of(operator.get("/channels/clinic"))
    assert (
        operator.post("/channels/clinic", deed="pause", why="carrier <down>", **{"for": "2h"}).status_code
        == 303
    )
    shown = operator.get("/channels/clinic").text
    assert "carrier &lt;down&gt;" in shown
    paused = json.loads(console.command("channel", "list", "--json").stdout.splitlines()[0])
    assert "carrier <down>" in json.dumps(paused)
    assert operator.post("/channels/clinic", deed="resume").status_code == 303
    assert "Open." in text_of(operator.get("/channels/clinic"))
    assert ("console ada", "resume channel", "clinic") in acts(console)
    assert ("console ada", "pause channel", "clinic") in acts(console)


@pytest.mark.parametrize("form", [{"deed": "pause"}, {"deed": "pause", "why": " "}, {"deed": "pause", "why": "x", "for": "9y"}, {}])  # fmt: skip
def test_what_a_form_lacks_is_said_and_nothing_is_done(operator, form):
    told = operator.post("/channels/clinic", **form)
    assert told.status_code == 400
    assert "Open." in text_of(operator.get("/channels/clinic"))


def test_a_viewer_pauses_nothing(viewer):
    assert viewer.post("/channels/clinic", deed="pause", why="x", **{"for": ""}).status_code == 403
    assert "Pause it" not in viewer.get("/channels/clinic").text
    assert viewer.get("/channels/nowhere").status_code == 404


def test_an_endpoint_is_tried_paused_and_resumed(valkey, octopush):
    with hook_endpoint() as endpoint:
        environment = {
            "PARLEY_CONSOLE_PORT": f"{free_port()}",
            "PARLEY_CRM_SECRET": SECRET,
            "PARLEY_HOOKS_ALLOW_PRIVATE": "1",
        }
        with Deployment(valkey.url, valkey.broker_url, octopush, environment=environment) as console:
            config = console.folder / "parley.toml"
            config.write_text(config.read_text() + HOOK.format(endpoint.url))
            console.spawn("console")
            console.wait_running()
            operator = sign_in(console, "ada", "operator")
            assert "took it (2" in text_of(operator.post("/hooks", hook="crm", deed="test"))
            assert operator.post("/hooks", hook="crm", deed="pause", why="it moves", **{"for": ""}).ok
            assert "paused by ada: it moves" in text_of(operator.get("/hooks"))
            assert operator.post("/hooks", hook="crm", deed="resume").ok
            assert "it moves" not in operator.get("/hooks").text
            assert operator.post("/hooks", hook="other", deed="test").status_code == 404
