"""People who text several things within a moment, on a channel that has its replies in the answers of webhooks: something without a
conversation, then its keyword, and the keyword again, by which the conversation that has just begun ends and another begins."""

from random import Random

from tests.simulated.actors.people import Habits, Person
from tests.simulated.plays.play import Stage
from tests.simulated.plays.webhook_answers import CONFIG, WebhookAnswersPlay
from tests.simulated.world.simulated_world import DeploymentFiles

SURVEY = """
survey: clinic
start: [JOIN]
idle: 10m
cooldown: 0s
again: restart
texts: {not_found: "Text JOIN to begin.", stopped: "No more from us."}
steps:
  - {id: hello, say: "Welcome."}
  - {id: name, ask: "What is your name?", answer: {type: text}}
  - {id: bye, say: "Goodbye.", next: end}
"""

JOINED_S = (0.0005, 0.001, 0.003)
"""How long after their first word somebody joins."""

AGAIN_S = (0.0045, 0.0060, 0.0080, 1.0)
"""How long after their first word somebody joins again: about when it is answered, if nothing goes wrong, or later."""


def deployment_files() -> DeploymentFiles:
    return DeploymentFiles(CONFIG, {"clinic": SURVEY}, {"PARLEY_SHARDS": "2"})


class ImpatientPlay(WebhookAnswersPlay):
    """Two people, and two processes of each kind."""

    name = "impatient"
    habits = Habits(writes_twice=0.1, stops=0.1, thinks_s=2.0)
    files = staticmethod(deployment_files)

    def say(self, stage: Stage, person: Person, chance: Random) -> None:
        first_s = stage.world.chance.random()
        person.say_later("hm", first_s)
        person.say_later("JOIN", first_s + chance.choice(JOINED_S))
        if chance.random() < 0.7:
            person.say_later("JOIN", first_s + chance.choice(AGAIN_S))


IMPATIENT = ImpatientPlay()
