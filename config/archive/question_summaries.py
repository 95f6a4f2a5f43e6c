"""What was answered to a question, all in all? Counted in SQL; every number is exact, and nothing grows with the answers.

A session counts once, by its last answer, as in its result. Values come from SQL each once, with how often it was given, in
their order; quantiles and bars are made as they pass by (`summarize_values`), so that memory holds some dozens of them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from math import ceil, floor, isfinite, log10, sqrt
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from config.archive import tables
from config.archive.result_columns import ResultColumn
from config.archive.result_filters import ResultFilters, last_answers, session_conditions

Value = float | str
"""A number; or a day as YYYY-MM-DD, a time as HH:MM, which sort as they read."""

VALUES_A_PAGE = 1_000
"""Rows that are in memory at once."""

MOST_BARS = 20
MOST_SINGLE_BARS = 8
MOST_TEXTS = 5

SummaryKind = Literal["numbers", "days", "times", "options", "texts"]

_KIND_BY_TYPE: dict[str, SummaryKind] = {
    "number": "numbers",
    "scale": "numbers",
    "date": "days",
    "time": "times",
    "choice": "options",
    "choices": "options",
    "yes_no": "options",
    "text": "texts",
    "phone": "texts",
    "anything": "texts",
    "numeric": "numbers",
}


class ValueCount(msgspec.Struct, frozen=True):
    """So many answers are this value, or have chosen this option."""

    value: str
    count: int


class HistogramBar(msgspec.Struct, frozen=True):
    """So many answers lie from `low` to `high`, which belongs to the next bar, unless this is the last; or are `low`, if `high` is
    the same."""

    low: Value
    high: Value
    count: int


class ValueDistribution(msgspec.Struct, frozen=True, kw_only=True):
    """Of numbers, days or times. Quantiles of numbers lie between two of them where they must, as spreadsheets have it; of days
    and times they are the lower of the two. `mean` and `deviation` (of a sample) are of numbers; `is_whole`: all of them are whole."""

    count: int
    least: Value
    quarter: Value
    median: Value
    three_quarters: Value
    greatest: Value
    mean: float | None = None
    deviation: float | None = None
    is_whole: bool = False
    bars: list[HistogramBar] = []


class QuestionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`answered` counts sessions; `misread_first` those of them that first wrote what could not be read; `misreads` such replies,
    before answers. `median_s` is from the question to the answer. One of the rest says what was answered: `distribution`, or
    `counts` by option or text: of texts the most frequent, of `distinct` different ones."""

    answered: int
    misread_first: int
    misreads: int
    kind: SummaryKind
    median_s: float | None = None
    distribution: ValueDistribution | None = None
    counts: list[ValueCount] = []
    distinct: int = 0


def summarize_question(
    connection: Connection, filters: ResultFilters, column: ResultColumn
) -> QuestionSummary:
    """Summarize the answers of the sessions that the filters let through."""
    mine = _answers_to(filters, column)
    table = tables.answers.c
    answered, misread_first, misreads, numbers, days, times, options = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(case((table.misreads > 0, 1), else_=0)), 0),
            func.coalesce(func.sum(table.misreads), 0),
            func.count(table.value_number),
            func.count(table.value_date),
            func.count(table.value_time),
            func.count(func.coalesce(table.option, case((table.value_yes.is_not(None), "")))),
        ).where(mine, table.choice == 0)
    ).one()
    found: dict[SummaryKind, int] = {"numbers": numbers, "days": days, "times": times, "options": options}
    kind = _KIND_BY_TYPE.get(column.type) or _most_frequent(found)
    if answered and not found.get(kind, answered):
        kind = "texts"
    counts, distinct = _count_values(connection, mine, kind)
    return QuestionSummary(
        answered=answered,
        misread_first=int(misread_first),
        misreads=int(misreads),
        kind=kind,
        median_s=_median_seconds(connection, mine) if answered else None,
        distribution=_read_distribution(connection, mine, kind) if answered else None,
        counts=counts,
        distinct=distinct,
    )


def _most_frequent(found: Mapping[SummaryKind, int]) -> SummaryKind:
    """What most answers to a question are of which no file says the type."""
    return max(found, key=lambda kind: found[kind])


def _answers_to(filters: ResultFilters, column: ResultColumn) -> ColumnElement[bool]:
    """The last answer of each session to the question. Without filters the answers' own column says which survey."""
    table = tables.answers.c
    mine = [table.survey == filters.survey, column.condition()]
    if not column.asks_once:
        mine.append(last_answers())
    if filters != ResultFilters(survey=filters.survey):
        chosen = select(tables.sessions.c.session).where(*session_conditions(filters))
        mine.append(table.session.in_(chosen))
    return and_(*mine)


def _median_seconds(connection: Connection, mine: ColumnElement[bool]) -> float | None:
    table = tables.answers.c
    ranked = (
        select(
            table.seconds,
            func.row_number().over(order_by=table.seconds).label("rank"),
            func.count().over().label("number"),
        )
        .where(mine, table.choice == 0, table.seconds.is_not(None))
        .subquery("ranked")
    ).c
    middle = select(func.avg(ranked.seconds)).where(
        ranked.rank.in_(((ranked.number + 1) // 2, (ranked.number + 2) // 2))
    )
    median = connection.execute(middle).scalar()
    return None if median is None else float(median)


def _count_values(
    connection: Connection, mine: ColumnElement[bool], kind: SummaryKind
) -> tuple[list[ValueCount], int]:
    """How often each option was chosen, or the most frequent texts; and how many different ones there are."""
    if kind not in ("options", "texts"):
        return [], 0
    value = tables.answers.c.value
    each = select(value, func.count().label("number"), func.count().over().label("distinct")).where(
        mine, value.is_not(None)
    )
    rows = each.group_by(value).order_by(func.count().desc(), value)
    found = connection.execute(rows.limit(MOST_TEXTS) if kind == "texts" else rows.limit(_MOST_OPTIONS)).all()
    return [ValueCount(row.value, row.number) for row in found], found[0].distinct if found else 0


_MOST_OPTIONS = 1_000


def _read_distribution(
    connection: Connection, mine: ColumnElement[bool], kind: SummaryKind
) -> ValueDistribution | None:
    table = tables.answers.c
    columns: dict[SummaryKind, Any] = {
        "numbers": table.value_number,
        "days": table.value_date,
        "times": table.value_time,
    }
    if kind not in columns:
        return None
    value = columns[kind]
    counted = (
        select(value.label("value"), func.count().label("number"))
        .where(mine, value.is_not(None))
        .group_by(value)
        .subquery("counted")
    ).c
    rows = select(
        counted.value,
        counted.number,
        func.sum(counted.number).over(),
        func.min(counted.value).over(),
        func.max(counted.value).over(),
        func.count().over(),
    ).order_by(counted.value)
    streamed = connection.execute(rows.execution_options(yield_per=VALUES_A_PAGE))
    return summarize_values(
        (_json_value(value), int(number), int(total), _json_value(least), _json_value(greatest), distinct)
        for value, number, total, least, greatest, distinct in streamed
    )


def _json_value(value: Any) -> Value:
    return value.isoformat() if isinstance(value, date) else value


# Pure


ValueRow = tuple[Value, int, int, Value, Value, int]
"""A value, how often it was given; how many answers there are, the least and greatest of them, and how many different ones."""


def summarize_values(rows: Iterable[ValueRow]) -> ValueDistribution | None:
    """Make a distribution of values in ascending order, each once, as they pass by; None if there is none."""
    waiting = iter(rows)
    first = next(waiting, None)
    if first is None:
        return None
    _, _, total, least, greatest, distinct = first
    gathering = _DistributionBuilder(total, least, greatest, distinct)
    gathering.add_value(first[0], first[1])
    for value, number, *_ in waiting:
        gathering.add_value(value, number)
    return gathering.distribution()


_QUARTERS = (0.25, 0.5, 0.75)


class _DistributionBuilder:
    """Builds a distribution, value by value."""

    def __init__(self, total: int, least: Value, greatest: Value, distinct: int) -> None:
        self._total = total
        self._least, self._greatest = least, greatest
        self._edges = bar_edges(least, greatest, distinct)
        self._bars = [0] * max(0, len(self._edges) - 1)
        self._single_bars: list[HistogramBar] = []
        self._ranks: dict[int, Value] = {
            rank: least
            for share in _QUARTERS
            for rank in (floor(share * (total - 1)), ceil(share * (total - 1)))
        }
        self._waiting = sorted(self._ranks)
        self._passed = 0
        self._mean = self._squares = 0.0
        self._is_whole = True

    def add_value(self, value: Value, number: int) -> None:
        self._passed += number
        while self._waiting and self._waiting[0] < self._passed:
            self._ranks[self._waiting.pop(0)] = value
        if self._edges:
            place = bisect_right(self._edges, value) - 1
            self._bars[max(0, min(place, len(self._bars) - 1))] += number
        else:
            self._single_bars.append(HistogramBar(value, value, number))
        if not isinstance(value, str):  # Welford's way, for a value that comes `number` times
            self._is_whole = self._is_whole and value.is_integer()
            step = value - self._mean
            self._mean += step * number / self._passed
            self._squares += number * step * (value - self._mean)

    def _deviation(self) -> float | None:
        """None of numbers that are too large to be squared, which PHP takes too."""
        # of equal numbers, what is rounded may come to a little less than nothing
        return sqrt(max(0.0, self._squares) / (self._total - 1)) if isfinite(self._squares) else None

    def distribution(self) -> ValueDistribution:
        is_number = not isinstance(self._least, str)
        quarter, median, three_quarters = map(self._quantile, _QUARTERS)
        return ValueDistribution(
            count=self._total,
            least=self._least,
            quarter=quarter,
            median=median,
            three_quarters=three_quarters,
            greatest=self._greatest,
            mean=self._mean if is_number and isfinite(self._mean) else None,
            is_whole=is_number and self._is_whole,
            deviation=self._deviation() if is_number and self._total > 1 else None,
            bars=self._single_bars
            or [
                HistogramBar(low, high, number)
                for low, high, number in zip(self._edges, self._edges[1:], self._bars, strict=False)
            ],
        )

    def _quantile(self, share: float) -> Value:
        place = share * (self._total - 1)
        low, high = self._ranks[floor(place)], self._ranks[ceil(place)]
        if isinstance(low, str) or isinstance(high, str):
            return low
        return low + (high - low) * (place - floor(place))


def bar_edges(least: Value, greatest: Value, distinct: int) -> Sequence[Value]:
    """Where bars begin, and where the last one ends: numbers of a scale, round numbers, days or hours. None if there are so few
    values that each has a bar of its own."""
    if isinstance(least, str) or isinstance(greatest, str):
        return [] if distinct <= MOST_SINGLE_BARS else list(_moment_edges(str(least), str(greatest)))
    is_scale = least.is_integer() and greatest.is_integer() and greatest - least <= _WIDEST_SCALE
    if not is_scale and distinct <= MOST_SINGLE_BARS:
        return []
    if not isfinite(greatest - least):
        return [least, greatest]
    width = 1.0 if is_scale else _round_width((greatest - least) / _WIDEST_SCALE)
    begin = floor(least / width)
    if begin * width > least:  # the quotient is below 0, and too small for a float
        begin -= 1
    count = floor(greatest / width) - begin + 1
    return [round((begin + place) * width, 12) for place in range(count + 1)]


_WIDEST_SCALE = 10
"""From 0 to 10, say: a bar for each number."""


def _round_width(width: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 …"""
    power = 10.0 ** floor(log10(max(width, 1e-300)))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= width * (1 - 1e-9))


def _moment_edges(least: str, greatest: str) -> Iterator[str]:
    """Of days, or of hours."""
    if ":" in least:
        first, last = int(least[:2]), int(greatest[:2])
        yield from (f"{hour:02}:00" for hour in range(first, last + 2))
        return
    first, last = date.fromisoformat(least).toordinal(), date.fromisoformat(greatest).toordinal()
    width = next(
        (days for days in (1, 7, 28, 91, 365, 3_653, 36_525) if (last - first) // days < MOST_BARS), 400_000
    )
    for day in range(first, last + width + 1, width):
        yield date.fromordinal(min(day, date.max.toordinal())).isoformat()
