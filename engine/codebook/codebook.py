"""What does a table of results hold? A codebook: each column, the question behind it, and what its values mean.

It is made of all versions of a survey, as their results stand in one table. What the versions have in common stands once,
by the newest one that has it; what differs is told. A question is known by the id of its step.

Three names lead to a column: `step` or `key` is the survey's; `name` heads the column in a spreadsheet, and is the survey's
own unless another column has it; `column` is safe in statistics programs, which take 32 characters at most (Stata), letters
and digits of ASCII, and no difference between capitals and small letters (SPSS).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from engine.answers.answer_type import ValueDescription, ValueKind, WrittenText
from engine.codebook.column_names import ColumnNames
from engine.codebook.session_columns import SESSION_COLUMNS, ColumnKind
from engine.model.events import SessionEnding
from engine.surveys.program import Survey
from engine.surveys.variables import BUILTIN_VARIABLES, PUZZEL_KEYS
from engine.surveys.written_questions import text_by_language, written_questions, written_variables


class CodebookVersion(msgspec.Struct, frozen=True):
    """A version of the survey: the hash of its file, the file's name, and its languages."""

    version: str
    file: str
    languages: Sequence[str]


class CodebookColumn(msgspec.Struct, frozen=True):
    """A column that every survey's results have."""

    name: str
    column: str
    kind: ColumnKind
    meaning: str


class CodebookOption(msgspec.Struct, frozen=True):
    """A value that has a name. `id` is what results hold; `place` is where people saw it, from 1 (of a number of a scale, the
    number); `name` heads its own column of 0 and 1, if several may be chosen. `versions` are those that have it. `exclusive`: it is
    chosen alone."""

    id: str
    place: int
    labels: Mapping[str, str]
    name: str
    column: str
    versions: Sequence[str]
    exclusive: bool = False


class CodebookQuestion(msgspec.Struct, frozen=True):
    """A question. `type` is the answer type in the newest version that asks it; `kind` is what its column holds, "text" where
    versions differ in what they store; `types` has the type of each version if it changed. What does not apply is None or
    empty, and so is all of a question that was answered and no version explains. `country` is whose a phone number without a
    country code is."""

    step: str
    name: str
    column: str
    texts: Mapping[str, str] = {}
    type: str = ""
    kind: ValueKind = "text"
    min: int | float | str | None = None
    max: int | float | str | None = None
    decimals: int | None = None
    pattern: str = ""
    country: str = ""
    options: Sequence[CodebookOption] = ()
    versions: Sequence[str] = ()
    type_changed: bool = False
    types: Mapping[str, str] = {}


VariableSource = Literal["survey", "puzzel", "parley", "sessions"]
"""Who names a variable: the survey's file, Puzzel's recommendation, Parley, or whoever invited people with it."""


class CodebookVariable(msgspec.Struct, frozen=True):
    """A session variable, by its `key` in lower case. `longest` is how many characters of it texts show; 0: none do."""

    key: str
    name: str
    column: str
    longest: int
    source: VariableSource


class CodebookState(msgspec.Struct, frozen=True):
    """A value of the column `state`."""

    state: str
    meaning: str


class Codebook(msgspec.Struct, frozen=True):
    """Everything about the columns of a survey's results. `versions` are oldest first; `languages` are the newest's, then
    those of earlier versions."""

    survey: str
    title: str
    languages: Sequence[str]
    versions: Sequence[CodebookVersion]
    columns: Sequence[CodebookColumn]
    variables: Sequence[CodebookVariable]
    questions: Sequence[CodebookQuestion]
    states: Sequence[CodebookState]


ENDING_MEANINGS: Mapping[SessionEnding, str] = {
    "completed": "it came to its end",
    "expired": "it was open for longer than the survey's `expires`, or the invitation's time",
    "idle": "the person was silent for longer than the survey's `idle`",
    "gave_up": "the last of the `attempts` at a question was no answer either, and no step was to follow",
    "stopped": "the person opted out",
    "restarted": "the person began anew with a START",
    "exhausted": "it had sent as many SMS as the survey's `most_sms` allows",
    "cancelled": "whoever invited the person took it back",
    "unreachable": "the provider says that the number gets no SMS",
}

STATE_MEANINGS: Mapping[str, str] = {
    "open": "it goes on",
    **{str(state): meaning for state, meaning in ENDING_MEANINGS.items()},
    "refused": "an invitation opened nothing; `why` says for what reason",
}
"""What a session's state says, for people."""


def build_codebook(
    surveys: Sequence[Survey],
    further_variables: Iterable[str] = (),
    further_steps: Iterable[str] = (),
    name: str = "",
) -> Codebook:
    """The codebook of a survey, of all its versions, oldest first. `further_variables` are names of session variables that
    sessions had, `further_steps` steps that were answered, and no version knows; `name` is the survey's if there is no
    version at all."""
    return _CodebookBuilder(surveys, name).build(further_variables, further_steps)


class _CodebookBuilder:
    """Merges the versions, and allots the columns' names: a session's first, then questions, then variables."""

    def __init__(self, surveys: Sequence[Survey], name: str) -> None:
        self._surveys = surveys
        self._survey, self._title = (surveys[-1].name, surveys[-1].title) if surveys else (name, "")
        self._languages = list(dict.fromkeys(tag for each in reversed(surveys) for tag in each.languages))
        self._written = {
            each.version: {question.step: question for question in written_questions(each)}
            for each in surveys
        }
        self._names = ColumnNames()

    def build(self, further_variables: Iterable[str], further_steps: Iterable[str]) -> Codebook:
        columns = [
            CodebookColumn(*self._names.allot(name, "session"), kind, meaning)
            for name, kind, meaning in SESSION_COLUMNS
        ]
        steps = self._steps_in_order()
        questions = [self._merge_question(step) for step in steps]
        questions += [self._unexplained_question(step) for step in further_steps if step not in steps]
        return Codebook(
            survey=self._survey,
            title=self._title,
            languages=self._languages,
            versions=[
                CodebookVersion(each.version, each.file, list(each.languages)) for each in self._surveys
            ],
            columns=columns,
            variables=self._list_variables(further_variables),
            questions=questions,
            states=[CodebookState(state, meaning) for state, meaning in STATE_MEANINGS.items()],
        )

    def _steps_in_order(self) -> list[str]:
        """The questions of all versions: the newest's in its order, and each that is gone after the one that it followed."""
        steps: list[str] = []
        for survey in reversed(self._surveys):
            place = 0
            for step in self._written[survey.version]:
                if step not in steps:
                    steps.insert(place, step)
                place = steps.index(step) + 1
        return steps

    def _merge_question(self, step: str) -> CodebookQuestion:
        asked = {
            version: questions[step] for version, questions in self._written.items() if step in questions
        }
        newest = list(asked.values())[-1]
        described = {version: each.answer.describe_values() for version, each in asked.items()}
        types = {version: str(each.answer.__struct_config__.tag) for version, each in asked.items()}
        values = newest.answer.describe_values()
        name, column = self._names.allot(step, "answer")
        return CodebookQuestion(
            step=step,
            name=name,
            column=column,
            texts=newest.texts,
            type=types[list(asked)[-1]],
            kind=merge_kinds([each.kind for each in described.values()]),
            min=values.min,
            max=values.max,
            decimals=values.decimals,
            pattern=values.pattern,
            country=values.country,
            options=self._merge_options(name, described),
            versions=list(asked),
            type_changed=len(set(types.values())) > 1,
            types=types if len(set(types.values())) > 1 else {},
        )

    def _unexplained_question(self, step: str) -> CodebookQuestion:
        name, column = self._names.allot(step, "answer")
        return CodebookQuestion(step=step, name=name, column=column)

    def _merge_options(
        self, question: str, described: Mapping[str, ValueDescription]
    ) -> list[CodebookOption]:
        """The named values of all versions, the newest's first."""
        found: dict[str, tuple[int, WrittenText, bool]] = {}
        versions: dict[str, list[str]] = {}
        for version, values in reversed([*described.items()]):
            for place, named in enumerate(values.named, 1):
                shown = int(named.value) if values.kind == "whole_number" else place
                found.setdefault(named.value, (shown, named.label, named.exclusive))
                versions.setdefault(named.value, []).insert(0, version)
        return [
            CodebookOption(
                value,
                place,
                text_by_language(label, self._languages),
                *self._names.allot(f"{question}/{value}", "option"),
                versions[value],
                exclusive,
            )
            for value, (place, label, exclusive) in found.items()
        ]

    def _list_variables(self, further: Iterable[str]) -> list[CodebookVariable]:
        """Those that the files declare or use, then those that need no declaration, then `further` ones, each once."""
        longest: dict[str, int] = {}
        for survey in self._surveys:
            longest |= survey.variables
        spelled = {name.lower(): name for each in self._surveys for name in written_variables(each)}
        puzzel = {key.lower(): key for key in PUZZEL_KEYS}
        sources: dict[str, tuple[str, VariableSource]] = {
            key: (spelled.get(key, key), "survey") for key in [*spelled, *longest] if key not in puzzel
        }
        sources |= {key: (name, "puzzel") for key, name in puzzel.items()}
        sources |= {place[1:]: (place[1:], "parley") for place in BUILTIN_VARIABLES}
        for name in further:
            sources.setdefault(name.lower(), (name, "sessions"))
        return [
            CodebookVariable(key, *self._names.allot(name, "variable"), longest.get(key, 0), source)
            for key, (name, source) in sources.items()
        ]


def merge_kinds(kinds: Iterable[ValueKind]) -> ValueKind:
    """What a column holds in which versions of a question store values of these kinds."""
    different = set(kinds)
    if different == {"number", "whole_number"}:
        return "number"
    return different.pop() if len(different) == 1 else "text"
