"""Authors' patterns. RE2 runs them in time linear in the SMS, whatever the pattern."""

from typing import Protocol, cast

import re2

from engine.model.errors import ParleyError
from engine.model.text_normalization import fold_text


class CompiledPattern(Protocol):
    @property
    def pattern(self) -> str:
        """As it was compiled."""
        ...

    def fullmatch(self, text: str) -> object | None:
        """Not None if the pattern matches all of `text`."""
        ...


class BadPatternError(ParleyError, ValueError):
    """RE2 refuses the pattern. The message is RE2's."""


def compile_pattern(source: str) -> CompiledPattern:
    """`source` as written. Raises BadPatternError."""
    return _compile_re2(source, case_sensitive=True)


def compile_folded(source: str) -> CompiledPattern:
    """`source` to be matched against folded text: its case does not count, nor do its accents. Raises BadPatternError."""
    return _compile_re2("".join(c if c.isascii() else fold_text(c) for c in source), case_sensitive=False)


def _compile_re2(source: str, *, case_sensitive: bool) -> CompiledPattern:
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = case_sensitive
    try:
        return cast(CompiledPattern, re2.compile(source, options))
    except re2.error as e:
        raise BadPatternError(_error_sentence(e)) from None


def _error_sentence(error: Exception) -> str:
    why = error.args[0] if error.args else "RE2 refuses it"
    return why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
