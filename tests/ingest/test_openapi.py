"""The API is as its description says: schemathesis asks a real `web` process whatever the description allows, and more."""

from functools import cache

import msgspec
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings

from ingest.api.description import openapi_document
from ingest.api.invitation_parser import derive_session_id
from tests.support.example_counts import examples
from tests.support.inviting import KEY, Api, key_table

EXAMPLES = examples(60)
KNOWN = derive_session_id("clinic", "r")
NOT_OURS = {
    "positive_data_acceptance",  # a number may be no mobile, a channel not there: what is well-formed may be refused
    "max_response_time",
}


@cache
def narrowed():
    """The description, in which what depends on the deployment is what the deployment has."""
    import schemathesis  # noqa: PLC0415 (takes a second, and processes that run other tests collect this file too)

    described = msgspec.json.decode(msgspec.json.encode(openapi_document()))
    (survey,) = described["paths"]["/v1/surveys/{survey}/invitations"]["post"]["parameters"]
    survey["schema"]["enum"] = ["clinic"]
    fields = described["components"]["schemas"]["Body"]["properties"]
    for name, known in {
        "identifier": ["+33612345678", "+447400123456"],
        "channel": ["clinic", "SMS"],
        "language": ["", "en"],
    }.items():
        fields[name]["enum"] = known
    for name in ("expiryTime", "originator"):
        fields[name]["enum"] = [""]
    for method in ("get", "delete"):
        described["paths"]["/v1/sessions/{session}"][method]["parameters"][0]["schema"]["enum"] = [
            KNOWN,
            "0" * 16,
        ]
    reference, channel = described["paths"]["/v1/sessions"]["get"]["parameters"]
    reference["schema"]["enum"], channel["schema"]["enum"] = ["r"], ["clinic", "SMS", ""]
    return schemathesis.openapi.from_dict(described)


OPERATIONS = [(path, method) for path, methods in openapi_document()["paths"].items() for method in methods]


@pytest.fixture
def base(web, tmp_path):
    config = '[channels.clinic]\nnumber = "+33700000001"\nsurveys = ["clinic"]\n' + key_table()
    (tmp_path / "parley.toml").write_text(config)
    started = web(PARLEY_CONFIG=str(tmp_path / "parley.toml"))
    assert Api(started).invite(identifier="+33612345678", clientReference="r").json()["id"] == KNOWN
    return started


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("path, method", OPERATIONS)
def test_the_api_is_as_described(base, path, method, mode):
    from schemathesis import GenerationMode  # noqa: PLC0415
    from schemathesis.checks import CHECKS, load_all_checks  # noqa: PLC0415

    load_all_checks()
    checks = CHECKS.get_by_names([name for name in CHECKS.get_all_names() if name not in NOT_OURS])

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=narrowed()[path][method].as_strategy(generation_mode=GenerationMode(mode)))
    def ask(case):
        case.call_and_validate(base_url=base, headers={"Authorization": f"Bearer {KEY}"}, checks=checks)

    ask()


def test_the_description_is_served_to_anybody(base):
    reply = requests.get(f"{base}/v1/openapi.json", timeout=60)
    assert reply.content == msgspec.json.encode(openapi_document())


def test_every_field_of_puzzels_survey_is_described():
    fields = openapi_document()["components"]["schemas"]["Body"]["properties"]
    puzzels = {
        "identifier",
        "identifierType",
        "channel",
        "content",
        "clientReference",
        "expiryTime",
        "userSessionVariables",
    }
    assert puzzels <= set(fields)
