"""A folder of surveys is taken as it is once it has come to rest, however it was changed."""

import os
from time import time_ns

import pytest

from config.settings.survey_folder import SurveyFolder, read_survey_files
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
