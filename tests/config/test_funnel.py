"""A funnel that SQL counts is the one that a person would count with the records on paper."""

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from config.archive import tables
from config.archive.funnel import FUNNEL_END, FUNNEL_START, read_funnel
from config.archive.result_filters import AnswerCondition, ResultFilters
from engine.model.events import (
    AnswerRejected,
    SessionEnded,
    SessionOpened,
    SmsDecided,
    SmsReceived,
)
from engine.simulator.simulator import playable_surveys
from engine.surveys.program import QuestionStep
from engine.surveys.survey_reader import read_survey
from tests.engine.answer_samples import REPLIES
from tests.engine.chat import policy_for
from tests.engine.random_surveys import surveys as random_surveys
from tests.support.example_counts import examples
from tests.support.played_sessions import WrittenSession, play_actions

CLINIC = b"""
survey: clinic
languages: [en, "no"]
cooldown: 0s
steps:
  - {id: hello, say: Hello.}
  - {id: name, ask: Name?, answer: {type: text}}
  - id: age
    ask: Age?
    answer: {type: number}
    next: [{when: {below: 18}, go: young}, {go: end}]
  - {id: young, say: Too young.}
"""
SURVEY, _ = read_survey("clinic.yaml", CLINIC)
VERSION = SURVEY.version


@pytest.fixture
def clinic(shared_archive):
    shared_archive.clear()
    shared_archive.keep_survey(SURVEY)
    return shared_archive


def funnel_of(archive, **filters):
    with archive.database.reading() as connection:
        return read_funnel(connection, ResultFilters(**({"survey": "clinic"} | filters)))


def session(identity, **how):
    return WrittenSession(identity, version=VERSION, **how)


def asked(identity, **how):
    return session(identity, **how).say(("hello", "say"), ("name", "ask"))


def edges(funnel):
    return {(each.tail, each.head): (each.sessions, each.passages) for each in funnel.edges}


def steps(funnel):
    return {each.step: each for each in funnel.steps}


def test_without_a_session_every_step_is_there_and_nothing_is_counted(clinic):
    funnel = funnel_of(clinic)
    assert (funnel.sessions, funnel.states, funnel.edges) == (0, {}, [])
    assert [each.step for each in funnel.steps] == ["hello", "name", "age", "young"]
    assert {each.reached + each.answered + each.left_sessions for each in funnel.steps} == {0}


def test_a_completed_session_goes_from_the_start_to_the_end(clinic):
    done = asked("1").answer("name", "Ann", "text", ("age", "ask"), after_ms=3000)
    clinic.add_turns(
        "+331", done.answer("age", 7, "number", ("young", "say"), after_ms=5000).end("completed").turns
    )
    funnel = funnel_of(clinic)
    assert funnel.states == {"completed": 1}
    assert edges(funnel) == {
        (FUNNEL_START, "hello"): (1, 1), ("hello", "name"): (1, 1), ("name", "age"): (1, 1), ("age", "young"): (1, 1),
        ("young", FUNNEL_END): (1, 1),
    }  # fmt: skip
    counted = {step: (each.reached, each.answered, each.median_s) for step, each in steps(funnel).items()}
    assert counted == {"hello": (1, 0, None), "name": (1, 1, 3), "age": (1, 1, 5), "young": (1, 0, None)}


def test_a_repeated_question_and_a_reminder_are_no_new_arrival(clinic):
    once = (
        asked("1").misread("name", "too_short", ("name", "reask")).remind("name").misread("name", "too_long")
    )
    clinic.add_turns("+331", once.end("gave_up").turns)
    name = steps(funnel_of(clinic))["name"]
    assert (name.reached, name.passages, name.reminded) == (1, 1, 1)
    assert (name.misread_sessions, name.misreads) == (1, {"too_short": 1, "too_long": 1})
    assert name.left == {"gave_up": 1}


def test_a_session_that_comes_by_again_is_one_session_and_two_passages(clinic):
    twice = (
        asked("1").answer("name", "A", "text", ("name", "ask")).answer("name", "B", "text", ("age", "ask"))
    )
    clinic.add_turns("+331", twice.turns)
    funnel = funnel_of(clinic)
    assert edges(funnel)["name", "name"] == (1, 1)
    name, age = steps(funnel)["name"], steps(funnel)["age"]
    assert (name.reached, name.passages, name.answered) == (1, 2, 1)
    assert (age.waiting, age.left) == (1, {})


def test_a_session_has_left_the_step_that_was_asked_last_however_it_ended(clinic):
    for number, how in enumerate(("idle", "expired", "stopped", "idle")):
        clinic.add_turns(f"+33{number}", asked(str(number)).end(how).turns)
    clinic.add_turns("+334", asked("4").turns)
    name = steps(funnel_of(clinic))["name"]
    assert (name.left, name.left_sessions, name.waiting) == ({"idle": 2, "expired": 1, "stopped": 1}, 4, 1)


@pytest.mark.parametrize("seconds, expected", [([3], 3), ([1, 2], 1.5), ([9, 1, 2], 2), ([1, 2, 10, 3], 2.5)])
def test_how_long_an_answer_takes_is_the_median(clinic, seconds, expected):
    for number, each in enumerate(seconds):
        answered = asked(str(number)).answer("name", "A", "text", ("age", "ask"), after_ms=each * 1000)
        clinic.add_turns(f"+33{number}", answered.turns)
    assert steps(funnel_of(clinic))["name"].median_s == expected


def test_what_0_1_0_recorded_counts_a_text_once_however_often_it_came_in_a_row(clinic):
    old = session("1", kinds=False).say(("hello", ""), ("name", ""))
    old.misread("name", "too_short", ("name", "")).answer("name", "Ann", "text", ("age", ""))
    clinic.add_turns("+331", old.answer("age", 30, "number", ("completed", "")).end("completed").turns)
    funnel = funnel_of(clinic)
    assert {way: passages for way, (_, passages) in edges(funnel).items()} == {
        (FUNNEL_START, "hello"): 1, ("hello", "name"): 1, ("name", "age"): 1, ("age", FUNNEL_END): 1,
    }  # fmt: skip
    assert funnel.unknown_kinds == 5
    assert [each.answered for each in funnel.steps] == [0, 1, 1, 0]


def test_only_sessions_that_the_filters_let_through_count(clinic):
    for number, (language, age) in enumerate([("en", 7), ("no", 40), ("no", 9)]):
        each = asked(str(number), language=language).answer("name", "A", "text", ("age", "ask"))
        clinic.add_turns(f"+33{number}", each.answer("age", age, "number").end("completed").turns)
    assert funnel_of(clinic, languages=["no"]).sessions == 2
    assert funnel_of(clinic, answers=[AnswerCondition("age", "<", "10")]).sessions == 2
    only = funnel_of(clinic, languages=["no"], answers=[AnswerCondition("age", "<", "10")])
    assert (only.sessions, steps(only)["age"].answered) == (1, 1)


def test_a_refused_invitation_reached_nothing(clinic):
    with clinic.database.writing() as connection:
        row = {"session": "r", "shard": 0, "sender": "+331", "channel": "line", "survey": "clinic",
               "state": "refused", "invited": True}  # fmt: skip
        connection.execute(tables.sessions.insert(), row)
    assert funnel_of(clinic).sessions == 0


def test_a_step_that_only_an_older_version_has_comes_last(clinic):
    newer, _ = read_survey(
        "clinic.yaml", CLINIC.replace(b"id: young", b"id: minor").replace(b"go: young", b"go: minor")
    )
    clinic.keep_survey(newer)
    clinic.add_turns("+331", session("1").say(("young", "say")).end("completed").turns)
    assert [each.step for each in funnel_of(clinic).steps] == ["hello", "name", "age", "minor", "young"]
    with clinic.database.reading() as connection:
        assert len(connection.execute(select(tables.surveys)).all()) == 2


# -- the same as on paper


def count_on_paper(turns_by_person, survey):
    """The funnel of all sessions, counted record by record."""
    kinds = {step.id: isinstance(step, QuestionStep) for step in survey.steps}
    records = [record for turns in turns_by_person for turn in turns for record in turn]
    opened = [record.session for record in records if isinstance(record, SessionOpened)]
    found = {
        "states": Counter(), "reached": Counter(), "passages": Counter(), "answered": Counter(), "reminded": Counter(),
        "misreads": Counter(), "misread_sessions": Counter(), "waiting": Counter(), "left": Counter(),
        "edges": Counter(), "edge_sessions": Counter(),
    }  # fmt: skip
    for each in opened:
        mine = [record for record in records if getattr(record, "session", "") == each]
        state = next((record.how for record in mine if isinstance(record, SessionEnded)), "open")
        arrivals, asked_last, answered, misread, reminded = [], "", set(), set(), set()
        for record in mine:
            match record:
                case SmsDecided(step=step, kind=kind):
                    if kind in ("ask", "say") or (kind == "" and step in kinds and arrivals[-1:] != [step]):
                        arrivals.append(step)
                    if kind == "ask" or (kind == "" and step != asked_last):
                        asked_last = step
                    reminded |= {step} if kind == "remind" else set()
                case SmsReceived(step=step, answer=answer) if answer is not None:
                    answered.add(step)
                case SessionEnded(answers=answers):
                    answered |= {step for step in answers if not step.startswith("$")}
                case AnswerRejected(step=step, why=why):
                    found["misreads"][step, why] += 1
                    misread.add(step)
        found["states"][state] += 1
        found["reached"].update(set(arrivals))
        found["passages"].update(arrivals)
        found["answered"].update(answered)
        found["misread_sessions"].update(misread)
        found["reminded"].update(reminded)
        ways = list(zip([FUNNEL_START, *arrivals], arrivals, strict=False))
        ways += [(arrivals[-1], FUNNEL_END)] if state == "completed" and arrivals else []
        found["edges"].update(ways)
        found["edge_sessions"].update(set(ways))
        if state == "open":
            found["waiting"][asked_last] += 1
        elif state != "completed":
            found["left"][asked_last or FUNNEL_START, state] += 1
    return found


def counted_by_sql(funnel):
    listed = funnel.steps
    return {
        "states": Counter(funnel.states),
        "reached": Counter({each.step: each.reached for each in listed}),
        "passages": Counter({each.step: each.passages for each in listed}),
        "answered": Counter({each.step: each.answered for each in listed}),
        "reminded": Counter({each.step: each.reminded for each in listed}),
        "misreads": Counter({(each.step, why): n for each in listed for why, n in each.misreads.items()}),
        "misread_sessions": Counter({each.step: each.misread_sessions for each in listed}),
        "waiting": Counter({each.step: each.waiting for each in listed}),
        "left": Counter({(each.step, how): n for each in listed for how, n in each.left.items()}),
        "edges": Counter({(each.tail, each.head): each.passages for each in funnel.edges}),
        "edge_sessions": Counter({(each.tail, each.head): each.sessions for each in funnel.edges}),
    }


PEOPLE = st.lists(
    st.lists(
        st.one_of(st.just("START"), st.sampled_from(REPLIES), st.sampled_from([60_000, 3_600_000, 4 * 86_400_000])),
        max_size=12,
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


@settings(max_examples=examples(40), deadline=None)
@given(source=random_surveys(), people=PEOPLE)
def test_it_is_what_one_counts_on_paper(shared_archive, source, people):
    surveys, problems = playable_surveys({"s.json": source})
    assume(not problems)
    shared_archive.clear()
    survey = surveys.current("s")
    shared_archive.keep_survey(survey)
    played = [
        play_actions(surveys, policy_for("s"), ["START", *actions], 1_000_000 * number)
        for number, actions in enumerate(people, 1)
    ]
    for number, turns in enumerate(played):
        shared_archive.add_turns(f"+3361234567{number}", turns)
    on_paper = {name: +counts for name, counts in count_on_paper(played, survey).items()}
    assert {
        name: +counts for name, counts in counted_by_sql(funnel_of(shared_archive, survey="s")).items()
    } == on_paper
