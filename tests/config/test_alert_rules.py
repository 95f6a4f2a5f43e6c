"""The alerts are sound, each is tested when it fires and when it does not, and each has its paragraph in the runbook."""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from config.telemetry import metrics
from config.telemetry.library_internals import ScrapeTimeGauge
from tests.support.documents import RUNBOOK, anchor
from tests.support.prometheus import RULES, alerts, groups, hurried, program

TESTS = sorted(Path(__file__).parent.glob("alerts_*.yml"))
HEADINGS = re.findall(r"^### (\w+)$", RUNBOOK.read_text(), re.MULTILINE)

RUNBOOK_BASE = "{{ or $externalLabels.parley_runbook `config/prometheus/RUNBOOK.md` }}"
"""Where the runbook is kept, as Prometheus' configuration says, or else in the repository."""

GROUPS = groups()
ALERTS = alerts()
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}


def published():
    """The names of all series that Parley publishes."""
    names = set()
    for metric in metrics.REGISTRY._collector_to_names:
        kind = metric._type
        names |= {
            metric._name + end for end in {"counter": ["_total"], "histogram": ["_bucket"]}.get(kind, [""])
        }
    return names


def promtool(*words):
    done = subprocess.run(
        [program("promtool"), *map(str, words)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.processes
def test_promtool_finds_nothing_wrong():
    promtool("check", "rules", RULES)


@pytest.mark.processes
def test_every_alert_fires_when_it_should_and_not_when_it_should_not():
    promtool("test", "rules", *TESTS)


def test_every_alert_is_tested_when_it_fires_and_when_it_does_not():
    fires, silent = set(), set()
    for test in (test for file in TESTS for test in YAML(typ="safe").load(file.read_text())["tests"]):
        checks = test["promql_expr_test"]
        told = {
            name
            for check in checks
            for sample in check["exp_samples"]
            for name in re.findall(r'alertname="(\w+)"', sample["labels"])
        }
        fires |= told
        silent |= {name for name in told if any(name not in str(check["exp_samples"]) for check in checks)}
    assert fires == set(ALERTS)
    assert silent | {"ParleyUnseen"} == set(ALERTS)  # it is silent in every test where an endpoint is up


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_says_what_it_means_and_where_to_read_on(name):
    alert = ALERTS[name]
    assert name.startswith("Parley")
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["summary"][-1] != "."
    assert alert["annotations"]["description"].endswith(".")
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOK_BASE}#{anchor(name)}"
    assert name in HEADINGS, f"RUNBOOK.md has no heading {name}"


def test_every_paragraph_of_the_runbook_is_about_an_alert():
    assert sorted(HEADINGS) == sorted(ALERTS)


def test_rules_ask_for_what_is_published():
    for group in GROUPS:
        for rule in group["rules"]:
            asked = set(re.findall(r"(?<![\w:])parley_\w+", rule["expr"]))
            assert asked <= published(), rule
            assert set(re.findall(r"\w+:parley_\w+:\w+", rule["expr"])) <= RECORDED, rule


def test_what_every_endpoint_reads_from_redis_is_taken_once():
    """Summed over endpoints it would be as many times too much."""
    seen = {
        metric._name for metric in metrics.REGISTRY._collector_to_names if isinstance(metric, ScrapeTimeGauge)
    }
    assert len(seen) > 10
    for group in GROUPS:
        for rule in group["rules"]:
            for name in seen & set(re.findall(r"(?<![\w:])parley_\w+", rule["expr"])):
                assert re.search(rf"max by \([\w, ]+\) \((max_over_time\()?{name}\b", rule["expr"]), rule
                assert not re.search(
                    rf"(sum|count|avg) by \([\w, ]+\) \((max_over_time\()?{name}\b", rule["expr"]
                ), rule


def test_without_prometheus_it_is_said_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install --no-install-recommends prometheus"):
        program("prometheus")


def test_rules_in_a_hurry_differ_by_their_durations_alone():
    rule = "expr: rate(x[10m]) > 10 and y[13h:5m] offset 1h\nfor: 15m\n"
    assert (
        hurried(rule, 100)
        == "expr: rate(x[6000ms]) > 10 and y[468000ms:3000ms] offset 36000ms\nfor: 9000ms\n"
    )
