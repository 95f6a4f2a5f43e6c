"""Which sessions? The filters that results, exports, the funnel and the API share: as they are written, and in SQL.

A condition on an answer is about the last answer that a session has to that step, as a session's result is. One that is
written with a number compares numbers; answers that are none it compares only for being equal, as they are spelled, since an
option or a telephone number may look like one. What was never answered meets no condition, not even `!=`.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Literal, get_args

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, exists, false, func, or_, select, true

from config.archive import tables
from engine.model.durations import parse_duration
from engine.model.errors import ParleyError
from engine.model.events import SessionEnding
from engine.model.suggestions import expected_instead

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "contains"]

SESSION_STATES = ("open", *get_args(SessionEnding), "refused")
"""What `sessions.state` may be: open, how it ended, or that an invitation opened nothing."""

_CONDITION = re.compile(r"\s*(\${0,2}[^\s$<>=!]+)\s*(==|!=|<=|>=|=|<|>|\bcontains\b)\s*(.*?)\s*", re.DOTALL)
_OPERATORS: dict[str, Operator] = {each: each for each in get_args(Operator)} | {"==": "="}
_QUOTED = re.compile(r"(['\"])(.*)\1", re.DOTALL)
_NUMBER = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-2][0-9]:[0-5][0-9]")
_EXAMPLES = "such as temperature >= 95, fever = yes, symptoms contains cough or $agentId = 7"
_MOMENT_EXAMPLES = "such as 2026-01-31, 2026-01-31T08:00:00+01:00, or 2h for two hours ago"


class InvalidFilterError(ParleyError):
    """A filter cannot be read. The message says what was found and what was expected."""


class AnswerCondition(msgspec.Struct, frozen=True):
    """The last answer to `step`, or the session variable `$key`, compares so with `value`. `contains` is of a text's letters in
    any case, and of the options of several choices."""

    step: str
    operator: Operator
    value: str | float

    @property
    def number(self) -> float | None:
        """What `value` is as a number; None if it is none."""
        if isinstance(self.value, str):
            return float(self.value) if _NUMBER.fullmatch(self.value) else None
        return float(self.value)

    @property
    def text(self) -> str:
        return self.value if isinstance(self.value, str) else f"{self.value:g}"


class ResultFilters(msgspec.Struct, frozen=True, kw_only=True):
    """What a session must meet, all of it. An empty filter lets everything through. `since` and `until` (ms) are of when it
    opened, or was refused; `states` are those of `sessions.state`; `variables` are (key, value)."""

    survey: str
    since: int = 0
    until: int = 0
    channels: Sequence[str] = ()
    states: Sequence[str] = ()
    languages: Sequence[str] = ()
    versions: Sequence[str] = ()
    campaigns: Sequence[str] = ()
    senders: Sequence[str] = ()
    variables: Sequence[tuple[str, str]] = ()
    answers: Sequence[AnswerCondition] = ()


# As they are written


def parse_condition(written: str) -> AnswerCondition:
    """Read `temperature >= 95`, `fever = yes`, `name contains "van "`, `$agentId = 7`. Raises InvalidFilterError."""
    found = _CONDITION.fullmatch(written)
    if found is None:
        raise InvalidFilterError(
            f"{written!r} is no condition: expected a step, an operator and a value, {_EXAMPLES}"
        )
    step, written_operator, value = found.groups()
    operator = _OPERATORS[written_operator]
    if quoted := _QUOTED.fullmatch(value):
        value = quoted[2]
    if not value:
        raise InvalidFilterError(
            f"{written!r} compares with nothing: expected a value after {operator}, {_EXAMPLES}"
        )
    condition = AnswerCondition(step, operator, value)
    if operator in ("<", "<=", ">", ">=") and condition.number is None and _read_moment(value) is None:
        raise InvalidFilterError(
            f"{written!r} asks whether something is more or less than {value!r}: "
            "expected a number, a day such as 2026-01-31 or a time such as 08:30"
        )
    return condition


def parse_variable(written: str) -> tuple[str, str]:
    """Read `agentId=7`. Raises InvalidFilterError."""
    key, equals, value = written.partition("=")
    if not equals or not key.strip():
        raise InvalidFilterError(
            f"{written!r} is no variable: expected its key and its value, such as agentId=7"
        )
    return key.strip().removeprefix("$"), value.strip()


def parse_moment(written: str, zone: tzinfo | None, now: int, *, is_end: bool = False) -> int:
    """Read a day, a moment in RFC 3339 or how long ago, as ms. A day begins, and as an end ends, at midnight in `zone`, which
    is that of a moment too that says none; without a `zone` it has to. Raises InvalidFilterError."""
    text = written.strip()
    if ago := parse_duration(text):
        return max(1, now - ago)
    try:
        if _DAY.fullmatch(text):
            day = date.fromisoformat(text) + timedelta(days=1 if is_end else 0)
            moment = datetime.combine(day, time())
        else:
            moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and zone is None:
            raise InvalidFilterError(
                f"{written!r} may be at several moments: say where, such as {moment.isoformat()}+01:00"
            )
        moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
        ms = round(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        ms = 0
    if ms <= 0:
        raise InvalidFilterError(f"{written!r} is no moment: expected one {_MOMENT_EXAMPLES}")
    return ms


def require_states(states: Sequence[str]) -> None:
    """Raise InvalidFilterError if one of them is no state of a session."""
    for each in states:
        if each not in SESSION_STATES:
            raise InvalidFilterError(
                f"{each!r} is no state of a session{expected_instead(each, SESSION_STATES)}"
            )


def require_steps(connection: Connection, filters: ResultFilters, known: Sequence[str]) -> None:
    """Raise InvalidFilterError if a condition is on a step that is none of those `known`, and that nobody has answered, or on a
    variable that no session has."""
    for condition in filters.answers:
        if condition.step.startswith("$"):
            _require_variable(connection, condition.step[1:])
        elif condition.step not in known and not _has_answers(connection, filters.survey, condition.step):
            raise InvalidFilterError(
                f"the survey {filters.survey} asks nothing called {condition.step!r}"
                f"{expected_instead(condition.step, known)}"
            )
    for key, _ in filters.variables:
        _require_variable(connection, key)


def _has_answers(connection: Connection, survey: str, step: str) -> bool:
    table = tables.answers.c
    found = select(table.step).where(table.survey == survey, table.step == step).limit(1)
    return connection.execute(found).first() is not None


def _require_variable(connection: Connection, key: str) -> None:
    table = tables.variables.c
    if connection.execute(select(table.key).where(table.key == key.lower()).limit(1)).first() is not None:
        return
    known: list[str] = []
    following = select(table.key, table.name).order_by(table.key).limit(1)
    while len(known) < _MOST_KEYS and (row := connection.execute(following).first()) is not None:
        known.append(row.name)
        following = following.where(table.key > row.key)
    raise InvalidFilterError(f"no session has a variable {key!r}{expected_instead(key, known)}")


_MOST_KEYS = 50
"""Variables that a mistake names at the most, each found by the index."""


# In SQL


def session_conditions(filters: ResultFilters) -> list[ColumnElement[bool]]:
    """The conditions on `sessions` that the filters come to."""
    table = tables.sessions.c
    conditions: list[ColumnElement[bool]] = [table.survey == filters.survey]
    if filters.since or filters.until:
        conditions.append(_begun_between(filters.since, filters.until))
    for column, wanted in (
        (table.channel, filters.channels),
        (table.state, filters.states),
        (table.language, filters.languages),
        (table.version, filters.versions),
        (table.campaign, filters.campaigns),
        (table.sender, filters.senders),
    ):
        if wanted:
            conditions.append(column.in_(list(wanted)))
    conditions += [
        _variable_meets(AnswerCondition(f"${key}", "=", value)) for key, value in filters.variables
    ]
    conditions += [
        _variable_meets(each) if each.step.startswith("$") else _answer_meets(each)
        for each in filters.answers
    ]
    return conditions


def last_answers(answers: Any = tables.answers) -> ColumnElement[bool]:
    """The condition on `answers` that no later one of the session is to the same step."""
    later = tables.answers.alias()
    return ~(
        exists()
        .where(
            later.c.session == answers.c.session,
            later.c.place > answers.c.place,
            later.c.step == answers.c.step,
        )
        .correlate(answers)
    )


def _begun_between(since: int, until: int) -> ColumnElement[bool]:
    """When it opened, or was refused. Written so that the index on (survey, opened_at) is of use."""
    table = tables.sessions.c

    def is_between(moment: Any) -> ColumnElement[bool]:
        first = moment >= since if since else true()
        return and_(first, moment < until) if until else first

    return or_(is_between(table.opened_at), and_(table.opened_at.is_(None), is_between(table.ended_at)))


def _variable_meets(condition: AnswerCondition) -> ColumnElement[bool]:
    variable = tables.variables.alias()
    mine = and_(variable.c.session == tables.sessions.c.session, variable.c.key == condition.step[1:].lower())
    compared = _compare(condition, variable.c.value, variable.c.value_number, variable.c.value)
    met = ~compared if condition.operator == "!=" else compared
    return exists().where(mine, met).correlate(tables.sessions)


def _answer_meets(condition: AnswerCondition) -> ColumnElement[bool]:
    """Among the rows of the last answer, one for each chosen option, is one that compares so; for `!=` none that is equal."""
    answer = tables.answers.alias()
    mine = and_(
        answer.c.session == tables.sessions.c.session, answer.c.step == condition.step, last_answers(answer)
    )
    column = _MOMENT_COLUMNS.get(type(_read_moment(condition.text)), "value")
    compared = _compare(condition, answer.c.value, answer.c.value_number, answer.c[column])
    met = exists().where(mine, compared).correlate(tables.sessions)
    if condition.operator == "!=":
        return and_(exists().where(mine).correlate(tables.sessions), ~met)
    return met


def _compare(condition: AnswerCondition, value: Any, number: Any, moment: Any) -> ColumnElement[bool]:
    """How a row compares, `!=` as `=`. `moment` is the column by which days and times are put in order."""
    text, as_number = condition.text, condition.number
    match condition.operator:
        case "contains":
            return func.coalesce(value.icontains(text, autoescape=True), false())
        case "=" | "!=":
            equal = value == text
            if as_number is not None:
                equal = or_(number == as_number, and_(number.is_(None), equal))
            return func.coalesce(equal, false())
        case operator if as_number is not None:
            return _ordered(operator, number, as_number)
        case operator:
            bound = _read_moment(text) if moment is not value else text
            return _ordered(operator, moment, bound)


def _ordered(operator: Literal["<", "<=", ">", ">="], column: Any, bound: Any) -> ColumnElement[bool]:
    compared: dict[str, ColumnElement[bool]] = {
        "<": column < bound,
        "<=": column <= bound,
        ">": column > bound,
        ">=": column >= bound,
    }
    return compared[operator]


_MOMENT_COLUMNS: dict[type, str] = {date: "value_date", str: "value_time"}
"""The column of `answers` that holds what `_read_moment` gives."""


def _read_moment(value: str) -> date | str | None:
    """A day, or a time as HH:MM; None if it is neither."""
    if _TIME.fullmatch(value):
        return value
    try:
        return date.fromisoformat(value) if _DAY.fullmatch(value) else None
    except ValueError:
        return None
