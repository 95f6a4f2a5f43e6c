"""An installed wheel runs by itself, far from any checkout, whatever else is called `python` there."""

import os
import signal
import subprocess
import sys
import sysconfig
import venv
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from tests.support.processes import ROOT
from tests.support.waiting import HANG_S, PATIENCE, free_port, until

pytestmark = pytest.mark.processes

END_S = 15


class Installation(NamedTuple):
    """As `uv tool install` makes one: an environment of its own, of which only `parley` is on the PATH."""

    programs: Path

    @property
    def environment(self):
        clean = {
            k: v for k, v in os.environ.items() if not k.startswith(("PARLEY_", "PROMETHEUS_", "PYTHON"))
        }
        own = {
            "PATH": f"{self.programs}{os.pathsep}{os.defpath}",
            "NO_COLOR": "1",
            "XDG_RUNTIME_DIR": str(self.programs),
        }
        return clean | own

    def call(self, folder, *words):
        return subprocess.run(
            ["parley", *words], cwd=folder, env=self.environment, capture_output=True, text=True, check=False,
            timeout=HANG_S * PATIENCE,
        )  # fmt: skip

    def said(self, folder, *words):
        done = self.call(folder, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """Its dependencies are those of this Python, which are found behind its own packages."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    (wheel,) = folder.glob("*.whl")
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    into = ["--python", str(environment / "bin" / "python")]
    options = ["--quiet", "--offline", "--no-cache", "--no-deps"]
    subprocess.run([uv, "pip", "install", *options, *into, wheel], check=True, cwd=folder)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    programs = folder / "programs"
    programs.mkdir()
    (programs / "parley").symlink_to(environment / "bin" / "parley")
    (programs / "python").write_text("#!/bin/sh\necho another python >&2\nexit 2\n")
    (programs / "python").chmod(0o755)
    return Installation(programs)


def test_in_an_empty_folder_it_makes_what_it_needs_and_runs(installation, tmp_path):
    folder, log, port = tmp_path / "clinic", tmp_path / "log", free_port()
    installation.said(tmp_path, "init", "clinic")
    with (folder / ".env").open("a") as more:
        more.write(f"PARLEY_PORT={port}\n")
    assert f"http://127.0.0.1:{port}/webhooks/clinic" in installation.said(folder, "check")
    with log.open("w") as written:
        popen = subprocess.Popen(
            ["parley", "run"], cwd=folder, env=installation.environment, stdout=written, stderr=written
        )
    try:
        until(lambda: popen.poll() is not None or is_ready(port), 60, "web answers")
        until(lambda: popen.poll() is not None or "Parley is running." in log.read_text(), 10, "it says so")
        assert "in another terminal, parley phone, and text START" in log.read_text()
        until(lambda: installation.call(folder, "status").returncode == 0, 15, "every line works")
        assert "another python" not in log.read_text()
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(END_S * PATIENCE) == 0
    finally:
        popen.kill()  # and what it has started ends by itself
        popen.wait()
    assert (folder / "var" / "archive.db").exists()


def is_ready(port):
    with suppress(requests.RequestException):
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=HANG_S).status_code == 200
