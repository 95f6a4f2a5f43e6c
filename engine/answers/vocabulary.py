"""Tables of words that people write, folded, and the numbers that they write out."""


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
