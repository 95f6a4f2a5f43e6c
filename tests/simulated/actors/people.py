"""People: they begin, answer what they are asked, and sometimes do what nobody expects."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from random import Random

import msgspec

from engine.model.events import InboundSms, OutboundSms
from engine.surveys.keywords import read_command
from tests.simulated.actors.web import Carriers
from tests.simulated.world.simulated_world import SimulatedWorld


class Habits(msgspec.Struct, frozen=True):
    """How likely a person is to do this, each time that they write: to write twice, something that is no answer, STOP, START
    again; how long they think, in seconds; and how often they write of themselves, at any moment of the first half a minute."""

    writes_twice: float = 0.0
    wanders: float = 0.0
    stops: float = 0.0
    restarts: float = 0.0
    thinks_s: float = 3.0
    chats: int = 0


PLAIN = Habits()

CHATTING_S = 30.0


class Person:
    """Somebody with a phone, who texts with one channel. `answers` are by what the text of a question begins with."""

    def __init__(
        self,
        world: SimulatedWorld,
        carriers: Carriers,
        number: str,
        channel: str,
        answers: Mapping[str, str],
        habits: Habits = PLAIN,
    ) -> None:
        self.number = number
        self.channel = channel
        self.heard: list[str] = []
        self._world = world
        self._carriers = carriers
        self._answers = answers
        self._habits = habits
        self._chance = Random(f"{world.seed} {number}")
        self._ids = self._make_ids()
        self._answered: set[str] = set()

    def begin(self, after_s: float = 0.0) -> None:
        """Begin a conversation then, within a second."""
        chance = self._world.chance
        self.say_later("START", after_s + chance.random())
        for _ in range(self._habits.chats):
            self.say_later("hm", after_s + chance.random() * CHATTING_S)

    def say(self, text: str) -> None:
        """Text something now."""
        command = read_command(text, self._world.settings.channels[self.channel].surveys, self._world.surveys)
        self._carriers.bring(
            self.number,
            InboundSms(
                next(self._ids), self.channel, text, start=command == "start", may_be_stop=command == "stop"
            ),
        )

    def say_later(self, text: str, after_s: float) -> None:
        scheduler = self._world.scheduler
        scheduler.at(scheduler.now_us + round(after_s * 1_000_000), lambda: self.say(text))

    def hear(self, sms: OutboundSms) -> None:
        """Get an SMS, and answer it after a while, once for each."""
        self.heard.append(sms.text)
        if sms.id in self._answered:
            return
        self._answered.add(sms.id)
        for begins, answer in self._answers.items():
            if sms.text.startswith(begins):
                self._answer(answer)

    def _answer(self, answer: str) -> None:
        chance, habits = self._chance, self._habits
        after_s = chance.random() * habits.thinks_s
        if chance.random() < habits.wanders:
            self.say_later("hm", after_s)
            return
        if chance.random() < habits.stops:
            self.say_later("STOP", after_s * chance.random())
        if chance.random() < habits.restarts:
            self.say_later("START", after_s * chance.random())
        self.say_later(answer, after_s)
        if chance.random() < habits.writes_twice:
            self.say_later(answer, after_s + chance.random())

    def _make_ids(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield blake2b(f"{self.number} {number}".encode(), digest_size=8).hexdigest()


class People:
    """All of them, by number: each SMS that a provider takes reaches its own."""

    def __init__(self, world: SimulatedWorld, people: Sequence[Person]) -> None:
        self._by_number = {person.number: person for person in people}
        world.hear = self.hear

    def hear(self, sms: OutboundSms) -> None:
        if sms.to in self._by_number:
            self._by_number[sms.to].hear(sms)

    def leave(self, person: Person) -> None:
        """Let somebody hear nothing any more."""
        self._by_number.pop(person.number, None)
