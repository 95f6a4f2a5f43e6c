"""The documents are true: their tables are the tables in the code, what they name exists, and what exists is named.

`python -m tests.test_readme` prints the tables as the code has them.
"""

import re
import sys
from typing import get_args

import msgspec
import pytest
from click.testing import CliRunner

from config.cli import COMMANDS
from config.settings.channels import ApiKeyTable, ChannelLimits, ChannelTable
from config.settings.oidc_settings import OidcTable
from config.settings.settings import ENVIRONMENT_VARIABLES
from config.store.dead_letter_reasons import DEAD_LETTER_REASONS
from config.store.function_layout import layout_of
from config.store.outbox_states import OUTBOX_STATES, OUTBOX_TRANSITIONS
from config.store.server_functions import FUNCTIONS
from config.telemetry.metrics import REGISTRY
from engine.answers.type_registry import ANSWER_SPECS
from engine.commands.lint import lint
from engine.proofs.survey_loader import load_surveys
from engine.providers import AccountProvider, LookupProvider, Provider, SendOutcome
from engine.providers.provider_registry import PROVIDER_MODULES, account_setting_fields, option_setting_fields
from engine.surveys.survey_file import (
    AskStep,
    FixedTexts,
    Goto,
    Reminder,
    SayStep,
    SurveyFile,
    When,
)
from ingest.api.description import openapi_document
from tests.support import audit, documents
from tests.support.documents import FOLDERS, README, ROOT
from tests.support.processes import procfile
from tests.support.prometheus import alerts
from workers.commands.capacity import capacity

MOST_LINES = 150
MAX_PICTURE_BYTES = 150_000
"""Of the README: what is new goes into the document beside what it describes."""

GLOSSARY = [
    "lane", "turn", "claim", "fence", "lease", "mailbox", "outbox", "alarm", "wake-up", "dead letter", "segment",
    "event stream", "archive", "hook", "opt-out", "recourse",
]  # fmt: skip

ALL = documents.documents()
TEXT = "\n".join(ALL.values())

SURVEYS = ROOT / "config" / "surveys" / "README.md"
CONFIG = ROOT / "config" / "README.md"
INGEST = ROOT / "ingest" / "README.md"
WORKERS = ROOT / "workers" / "README.md"

OTHER_SETTINGS = {"PARLEY_FAULT", "PARLEY_CRM_SECRET", "PARLEY_CONSOLE_OIDC_SECRET"}
"""Variables of the tests, and of examples."""


def settings():
    variables = [*ENVIRONMENT_VARIABLES, *account_setting_fields()]
    return [f"| `{v.name}` | {f'`{v.default}`' if v.default else ''} | {v.meaning} |" for v in variables]


def options():
    return [
        f"| `{name}` | `{field.name}` | {f'`{field.default}`' if field.default else ''} | {field.meaning} |"
        for name in PROVIDER_MODULES
        if name != "simulator"
        for field in option_setting_fields(name)
    ]


def commands():
    return [f"| `parley {name}` | {line} |" for name, (_, line) in COMMANDS.items()]


def metrics():
    return [
        f"| `{_published(metric)}` | {' '.join(f'`{label}`' for label in metric._labelnames)} | {metric._documentation} |"
        for metric in REGISTRY._collector_to_names
    ]


def outbox_states():
    return [
        f"| `{each.name}` | {_FENCES[each.fence]} | {f'`{each.spelling}`' if each.spelling else ''} | {each.meaning} | {each.until} |"
        for each in OUTBOX_STATES
    ]


_FENCES = {"none": "no lock", "> 0": "> 0", "0": "0"}


def outbox_transitions():
    return [
        f"| {_names(each.sources)} | {_names(each.targets)} | {each.by} | `{each.function}` | {each.when} |"
        for each in OUTBOX_TRANSITIONS
    ]


def _names(states):
    return " ".join(f"`{state}`" for state in states)


def _published(metric):
    return metric._name + ("_total" if metric._type == "counter" else "")


TABLES = [settings, options, commands, metrics, outbox_states, outbox_transitions]


def fields(struct):
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def in_backticks(text):
    """Every word that stands in backticks."""
    return {word for span in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"[\w$]+", span)}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_the_one_in_the_code(table):
    assert documents.rows(table.__name__) == table()


def test_the_readme_stays_short():
    written = [line for line in README.read_text().splitlines() if not line.startswith("<picture>")]
    assert len(written) <= MOST_LINES


def test_the_glossary_has_one_sentence_for_each_word():
    rows = [
        documents.cells(row)
        for row in documents.section(README, "## Glossary").splitlines()
        if row[:1] == "|"
    ][2:]
    assert [word for word, _ in rows] == GLOSSARY
    for word, sentence in rows:
        assert re.fullmatch(r"[A-Z][^.]*(\.\d[^.]*)*\.", sentence), word


def test_the_map_is_the_folders_as_they_are():
    drawn, top = set(), ""
    for line in documents.blocks(documents.section(README, "## The map"))[0].splitlines():
        top = found[1] if (found := re.match(r"(\w+)/ ", line)) else top
        drawn |= {f"{top}/{room}" for room in re.findall(r"  (\w+)/(?=\s)", line) if top != "tests"}
    there = {
        str(path.parent.relative_to(ROOT))
        for folder in FOLDERS[:-1]
        for path in (ROOT / folder).glob("*/*.py")
        if path.parent.parent == ROOT / folder
    }
    shown_as_files = {f"config/{name}" for name in ("surveys", "proxies", "prometheus", "grafana")}
    assert drawn - shown_as_files == there - shown_as_files


def test_the_example_survey_is_one():
    (example,) = re.findall(r"```yaml\n(survey:.*?)```", TEXT, re.DOTALL)
    surveys, problems = load_surveys({"clinic.yaml": example.encode()})
    assert problems == []
    assert list(surveys.current_names()) == ["clinic"]


def test_what_lint_prints_is_what_it_prints(monkeypatch):
    (words, printed) = re.findall(r"^\$ parley lint (.*)\n((?:.*\n)*?)```", TEXT, re.MULTILINE)[0]
    monkeypatch.chdir(ROOT)
    assert CliRunner().invoke(lint, words.split()).output == printed


def test_what_capacity_prints_is_what_it_prints():
    """But for blanks at the ends of lines, and empty lines."""
    (words, printed) = re.findall(r"^\$ parley capacity (.*)\n((?:.*\n)*?)```", TEXT, re.MULTILINE)[0]
    assert _lines(CliRunner().invoke(capacity, words.split()).output) == _lines(printed)


def _lines(text):
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("document", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for path, fragment in documents.links(ALL[document]):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{path} in {document}"
        if fragment:
            there = {documents.anchor(heading) for heading in documents.headings(target.read_text())}
            assert fragment in there, f"{path}#{fragment} in {document}"


def test_a_picture_is_told_in_words_too_and_is_small():
    pictures = re.findall(r'<img src="([^"]+)" alt="([^"]*)">', README.read_text())
    assert len(pictures) == README.read_text().count("<img") == 2
    for path, alt in pictures:
        assert len(alt.split()) >= 10, path
        for scheme in ("light", "dark"):
            assert (ROOT / path.replace("light", scheme)).stat().st_size <= MAX_PICTURE_BYTES


def test_every_document_can_be_reached_from_the_readme():
    reached, waiting = set(), [README]
    while waiting:
        document = waiting.pop()
        if document in ALL and document not in reached:
            reached.add(document)
            waiting += [
                (document.parent / path).resolve() for path, _ in documents.links(ALL[document]) if path
            ]
    assert reached == set(ALL)


@pytest.mark.parametrize("document", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_tests_that_it_names_exist(document):
    text = ALL[document]
    for path in re.findall(r"`((?:engine|ingest|workers|config|tests)/[\w/.-]*)`", text):
        assert (ROOT / path).exists(), path
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {name}(" in (ROOT / path).read_text(), name
    folder = document.parent if document.parent != ROOT else None
    for name in re.findall(r"`(\w+\.(?:py|lua|yml))`", text):
        assert folder is None or any(folder.rglob(name)), f"{name} is not under {folder}"


def test_no_code_is_broken_over_two_lines():
    for document, text in ALL.items():
        for line in documents.prose(text).splitlines():
            assert line.count("`") % 2 == 0, f"{document}: {line}"


def test_settings_metrics_and_alerts_that_they_name_exist():
    known = {
        variable.name for variable in (*ENVIRONMENT_VARIABLES, *account_setting_fields())
    } | OTHER_SETTINGS
    assert set(re.findall(r"\bPARLEY_[A-Z0-9_]*[A-Z0-9]\b", TEXT)) <= known
    published = {_published(metric) for metric in REGISTRY._collector_to_names} | {"parley_runbook"}
    assert set(re.findall(r"\bparley_\w+", TEXT)) <= published
    assert set(re.findall(r"\bParley[A-Z]\w+", TEXT)) <= set(alerts())


def test_the_language_is_described_whole():
    section = documents.section(SURVEYS, "## Answers")
    types = {answer.__struct_config__.tag: answer for answer in ANSWER_SPECS}
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(types)
    for name, answer in types.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", section, re.MULTILINE)
        assert fields(answer) <= in_backticks(row), name
    structs = (SurveyFile, SayStep, AskStep, Goto, When, Reminder, FixedTexts)
    described = in_backticks(documents.prose(SURVEYS.read_text())) | set(
        re.findall(r"\w+", documents.blocks(SURVEYS.read_text())[0])
    )
    assert set().union(*map(fields, structs)) <= described


def test_a_channel_is_described_whole():
    described = in_backticks(CONFIG.read_text())
    assert (fields(ChannelTable) - {"limits"}) | fields(ChannelLimits) | fields(ApiKeyTable) <= described


def test_the_consoles_openid_provider_is_described_whole():
    assert documents.first_words("oidc") == [field.name for field in msgspec.structs.fields(OidcTable)]


def test_what_a_provider_must_have_is_on_the_checklist():
    text = (ROOT / "engine" / "providers" / "README.md").read_text()
    wanted = {
        *Provider.__annotations__,
        *(name for each in (Provider, LookupProvider, AccountProvider) for name in vars(each)),
    }
    wanted |= {outcome.__name__ for outcome in get_args(SendOutcome)} | {
        "make_provider",
        "Account",
        "Options",
    }
    assert [name for name in sorted(wanted) if not name.startswith("_") and f"`{name}" not in text] == []


def test_the_routes_of_the_api_are_its_routes():
    told = re.findall(
        r"^\| `([A-Z]+) (/[^`?]*)[^`]*` \|", documents.section(INGEST, "## The API"), re.MULTILINE
    )
    described = {
        (method.upper(), path) for path, methods in openapi_document()["paths"].items() for method in methods
    }
    assert set(told) == described | {("GET", "/v1/openapi.json")}


def test_the_roles_are_the_lines_of_the_procfile():
    assert documents.first_words("roles") == list(procfile())


def test_the_make_targets_are_those_of_the_makefile():
    targets = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    told = {words.removeprefix("make ") for words in documents.first_words("make")}
    assert told == set(" ".join(targets).split())


def test_every_server_side_function_is_described():
    assert documents.first_words("functions") == [layout_of(each).name for each in FUNCTIONS]


def test_every_key_is_described():
    told = {name: _pattern_of(name) for name in documents.first_words("keys")}
    of_a_kind = set(audit.FIXED)
    examples = {kind: _example(pattern) for kind, pattern in audit.patterns().items()}
    for name in (*examples.values(), *of_a_kind):
        assert [each for each, pattern in told.items() if pattern.fullmatch(name)], name
    for name, pattern in told.items():
        assert any(map(pattern.fullmatch, (*examples.values(), *of_a_kind))), name


def _pattern_of(name):
    """A key as a document writes it: `{k}` is a shard's hash tag, `<word>` stands for something."""
    written = re.escape(name).replace(r"\{k\}", r"\{\d+\}")
    return re.compile(re.sub(r"<\w+>", "[^:{}]+", written))


def _example(pattern):
    """A name that `pattern` fits, as audit.py makes it."""
    return re.sub(
        r"\\(.)", r"\1", pattern.pattern.replace(r"\d+", "7").replace("-?", "").replace(".+", "qqqq")
    )


def test_every_reason_of_a_dead_letter_is_described():
    assert documents.first_words("reasons") == [*DEAD_LETTER_REASONS]


def test_the_changelog_speaks_of_this_version_in_the_usual_sections():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    version = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    versions = re.findall(r"^## \[(.*?)\](?: - \d{4}-\d\d-\d\d)?$", changelog, re.MULTILINE)
    assert versions[:2] == ["Unreleased", version]
    usual = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits"}
    assert set(re.findall(r"^### (.*)$", changelog, re.MULTILINE)) <= usual


if __name__ == "__main__":
    sys.stdout.writelines(f"{row}\n" for table in TABLES for row in [*table(), ""])
