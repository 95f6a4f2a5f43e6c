"""What kustomize makes of a folder of `parley init`, by the commands of config/deploy/README.md: Kubernetes takes it, each line of
the Procfile is there, and what it is told exists.

`kubectl kustomize` renders it where there is a kubectl; else the tests of what is rendered are skipped.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from config.cli import main
from config.settings.settings import ENVIRONMENT_VARIABLES
from config.telemetry import metrics
from tests.config.test_containers import image_environment, judge
from tests.support.processes import ROOT, procfile
from tests.support.waiting import HANG_S, PATIENCE
from workers.diagnosis.diagnose import ROLE_OF_QUEUE
from workers.roles.worker_process import FORCED_EXIT_S

pytestmark = pytest.mark.processes

KUBERNETES = ROOT / "config" / "deploy" / "kubernetes"
OWN = "clinic.kustomization.yaml"
ENDS_S = 3.5
"""In which `web` ends by itself."""

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def documents(text):
    return [each for each in YAML(typ="safe").load_all(text) if each]


def of_kind(found, kind):
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def render(folder):
    """The text that kustomize makes of the folder."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=HANG_S * PATIENCE
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A folder of `parley init`, with what is copied into it."""
    folder = tmp_path_factory.mktemp("kubernetes") / "clinic"
    result = CliRunner().invoke(main, ["init", str(folder)])
    assert result.exit_code == 0, result.output
    shutil.copytree(KUBERNETES, folder / "kubernetes")
    (folder / "kubernetes" / OWN).rename(folder / "kustomization.yaml")
    return folder


@pytest.fixture(scope="module")
def rendered(clinic):
    return render(clinic)


@pytest.fixture(scope="module")
def deployments(rendered):
    return of_kind(documents(rendered), "Deployment")


def container(deployment):
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


@needs_kubectl
def test_kubernetes_takes_it(rendered, tmp_path):
    (tmp_path / "all.yaml").write_text(rendered)
    judge(Path(sys.executable).parent / "kubernetes-validate", "--strict", "--quiet", tmp_path / "all.yaml")


@needs_kubectl
def test_each_line_of_the_procfile_is_a_deployment_and_may_lose_one_copy_at_a_time(rendered, deployments):
    assert {name: " ".join(container(each)["command"]) for name, each in deployments.items()} == procfile()
    budgets = of_kind(documents(rendered), "PodDisruptionBudget")
    assert budgets.keys() == deployments.keys()
    for name, deployment in deployments.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        for selector in (deployment["spec"]["selector"], budgets[name]["spec"]["selector"]):
            assert selector["matchLabels"].items() <= labels.items()
            assert selector["matchLabels"]["app.kubernetes.io/component"] == name
        assert budgets[name]["spec"]["maxUnavailable"] == 1


@needs_kubectl
def test_what_is_set_exists_and_is_where_the_image_looks(deployments):
    for deployment in deployments.values():
        made = {each["name"]: each["value"] for each in container(deployment)["env"]}
        assert made.keys() <= {variable.name for variable in ENVIRONMENT_VARIABLES}
        mounts = {each["mountPath"] for each in container(deployment)["volumeMounts"]}
        assert str(Path(image_environment()["PARLEY_CONFIG"]).parent) in mounts
        assert made["PARLEY_SURVEYS"] in mounts
        assert image_environment()["PARLEY_VAR"] not in mounts, "an archive there would go with its copy"


@needs_kubectl
def test_each_is_asked_whether_it_works_on_the_port_that_it_listens_on(deployments):
    for name, deployment in deployments.items():
        process = container(deployment)
        ports = {each["name"]: each["containerPort"] for each in process["ports"]}
        made = {each["name"]: each["value"] for each in process["env"]}
        assert ports["metrics"] == int(made["PARLEY_METRICS_PORT"])
        for probe in ("startupProbe", "livenessProbe"):
            assert process[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
        ready = process.get("readinessProbe", {}).get("httpGet")
        assert ready == ({"path": "/readyz", "port": "http"} if name == "web" else None)
        assert ports.get("http") == (8000 if name == "web" else None)


@needs_kubectl
def test_each_has_time_to_finish_what_it_holds(deployments):
    for name, deployment in deployments.items():
        grace_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        if name == "web":
            waits_s = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert grace_s > waits_s + FORCED_EXIT_S
        else:
            assert grace_s > FORCED_EXIT_S


@needs_kubectl
def test_none_has_rights_on_its_machine(deployments):
    for deployment in deployments.values():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert not pod["enableServiceLinks"]
        assert container(deployment)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


@needs_kubectl
def test_configuration_surveys_and_secrets_are_those_of_the_folder(clinic, rendered, deployments):
    found = documents(rendered)
    maps = {re.sub("-[^-]*$", "", name): each for name, each in of_kind(found, "ConfigMap").items()}
    files = {file.name for file in (clinic / "config").iterdir() if file.is_file()}
    assert maps["parley-config"]["data"].keys() == files
    surveys = {file.name for file in (clinic / "config" / "surveys").iterdir()}
    assert maps["parley-surveys"]["data"].keys() == surveys
    (secret,) = of_kind(found, "Secret").values()
    assert secret["data"].keys() == set(re.findall(r"^(\w+)=", (clinic / ".env").read_text(), re.MULTILINE))
    for deployment in deployments.values():
        assert container(deployment)["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
        volumes = deployment["spec"]["template"]["spec"]["volumes"]
        named = {each["configMap"]["name"] for each in volumes if "configMap" in each}
        assert named == set(of_kind(found, "ConfigMap"))
        assert container(deployment)["image"] == "registry.example.org/parley:0.1.0"


@needs_kubectl
def test_with_keda_the_number_of_copies_is_its_own_to_say(clinic, tmp_path, deployments):
    folder = shutil.copytree(clinic, tmp_path / "clinic")
    file = folder / "kustomization.yaml"
    file.write_text(file.read_text().replace("# components:", "components:"))
    scaled = of_kind(documents(render(folder)), "Deployment")
    assert scaled.keys() == deployments.keys()
    free = {name for name, each in scaled.items() if "replicas" not in each["spec"]}
    assert free == {each["spec"]["scaleTargetRef"]["name"] for each in scalers()}
    assert all("replicas" in each["spec"] for each in deployments.values())


def scalers():
    return documents((KUBERNETES / "keda" / "scaled-objects.yaml").read_text())


def test_keda_looks_at_how_long_the_first_of_a_roles_queue_has_waited():
    assert {each["kind"] for each in scalers()} == {"ScaledObject"}
    waited = f"{metrics.QUEUE_OLDEST_SECONDS._name}"
    role_of_queue = {}
    for scaler in scalers():
        (trigger,) = scaler["spec"]["triggers"]
        query = trigger["metadata"]["query"]
        (queue,) = re.findall(rf'^max\({waited}{{job="parley", queue="(\w+)"}}\)$', query)
        role_of_queue[queue] = scaler["spec"]["scaleTargetRef"]["name"]
        assert scaler["spec"]["minReplicaCount"] >= 1, "one at 0 would leave people waiting for its start"
    assert role_of_queue == dict(ROLE_OF_QUEUE)


def test_prometheus_knows_a_process_by_the_port_that_it_has():
    (job,) = YAML(typ="safe").load((KUBERNETES / "scrape.yml").read_text())["scrape_configs"]
    assert job["job_name"] == "parley", "as KEDA and the alerts call it"
    kept, *_ = job["relabel_configs"]
    assert (kept["regex"], kept["action"]) == ("metrics", "keep")
