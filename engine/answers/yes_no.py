"""Does a reply say yes, or no? English, French and Norwegian, in one table.

The whole reply must be such a word: nothing is made of a sentence that has one in it.
"""

import re

from engine.answers.readers import LONGEST_REPLY, Unread, YesNoReader
from engine.answers.vocabulary import words
from engine.model.events import Answer
from engine.model.text_normalization import fold, trim_punctuation

YES = words(
    "yes, oui, ja, true, vrai, sant",
    "y, o, j, k",  # the letter that saves typing
    "yeah, yep, yup, yea, yess, ouais, ouai, ouep, oue, ui, jada, jepp, japp, jo",  # as it is said
    "ok, okay, o k, sure, of course, d accord, dac, dacc, bien sur, klart, selvsagt, selvfolgelig",  # agreed
    "yes please, yes thanks, yes thank you, yes pls, yes sir, ok thanks, oui merci, oui svp",  # politely
    "oui s il vous plait, oui s il te plait, volontiers, ja takk, ja gjerne, gjerne, ja danke",
    "yes i do, yes i am, yes i have, yes it is, yes we do, yes we are, yes i will, yes i can",  # said in full
    "yes yes, oui oui, ja ja, mais oui, bah oui, ben oui, javisst, ja visst",  # with force
)
NO = words(
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

_THUMBS = {
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

_MARKS = re.compile(r"[\W_]+")
_STRETCHED = re.compile(r"(\w)\1\1+")


def read_yes_no(reader: YesNoReader, sms: str) -> Answer | Unread:
    if len(sms) > LONGEST_REPLY:
        return Unread("not_yes_or_no")
    text = fold(sms)
    word = trim_punctuation(text)
    if word in reader.yes:
        return Answer(sms, True)
    if word in reader.no:
        return Answer(sms, False)
    if text.isascii() and (word in YES or word in NO):
        return Answer(sms, word in YES)
    yes = _spelled_freely(text)
    return Unread("not_yes_or_no") if yes is None else Answer(sms, yes)


def _spelled_freely(text: str) -> bool | None:
    """`Yes, please!!`, `yesss`, `yes 👍`, `👍🏽`; None if it says neither, or both."""
    word = _MARKS.sub(" ", text).strip()
    said = {_THUMBS[c] for c in text if c in _THUMBS}
    for spelling in (word, _STRETCHED.sub(r"\1", word)):
        if spelling in YES:
            said.add(True)
            break
        if spelling in NO:
            said.add(False)
            break
    else:
        if word:
            return None
    return said.pop() if len(said) == 1 else None
