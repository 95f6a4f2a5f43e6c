"""No phone number, text or secret reaches a log, from our lines or from a library's."""

import io
import json
import logging

import pytest
import structlog

from config.telemetry import logs

NUMBER = "+33612345678"


class Settings:
    def __init__(self, log):
        self.log = log


@pytest.fixture(params=["json", "console"])
def written(request, monkeypatch):
    """What is logged, in either style; the process's own logging is left as it was."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers, root.level
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        logs.configure_logging(Settings(request.param))
    yield stream.getvalue
    root.handlers, root.level = before
    structlog.reset_defaults()


def test_private_fields_are_withheld(written):
    structlog.get_logger().warning(
        "a line", text="I have a fever", token="s3cr3t", number=NUMBER, sender=NUMBER
    )
    line = written()
    assert "a line" in line
    assert not any(private in line for private in ("fever", "s3cr3t", NUMBER[1:]))


def test_a_hashed_sender_is_kept_and_needs_the_key(written):
    hashed = logs.hash_sender(b"k" * 32, NUMBER)
    structlog.get_logger().warning("a line", sender=hashed)
    assert hashed in written()
    assert len(hashed) == 10
    assert hashed != logs.hash_sender(b"l" * 32, NUMBER)


def test_no_hash_is_taken_for_a_number(written):
    """One in a hundred would have digits alone, and be masked."""
    log = structlog.get_logger()
    numbers = [f"+336000{place:05}" for place in range(500)]
    names = [logs.hash_sender(b"k" * 32, number) for number in numbers]
    for name in names:
        log.warning("a line", sender=name)
    assert all(map(logs.is_log_name, names))
    assert len(set(names)) == len(names)
    assert written().count("+(withheld)") == 0
    assert not logs.is_log_name("0612345678")


def test_libraries_speak_without_their_arguments_and_only_to_warn(written):
    library = logging.getLogger("dramatiq.worker.WorkerThread")
    library.info("Received args=%r", ([NUMBER],))
    library.warning("Failed to process message %s after %d tries", f"starts(['{NUMBER}'])", 3)
    line = written()
    assert "Failed to process message" in line
    assert NUMBER[1:] not in line
    assert "Received" not in line


def test_a_number_in_an_exceptions_text_is_masked(written):
    def deep(text):
        raise ValueError(f"cannot send to {NUMBER}")

    try:
        deep("I HAVE A FEVER".lower())
    except ValueError:
        logging.getLogger("dramatiq").exception("it failed")
        structlog.get_logger().exception("it failed")
    line = written()
    assert line.count("ValueError: cannot send to +(withheld)") == 2
    assert NUMBER[1:] not in line
    assert "i have a fever" not in line, "no local variables"


def test_a_line_is_json_or_it_is_for_a_person(written, request):
    structlog.get_logger().info("running", role="web")
    line = written()
    assert "running" in line
    if "json" in request.node.name.rpartition("[")[2]:
        assert json.loads(line)["role"] == "web"
