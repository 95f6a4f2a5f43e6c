"""Does a reply say yes, or no? English, French and Norwegian, in one table.

The whole reply must be such a word: nothing is made of a sentence that has one in it.
"""

import re

from engine.answers.readers import LONGEST_REPLY, InvalidAnswer, YesNoReader
from engine.answers.vocabulary import word_set
from engine.model.events import Answer
from engine.model.text_normalization import fold_text, trim_punctuation

YES_WORDS = word_set(
    "yes, oui, ja, true, vrai, sant",
    "y, o, j, k",  # the letter that saves typing
    "yeah, yep, yup, yea, yess, ouais, ouai, ouep, oue, ui, jada, jepp, japp, jo",  # as it is said
    "ok, okay, o k, sure, of course, d accord, dac, dacc, bien sur, klart, selvsagt, selvfolgelig",  # agreed
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
    "no i do not, no i don t, no i am not, no i m not, no i have not, no i haven t, no it is not, no it isn t",
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

_NON_WORD_CHARACTERS = re.compile(r"[\W_]+")
_REPEATED_LETTER = re.compile(r"(\w)\1\1+")


def read_yes_no(reader: YesNoReader, sms: str) -> Answer | InvalidAnswer:
    if len(sms) > LONGEST_REPLY:
        return InvalidAnswer("not_yes_or_no")
    text = fold_text(sms)
    word = trim_punctuation(text)
    if word in reader.yes:
        return Answer(sms, True)
    if word in reader.no:
        return Answer(sms, False)
    if text.isascii() and (word in YES_WORDS or word in NO_WORDS):
        return Answer(sms, word in YES_WORDS)
    yes = _read_free_spelling(text)
    return InvalidAnswer("not_yes_or_no") if yes is None else Answer(sms, yes)


def _read_free_spelling(text: str) -> bool | None:
    """`Yes, please!!`, `yesss`, `yes 👍`, `👍🏽`; None if it says neither, or both."""
    word = _NON_WORD_CHARACTERS.sub(" ", text).strip()
    said = {_EMOJI_MEANINGS[c] for c in text if c in _EMOJI_MEANINGS}
    for spelling in (word, _REPEATED_LETTER.sub(r"\1", word)):
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
