"""The server that `parley run` starts is its owner's alone, wherever its data lie, and has no port."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from config.connections.redis_url import default_broker_url
from config.store import redis_client
from tests.support.processes import THIS
from tests.support.waiting import free_port, until
from workers.runtime import embedded_redis
from workers.runtime.embedded_redis import (
    MAX_SOCKET_PATH,
    EmbeddedServerError,
    run_embedded_server,
    url_of_running,
)

pytestmark = pytest.mark.processes

DEEP = Path(*["a-folder-with-a-long-name"] * 6)


def of_others(folder):
    """What others could read, write or enter."""
    paths = [folder, *folder.rglob("*")]
    return [path for path in paths if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def socket_of(url):
    return Path(url.removeprefix("unix://").partition("?")[0])


@pytest.mark.parametrize("runtime", ["", "short", "too/long"])
def test_its_files_and_its_socket_are_its_owners_alone(tmp_path, monkeypatch, runtime):
    """Whatever the umask is, and however deep its folder lies."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", {"": "", "short": "/tmp"}.get(runtime, str(tmp_path / DEEP)))
    before = os.umask(0)
    try:
        with run_embedded_server(tmp_path / DEEP) as url:
            client = redis_client.connect(url)
            client.set("a", "+33600000001")
            client.bgrewriteaof()
            assert client.config_get("port") == {"port": "0"}
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
            client.close()
            assert of_others(tmp_path / DEEP / "valkey") == []
            assert of_others(socket_of(url).parent) == []
            assert len(os.fsencode(socket_of(url))) <= MAX_SOCKET_PATH
            assert url_of_running(tmp_path / DEEP) == url
    finally:
        os.umask(before)
    assert not socket_of(url).parent.exists()
    assert url_of_running(tmp_path / DEEP) is None


def test_what_an_earlier_release_left_open_is_closed_and_goes_on(tmp_path):
    with run_embedded_server(tmp_path) as url, redis_client.connect(url) as client:
        client.set("a", "1")
    for path in [tmp_path / "valkey", *(tmp_path / "valkey").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with run_embedded_server(tmp_path) as url, redis_client.connect(url) as client:
        assert client.get("a") == b"1"
        assert of_others(tmp_path / "valkey") == []


def test_wake_ups_have_the_next_database(tmp_path):
    with run_embedded_server(tmp_path) as url:
        broker = default_broker_url(url)
        with redis_client.connect(url) as lanes, redis_client.connect(broker) as bells:
            bells.set("a", "1")
            assert (lanes.get("a"), bells.get("a")) == (None, b"1")


def test_one_at_a_time_has_the_folder(tmp_path):
    with (
        run_embedded_server(tmp_path),
        pytest.raises(EmbeddedServerError, match="another parley is running"),
        run_embedded_server(tmp_path),
    ):
        pass


def test_the_server_has_the_lock_for_as_long_as_it_lives(tmp_path):
    """Whoever started it may be dead by then."""
    with run_embedded_server(tmp_path) as url, redis_client.connect(url) as client:
        files = Path(f"/proc/{client.info('server')['process_id']}/fd")
        assert str(tmp_path / "valkey" / "lock") in {str(file.readlink()) for file in files.iterdir()}


HOLDER = "import fcntl, sys; held = open(sys.argv[1]); fcntl.flock(held, fcntl.LOCK_EX); print(flush=True); input()"


def test_what_one_who_is_dead_has_left_is_waited_for(tmp_path, monkeypatch, capsys):
    """Nobody begins on its data before its server has ended, which holds the lock too."""
    with subprocess.Popen(["true"]) as dead:
        pass
    lock = tmp_path / "valkey" / "lock"
    lock.parent.mkdir()
    lock.write_text(f"{dead.pid}")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline()

    def end_holder(_):
        if holder.poll() is None:
            holder.communicate(b"\n")

    monkeypatch.setattr(embedded_redis, "sleep", end_holder)
    with run_embedded_server(tmp_path):
        assert holder.returncode == 0
        assert lock.read_text() == f"{os.getpid()}"
    told = f"waiting for what an earlier Parley (process {dead.pid}, which is gone) has left to end\n"
    assert capsys.readouterr().err == told


def test_all_of_parley_runs_on_it_and_commands_find_it(tmp_path):
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PARLEY_", "PROMETHEUS_"))},
        **THIS.environment, "PARLEY_VAR": str(tmp_path / DEEP), "PARLEY_PORT": str(port), "NO_COLOR": "1",
    }  # fmt: skip

    def parley(*words):
        return subprocess.run(
            ["parley", *words], cwd=THIS.root, env=environment, capture_output=True, text=True, check=False
        )

    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            ["parley", "run"], cwd=THIS.root, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: "Parley is running." in (tmp_path / "log").read_text(), 60, "it runs")
        until(
            lambda: parley("status").stdout.startswith("All is well."), 30, "status finds it, and all is well"
        )
        (url,) = (tmp_path / DEEP / "valkey" / "url").read_text().splitlines()
        assert redis.Redis.from_url(url).ping()
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
    assert parley("status").returncode == 1
    assert "nothing is running" in parley("status").stderr
