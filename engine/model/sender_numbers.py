"""Who sent it? A phone number as lanes know it, or nobody that can be answered.

Lanes are named by E.164 with its plus. Nothing is asked of a number but that it can be dialled from anywhere: short
codes and the numbers of documentation pass. Names ("INFO"), hidden senders and national numbers do not.
"""

import re

_E164_NUMBER = re.compile(r"\+[1-9][0-9]{2,14}")
_TRUNK_PREFIX = re.compile(r"^(\+|00)([0-9 .-]+)\(0\)")
_PUNCTUATION = re.compile(r"[\s().\-/\u00ad\u200b-\u200e\u2010-\u2015\u2060\ufeff]+")


def normalize_number(written: str) -> str | None:
    """`0033 6.12-34` -> `+3361234`, `336…` -> `+336…`, `+33 (0)6…` -> `+336…`; None if it is no number."""
    if _E164_NUMBER.fullmatch(written):
        return written
    digits = _PUNCTUATION.sub("", _TRUNK_PREFIX.sub(r"\1\2", written[:64]))
    number = "+" + digits.removeprefix("+").removeprefix("00")
    return number if _E164_NUMBER.fullmatch(number) else None
