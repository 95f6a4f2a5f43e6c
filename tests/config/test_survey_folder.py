"""A folder of surveys is taken as it is once it has come to rest, however it was changed."""

import os
from pathlib import Path
from time import time_ns

import pytest

from config.settings.survey_folder import SurveyFolder, read_survey_files
from engine.surveys.documents import FILE_LIMITS, UnreadableFile
from tests.support.waiting import used_s

LONG_AGO_NS = time_ns() - 60_000_000_000


@pytest.fixture(params=["just written", "at rest"])
def surveys(tmp_path, monkeypatch, request):
    """A function: file name, content -> the file, written long ago. The folder is `tmp_path / "surveys"`."""
    (tmp_path / "surveys").mkdir()
    if request.param == "at rest":
        monkeypatch.setattr("config.settings.survey_folder.MTIME_GRANULARITY_NS", -60_000_000_000)

    def write(name, content, at_ns=LONG_AGO_NS):
        file = tmp_path / "surveys" / name
        file.write_bytes(content)
        os.utime(file, ns=(at_ns, at_ns))
        return file

    write("clinic.yaml", b"one")
    return write


@pytest.fixture
def folder(surveys, tmp_path):
    """The folder, looked at until it was at rest."""
    folder = SurveyFolder(tmp_path / "surveys")
    assert folder.changed_files() is None, "one look tells nothing"
    assert folder.changed_files() == {"clinic.yaml": b"one"}
    assert folder.changed_files() is None
    return folder


def test_what_is_being_written_is_not_taken(folder, surveys):
    surveys("clinic.yaml", b"tw")
    assert folder.changed_files() is None
    surveys("clinic.yaml", b"two")
    assert folder.changed_files() is None
    assert folder.changed_files() == {"clinic.yaml": b"two"}
    assert folder.changed_files() is None


def test_files_that_come_and_go_are_news(folder, surveys):
    surveys("b.json", b"[]").with_name("clinic.yaml").unlink()
    assert folder.changed_files() is None
    assert folder.changed_files() == {"b.json": b"[]"}


def test_what_comes_back_to_what_it_was_is_no_news(folder, surveys):
    surveys("clinic.yaml", b"two")
    assert folder.changed_files() is None
    surveys("clinic.yaml", b"one")
    assert [folder.changed_files() for _ in range(3)] == [None] * 3


def test_other_files_are_none(folder, surveys):
    for name in (".clinic.yaml.swp", ".hidden.yaml", "clinic.yaml~", "notes.txt"):
        surveys(name, b"two")
    assert [folder.changed_files() for _ in range(3)] == [None] * 3


def test_a_mount_that_swaps_a_link_is_seen(tmp_path):
    """As Kubernetes does it: the files are links through `..data`, which is a link that is replaced."""
    mount = tmp_path / "mount"
    for name, content in (("..1", b"one"), ("..2", b"two")):
        (mount / name).mkdir(parents=True)
        (mount / name / "clinic.yaml").write_bytes(content)
    (mount / "..data").symlink_to("..1")
    (mount / "clinic.yaml").symlink_to("..data/clinic.yaml")
    folder = SurveyFolder(mount)
    assert [folder.changed_files() for _ in range(2)][1] == {"clinic.yaml": b"one"}
    (mount / "..new").symlink_to("..2")
    (mount / "..new").rename(mount / "..data")
    assert [folder.changed_files() for _ in range(2)][1] == {"clinic.yaml": b"two"}


def test_a_second_change_that_the_clock_of_the_files_does_not_show_is_seen(folder, surveys, monkeypatch):
    """Same size, same time."""
    now_ns = time_ns()
    monkeypatch.setattr("config.settings.survey_folder.MTIME_GRANULARITY_NS", 60_000_000_000)
    monkeypatch.setattr("config.settings.survey_folder._file_stamp", lambda file: (now_ns, now_ns, 3, 1))
    surveys("clinic.yaml", b"two")
    assert folder.changed_files() is None
    surveys("clinic.yaml", b"six")
    assert folder.changed_files() is None
    assert folder.changed_files() == {"clinic.yaml": b"six"}


def test_a_folder_that_cannot_be_read_is_an_error_and_then_as_before(folder, surveys, tmp_path):
    (tmp_path / "surveys").rename(tmp_path / "away")
    with pytest.raises(OSError, match="surveys"):
        folder.changed_files()
    (tmp_path / "away").rename(tmp_path / "surveys")
    assert [folder.changed_files() for _ in range(2)] == [None, None]


def test_a_look_at_fifty_files_that_rest_reads_none_and_costs_little(surveys, tmp_path, monkeypatch):
    for place in range(49):
        surveys(f"{place}.yaml", b"x" * 20_000)
    folder = SurveyFolder(tmp_path / "surveys")
    monkeypatch.setattr("config.settings.survey_folder.MTIME_GRANULARITY_NS", -60_000_000_000)
    assert [len(folder.changed_files() or ()) for _ in range(2)] == [0, 50]
    monkeypatch.setattr(
        "config.settings.survey_folder.read_survey_files", lambda path: pytest.fail("read again")
    )
    assert folder.changed_files() is None
    assert min(used_s(folder.changed_files) for _ in range(5)) < 0.005


def test_files_are_read_by_name(surveys, tmp_path):
    assert read_survey_files(tmp_path / "surveys") == {"clinic.yaml": b"one"}


NO_FILES = {
    "folder": (Path.mkdir, "it cannot be read (Is a directory)"),
    "pipe": (os.mkfifo, "it is no regular file"),
    "endless": (lambda file: file.symlink_to("/dev/zero"), "it is no regular file"),
    "dangling": (lambda file: file.symlink_to("nowhere"), "it cannot be read (No such file or directory)"),
    "circle": (lambda file: file.symlink_to(file.name), "it cannot be read (Too many levels of symbolic links)"),
}  # fmt: skip


@pytest.mark.parametrize("make, why", NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file_keeps_no_other_from_being_read(folder, surveys, tmp_path, make, why):
    odd = tmp_path / "surveys" / "odd.yaml"
    make(odd)
    surveys("clinic.yaml", b"two")
    assert folder.changed_files() is None
    assert folder.changed_files() == {"clinic.yaml": b"two", "odd.yaml": UnreadableFile(why)}
    assert folder.changed_files() is None
    odd.rename(tmp_path / "away")
    surveys("odd.yaml", b"now it is one")
    assert [folder.changed_files() for _ in range(2)][1] == {
        "clinic.yaml": b"two",
        "odd.yaml": b"now it is one",
    }


def test_a_file_that_can_be_read_again_is_read_though_nothing_shows_it(folder, tmp_path, monkeypatch):
    """As on a network's disk that was away."""

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("config.settings.survey_folder._open_without_waiting", fail)
        monkeypatch.setattr("config.settings.survey_folder._file_stamp", lambda file: (1, 1, 1, 1))
        gone = {"clinic.yaml": UnreadableFile("it cannot be read (Input/output error)")}
        assert [folder.changed_files() for _ in range(2)] == [None, gone]
        assert folder.changed_files() is None
    assert [folder.changed_files() for _ in range(2)] == [None, {"clinic.yaml": b"one"}]


def test_of_a_huge_file_a_byte_more_is_read_than_is_read_of_any(folder, tmp_path):
    with (tmp_path / "surveys" / "clinic.yaml").open("r+b") as file:
        file.truncate(10 * FILE_LIMITS.size)
    assert [folder.changed_files() for _ in range(2)][1].keys() == {"clinic.yaml"}
    assert len(read_survey_files(tmp_path / "surveys")["clinic.yaml"]) == FILE_LIMITS.size + 1
