"""What the people of a soak say, and what they must hear: learned once while all is calm, and then held against all that
comes while nothing is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import requests

from tests.soak.redis_kinds import SoakRedis
from tests.support import audit
from tests.support.clinic import number
from tests.support.inviting import Api
from tests.support.octopush import FakeOctopush
from tests.support.person import Crowd, Person, inbound

NAME = "Rehearsal"

SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "feverish": ("START", NAME, "101.5", "yes"),
    "healthy": ("START", NAME, "85"),
    "clumsy": ("START", NAME, "rather hot", "99", "no"),
    "stops": ("START", NAME, "STOP"),
    "comes back": ("START", NAME, "STOP", "START", NAME, "85"),
    "twice": ("START", NAME, "85", "START", NAME, "101.5", "yes"),
    "invited": ("", NAME, "85"),
}
"""Kind of person -> what they say, each after the last is answered. Who says nothing at first has been invited."""


class Play(NamedTuple):
    """One person's conversation: what is said, and the SMS that answer each."""

    says: Sequence[str]
    answers: Sequence[Sequence[str]]

    @property
    def hears(self) -> list[str]:
        return [text for answer in self.answers for text in answer]

    def by(self, name: str) -> "Play":
        """The same, of somebody of this name."""
        return Play(
            [said.replace(NAME, name) for said in self.says],
            [[text.replace(NAME, name) for text in answer] for answer in self.answers],
        )

    def person(self, number: str) -> Person:
        """Who goes on whenever the last thing said is answered in full."""
        left = iter(zip(self.answers, [*self.says[1:], None], strict=True))
        waiting: list[str] = []
        following: str | None = ""

        def reply(_text: str) -> str | None:
            nonlocal following
            if not waiting:
                answer, following = next(left)
                waiting.extend(answer)
            waiting.pop()
            return "" if waiting else following

        return Person(number, self.says[0], reply)


def rehearse(
    crowd: Crowd,
    api: Api,
    channel: str,
    survey: str,
    valkey: SoakRedis,
    octopush: FakeOctopush,
) -> dict[str, Play]:
    """Each script played once on a deployment that nothing disturbs."""
    lanes, broker = valkey.client(), valkey.client(valkey.broker_url)
    plays = {}
    for place, (kind, says) in enumerate(SCRIPTS.items()):
        who = number(60_000_000 + place)
        answers: list[list[str]] = []
        for said in says:
            if said:
                crowd.post([inbound(who, said)])
            else:
                api.invite(survey, identifier=who, channel=channel).raise_for_status()
            audit.settle(lanes, broker)
            answers.append([sms.text for sms in octopush.accepted(who)][sum(map(len, answers)) :])
            assert answers[-1], f"{kind}: nobody answers {said!r}"
        plays[kind] = Play(says, answers)
    return plays


def invite(api: Api, channel: str, survey: str, numbers: Sequence[str]) -> bool:
    """Ask all of them in one request. False if not every line was accepted; it may be repeated."""
    bodies = [{"identifier": each, "channel": channel, "clientReference": f"r{each}"} for each in numbers]
    try:
        return {line["status"] for line in api.invite_all(bodies, survey)} <= {200, 202}
    except (requests.RequestException, AssertionError, ValueError):
        return False
