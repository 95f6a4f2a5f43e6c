"""The clinic survey as people play it: what they answer, and what they must have got, word for word."""

from collections.abc import Mapping
from typing import NamedTuple

NAME = "What is your name?"
FEVER = "Do you have a fever?"
DOCTOR = "You should see a doctor, our medic will call you soon."
HEALTHY = "Your health is good. Have a nice day!"

CHANNEL = "clinic"
NUMBER = "+33700000001"


class Play(NamedTuple):
    """One conversation: the SMS that the person sends, and the SMS that answer each of them."""

    says: list[str]
    hears: list[str]

    def answers(self) -> Mapping[str, str]:
        """What the person says next, by what was heard last."""
        return dict(zip(self.hears, self.says[1:], strict=False))


def temperature(name: str) -> str:
    return f"What is your temperature, {name}? (Fahrenheit, e.g. 98.6)"


def feverish(name: str) -> Play:
    return Play(["START", name, "101.5", "yes"], [NAME, temperature(name), FEVER, DOCTOR])


def healthy(name: str) -> Play:
    return Play(["START", name, "85"], [NAME, temperature(name), HEALTHY])


def number(person: int) -> str:
    """A phone number for each of up to a hundred million people."""
    return f"+336{person:08d}"
