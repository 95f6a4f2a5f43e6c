"""The answer type `yes_no`: does a reply say yes, or no? English, French and Norwegian, in one table.

The whole reply must be such a word: nothing is made of a sentence that has one in it. A single letter must stand alone,
with a full stop or an exclamation mark at most: consent may hang on a yes, and `:o` and `y??` are none.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import ClassVar, Literal

import msgspec

from engine.answers.answer_type import (
    LONGEST_REPLY,
    AnswerReader,
    AnswerSpec,
    ComparedValue,
    InvalidAnswer,
    Refusal,
    ReportProblem,
    SlotWords,
    Today,
    ValueDescription,
)
from engine.answers.proof_terms import AskedConditions
from engine.answers.translations import Translated
from engine.answers.vocabulary import without_courtesy, word_set
from engine.model.events import Answer
from engine.model.text_normalization import clean_text, fold_text, fold_word, trim_punctuation

YES_WORDS = word_set(
    "yes, oui, ja, true, vrai, sant",
    "y, o, j, k",  # the letter that saves typing
    "yeah, yep, yup, yea, ya, yah, yeap, yess",  # as it is said
    "ouais, ouai, ouep, oue, ui, jada, jepp, japp, jo",
    "ok, okay, okie, okey, okok, ok ok, o k, alright, all right, sure, of course",  # agreed
    "d accord, dac, dacc, bien sur, klart, selvsagt, selvfolgelig",
    "yes please, yes thanks, yes thank you, yes pls, yes sir, ok thanks, oui merci, oui svp",  # politely
    "oui s il vous plait, oui s il te plait, volontiers, ja takk, ja gjerne, gjerne, ja danke",
    "yes i do, yes i am, yes i have, yes it is, yes we do, yes we are, yes i will, yes i can",  # said in full
    "yes yes, oui oui, ja ja, mais oui, bah oui, ben oui, javisst, ja visst",  # with force
)
NO_WORDS = word_set(
    "no, non, nei, nein, false, faux, usant",
    "n",
    "nope, nah, nop, nan, nn, neida, niks",
    "of course not, bien sur que non, selvfolgelig ikke",
    "no thanks, no thank you, no thx, no sir, non merci, nei takk, nein danke",
    "no i do not, no i don t, no i am not, no i m not",
    "no i have not, no i haven t, no it is not, no it isn t",
    "no we don t, no i will not, no i won t, no i can t",
    "no no, non non, nei nei, mais non, bah non, ben non, pas du tout, ikke i det hele tatt",
)
"""Folded, without punctuation. No word of one language means the opposite in another."""

_EMOJI_MEANINGS = {
    "👍": True,
    "👌": True,
    "✅": True,
    "✔": True,
    "☑": True,
    "🆗": True,
    "👎": False,
    "❌": False,
    "✖": False,
}
"""Other emoji say neither, and do not stand in the way of a word."""

_LETTER_ALONE = re.compile(r"(\w)[.!]?|\(([yn])\)")
"""`y` `Y.` `n!`, and `(y)` and `(n)`, which are thumbs up and down."""

_NON_WORD_CHARACTERS = re.compile(r"[\W_]+")
_REPEATED_LETTER = re.compile(r"(\w)\1\1+")

NO_IN_TEXTS = Translated(en="no", fr="non", no="nei")
YES_IN_TEXTS = Translated(en="yes", fr="oui", no="ja")
"""How a text puts the answer."""

_NOT_YES_OR_NO = Refusal(
    "not_yes_or_no",
    Translated(
        en="That is neither yes nor no.",
        fr="Ce n'est ni oui ni non.",
        no="Det er verken ja eller nei.",
    ),
    "it is neither a yes nor a no",
)
_EXPECTED_YES_OR_NO = Translated(
    en="Please answer yes or no.",
    fr="Veuillez répondre oui ou non.",
    no="Svar ja eller nei.",
)


class YesNoAnswer(AnswerSpec, frozen=True, tag="yes_no"):
    """`yes` and `no` are words that are read beside the usual ones of English, French and Norwegian."""

    yes: list[str] = msgspec.field(default_factory=list)
    no: list[str] = msgspec.field(default_factory=list)

    field_descriptions: ClassVar[Mapping[str, str]] = {
        "type": "Yes or no, in English, French or Norwegian.",
        "yes": "Further words for yes.",
        "no": "Further words for no.",
    }

    def compile_reader(self, report: ReportProblem) -> "YesNoReader":
        del report
        return YesNoReader(frozenset(map(fold_word, self.yes)), frozenset(map(fold_word, self.no)))

    def describe_values(self) -> ValueDescription:
        return ValueDescription("yes_no")

    def slot_words(self, language: str) -> SlotWords:
        return SlotWords((NO_IN_TEXTS.say(language), YES_IN_TEXTS.say(language)))

    def default_words(self) -> str:
        return "" if self.yes and self.no else "the words for yes and no"

    def convert_compared(self, written: ComparedValue, step: str, report: ReportProblem) -> ComparedValue:
        if isinstance(written, bool):
            return written
        answer = self.compile_reader(report).read_reply(str(written), lambda: date.min)
        if isinstance(answer, InvalidAnswer):
            report(f"found '{written}', but the answer to '{step}' is yes or no")
            return False
        return bool(answer.value)


class YesNoReader(AnswerReader, frozen=True):
    """`yes` and `no` are further words, folded, beside YES_WORDS and NO_WORDS, which they win over."""

    yes: frozenset[str] = frozenset()
    no: frozenset[str] = frozenset()

    takes_commands: ClassVar[frozenset[Literal["stop", "help"]]] = frozenset(("stop",))
    region_values = "single"

    def read_reply(self, sms: str, today: Today) -> Answer | InvalidAnswer:
        del today
        if len(sms) > LONGEST_REPLY:
            return InvalidAnswer(_NOT_YES_OR_NO.reason)
        text = fold_text(sms)
        word = trim_punctuation(text)
        if len(word) == 1 and word.isalpha() and not _is_letter_alone(sms, word):
            return InvalidAnswer(_NOT_YES_OR_NO.reason)
        if word in self.yes:
            return Answer(sms, True)
        if word in self.no:
            return Answer(sms, False)
        if text.isascii() and (word in YES_WORDS or word in NO_WORDS):
            return Answer(sms, word in YES_WORDS)
        yes = _read_free_spelling(text)
        if yes is None:
            yes = _read_free_spelling(without_courtesy(text))
        return InvalidAnswer(_NOT_YES_OR_NO.reason) if yes is None else Answer(sms, yes)

    def list_refusals(self) -> tuple[Refusal, ...]:
        return (_NOT_YES_OR_NO,)

    def expected_answer(self, language: str) -> str:
        return _EXPECTED_YES_OR_NO.say(language)

    def describe_answers(self) -> str:
        return "yes or no"

    def named_answers(self, compared: Collection[str]) -> list[str]:
        del compared
        return sorted(self.yes | self.no | YES_WORDS | NO_WORDS)

    def put_in_text(self, words: SlotWords) -> tuple[str, ...]:
        return tuple(words.labels)

    def candidate_replies(self, asked: AskedConditions, today: date) -> Iterable[str]:
        del asked, today
        words = (self.no, self.yes, NO_WORDS, YES_WORDS)
        return ("no", "yes", *(word for each in words for word in sorted(each)))

    def reaches_every_region(self, asked: AskedConditions) -> bool:
        """What was written is matched, not what it means."""
        return not asked.asks_of_spelling

    def invalid_replies(self) -> Iterable[str]:
        return ("?", "0")


def _is_letter_alone(sms: str, letter: str) -> bool:
    """Is `sms` nothing but this letter, as it is on the keyboard? `ö` folds to `o`, and says nothing."""
    alone = _LETTER_ALONE.fullmatch(clean_text(sms).lower())
    return alone is not None and letter in alone.groups()


def _read_free_spelling(text: str) -> bool | None:
    """`Yes, please!!`, `yesss`, `yes 👍`, `👍🏽`; None if it says neither, or both."""
    word = _NON_WORD_CHARACTERS.sub(" ", text).strip()
    said = {_EMOJI_MEANINGS[c] for c in text if c in _EMOJI_MEANINGS}
    for spelling in (word, _REPEATED_LETTER.sub(r"\1", word)):
        if len(spelling) == 1:
            return None
        if spelling in YES_WORDS:
            said.add(True)
            break
        if spelling in NO_WORDS:
            said.add(False)
            break
    else:
        if word:
            return None
    return said.pop() if len(said) == 1 else None
