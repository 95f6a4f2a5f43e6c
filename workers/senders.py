"""Whose lane is it? A number as an operator writes it, for commands."""

import re

import click

_CANONICAL = re.compile(r"\+[1-9][0-9]{2,14}")
_PUNCTUATION = re.compile(r"[\s().\-/]+")


def sender_named(written: str) -> str:
    """`+33 6.12`, `0033 612` -> `+33612`, as lanes are called. Raises click's BadParameter."""
    digits = _PUNCTUATION.sub("", written)
    number = f"+{digits[2:]}" if digits.startswith("00") else digits
    if not _CANONICAL.fullmatch(number):
        raise click.BadParameter(
            f"{written!r}: expected a phone number in full, such as +33612345678", param_hint="SENDER"
        )
    return number
