"""The README is true: its tables are the tables in the code, its survey is one, its paths exist."""

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from config.cli import COMMANDS
from config.settings.settings import ENVIRONMENT_VARIABLES
from config.telemetry.metrics import REGISTRY
from engine.commands.lint import lint
from engine.proofs.survey_loader import load_surveys
from engine.providers.provider_registry import PROVIDER_MODULES, account_setting_fields, option_setting_fields

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def rows(name):
    """The rows of the README's table between `<!-- name -->` and `<!-- /name -->`, without its head."""
    (table,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.DOTALL)
    return table.splitlines()[2:]


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
        f"| `{metric._name}{'_total' if metric._type == 'counter' else ''}` "
        f"| {' '.join(f'`{label}`' for label in metric._labelnames)} | {metric._documentation} |"
        for metric in REGISTRY._collector_to_names
    ]


@pytest.mark.parametrize("table", [settings, options, commands, metrics])
def test_a_table_is_the_one_in_the_code(table):
    assert rows(table.__name__) == table()


def test_the_example_survey_is_one():
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    surveys, problems = load_surveys({"clinic.yaml": example.encode()})
    assert problems == []
    assert list(surveys.current_names()) == ["clinic"]


def test_what_lint_prints_is_what_it_prints(monkeypatch):
    (words, printed) = re.findall(r"^\$ parley lint (.*)\n((?:.*\n)*?)```", README, re.MULTILINE)[0]
    monkeypatch.chdir(ROOT)
    assert CliRunner().invoke(lint, words.split()).output == printed


def test_paths_and_tests_that_it_names_exist():
    for path in re.findall(r"`((?:engine|ingest|workers|config|tests)/[\w/.-]*)`", README):
        assert (ROOT / path).exists(), path
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", README):
        assert f"def {name}(" in (ROOT / path).read_text(), name


if __name__ == "__main__":
    sys.stdout.writelines(
        f"{row}\n" for table in (settings, options, commands, metrics) for row in [*table(), ""]
    )
