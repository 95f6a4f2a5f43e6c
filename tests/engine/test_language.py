"""What an author writes does what the description of the survey file says."""

import json

import pytest

from engine.model.events import (
    AnswerRejected,
    Invitation,
    Mail,
    OpeningRefused,
    SessionEnded,
    SessionInvited,
    decode_inbound,
    encode_event,
)
from engine.proofs import survey_bounds
from tests.engine.chat import SIMULATED_CHANNEL, T0, SimulatedPhone, policy_for, surveys_of

HOUR_MS = 3_600_000


def survey(*steps, **fields):
    return json.dumps({"survey": "s", "steps": steps, **fields})


def ask(identity, text="?", answer="yes_no", **fields):
    kind = answer if isinstance(answer, dict) else {"type": answer}
    return {"id": identity, "ask": text, "answer": kind, **fields}


def say(identity, text="!", **fields):
    return {"id": identity, "say": text, **fields}


def phone_for(*steps, **fields):
    return SimulatedPhone(surveys_of({"s.json": survey(*steps, **fields)}), policy_for("s"))


def invited(phone, number=1, **fields):
    """What is said to an invitation."""
    invitation = Invitation(f"{number:015x}f", SIMULATED_CHANNEL, fields.pop("survey", "s"), **fields)
    return [sms.text for sms in phone.apply_event(invitation)]


# -- answers


def test_a_scale_shows_its_labels_and_keeps_the_number():
    phone = phone_for(
        ask("a", "How?", {"type": "scale", "to": 5, "labels": {"5": "great", "1": "bad"}}, next=[
            {"when": {"at_least": 4}, "go": "b"}, {"go": "end"},
        ]),
        say("b", "{a} of 5"),
    )  # fmt: skip
    assert phone.text("START") == ["How?\n1 = bad\n5 = great"]
    assert phone.text("6") == [
        "That is too high. Please answer with a whole number from 1 to 5. How?\n1 = bad\n5 = great"
    ]
    assert phone.text("Great!") == ["5 of 5"]


def test_several_choices_are_stored_by_id_and_place_and_shown_by_label():
    options = [{"id": "r", "label": {"en": "Red"}}, {"id": "g", "label": "Green"}, "blue"]
    phone = phone_for(
        ask("a", "Which?", {"type": "choices", "options": options, "min": 2}, next=[
            {"when": {"contains": "blue"}, "go": "b"}, {"go": "end"},
        ]),
        ask("b", "{a}?"),
    )  # fmt: skip
    assert phone.text("START") == ["Which?\n1. Red\n2. Green\n3. blue"]
    assert phone.text("2")[0].startswith("That is too few.")
    assert phone.text("blue and 1") == ["Red, blue?"]
    answer = phone.channel_state.session.answers["a"]
    assert (answer.raw, answer.value, answer.index, answer.indexes) == (
        "blue and 1",
        ("r", "blue"),
        -1,
        (0, 2),
    )


def test_a_choice_is_shown_from_1_and_stored_from_0():
    phone = phone_for(ask("a", "?", {"type": "choice", "options": ["x", "y"]}), ask("b"))
    assert phone.text("START") == ["?\n1. x\n2. y"]
    phone.text("2")
    answer = phone.channel_state.session.answers["a"]
    assert (answer.value, answer.index) == ("y", 1)


@pytest.mark.parametrize(
    "text, taken", [("31/5/2026", "before"), ("1 June 2026", "after"), ("2026-06-02", "after")]
)
def test_a_date_is_compared_as_a_date(text, taken):
    phone = phone_for(
        ask("a", "When?", {"type": "date"}, next=[{"when": {"below": "2026-06-01"}, "go": "b"}, {"go": "c"}]),
        say("b", "before {a}", next="end"),
        say("c", "after {a}"),
    )
    phone.text("START")
    assert phone.text(text)[0].startswith(taken)


def test_today_is_the_channels():
    """At 23:30 in Paris it is still the 15th in UTC, and the 16th an hour later in Paris only."""
    phone = phone_for(ask("a", "When?", {"type": "date", "max": "today"}, attempts=9))
    phone.now = (
        1_800_054_000_000 - 1_800_000
    )  # 2027-01-15 23:00 UTC is midnight in Paris; half an hour before
    phone.text("START")
    assert phone.text("16/01/2027")[0].startswith("That is too late.")
    assert phone.text("16/01/2027", after_ms=HOUR_MS) == []
    assert phone.channel_state.ended_how == "completed"


def test_words_of_another_language_are_yes_and_no_where_the_author_says_so():
    phone = phone_for(
        ask("a", "?", {"type": "yes_no", "yes": ["Ndiyo"], "no": ["hapana"]}, next=[
            {"when": {"equals": "ndiyo"}, "go": "b"}, {"go": "c"},
        ]),
        say("b", "yes", next="end"),
        say("c", "no"),
    )  # fmt: skip
    phone.text("START")
    assert phone.text("NDIYO!") == ["yes"]


def test_a_reaction_is_no_answer_changes_nothing_and_is_answered_by_nothing():
    phone = phone_for(ask("a", "Name?", "text", attempts=1))
    phone.text("START")
    for _ in range(3):
        assert phone.text("Liked “Name?”") == []
    assert [record.why for record in phone.records_of(AnswerRejected)] == ["reaction"] * 3
    assert phone.channel_state.session.invalid_answers == 0
    assert phone.text("Ann") == []
    assert phone.channel_state.ended_how == "completed"


# -- invitations and session variables


def test_an_invitation_opens_a_session_with_its_language_content_and_variables():
    phone = phone_for(
        say("a", {"en": "Hello", "no": "Hei"}),
        ask("b", {"en": "{AGENTID} helped?", "no": "Hjalp {agentid}?"}, next=[
            {"when": {"variable": "QueueKey", "equals": "vip"}, "go": "c"}, {"go": "end"},
        ]),
        say("c", "{consumerPhone|?}"),
        languages=["en", "no"],
    )  # fmt: skip
    variables = {"agentId": "Kari {x}", "queuekey": "VIP"}
    said = invited(phone, language="no", content="Fra butikken:", variables=variables, reference="ref")
    assert said == ["Fra butikken: Hei", "Hjalp Kari {x}?"]
    assert phone.records_of(SessionInvited)[0].invitation.reference == "ref"
    assert phone.text("ja") == ["?"]


@pytest.mark.parametrize("language, said", [("no", "Hei"), ("en", "Hello"), ("fr", "Hello"), ("", "Hello")])
def test_the_invitations_language_is_preferred_to_the_default_if_the_survey_has_it(language, said):
    phone = phone_for(say("a", {"en": "Hello", "no": "Hei"}), languages=["en", "no"])
    assert invited(phone, language=language) == [said]


def test_a_number_in_a_variable_is_compared_as_a_number():
    def taken(value, **condition):
        phone = phone_for(
            say("a", next=[{"when": {"variable": "n", **condition}, "go": "b"}, {"go": "c"}]),
            say("b", "yes", next="end"),
            say("c", "no"),
        )
        return invited(phone, variables={"N": value})[-1]

    assert taken("7", at_least=7) == "yes"
    assert taken("07.0", equals=7) == "yes"
    assert taken("7", equals="7") == "yes"
    assert taken("Oslo", at_least=7) == "no"
    assert taken("OSLO", equals="oslo") == "yes"
    assert taken("", answered=True) == "yes"


def test_a_variable_goes_into_texts_as_it_was_written():
    phone = phone_for(say("a", "{code} {price}"), variables=["code", "price"])
    assert invited(phone, variables={"code": "007", "price": "1.50"}) == ["007 1.50"]


@pytest.mark.parametrize("language, said", [("en", "98.6"), ("fr", "98,6"), ("no", "98,6"), ("sw", "98.6")])
def test_a_number_has_the_decimal_point_of_the_texts_language(language, said):
    phone = phone_for(ask("a", "?", "number"), say("b", "{a}"), languages=[language])
    phone.text("START")
    assert phone.text("９８，6") == [said]


def test_a_variable_never_outgrows_what_the_survey_says():
    phone = phone_for(say("a", "<{who}>"), variables={"who": 5})
    assert invited(phone, variables={"WHO": "x" * 200}) == ["<xxxxx>"]


def test_an_invitation_may_say_when_its_session_ends():
    phone = phone_for(ask("a"), expires="1h")
    invited(phone, expires_at=T0 + 5 * HOUR_MS)
    phone.wait(5 * HOUR_MS)
    assert phone.records_of(SessionEnded) == []
    phone.wait(1)
    assert [record.how for record in phone.records_of(SessionEnded)] == ["expired"]


def test_an_invitation_that_cannot_be_opened_says_why_and_sends_nothing():
    phone = phone_for(ask("a"))
    assert invited(phone, survey="other") == []
    assert invited(phone, number=2, expires_at=T0) == []
    invited(phone, number=3)
    assert invited(phone, number=4) == []
    phone.text("STOP")
    assert invited(phone, number=5) == []
    assert [record.reason for record in phone.records_of(OpeningRefused)] == [
        "unknown_survey", "expired", "already_open", "opted_out",
    ]  # fmt: skip


def test_an_invitation_that_comes_twice_opens_once():
    phone = phone_for(ask("a"))
    assert invited(phone) == ["?"]
    assert invited(phone) == []
    assert phone.last_advance.duplicates == 1


# -- languages


def test_a_keyword_may_choose_the_language_and_what_follows_stays_in_it():
    phone = phone_for(
        ask("a", {"en": "Hello?", "no": "Hei?"}),
        start={"en": "HELLO", "no": ["HEI", "hall?o"]},
        languages=["en", "no"],
        cooldown="0s",
    )
    assert phone.text("hei!") == ["Hei?"]
    assert phone.text("kanskje")[0].startswith("Det er verken ja eller nei.")
    phone.text("ja")
    assert phone.text("takk") == ["Undersøkelsen er fullført, takk. Send HEI for å begynne på en ny."]
    phone.wait(60_000)
    assert phone.text("Hello") == ["Hello?"]
    phone.text("yes")
    assert phone.text("bye", after_ms=2 * HOUR_MS)[0].startswith("This survey is complete")


# -- ends and cycles


def test_a_counted_route_is_closed_once_it_was_taken_so_often():
    phone = phone_for(
        ask("a", "Again?", next=[{"when": {"equals": "yes"}, "go": "a", "times": 2}, {"go": "b"}]),
        say("b", "Enough."),
    )
    assert [phone.text(text) for text in ("START", "yes", "yes", "yes")] == [["Again?"]] * 3 + [["Enough."]]


def test_without_idle_only_the_absolute_end_counts():
    phone = phone_for(ask("a"), expires="3d")
    phone.text("START")
    phone.wait(3 * 24 * HOUR_MS)
    assert phone.channel_state.session is not None
    phone.wait(1)
    assert phone.channel_state.ended_how == "expired"
    assert phone_for(ask("a"), idle="none").surveys.current("s").idle_ms is None


def test_statements_before_the_first_question_are_an_sms_each():
    phone = phone_for(say("a", "One"), say("b", "Two"), ask("c", "Three?"))
    assert phone.text("START") == ["One", "Two", "Three?"]
    assert phone.channel_state.session.asked_at == T0 + 2 * 2000  # the third leaves two pauses later


def test_an_author_may_cut_a_session_short_of_what_its_steps_could_send():
    phone = phone_for(ask("a", attempts=3), say("b"), most_sms=2)
    assert survey_bounds(phone.surveys.current("s")).sms_out.most == 2
    assert [len(phone.text(text)) for text in ("START", "?", "yes")] == [1, 1, 0]
    assert phone.channel_state.ended_how == "exhausted"


def test_mail_is_of_all_kinds():
    """An invitation survives the mailbox."""
    invitation = Invitation("f" * 16, SIMULATED_CHANNEL, "s", "no", "Hei", {"agentId": "7"}, T0, "ref")
    assert decode_inbound(encode_event(Mail(T0, invitation).event)) == invitation
