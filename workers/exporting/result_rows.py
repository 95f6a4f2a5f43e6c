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
from engine.codebook.codebook import Codebook, CodebookQuestion
from engine.codebook.session_columns import ColumnKind, SessionColumn
from workers.exporting.cells import Cell, NumberHider, answer_cell, moment_text, native_cell, number_cell
from workers.exporting.session_stream import StoredSession

AnswerRows = Sequence[Row[Any]]
"""An answer's rows in the archive, one for each chosen option."""


class TableColumn(NamedTuple):
    """A column: what heads it, and what it holds."""

    name: str
    kind: ColumnKind


class RowChoices(msgspec.Struct, frozen=True, kw_only=True):
    """What rows are to hold. `pseudonyms` are None if numbers stand in the results. `language`: options are told by their labels
    in it; empty: by their ids. `raw`: beside each answer's value stands what the person wrote."""

    pseudonyms: Pseudonyms | None = None
    language: str = ""
    raw: bool = False


class ResultTable(ABC):
    """A table of results: its columns, which are those of the codebook, and a session's rows in it."""

    def __init__(self, codebook: Codebook, choices: RowChoices) -> None:
        self._choices = choices
        self._facts = codebook.columns
        names = [each.name for each in self._facts]
        self._person_place = names.index("number" if choices.pseudonyms is None else "pseudonym")
        self._reference_place = names.index("reference")
        self._attachments_place = names.index("attachments")
        self._makers = [_FACT_MAKERS[each.name] for each in self._facts]
        self._variables = codebook.variables
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
        cells[self._person_place] = person
        cells[self._reference_place] = hide(row.reference)
        cells[self._attachments_place] = len(session.attachments)
        cells += [hide(session.variables.get(each.key)) for each in self._variables]
        return cells, hide


def _as_it_is(cell: Cell) -> Cell:
    return cell


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
    "attachments": lambda row: 0,  # noqa: ARG005 - of its records, as `_session_cells` puts it
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

    def native_value(self, answer: AnswerRows) -> Cell:
        """The same, of the type that this very answer has, where the column of all versions has none but texts."""
        if self.question.type_changed or not self.question.versions:
            return native_cell(answer)
        return self.value(answer)

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


LONG_COLUMNS = (
    SessionColumn("step", "text", "the step whose question it answers"),
    SessionColumn("answer", "whole_number", "which of the session's answers, from 1"),
    SessionColumn("choice", "whole_number", "which of several chosen options, from 1"),
    SessionColumn("answered", "moment", "when it came"),
    SessionColumn("type", "text", "the answer type"),
    SessionColumn("raw", "text", "as the person wrote it"),
    SessionColumn("value", "text", "as it was read: an option's id, or its label if they are asked for"),
    SessionColumn("value_number", "number", "the same, if it is a number"),
    SessionColumn("value_date", "date", "the same, if it is a day"),
    SessionColumn("value_time", "time", "the same, if it is a time of day"),
    SessionColumn("value_yes", "yes_no", "the same, if it is yes or no"),
    SessionColumn("option", "text", "the chosen option's id"),
    SessionColumn("option_place", "whole_number", "where people saw it, from 1"),
    SessionColumn("answer_misreads", "whole_number", "replies before it that could not be read"),
    SessionColumn("answer_seconds", "number", "from the question to the answer"),
    SessionColumn(
        "attachment_urls", "text", "where the provider keeps the session's attachments, blanks between them"
    ),
)
"""What the long form has of each answer, and of its session's attachments, behind what every row has of its session."""


class LongTable(ResultTable):
    """One row for each answer, and for each of several chosen options."""

    @property
    def columns(self) -> Sequence[TableColumn]:
        taken = {each.name for each in LONG_COLUMNS}
        session = [
            TableColumn(f"variable.{name}" if name.lower() in taken else name, kind)
            for name, kind in self._session_columns()
        ]
        return [*session, *(TableColumn(each.name, each.kind) for each in LONG_COLUMNS)]

    def rows_of(self, session: StoredSession) -> Iterator[list[Cell]]:
        row, hide = self._session_cells(session)
        urls = " ".join(each.url for each in session.attachments) or None
        for answer in session.answers:
            yield from ([*row, *map(hide, self._answer_cells(each)), urls] for each in answer)
        if not session.answers:
            yield [*row, *[None] * (len(LONG_COLUMNS) - 1), urls]

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


class NestedTable(ResultTable):
    """One object for each session: what is known of it, then `attachment_urls`, `variables` by name, and `answers` by step, each of them the last,
    with those that came before it under `earlier`."""

    @property
    def columns(self) -> Sequence[TableColumn]:
        facts = [TableColumn(each.name, each.kind) for each in self._facts]
        further = ("attachment_urls", "variables", "answers")
        return [*facts, *(TableColumn(each, "text") for each in further)]

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
        yield [*facts, [each.url for each in session.attachments], variables, answers]

    def _answer_object(self, answer: AnswerRows, hide: Callable[[Cell], Cell]) -> dict[str, Cell]:
        first, question = answer[0], self._questions[answer[0].step]
        return {
            "value": hide(question.native_value(answer)),
            "raw": hide(first.raw),
            "type": first.type or question.question.type,
            "answered": None if first.at is None else moment_text(first.at),
            "answer": first.place + 1,
            "misreads": first.misreads,
            "seconds": number_cell(first.seconds, None),
        }
