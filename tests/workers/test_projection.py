"""The same entries come to the same rows, however they are cut into pages, on both databases, and when they are rebuilt."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.archive import tables
from engine.model.events import (
    Answer,
    AnswerRejected,
    Attachment,
    Invitation,
    OpeningRefused,
    PersonOptedIn,
    PersonOptedOut,
    ReceiptRecorded,
    SessionEnded,
    SessionInvited,
    SessionOpened,
    SmsDecided,
    SmsNotSent,
    SmsReceived,
    SmsSent,
    encode_event,
)
from tests.support.archiving import derived_rows, empty_archive, hash_number, rebuild_all, table_rows, talk
from workers.archiving import archive_rows
from workers.archiving.archive_rows import EntryPlace, SessionRow
from workers.archiving.page_writer import write_page
from workers.archiving.projection import PageEntry, read_answer

K = 3
AT = 1_700_000_000_000

SESSIONS = st.sampled_from(["s1", "s2", "s3"])
CHANNELS = st.just("clinic") | st.just("hospital")
TEXTS = st.sampled_from(
    [
        "",
        "98.6",
        "a",
        'say "no"',
        "back\\slash {a,b}",
        "NULL",
        "nul\0nul",
        "100% naïve ☃ 🤒",
        "x" * 170,
        "é" * 80,
        "1\n2",
    ]
)
STEPS = st.sampled_from(["name", "temperature", "help", "when"])
TICKETS = st.sampled_from(["", "t1", "t2", "t3"])
MOMENTS = st.integers(AT, AT + 3_000) | st.sampled_from([0, AT + 999, AT + 60_999, 253_402_300_799_999])
COSTS = st.sampled_from([0, 50_000, 1])
ANSWERS = st.builds(
    Answer, TEXTS, st.sampled_from(["a", "2026-01-31", "2026-02-31", "08:30", 7, 98.6, True, False])
) | st.sampled_from(
    [Answer("1 3", ("red", "blue"), indexes=(0, 2)), Answer("2", "green", 1), Answer("1 2", ("red", "green"))]
)
VARIABLES = st.dictionaries(st.sampled_from(["agentId", "agentid", "AGENTID", "queueKey"]), TEXTS, max_size=2)
INVITATIONS = st.builds(
    Invitation, st.just("i"), CHANNELS, st.just("clinic"), variables=VARIABLES, reference=TEXTS, campaign=TEXTS,
    asked_at=MOMENTS, not_before=MOMENTS,
)  # fmt: skip
OPENED = st.builds(
    SessionOpened,
    MOMENTS,
    CHANNELS,
    SESSIONS,
    st.just("clinic"),
    st.sampled_from(["v1", "v2"]),
    st.just("en"),
)
DECIDED = st.builds(
    SmsDecided, MOMENTS, CHANNELS, SESSIONS | st.just(""), st.sampled_from(["s1x0", "s2x1"]), STEPS, TEXTS,
    st.sampled_from(["", "ask", "reask", "remind", "say", "fixed"]),
)  # fmt: skip
RECEIVED = st.builds(
    SmsReceived, MOMENTS, CHANNELS, SESSIONS | st.just(""), st.sampled_from(["m1", "m2"]), TEXTS, step=STEPS,
    answer=st.none() | ANSWERS, answer_type=st.sampled_from(["", "number", "date", "time", "text"]),
    attachments=st.sampled_from([(), (Attachment("image/png", "https://a.example/1"),)]),
)  # fmt: skip
SENT = st.builds(
    SmsSent, MOMENTS, CHANNELS, SESSIONS, st.sampled_from(["s1x0", "s2x1"]), TICKETS, st.just(2), COSTS, TEXTS
)
UNSENT = st.builds(SmsNotSent, MOMENTS, CHANNELS, SESSIONS, st.just("s1x0"), TEXTS, TEXTS)
RECEIPTS = st.builds(
    ReceiptRecorded, MOMENTS, CHANNELS, TICKETS, TEXTS, st.sampled_from(["", "sent", "failed", "delivered"]), TEXTS, TEXTS,
    st.sampled_from(["", "s1x0", "s3x7"]), st.just(1), COSTS, st.just("EUR"),
)  # fmt: skip
ENDED = st.builds(
    SessionEnded, MOMENTS, CHANNELS, SESSIONS, st.sampled_from(["completed", "idle"]),
    st.dictionaries(STEPS | st.sampled_from(["$agentid", "$$contact"]), ANSWERS, max_size=3),
)  # fmt: skip
REFUSED = st.builds(
    OpeningRefused,
    MOMENTS,
    CHANNELS,
    SESSIONS,
    st.sampled_from(["cooldown", "cancelled"]),
    st.none() | INVITATIONS,
)
RECORDS = st.one_of(
    OPENED, DECIDED, RECEIVED, SENT, UNSENT, RECEIPTS, ENDED, REFUSED,
    st.builds(SessionInvited, MOMENTS, CHANNELS, SESSIONS, INVITATIONS),
    st.builds(AnswerRejected, MOMENTS, CHANNELS, SESSIONS, STEPS, TEXTS),
    st.builds(PersonOptedOut, MOMENTS, CHANNELS, st.just("e"), TEXTS, st.booleans(), TEXTS),
    st.builds(PersonOptedIn, MOMENTS, CHANNELS, st.just("e")),
)  # fmt: skip
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["+33600000001", "+33600000002"]), st.lists(RECORDS, max_size=4)),
    min_size=1,
    max_size=12,
)


def page_entries(told):
    return [
        PageEntry(EntryPlace(K, AT + n // 2, n % 2), sender, records, encode_event(records))
        for n, (sender, records) in enumerate(told)
    ]


def write_in_pages(database, entries, cuts):
    """Write the entries in pages that end at these places, into what is emptied first; the rows that come of it."""
    empty_archive(database)
    ends = [*sorted({cut % len(entries) for cut in cuts} - {0}), len(entries)]
    for begin, end in zip([0, *ends], ends, strict=False):
        with database.writing() as connection:
            assert write_page(connection, entries[begin:end], hash_number) == []
    return {"entries": table_rows(database, "entries"), **derived_rows(database)}


@given(ENTRIES, st.lists(st.integers(0, 11), max_size=6))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=25,
    deadline=None,
)
def test_however_entries_are_cut_into_pages_they_come_to_the_same(archive_database, told, cuts):
    entries = page_entries(told)
    at_once = write_in_pages(archive_database, entries, [])
    assert write_in_pages(archive_database, entries, cuts) == at_once
    assert write_in_pages(archive_database, entries, range(len(entries))) == at_once
    assert rebuild_all(archive_database, K + 1) == sum(not records for _, records in told)
    assert {"entries": table_rows(archive_database, "entries"), **derived_rows(archive_database)} == at_once


def test_both_databases_have_the_same(archive_database, tmp_path):
    """What one is asked, the other answers: moments, dates, truths, what is not known, and texts with everything in them."""
    told = [("+33600000001", records) for records in talk("s1", AT)]
    texts = ['"', "\\", "{}", ",", "NULL", "null", "", " ", "%s", "'", "\n", "🤒", "a\0b"]
    told += [
        ("+33600000001", [SmsReceived(AT, "clinic", "s1", f"m{n}", text)]) for n, text in enumerate(texts)
    ]
    rows = write_in_pages(archive_database, page_entries(told), [])
    assert [row[11] for row in rows["messages"][-len(texts) :]] == [text.replace("\0", "�") for text in texts]
    (session,) = rows["sessions"]
    fields = dict(zip(SessionRow.__struct_fields__, session, strict=True))
    assert (fields["opened_at"], fields["ended_at"], fields["asked_at"]) == (AT, AT + 5_000, None)
    assert (fields["state"], fields["invited"], fields["cost_micros"], fields["currency"]) == (
        "completed",
        False,
        50_000,
        "EUR",
    )
    (answer,) = rows["answers"]
    assert answer[5:12] == ("temperature", AT + 5_000, "s1a", "number", "98.6", "98.6", 98.6)
    assert answer[12:] == (None, None, None, None, None, 0, 5.0)
    (receipt,) = rows["receipts"]
    assert receipt[4:6] == ("s1x0", "s1"), "found by its ticket"


@pytest.mark.parametrize("cut", [0, 2], ids=["in the page", "before it"])
def test_a_ticket_names_an_sms_of_its_own_shard(archive_database, cut):
    """Though shards share a page, and a provider may give a ticket twice."""
    records = [
        (K, SmsSent(AT, "c", "s1", "s1x0", "t", 1, 0, "")),
        (K + 1, SmsSent(AT, "c", "s2", "s2x0", "t", 1, 0, "")),
        (K, ReceiptRecorded(AT, "c", "t", "DELIVERED", "delivered")),
        (K + 1, ReceiptRecorded(AT, "c", "t", "DELIVERED", "delivered")),
    ]
    entries = [
        PageEntry(EntryPlace(shard, AT + n, 0), "+33600000001", [record], encode_event([record]))
        for n, (shard, record) in enumerate(records)
    ]
    rows = write_in_pages(archive_database, entries, [cut])
    assert sorted((row[0], *row[4:6]) for row in rows["receipts"]) == [
        (K, "s1x0", "s1"),
        (K + 1, "s2x0", "s2"),
    ]


@pytest.mark.parametrize("ms", [1, 999, AT, AT + 1, AT + 999, 253_402_300_799_999, 951_782_400_000])
def test_a_moment_is_the_same_to_the_ms_in_the_archive(archive_database, ms):
    told = [("+33600000001", [SmsReceived(ms, "clinic", "", "m", "hello")])]
    (message,) = write_in_pages(archive_database, page_entries(told), [])["messages"]
    assert message[10] == ms


@pytest.mark.parametrize(
    "name",
    ["entries", "sessions", "answers", "variables", "messages", "sends", "receipts", "refusals", "opt_outs"],
)
def test_a_row_is_a_tuple_of_its_tables_columns(name):
    row = {
        table: kind
        for kind in vars(archive_rows).values()
        if (table := TABLE_OF.get(getattr(kind, "__name__", "")))
    }[name]
    fields = getattr(row, "_fields", None) or row.__struct_fields__
    assert list(fields) == [column.name for column in tables.METADATA.tables[name].columns]


TABLE_OF = {
    "EntryRow": "entries", "SessionRow": "sessions", "AnswerRow": "answers", "VariableRow": "variables",
    "MessageRow": "messages", "SendRow": "sends", "ReceiptRow": "receipts", "RefusalRow": "refusals", "OptOutRow": "opt_outs",
}  # fmt: skip


# What 0.1.0 recorded, and what was trimmed


def test_records_that_say_neither_kind_nor_answer_come_to_the_same_answers_at_the_end(archive_database):
    answers = {
        "fever": Answer("yes", True),
        "day": Answer("31 Jan", "2026-01-31"),
        "$agentid": Answer("7", 7),
    }
    told = [
        (
            "+33600000001",
            [
                SessionOpened(AT, "c", "s", "clinic", "v", "en"),
                SmsDecided(AT, "c", "s", "sx0", "fever", "Fever?"),
            ],
        ),
        (
            "+33600000001",
            [SmsReceived(AT + 9, "c", "s", "m", "yes"), SmsDecided(AT + 9, "c", "s", "sx1", "day", "When?")],
        ),
        ("+33600000001", [SessionEnded(AT + 20, "c", "s", "completed", answers)]),
    ]
    rows = write_in_pages(archive_database, page_entries(told), [1, 2])
    assert [(row[1], row[5], row[10], row[14]) for row in rows["answers"]] == [
        (0, "fever", "yes", True),
        (1, "day", "2026-01-31", None),
    ]
    assert [row[1:] for row in rows["variables"]] == [("agentid", "agentid", "7", 7.0)]
    assert rows["sessions"][0][SessionRow.__struct_fields__.index("step")] == "day"


def test_a_session_whose_beginning_was_trimmed_is_made_of_what_is_known(archive_database):
    told = [("+33600000001", records) for records in talk("s1", AT)[1:]]
    rows = write_in_pages(archive_database, page_entries(told), [1])
    fields = dict(zip(SessionRow.__struct_fields__, rows["sessions"][0], strict=True))
    assert (fields["state"], fields["survey"], fields["opened_at"], fields["answers"]) == (
        "completed",
        "",
        None,
        1,
    )


def test_a_variable_keeps_the_spelling_in_which_it_came(archive_database):
    invitation = Invitation("s", "c", "clinic", variables={"agentId": "7"})
    told = [
        (
            "+33600000001",
            [SessionOpened(AT, "c", "s", "clinic", "v", "en"), SessionInvited(AT, "c", "s", invitation)],
        ),
        ("+33600000001", [SessionEnded(AT + 20, "c", "s", "completed", {"$agentid": Answer("7", 7)})]),
    ]
    for cuts in ([], [1]):
        rows = write_in_pages(archive_database, page_entries(told), cuts)
        assert [row[1:] for row in rows["variables"]] == [("agentid", "agentId", "7", 7.0)]


def test_misreads_and_seconds_are_of_the_question_that_is_answered(archive_database):
    def received(at, text, answer=None):
        return SmsReceived(
            at,
            "c",
            "s",
            f"m{at}",
            text,
            step="age" if answer else "",
            answer=answer,
            answer_type="number" if answer else "",
        )

    told = [
        ("+33600000001", [SessionOpened(AT, "c", "s", "clinic", "v", "en"), SmsDecided(AT, "c", "s", "sx0", "age", "Age?", "ask")]),
        ("+33600000001", [received(AT + 2_000, "old"), AnswerRejected(AT + 2_000, "c", "s", "age", "not_a_number"),
                          SmsDecided(AT + 2_000, "c", "s", "sx1", "age", "Digits.", "reask")]),
        ("+33600000001", [received(AT + 7_500, "85", Answer("85", 85))]),
    ]  # fmt: skip
    rows = write_in_pages(archive_database, page_entries(told), [1, 2])
    (answer,) = rows["answers"]
    assert answer[-2:] == (1, 7.5)
    assert [(row[9], row[12], row[13], row[14]) for row in rows["messages"]] == [
        ("out", "age", "ask", ""), ("in", "age", "misread", "not_a_number"), ("out", "age", "reask", ""), ("in", "age", "answer", ""),
    ]  # fmt: skip


def test_several_chosen_options_are_a_row_each():
    values = read_answer(Answer("1 3", ("red", "blue"), indexes=(0, 2)), "choices")
    assert [(each.option, each.option_index, each.value) for each in values] == [
        ("red", 0, "red"),
        ("blue", 2, "blue"),
    ]
    assert len(read_answer(Answer("1 3", ("red", "blue")), "choices")) == 2, (
        "of a record that does not say their places"
    )


# What cannot be written


def test_what_a_database_does_not_take_is_kept_as_it_is_and_stops_nobody(archive_database):
    """A cost beyond 64 bits: no record of ours, but one that another wrote."""
    good = [("+33600000001", records) for records in talk("s1", AT)]
    bad = ("+33600000002", [SmsSent(AT, "c", "s2", "s2x0", "t", 1, 2**63, "EUR")])
    entries = page_entries([*good[:2], bad, *good[2:]])
    empty_archive(archive_database)
    with archive_database.writing() as connection:
        assert len(write_page(connection, entries, hash_number)) == 1
    assert [row[5] for row in table_rows(archive_database, "entries")] == [entry.stored for entry in entries]
    assert len(table_rows(archive_database, "sends")) == 1
    assert table_rows(archive_database, "sessions")[0][8] == "completed"
