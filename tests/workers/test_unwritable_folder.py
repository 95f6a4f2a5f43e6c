"""Where `PARLEY_VAR` leads to nothing that can be made, whoever writes there says so in a sentence, and what to do."""

import os
import subprocess

import pytest

from tests.support.processes import THIS
from tests.support.waiting import HANG_S, PATIENCE, free_port

pytestmark = pytest.mark.processes


@pytest.fixture
def nowhere(tmp_path):
    """A folder that nobody can make, root neither: a file is in its place."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "var"


def said(command, nowhere, **environment):
    """The exit status and what is said."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PARLEY_", "PROMETHEUS_"))}
    own = {"PARLEY_VAR": str(nowhere), "PARLEY_PORT": f"{free_port()}", "NO_COLOR": "1"}
    done = subprocess.run(
        command.split(), cwd=THIS.root, env={**clean, **THIS.environment, **own, **environment},
        capture_output=True, text=True, check=False, timeout=HANG_S * PATIENCE,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["parley run", "parley reshard --to 512"])
def test_who_starts_the_embedded_server_says_so(nowhere, command):
    status, text = said(command, nowhere)
    assert status == 1
    assert f"{nowhere}/" in text
    assert "cannot be made or written (Not a directory)" in text
    assert "PARLEY_VAR with another" in text


def test_run_says_so_once_where_there_is_a_redis(nowhere):
    status, text = said("parley run", nowhere, PARLEY_REDIS_URL="redis://127.0.0.1:1/0")
    assert status == 1
    assert text.count("cannot be made or written") == 1


def test_archive_says_so(nowhere, valkey):
    urls = {"PARLEY_REDIS_URL": valkey.url, "PARLEY_BROKER_URL": valkey.broker_url}
    status, text = said("python -m workers archive", nowhere, **urls)
    assert status == 2
    assert f"{nowhere}/archive.db cannot be made or written (Not a directory)" in text
    assert "PARLEY_ARCHIVE_URL or PARLEY_VAR with another" in text


@pytest.mark.parametrize("command", ["python -m ingest", "python -m workers clock", "parley metrics"])
def test_who_counts_says_so(nowhere, command):
    status, text = said(command, nowhere, PROMETHEUS_MULTIPROC_DIR=str(nowhere / "metrics"))
    assert status == 2
    assert text == (
        f"{nowhere}/metrics cannot be made or written (Not a directory): expected a folder in which this user "
        "may write, or PROMETHEUS_MULTIPROC_DIR with another\n"
    )


def test_check_warns_of_it(nowhere):
    status, text = said("parley check", nowhere)
    assert status == 0
    assert f"warning: {nowhere.parent} cannot be written here, which `archive` must" in text


def test_run_ends_with_the_process_that_says_so(tmp_path, nowhere):
    """No line goes on without the one whose settings are wrong."""
    status, text = said("parley run", tmp_path / "var", PARLEY_ARCHIVE_URL=f"sqlite:///{nowhere}/archive.db")
    assert status == 2
    assert text.count(f"{nowhere}/archive.db cannot be made or written (Not a directory)") == 1
    assert "starting it again" not in text
