"""Debian's own Prometheus, which scrapes what a test tells it to, and judges by Parley's rules at a test's pace.

`apt-get install prometheus` brings it and promtool; without them a test fails and says so.
"""

import json
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import requests
from ruamel.yaml import YAML

from tests.support.closing import Closing
from tests.support.waiting import free_port, until

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus" / "alerts.yml"
DASHBOARD = ROOT / "config" / "grafana" / "parley.json"

START_S = 30.0
ASK_S = 60.0

SCRAPE_MS = 500
SHORTEST_RANGE_MS = 4 * SCRAPE_MS
SHORTEST_FOR_MS = 3 * SCRAPE_MS
"""So that two scrapes that came too late do not make an alert fire."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = r"(\d+)(ms|s|m|h|d)"


def groups() -> list[dict[str, Any]]:
    """The groups of Parley's rules."""
    found: list[dict[str, Any]] = YAML(typ="safe").load(RULES.read_text())["groups"]
    return found


def alerts() -> dict[str, dict[str, Any]]:
    """Parley's alerts, by name."""
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def panels() -> dict[str, dict[str, Any]]:
    """The panels of the dashboard, by title."""
    every = json.loads(DASHBOARD.read_text())["panels"]
    return {panel["title"]: panel for panel in every if panel["type"] != "row"}


def program(name: str) -> str:
    """Where `prometheus` or `promtool` is. Raises FileNotFoundError, which says how to get it."""
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(
            f"{name} is not installed, and the alerts are not tested without it: on Debian, "
            "`apt-get install --no-install-recommends prometheus` brings prometheus and promtool"
        )
    return path


def hurried(rules: str, pace: int) -> str:
    """The rules, with all their durations divided by `pace`: of `for`, of ranges, of subqueries and offsets. Numbers
    that an expression compares with stay as they are."""

    def least(shortest_ms: int, duration: str) -> str:
        count, unit = re.fullmatch(_DURATION, duration).groups()  # type: ignore[union-attr]
        return f"{max(shortest_ms, int(count) * _UNITS_MS[unit] // pace)}ms"

    def ranged(match: re.Match[str]) -> str:
        span, step = match[1], match[4]
        return f"[{least(SHORTEST_RANGE_MS, span)}{f':{least(SCRAPE_MS, step)}' if step else ''}]"

    rules = re.sub(rf"\[({_DURATION})(?::({_DURATION}))?\]", ranged, rules)
    rules = re.sub(rf"\b(for: )({_DURATION})", lambda it: it[1] + least(SHORTEST_FOR_MS, it[2]), rules)
    return re.sub(rf"\b(offset )({_DURATION})", lambda it: it[1] + least(SHORTEST_RANGE_MS, it[2]), rules)


class Prometheus(Closing):
    """One server with a port and a directory of its own. Started when made; a context manager, which removes both.

    `targets` are `host:port`, of the one job `parley`; `rules` the text of a file of rules.
    """

    def __init__(self, targets: Sequence[str], rules: str) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="parley-prometheus-"))
        self._http = requests.Session()
        (self.folder / "rules.yml").write_text(rules)
        (self.folder / "prometheus.yml").write_text(_configuration(targets))
        self._process = self._start()
        until(self._ready, START_S, "Prometheus is ready")
        self._began_s = self._now_s()

    def numbers(self, expr: str, step_ms: int = SCRAPE_MS) -> list[float]:
        """Every number that a picture of `expr` would show, since this server was started."""
        found = self._get(
            "query_range", query=expr, start=self._began_s, end=self._now_s(), step=f"{step_ms}ms"
        )
        numbers = (float(value) for each in found["result"] for _, value in each["values"])
        return [number for number in numbers if not isnan(number)]

    def firing(self) -> dict[str, dict[str, str]]:
        """The annotations of the alerts that fire, by name."""
        return {
            each["labels"]["alertname"]: each["annotations"]
            for each in self._get("alerts")["alerts"]
            if each["state"] == "firing"
        }

    def sees(self, endpoints: int) -> bool:
        """Do so many endpoints answer?"""
        found = self._get("query", query="sum(up)")["result"]
        return bool(found) and float(found[0]["value"][1]) == endpoints

    def close(self) -> None:
        self._http.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def _log(self) -> Path:
        return self.folder / "prometheus.log"

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={self.folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    "--log.level=warn",
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _now_s(self) -> float:
        """By its own clock, which need not be ours."""
        return float(self._get("query", query="time()")["result"][1])

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"Prometheus ended at its start: {self._log.read_text()}")
        try:
            return self._http.get(f"{self._base}/-/ready", timeout=ASK_S).ok
        except requests.ConnectionError:
            return False

    def _get(self, what: str, **query: Any) -> Any:
        reply = self._http.get(f"{self._base}/api/v1/{what}", params=query, timeout=ASK_S)
        body = reply.json()
        assert body["status"] == "success", f"{what} {query}: {body}"
        return body["data"]


def _configuration(targets: Iterable[str]) -> str:
    """Of a Prometheus that scrapes and judges twice a second. JSON is YAML."""
    listed = ", ".join(f'"{target}"' for target in targets)
    return f"""
global: {{scrape_interval: {SCRAPE_MS}ms, scrape_timeout: {SCRAPE_MS}ms, evaluation_interval: {SCRAPE_MS}ms}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: parley
    static_configs: [{{targets: [{listed}]}}]
"""
