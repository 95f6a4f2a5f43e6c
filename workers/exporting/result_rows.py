"""How does a session become rows of a table? Wide: one row for each session, its last answers in columns. Long: one row for
each answer, and for each of several chosen options; a session without answers has one row all the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row

from config.archive.pseudonyms import Pseudonyms
from engine.answers.yes_no import NO_IN_TEXTS, YES_IN_TEXTS
from engine.surveys.codebook import Codebook, CodebookQuestion
from engine.surveys.session_columns import SESSION_COLUMNS, ColumnKind
from workers.exporting.cells import Cell, NumberHider, answer_cell, moment_text, number_cell
from workers.exporting.session_stream import StoredSession

AnswerRows = Sequence[Row[Any]]
"""An answer's rows in the archive, one for each chosen option."""


class TableColumn(NamedTuple):
    """A column: what heads it, and what it holds."""

    name: str
    kind: ColumnKind


class RowChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What rows are to hold. `pseudonyms` are None if numbers stand in the results. `language`: options are told by their labels
    in it; empty: by their ids. `raw`: beside each answer's value stands what the person wrote. `variables` are the keys of
    those that have a column."""

    pseudonyms: Pseudonyms | None = None
    language: str = ""
    raw: bool = False
    variables: frozenset[str] = frozenset()


class ResultTable(ABC):
    """A table of results: its columns, and a session's rows in it."""

    def __init__(self, codebook: Codebook, choices: RowChoices) -> None:
        self._choices = choices
        unused = "number" if choices.pseudonyms is not None else "pseudonym"
        self._facts = [each for each in SESSION_COLUMNS if each.name != unused]
        self._makers = [_FACT_MAKERS[each.name] for each in self._facts]
        self._variables = [each for each in codebook.variables if each.key in choices.variables]
        self._questions = {each.step: QuestionCells(each, choices.language) for each in codebook.questions}

    @property
    @abstractmethod
    def columns(self) -> Sequence[TableColumn]:
        """In the order of a row's cells; each name is there once."""

    @abstractmethod
    def rows_of(self, session: StoredSession) -> Iterator[list[Cell]]:
        """The session's rows."""

    def _session_columns(self) -> list[TableColumn]:
        variables = [TableColumn(each.name, "text") for each in self._variables]
        return [*(TableColumn(each.name, each.kind) for each in self._facts), *variables]

    def _session_cells(self, session: StoredSession) -> tuple[list[Cell], Callable[[Cell], Cell]]:
        """What every row of the session begins with, and what hides the person's number in the cells after it."""
        row = session.row
        person, hide = row.sender, _as_it_is
        if self._choices.pseudonyms is not None:
            person = self._choices.pseudonyms.of(row.sender)
            hide = NumberHider(row.sender, person).hide
        cells = [make(row) for make in self._makers]
        cells[_PERSON_PLACE] = None
        cells += [session.variables.get(each.key) for each in self._variables]
        cells = list(map(hide, cells))
        cells[_PERSON_PLACE] = person
        return cells, hide


def _as_it_is(cell: Cell) -> Cell:
    return cell


_PERSON_PLACE = 1

_FACT_MAKERS: Mapping[str, Callable[[Row[Any]], Cell]] = {
    "session": lambda row: row.session,
    "pseudonym": lambda row: row.sender,
    "number": lambda row: row.sender,
    "channel": lambda row: row.channel,
    "originator": lambda row: row.originator,
    "survey": lambda row: row.survey,
    "version": lambda row: row.version,
    "language": lambda row: row.language,
    "state": lambda row: row.state,
    "why": lambda row: row.why,
    "opened": lambda row: row.opened_at,
    "ended": lambda row: row.ended_at,
    "invited": lambda row: row.invited,
    "reference": lambda row: row.reference,
    "campaign": lambda row: row.campaign,
    "asked": lambda row: row.asked_at,
    "not_before": lambda row: row.not_before,
    "last_step": lambda row: row.step,
    "misreads": lambda row: row.misreads,
    "received": lambda row: row.received,
    "sent": lambda row: row.sent,
    "segments": lambda row: row.segments,
    "cost": lambda row: row.cost_micros / 1e6 if row.cost_micros else None,
    "currency": lambda row: row.currency,
    "seconds": lambda row: number_cell(_session_seconds(row), None),
}
"""By the column's name, the cell of a session."""


def _session_seconds(row: Row[Any]) -> float | None:
    if row.opened_at is None or row.ended_at is None:
        return None
    return float(row.ended_at - row.opened_at) / 1000


class QuestionCells:
    """The cells of one question's answers, as the codebook says."""

    def __init__(self, question: CodebookQuestion, language: str) -> None:
        self.question = question
        self._labels = {
            each.id: each.labels.get(language, each.id) if language else each.id for each in question.options
        }
        self._yes_no = (NO_IN_TEXTS.say(language), YES_IN_TEXTS.say(language)) if language else None
        self.column = TableColumn(
            question.name, "text" if language and question.kind == "yes_no" else question.kind
        )
        self.split_options = question.options if question.kind == "options" else ()

    def value(self, answer: AnswerRows) -> Cell:
        """Its value; labels in place of ids, if a language is asked for."""
        cell = answer_cell(self.question.kind, answer)
        if isinstance(cell, bool) and self._yes_no is not None:
            return self._yes_no[cell]
        if isinstance(cell, list):
            return [self._labels.get(each, each) for each in cell]
        if self.question.kind == "option" and isinstance(cell, str):
            return self._labels.get(cell, cell)
        return cell

    def split(self, answer: AnswerRows) -> list[Cell]:
        """1 and 0, whether each of several options was chosen."""
        chosen = {row.option for row in answer}
        return [int(option.id in chosen) for option in self.split_options]


class WideTable(ResultTable):
    """One row for each session. Of several answers to a question the last one stands there."""

    @property
    def columns(self) -> Sequence[TableColumn]:
        columns = self._session_columns()
        for cells in self._questions.values():
            columns.append(cells.column)
            columns += [TableColumn(f"{cells.column.name}.raw", "text")] if self._choices.raw else []
            columns += [TableColumn(option.name, "whole_number") for option in cells.split_options]
        return columns

    def rows_of(self, session: StoredSession) -> Iterator[list[Cell]]:
        row, hide = self._session_cells(session)
        last = {answer[0].step: answer for answer in session.answers}
        for step, cells in self._questions.items():
            answer = last.get(step)
            if answer is None:
                row += [None] * (1 + self._choices.raw + len(cells.split_options))
                continue
            row.append(hide(cells.value(answer)))
            row += [hide(answer[0].raw)] if self._choices.raw else []
            row += cells.split(answer)
        yield row


class LongTable(ResultTable):
    """One row for each answer, and for each of several chosen options."""

    @property
    def columns(self) -> Sequence[TableColumn]:
        taken = {name.lower() for name, _ in _LONG_COLUMNS}
        session = [
            TableColumn(f"variable.{name}" if name.lower() in taken else name, kind)
            for name, kind in self._session_columns()
        ]
        return [*session, *_LONG_COLUMNS]

    def rows_of(self, session: StoredSession) -> Iterator[list[Cell]]:
        row, hide = self._session_cells(session)
        for answer in session.answers:
            yield from ([*row, *map(hide, self._answer_cells(each))] for each in answer)
        if not session.answers:
            yield [*row, *[None] * len(_LONG_COLUMNS)]

    def _answer_cells(self, answer: Row[Any]) -> list[Cell]:
        question = self._questions.get(answer.step)
        return [
            answer.step,
            answer.place + 1,
            answer.choice + 1,
            answer.at,
            answer.type or (question.question.type if question is not None else ""),
            answer.raw,
            self._value_text(answer),
            number_cell(answer.value_number, None),
            answer.value_date,
            answer.value_time,
            answer.value_yes,
            answer.option,
            None if answer.option_index is None else answer.option_index + 1,
            answer.misreads,
            number_cell(answer.seconds, None),
        ]

    def _value_text(self, answer: Row[Any]) -> Cell:
        question = self._questions.get(answer.step)
        value = answer.value if question is None else question.value([answer])
        if isinstance(value, list):
            return str(value[0])
        return value if isinstance(value, str) else answer.value


_LONG_COLUMNS = (
    TableColumn("step", "text"),
    TableColumn("answer", "whole_number"),  # which of the session's, from 1
    TableColumn("choice", "whole_number"),  # which of several chosen options, from 1
    TableColumn("answered", "moment"),
    TableColumn("type", "text"),
    TableColumn("raw", "text"),
    TableColumn("value", "text"),
    TableColumn("value_number", "number"),
    TableColumn("value_date", "date"),
    TableColumn("value_time", "time"),
    TableColumn("value_yes", "yes_no"),
    TableColumn("option", "text"),
    TableColumn("option_place", "whole_number"),  # where people saw it, from 1
    TableColumn("answer_misreads", "whole_number"),
    TableColumn("answer_seconds", "number"),
)


class NestedTable(ResultTable):
    """One object for each session: what is known of it, then `variables` by name, and `answers` by step, each of them the last,
    with those that came before it under `earlier`."""

    @property
    def columns(self) -> Sequence[TableColumn]:
        facts = [TableColumn(each.name, each.kind) for each in self._facts]
        return [*facts, TableColumn("variables", "text"), TableColumn("answers", "text")]

    def rows_of(self, session: StoredSession) -> Iterator[list[Cell]]:
        cells, hide = self._session_cells(session)
        facts, values = cells[: len(self._facts)], cells[len(self._facts) :]
        variables = {
            each.name: value for each, value in zip(self._variables, values, strict=True) if value is not None
        }
        answers: dict[str, Any] = {}
        for answer in session.answers:
            step = answer[0].step
            earlier = answers.pop(step, None)
            answers[step] = self._answer_object(answer, hide)
            if earlier is not None:
                answers[step]["earlier"] = [*earlier.pop("earlier", ()), earlier]
        yield [*facts, variables, answers]

    def _answer_object(self, answer: AnswerRows, hide: Callable[[Cell], Cell]) -> dict[str, Cell]:
        first, question = answer[0], self._questions[answer[0].step]
        return {
            "value": hide(question.value(answer)),
            "raw": hide(first.raw),
            "type": first.type or question.question.type,
            "answered": None if first.at is None else moment_text(first.at),
            "answer": first.place + 1,
            "misreads": first.misreads,
            "seconds": number_cell(first.seconds, None),
        }
