"""The pipeline with very many open conversations in its Redis, some of which go on.

Those conversations are copies of a real one, with all that Redis has of it: lane, alarm, session, and its entries in the event
stream. The first question is asked, and may be answered for a day. Who goes on is spread over all of them by chance.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.bench.many_conversations import copy_entries, copy_lane, open_conversation
from tests.support import clinic
from tests.support.octopush import FakeOctopush
from tests.support.processes import SURVEYS, Deployment
from tests.support.valkey import Valkey

IDLE, LONG_IDLE = "idle: 10m\n", "idle: 1d\n"


class CrowdedPipeline:
    """A deployment, the server of its lanes and wake-ups, and the people who have not gone on yet."""

    def __init__(self, deployment: Deployment, valkey: Valkey, people: int) -> None:
        self.deployment = deployment
        self.valkey = valkey
        self._waiting = iter(Random(people).sample(range(1, people + 1), people))

    @property
    def pids(self) -> dict[str, int]:
        """Of each process, and of the server, by name."""
        return {each.name: each.pid for each in self.deployment.processes} | {"valkey": self.valkey.pid}

    def going_on(self, people: int) -> dict[str, clinic.Play]:
        """What so many more of them say and hear from now on, to their end."""
        plays = {clinic.number(i): clinic.feverish(f"Ada{i}") for i in islice(self._waiting, people)}
        return {number: clinic.Play(play.says[1:], play.hears[1:]) for number, play in plays.items()}


@contextmanager
def crowded_pipeline(octopush: FakeOctopush, people: int) -> Iterator[CrowdedPipeline]:
    """All processes of a deployment but `archive`, `hooks` and `console`, and so many open conversations."""
    survey = (SURVEYS / "clinic.yaml").read_text()
    assert IDLE in survey
    with TemporaryDirectory() as folder:
        (Path(folder) / "clinic.yaml").write_text(survey.replace(IDLE, LONG_IDLE))
        with (
            Valkey(auto_aof_rewrite_percentage="0") as valkey,
            Deployment(
                valkey.url, valkey.broker_url, octopush, surveys=Path(folder), forked=False
            ) as deployment,
        ):
            deployment.start(archive=0, hooks=0)
            client = valkey.client()
            original = open_conversation(client, deployment.webhook, octopush, turns=1)
            client.config_set("appendfsync", "no")  # filling is not what is measured
            copy_lane(client, original, people)
            copy_entries(client, original, people)
            client.config_set("appendfsync", "always")
            yield CrowdedPipeline(deployment, valkey, people)
