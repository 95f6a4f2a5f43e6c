"""`parley phone` texts a channel and shows what comes back, or says what to do."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ingest.commands import phone
from tests.ingest.test_simulator import send
from tests.ingest.test_web import mail
from tests.support.waiting import free_port


def call(base, *arguments, script="START\n"):
    options = ["--url", base, "--settle", "0.2", "--from", "+33698765432", *arguments]
    return CliRunner().invoke(phone.phone, options, input=script)


def test_a_script_is_texted_line_by_line(web, valkey):
    result = call(web(), script="START\n\nAda [bold]\n")
    assert (result.exit_code, result.output) == (0, "> START\n> Ada [bold]\n")
    assert [event.text for _, event in mail(valkey, "+33698765432")] == ["START", "Ada [bold]"]


def test_it_may_text_one_of_the_channels_originators(web, valkey, tmp_path):
    shipped = Path("config/parley.toml").read_text()
    (tmp_path / "parley.toml").write_text(
        shipped.replace("[channels.clinic.limits]", 'originators = ["36111"]\n[channels.clinic.limits]')
    )
    base = web(PARLEY_CONFIG=str(tmp_path / "parley.toml"))
    assert call(base, "--to", "+36111").exit_code == call(base).exit_code == 0
    assert [event.originator for _, event in mail(valkey, "+33698765432")] == ["36111", ""]


def test_replies_are_shown_with_their_segments(web, monkeypatch):
    base = web()
    send(base, "before the phone was switched on", "a0")
    text = phone.PhoneConnection.send_sms

    def texted_and_answered(line, words):
        text(line, words)
        send(base, "What is your [name]? ç" + "x" * 70, "a1")

    monkeypatch.setattr(phone.PhoneConnection, "send_sms", texted_and_answered)
    result = call(base)
    assert "What is your [name]? ç" in result.output
    assert re.search(r"^\d\d:\d\d:\d\d < What .*  \[2 segments UCS-2, 92/134\]$", result.output, re.MULTILINE)
    assert "before" not in result.output


@pytest.mark.parametrize(
    "arguments, todo", [(("--channel", "nobody"), "--channel"), (("--token", "wrong"), "--token")]
)
def test_a_wrong_channel_or_token_is_a_sentence(web, arguments, todo):
    result = call(web(), *arguments)
    assert result.exit_code == 1
    assert todo in result.output


@pytest.mark.parametrize("number", ["0612345678", "33612345678", ""])
def test_a_number_that_is_not_in_full_is_a_sentence(number):
    result = call("http://127.0.0.1:1", "--from", number)
    assert result.exit_code == 2
    assert "a number in full is expected, as in +33612345678" in result.output


def test_nothing_listening_is_a_sentence():
    result = call(f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "start `parley run`" in result.output
