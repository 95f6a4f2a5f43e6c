"""Every metric is ours by name, has labels of a bounded kind, and is counted somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from config.telemetry import metrics

ROOT = Path(__file__).parents[2]

BOUNDED = {
    "by", "channel", "code", "hook", "how", "kind", "outcome", "queue", "reason", "role", "server", "state", "step", "survey",
}  # fmt: skip


def declared():
    """Name in the table -> metric."""
    return {
        name: value
        for name, value in vars(metrics).items()
        if name.isupper() and hasattr(value, "_labelnames")
    }


def test_names_and_labels():
    for family in metrics.REGISTRY.collect():
        assert family.name.startswith("parley_")
        assert family.documentation
    assert len(declared()) > 40
    assert all(set(metric._labelnames) <= BOUNDED for metric in declared().values())


def test_exposition_holds_what_was_counted():
    metrics.DROPPED.labels("clinic", "a_test").inc(2)
    assert b'parley_dropped_total{channel="clinic",reason="a_test"} 2.0' in generate_latest(metrics.REGISTRY)


def test_every_metric_of_the_table_is_set_somewhere():
    code = "\n".join(
        path.read_text()
        for folder in ("config", "ingest", "workers")
        for path in (ROOT / folder).rglob("*.py")
        if path != ROOT / "config" / "metrics.py"
    )
    used = set(re.findall(r"\bmetrics\.([A-Z_]+)\b", code))
    assert declared().keys() - used == set()


def test_a_gauge_that_is_looked_up_cannot_be_set():
    with pytest.raises(AttributeError):
        metrics.QUEUE_DEPTH.labels("starts").set(1)


@pytest.mark.parametrize("earlier", ["", "import prometheus_client; "])
@pytest.mark.processes
def test_the_directory_counts_whatever_was_imported_before(tmp_path, earlier):
    """It is made if it is not there, and the variable may be set by the program itself."""
    folder = tmp_path / "not" / "there"
    program = (
        f"import os; {earlier}os.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(folder)!r}; "
        "from config.telemetry import metrics; metrics.DUPLICATES.inc(3)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    read = "from config.telemetry import metrics; print([f.samples[0].value for f in metrics.collect_counted() if f.name == 'parley_duplicates'])"
    found = subprocess.run(
        [sys.executable, "-c", f"import os; os.environ['PROMETHEUS_MULTIPROC_DIR'] = {str(folder)!r}; {read}"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout == "[3.0]\n"


@pytest.mark.processes
def test_a_directory_that_cannot_be_used_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    found = subprocess.run(
        [sys.executable, "-c", "import config.telemetry.metrics"],
        cwd=ROOT, env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "file")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 2
    assert found.stderr == (
        f"{tmp_path / 'file'} cannot be made or written (File exists): expected a folder in which this user may "
        "write, or PROMETHEUS_MULTIPROC_DIR with another\n"
    )
