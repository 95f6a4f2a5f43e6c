"""Which sessions? The filters that results, exports, the funnel and the API share, and what they are in SQL."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from config.archive import tables
from engine.model.errors import ParleyError

Operator = Literal["=", "!=", "<", "<=", ">", ">="]


class InvalidFilterError(ParleyError):
    """A filter cannot be read. The message says what was found and what was expected."""


class AnswerCondition(msgspec.Struct, frozen=True):
    """The last answer to `step` compares so with `value`: as numbers if `value` is one, else as they are written in `answers.value`."""

    step: str
    operator: Operator
    value: str | float


class ResultFilters(msgspec.Struct, frozen=True, kw_only=True):
    """What a session must meet, all of it. An empty filter lets everything through. `since` and `until` (ms) are of when it opened,
    or was refused; `states` are those of `sessions.state`; `variables` are (key, value)."""

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


def session_conditions(filters: ResultFilters) -> list[ColumnElement[bool]]:
    """The conditions on `sessions` that the filters come to."""
    table = tables.sessions.c
    begun = func.coalesce(table.opened_at, table.ended_at, type_=tables.Moment)
    conditions: list[ColumnElement[bool]] = [table.survey == filters.survey]
    if filters.since:
        conditions.append(begun >= filters.since)
    if filters.until:
        conditions.append(begun < filters.until)
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
    conditions += [_variable_is(key, value) for key, value in filters.variables]
    conditions += [_answer_meets(condition) for condition in filters.answers]
    return conditions


def _variable_is(key: str, value: str) -> ColumnElement[bool]:
    table = tables.variables.c
    return exists().where(
        table.session == tables.sessions.c.session, table.key == key.lower(), table.value == value
    )


def _answer_meets(condition: AnswerCondition) -> ColumnElement[bool]:
    table = tables.answers
    last = (
        select(func.max(table.c.place))
        .where(table.c.session == tables.sessions.c.session, table.c.step == condition.step)
        .scalar_subquery()
    )
    column: Any = table.c.value if isinstance(condition.value, str) else table.c.value_number
    compared: dict[Operator, ColumnElement[bool]] = {
        "=": column == condition.value,
        "!=": or_(column != condition.value, column.is_(None)),
        "<": column < condition.value,
        "<=": column <= condition.value,
        ">": column > condition.value,
        ">=": column >= condition.value,
    }
    return exists().where(
        and_(
            table.c.session == tables.sessions.c.session,
            table.c.step == condition.step,
            table.c.place == last,
            compared[condition.operator],
        )
    )
