"""Which columns have the results of a survey? One for each question, all versions merged.

A step that several versions have is one question as long as its answer type stays the same; where it changed, each type is a
question of its own, and its heading says which: `pain (scale)`, `pain (number)`. What 0.1.0 recorded has no type: it belongs to
the question that the session's version asked.
"""

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, or_, select

from config.archive import tables
from engine.codebook.question_wording import QuestionWording, read_question_wordings
from engine.surveys.program import QuestionStep, Survey, successor_indexes
from engine.surveys.step_graph import reachable_steps


class ResultColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `versions` are those that ask it with this type; `is_only`: the step never had another. Its `wording` is that
    of the newest of them. `asks_once`: no way leads from it back to it, so that no session has two answers to it."""

    step: str
    type: str
    is_only: bool = True
    versions: tuple[str, ...] = ()
    asks_once: bool = False
    wording: QuestionWording = QuestionWording({})

    @property
    def heading(self) -> str:
        return self.step if self.is_only else f"{self.step} ({self.type or 'unknown type'})"

    def condition(self) -> ColumnElement[bool]:
        """The condition on `answers` that they are to this question."""
        table = tables.answers.c
        mine = table.step == self.step
        if self.is_only:
            return mine
        untyped = table.type == ""
        if not self.type:
            return and_(mine, untyped)
        return and_(mine, or_(table.type == self.type, and_(untyped, table.version.in_(self.versions))))

    def holds(self, step: str, kind: str, version: str) -> bool:
        """Is an answer to `step` of this type, given in a session of this version, one to this question? As `condition` has it."""
        if self.is_only or step != self.step:
            return step == self.step
        return kind == self.type or (kind == "" and version in self.versions)

    def option_label(self, option: str, language: str) -> str:
        """How the survey's file calls an option in `language`; its id if it does not say."""
        return self.wording.labels.get(language, {}).get(option, option)

    def question_text(self, language: str) -> str:
        """The question in `language`, or else in the survey's first; empty if no file is known."""
        return self.wording.texts.get(language) or next(iter(self.wording.texts.values()), "")


def find_columns(connection: Connection, survey: str, versions: Sequence[Survey]) -> list[ResultColumn]:
    """The questions of these versions, newest first, and of answers that none of them explains."""
    asked: dict[tuple[str, str], list[Survey]] = {}
    for version in versions:
        for step in version.steps:
            if isinstance(step, QuestionStep):
                asked.setdefault((step.id, step.answer_type), []).append(version)
    unexplained = _unexplained_questions(connection, survey, {step for step, _ in asked})
    steps = [step for step, _ in (*asked, *unexplained)]
    wordings = {version.version: read_question_wordings(version) for version in versions}
    return [
        *(
            ResultColumn(
                step=step,
                type=kind,
                is_only=steps.count(step) == 1,
                versions=tuple(each.version for each in found),
                asks_once=not any(can_ask_again(version, step) for version in found),
                wording=wordings[found[0].version][step],
            )
            for (step, kind), found in asked.items()
        ),
        *(ResultColumn(step=step, type=kind, is_only=steps.count(step) == 1) for step, kind in unexplained),
    ]


def can_ask_again(survey: Survey, identity: str) -> bool:
    """Does a way lead from the step back to it?"""
    place, step = next((place, step) for place, step in enumerate(survey.steps) if step.id == identity)
    return place in reachable_steps(survey.steps, successor_indexes(step))


def _unexplained_questions(
    connection: Connection, survey: str, known: Collection[str]
) -> list[tuple[str, str]]:
    """Steps, and types, that were answered, though no file that the archive has asks them. Steps are found by the index on
    (survey, step)."""
    table = tables.answers.c
    found: list[tuple[str, str]] = []
    following = select(table.step).where(table.survey == survey).order_by(table.step).limit(1)
    last = ""
    while (row := connection.execute(following.where(table.step > last)).first()) is not None:
        last = row.step
        if last not in known:
            kinds = select(table.type).where(table.survey == survey, table.step == last).distinct()
            found += [(last, kind) for kind in sorted(connection.execute(kinds).scalars())]
    return found
