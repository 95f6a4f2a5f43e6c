"""What is an answer type? A spec, which the author of a survey writes, and a reader, which the spec becomes.

A file of this folder says all about one type: how its spec is written and checked, how an SMS is read, what a person is
told whose SMS is none, how an answer is shown and compared, and what can be proved about it. Everything else asks the
spec or the reader, and knows no type by its name. type_registry.py lists them.
"""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date
from typing import Any, ClassVar, Literal

import msgspec

from engine.answers.proof_terms import AskedConditions, TextWidth
from engine.answers.translations import Translated
from engine.model.events import Answer

InvalidReason = str
"""What is wrong with an SMS that is no answer, for a program. Records keep it."""

Today = Callable[[], date]
"""The day on which the SMS came, where its channel is."""

ReportProblem = Callable[[str], None]
"""Takes a sentence that says what is wrong with what the author wrote."""

ComparedValue = str | int | float | bool

WrittenText = str | dict[str, str]
"""A text, or one per language."""

LONGEST_REPLY = 400
"""Characters of an SMS. Whatever is longer is a text, and nothing else is looked for in it."""


class InvalidAnswer(msgspec.Struct, frozen=True):
    """The SMS is no answer."""

    reason: InvalidReason


class Refusal(msgspec.Struct, frozen=True):
    """A reason for which an SMS is no answer: a sentence for the person who wrote it, and words for the author."""

    reason: InvalidReason
    sentence: Translated
    explained: str


class OptionLine(msgspec.Struct, frozen=True):
    """A line that follows the question: `lead` and the text that the author wrote in `field`."""

    lead: str
    field: str
    label: WrittenText


ValueKind = Literal["text", "number", "whole_number", "yes_no", "option", "options", "date", "time"]
"""What a table of results holds of an answer: `option` is an option's id, `options` are several."""


class NamedValue(msgspec.Struct, frozen=True):
    """One of the values that have a name: an option by its id, or a number of a scale. `exclusive`: no other beside it."""

    value: str
    label: WrittenText
    exclusive: bool = False


class ValueDescription(msgspec.Struct, frozen=True):
    """What values the answers of a question have, for whoever reads results. What does not apply is None or empty."""

    kind: ValueKind
    min: int | float | str | None = None
    max: int | float | str | None = None
    decimals: int | None = None
    pattern: str = ""
    country: str = ""
    named: tuple[NamedValue, ...] = ()


class SlotWords(msgspec.Struct, frozen=True):
    """How a text in one language puts an answer: `labels` by the answer's index (no and yes, if it is a bool), what stands
    before a number's decimals, and the form of a day (engine.model.local_formats), empty if it is none."""

    labels: tuple[str, ...] = ()
    decimal_point: str = "."
    day_form: str = ""


class StructABCMeta(msgspec.StructMeta, ABCMeta):
    """Structs whose subclasses have to write some methods."""


class AnswerSpec(
    msgspec.Struct, metaclass=StructABCMeta, frozen=True, forbid_unknown_fields=True, tag_field="type"
):
    """What an author writes under `answer`. The subclass's tag is the type's name."""

    schema_limits: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By field, what a JSON Schema says of it beyond its Python type."""

    field_descriptions: ClassVar[Mapping[str, str]] = {}
    """What each field means, `type` too, in a sentence for the author."""

    has_several_values: ClassVar[bool] = False
    """Is an answer several options, of which `contains` names some?"""

    @classmethod
    def type_name(cls) -> str:
        """The word that an author writes under `type`."""
        return str(cls.__struct_config__.tag)

    @abstractmethod
    def compile_reader(self, report: ReportProblem) -> "AnswerReader":
        """The reader. Reports whatever makes no sense, and gives some reader all the same."""

    @abstractmethod
    def describe_values(self) -> ValueDescription:
        """What values the answers have."""

    def option_lines(self) -> list[OptionLine]:
        """The lines that follow the question."""
        return []

    def slot_words(self, language: str) -> SlotWords:
        """How a text in `language` puts an answer."""
        del language
        return SlotWords()

    def default_words(self) -> str:
        """What of this type we say in words of ours, as the author wrote none; empty: nothing."""
        return ""

    def check_bound(self, bound: float | str, step: str, report: ReportProblem) -> None:
        """Report it if `at_least`, `at_most`, `above` or `below` cannot compare an answer to `step` with `bound`."""
        del bound
        report(f"the answer to '{step}' is no number")

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        """What the reader gives for `written`, folded if it is a text. Reports what no answer to `step` equals."""
        del step, report
        return written

    @staticmethod
    def bound_preposition(bound: str) -> str:
        """ "on" if a bound of this type is a day, "at" if it is a time; empty if `bound` is none of this type."""
        del bound
        return ""


class AnswerReader(msgspec.Struct, metaclass=StructABCMeta, frozen=True):
    """What a question takes for an answer, ready to be read with."""

    takes_reactions: ClassVar[bool] = False
    """Is a phone's reaction to an SMS a text like any other?"""

    takes_commands: ClassVar[frozenset[Literal["stop", "help"]]] = frozenset()
    """Of which commands the ambiguous words, such as "end" and "info", are answers where they can be read as such: an
    author may have named an option so."""

    region_values: ClassVar[Literal["single", "alike", "various"]] = "various"
    """What the answers have in common for which the same conditions hold, where a text puts them. `single`: each value
    is looked at by itself; `alike`: they cost the same."""

    @abstractmethod
    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        """The answer, or why there is none. Raises for no SMS, and takes less than a millisecond for any."""

    @abstractmethod
    def list_refusals(self) -> tuple[Refusal, ...]:
        """Every reason for which an SMS may be refused, but for a reaction, of which nobody is told."""

    @abstractmethod
    def expected_answer(self, language: str) -> str:
        """A sentence that says which answers are taken."""

    def expected_after(self, reason: InvalidReason, language: str) -> str:
        """A sentence that says what to answer instead, after one that says what is wrong."""
        del reason
        return self.expected_answer(language)

    @abstractmethod
    def describe_answers(self) -> str:
        """The answers that are taken, in an author's words: "number 80-115" with an en dash, "yes or no", "1 of 3"."""

    def named_answers(self, compared: Collection[str]) -> list[str]:
        """Words, folded, that the author expects for an answer. `compared` are the texts that conditions name."""
        del compared
        return []

    # -- for the proofs

    @abstractmethod
    def put_in_text(self, words: SlotWords) -> TextWidth | tuple[str, ...]:
        """What an answer can become in a text: as wide a text as this, or one of these, a text at least as dear as any
        of the others among them. `words` are the slot's."""

    @abstractmethod
    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        """SMS that between them are read into every region that the conditions make, as far as can be known. The
        dearest of a kind come first."""

    @abstractmethod
    def reaches_every_region(self, asked: AskedConditions) -> bool:
        """Do the candidates reach every combination of conditions that any answer makes true?"""

    @abstractmethod
    def invalid_replies(self) -> Iterable[str]:
        """SMS that are no answers, for every reason that there may be."""
