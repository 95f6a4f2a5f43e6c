"""Whose lane is it? A number as an operator writes it, for commands."""

import click

from engine.model.sender_numbers import normalize_number


def parse_sender_argument(written: str) -> str:
    """`+33 6.12`, `0033 612` -> `+33612`, as lanes are called. Raises click's BadParameter."""
    number = normalize_number(written)
    if number is None:
        raise click.BadParameter(
            f"{written!r}: expected a phone number in full, such as +33612345678", param_hint="SENDER"
        )
    return number
