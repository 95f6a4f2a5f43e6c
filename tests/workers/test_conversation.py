"""The conversation that any SMS starts goes through mailboxes and workers as it does in the engine alone."""

import shutil

from config.settings.channels import channel_policies
from config.settings.startup_check import load_settings_and_surveys
from engine.model.events import SessionOpened
from tests.engine.chat import ROOT, SHIPPED

# The pipeline's one survey is called as its channel is.
CONVERSATION = SHIPPED["conversation.yaml"].replace(b"survey: conversation", b"survey: clinic")

CHANNEL = """
[channels.conversation]
number = "+15005550006"
surveys = ["conversation"]
contacts = "contacts.csv"
"""


def test_every_sms_is_answered_and_counted(pipeline):
    line = pipeline(CONVERSATION)
    line.accept("+33611111111", "Hello", "START")
    line.accept("+33622222222", "Hi")
    line.drain()
    line.accept("+33611111111", "Anybody there?")
    line.drain()
    assert line.said("+33611111111") == [f"Friend has messaged +33700000001 {n} times" for n in (1, 2, 3)]
    assert line.said("+33622222222") == ["Friend has messaged +33700000001 1 times"]


def test_what_spans_senders_bounds_it_too(pipeline):
    line = pipeline(CONVERSATION, new_sessions_per_minute=1)
    line.accept("+33611111111", "Hello")
    line.accept("+33622222222", "Hi")
    line.drain()
    opened = [each for sender in ("+33611111111", "+33622222222") for each in line.records(sender)]
    assert sum(isinstance(record, SessionOpened) for record in opened) == 1


def test_the_channel_that_we_describe_knows_the_people_of_the_example(tmp_path):
    shutil.copy(ROOT / "config" / "contacts.csv", tmp_path)
    (tmp_path / "parley.toml").write_text(CHANNEL)
    environ = {
        "PARLEY_CONFIG": str(tmp_path / "parley.toml"),
        "PARLEY_SURVEYS": str(ROOT / "config" / "surveys"),
    }
    settings, _ = load_settings_and_surveys(environ)
    policy = channel_policies(settings.channels)["conversation"]
    assert (policy.number, policy.contacts["+14158675308"]) == ("+15005550006", "Rey")
