"""The last release's code is had whole, whatever lies here; and everything is replaced by it and by this one's in turn."""

import shutil
import subprocess

import pytest

from tests.support.processes import ROOT, THIS, Process, Release
from tests.upgrade.checkout import LOCK, UnknownReleaseError, checked_out, last_release
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
    shutil.copy(ROOT / LOCK, folder)
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
    (repository / LOCK).write_text("other==1\n")
    commit(repository, "other packages")
    made = []

    def install(environment, checkout):
        made.append((checkout / LOCK).read_text())
        environment.mkdir(parents=True)

    for _ in range(2):
        with checked_out("HEAD", repository, tmp_path, install) as last:
            assert last.programs.is_relative_to(tmp_path)
    assert made == ["other==1\n"]


@pytest.mark.processes
def test_a_clone_without_the_release_says_how_to_have_it(repository, tmp_path):
    with pytest.raises(UnknownReleaseError, match="git fetch"), checked_out("0" * 40, repository, tmp_path):
        pass


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
