"""Some minutes of a clinic's day: people who text, waver, misread and fall silent, more of them at some times than at others, and a
campaign that goes on meanwhile. Their numbers are of a range that nobody has: France keeps +33 6 39 98 for films.

Who comes and what they say is drawn from a seed, so that each run is like the last.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import pi, sin
from threading import Event, Thread

from tests.support import clinic
from tests.support.inviting import KEY, Api, key_table
from tests.support.octopush import FakeOctopush
from tests.support.person import Crowd, Person
from tests.support.processes import Deployment
from tests.support.valkey import Valkey
from tests.support.waiting import free_port

PEOPLE_A_MINUTE = 60
"""Who begin, on an average."""

INVITED = 3_000
THINK_S = 3.0
TALK_S = 300.0

NAMES = (
    "Amina", "Bruno", "Chloé", "David", "Elif", "Farid", "Giulia", "Hugo", "Inès", "Jonas", "Karim", "Léa",
    "Mehdi", "Nora", "Oscar", "Paula", "Quentin", "Rosa", "Samir", "Thea", "Ugo", "Vera", "Wim", "Yasmine", "Zoé",
)  # fmt: skip

LIMITS = {"sms_per_day": 20_000, "invitations_per_second": 0.5}


def number(person: int) -> str:
    return f"+3363998{person:04d}"


@contextmanager
def clinic_at_work() -> Iterator[tuple[Deployment, FakeOctopush]]:
    """All of Parley, some of its processes twice, and a provider."""
    with Valkey() as valkey, FakeOctopush() as octopush:
        environment = {"PARLEY_CONSOLE_PORT": f"{free_port()}", "PARLEY_API_KEY": KEY}
        with Deployment(
            valkey.url, valkey.broker_url, octopush, limits=LIMITS, environment=environment,
            channel_surveys=("clinic", "satisfaction"),
        ) as deployment:  # fmt: skip
            config = deployment.folder / "parley.toml"
            config.write_text(config.read_text() + key_table())
            deployment.start(web=2, conversation=2, delivery=2, clock=2, console=1)
            yield deployment, octopush


def let_people_text(deployment: Deployment, octopush: FakeOctopush, minutes: int) -> None:
    """Let them come for so many minutes; some who talk then are left in the middle of it."""
    chance = random.Random(7)
    invite(deployment, octopush)
    over = Event()
    for minute in range(minutes):
        many = round(
            PEOPLE_A_MINUTE * (1 + 0.45 * sin(minute / minutes * 3 * pi) + chance.uniform(-0.12, 0.12))
        )
        people = [patient(number(minute * 300 + place), chance) for place in range(many)]
        crowd = Crowd(deployment.webhook, octopush, connections=4)
        talk = Thread(target=_talk, args=(crowd, people, 60 / many, over), daemon=True)
        talk.start()
        talk.join(60)
    over.set()


def _talk(crowd: Crowd, people: Sequence[Person], every_s: float, over: Event) -> None:
    """Let them begin one by one. Once it is `over`, the provider may go away in the middle of it."""
    try:
        crowd.talk(people, TALK_S, every_s=every_s, think_s=THINK_S)
    except ExceptionGroup:
        if not over.is_set():
            raise


def invite(deployment: Deployment, octopush: FakeOctopush) -> None:
    """Ask for a campaign of invitations, which leave in their own time. The API takes no numbers of films; no picture shows one."""
    results = Api(deployment.base).invite_all(
        {"identifier": clinic.number(person), "clientReference": f"{person}", "campaign": "autumn check-up"}
        for person in range(INVITED)
    )
    assert all(each["status"] == 202 for each in results), results[:3]


def patient(sender: str, chance: random.Random) -> Person:
    """Someone who wants to be examined, and may not get to the end of it."""
    name = chance.choice(NAMES)
    degrees = (
        round(chance.gauss(98.4, 1.8), 1) if chance.random() < 0.8 else round(chance.uniform(93, 94.9), 1)
    )
    says = {
        clinic.NAME: name,
        clinic.temperature(name): "quite warm" if chance.random() < 0.1 else f"{degrees}",
        clinic.FEVER: "yes" if degrees > 99.5 else "no",
    }
    silent_at = chance.choice([clinic.NAME, clinic.temperature(name), clinic.FEVER, *[""] * 12])

    def reply(text: str) -> str | None:
        if text.startswith("Please answer with digits"):
            return f"{degrees}"
        return None if text == silent_at else says.get(text)

    return Person(sender, "START", reply)
