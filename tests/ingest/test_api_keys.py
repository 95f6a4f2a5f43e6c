"""What a key may: every request of the API, by every kind of key."""

import json
from typing import NamedTuple

import pytest

from ingest.api.description import openapi_document
from tests.support.archive_writer import PERSON, ArchiveWriter, finished_session
from tests.support.inviting import LINES, Api, key_table

AT = 1_700_000_000_000
CONFIG = """
[channels.clinic]
number = "+33700000001"
surveys = ["clinic", "quiz"]
[channels.ward]
number = "+33700000003"
surveys = ["clinic"]
"""
FINISHED = "00000000000000aa"
CAMPAIGN = "spring"


class Kind(NamedTuple):
    """A kind of key: its table's lines, and the statuses that each request is answered with."""

    lines: str = ""
    channels: tuple[str, ...] = ("clinic",)
    reads: int = 200
    invites: int = 202
    cancels: int = 200
    counts: int = 200


KINDS = {
    "as ever": Kind(),
    "reads only": Kind("read_only = true", invites=403, cancels=403),
    "of this survey": Kind('surveys = ["clinic"]'),
    "of another survey": Kind('surveys = ["quiz"]', reads=404, invites=403, cancels=404, counts=404),
    "without numbers": Kind("numbers = false"),
    "of another channel": Kind(channels=("ward",), reads=404, invites=403, cancels=404),
    "reads one survey without numbers": Kind(
        'surveys = ["clinic"]\nread_only = true\nnumbers = false', invites=403, cancels=403
    ),
}


@pytest.fixture
def archive(tmp_path):
    with ArchiveWriter(f"sqlite:///{tmp_path / 'archive.db'}", 16) as made:
        made.add(0, AT, PERSON, *finished_session(FINISHED, AT))
        made.read_all_until(AT + 1)
        yield made


@pytest.fixture
def base(web, tmp_path, archive):
    tables = [
        key_table(str(n), name, kind.channels, more=kind.lines)
        for n, (name, kind) in enumerate(KINDS.items())
    ]
    (tmp_path / "parley.toml").write_text(CONFIG + "".join(tables) + key_table("owner", "owner"))
    return web(PARLEY_CONFIG=str(tmp_path / "parley.toml"), PARLEY_ARCHIVE_URL=archive.url)


def answers(base, name):
    """Every operation of the API -> what it answers to the key."""
    held = (
        Api(base, "owner")
        .invite(identifier=PERSON, channel="clinic", clientReference="r", campaign=CAMPAIGN)
        .json()["id"]
    )
    api = Api(base, name)
    line = json.dumps({"identifier": PERSON, "channel": "clinic", "clientReference": f"{name} line"}).encode()
    return {
        "invite": api.invite(identifier=PERSON, channel="clinic", clientReference=name),
        "inviteMany": api.send("POST", "/v1/surveys/clinic/invitations/many", line, LINES),
        "foresee": api.send("POST", "/v1/surveys/clinic/invitations/dry-run", line, LINES),
        "campaigns": api.get("/v1/campaigns"),
        "campaign": api.get(f"/v1/campaigns/{CAMPAIGN}"),
        "changeCampaign": api.send("PATCH", f"/v1/campaigns/{CAMPAIGN}", b'{"paused": true}'),
        "session": api.session(held),
        "sessionByReference": api.find(clientReference="r", channel="clinic"),
        "surveys": api.get("/v1/surveys"),
        "results": api.get("/v1/surveys/clinic/results"),
        "sessions": api.get("/v1/surveys/clinic/sessions"),
        "funnel": api.get("/v1/surveys/clinic/funnel"),
        "codebook": api.get("/v1/surveys/clinic/codebook"),
        "cancel": api.cancel(held),
    }


@pytest.mark.parametrize("name", KINDS)
def test_every_request_is_answered_by_what_the_key_may(base, name):
    kind, got = KINDS[name], answers(base, name)
    by_reference = 400 if kind.channels == ("ward",) else kind.reads
    lines = 200 if kind.channels == ("ward",) or kind.invites == 202 else kind.invites
    assert {operation: reply.status_code for operation, reply in got.items()} == {
        "invite": kind.invites, "session": kind.reads, "sessionByReference": by_reference, "surveys": 200,
        "results": kind.counts, "sessions": kind.counts, "funnel": kind.counts, "codebook": kind.counts,
        "cancel": kind.cancels, "inviteMany": lines, "foresee": lines, "campaigns": 200,
        "campaign": kind.reads, "changeCampaign": 403 if "read_only" in kind.lines else kind.reads,
    }  # fmt: skip
    described = [method for methods in openapi_document()["paths"].values() for method in methods.values()]
    assert {each["operationId"] for each in described} == got.keys(), "a new operation belongs into this test"
    shown = json.dumps([reply.text for reply in got.values()])
    may_see_numbers = "numbers = false" not in kind.lines and kind.reads == 200
    assert (PERSON in shown) == may_see_numbers


def test_a_key_without_numbers_shows_one_pseudonym_for_a_person_everywhere(base, archive):
    got = answers(base, "without numbers")
    pseudonym = archive.pseudonyms.of(PERSON)
    (result,) = got["results"].json()["results"]
    assert [result["pseudonym"], got["session"].json()["pseudonym"], got["cancel"].json()["pseudonym"]] == [
        pseudonym
    ] * 3
    assert not any("identifier" in each for each in (result, got["session"].json()))
    reply = Api(base, "without numbers").get("/v1/surveys/clinic/sessions", {"number": PERSON})
    assert (reply.status_code, "may not see numbers" in reply.json()["detail"]) == (400, True)


def test_a_key_of_another_channel_sees_none_of_its_sessions(base):
    got = answers(base, "of another channel")
    assert got["results"].json()["results"] == got["sessions"].json()["results"] == []
    (clinic,) = got["surveys"].json()["surveys"]
    assert (clinic["name"], clinic["channels"], clinic["sessions"]) == ("clinic", ["ward"], {})
    reply = Api(base, "of another channel").get("/v1/surveys/clinic/results", {"channel": "clinic"})
    assert (reply.status_code, "expected ward" in reply.json()["detail"]) == (400, True)


def test_a_key_of_a_survey_is_told_of_that_alone(base):
    (quiz,) = answers(base, "of another survey")["surveys"].json()["surveys"]
    assert quiz["name"] == "quiz"
    reply = Api(base, "of another survey").invite(identifier=PERSON, channel="clinic")
    assert (reply.json()["title"], reply.json()["detail"]) == (
        "the key is not for this survey",
        "expected quiz",
    )


def test_while_the_archive_is_away_a_session_is_told_without_a_pseudonym(web, tmp_path):
    table = key_table(more="numbers = false") + key_table("owner", "owner")
    (tmp_path / "parley.toml").write_text(CONFIG + table)
    nowhere = f"sqlite:///{tmp_path / 'nowhere.db'}"
    base = web(PARLEY_CONFIG=str(tmp_path / "parley.toml"), PARLEY_ARCHIVE_URL=nowhere)
    held = Api(base, "owner").invite(identifier=PERSON, channel="clinic").json()["id"]
    told = Api(base).session(held).json()
    assert (told["state"], {"identifier", "pseudonym"} & told.keys()) == ("held", set())
