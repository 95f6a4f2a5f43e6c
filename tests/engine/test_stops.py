"""A STOP is a STOP, whatever is being asked and however it is written."""

import msgspec
import pytest

from engine import advance
from engine.events import Ended, Heard, Mail, OptedIn, OptedOut, Said, Sms, Unsent
from engine.keywords import AMBIGUOUS_STOP, HELP, STOP
from engine.lane import Lane
from tests.engine.chat import CHANNEL, Phone, policy_for, surveys_of

SURVEY = """
survey: colours
title: Colours
idle: 10m
steps:
  - {id: welcome, say: Welcome!}
  - id: mood
    ask: How are you?
    answer: {type: text}
  - id: colour
    ask: Which one?
    answer: {type: choice, options: [Red, {id: none, label: Neither, aliases: [end, cancel, quit, remove, info]}]}
  - {id: sure, ask: Sure?, answer: {type: yes_no}}
"""
STATES = {
    "no session ever": [],
    "a text is asked": ["START"],
    "a choice is asked": ["START", "fine"],
    "yes or no is asked": ["START", "fine", "red"],
    "a session is over": ["START", "fine", "red", "yes"],
}
SPELLINGS = ["{}", " {}. ", "«{}»", "{}!!!", "\u200b{}"]


@pytest.fixture
def phone():
    return Phone(surveys_of({"colours.yaml": SURVEY}), policy_for("colours"))


def bring_to(phone, state):
    for text in STATES[state]:
        phone.text(text, after_ms=1000)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("word", sorted(STOP - AMBIGUOUS_STOP))
def test_a_stop_word_stops_in_every_state(phone, state, word):
    bring_to(phone, state)
    said = phone.text(word.upper(), after_ms=1000)
    assert said == ["Colours: You are unsubscribed and will get no more messages. Text START to come back."]
    assert phone.line.opted_out_at == phone.now
    assert phone.line.session is None
    assert phone.last.silenced == [CHANNEL]
    assert phone.last.keep_until is None


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("word", ["STOP", "stop", "Arrêt", "ＳＴＯＰ", "Désabonner", "Stop  All", "opt-out"])
def test_a_stop_word_stops_in_every_spelling(phone, spelling, word):
    phone.text(spelling.format(word))
    assert phone.line.opted_out_at


@pytest.mark.parametrize("text", ["please stop", "stopped", "don't stop", "ende", ""])
def test_a_longer_text_is_no_stop(phone, text):
    phone.text(text)
    assert not phone.line.opted_out_at


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("word", sorted(AMBIGUOUS_STOP))
def test_an_ambiguous_stop_word_is_an_answer_only_where_the_choice_that_is_asked_has_it(phone, state, word):
    bring_to(phone, state)
    phone.text(word, after_ms=1000)
    assert bool(phone.line.opted_out_at) == (state != "a choice is asked")


def test_the_stop_is_evidence_and_ends_the_session(phone):
    phone.text("START")
    phone.text("Stop!")
    assert phone.seen(OptedOut) == [OptedOut(phone.now, CHANNEL, f"{2:016x}", "Stop!", by_provider=False)]
    assert phone.seen(Ended) == [Ended(phone.now, CHANNEL, f"{1:016x}", "stopped")]


@pytest.mark.parametrize("text", ["STOP", "hello", "help", "END", ""])
def test_whoever_opted_out_hears_nothing(phone, text):
    phone.text("STOP")
    assert phone.text(text, after_ms=86_400_000) == []
    assert phone.last.silenced == []
    assert isinstance(phone.last.records[-1], Heard)


def test_no_confirmation_where_the_provider_confirms(phone):
    phone.policy = msgspec.structs.replace(phone.policy, confirms_stop=True)
    assert phone.text("STOP") == []
    assert phone.line.opted_out_at


def test_a_stop_told_by_the_provider_is_not_confirmed(phone):
    phone.text("START")
    assert phone.provider_stop() == []
    assert phone.provider_stop() == []
    assert [record.by_provider for record in phone.seen(OptedOut)] == [True]
    assert phone.line.session is None


def test_what_the_same_batch_decided_before_the_stop_is_withdrawn(phone):
    mail = [
        Mail(phone.now, Sms("a", CHANNEL, "START", start=True)),
        Mail(phone.now, Sms("b", CHANNEL, "STOP")),
    ]
    batch = advance(Lane(), "+33", mail, phone.now, phone.surveys, {CHANNEL: phone.policy})
    assert [sms.id for sms in batch.outbox] == ["br0"]
    said = [record.id for record in batch.records if isinstance(record, Said)]
    assert said == ["ax0", "ax1", "br0"]
    assert [record.id for record in batch.records if isinstance(record, Unsent)] == ["ax0", "ax1"]


def test_start_opts_in_again_and_opens_a_session(phone):
    phone.text("STOP")
    assert phone.text("START") == ["Welcome!", "How are you?"]
    assert len(phone.seen(OptedIn)) == 1


def test_unstop_opts_in_again_and_opens_nothing(phone):
    phone.text("STOP")
    phone.text("UNSTOP")
    assert not phone.line.opted_out_at
    assert phone.line.session is None


@pytest.mark.parametrize("word", sorted(HELP))
def test_help_leaves_the_session_as_it_was(phone, word):
    phone.text("START")
    before = phone.line.session
    assert len(phone.text(word, after_ms=5000)) == 1
    assert phone.line.session == before
    assert phone.text(word) == []


def test_info_is_an_answer_where_the_choice_that_is_asked_has_it(phone):
    bring_to(phone, "a choice is asked")
    assert phone.text("INFO") == ["Sure?"]
