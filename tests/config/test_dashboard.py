"""The dashboard is what config/grafana/dashboard.py makes, asks for what is published, and says what it shows."""

import json
import re

import pytest

from config.grafana.dashboard import DASHBOARD_WIDTH, build_dashboard
from config.telemetry import metrics
from tests.support.prometheus import DASHBOARD, panels

BOARD = json.loads(DASHBOARD.read_text())
PANELS = panels()


def labels_of():
    """Every series that Parley publishes, with the labels that may be asked for."""
    found = {"ALERTS": {"alertstate"}, "up": set()}
    for metric in metrics.REGISTRY._collector_to_names:
        end = {"counter": "_total", "histogram": "_bucket"}.get(metric._type, "")
        found[metric._name + end] = set(metric._labelnames) | (
            {"le"} if metric._type == "histogram" else set()
        )
    return {name: labels | {"job", "instance"} for name, labels in found.items()}


def test_the_file_is_what_its_source_makes():
    assert build_dashboard() == BOARD, "python -m config.grafana.dashboard > config/grafana/parley.json"


def test_grafana_is_asked_for_nothing_that_the_file_does_not_bring():
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD))) - {"__rate_interval", "__all"}
    assert used == variables - {"datasource"} | {"datasource"}
    assert BOARD["schemaVersion"] >= 39


def test_panels_are_told_apart_and_lie_side_by_side():
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert len(PANELS) == sum(panel["type"] != "row" for panel in BOARD["panels"]), "two of one title"
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= DASHBOARD_WIDTH
        taken |= cells


@pytest.mark.parametrize("title", sorted(PANELS))
def test_a_panel_says_what_it_shows(title):
    panel = PANELS[title]
    assert title
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    known = labels_of()
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert len({each["legendFormat"] for each in panel["targets"]}) == len(panel["targets"])
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
        for name, selector in re.findall(r"(\w+)\{([^}]*)\}", target["expr"]):
            assert name in known, name
            asked = set(re.findall(r"(\w+)=", selector))
            grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            assert asked | grouped <= known[name], (title, name)


def test_every_metric_is_on_the_dashboard():
    shown = " ".join(target["expr"] for panel in PANELS.values() for target in panel["targets"])
    missing = {
        metric._name
        for metric in metrics.REGISTRY._collector_to_names
        if not re.search(rf"\b{metric._name}(_total|_bucket)?\b", shown)
    }
    assert missing == set()
