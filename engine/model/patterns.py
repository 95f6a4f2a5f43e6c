"""Authors' patterns. RE2 runs them in time linear in the SMS, whatever the pattern."""

from typing import Protocol, cast

import re2

from engine.model.text_normalization import fold


class Pattern(Protocol):
    @property
    def pattern(self) -> str:
        """As it was compiled."""
        ...

    def fullmatch(self, text: str) -> object | None:
        """Not None if the pattern matches all of `text`."""
        ...


class BadPattern(ValueError):
    """RE2 refuses the pattern. The message is RE2's."""


def compile_pattern(source: str) -> Pattern:
    """`source` as written. Raises BadPattern."""
    return _compile(source, case_sensitive=True)


def compile_folded(source: str) -> Pattern:
    """`source` to be matched against folded text: its case does not count, nor do its accents. Raises BadPattern."""
    return _compile("".join(c if c.isascii() else fold(c) for c in source), case_sensitive=False)


def _compile(source: str, *, case_sensitive: bool) -> Pattern:
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = case_sensitive
    try:
        return cast(Pattern, re2.compile(source, options))
    except re2.error as e:
        raise BadPattern(_sentence(e)) from None


def _sentence(error: Exception) -> str:
    why = error.args[0] if error.args else "RE2 refuses it"
    return why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
