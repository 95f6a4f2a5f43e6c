"""How far do people come? For each step of a survey how many sessions reached, answered and left it, and by which ways they
went, as the archive's records say.

A step is reached when its own text is sent; the same question asked again and a reminder of it are no new arrival. What
Parley 0.1.0 recorded does not say which of these an SMS was: there a step is reached when its text follows that of another.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Subquery, and_, case, func, literal, or_, select

from config.archive import tables
from config.archive.result_filters import ResultFilters, last_answers, session_conditions
from config.archive.surveys_kept import read_surveys
from engine.surveys.program import QuestionStep, Survey

FUNNEL_START, FUNNEL_END = "(start)", "(end)"
"""Stand for where sessions come from and go to when they are completed; no step's id has brackets."""

_ARRIVALS = ("ask", "say")
_UNKNOWN_KIND = ""
_NOT_LEFT = ("open", "completed")


class FunnelStep(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one step. `reached`, `answered`, `misread_sessions`, `reminded` and `waiting` count sessions; `passages`
    arrivals, of which a session may have several; `misreads` replies that could not be read, by the reader's reason; `left`
    the sessions that ended otherwise than completed while this was asked last, by how they ended. `waiting` are open and asked
    this last. `median_s` is from the question to the answer, in seconds; None if nothing is known of it."""

    step: str
    asks: bool
    reached: int = 0
    passages: int = 0
    answered: int = 0
    misread_sessions: int = 0
    misreads: dict[str, int] = {}
    reminded: int = 0
    waiting: int = 0
    left: dict[str, int] = {}
    median_s: float | None = None

    @property
    def left_sessions(self) -> int:
        return sum(self.left.values())


class FunnelEdge(msgspec.Struct, frozen=True):
    """From the text of one step to that of the next; from FUNNEL_START, and to FUNNEL_END of completed sessions."""

    tail: str
    head: str
    sessions: int
    passages: int


class Funnel(msgspec.Struct, frozen=True, kw_only=True):
    """`sessions` are those that opened, by state in `states`. `steps` are in the order of the survey's newest file, then of
    older ones; edges in the order of their steps. `unknown_kinds` are SMS of which 0.1.0 did not record what they are for."""

    survey: str
    sessions: int
    states: dict[str, int]
    steps: list[FunnelStep]
    edges: list[FunnelEdge]
    unknown_kinds: int = 0


class FunnelCounts(msgspec.Struct):
    """What SQL counted, by step."""

    states: dict[str, int] = {}
    reached: dict[str, tuple[int, int]] = {}
    edges: dict[tuple[str, str], tuple[int, int]] = {}
    answered: dict[str, int] = {}
    misread_sessions: dict[str, int] = {}
    misreads: dict[str, dict[str, int]] = {}
    reminded: dict[str, int] = {}
    standing: dict[tuple[str, str], int] = {}
    median_s: dict[str, float] = {}
    unknown_kinds: int = 0


def read_funnel(connection: Connection, filters: ResultFilters) -> Funnel:
    """Count the sessions that the filters let through."""
    surveys = read_surveys(connection, filters.survey)[::-1]
    return assemble_funnel(filters.survey, step_kinds(surveys), count_funnel(connection, filters, surveys))


def step_kinds(surveys: Sequence[Survey]) -> dict[str, bool]:
    """The steps of all versions, those of the first version first, and whether each asks something in the first that has it."""
    kinds: dict[str, bool] = {}
    for survey in surveys:
        for step in survey.steps:
            kinds.setdefault(step.id, isinstance(step, QuestionStep))
    return kinds


def assemble_funnel(survey: str, kinds: Mapping[str, bool], counts: FunnelCounts) -> Funnel:
    """Put together what was counted. `kinds` are the steps that are known, in order; others that were counted follow."""
    left: dict[str, dict[str, int]] = {}
    waiting: dict[str, int] = {}
    for (step, state), sessions in counts.standing.items():
        if state == "open":
            waiting[step] = sessions
        elif state not in _NOT_LEFT:
            left.setdefault(step or FUNNEL_START, {})[state] = sessions
    counted = {*counts.reached, *counts.answered, *counts.misreads, *waiting, *left} - {"", FUNNEL_START}
    order = [*kinds, *sorted(counted - kinds.keys())]
    nowhere = [FUNNEL_START] if FUNNEL_START in left else []
    steps = [
        FunnelStep(
            step=step,
            asks=kinds.get(step, step in counts.answered or step in counts.misreads),
            reached=counts.reached.get(step, (0, 0))[0],
            passages=counts.reached.get(step, (0, 0))[1],
            answered=counts.answered.get(step, 0),
            misread_sessions=counts.misread_sessions.get(step, 0),
            misreads=counts.misreads.get(step, {}),
            reminded=counts.reminded.get(step, 0),
            waiting=waiting.get(step, 0),
            left=left.get(step, {}),
            median_s=counts.median_s.get(step),
        )
        for step in [*nowhere, *order]
    ]
    places = {step: place for place, step in enumerate([FUNNEL_START, *order, FUNNEL_END])}
    edges = [FunnelEdge(*way, *numbers) for way, numbers in counts.edges.items()]
    edges.sort(key=lambda edge: (places[edge.tail], places[edge.head]))
    opened = sum(counts.states.values())
    return Funnel(
        survey=survey,
        sessions=opened,
        states=counts.states,
        steps=steps,
        edges=edges,
        unknown_kinds=counts.unknown_kinds,
    )


def count_funnel(connection: Connection, filters: ResultFilters, surveys: Sequence[Survey]) -> FunnelCounts:
    """Let SQL count."""
    chosen = _chosen_sessions(filters)
    counts = FunnelCounts()
    _count_states(connection, chosen, counts)
    _count_arrivals(connection, chosen, {step.id for survey in surveys for step in survey.steps}, counts)
    _count_other_messages(connection, chosen, counts)
    _count_answers(connection, filters.survey, chosen, counts)
    return counts


def _chosen_sessions(filters: ResultFilters) -> Subquery:
    table = tables.sessions.c
    return (
        select(table.session, table.state, table.step)
        .where(*session_conditions(filters), table.opened_at.is_not(None))
        .subquery("chosen")
    )


def _belongs_to(session: Any, chosen: Subquery) -> ColumnElement[bool]:
    """Joins what is of a session to the sessions that were chosen. The empty text keeps SQLite from looking up the session of each
    SMS that there is, which takes minutes, in place of the SMS of each session."""
    joined: ColumnElement[bool] = session == chosen.c.session + literal("")
    return joined


def _count_states(connection: Connection, chosen: Subquery, counts: FunnelCounts) -> None:
    """How many sessions are in which state, and where those stand that are not completed."""
    rows = select(chosen.c.state, chosen.c.step, func.count()).group_by(chosen.c.state, chosen.c.step)
    for state, step, sessions in connection.execute(rows):
        counts.states[state] = counts.states.get(state, 0) + sessions
        if state != "completed":
            counts.standing[step, state] = sessions


def _count_arrivals(
    connection: Connection, chosen: Subquery, steps: Collection[str], counts: FunnelCounts
) -> None:
    """Arrivals at steps, and ways between them. One without a tail is a session's first; the last of a completed session leads to
    the end, as well."""
    said = _arrivals(chosen, steps).c
    is_last = and_(said.following.is_(None), said.state == "completed")
    rows = select(
        said.before,
        said.step,
        func.count(func.distinct(said.session)),
        func.count(),
        func.sum(case((said.visit == 1, 1), else_=0)),
        func.sum(case((is_last, 1), else_=0)),
    ).group_by(said.before, said.step)
    for before, step, sessions, passages, first, last in connection.execute(rows):
        counts.edges[before or FUNNEL_START, step] = (sessions, passages)
        reached, all_passages = counts.reached.get(step, (0, 0))
        counts.reached[step] = (reached + int(first), all_passages + passages)
        if last:
            ended, _ = counts.edges.get((step, FUNNEL_END), (0, 0))
            counts.edges[step, FUNNEL_END] = (ended + int(last), ended + int(last))


def _arrivals(chosen: Subquery, steps: Collection[str]) -> Subquery:
    """A row for each arrival of a session at a step: the step, the one before it, and the one after it, and which of the session's
    visits to the step it is, from 1."""
    sms = tables.messages.c
    texts = (
        select(
            sms.session,
            sms.step,
            sms.kind,
            chosen.c.state,
            _in_order(func.lag(sms.step), sms).label("last"),
            sms.entry_ms,
            sms.entry_seq,
            sms.place,
        )
        .join_from(chosen, tables.messages, _belongs_to(sms.session, chosen))
        .where(
            sms.direction == "out",
            or_(sms.kind.in_(_ARRIVALS), and_(sms.kind == _UNKNOWN_KIND, sms.step.in_(sorted(steps)))),
        )
        .subquery("texts")
    )
    arrived = texts.c
    return (
        select(
            arrived.session,
            arrived.step,
            arrived.state,
            _in_order(func.lag(arrived.step), arrived).label("before"),
            _in_order(func.lead(arrived.step), arrived).label("following"),
            func.row_number()
            .over(
                partition_by=(arrived.session, arrived.step),
                order_by=(arrived.entry_ms, arrived.entry_seq, arrived.place),
            )
            .label("visit"),
        )
        .where(or_(arrived.kind != _UNKNOWN_KIND, arrived.last.is_(None), arrived.last != arrived.step))
        .subquery("said")
    )


def _in_order(function: Any, sms: Any) -> Any:
    """The window function over the SMS of each session, in their order."""
    return function.over(partition_by=sms.session, order_by=(sms.entry_ms, sms.entry_seq, sms.place))


def _count_other_messages(connection: Connection, chosen: Subquery, counts: FunnelCounts) -> None:
    """Reminders, replies that could not be read, and SMS of unknown kind."""
    sms = tables.messages.c
    which = func.row_number().over(partition_by=(sms.session, sms.step, sms.kind), order_by=sms.why)
    told = (
        select(sms.session, sms.step, sms.kind, sms.why, func.count().label("number"), which.label("which"))
        .join_from(chosen, tables.messages, _belongs_to(sms.session, chosen))
        .where(
            or_(
                and_(sms.direction == "in", sms.kind == "misread"),
                and_(sms.direction == "out", sms.kind.in_(("remind", _UNKNOWN_KIND))),
            )
        )
        .group_by(sms.session, sms.step, sms.kind, sms.why)
        .subquery("told")
    ).c
    rows = select(
        told.step,
        told.kind,
        told.why,
        func.sum(told.number),
        func.sum(case((told.which == 1, 1), else_=0)),
    ).group_by(told.step, told.kind, told.why)
    for step, kind, why, number, sessions in connection.execute(rows):
        match kind:
            case "misread":
                counts.misreads.setdefault(step, {})[why] = int(number)
                counts.misread_sessions[step] = counts.misread_sessions.get(step, 0) + int(sessions)
            case "remind":
                counts.reminded[step] = int(sessions)
            case _:
                counts.unknown_kinds += int(number)


def _count_answers(connection: Connection, survey: str, chosen: Subquery, counts: FunnelCounts) -> None:
    """Sessions that answered, and the median of how long it took them, of each session's last answer to the step."""
    table = tables.answers.c
    answered = (
        select(
            table.step,
            table.seconds,
            func.count(table.seconds).over(partition_by=table.step).label("timed"),
            func.row_number()
            .over(partition_by=table.step, order_by=table.seconds.asc().nulls_last())
            .label("rank"),
        )
        .join_from(chosen, tables.answers, _belongs_to(table.session, chosen))
        .where(table.survey == survey, table.choice == 0, last_answers())
        .subquery("answered")
    ).c
    is_middle = answered.rank.in_(((answered.timed + 1) // 2, (answered.timed + 2) // 2))
    rows: Any = select(answered.step, func.count(), func.avg(case((is_middle, answered.seconds)))).group_by(
        answered.step
    )
    for step, sessions, median in connection.execute(rows):
        counts.answered[step] = sessions
        if median is not None:
            counts.median_s[step] = float(median)
