"""People who hold clinic conversations, and the judgement of what they got."""

from tests.support import clinic
from tests.support.person import Crowd, Person


class Play:
    """The conversations of one deployment with one fake Octopush."""

    def __init__(self, deployment, octopush, connections=16):
        self._octopush = octopush
        self.crowd = Crowd(deployment.webhook, octopush, connections)
        self._plays = {}
        self.people = []

    def person(self, place, play=None):
        """The person of this place, who is feverish unless told otherwise."""
        play = play or clinic.feverish(f"P{place}")
        answers = play.answers()
        number = clinic.number(place)
        self._plays[number] = play
        self.people.append(
            Person(number, play.says[0], lambda heard: None if heard == play.hears[-1] else answers[heard])
        )
        return self.people[-1]

    def hold(self, people, deadline_s=60, **how):
        """All of these conversations, to their ends."""
        return self.crowd.talk([self.person(place) for place in people], deadline_s, **how)

    def judge(self, besides=None):
        """Every person got exactly what they should, once, in order, and nobody else got anything but what `besides` says."""
        got = {}
        for sms in self._octopush.accepted():
            got.setdefault(sms.to, []).append(sms.text)
        assert got == {number: play.hears for number, play in self._plays.items()} | (besides or {})
