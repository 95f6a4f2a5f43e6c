"""Filters: what is typed is what is asked for, and the rows that come are those that meet it, on both databases."""

from datetime import UTC, date, datetime
from itertools import chain
from statistics import mean, median, quantiles, stdev
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from config.archive import tables
from config.archive.question_summaries import MOST_TEXTS, bar_edges, summarize_question, summarize_values
from config.archive.result_columns import find_columns
from config.archive.result_filters import (
    SESSION_STATES,
    AnswerCondition,
    InvalidFilterError,
    ResultFilters,
    parse_condition,
    parse_moment,
    parse_variable,
    require_states,
    require_steps,
    session_conditions,
)
from config.archive.session_results import count_states, read_latest_results
from config.archive.surveys_kept import read_surveys
from engine.model.events import Answer, Invitation
from engine.surveys.survey_reader import read_survey
from tests.support.example_counts import examples
from tests.support.played_sessions import FIRST_AT, WrittenSession

PARIS = ZoneInfo("Europe/Paris")
NOW = 1_800_000_000_000

CLINIC = """
survey: clinic
title: Online clinic
languages: [en, "no"]
steps:
  - {id: name, ask: {en: Name?, "no": Navn?}, answer: {type: text}}
  - id: temperature
    ask: Temperature?
    answer: {type: number}
    next: [{when: {below: 50}, go: temperature, times: 3}, {go: fever}]
  - {id: fever, ask: Fever?, answer: {type: yes_no}}
  - id: symptoms
    ask: Which?
    answer: {type: choices, options: [{id: cough, label: {en: Cough, "no": Hoste}}, {id: rash, label: Rash}]}
  - {id: born, ask: Born?, answer: {type: date}}
  - {id: best, ask: When?, answer: {type: time}}
  - {id: caller, ask: Number?, answer: {type: phone}}
"""
SURVEY, _ = read_survey("clinic.yaml", CLINIC.encode())


# -- as they are written


@pytest.mark.parametrize("written, expected", [
    ("temperature >= 95", AnswerCondition("temperature", ">=", "95")),
    ("temperature>=95.5", AnswerCondition("temperature", ">=", "95.5")),
    ("fever = yes", AnswerCondition("fever", "=", "yes")),
    ("fever == yes", AnswerCondition("fever", "=", "yes")),
    ("fever!=yes", AnswerCondition("fever", "!=", "yes")),
    (" name  contains  van der ", AnswerCondition("name", "contains", "van der")),
    ('name = " x "', AnswerCondition("name", "=", " x ")),
    ("born < 2000-01-31", AnswerCondition("born", "<", "2000-01-31")),
    ("best > 08:30", AnswerCondition("best", ">", "08:30")),
    ("$agentId = 7", AnswerCondition("$agentId", "=", "7")),
    ("$$contact = Rey", AnswerCondition("$$contact", "=", "Rey")),
    ("name = a = b", AnswerCondition("name", "=", "a = b")),
    ("1 >= 2", AnswerCondition("1", ">=", "2")),
])  # fmt: skip
def test_a_condition_is_read(written, expected):
    assert parse_condition(written) == expected


@pytest.mark.parametrize("written, said", [
    ("", "is no condition"), ("temperature", "temperature >= 95"), ("temperature is 95", "is no condition"),
    (">= 95", "is no condition"), ("temperature >=", "compares with nothing"), ("name = ''", "compares with nothing"),
    ("temperature > high", "expected a number"), ("born < 2000-13-01", "a day such as"),
    ("two words = 1", "is no condition"),
])  # fmt: skip
def test_what_is_no_condition_is_told_with_what_was_expected(written, said):
    with pytest.raises(InvalidFilterError, match=said):
        parse_condition(written)


def test_a_variable_is_read():
    assert parse_variable("agentId=7") == ("agentId", "7")
    assert parse_variable("$queueKey = a=b") == ("queueKey", "a=b")
    for written in ("agentId", "=7", ""):
        with pytest.raises(InvalidFilterError, match="agentId=7"):
            parse_variable(written)


def ms(*moment, zone=UTC):
    return round(datetime(*moment, tzinfo=zone).timestamp() * 1000)


@pytest.mark.parametrize("written, expected", [
    ("2026-07-01", ms(2026, 7, 1, zone=PARIS)),
    ("2026-07-01T08:30", ms(2026, 7, 1, 8, 30, zone=PARIS)),
    ("2026-07-01 08:30:05", ms(2026, 7, 1, 8, 30, 5, zone=PARIS)),
    ("2026-07-01T08:30:00Z", ms(2026, 7, 1, 8, 30)),
    ("2026-07-01T08:30:00-02:00", ms(2026, 7, 1, 10, 30)),
    ("2h", NOW - 7_200_000),
    ("1d12h", NOW - 36 * 3_600_000),
])  # fmt: skip
def test_a_moment_is_one_on_the_channels_clock_unless_it_says_where(written, expected):
    assert parse_moment(written, PARIS, NOW) == expected


def test_a_day_as_an_end_is_included():
    assert parse_moment("2026-10-25", PARIS, NOW, is_end=True) == ms(2026, 10, 26, zone=PARIS)
    assert (
        parse_moment("2026-10-25", PARIS, NOW, is_end=True) - parse_moment("2026-10-25", PARIS, NOW)
        == 25 * 3_600_000
    )


@pytest.mark.parametrize("written", ["", "yesterday", "2026-02-30", "31/01/2026", "0001-01-01", "1969-12-31", "9999-12-31T", "0s"])  # fmt: skip
def test_what_is_no_moment_is_told(written):
    with pytest.raises(InvalidFilterError, match="is no moment"):
        parse_moment(written, PARIS, NOW)


def test_a_day_is_refused_where_nobody_knows_whose_it_is():
    with pytest.raises(InvalidFilterError, match=r"say where, such as 2026-07-01T00:00:00\+01:00"):
        parse_moment("2026-07-01", None, NOW)
    assert parse_moment("2026-07-01T00:00Z", None, NOW) == ms(2026, 7, 1)
    assert parse_moment("1h", None, NOW) == NOW - 3_600_000


def test_a_state_that_there_is_not_is_told_with_the_nearest():
    require_states(SESSION_STATES)
    with pytest.raises(InvalidFilterError, match="did you mean gave_up"):
        require_states(["gaveup"])


# -- in SQL


@pytest.fixture
def clinic(shared_archive):
    shared_archive.clear()
    shared_archive.keep_survey(SURVEY)
    return shared_archive


@pytest.fixture
def people(clinic):
    """Four sessions: ann, bob, cyd, and one, dan, who answered nothing."""
    choices = Answer("1 2", ("cough", "rash"), indexes=(0, 1))
    ann = written("ann", language="en").answer("name", "Ann Öz", "text").answer("temperature", 98.6, "number")
    ann.answer("fever", Answer("y", True), "yes_no").answer("symptoms", choices, "choices")
    ann.answer("born", "2001-02-03", "date").answer("best", "08:30", "time").answer(
        "caller", "+33612345678", "phone"
    )
    bob = written("bob", at=FIRST_AT + 1000, language="no", invitation=invited("bob", agentId="7"))
    bob.answer("name", "7", "text").answer("temperature", 90, "number").answer("temperature", 101, "number")
    bob.answer("fever", Answer("n", False), "yes_no").end("completed")
    cyd = written(
        "cyd", at=FIRST_AT + 2000, channel="other", invitation=invited("cyd", agentId="07", team="B")
    )
    cyd.answer("symptoms", Answer("2", ("rash",), indexes=(1,)), "choices").end("idle")
    dan = written("dan", at=FIRST_AT + 3000).end("gave_up")
    for each, session in {"+33611": ann, "+33622": bob, "+33633": cyd, "+33644": dan}.items():
        clinic.add_turns(each, session.turns)
    return clinic


def written(identity, **how):
    return WrittenSession(identity, version=SURVEY.version, **how).say(("name", "ask"))


def invited(identity, **variables):
    return Invitation(identity, "line", "clinic", variables=variables, campaign="spring")


def found(archive, **filters):
    with archive.database.reading() as connection:
        conditions = session_conditions(ResultFilters(**({"survey": "clinic"} | filters)))
        rows = select(tables.sessions.c.session).where(*conditions).order_by(tables.sessions.c.session)
        return " ".join(connection.execute(rows).scalars())


@pytest.mark.parametrize("condition, who", [
    ("temperature >= 95", "ann bob"), ("temperature > 98.6", "bob"), ("temperature < 98.6", ""), ("temperature <= 98.6", "ann"),
    ("temperature = 101", "bob"), ("temperature = 101.0", "bob"), ("temperature != 101", "ann"), ("temperature = 90", ""),
    ("name = 7", "bob"), ("name = Ann Öz", "ann"), ("name contains ann", "ann"), ("name contains %", ""),
    ("name > 5", ""), ("name != 7", "ann"),
    ("fever = yes", "ann"), ("fever = no", "bob"), ("fever != yes", "bob"),
    ("symptoms = rash", "ann cyd"), ("symptoms contains cough", "ann"), ("symptoms != cough", "cyd"),
    ("born < 2001-02-04", "ann"), ("born = 2001-02-03", "ann"), ("born >= 2001-02-04", ""),
    ("best >= 08:30", "ann"), ("best < 08:30", ""),
    ("caller = +33612345678", "ann"),
    ("$agentId = 7", "bob cyd"), ("$agentid >= 7", "bob cyd"), ("$agentId != 7", ""), ("$team != A", "cyd"), ("$team contains b", "cyd"),
    ("nobody = 1", ""), ("nobody != 1", ""),
])  # fmt: skip
def test_the_sessions_come_whose_last_answer_meets_the_condition(people, condition, who):
    assert found(people, answers=[parse_condition(condition)]) == who


@pytest.mark.parametrize("filters, who", [
    ({}, "ann bob cyd dan"), ({"survey": "other"}, ""), ({"channels": ["other"]}, "cyd"), ({"languages": ["no"]}, "bob"),
    ({"states": ["open", "idle"]}, "ann cyd"), ({"campaigns": ["spring"]}, "bob cyd"), ({"senders": ["+33644"]}, "dan"),
    ({"variables": [("AGENTID", "7")]}, "bob cyd"), ({"variables": [("team", "B")], "channels": ["other"]}, "cyd"),
    ({"since": FIRST_AT + 1000}, "bob cyd dan"), ({"until": FIRST_AT + 1000}, "ann"),
    ({"since": FIRST_AT + 1000, "until": FIRST_AT + 3000}, "bob cyd"), ({"versions": ["none"]}, ""),
])  # fmt: skip
def test_the_sessions_come_that_meet_every_filter(people, filters, who):
    assert found(people, **filters) == who


def test_a_session_that_never_opened_is_found_by_when_it_was_refused(people):
    row = {"session": "eve", "shard": 0, "sender": "+1", "channel": "line", "survey": "clinic", "state": "refused",
           "invited": True, "ended_at": FIRST_AT + 1500}  # fmt: skip
    with people.database.writing() as connection:
        connection.execute(tables.sessions.insert(), row)
    assert found(people, since=FIRST_AT + 1200, until=FIRST_AT + 2500) == "cyd eve"
    with people.database.reading() as connection:
        filters = ResultFilters(survey="clinic")
        columns = find_columns(connection, "clinic", read_surveys(connection, "clinic"))
        latest = read_latest_results(connection, filters, columns, 10)
        refused = read_latest_results(
            connection, ResultFilters(survey="clinic", states=["refused"]), columns, 10
        )
        states = {each.state: (each.sessions, each.opened) for each in count_states(connection, filters)}
    assert [each.session for each in latest] == ["dan", "cyd", "bob", "ann"]
    assert [each.session for each in refused] == ["eve"]
    assert states == {
        "open": (1, 1),
        "completed": (1, 1),
        "idle": (1, 1),
        "gave_up": (1, 1),
        "refused": (1, 0),
    }
    assert latest[3].answers["symptoms"] == ["cough", "rash"]
    assert latest[2].answers == {"name": "7", "temperature": "101", "fever": "no"}


def test_a_step_or_variable_that_there_is_not_is_told_with_the_nearest(people):
    known = ["name", "temperature"]
    with people.database.reading() as connection:
        require_steps(connection, filters_on("temperature > 1", "fever = yes", "$AGENTID = 7"), known)
        with pytest.raises(InvalidFilterError, match="did you mean temperature"):
            require_steps(connection, filters_on("temprature > 1"), known)
        with pytest.raises(InvalidFilterError, match="did you mean agentId"):
            require_steps(connection, filters_on("$agent = 7"), known)


def filters_on(*conditions):
    return ResultFilters(survey="clinic", answers=list(map(parse_condition, conditions)))


# -- questions


def columns_of(archive):
    with archive.database.reading() as connection:
        return {
            each.heading: each
            for each in find_columns(connection, "clinic", read_surveys(connection, "clinic")[::-1])
        }


def summary_of(archive, heading, **filters):
    column = columns_of(archive)[heading]
    with archive.database.reading() as connection:
        return summarize_question(connection, ResultFilters(survey="clinic", **filters), column)


def test_a_question_has_its_text_and_labels_by_language(clinic):
    columns = columns_of(clinic)
    assert list(columns) == ["name", "temperature", "fever", "symptoms", "born", "best", "caller"]
    assert columns["name"].question_text("no") == "Navn?"
    assert columns["symptoms"].option_label("cough", "no") == "Hoste"
    assert columns["symptoms"].option_label("rash", "no") == "Rash"
    assert columns["symptoms"].option_label("gone", "no") == "gone"


def test_a_question_counts_a_session_by_its_last_answer(people):
    found = summary_of(people, "temperature")
    assert (found.answered, found.kind, found.distribution.mean) == (
        2,
        "numbers",
        pytest.approx((98.6 + 101) / 2),
    )
    assert (found.distribution.least, found.distribution.greatest) == (98.6, 101)
    assert summary_of(people, "temperature", languages=["no"]).answered == 1


def test_whether_a_question_can_be_asked_again_is_known_from_the_file(clinic):
    assert {heading for heading, column in columns_of(clinic).items() if not column.asks_once} == {
        "temperature"
    }


def test_options_texts_days_and_times_are_counted(people):
    assert counts(summary_of(people, "symptoms")) == {"rash": 2, "cough": 1}
    assert summary_of(people, "symptoms").answered == 2
    assert counts(summary_of(people, "fever")) == {"yes": 1, "no": 1}
    assert counts(summary_of(people, "name")) == {"Ann Öz": 1, "7": 1}
    assert summary_of(people, "born").distribution.median == "2001-02-03"
    assert summary_of(people, "best").distribution.median == "08:30"


def counts(summary):
    return {each.value: each.count for each in summary.counts}


def test_a_question_that_nobody_answered_has_no_numbers(clinic):
    found = summary_of(clinic, "temperature")
    assert (found.answered, found.misreads, found.median_s, found.distribution, found.counts) == (
        0,
        0,
        None,
        None,
        [],
    )


def test_replies_that_could_not_be_read_first_are_counted(clinic):
    for number, tries in enumerate((0, 2, 1)):
        each = written(str(number))
        for _ in range(tries):
            each.misread("name", "too_long", ("name", "reask"))
        clinic.add_turns(f"+33{number}", each.answer("name", "Ann", "text").turns)
    found = summary_of(clinic, "name")
    assert (found.answered, found.misread_first, found.misreads, found.median_s) == (3, 2, 3, 2)


def test_only_the_most_frequent_texts_are_told_and_how_many_there_are(clinic):
    for number in range(20):
        clinic.add_turns(
            f"+33{number}", written(str(number)).answer("name", f"text {number // 2}", "text").turns
        )
    found = summary_of(clinic, "name")
    assert (len(found.counts), found.distinct, found.counts[0].count) == (MOST_TEXTS, 10, 2)


def test_a_step_whose_type_changed_is_two_questions(clinic):
    newer, _ = read_survey("clinic.yaml", CLINIC.replace("{type: number}\n    next: [{when: {below: 50}, go: temperature, times: 3}, {go: fever}]", "{type: yes_no}").encode())  # fmt: skip
    clinic.add_turns("+331", written("1").answer("temperature", 99, "number").turns)
    clinic.keep_survey(newer)
    later = WrittenSession("2", version=newer.version).answer("temperature", Answer("y", True), "yes_no")
    old = (
        WrittenSession("3", version=SURVEY.version, kinds=False)
        .answer("temperature", 101, "number")
        .end("completed")
    )
    clinic.add_turns("+332", later.turns)
    clinic.add_turns("+333", old.turns)
    assert counts(summary_of(clinic, "temperature (yes_no)")) == {"yes": 1}
    assert summary_of(clinic, "temperature (number)").distribution.mean == 100
    columns = columns_of(clinic)
    assert "temperature" not in columns
    assert columns["name"].is_only
    with clinic.database.reading() as connection:
        latest = read_latest_results(connection, ResultFilters(survey="clinic"), list(columns.values()), 9)
    assert {each.session: each.answers for each in latest} == {
        "1": {"temperature (number)": "99"}, "2": {"temperature (yes_no)": "yes"}, "3": {"temperature (number)": "101"},
    }  # fmt: skip


def test_answers_that_no_file_explains_are_a_question_too(shared_archive):
    shared_archive.clear()
    shared_archive.add_turns(
        "+331", WrittenSession("1").answer("lost", 7, "number").answer("other", "x", "text").turns
    )
    assert list(columns_of(shared_archive)) == ["lost", "other"]
    assert summary_of(shared_archive, "lost").distribution.mean == 7


# -- the same as on paper

NUMBERS = st.lists(
    st.one_of(st.integers(-5, 12), st.floats(-1e6, 1e6, allow_nan=False).map(lambda each: round(each, 3))),
    min_size=1,
    max_size=40,
)


@settings(max_examples=examples(30), deadline=None)
@given(values=NUMBERS)
def test_numbers_are_summarized_as_on_paper(shared_archive, values):
    shared_archive.clear()
    shared_archive.keep_survey(SURVEY)
    told = [written(str(n)).answer("temperature", value, "number").turns for n, value in enumerate(values)]
    shared_archive.add_turns("+331", chain.from_iterable(told))
    found = summary_of(shared_archive, "temperature").distribution
    assert (found.count, found.least, found.greatest) == (len(values), min(values), max(values))
    assert found.mean == pytest.approx(mean(values), abs=1e-6)
    assert found.median == pytest.approx(median(values))
    if len(values) > 1:
        expected = quantiles(values, n=4, method="inclusive")
        assert [found.quarter, found.median, found.three_quarters] == pytest.approx(expected)
        assert found.deviation == pytest.approx(stdev(values), rel=1e-6, abs=1e-6)
    assert sum(bar.count for bar in found.bars) == len(values)


def rows_of(values):
    total, each = len(values), sorted(set(values))
    return [(value, values.count(value), total, each[0], each[-1], len(each)) for value in each]


DAYS = st.dates(date(1900, 1, 1), date(2100, 1, 1)).map(date.isoformat)
TIMES = st.times().map(lambda each: each.strftime("%H:%M"))
ANY_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(values=st.one_of(*(st.lists(each, min_size=1, max_size=30) for each in (DAYS, TIMES, ANY_NUMBERS))))
@example(values=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 5.000000005000001e206, -1.394786492373299e-118])
def test_every_value_is_in_the_bar_that_says_so(values):
    found = summarize_values(rows_of(values))
    for place, bar in enumerate(found.bars):
        is_last = place == len(found.bars) - 1
        inside = [
            each for each in values if bar.low <= each < bar.high or (bar.low == bar.high == each) or (is_last and each == bar.high)
        ]  # fmt: skip
        assert bar.count == len(inside)
    assert len(found.bars) <= 24


def test_bars_begin_at_round_numbers():
    assert bar_edges(0.0, 10.0, 11) == [float(each) for each in range(12)]
    assert bar_edges(91.5, 107.7, 99) == [90, 92, 94, 96, 98, 100, 102, 104, 106, 108]
    assert bar_edges(7.0, 90.0, 30) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert bar_edges(1.0, 900.0, 3) == []
