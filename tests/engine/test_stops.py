"""A STOP is a STOP, whatever is being asked and however it is written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.model.events import (
    InboundSms,
    Mail,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ProviderStop,
    SessionEnded,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
)
from engine.model.lane import Lane
from engine.proofs.transcripts import PersonInvited
from engine.surveys.keywords import (
    AMBIGUOUS_STOP_WORDS,
    HELP_WORDS,
    OPT_IN_YES_WORDS,
    START_WORDS,
    STOP_SENTENCES,
    STOP_WORDS,
    is_start,
    is_stop,
    read_command,
)
from engine.turns.advance import advance
from tests.engine.chat import SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of
from tests.support.example_counts import examples

SURVEY = """
survey: colours
title: Colours
start: {en: [START, COLOUR], fr: COULEUR, no: FARGE}
languages: [en, fr, no]
idle: 10m
texts: {refused: Not now.}
steps:
  - {id: welcome, say: Welcome!}
  - id: mood
    ask: How are you?
    answer: {type: text}
  - id: colour
    ask: Which one?
    answer: {type: choice, options: [Red, {id: none, label: Neither, aliases: [end, cancel, quit, remove, baja, info]}]}
  - {id: sure, ask: Sure?, answer: {type: yes_no}}
"""
KEYWORDS = {"en": "COLOUR", "fr": "COULEUR", "no": "FARGE"}
STATES = {
    "no session ever": [],
    "a text is asked": ["KEYWORD"],
    "a choice is asked": ["KEYWORD", "fine"],
    "yes or no is asked": ["KEYWORD", "fine", "red"],
    "a session is over": ["KEYWORD", "fine", "red", "yes"],
    "opted out": ["KEYWORD", "stop"],
}
CONFIRMED = {
    "en": "Colours: You are unsubscribed and will get no more messages. Text START to come back.",
    "fr": "Colours: Vous ne recevrez plus de messages. Envoyez COULEUR pour revenir.",
    "no": "Colours: Du er avmeldt og får ikke flere meldinger. Send FARGE for å komme tilbake.",
}
SPELLINGS = ["{}", " {}. ", "«{}»", "{}!!!", "\u200b{}"]
POLITE = [
    "{} please",
    "Please {}",
    "{}, svp",
    "ok {}",
    "{} merci !",
    "bitte {}",
    "{} now, thank you",
    "{} - takk",
]


SURVEYS = surveys_of({"colours.yaml": SURVEY})


def new_phone():
    return SimulatedPhone(SURVEYS, policy_for("colours"))


@pytest.fixture
def phone():
    return new_phone()


def bring_to(phone, state, language="en"):
    for text in STATES[state]:
        phone.text(text.replace("KEYWORD", KEYWORDS[language]), after_ms=1000)


def unconfirmed(phone):
    """Opted out, everything over and withdrawn, and evidence of it."""
    (evidence,) = phone.records_of(PersonOptedOut)
    assert phone.channel_state.opted_out_at == evidence.at
    assert phone.channel_state.session is None
    assert len([each for each in phone.records_of(SessionEnded) if each.how == "stopped"]) <= 1
    return evidence


@pytest.mark.parametrize("handled", ["", "stop"])
@pytest.mark.parametrize("language", sorted(KEYWORDS))
@pytest.mark.parametrize("state", STATES)
def test_a_stop_word_stops_in_every_state_and_is_confirmed_once_unless_the_provider_did(
    state, language, handled
):
    spoken = language if STATES[state] else "en"
    for word in sorted(STOP_WORDS - AMBIGUOUS_STOP_WORDS):
        phone = new_phone()
        bring_to(phone, state, language)
        said = phone.text(word.upper(), after_ms=1000, handled=handled)
        assert said == ([] if handled or state == "opted out" else [CONFIRMED[spoken]]), word
        evidence = unconfirmed(phone)
        assert evidence.by_provider is False, word
        if state != "opted out":
            assert (evidence.at, evidence.text) == (phone.now, word.upper())
            assert phone.last_advance.silenced == [SIMULATED_CHANNEL], word
            assert phone.last_advance.opt_outs == {SIMULATED_CHANNEL: (phone.now, "person")}, word
        assert phone.records_of(SmsReceived)[-1].handled == handled, word
        assert phone.text(word, after_ms=1000) == [], word
        assert len(phone.records_of(PersonOptedOut)) == 1, word


@pytest.mark.parametrize("state", ["a text is asked", "a choice is asked", "no session ever"])
def test_a_plain_request_is_a_stop_in_every_state(state):
    for request in sorted(STOP_SENTENCES):
        phone = new_phone()
        bring_to(phone, state)
        assert phone.text(request.capitalize() + "!") == [CONFIRMED["en"]], request
        assert unconfirmed(phone).text == request.capitalize() + "!"


@pytest.mark.parametrize("spelling", [*SPELLINGS, *POLITE])
@pytest.mark.parametrize("word", ["STOP", "stop", "Arrêt", "ＳＴＯＰ", "Désabonner", "Stop  All", "opt-out"])
def test_a_stop_word_stops_in_every_spelling_and_however_politely(phone, spelling, word):
    phone.text(spelling.format(word))
    assert phone.channel_state.opted_out_at


@pytest.mark.parametrize(
    "text",
    [
        "STOPPP", "stop stop stop", "Stop. Stop!", "stop please stop", "stop texting me", "Stop svp",
        "ne plus m’envoyer", "Ne plus m'envoyer de SMS", "Je ne veux plus recevoir de messages, merci",
        "Désabonnez-moi", "Meld meg av", "Keine SMS mehr bitte", "No más mensajes por favor",
    ],
)  # fmt: skip
def test_what_a_reasonable_person_takes_for_a_stop_is_one(phone, text):
    phone.text(text)
    assert phone.channel_state.opted_out_at


@pytest.mark.parametrize(
    "text",
    [
        "stopped", "don't stop", "non stop", "at the bus stop", "stop at 5 pm", "I want to stop smoking", "I want to stop",
        "ende", "no more", "no thanks", "non merci", "please", "stp", "please cancel", "end please", "plus de messages",
        "stops", "pit stop", "stop or go", "never stop", "", "🛑",
    ],
)  # fmt: skip
def test_what_may_be_an_answer_is_no_stop(phone, text):
    phone.text("START")
    phone.text(text)
    assert not phone.channel_state.opted_out_at


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(
        st.sampled_from(["stop", "please", "now", "texting", "me", "don't", "bus", "ok", "arret"]), max_size=7
    )
)
def test_no_stop_is_a_start_and_courtesy_makes_no_difference(words):
    text = " ".join(words)
    bare = " ".join(word for word in words if word not in ("please", "now", "ok"))
    surveys = surveys_of({"s.yaml": "{survey: s, start: '.*', steps: [{id: a, say: A}]}"})
    assert is_stop(text) == is_stop(bare)
    assert not (is_stop(text) and is_start(text, ["s"], surveys))
    assert (read_command(text, ["s"], surveys) == "stop") == is_stop(text)


@pytest.mark.parametrize("state", sorted(STATES.keys() - {"opted out"}))
@pytest.mark.parametrize("word", sorted(AMBIGUOUS_STOP_WORDS))
def test_an_ambiguous_stop_word_is_an_answer_only_where_the_choice_that_is_asked_has_it(phone, state, word):
    bring_to(phone, state)
    phone.text(word, after_ms=1000)
    assert bool(phone.channel_state.opted_out_at) == (state != "a choice is asked")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("word", [*sorted(AMBIGUOUS_STOP_WORDS), "red", "hello"])
def test_what_the_provider_took_for_a_stop_is_one_whatever_is_asked(phone, state, word):
    bring_to(phone, state)
    assert phone.text(word, after_ms=1000, handled="stop") == []
    unconfirmed(phone)


def test_the_stop_is_evidence_and_ends_the_session_with_its_answers(phone):
    phone.text("START")
    phone.text("fine")
    phone.text("Stop!")
    assert phone.records_of(PersonOptedOut) == [
        PersonOptedOut(phone.now, SIMULATED_CHANNEL, f"{3:016x}", "Stop!", by_provider=False)
    ]
    (ended,) = phone.records_of(SessionEnded)
    assert (ended.session, ended.how) == (f"{1:016x}", "stopped")
    assert {step: answer.value for step, answer in ended.answers.items()} == {"mood": "fine"}


@pytest.mark.parametrize("text", ["STOP", "hello", "help", "END", "INFO", "1", "red", "", "please stop"])
def test_whoever_opted_out_hears_nothing(phone, text):
    phone.text("STOP")
    assert phone.text(text, after_ms=86_400_000) == []
    assert phone.last_advance.silenced == []
    assert phone.last_advance.opt_outs == {}
    assert isinstance(phone.last_advance.records[-1], SmsReceived)


def test_whoever_opted_out_is_not_invited(phone):
    phone.text("STOP")
    assert phone.invite(PersonInvited()) == []
    assert [each.reason for each in phone.records_of(OpeningRefused)] == ["opted_out"]


def test_a_survey_that_anything_starts_opts_nobody_in(phone):
    open_to_all = "{survey: open, start: '.+', steps: [{id: a, ask: A?, answer: {type: text}}]}"
    phone = SimulatedPhone(surveys_of({"open.yaml": open_to_all}), policy_for("open"))
    assert phone.text("hello") == ["A?"]
    phone.text("STOP")
    assert phone.text("hello") == []
    assert phone.channel_state.opted_out_at
    assert phone.text("START") == ["A?"]


@pytest.mark.parametrize("source", ["", "import march.csv"])
def test_a_stop_told_by_another_is_not_confirmed_and_says_who_told(phone, source):
    phone.text("START")
    assert phone.provider_stop(source=source) == []
    assert phone.provider_stop() == []
    assert [(record.by_provider, record.source) for record in phone.records_of(PersonOptedOut)] == [
        (True, source)
    ]
    assert phone.channel_state.session is None


def test_what_the_same_batch_decided_before_the_stop_is_withdrawn(phone):
    mail = [
        Mail(phone.now, InboundSms("a", SIMULATED_CHANNEL, "START", start=True)),
        Mail(phone.now, InboundSms("b", SIMULATED_CHANNEL, "STOP")),
    ]
    batch = advance(Lane(), "+33", mail, phone.now, phone.surveys, {SIMULATED_CHANNEL: phone.policy})
    assert [sms.id for sms in batch.outbox] == ["br0"]
    said = [record.id for record in batch.records if isinstance(record, SmsDecided)]
    assert said == ["ax0", "ax1", "br0"]
    assert [record.id for record in batch.records if isinstance(record, SmsNotSent)] == ["ax0", "ax1"]


# The list of opt-outs has it, and the lane has not


@pytest.fixture
def deaf(phone):
    """A lane in which a choice is asked, and that has not heard of a STOP of a second later."""
    bring_to(phone, "a choice is asked", "en")
    stopped_at = phone.now + 1_000

    def hear(*said, source="person"):
        """What comes of SMS so many seconds from now, or of none, if the list has the STOP."""
        mail = [Mail(phone.now + 1_000 * s, event) for s, event in said]
        return advance(
            phone.lane, "+33", mail, phone.now + 9_000, phone.surveys, {SIMULATED_CHANNEL: phone.policy},
            opted_out={SIMULATED_CHANNEL: (stopped_at, source)},
        )  # fmt: skip

    hear.lane, hear.stopped_at = phone.lane, stopped_at
    return hear


def sms(text, identity="a", **more):
    return InboundSms(identity, SIMULATED_CHANNEL, text, **more)


@pytest.mark.parametrize(
    "said", [[], [(2, sms("red"))], [(0, sms("red"))]], ids=["silence", "later", "earlier"]
)
def test_whoever_the_list_has_is_texted_no_more(deaf, said):
    effects = deaf(*said)
    assert effects.outbox == []
    assert effects.silenced == [SIMULATED_CHANNEL]
    (ended,) = [record for record in effects.records if isinstance(record, SessionEnded)]
    assert (ended.how, ended.at) == ("stopped", deaf.stopped_at)
    assert not any(isinstance(record, PersonOptedOut) for record in effects.records), "that is on record"
    assert effects.opt_outs == {}
    assert effects.alarm == 0
    assert deaf.lane.lines[SIMULATED_CHANNEL].opted_out_at == deaf.stopped_at
    again = deaf((3, sms("blue", "b")))
    assert (again.outbox, again.silenced) == ([], [])


def test_a_start_after_it_opts_in_again(deaf):
    effects = deaf((2, sms("START", start=True)))
    assert effects.opt_outs == {SIMULATED_CHANNEL: (0, "person")}
    assert [each.text for each in effects.outbox] == ["Welcome!", "How are you?"]
    assert deaf.lane.lines[SIMULATED_CHANNEL].opted_out_at == 0


def test_what_the_mail_says_is_later_than_the_list(deaf):
    """Of one moment, as an operator's word is: the list and the mailbox get it at once. And START may come to have an earlier
    time, which was kept in a spool."""
    stop = ProviderStop("s", SIMULATED_CHANNEL, source="import")
    effects = deaf((1, stop), (0, sms("START", start=True)), source="import")
    told = [record for record in effects.records if isinstance(record, PersonOptedOut)]
    assert [record.id for record in told] == ["s"]
    assert effects.opt_outs == {SIMULATED_CHANNEL: (0, "person")}
    assert [each.text for each in effects.outbox] == ["Welcome!", "How are you?"]


def test_what_an_operator_has_listed_is_recorded_by_the_lane_once(deaf):
    effects = deaf((0, sms("red")), source="import")
    told = [record for record in effects.records if isinstance(record, PersonOptedOut)]
    assert [(record.by_provider, record.source) for record in told] == [(True, "import")]
    assert effects.outbox == []
    stop = ProviderStop("s", SIMULATED_CHANNEL, source="import")
    assert deaf((1, stop), source="import").records == []


# Back in


@pytest.mark.parametrize("word", ["START", "COLOUR", "Couleur"])
def test_a_start_that_is_a_keyword_opts_in_again_and_opens_a_session(phone, word):
    phone.text("STOP")
    assert phone.text(word) == ["Welcome!", "How are you?"]
    assert len(phone.records_of(PersonOptedIn)) == 1
    assert phone.last_advance.opt_outs == {SIMULATED_CHANNEL: (0, "person")}


@pytest.mark.parametrize("language", sorted(KEYWORDS))
@pytest.mark.parametrize("word", sorted((START_WORDS | OPT_IN_YES_WORDS) - {"start"}))
def test_what_is_as_good_as_a_start_opts_in_again_and_is_confirmed_once(phone, word, language):
    bring_to(phone, "opted out", language)
    (said,) = phone.text(word.capitalize() + ".")
    assert said.startswith("Colours: ")
    assert said == phone.surveys.current("colours").texts["opted_in"][language]
    assert not phone.channel_state.opted_out_at
    assert phone.channel_state.session is None
    assert phone.last_advance.opt_outs == {SIMULATED_CHANNEL: (0, "person")}
    assert phone.text(word) != [said]


def test_no_second_confirmation_where_the_provider_confirms_a_start(phone):
    phone.text("STOP", handled="stop")
    assert phone.text("YES", handled="start") == []
    assert not phone.channel_state.opted_out_at
    phone.text("STOP", handled="stop")
    assert phone.text("START", handled="start") == ["Welcome!", "How are you?"]


@pytest.mark.parametrize("word", sorted(OPT_IN_YES_WORDS))
def test_a_yes_is_an_answer_to_anybody_who_is_not_opted_out(phone, word):
    bring_to(phone, "a text is asked")
    assert phone.text(word) == ["Which one?\n1. Red\n2. Neither"]
    assert phone.records_of(PersonOptedIn) == []


def test_a_start_that_opens_nothing_says_that_they_are_in_again(phone):
    bring_to(phone, "a session is over")
    phone.text("STOP")
    (said,) = phone.text("START")  # the survey cools down
    assert said == phone.surveys.current("colours").texts["opted_in"]["en"]
    assert [each.reason for each in phone.records_of(OpeningRefused)] == ["cooldown"]


# HELP


@pytest.mark.parametrize("word", sorted(HELP_WORDS))
def test_help_leaves_the_session_as_it_was(phone, word):
    phone.text("START")
    before = phone.channel_state.session
    assert len(phone.text(word, after_ms=5000)) == 1
    assert phone.channel_state.session == before
    assert phone.text(word) == []


def test_help_that_the_provider_gave_is_noted_and_not_given_again(phone):
    phone.text("START")
    before = phone.channel_state.session
    assert phone.text("HELP", handled="help") == []
    assert phone.channel_state.session == before
    assert phone.records_of(SmsReceived)[-1].handled == "help"


def test_info_is_an_answer_where_the_choice_that_is_asked_has_it(phone):
    bring_to(phone, "a choice is asked")
    assert phone.text("INFO") == ["Sure?"]
