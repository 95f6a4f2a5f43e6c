"""An SMS that is nothing but attachments: the person is told by `no_media`, if the survey has it, and its cost is proved."""

import pytest

from engine.model.events import AnswerRejected, Attachment, InboundSms, SessionEnded, SmsDecided
from engine.model.segments import LONGEST_SMS
from engine.proofs import survey_bounds
from engine.surveys.findings import InvalidSurveyError
from engine.surveys.survey_reader import read_survey
from tests.engine.chat import SIMULATED_CHANNEL, SimulatedPhone, policy_for, surveys_of
from tests.engine.test_findings import ask, found, say, survey

PICTURE = (Attachment("image/jpeg", "https://media.example.org/1"),)
TOLD = {"en": "No pictures, please.", "no": "Ikke bilder, takk."}
AGE = ask("age", {"en": "How old are you?", "no": "Hvor gammel er du?"}, "number", give_up="sorry")
COLOUR = ask("colour", "Which colour?", {"type": "choice", "options": ["red", "green"]}, next="end")
COLOURS = "Which colour?\n1. red\n2. green"
SORRY = say("sorry", "Sorry.", next="end")


def phone_with(*steps, **fields):
    fields = {"languages": ["en", "no"], "start": {"en": "START", "no": "BEGYNN"}} | fields
    source = survey(*(steps or (AGE, COLOUR, SORRY)), **fields)
    phone = SimulatedPhone(surveys_of({"s.json": source}), policy_for("s"))
    phone.text("START")
    return phone


def spoken(**fields):
    return {"languages": ["en", "no"], "texts": {"no_media": TOLD}} | fields


def send(phone, text="", attachments=PICTURE):
    """What an MMS is told, by texts."""
    phone._count += 1
    event = InboundSms(f"{phone._count:016x}", SIMULATED_CHANNEL, text, attachments=attachments)
    return [sms.text for sms in phone.apply_event(event)]


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_whoever_sends_a_picture_for_an_answer_is_told_and_asked_again(blank):
    phone = phone_with(**spoken())
    assert send(phone, blank) == ["No pictures, please. How old are you?"]
    assert phone.records_of(AnswerRejected)[-1].why == "no_media"
    last = phone.records_of(SmsDecided)[-1]
    assert (last.kind, last.step) == ("reask", "age")
    assert phone.text("36") == [COLOURS]
    assert send(phone, blank) == [f"No pictures, please. {COLOURS}"]


def test_it_is_told_in_the_sessions_language():
    phone = phone_with(**spoken())
    phone = SimulatedPhone(phone.surveys, phone.policy)
    phone.text("BEGYNN")
    assert send(phone) == ["Ikke bilder, takk. Hvor gammel er du?"]


def test_it_counts_as_an_invalid_answer():
    phone = phone_with(**spoken())
    assert send(phone)
    assert phone.text("old")
    assert send(phone) == ["Sorry."]
    assert [record.how for record in phone.records_of(SessionEnded)] == ["completed"]


def test_a_picture_with_words_is_those_words_and_words_alone_have_their_own_complaint():
    phone = phone_with(**spoken())
    (nothing,) = send(phone, attachments=())
    (words,) = send(phone, "old")
    assert "No pictures" not in nothing + words
    assert send(phone, "36") == [COLOURS]


def test_an_answer_may_stand_in_it():
    phone = phone_with(
        ask("name", "Name?", "text"), AGE, SORRY, texts={"no_media": "No pictures, {name|friend:9}."}
    )
    assert send(phone) == ["No pictures, friend. Name?"]
    phone.text("Ada")
    assert send(phone)[0].startswith("No pictures, Ada. ")
    refused = found(ask("name", "Name?", "text"), texts={"no_media": "No pictures, {name}."})
    assert [each[:3] for each in refused if each[0] == "error"] == [("error", "unanswered", "name")]


@pytest.mark.parametrize("texts", [{}, {"no_media": "none"}])
def test_without_the_text_it_is_read_as_an_sms_without_words(texts):
    phone = phone_with(texts=texts)
    (with_it,), (without,) = send(phone), send(phone, attachments=())
    assert with_it == without
    why, same = [record.why for record in phone.records_of(AnswerRejected)]
    assert why == same != "no_media"


def test_where_anything_answers_a_picture_does_too():
    phone = phone_with(ask("any", "Say something.", "anything"), texts={"no_media": "No pictures."})
    assert send(phone) == []
    assert phone.records_of(AnswerRejected) == []
    assert [record.how for record in phone.records_of(SessionEnded)] == ["completed"]


def test_where_invalid_answers_are_passed_over_so_are_pictures():
    phone = phone_with(ask("age", "Age?", "number", invalid="none"), texts={"no_media": "No pictures."})
    assert send(phone) == []
    assert phone.records_of(AnswerRejected)[-1].why != "no_media"


def proved(*steps, **fields):
    compiled, _ = read_survey("s.json", survey(*steps, **fields))
    return survey_bounds(compiled)


def test_what_it_costs_is_proved_and_played():
    steps = [ask("age", "Age?", "number", attempts=3), say("bye", "Bye.")]
    short, dear = (proved(*steps, texts={"no_media": text}) for text in ("No.", "No " * 60))
    assert short.segments["en"].most == 4
    assert dear.segments["en"].most == 6
    assert dear.segments["en"].attained
    assert dear.sms_out.most == short.sms_out.most == 4
    assert "! mms\n! mms\n" in dear.segments["en"].script
    assert "! mms" not in short.segments["en"].script
    assert proved(*steps[1:], texts={"no_media": "No " * 60}).segments["en"].most == 1
    only_one = ask("age", "Age?", "number", attempts=1)
    assert proved(only_one, steps[1], texts={"no_media": "No " * 60}).segments["en"].most == 2


def test_it_may_not_be_too_long_and_what_makes_it_dear_is_told():
    with pytest.raises(InvalidSurveyError) as e:
        read_survey("s.json", survey(AGE, SORRY, **spoken(texts={"no_media": "x" * LONGEST_SMS})))
    assert any(
        "texts.no_media, at 'age': with the question after it" in str(each) for each in e.value.problems
    )
    told = found(
        AGE,
        SORRY,
        **spoken(
            texts={
                "no_media": {
                    "en": "No pictures… please, as nobody will ever look at what they show.",
                    "no": "Nei",
                }
            }
        ),
    )
    assert [code for _, code, _, reason in told if "no_media" in reason] == ["ucs2"]
    told = found(AGE, SORRY, **spoken(texts={"no_media": {"en": "No"}}))
    assert [code for _, code, _, reason in told if "texts.no_media has no text in 'no'" in reason] == [
        "language_missing"
    ]
