"""Where is the last release's code, and the environment that it wants? In a git worktree of its commit, for as long as it
is needed; with this one's environment if it wants the same packages, else with one of its own, which is kept in `var`.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from tests.support.processes import ROOT, THIS, Release

LOCKS = ("requirements-dev.lock", "requirements.lock")
"""What has all that `make` needs: the first of these that a release has. 0.1.0 had one lock file."""

ENVIRONMENTS = ROOT / "var" / "upgrade"

Install = Callable[[Path, Path], None]
"""Makes an environment, for a checkout: its folder, and the checkout's."""


class UnknownReleaseError(Exception):
    """There is no such commit here."""


def last_release() -> str:
    """Its commit or tag."""
    return Path(__file__).with_name("last_release").read_text().strip()


def lock_of(checkout: Path) -> Path:
    return next(file for file in (checkout / name for name in LOCKS) if file.exists())


def install(environment: Path, checkout: Path) -> None:
    """As the Makefile does: exactly the versions of the lock file, and `parley`."""
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [
        str(environment / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "--require-hashes", "-r", str(lock_of(checkout))], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(checkout)], check=True)


@contextmanager
def checked_out(
    commit: str, repository: Path = ROOT, environments: Path = ENVIRONMENTS, install: Install = install
) -> Iterator[Release]:
    """Meanwhile, the release of this commit can be run. Raises UnknownReleaseError."""
    if _git(repository, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise UnknownReleaseError(f"{commit} is no commit of this clone: git fetch --tags --unshallow")
    with tempfile.TemporaryDirectory(prefix="parley-release-") as folder:
        root = Path(folder).resolve() / "checkout"
        _git(repository, "worktree", "prune")
        _git(repository, "worktree", "add", "--quiet", "--detach", str(root), commit).check_returncode()
        try:
            yield Release(root, _programs(root, environments, install))
        finally:
            _git(repository, "worktree", "remove", "--force", str(root)).check_returncode()


def _programs(root: Path, environments: Path, install: Install) -> Path:
    lock = lock_of(root).read_bytes()
    if lock == lock_of(ROOT).read_bytes():
        return THIS.programs
    environment = environments / blake2b(lock, digest_size=8).hexdigest()
    done = environment / "installed"
    if not done.exists():
        install(environment, root)
        done.touch()
    return environment / "bin"


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", repository, *arguments], check=False, capture_output=True)
