"""How a command reaches Redis, and what it says if it cannot."""

from click.testing import CliRunner

from config.cli import main
from workers.commands.connect import url_without_credentials


def test_a_redis_that_does_not_answer_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("PARLEY_REDIS_URL", "redis://anna:s3cret@127.0.0.1:1/0")
    for arguments in (["dead", "audit"], ["lane", "+33600000001"], ["channel", "list"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert "the Redis of the lanes at redis://127.0.0.1:1/0 does not answer" in result.stderr
        assert "s3cret" not in result.output + result.stderr


def test_a_place_is_the_url_without_what_is_secret():
    assert (
        url_without_credentials("rediss://:s3cret@redis.example.org:6380/2")
        == "rediss://redis.example.org:6380/2"
    )
    assert url_without_credentials("unix:///run/redis.sock") == "unix:///run/redis.sock"
    assert url_without_credentials("unix://anna:s3cret@/run/redis.sock?db=1") == "unix:///run/redis.sock"
    assert url_without_credentials("redis://here:6379?password=s3cret") == "redis://here:6379"
