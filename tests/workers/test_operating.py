"""`parley lane`, `parley status` and `parley channel` tell what is, of real processes that are ended, killed and paused."""

import json
import re

import pytest
from click.testing import CliRunner

from config.service.deployment_health import ALARM_LATE_MS
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from config.telemetry import process_registry
from tests.support.clinic import feverish
from tests.support.octopush import FakeOctopush, Faults
from tests.support.person import Crowd, inbound
from tests.support.processes import Deployment
from tests.support.valkey import Valkey
from tests.support.waiting import until
from workers.commands.channel import channel
from workers.commands.lane import lane
from workers.commands.status import status

ANNA = "+33600000001"


@pytest.fixture(scope="module")
def deployed():
    """All of Parley, once for the tests below, each of which leaves it as it was."""
    with (
        Valkey() as server,
        FakeOctopush() as octopush,
        Deployment(server.url, server.broker_url, octopush) as parley,
    ):
        yield Real(parley.start(), server, octopush)


class Real:
    """A deployment, and the commands against it."""

    def __init__(self, parley, server, octopush):
        self.parley = parley
        self.server = server
        self.octopush = octopush
        self.crowd = Crowd(parley.webhook, octopush)

    def text(self, sender, *texts):
        self.crowd.post([inbound(sender, text) for text in texts])

    def run(self, command, *arguments, status=0):
        environment = {**self.parley.environment}
        result = CliRunner(env=environment).invoke(command, arguments)
        assert result.exit_code == status, result.output
        return result.output

    def diagnosis(self, sender):
        return json.loads(self.run(lane, sender, "--json"))["diagnosis"]

    def state(self, wrong=False):
        """What `parley status` says."""
        return json.loads(self.run(status, "--json", status=1 if wrong else 0))

    def told(self, sender, sentence, deadline_s=10):
        """Until the command's sentence holds these words; answers the sentence."""
        found = ""

        def holds():
            nonlocal found
            found = self.diagnosis(sender)["sentence"]
            return sentence in found

        try:
            until(holds, deadline_s, sentence)
        except TimeoutError:
            raise AssertionError(f"{sentence!r} is not in {found!r}") from None
        return found

    def heard(self, sender):
        return [sms.text for sms in self.octopush.accepted(sender)]

    def end(self, name):
        """All copies of a line, as a supervisor ends them."""
        for process in self.parley.of(name):
            if process.alive:
                process.terminate()

    def again(self, *names):
        """What is dead of these lines lives again, and has said so."""
        for process in [each for name in names for each in self.parley.of(name)]:
            if not process.alive:
                process.restart()
        until(lambda: self._roles().keys() >= set(names), 20, f"{names} live again")

    def _roles(self):
        return process_registry.count_by_role(process_registry.living_processes(self.server.client()))


def test_all_is_well_while_all_runs(deployed):
    state = deployed.state()
    assert state["wrong"] == []
    needed = set(process_registry.WORK_COUNTERS) - set(process_registry.OPTIONAL_ROLES)
    assert {each["role"] for each in state["processes"].values()} == needed
    assert deployed.run(status).startswith("All is well.")


def test_while_all_runs_it_waits_for_an_answer(deployed):
    deployed.text(ANNA, "START")
    sentence = deployed.told(ANNA, "Waits for an answer to `name` of clinic")
    assert re.search(r"; (they are reminded|ends by silence|its time is over) in \d", sentence)


def test_a_paused_channel_is_the_reason_until_it_is_resumed(deployed):
    person = "+33600000010"
    deployed.text(person, "START")
    deployed.told(person, "Waits for an answer to `name`")
    paused = deployed.run(channel, "pause", "clinic", "--why", "carrier incident", "--as", "anna")
    assert paused.startswith("clinic is paused until")
    (note,) = deployed.state()["notes"]
    assert (
        note
        == "the clinic channel is paused by an operator, anna (carrier incident); `parley channel resume clinic` ends it"
    )
    assert json.loads(deployed.run(channel, "list", "--json"))["paused"]["who"] == "anna"
    heard = deployed.heard(person)
    deployed.text(person, "Rey")
    sentence = deployed.told(person, "is paused by an operator, anna since")
    assert sentence.endswith('("carrier incident"); 1 SMS waits; `parley channel resume clinic`.')
    assert deployed.heard(person) == heard
    assert "1 SMS waits" in deployed.run(channel, "resume", "clinic")
    until(lambda: len(deployed.heard(person)) == len(heard) + 1, 5, "what waited has left")
    deployed.told(person, "Waits for an answer to `temperature`")


def test_a_failing_provider_is_the_reason(deployed):
    person = "+33600000011"
    deployed.octopush.control(Faults(fail_500=1))
    deployed.text(person, "START")
    sentence = deployed.told(person, "500")
    assert "the last try failed" in sentence or "as its provider fails" in sentence
    deployed.octopush.control(Faults())
    deployed.run(channel, "resume", "clinic")
    deployed.told(person, "Waits for an answer to `name`", 30)


def test_that_nobody_works_is_the_reason(deployed):
    person = "+33600000012"
    deployed.end("ratelimit")
    deployed.text(person, "START")
    deployed.told(person, "A START waits in the mailbox, for")
    deployed.told(person, "is `ratelimit` running? No such process has been heard of.")
    assert deployed.state(wrong=True)["wrong"] == ["no `ratelimit` process lives"]
    assert deployed.run(status, status=1).startswith("No `ratelimit` process lives.")
    deployed.again("ratelimit")
    deployed.told(person, "Waits for an answer to `name`", 15)
    deployed.end("delivery")
    deployed.text(person, "Rey")
    deployed.told(person, "1 SMS waits to leave; a worker has been rung for")
    deployed.again("delivery")
    deployed.told(person, "Waits for an answer to `temperature`", 15)


def test_a_killed_worker_and_a_clock_that_does_not_run_are_the_reason(deployed):
    person = "+33600000013"
    deployed.text(person, "START")
    deployed.told(person, "Waits for an answer to `name`")
    deployed.end("conversation")
    deployed.end("clock")
    victim = deployed.parley.spawn("conversation", "after_claim")
    deployed.text(person, "Rey")
    victim.wait_dead()
    deployed.told(person, "A worker that claimed it 1")
    sentence = deployed.told(person, "has not come back; an SMS waits in the mailbox, for")
    assert re.search(r"it is taken up again in \d", sentence)
    deployed.told(person, "never came back; an SMS waits in the mailbox", 8)
    deployed.told(person, "is `clock` running? No such process has been heard of.")
    alarms = keyspace.lane_alarms_key(keyspace.shard_of(person, DEFAULT_SHARDS))
    deployed.server.client().zincrby(alarms, -ALARM_LATE_MS, person)  # as if so much time had passed
    wrong = deployed.state(wrong=True)["wrong"]
    assert any("1 lane is due and not rung for" in each and "for `clock` to do" in each for each in wrong)
    assert "1 lane is held by workers that never came back" in wrong
    deployed.again("conversation", "clock")
    deployed.told(person, "Waits for an answer to `temperature`", 20)


def test_a_conversation_that_is_over_says_how_it_ended(deployed):
    person = "+33600000014"
    play = feverish("Rey")
    for says, hears in zip(play.says, play.hears, strict=True):
        deployed.text(person, says)
        until(lambda hears=hears: hears in deployed.heard(person), 10, hears)
    deployed.told(person, "Nothing waits and nothing is under way: the last session, of clinic, ended")
