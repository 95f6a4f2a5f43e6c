"""What became of a session is told from its records alone, and of each SMS only forwards."""

from itertools import permutations

import pytest

from engine.model.events import (
    Answer,
    Invitation,
    OpeningRefused,
    ReceiptRecorded,
    SessionEnded,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
)
from ingest.api import session_view

ID, OTHER = "00000000000000aa", "00000000000000bb"
PERSON = "+33612345678"
INVITATION = Invitation(ID, "clinic", "clinic", variables={"agentid": "7"}, reference="r1", campaign="winter")
OPENED = SessionOpened(1_000, "clinic", ID, "clinic", "v1", "en", "+33700000011")


def tell(*records):
    return session_view.build_view(ID, PERSON, records)


def said(*records):
    """The state and reason of the only SMS of ours, after these."""
    view = tell(OPENED, SmsDecided(1_000, "clinic", ID, f"{ID}x0", "name", "Name?"), *records)
    (sms,) = view.transcript
    return sms.state, sms.why or ""


SENT = SmsSent(1_100, "clinic", ID, f"{ID}x0", "t1")


def receipt(state, **fields):
    return ReceiptRecorded(1_200, "clinic", "t1", state.upper(), state, **fields)


def test_a_whole_session():
    view = tell(
        OPENED,
        SessionInvited(1_000, "clinic", ID, INVITATION),
        SmsDecided(1_000, "clinic", ID, f"{ID}x0", "name", "Name?"),
        SENT,
        SmsReceived(2_000, "clinic", ID, "e1", "Ada", ""),
        SessionOpened(2_000, "clinic", OTHER, "quiz", "v2", "en"),
        SmsReceived(2_000, "clinic", OTHER, "e2", "not of this session", ""),
        SmsDecided(2_000, "clinic", ID, f"{ID}x1", "bye", "Bye."),
        SessionEnded(
            2_000, "clinic", ID, "completed", {"name": Answer("Ada", "Ada"), "$agentid": Answer("007", 7)}
        ),
        SmsSent(2_100, "clinic", ID, f"{ID}x1", "t2"),
        receipt("delivered"),
    )
    assert (view.state, view.survey, view.version, view.language) == ("completed", "clinic", "v1", "en")
    assert (view.client_reference, view.originator, view.campaign) == ("r1", "+33700000011", "winter")
    assert [(sms.from_, sms.text, sms.state or "") for sms in view.transcript] == [
        ("us", "Name?", "delivered"),
        ("person", "Ada", ""),
        ("us", "Bye.", "accepted"),
    ]
    assert view.answers["name"].raw == "Ada"
    assert view.variables == {"agentid": "007"}
    assert view.opened_at.timestamp() == 1
    assert view.ended_at.timestamp() == 2


@pytest.mark.parametrize("order", list(permutations(["sent", "failed", "delivered"])), ids="-".join)
def test_an_sms_goes_forwards_only_whatever_the_order_of_receipts(order):
    assert said(SENT, *map(receipt, order)) == ("delivered", "")


def test_why_an_sms_failed():
    assert said(SENT, receipt("failed", code="12", why="no such number")) == ("failed", "12 no such number")
    assert said(SmsNotSent(1_100, "clinic", ID, f"{ID}x0", "stopped", "withdrawn")) == (
        "failed",
        "stopped withdrawn",
    )


def test_a_receipt_finds_its_sms_by_our_id_or_by_the_providers_ticket():
    assert said(receipt("sent")) == ("decided", "")
    assert said(receipt("sent", sms=f"{ID}x0")) == ("sent", "")
    assert said(SENT, receipt("sent")) == ("sent", "")


@pytest.mark.parametrize(
    "reason, state, why", [("opted_out", "refused", "opted_out"), ("cancelled", "cancelled", "")]
)
def test_what_opened_nothing_says_why(reason, state, why):
    view = tell(OpeningRefused(5_000, "clinic", ID, reason))
    assert (view.state, view.reason or "", view.ended_at.timestamp()) == (state, why, 5)


def test_of_a_session_that_the_records_do_not_know_nothing_is_told():
    assert tell() is None
    assert (
        tell(OpeningRefused(5_000, "clinic", OTHER, "opted_out"), SmsReceived(1, "clinic", ID, "e", "x", ""))
        is None
    )


def test_several_choices_are_lists():
    view = tell(
        OPENED, SessionEnded(2, "clinic", ID, "completed", {"a": Answer("1 3", ("x", "z"), indexes=(0, 2))})
    )
    assert (view.answers["a"].value, view.answers["a"].indexes) == (["x", "z"], [0, 2])
