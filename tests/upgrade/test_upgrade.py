"""The last release's code is had whole, whatever lies here; and everything is replaced by it and by this one's in turn."""

import shutil
import subprocess
import sys

import msgspec
import pytest

from config.store import keyspace
from engine.model.events import (
    Answer,
    Attachment,
    DeadLetterAdded,
    DeliveryReceipt,
    InboundSms,
    Invitation,
    ReceiptRecorded,
    SessionInvited,
    SmsDecided,
    SmsPart,
    SmsReceived,
    SmsSent,
    decode_inbound,
    decode_records,
    encode_event,
)
from engine.model.lane import Lane, PartialSms, decode_lane, encode_lane
from tests.support.processes import ROOT, THIS, Process, Release
from tests.upgrade.checkout import LOCKS, UnknownReleaseError, checked_out, last_release, lock_of
from tests.upgrade.rollout import STAGES, StagedRollout, running_root

ROLES = ("web", "clock")


class Running:
    """A deployment's processes, which nobody but the test starts again."""

    def __init__(self, processes):
        self.processes = processes

    def restart(self):
        for process in self.processes:
            if not process.alive:
                process.restart()


@pytest.fixture
def repository(tmp_path):
    """A clone in which a release was made, and then somebody went on working."""
    folder = tmp_path / "clone"
    folder.mkdir()
    shutil.copy(lock_of(ROOT), folder / LOCKS[-1])
    git(folder, "init", "--quiet")
    commit(folder, "0.1.0")
    git(folder, "tag", "0.1.0")
    commit(folder, "more")
    return folder


def git(folder, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True
    ).stdout


def commit(folder, says):
    (folder / "Procfile").write_text(f"web: {says}\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", says)


def nothing(environment, checkout):
    pytest.fail("the environment is here already")


def test_the_last_release_is_named():
    assert len(last_release().split()) == 1


@pytest.mark.processes
def test_what_a_release_wants_is_had_from_its_commit_and_nothing_of_it_is_left(repository, tmp_path):
    with checked_out("0.1.0", repository, tmp_path, nothing) as last:
        assert (last.root / "Procfile").read_text() == "web: 0.1.0\n"
        assert last.programs == THIS.programs
    assert not last.root.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


@pytest.mark.processes
def test_a_release_that_wants_other_packages_gets_an_environment_of_its_own_once(repository, tmp_path):
    (repository / LOCKS[0]).write_text("other==1\n")
    commit(repository, "other packages")
    made = []

    def install(environment, checkout):
        made.append(lock_of(checkout).read_text())
        environment.mkdir(parents=True)

    for _ in range(2):
        with checked_out("HEAD", repository, tmp_path, install) as last:
            assert last.programs.is_relative_to(tmp_path)
    assert made == ["other==1\n"]


@pytest.mark.processes
def test_a_clone_without_the_release_says_how_to_have_it(repository, tmp_path):
    with pytest.raises(UnknownReleaseError, match="git fetch"), checked_out("0" * 40, repository, tmp_path):
        pass


PICTURE = (Attachment("image/png", "https://media.example.org/1"),)
INVITATION = Invitation("i1", "clinic", "clinic", campaign="winter", asked_at=1, not_before=2, starts_after=3)
MAIL = [
    InboundSms("e1", "clinic", "Look", attachments=PICTURE),
    SmsPart("e2", "clinic", "Look", "7", 1, 2, attachments=PICTURE),
    DeliveryReceipt(
        "e3", "clinic", "t1", "DELIVERED", "delivered", segments=2, cost_micros=55_000, currency="EUR"
    ),
    INVITATION,
]
RECORDS = [
    SessionInvited(1, "clinic", "i1", INVITATION),
    SmsReceived(1, "clinic", "i1", "e1", "98.6", step="t", answer=Answer("98.6", 98.6), answer_type="number", attachments=PICTURE),
    SmsDecided(1, "clinic", "i1", "i1x0", "t", "Temperature?", "ask"),
    SmsSent(1, "clinic", "i1", "i1x0", "t1", 2, 55_000, "EUR"),
    ReceiptRecorded(1, "clinic", "t1", "DELIVERED", "delivered", segments=2, cost_micros=55_000, currency="EUR"),
]  # fmt: skip
LANE = Lane(partial_sms=[PartialSms("clinic", "", "7", 2, 1, {1: ("e2", "Look")}, {1: PICTURE})])
NEW_FIELDS = {
    InboundSms: {"attachments"},
    SmsPart: {"attachments"},
    DeliveryReceipt: {"segments", "cost_micros", "currency"},
    Invitation: {"campaign", "asked_at", "not_before", "starts_after"},
    SmsReceived: {"step", "answer", "answer_type", "attachments"},
    SmsDecided: {"kind"},
    SmsSent: {"segments", "cost_micros", "currency"},
    ReceiptRecorded: {"segments", "cost_micros", "currency"},
    PartialSms: {"attachments"},
}
"""What the last release does not know, each with a value above."""


def no_packages(environment, checkout):
    """Decoders want none that are not here."""
    environment.mkdir()


READ_AND_WRITE = """
import sys
from engine.model import events, lane

*mail, records, state = map(bytes.fromhex, sys.stdin.read().split())
for each in mail:
    print(events.encode_event(events.decode_inbound(each)).hex())
print(events.encode_event(events.decode_records(records)).hex())
print(lane.encode_lane(lane.decode_lane(state)).hex())
"""


@pytest.mark.processes
def test_the_last_release_reads_what_this_one_writes_and_the_other_way_round(tmp_path):
    """All of it but the fields that it does not know, which it drops where it writes again."""
    written = [*map(encode_event, MAIL), encode_event(RECORDS), encode_lane(LANE)]
    try:
        with checked_out(last_release(), environments=tmp_path, install=no_packages) as last:
            done = subprocess.run(
                [sys.executable, "-c", READ_AND_WRITE],
                cwd=last.root,
                env={"PYTHONPATH": str(last.root)},
                input=" ".join(each.hex() for each in written),
                capture_output=True,
                text=True,
                check=True,
            )
    except UnknownReleaseError as e:
        pytest.skip(str(e))
    *mail, records, state = map(bytes.fromhex, done.stdout.split())
    assert [decode_inbound(each) for each in mail] == as_known_before(MAIL)
    assert decode_records(records) == as_known_before(RECORDS)
    assert decode_lane(state) == as_known_before(LANE)


SCAN = """
import sys
from config.store import redis_client
from workers.store import archive

for entry in archive.scan_entries(redis_client.connect(sys.argv[1]), 0):
    print(entry.sender, len(entry.records))
"""


@pytest.mark.processes
def test_the_last_release_reads_nothing_where_a_dead_letter_is_told_of(tmp_path, valkey):
    client, sender = valkey.client(), "+33600000001"
    letter = encode_event(DeadLetterAdded(1, "clinic", "i1", "e1", "event", "engine_error"))
    entries = [
        {"e": encode_event(RECORDS)},
        {"e": encode_event([]), "d": letter},
        {"e": encode_event(RECORDS[:1])},
    ]
    for fields in entries:
        client.xadd(keyspace.events_key(0), {"to": sender} | fields)
    try:
        with checked_out(last_release(), environments=tmp_path, install=no_packages) as last:
            done = subprocess.run(
                [sys.executable, "-c", SCAN, valkey.url],
                cwd=last.root,
                env={"PYTHONPATH": str(last.root)},
                capture_output=True,
                text=True,
                check=True,
            )
    except UnknownReleaseError as e:
        pytest.skip(str(e))
    assert done.stdout.splitlines() == [f"{sender} {len(RECORDS)}", f"{sender} 0", f"{sender} 1"]


def as_known_before(value):
    """What is left of it where the new fields are not known."""
    match value:
        case list():
            return [as_known_before(each) for each in value]
        case msgspec.Struct():
            known = set(value.__struct_fields__) - NEW_FIELDS.get(type(value), set())
            return type(value)(**{field: as_known_before(getattr(value, field)) for field in known})
        case _:
            return value


def test_each_half_works_beside_the_other_release_as_the_newer_and_as_the_older():
    assert [stage.halves for stage in STAGES if len(set(stage.halves)) > 1] == [
        ("this", "last"),
        ("last", "this"),
    ]
    assert STAGES[0].halves == STAGES[-1].halves == ("last", "last")
    assert ("this", "this") in [stage.halves for stage in STAGES]
    assert sum(stage.lasts for stage in STAGES) == pytest.approx(1)


@pytest.mark.processes
def test_every_process_runs_what_each_stage_wants_before_the_next_comes(tmp_path):
    last, this = (Release(tmp_path / name, THIS.programs) for name in ("last", "this"))
    for each in (last, this):
        each.root.mkdir()
    running = Running(
        [Process(role, "sleep 600", {}, tmp_path / "log", last) for role in ROLES for _ in range(2)]
    )
    rollout = StagedRollout(last, this)
    ran = []
    try:
        for moment in range(200):
            rollout.step(running, moment, 10)
            running.restart()
            if (now := [running_root(each).name for each in running.processes]) not in ran[-1:]:
                ran.append(now)
            if rollout.over:
                break
    finally:
        for process in running.processes:
            process.kill9()
    assert ran == [[name for _ in ROLES for name in stage.halves] for stage in STAGES]
    assert rollout.replaced == 4 * len(ROLES)


@pytest.mark.processes
def test_a_stage_that_is_not_reached_is_not_passed(tmp_path):
    """One of the processes that it wants is dead whenever somebody looks."""
    last = Release(tmp_path, THIS.programs)
    processes = [Process(role, "sleep 600", {}, tmp_path / "log", last) for role in ROLES]
    rollout = StagedRollout(last, last)
    processes[0].kill9()
    try:
        for moment in range(100):
            rollout.step(Running(processes), moment, 10)
    finally:
        processes[1].kill9()
    assert not rollout.over
