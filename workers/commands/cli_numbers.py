"""Whose number is it? Phone numbers as operators write them, and as lanes are named, for commands and lists; and people as logs name
them.

Lanes are named by `normalize_number` alone, so every number that a command takes goes through it: what another library
makes of a number might name nobody's lane. A command that looks something up takes whatever a lane may be named; a list
that is to be heeded takes only numbers that somebody can have, and only with their country.
"""

import click
import phonenumbers

from config.telemetry.logs import is_log_name
from engine.model.errors import ParleyError
from engine.model.sender_numbers import normalize_number


class InvalidNumberError(ParleyError):
    """It is no number that somebody can be reached at. The message says why."""


def parse_sender_argument(written: str) -> str:
    """Normalize a number to the name of its lane: `+33 6.12`, `0033 612` -> `+33612`. Raises click's BadParameter."""
    number = normalize_number(written)
    if number is None:
        raise click.BadParameter(
            f"{written!r}: expected a phone number in full, such as +33612345678", param_hint="SENDER"
        )
    return number


def parse_person_argument(written: str) -> str:
    """Like `parse_sender_argument`, but takes the name too that logs have for a person: `4f0a1b2c3d`, `sender=4f0a1b2c3d`."""
    name = written.removeprefix("sender=")
    return name if is_log_name(name) else parse_sender_argument(written)


def parse_reachable_argument(written: str) -> str:
    """Like `parse_reachable_number`. Raises click's BadParameter."""
    try:
        return parse_reachable_number(written)
    except InvalidNumberError as e:
        raise click.BadParameter(str(e), param_hint="NUMBER") from e


def parse_reachable_number(written: str) -> str:
    """Normalize a number to the name of its lane. Raises InvalidNumberError, also for a number without its country, and
    for one of an impossible length: an opt-out of it would never match anybody."""
    if not written.strip().startswith(("+", "00")):
        raise InvalidNumberError(
            f"{written!r} is no number with its country: expected one such as +33612345678"
        )
    number = normalize_number(written.strip())
    if number is None:
        raise InvalidNumberError(
            f"{written!r} is no phone number: expected 3 to 15 digits, such as +33612345678"
        )
    try:
        possible = phonenumbers.is_possible_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException as e:
        raise InvalidNumberError(f"{written!r} is no phone number: {e}") from e
    if not possible:
        raise InvalidNumberError(f"{written!r} is no phone number: it has too few or too many digits")
    return number
