"""People with phones: they text the webhook as their provider would, wait for the answers, and answer those.

Only 200 is an acknowledgement; whatever else comes, the same body is sent again, as Octopush does. A crowd shares a
few kept-alive connections and one long poll of the fake Octopush's ledger.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from time import monotonic
from typing import NamedTuple

import msgspec
import uvloop

from tests.support.octopush import Accepted, FakeOctopush, Page
from tests.support.waiting import PATIENCE
from tests.support.wire import Address, Broken, Connection

AGAIN_S = 0.05
POLL_S = 1.0

Reply = Callable[[str], str | None]
"""What a person says to an SMS: "" is nothing yet, None nothing more."""


class Callback(NamedTuple):
    """What a provider posts to the webhook."""

    body: bytes
    headers: Mapping[str, str] = {}


CallbackWriter = Callable[[str, str], Callback]
"""How a provider tells of an SMS, by its sender and its text; each time of another SMS."""


class _Inbound(msgspec.Struct):
    """Octopush's callback for an SMS from a person."""

    message_id: str
    number: str
    text: str
    sim_card_number: str
    reception_date: str


_encode = msgspec.json.Encoder().encode
_decode_page = msgspec.json.Decoder(Page).decode
_serial = count()


def inbound(number: str, text: str, to: str = "+33700000001") -> bytes:
    """The body of a callback that is like no other of this process: each has a second of its own."""
    minutes, second = divmod(next(_serial), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    months, day = divmod(days, 28)
    date = f"{2026 + months // 12}-{months % 12 + 1:02}-{day + 1:02} {hour:02}:{minute:02}:{second:02}"
    return _encode(_Inbound("", number, text, to, date))


def octopush_callback(number: str, text: str) -> Callback:
    return Callback(inbound(number, text))


class Person:
    """`heard` are the SMS that came, in order; `lags_s` the time from each thing said to the answer's acceptance. Whoever
    has no `opening` has been invited."""

    def __init__(self, number: str, opening: str, reply: Reply) -> None:
        self.number = number
        self.opening = opening
        self.reply = reply
        self.heard: list[str] = []
        self.lags_s: list[float] = []
        self.said_at_s = 0.0


class Crowd:
    """People who talk to one webhook, which `write` calls as their provider does, and hear from one fake Octopush.

    `posts` counts requests, `again` those that were not acknowledged, of which `refused` were answered; `strays` are SMS to
    people who had ended.
    Of what was acknowledged, the fraction `doubled` is posted once more, as providers may.
    """

    def __init__(
        self, webhook: str, octopush: FakeOctopush, connections: int = 16, doubled: float = 0.0, seed: int = 0,
        write: CallbackWriter = octopush_callback,
    ) -> None:  # fmt: skip
        self._webhook = Address.of(webhook)
        self._desk = Address.of(octopush.base)
        self._connections = connections
        self._doubled = doubled
        self._write = write
        self._chance = random.Random(seed)
        self._since = octopush.count()
        self.posts = 0
        self.again = 0
        self.refused = 0
        self.strays: list[Accepted] = []

    def talk(
        self, people: Iterable[Person], deadline_s: float, at_once: int = 256, every_s: float = 0.0, think_s: float = 0.0
    ) -> list[Person]:  # fmt: skip
        """Let all of them talk to the end. Returns them in the order in which they ended.

        At most `at_once` talk at the same time, one begins every `every_s` seconds, and each takes `think_s` over an answer. Raises TimeoutError after PATIENCE
        times `deadline_s`, naming some who wait and what they heard last.
        """
        return uvloop.run(self._talk(_Party(people, at_once, every_s, think_s, self._write), deadline_s))

    def post(self, bodies: Iterable[bytes], deadline_s: float = 30.0) -> None:
        """Say all of this in this order, each until it is acknowledged."""
        uvloop.run(asyncio.wait_for(self._post_all(bodies), deadline_s * PATIENCE))

    async def _talk(self, party: "_Party", deadline_s: float) -> list[Person]:
        try:
            async with asyncio.timeout(deadline_s * PATIENCE), asyncio.TaskGroup() as group:
                endless = [group.create_task(self._speak(party)) for _ in range(self._connections)]
                endless.append(group.create_task(self._listen(party)))
                await party.invite()
                await party.over.wait()
                for task in endless:
                    task.cancel()
        except TimeoutError:
            waiting = [(person.number, person.heard[-1:]) for person in party.talking.values()]
            raise TimeoutError(f"{len(waiting)} people wait, such as {waiting[:3]}") from None
        return party.ended

    async def _speak(self, party: "_Party") -> None:
        async with Connection(self._webhook.host, self._webhook.port) as connection:
            while True:
                await self._post(connection, await party.said.get())

    async def _post_all(self, bodies: Iterable[bytes]) -> None:
        async with Connection(self._webhook.host, self._webhook.port) as connection:
            for body in bodies:
                await self._post(connection, Callback(body))

    async def _post(self, connection: Connection, callback: Callback) -> None:
        """Post until it is acknowledged."""
        while not await self._acknowledged(connection, callback):
            self.again += 1
            await asyncio.sleep(AGAIN_S)
        if self._doubled and self._chance.random() < self._doubled:
            await self._acknowledged(connection, callback)

    async def _acknowledged(self, connection: Connection, callback: Callback) -> bool:
        self.posts += 1
        try:
            answer = await connection.ask("POST", self._webhook.target, *callback)
        except (Broken, OSError):
            return False
        self.refused += answer.status != 200
        return answer.status == 200

    async def _listen(self, party: "_Party") -> None:
        async with Connection(self._desk.host, self._desk.port) as connection:
            while True:
                answer = await connection.ask("GET", f"/_wait?since={self._since}&for_s={POLL_S}")
                page = _decode_page(answer.body)
                self._since = page.next
                for sms in page.accepted:
                    if not party.hear(sms):
                        self.strays.append(sms)


class _Party:
    """One talk of a crowd: who is in it, and what is about to be said."""

    def __init__(
        self, people: Iterable[Person], at_once: int, every_s: float, think_s: float, write: CallbackWriter
    ) -> None:
        self._people = people
        self._think_s = think_s
        self._write = write
        self._every_s = every_s
        self._room = asyncio.Semaphore(at_once)
        self._invited = False
        self.talking: dict[str, Person] = {}
        self.ended: list[Person] = []
        self.said: asyncio.Queue[Callback] = asyncio.Queue()
        self.over = asyncio.Event()

    async def invite(self) -> None:
        """Let everybody in as soon as there is room and it is their turn."""
        begun_s = monotonic()
        for place, person in enumerate(self._people):
            if (wait_s := begun_s + place * self._every_s - monotonic()) > 0:
                await asyncio.sleep(wait_s)
            await self._room.acquire()
            self.talking[person.number] = person
            if person.opening:
                self._say(person, person.opening)
        self._invited = True
        self._look_round()

    def hear(self, sms: Accepted) -> bool:
        """Hand an SMS to whom it is for, who may answer. False if nobody of that number is talking."""
        person = self.talking.get(sms.to)
        if person is None:
            return False
        person.heard.append(sms.text)
        if person.said_at_s:
            person.lags_s.append(sms.at_s - person.said_at_s)
        answer = person.reply(sms.text)
        if answer is None:
            self.ended.append(self.talking.pop(sms.to))
            self._room.release()
            self._look_round()
        elif answer and self._think_s:
            asyncio.get_running_loop().call_later(self._think_s, self._say, person, answer)
        elif answer:
            self._say(person, answer)
        return True

    def _say(self, person: Person, text: str) -> None:
        person.said_at_s = monotonic()
        self.said.put_nowait(self._write(person.number, text))

    def _look_round(self) -> None:
        if self._invited and not self.talking:
            self.over.set()
