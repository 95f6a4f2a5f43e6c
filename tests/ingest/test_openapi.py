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
SCENARIOS = examples(20)
KNOWN = derive_session_id("clinic", "r")
NOT_OURS = {
    "use_after_free",  # what was cancelled is told of as cancelled, not forgotten
    "max_response_time",
}


def narrowed_document():
    """The description, in which what depends on the deployment is what the deployment has, and what no schema can say of
    variables, whose keys are alike in any case, is so."""
    described = msgspec.json.decode(msgspec.json.encode(openapi_document()))
    (survey,) = described["paths"]["/v1/surveys/{survey}/invitations"]["post"]["parameters"]
    survey["schema"]["enum"] = ["clinic"]
    fields = described["components"]["schemas"]["Body"]["properties"]
    for name, known in {
        "identifier": ["+33612345678", "+447400123456"],
        "channel": ["clinic", "SMS"],
        "language": ["", "en"],
        "expiryTime": [""],
        "sendAt": [""],
        "originator": [""],
    }.items():
        fields[name]["enum"] = known
    _, variables = fields["userSessionVariables"]["anyOf"]
    variables["propertyNames"]["pattern"] = "^[a-z_][a-z0-9_-]*$"
    fields["userSessionVariables"] = variables
    for method in ("get", "delete"):
        described["paths"]["/v1/sessions/{session}"][method]["parameters"][0]["schema"]["enum"] = [
            KNOWN,
            "0" * 16,
        ]
    reference, channel = described["paths"]["/v1/sessions"]["get"]["parameters"]
    reference["schema"]["enum"], channel["schema"]["enum"] = ["r"], ["clinic", "SMS", ""]
    return described


@cache
def narrowed():
    import schemathesis  # noqa: PLC0415 (takes a second, and processes that run other tests collect this file too)

    return schemathesis.openapi.from_dict(narrowed_document())


def all_our_checks():
    from schemathesis.checks import CHECKS, load_all_checks  # noqa: PLC0415

    load_all_checks()
    return CHECKS.get_by_names([name for name in CHECKS.get_all_names() if name not in NOT_OURS])


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

    checks = all_our_checks()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=narrowed()[path][method].as_strategy(generation_mode=GenerationMode(mode)))
    def ask(case):
        case.call_and_validate(base_url=base, headers={"Authorization": f"Bearer {KEY}"}, checks=checks)

    ask()


def test_what_links_lead_to_is_as_described(base):
    """From an invitation to its session and its end, and on from there, in whatever order."""
    checks = all_our_checks()
    followed = set()

    class Story(narrowed().as_state_machine()):
        def get_call_kwargs(self, case):
            return {"base_url": base, "headers": {"Authorization": f"Bearer {KEY}"}}

        def step(self, input):  # noqa: A002 (its name there)
            if input.transition is not None and input.is_applied:
                followed.add(input.transition.id)
            return super().step(input)

        def validate_response(self, response, case, **options):
            case.validate_response(response, checks=checks, transport_kwargs=options, recorder=self.recorder)

    Story.run(
        settings=settings(
            max_examples=SCENARIOS, deadline=None, database=None, derandomize=True, stateful_step_count=6,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )
    )  # fmt: skip
    assert any("cancel" in each for each in followed), followed


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
