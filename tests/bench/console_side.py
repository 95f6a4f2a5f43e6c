"""The console: what its pages take with very many conversations behind them, and what those who look cost the pipeline.

CPU is each process's own, by /proc, so that what else the machine does counts less.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import monotonic

import msgspec

from tests.bench.capacity_side import TICKS_PER_S, TURNS, Stage, cpu_us, stage, talkers
from tests.bench.many_conversations import (
    Crowdedness,
    bury_letters,
    copy_lane,
    fill_archive,
    hold_invitations,
    open_conversation,
    session_id,
)
from tests.console.visitor import Visitor, sign_in
from tests.support import clinic
from tests.support.inviting import KEY, key_table
from tests.support.octopush import FakeOctopush
from tests.support.processes import Deployment, Process
from tests.support.valkey import Valkey
from tests.support.waiting import HANG_S, free_port, until

COUNTED_S = 300.0
WAITING_WORDS = "being counted"
"""What a page says of what was never counted yet."""

PAGE_BYTES, PAGE_MS = 100_000, 200.0
"""What a page may have, and take."""

MATCHLESS = "nothing went wrong like this"

PAGES = {
    "now": "/",
    "people": "/people",
    "person": "a person with an open session",
    "person_live": "what that page asks for again and again",
    "stranger": "a person who never wrote",
    "dead_letters": "/dead-letters",
    "dead_letters_of_none": f"/dead-letters?error={MATCHLESS.replace(' ', '+')}",
    "letter": f"/dead-letters/{session_id(7)}",
    "dead_letter_audit": "/dead-letters/audit",
    "step": "/surveys/clinic/people?step=temperature",
    "step_without_people": "/surveys/clinic/people?step=nowhere",
    "channel": "/channels/clinic",
    "campaigns": "/campaigns",
    "hooks": "/hooks",
    "audit": "/audit",
    "audit_of_one": "/audit?actor=console+zoe",
    "audit_of_none": "/audit?action=nothing",
    "sessions": "/sessions",
    "results": "/results",
    "surveys": "/surveys",
    "survey": "/surveys/clinic",
    "results_of_survey": "/results/clinic",
}
"""Name -> path, or what is looked for by a form first. Those of which something is counted beside them are the last: the CPU of that is
the same process's."""


class PageCost(msgspec.Struct):
    """Of one page: how long it took (ms), CPU of the console's process (ms), and bytes."""

    wall_ms: float
    cpu_ms: float
    bytes: int


@contextmanager
def crowded_console(octopush: FakeOctopush, many: Crowdedness) -> Iterator[Deployment]:
    """A console, and `web` for its campaigns, before so much of everything."""
    with (
        Valkey() as valkey, TemporaryDirectory() as folder,
        Deployment(
            valkey.url, valkey.broker_url, octopush, forked=False,
            environment={
                "PARLEY_CONSOLE_PORT": f"{free_port()}", "PARLEY_API_KEY": KEY,
                "PARLEY_ARCHIVE_URL": f"sqlite:///{folder}/archive.db",
            },
        ) as deployment,
    ):  # fmt: skip
        config = deployment.folder / "parley.toml"
        config.write_text(config.read_text() + key_table())
        deployment.start(archive=0, hooks=0)
        _fill(valkey, octopush, deployment, many)
        deployment.spawn("console")
        deployment.wait_running()
        yield deployment


def _fill(valkey: Valkey, octopush: FakeOctopush, deployment: Deployment, many: Crowdedness) -> None:
    """One person opens a session; all workers end, and others have theirs from then on."""
    client = valkey.client()
    opened = open_conversation(client, deployment.webhook, octopush, turns=2)
    for process in deployment.processes:
        if process.name != "web":
            process.terminate()
    client.config_set("appendfsync", "no")
    copy_lane(client, opened, many.conversations)
    hold_invitations(client, many.held)
    bury_letters(client, many.dead_letters)
    client.config_set("appendfsync", "always")
    fill_archive(deployment.environment["PARLEY_ARCHIVE_URL"], many)


def page_costs(deployment: Deployment, rounds: int) -> Mapping[str, PageCost]:
    """Ask for each page so often, once all that is counted beside pages is there."""
    visitor = sign_in(deployment, "ada", "operator", "privacy")
    (console,) = deployment.of("console")
    costs = {}
    for name, path in page_paths(visitor).items():
        until(lambda path=path: WAITING_WORDS not in visitor.get(path).text, COUNTED_S, f"{path} is counted")  # type: ignore[misc]
        costs[name] = _page_cost(visitor, console, path, rounds)
    return costs


def page_paths(visitor: Visitor) -> Mapping[str, str]:
    known, stranger = (_address(visitor, number) for number in (clinic.number(41), clinic.number(99_999_999)))
    found = {"person": known, "person_live": f"{known}/live", "stranger": stranger}
    return PAGES | found


def _address(visitor: Visitor, number: str) -> str:
    return visitor.post("/people", wanted=number).headers["Location"]


def _page_cost(visitor: Visitor, console: Process, path: str, rounds: int) -> PageCost:
    walls, sizes, before = [], [], cpu_us(console.pid)
    for _ in range(rounds):
        begun_s = monotonic()
        page = visitor.get(path)
        walls.append((monotonic() - begun_s) * 1_000)
        sizes.append(len(page.content))
        assert page.status_code == 200, f"{path}: {page.status_code}"
    taken_us = max(cpu_us(console.pid) - before, 1_000_000 / TICKS_PER_S)  # it is told in ticks
    return PageCost(median(walls), taken_us / 1_000 / rounds, max(sizes))


def require_small_pages(costs: Mapping[str, PageCost]) -> None:
    """Raises AssertionError, naming pages that are larger than a page may be."""
    large = {name: cost.bytes for name, cost in costs.items() if cost.bytes > PAGE_BYTES}
    assert not large, f"larger than {PAGE_BYTES:,} bytes: {large}"


# What those who look cost


class LookingCost(msgspec.Struct):
    """What was taken while so many looked: µs of CPU of the pipeline and both servers for a turn, and a second µs of the console's
    process and commands to the lanes' server, of all processes."""

    turn_us: float
    console_us: float
    commands: float


def looking_costs(
    octopush: FakeOctopush, viewers: Sequence[int], rate: float, seconds: float, repeats: int
) -> Mapping[int, LookingCost]:
    """Let so many look at how things stand, by turns, while people talk at `rate` turns a second: medians, of one deployment."""
    costs: dict[int, list[LookingCost]] = {many: [] for many in viewers}
    with stage(octopush, PARLEY_CONSOLE_PORT=f"{free_port()}") as on:
        on.deployment.spawn("console")
        on.deployment.wait_running()
        visitor = sign_in(on.deployment, "ada")
        on.converse(talkers(20, 0))
        first = 1_000
        for _ in range(repeats):
            for many in viewers:
                people = talkers(max(1, round(rate * seconds / TURNS)), first)
                first += len(people)
                with looking(visitor, many):
                    costs[many].append(_cost_of(on, people, rate))
    return {
        many: LookingCost(
            *(median(getattr(each, name) for each in found) for name in LookingCost.__struct_fields__)
        )
        for many, found in costs.items()
    }


def _cost_of(on: Stage, people: Mapping[str, clinic.Play], rate: float) -> LookingCost:
    commands, begun = on.client.info("stats")["total_commands_processed"], on.usage()
    on.converse(people, rate)
    ended = on.usage()
    done = on.client.info("stats")["total_commands_processed"] - commands
    seconds = ended.at_s - begun.at_s
    taken = {name: ended.cpu_us[name] - begun.cpu_us[name] for name in ended.cpu_us}
    console_us = taken.pop("console")
    return LookingCost(sum(taken.values()) / TURNS / len(people), console_us / seconds, done / seconds)


@contextmanager
def looking(visitor: Visitor, many: int) -> Iterator[None]:
    """Meanwhile, so many look at the page Now, and have been sent how things stand."""
    over, seen = Event(), [Event() for _ in range(many)]

    def look(sent: Event) -> None:
        url = f"{visitor.base}/live/now"
        with visitor.session.get(url, stream=True, timeout=HANG_S) as stream:
            for line in stream.iter_lines():
                if line.startswith(b"data:"):
                    sent.set()
                if over.is_set():
                    return

    threads = [Thread(target=look, args=(each,)) for each in seen]
    for thread in threads:
        thread.start()
    try:
        for each in seen:
            assert each.wait(HANG_S), "a viewer is sent nothing"
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
