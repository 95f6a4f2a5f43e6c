"""`parley phone` and `parley chat` look alike on a terminal, and break no word."""

import os
import re

import pytest

from tests.ingest.test_simulator import send
from tests.support.processes import THIS
from tests.support.terminal import OwnTerminal
from tests.support.waiting import until

pytestmark = pytest.mark.processes

QUESTION = (
    "Where does it hurt the most today, and since when has it been that way? Please answer in a few words."
)

SURVEY = f"""
survey: pain
start: [START]
steps:
  - {{id: where, ask: "{QUESTION}", answer: {{type: text}}, next: end}}
"""

COLUMNS = 44


def shown_sms(terminal):
    """The SMS that came, its rows joined by a blank, without what stands before them."""
    lines = terminal.screen().lines
    assert all(len(line) <= COLUMNS for line in lines)
    first = next(place for place, line in enumerate(lines) if "< " in line)
    last = next(place for place, line in enumerate(lines) if line.endswith("/160]"))
    indent = lines[first].index("< ") + 2
    assert all(line[:indent].isspace() for line in lines[first + 1 : last + 1])
    return " ".join(" ".join(line[indent:] for line in lines[first : last + 1]).split())


def test_chat(tmp_path):
    (tmp_path / "pain.yaml").write_text(SURVEY)
    with OwnTerminal(["parley", "chat", str(tmp_path / "pain.yaml")], os.environ, COLUMNS, 30) as terminal:
        until(lambda: terminal.screen().lines[-1] == ">", 10, "it waits")
        terminal.enter("START\n")
        until(lambda: "/160]" in terminal.screen().text, 10, "the survey answers")
        text = shown_sms(terminal)
    assert text == f"{QUESTION} [1 segment GSM-7, {len(QUESTION)}/160]"


def test_phone(web):
    base = web()
    command = ["parley", "phone", "--url", base, "--from", "+33698765432"]
    with OwnTerminal(command, {**os.environ, **THIS.environment}, COLUMNS, 30) as terminal:
        until(lambda: terminal.screen().lines[-1] == ">", 10, "it waits")
        send(base, QUESTION, "a1")
        until(lambda: "/160]" in terminal.screen().text, 10, "the SMS is shown")
        text = shown_sms(terminal)
        (line,) = (line for line in terminal.screen().lines if "< Where" in line)
    assert re.match(r"\d\d:\d\d:\d\d < Where does", line)
    assert text == f"{QUESTION} [1 segment GSM-7, {len(QUESTION)}/160]"
