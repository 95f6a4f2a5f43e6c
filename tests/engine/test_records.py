"""Records say what each SMS was for, and how each answer was read, whatever the survey's steps are called."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings

from engine.answers.type_registry import ANSWER_SPECS
from engine.model.events import (
    Answer,
    AnswerRejected,
    Attachment,
    InboundSms,
    SessionEnded,
    SmsDecided,
    SmsReceived,
)
from engine.surveys.program import QuestionStep
from engine.surveys.survey_reader import read_stored_survey
from engine.surveys.variables import is_variable
from tests.engine.chat import SHIPPED, SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of
from tests.engine.test_any_sequence import SURVEYS, mails, play
from tests.support.example_counts import examples

NAMED_LIKE_FIXED_TEXTS = """
survey: odd
start: [START]
idle: 1d
cooldown: 0s
texts: {completed: Over., help: Help., unavailable: It is over.}
steps:
  - {id: help, say: Hello.}
  - id: completed
    ask: How old are you?
    answer: {type: number}
    attempts: 2
    give_up: not_found
    remind: {after: 1h, text: Well?}
    next: stopped
  - {id: not_found, say: Never mind.}
  - {id: stopped, ask: And your name?, answer: {type: text}}
"""
EVERY_TYPE = """
survey: every
start: [START]
idle: 1d
cooldown: 0s
steps:
  - {id: a, ask: A?, answer: {type: text}}
  - {id: b, ask: B?, answer: {type: number}}
  - {id: c, ask: C?, answer: {type: scale, from: 1, to: 5}}
  - {id: d, ask: D?, answer: {type: yes_no}}
  - {id: e, ask: E?, answer: {type: choice, options: [red, blue]}}
  - {id: f, ask: F?, answer: {type: choices, options: [red, blue]}}
  - {id: g, ask: G?, answer: {type: date}}
  - {id: h, ask: H?, answer: {type: time}}
  - {id: i, ask: I?, answer: {type: phone, country: FR}}
  - {id: j, ask: J?, answer: {type: anything}}
  - {id: k, ask: K?, answer: {type: numeric}}
"""
QUESTIONS = b"""
[{"text": "Name?", "next": 1}, {"text": "Temperature?", "condition": ">=", "value": 95, "true_next": 2, "false_next": 2},
 {"text": "Bye.", "next": -2}]
"""


def phone_of(name: str, survey: str | bytes) -> SimulatedPhone:
    surveys = surveys_of({name: survey})
    return SimulatedPhone(surveys, policy_for(*surveys.current_names()))


def kinds(phone: SimulatedPhone) -> list[tuple[str, str, str]]:
    return [(record.kind, record.step, record.text) for record in phone.records_of(SmsDecided)]


def answers(phone: SimulatedPhone) -> Sequence[tuple[str, str, Answer | None]]:
    return [(record.step, record.answer_type, record.answer) for record in phone.records_of(SmsReceived)]


def test_each_sms_says_what_it_is_for_though_steps_are_named_like_fixed_texts():
    phone = phone_of("odd.yaml", NAMED_LIKE_FIXED_TEXTS)
    phone.text("START")
    phone.wait(3_600_000)
    for said in ("HELP", "young", "33", "Ann", "more"):
        phone.text(said, after_ms=60_000)
    assert kinds(phone) == [
        ("say", "help", "Hello."),
        ("ask", "completed", "How old are you?"),
        ("remind", "completed", "Well?"),
        ("fixed", "help", "Help."),
        ("reask", "completed", kinds(phone)[4][2]),
        ("ask", "stopped", "And your name?"),
        ("fixed", "completed", "Over."),
        ("fixed", "unavailable", "It is over."),
    ]
    assert kinds(phone)[4][2].endswith("How old are you?")


def test_where_a_session_gives_up_it_goes_on_as_from_anywhere():
    phone = phone_of("odd.yaml", NAMED_LIKE_FIXED_TEXTS)
    for said in ("START", "young", "very"):
        phone.text(said)
    assert [kind[:2] for kind in kinds(phone)[-2:]] == [("say", "not_found"), ("ask", "stopped")]


def test_an_sms_that_answers_says_what_how_and_of_which_type():
    phone = phone_of("every.yaml", EVERY_TYPE)
    said = ("Ann", "98,6", "4", "yes", "2", "1 and 2", "24/12/2031", "9:30 pm", "06 12 34 56 78", "?!", "1e2")
    for text in ("START", *said):
        phone.text(text)
    opening, *found = answers(phone)
    assert opening == ("", "", None)
    assert [(step, answer_type) for step, answer_type, _ in found] == [
        ("a", "text"), ("b", "number"), ("c", "scale"), ("d", "yes_no"), ("e", "choice"), ("f", "choices"),
        ("g", "date"), ("h", "time"), ("i", "phone"), ("j", "anything"), ("k", "numeric"),
    ]  # fmt: skip
    assert [answer_type for _, answer_type, _ in found] == [spec.type_name() for spec in ANSWER_SPECS]
    assert [answer.raw for _, _, answer in found] == list(said)
    assert [answer.value for _, _, answer in found] == [
        "Ann", 98.6, 4, True, "blue", ("red", "blue"), "2031-12-24", "21:30", "+33612345678", "?!", 100.0
    ]  # fmt: skip
    (ended,) = phone.records_of(SessionEnded)
    assert {step: answer for step, _, answer in found} == ended.answers


def test_answers_to_questions_json_are_anything_and_what_php_takes_for_numbers():
    phone = phone_of("tutorial.json", QUESTIONS)
    for text in ("START", "Ann", "hot", "98.6"):
        phone.text(text)
    assert answers(phone)[1:] == [
        ("0", "anything", Answer("Ann", "Ann")),
        ("", "", None),
        ("1", "numeric", Answer("98.6", 98.6)),
    ]


def test_one_that_cannot_be_read_says_so_in_the_record_that_follows_it_as_ever():
    phone = phone_of("odd.yaml", NAMED_LIKE_FIXED_TEXTS)
    phone.text("START")
    phone.text("young")
    received, rejected = phone.records[-3:-1]
    assert isinstance(received, SmsReceived)
    assert (received.step, received.answer, received.answer_type) == ("", None, "")
    assert isinstance(rejected, AnswerRejected)
    assert rejected.step == "completed"


@settings(max_examples=examples(100), deadline=None)
@given(mails())
def test_whatever_comes_each_record_says_all_of_it(mail):
    """What a session's records have of its answers is what its end has; each SMS says what it is for."""
    of_sessions: dict[str, dict[str, Answer]] = {}
    versions: dict[str, str] = {}
    for record in (record for each in play(mail) for record in each.effects.records):
        match record:
            case SmsReceived(session=session, step=step, answer=answer):
                assert (answer is None) == (step == "") == (record.answer_type == "")
                if answer is not None:
                    assert answer.raw == record.text
                    of_sessions.setdefault(session, {})[step] = answer
            case SessionEnded(session=session, answers=found):
                said = {step: answer for step, answer in found.items() if not is_variable(step)}
                assert of_sessions.get(session, {}) == said
            case SmsDecided(session=session, kind=kind, step=name):
                assert kind == "fixed" or session
                steps = SURVEYS.by_version(versions[session]).steps if session else ()
                step = next((each for each in steps if each.id == name), None)
                match kind:
                    case "ask" | "reask" | "remind":
                        assert isinstance(step, QuestionStep)
                    case "say":
                        assert step is not None
                        assert not isinstance(step, QuestionStep)
                    case _:
                        assert kind == "fixed"
            case _:
                if version := getattr(record, "version", ""):
                    versions[record.session] = version


def test_what_came_with_an_sms_is_recorded_with_it():
    picture = Attachment("image/jpeg", "https://media.example.org/1")
    phone = phone_of("every.yaml", EVERY_TYPE)
    phone.text("START")
    for number, text in enumerate(("Look.", "")):
        event = InboundSms(f"{number + 16:016x}", SIMULATED_CHANNEL, text, attachments=(picture,))
        phone.apply_event(event)
    assert [record.attachments for record in phone.records_of(SmsReceived)] == [(), (picture,), (picture,)]
    bare = msgspec.structs.replace(event, id="f" * 16, attachments=())
    phone.apply_event(bare)
    with_it, without = (record for record in phone.records_of(AnswerRejected))
    assert with_it.why == without.why, "an MMS without a text is read as an SMS without one"


@pytest.mark.parametrize("name", ["clinic.yaml", "tutorial.json"])
def test_a_version_that_is_stored_knows_the_types_of_its_answers(name):
    survey = read_stored_survey(name, SHIPPED[name])
    types = {step.answer_type for step in survey.steps if isinstance(step, QuestionStep)}
    assert types
    assert types <= {spec.type_name() for spec in ANSWER_SPECS}
