"""Surveys are edited while people talk: nobody who talks notices, and whoever comes next gets the new one."""

import json
import os
import re
from itertools import count
from pathlib import Path
from threading import Event, Thread

import pytest
import requests

from tests.support.person import Crowd, Person, inbound
from tests.support.processes import Deployment
from tests.support.waiting import until

ANNA, BORIS, CLARA, DORA = (f"+3360000000{place}" for place in range(1, 5))
TAKEN_UP_S = 10.0
SOON_S = 20.0

TIDE = """
survey: clinic
start: [{keyword}]
cooldown: 0s
texts: {{not_found: "Text {keyword}.", completed: none}}
steps:
  - {{id: name, ask: "{word}: what is your name?", answer: {{type: text}}}}
  - {{id: age, ask: "{word}: how old are you, {{name}}?", answer: {{type: number}}, invalid: "{word}: digits."}}
  - {{id: bye, say: "{word}: goodbye, {{name}}.", next: end}}
"""


def tide(word, keyword="START"):
    """A survey all of whose texts say which it is."""
    return TIDE.format(word=word, keyword=keyword)


def other(word):
    """The same of another survey."""
    return tide(word, keyword="OTHER").replace("survey: clinic", "survey: other")


def asked(word, name=None):
    """What it says up to the question for the age, if `name` was told."""
    hears = [f"{word}: what is your name?"]
    return hears if name is None else [*hears, f"{word}: how old are you, {name}?"]


def whole(word, name):
    """All that it says, one answer misread."""
    return [
        *asked(word, name),
        f"{word}: digits. {word}: how old are you, {name}?",
        f"{word}: goodbye, {name}.",
    ]


class Town:
    """People who text a deployment, whose surveys are in `folder`."""

    def __init__(self, deployment, octopush, folder):
        self.deployment = deployment
        self.folder = folder
        self.octopush = octopush

    def edit(self, text, file="clinic.yaml"):
        """As an editor saves: there is no moment at which half of it is there."""
        written = self.folder / f".{file}"
        written.write_text(text)
        written.replace(self.folder / file)

    def says(self, number, *texts):
        self._post([inbound(number, text) for text in texts])

    def _post(self, bodies):
        for body in bodies:
            assert requests.post(self.deployment.webhook, data=body, timeout=60).status_code == 200

    def hears(self, number, expected):
        """They got this, in this order, and nothing else."""
        until(lambda: len(self.got(number)) >= len(expected), SOON_S, f"{number} hears {expected[-1:]}")
        assert self.got(number) == expected

    def got(self, number):
        return [sms.text for sms in self.octopush.accepted(number)]

    def lines(self, process, event):
        """What it has logged of `event`."""
        logged = (json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in logged if line["event"] == event]

    def watchers(self):
        return [
            each for each in self.deployment.processes if each.name in ("web", "ratelimit", "conversation")
        ]

    def logged(self, event, count=1):
        """Every process that watches has logged this."""

        def everywhere():
            return all(len(self.lines(process, event)) >= count for process in self.watchers())

        until(everywhere, TAKEN_UP_S, f"every process says: {event}")

    def metric(self, name):
        found = requests.get(f"{self.deployment.base}/metrics", timeout=60).text.splitlines()
        return next(float(line.split()[-1]) for line in found if line.startswith(name + " "))


@pytest.fixture
def town(own_valkey, octopush, tmp_path):
    """Nothing runs yet: `town.deployment.start()`."""
    folder = tmp_path / "surveys"
    folder.mkdir()
    (folder / "clinic.yaml").write_text(tide("old"))
    (folder / "other.yaml").write_text(other("other"))
    names = ("clinic", "other")
    with Deployment(
        own_valkey.url, own_valkey.broker_url, octopush, surveys=folder, channel_surveys=names
    ) as deployment:
        yield Town(deployment, octopush, folder)


def test_open_sessions_end_as_they_began_and_the_next_start_gets_the_new(town):
    town.deployment.start()
    town.says(ANNA, "START")
    town.hears(ANNA, asked("old"))
    town.says(DORA, "BEGIN")
    town.hears(DORA, ["Text START."])

    town.edit(tide("new", keyword="BEGIN"))
    town.logged("survey taken up")
    town.says(DORA, "BEGIN")
    town.hears(DORA, ["Text START.", *asked("new")])
    town.says(ANNA, "Anna", "old", "36")
    town.says(DORA, "Dora", "old", "36")
    town.hears(ANNA, whole("old", "Anna"))
    town.hears(DORA, ["Text START.", *whole("new", "Dora")])


def test_a_broken_file_changes_nothing_and_is_told_once_and_other_files_are_taken_up(town):
    town.deployment.start()
    town.says(ANNA, "START")
    town.edit("survey: clinic\nsteps: [{id: name, ask: 7}]\n")
    town.logged("survey refused; what ran of it runs on, and a process that starts now will not")
    town.edit(other("newer"), "other.yaml")
    town.logged("survey taken up")

    town.says(BORIS, "START", "Boris", "old", "36")
    town.says(ANNA, "Anna", "old", "36")
    town.says(DORA, "OTHER")
    town.hears(BORIS, whole("old", "Boris"))
    town.hears(ANNA, whole("old", "Anna"))
    town.hears(DORA, asked("newer"))
    assert town.metric("parley_surveys_refused") == 1
    for process in town.watchers():
        (refused,) = town.lines(
            process, "survey refused; what ran of it runs on, and a process that starts now will not"
        )
        assert refused["file"] == "clinic.yaml"
        assert any("ask" in problem for problem in refused["problems"])
        (taken,) = town.lines(process, "survey taken up")
        assert taken["survey"] == "other"

    started = town.deployment.spawn("conversation")
    assert started.wait_dead() != 0, "a process does not start with a survey that has errors"
    town.deployment.processes.remove(started)
    town.edit(tide("mended"))
    town.logged("survey taken up", count=2)
    town.says(CLARA, "START")
    town.hears(CLARA, asked("mended"))
    assert town.metric("parley_surveys_refused") == 0


NESTED_ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 8)
)
"""A hundred million values in 400 bytes."""


def test_files_that_would_take_every_process_down_are_refused_alone(town):
    town.deployment.start()
    town.says(ANNA, "START")
    town.hears(ANNA, asked("old"))
    before = {process.pid: most_memory_kb(process) for process in town.watchers()}
    os.mkfifo(town.folder / "pipe.yaml")
    (town.folder / "folder.json").mkdir()
    town.edit(NESTED_ALIASES, "aliases.yaml")
    town.edit("survey: clinic\nsteps: !!set {a, b}\n")
    town.logged("survey refused; what ran of it runs on, and a process that starts now will not", count=4)
    town.edit(other("newer"), "other.yaml")
    town.logged("survey taken up")

    town.says(ANNA, "Anna", "old", "36")
    town.hears(ANNA, whole("old", "Anna"))
    town.says(DORA, "OTHER")
    town.hears(DORA, asked("newer"))
    assert town.metric("parley_surveys_refused") == 4
    for process in town.watchers():
        assert most_memory_kb(process) - before[process.pid] < 50_000


def most_memory_kb(process):
    """The most that it ever had in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def test_a_worker_that_starts_after_the_edit_goes_on_with_sessions_from_before_it(town):
    town.deployment.start()
    town.says(ANNA, "START")
    town.hears(ANNA, asked("old"))
    town.edit(tide("new"))
    town.logged("survey taken up")
    for name in ("conversation", "ratelimit"):
        (process,) = town.deployment.of(name)
        process.kill9()
        process.restart()
    town.says(BORIS, "START", "Boris", "old", "36")
    town.says(ANNA, "Anna", "old", "36")
    town.hears(ANNA, whole("old", "Anna"))
    town.hears(BORIS, whole("new", "Boris"))


def test_every_conversation_is_of_one_piece_whatever_is_edited_and_killed_meanwhile(town):
    """An edit a second, and after each a worker is killed."""
    town.deployment.start(conversation=2)
    over = Event()

    def trouble():
        for place in count():
            town.edit(tide(f"v{place}"))
            if over.wait(1.5):
                return
            town.deployment.of(("conversation", "ratelimit")[place % 2])[0].kill9()

    crowd = Crowd(town.deployment.webhook, town.octopush)
    people = [Person(f"+336001{place:05}", "START", answer) for place in range(60)]
    with town.deployment.respawning():
        troubling = Thread(target=trouble)
        troubling.start()
        try:
            talked = crowd.talk(people, deadline_s=90, every_s=0.1)
        finally:
            over.set()
            troubling.join()
    words = [person.heard[0].partition(":")[0] for person in talked]
    assert [person.heard for person in talked] == [whole(word, "Ada") for word in words]
    assert len(set(words)) > 2


def answer(heard):
    """What a person says to each SMS of a tide, whichever it is; None to the last."""
    if "goodbye" in heard:
        return None
    if "digits" in heard:
        return "36"
    return "old" if "how old" in heard else "Ada"


def test_machines_with_different_files_share_the_sessions(town, tmp_path):
    """As in a rolling deployment: STARTs are admitted by the new machine, replies are answered by both."""
    ahead = tmp_path / "ahead"
    ahead.mkdir()
    (ahead / "clinic.yaml").write_text(tide("new"))
    (ahead / "other.yaml").write_text(other("other"))
    town.deployment.start(ratelimit=0)
    behind = town.deployment.spawn("ratelimit")
    town.says(ANNA, "START")
    town.hears(ANNA, asked("old"))
    behind.terminate()
    town.deployment.spawn("ratelimit", PARLEY_SURVEYS=str(ahead))
    town.says(BORIS, "START", "Boris", "old", "36")
    town.hears(BORIS, whole("new", "Boris"))
    (conversation,) = town.deployment.of("conversation")
    conversation.terminate()
    town.deployment.spawn("conversation", PARLEY_SURVEYS=str(ahead))
    town.says(ANNA, "Anna", "old", "36")
    town.hears(ANNA, whole("old", "Anna"))


def test_a_survey_that_a_channel_offers_runs_on_without_its_file(town):
    town.deployment.start()
    town.says(ANNA, "START")
    town.hears(ANNA, asked("old"))
    (town.folder / "clinic.yaml").rename(town.folder / "clinic.txt")
    town.logged(
        "no file holds this survey any more; it runs on, as a channel offers it, but no process can start"
    )
    town.says(BORIS, "START")
    town.says(ANNA, "Anna", "old", "36")
    town.hears(BORIS, asked("old"))
    town.hears(ANNA, whole("old", "Anna"))
