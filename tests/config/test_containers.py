"""The image and what Compose makes of it, as the programs judge them that know such files: each line of the Procfile is there, and
what is set exists. (The image itself is built and run by .ci/image.)"""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from config.settings.durability import DURABILITY_SETTINGS
from config.settings.settings import ENVIRONMENT_VARIABLES
from config.telemetry.supervision import HANGS_AFTER_S
from tests.support.processes import ROOT, procfile
from tests.support.prometheus import program
from tests.support.waiting import HANG_S, PATIENCE
from workers.roles.worker_process import FORCED_EXIT_S

DEPLOY = ROOT / "config" / "deploy"
CONTAINERFILE = DEPLOY / "Containerfile"
COMPOSE = DEPLOY / "compose.yaml"
PROGRAMS = Path(sys.executable).parent

SERVICES = YAML(typ="safe").load(COMPOSE.read_text())["services"]
PROCESSES = {name: each for name, each in SERVICES.items() if each["image"].startswith("parley:")}
SETTINGS = {variable.name for variable in ENVIRONMENT_VARIABLES}


def judge(*words):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, timeout=HANG_S * PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr


def image_environment():
    (block,) = re.findall(r"^ENV (.*?[^\\])$", CONTAINERFILE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(word.split("=", 1) for word in shlex.split(block.replace("\\\n", " ")))


@pytest.mark.processes
def test_hadolint_finds_nothing_wrong():
    judge(PROGRAMS / "hadolint", CONTAINERFILE)


@pytest.mark.processes
def test_the_schema_of_compose_finds_nothing_wrong():
    judge(PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_each_line_of_the_procfile_is_a_service():
    assert {name: " ".join(each["command"]) for name, each in PROCESSES.items()} == procfile()


def test_they_run_the_image_of_this_release():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {each["image"] for each in PROCESSES.values()} == {f"parley:{version}"}
    own = (DEPLOY / "kubernetes" / "clinic.kustomization.yaml").read_text()
    assert YAML(typ="safe").load(own)["images"][0]["newTag"] == version


def test_what_the_image_and_the_services_set_exists():
    made = {name for each in PROCESSES.values() for name in each["environment"]} | set(image_environment())
    parleys = {name for name in made if name.startswith("PARLEY_")}
    assert {"PARLEY_REDIS_URL", "PARLEY_ARCHIVE_URL", "PARLEY_HOST"} <= parleys
    assert parleys <= SETTINGS


def test_the_image_runs_web_unless_it_is_told_otherwise_and_nobody_is_root():
    text = CONTAINERFILE.read_text()
    assert f"\nCMD {json.dumps(procfile()['web'].split())}\n" in text
    assert "\nUSER 65532:65532\n" in text


def test_the_image_has_what_a_wheel_is_made_of():
    lines = re.findall(r"^COPY ([^-].*) \S+$", CONTAINERFILE.read_text(), re.MULTILINE)
    copied = {name for line in lines for name in line.split()}
    assert all((ROOT / name).exists() for name in copied)
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*built["packages"], *built["force-include"], "pyproject.toml", "README.md", "LICENSE"} <= copied


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_has_no_rights_and_time_to_end(name):
    service = PROCESSES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert float(service["stop_grace_period"].rstrip("s")) > FORCED_EXIT_S
    port = image_environment()["PARLEY_METRICS_PORT"]
    assert f":{port}/healthz" in service["healthcheck"]["test"][-1]
    assert float(service["healthcheck"]["start_period"].rstrip("s")) >= HANGS_AFTER_S


def test_the_server_of_the_lanes_keeps_what_it_acknowledges():
    words = SERVICES["valkey"]["command"]
    said = dict(zip(words[1::2], words[2::2], strict=True))
    assert {name: said[f"--{name}"] for name in DURABILITY_SETTINGS} == dict(DURABILITY_SETTINGS)


def test_every_process_is_scraped():
    written = (DEPLOY / "compose" / "prometheus.yml").read_text()
    (job,) = YAML(typ="safe").load(written)["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    assert job["job_name"].startswith("parley"), "the alerts are of such jobs"
    assert set(names["names"]) == set(PROCESSES)
    assert str(names["port"]) == image_environment()["PARLEY_METRICS_PORT"]
    inside = "/etc/prometheus/alerts.yml"
    assert inside in written
    assert f"../prometheus/alerts.yml:{inside}:ro" in SERVICES["prometheus"]["volumes"]


@pytest.mark.processes
def test_promtool_finds_nothing_wrong_with_what_is_scraped(tmp_path):
    written = (DEPLOY / "compose" / "prometheus.yml").read_text()
    rules = str(ROOT / "config" / "prometheus" / "alerts.yml")
    (tmp_path / "prometheus.yml").write_text(written.replace("/etc/prometheus/alerts.yml", rules))
    judge(program("promtool"), "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_mounts_is_there(name):
    for mounted in SERVICES[name].get("volumes", ()):
        source, target, *_ = mounted.split(":")
        if source.startswith("."):
            assert (DEPLOY / source).is_file(), mounted
        assert target.startswith("/")


def test_grafana_has_the_dashboard_and_where_its_numbers_are_from():
    mounted = dict(reversed(each.removesuffix(":ro").split(":")) for each in SERVICES["grafana"]["volumes"])
    folder = "/etc/grafana/provisioning"
    boards = YAML(typ="safe").load((DEPLOY / mounted[f"{folder}/dashboards/parley.yaml"]).read_text())
    (provider,) = boards["providers"]
    assert f"{provider['options']['path']}/parley.json" in mounted
    sources = YAML(typ="safe").load((DEPLOY / mounted[f"{folder}/datasources/parley.yaml"]).read_text())
    (source,) = sources["datasources"]
    assert (source["type"], source["isDefault"], source["url"]) == (
        "prometheus",
        True,
        "http://prometheus:9090",
    )
