"""What we say by ourselves, in each language of ours: English, French, Norwegian. Any other language gets English.

Every sentence stays within GSM-7, so that it costs 160 characters a segment: French without circumflexes and c cedilla.
"""

from typing import Literal

import msgspec

OurLanguage = Literal["en", "fr", "no"]

_OUR_LANGUAGES: dict[str, OurLanguage] = {"en": "en", "fr": "fr", "no": "no", "nb": "no", "nn": "no"}


class Translated(msgspec.Struct, frozen=True):
    """A sentence, or a part of one, in each language, with the same places for names and numbers in braces."""

    en: str
    fr: str
    no: str

    def say(self, language: str) -> str:
        """In the language with a tag such as `no`, `nb-NO` or `fr-CA`."""
        return str(getattr(self, our_language(language)))


class TranslatedLimits(msgspec.Struct, frozen=True):
    """What follows a kind of answer: `low` is for a least one, `high` for a greatest one, `both` for a range."""

    low: Translated
    high: Translated
    both: Translated

    def say_limits(self, language: str, low: str | None, high: str | None) -> str:
        """Empty if there is no limit."""
        if low is None and high is None:
            return ""
        limits = self.low if high is None else self.high if low is None else self.both
        return limits.say(language).format(low=low, high=high)


def has_words_for(language: str) -> bool:
    """Is it one of ours?"""
    return _primary_subtag(language) in _OUR_LANGUAGES


def our_language(language: str) -> OurLanguage:
    """The language of ours that somebody is spoken to who wants `language`."""
    return _OUR_LANGUAGES.get(_primary_subtag(language), "en")


def _primary_subtag(language: str) -> str:
    return language.lower().partition("-")[0]
