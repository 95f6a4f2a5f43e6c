"""Tables of words that people write, folded, and the numbers that they write out."""

import re


def word_set(*groups: str) -> frozenset[str]:
    """Return the words of all `groups`, each a list separated by commas."""
    return frozenset(word.strip() for group in groups for word in group.split(","))


NUMBER_WORDS: dict[str, int] = {
    word: number
    for number, listed in enumerate(
        (
            "zero, null",
            "one, un, une, en, ein, ett",
            "two, deux, to",
            "three, trois, tre",
            "four, quatre, fire",
            "five, cinq, fem",
            "six, seks",
            "seven, sept, sju, syv",
            "eight, huit, atte",
            "nine, neuf, ni",
            "ten, dix, ti, 🔟",
        )
    )
    for word in word_set(listed)
}
"""English, French, Norwegian. No word of one language is another number in another."""

UNAMBIGUOUS_NUMBER_WORDS = {
    word: number for word, number in NUMBER_WORDS.items() if word not in ("en", "to", "ni", "fire")
}
"""Those that are no other word in another of the languages: `en` is one in Norwegian, and `in` in French."""

MONTH_NUMBERS: dict[str, int] = {
    word: number
    for number, listed in enumerate(
        (
            "january, jan, janvier, janv, januar",
            "february, feb, fevrier, fevr, fev, februar, febr",
            "march, mar, mars",
            "april, apr, avril, avr",
            "may, mai",
            "june, jun, juin, juni",
            "july, jul, juillet, juil, juli",
            "august, aug, aout, aou",
            "september, sep, sept, septembre",
            "october, oct, octobre, oktober, okt",
            "november, nov, novembre",
            "december, dec, decembre, desember, des",
        ),
        1,
    )
    for word in word_set(listed)
}
"""Folded. No word of one language is another month in another."""

_COURTESIES = (
    *(
        "please",
        "pls",
        "plz",
        "thank you",
        "thanks",
        "thankyou",
        "thx",
        "svp",
        "stp",
        "s'il vous plait",
        "s'il te plait",
    ),
    *("s il vous plait", "s il te plait", "merci", "bitte", "danke", "takk", "vennligst"),
)
_MOST_COURTESIES = 4


def without_courtesy(text: str) -> str:
    """Return folded text without "please" and "thanks" before and after it; unchanged if there is nothing else."""
    bare = text
    for _ in range(_MOST_COURTESIES):
        bare = bare.strip(" ,.!")
        for each in _COURTESIES:
            if bare.startswith(each) and not bare[len(each) :][:1].isalnum():
                bare = bare[len(each) :]
                break
            if bare.endswith(each) and not bare[: -len(each)][-1:].isalnum():
                bare = bare[: -len(each)]
                break
        else:
            break
    return bare.strip(" ,.!") or text


_EMOTICON = re.compile(
    r"(?<![\w.,(])(?:"
    r">?[:;=][-'o^~]?(?:3+|0)"  # :3 :-3 =3 >:3 :0 =0
    r"|<[/\\]?3+"  # <3 </3 <33
    r"|8[-'o^~]?[)(|\]dp]"  # 8) 8-) 8d
    r"|[03][:;=][-'o^~]?[)(\]dpo]"  # 0:) 3:)
    r")(?![\w.,]\w|\w)"
)


def has_emoticon(text: str) -> bool:
    """Does folded text hold a face or a heart with a digit in it, which is no number? `98)`, `(8)` and `temp:3` do not."""
    return _EMOTICON.search(text) is not None
