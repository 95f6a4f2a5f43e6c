"""`parley metrics` tells what a machine without `web` has counted, and what lies in Redis."""

import subprocess
import sys

import pytest
import requests

from tests.support.counting import CountingProcess
from tests.support.waiting import free_port, until

COMMAND = [sys.executable, "-c", "from config.cli import main; main()", "metrics"]


@pytest.fixture
def environment(parley, tmp_path):
    return {**parley.environment, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}


@pytest.fixture
def counted(environment, tmp_path):
    """A process of this machine has counted three duplicates and is dead, another four and lives."""
    dead, living = (CountingProcess(tmp_path / "metrics") for _ in range(2))
    dead.count(3)
    living.count(4)
    dead.kill9()
    yield
    living.kill9()


def run(environment, *arguments):
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def scraped(url):
    try:
        return requests.get(url, timeout=60).text
    except requests.ConnectionError:
        return ""


def test_once_prints_what_all_have_counted_and_what_lies_in_redis(environment, counted):
    found = run(environment, "--once")
    assert found.returncode == 0
    assert "parley_duplicates_total 7.0" in found.stdout.splitlines()
    assert 'parley_redis_up{server="lanes"} 1.0' in found.stdout.splitlines()
    assert 'parley_invitations_held{channel="clinic"} 0.0' in found.stdout.splitlines()


def test_it_serves_until_it_is_told_to_stop(environment, counted):
    port = free_port()
    process = subprocess.Popen(
        [*COMMAND, "--port", str(port)], env=environment, stderr=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        text = until(lambda: scraped(url), 20, "the endpoint answers")
        assert "parley_duplicates_total 7.0" in text.splitlines()
        taken = run(environment, "--port", str(port))
        assert taken.returncode == 1
        assert f"cannot listen on 127.0.0.1, port {port}" in taken.stderr
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert url in said


def test_a_redis_that_is_away_is_told_and_nothing_fails(environment, counted):
    away = "redis://127.0.0.1:1/0"
    found = run({**environment, "PARLEY_REDIS_URL": away, "PARLEY_BROKER_URL": away}, "--once")
    assert found.returncode == 0
    assert 'parley_redis_up{server="lanes"} 0.0' in found.stdout.splitlines()
    assert "parley_duplicates_total 7.0" in found.stdout.splitlines()
