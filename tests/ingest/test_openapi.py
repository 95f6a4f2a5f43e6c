"""The API is as its description says: schemathesis asks a real `web` process whatever the description allows, and more."""

from functools import cache

import jsonschema
import msgspec
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings

from config.archive.session_pages import BEFORE_ALL
from engine.model.events import derive_session_id
from ingest.api.archive_description import RESULT_EXAMPLE
from ingest.api.description import openapi_document
from ingest.api.page_cursor import write_cursor
from tests.support.archive_writer import PERSON, ArchiveWriter, finished_session, refused_invitation
from tests.support.example_counts import examples
from tests.support.inviting import KEY, LINES, Api, key_table

MOST_EXAMPLES = 60
MOST_SCENARIOS = 40
AT = 1_700_000_000_000
KNOWN = derive_session_id("clinic", "r")
NOT_OURS = {
    "use_after_free",  # what was cancelled is told of as cancelled, not forgotten
    "max_response_time",
}


def narrowed_document():
    """The description, in which what depends on the deployment is what the deployment has, and what no schema can say of
    variables, whose keys are alike in any case, is so."""
    described = msgspec.json.decode(msgspec.json.encode(openapi_document()))
    for path in ("/v1/surveys/{survey}/invitations", *OF_LINES):
        (survey,) = described["paths"][path]["post"]["parameters"]
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
    for path in ARCHIVED:
        cursor = write_cursor("ended" if path.endswith("results") else "opened", BEFORE_ALL)
        known = KNOWN_VALUES | {"after": [cursor]}
        for parameter in described["paths"][path]["get"]["parameters"]:
            if parameter["name"] in known:
                place = parameter["schema"].get("items", parameter["schema"])
                place["enum"] = known[parameter["name"]]
    reference, channel = described["paths"]["/v1/sessions"]["get"]["parameters"]
    reference["schema"]["enum"], channel["schema"]["enum"] = ["r"], ["clinic", "SMS", ""]
    return described


OF_LINES = [f"/v1/surveys/{{survey}}/invitations/{what}" for what in ("many", "dry-run")]
"""What takes lines, each of which is answered by itself: no body is wrong as a whole."""

ARCHIVED = [f"/v1/surveys/{{survey}}/{what}" for what in ("results", "sessions", "funnel", "codebook")]
KNOWN_VALUES = {
    "survey": ["clinic"],
    "channel": ["clinic"],
    "since": ["2023-11-14", "2023-11-14T22:13:20Z", "2h"],
    "until": ["2023-11-15", "2023-11-14T22:13:22+00:00"],
    "variable": ["agentId:7", "agentid=8"],
    "where": ["temperature >= 95", "temperature = 1", "$agentId = 7"],
}
"""What the archive of these tests knows."""


ANY_TEXT = ("language", "campaign")
"""Lists of any text: in a query, a text in place of a list is a list of one, and no mistake."""


@cache
def narrowed(mode="positive"):
    import schemathesis  # noqa: PLC0415 (takes a second, and processes that run other tests collect this file too)

    @schemathesis.serializer(LINES)
    def write_lines(_context, value):
        return getattr(value, "data", None) or str(value).encode(errors="surrogatepass")

    document = narrowed_document()
    if mode == "negative":
        for path in OF_LINES:
            del document["paths"][path]["post"]["requestBody"]
        for methods in document["paths"].values():
            for described in methods.values():
                described["parameters"] = [
                    each for each in described.get("parameters", []) if each["name"] not in ANY_TEXT
                ]
    return schemathesis.openapi.from_dict(document)


def all_our_checks():
    from schemathesis.checks import CHECKS, load_all_checks  # noqa: PLC0415

    load_all_checks()
    return CHECKS.get_by_names([name for name in CHECKS.get_all_names() if name not in NOT_OURS])


OPERATIONS = [(path, method) for path, methods in openapi_document()["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def archive_of_thirteen(tmp_path_factory):
    """The URL of an archive, which the API only reads."""
    with ArchiveWriter(f"sqlite:///{tmp_path_factory.mktemp('openapi') / 'archive.db'}", 16) as archive:
        for number in range(12):
            archive.add(number, AT, PERSON, *finished_session(f"{number:016x}", AT + number))
        archive.add(12, AT, PERSON, refused_invitation(f"{12:016x}", AT))
        archive.read_all_until(AT + 1)
        yield archive.url


@pytest.fixture
def base(web, tmp_path, archive_of_thirteen):
    config = '[channels.clinic]\nnumber = "+33700000001"\nsurveys = ["clinic"]\n' + key_table()
    (tmp_path / "parley.toml").write_text(config)
    started = web(PARLEY_CONFIG=str(tmp_path / "parley.toml"), PARLEY_ARCHIVE_URL=archive_of_thirteen)
    invite_known(started)
    return started


def invite_known(base):
    assert Api(base).invite(identifier="+33612345678", clientReference="r").json()["id"] == KNOWN


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("path, method", OPERATIONS)
def test_the_api_is_as_described(base, path, method, mode):
    from schemathesis import GenerationMode  # noqa: PLC0415

    checks = all_our_checks()

    @settings(
        max_examples=examples(MOST_EXAMPLES), deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=narrowed(mode)[path][method].as_strategy(generation_mode=GenerationMode(mode)))
    def ask(case):
        case.validate_response(call_until_answered(case, base), checks=checks)

    ask()


def call_until_answered(case, base):
    """The answer of somebody who asks again if the machine stood still for a moment, so that Redis did not answer in time."""
    for _ in range(5):
        answer = case.call(base_url=base, headers={"Authorization": f"Bearer {KEY}"})
        if answer.status_code != 503:
            break
    return answer


def test_what_links_lead_to_is_as_described(base, valkey):
    """From an invitation to its session and its end, and on from there, in whatever order.

    What is drawn next depends on what was answered, so each story begins with the same server and with the same description:
    what earlier ones left there would be inconsistent to Hypothesis."""
    checks = all_our_checks()
    followed = set()

    class Story(narrowed.__wrapped__().as_state_machine()):
        def setup(self):
            valkey.client().flushall()
            invite_known(base)

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
            max_examples=examples(MOST_SCENARIOS), deadline=None, database=None, derandomize=True, stateful_step_count=6,
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


def test_examples_and_answers_are_of_their_schemas(base):
    """A line of results too, of which the schema can only be told beside it."""
    document = openapi_document()
    schema = {"$ref": "#/components/schemas/ResultView", "components": document["components"]}
    known = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    known.validate(RESULT_EXAMPLE)
    lines = Api(base).get("/v1/surveys/clinic/results", accept="application/x-ndjson").text.splitlines()
    assert len(lines) == 13
    for line in lines:
        known.validate(msgspec.json.decode(line))
        assert (
            msgspec.json.decode(line).keys()
            <= document["components"]["schemas"]["ResultView"]["properties"].keys()
        )
