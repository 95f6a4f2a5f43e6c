"""Units of systemd, as systemd itself judges them. (That processes tell it how they do is in test_supervision.py.)"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings.settings import ENVIRONMENT_VARIABLES
from config.telemetry.process_registry import ROLES
from tests.support.processes import ROOT, procfile
from tests.support.waiting import HANG_S

pytestmark = pytest.mark.processes

UNITS = ROOT / "config" / "deploy" / "systemd"
PYTHON = "/opt/parley/.venv/bin/python"
EXPOSURE = 20
"""Tenths: what is exposed at the most, of 100."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def instance(role):
    return "parley-web@1.service" if role == "web" else f"parley@{role}-1.service"


@pytest.fixture
def units(tmp_path):
    """Those of each role, with the Python that is here."""
    for file in UNITS.iterdir():
        text = file.read_text().replace(PYTHON, sys.executable)
        (tmp_path / file.name).write_text(text)
    for role in ROLES:
        template = re.sub("@.*", "@.service", instance(role))
        shutil.copy(tmp_path / template, tmp_path / instance(role))
    return tmp_path


def analyze(*arguments):
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=HANG_S, check=False
    )


@needs_systemd
@pytest.mark.parametrize("name", ["parley.target", *map(instance, ROLES)])
def test_systemd_finds_nothing_wrong(units, name):
    found = analyze("verify", "--man=no", str(units / name))
    assert [line for line in found.stderr.splitlines() if "parley" in line] == []


@needs_systemd
@pytest.mark.parametrize("role", ["web", "clock"])
def test_little_of_the_machine_is_exposed(units, role):
    found = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", str(units / instance(role)))
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("role", ROLES)
def test_each_starts_its_line_of_the_procfile(role, tmp_path):
    """Read as systemd does: `%i` is the instance, `%%` and `$$` stand for themselves."""
    unit = (UNITS / re.sub("@.*", "@.service", instance(role))).read_text()
    (command,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
    read = re.sub("%i|%%", lambda found: f"{role}-1" if found[0] == "%i" else "%", command)
    told = tmp_path / "python"
    told.write_text('#!/bin/sh\necho python "$@"\n')
    told.chmod(0o755)
    line = read.replace("$$", "$").replace(PYTHON, str(told))
    shown = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == procfile()[role]


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda unit: Path(unit).stem)
def test_settings_that_they_make_exist(unit):
    lines = re.findall("^Environment=(.*)$", unit.read_text(), re.MULTILINE)
    made = {name for line in lines for name in re.findall(r"(PARLEY_\w+)=", line)}
    assert made
    assert made <= {variable.name for variable in ENVIRONMENT_VARIABLES}
