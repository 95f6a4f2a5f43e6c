"""A client that is generated from the API's description works against a real `web`: it invites, one and many, follows, lists and
cancels. What a generator makes of a description is how other applications meet it."""

import importlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
import requests

from tests.support.archive_writer import ArchiveWriter, finished_session
from tests.support.inviting import KEY, key_table

PACKAGE = "parley_client"
CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic"]
"""
GENERATOR = f"""
package_name_override: {PACKAGE}
content_type_overrides:
  application/x-ndjson: application/octet-stream
  application/problem+json: application/json
post_hooks: []
"""
OVER, AT = "1f0c52a7b1e94d03", 1_700_000_000_000
PERSON, OTHER = "+33612345678", "+33612345679"


@pytest.fixture
def base(web, tmp_path):
    """Of a session that is over the archive tells."""
    (tmp_path / "parley.toml").write_text(CONFIG + key_table())
    with ArchiveWriter(f"sqlite:///{tmp_path / 'archive.db'}", 16) as archive:
        archive.add(0, AT, PERSON, *finished_session(OVER, AT))
        archive.read_all_until(AT + 1)
    return web(PARLEY_CONFIG=str(tmp_path / "parley.toml"))


@pytest.fixture
def generated(base, tmp_path, monkeypatch):
    """A function: the name of a module of the client -> that module. Nothing is left out of the description."""
    document = tmp_path / "openapi.json"
    document.write_bytes(requests.get(f"{base}/v1/openapi.json", timeout=60).content)
    (tmp_path / "generator.yaml").write_text(GENERATOR)
    folder = tmp_path / "generated" / PACKAGE
    folder.parent.mkdir()
    made = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--path", document, "--meta", "none",
         "--config", tmp_path / "generator.yaml", "--output-path", folder, "--fail-on-warning"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.syspath_prepend(str(folder.parent))
    yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
    for name in [each for each in sys.modules if each.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def client(generated, base):
    with generated("client").AuthenticatedClient(base_url=base, token=KEY) as opened:
        yield opened


def test_a_generated_client_invites_follows_lists_and_cancels(generated, client):
    models = generated("models")
    later = datetime.now(UTC) + timedelta(days=2)
    body = models.Body(
        identifier=PERSON, channel="clinic", client_reference="r", campaign="spring", send_at=later,
        user_session_variables=[models.Variable(key="agentid", value="7")],
    )  # fmt: skip
    invite = generated("api.invitations.invite")
    accepted = invite.sync(survey="clinic", client=client, body=body)
    assert (accepted.state, accepted.client_reference) == ("accepted", "r")
    assert abs(accepted.starts_after - later) < timedelta(milliseconds=2)
    again = invite.sync_detailed(survey="clinic", client=client, body=body)
    assert (again.status_code, again.parsed.id) == (200, accepted.id)
    follow = generated("api.sessions.session")
    session = follow.sync(session=accepted.id, client=client)
    assert session.state is models.SessionViewState.HELD
    assert session.variables.to_dict() == {"agentid": "7"}
    found = generated("api.sessions.session_by_reference").sync(client=client, client_reference="r")
    assert found.id == accepted.id
    listed = generated("api.campaigns.campaigns").sync(client=client)
    assert [(each.name, each.states.to_dict()) for each in listed.campaigns] == [("spring", {"held": 1})]
    assert generated("api.sessions.cancel").sync(session=accepted.id, client=client).state == "cancelled"
    spring = generated("api.campaigns.campaign").sync(campaign="spring", client=client)
    assert (spring.state, spring.states.to_dict()) == ("done", {"cancelled": 1})
    page = generated("api.results.results").sync(survey="clinic", client=client)
    assert [(each.id, each.state) for each in page.results] == [(OVER, models.ResultViewState.COMPLETED)]
    assert page.results[0].answers["temperature"].value == 98.6


def test_a_generated_client_is_told_what_is_wrong(generated, client):
    models = generated("models")
    body = models.Body(identifier="06", language="xx", send_at="09:99")
    refused = generated("api.invitations.invite").sync_detailed(survey="clinic", client=client, body=body)
    assert refused.status_code == 422
    assert {each.pointer for each in refused.parsed.errors} == {"/identifier", "/language", "/sendAt"}
    missing = generated("api.sessions.session").sync_detailed(session="0" * 16, client=client)
    assert (missing.status_code, missing.parsed.title) == (404, "no such session")


@pytest.mark.parametrize("operation", ["foresee", "invite_many"])
def test_a_generated_client_invites_many_and_is_told_before(generated, client, operation):
    models, types = generated("models"), generated("types")
    bodies = [
        models.Body(identifier=PERSON, client_reference="a", send_at="09:00"),
        models.Body(identifier="06", client_reference="b"),
        models.Body(identifier=OTHER, client_reference="c"),
    ]
    lines = b"".join(json.dumps(each.to_dict()).encode() + b"\n" for each in bodies)
    module = generated(f"api.invitations.{operation}")
    answered = module.sync(survey="clinic", client=client, body=types.File(payload=BytesIO(lines)))
    results = [models.LineResult.from_dict(json.loads(line)) for line in answered.payload.read().splitlines()]
    assert [(each.status, each.client_reference) for each in results] == [(202, "a"), (422, "b"), (202, "c")]
    found = generated("api.sessions.session_by_reference").sync_detailed(client=client, client_reference="c")
    assert found.status_code == (404 if operation == "foresee" else 200)
