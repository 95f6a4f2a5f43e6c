"""A process takes up what its folder holds, says what is wrong once for each content, and never stops looking."""

from threading import Event
from typing import NamedTuple

import pytest
import redis
from structlog.testing import capture_logs

from config.telemetry import metrics
from config.telemetry.hot_reload import SurveyReloader, run_periodically
from tests.support.waiting import until

SOON_S = 10


class Survey(NamedTuple):
    name: str
    version: str
    file: str


class Reread(NamedTuple):
    current: tuple = ()
    changed: tuple = ()
    gone: tuple = ()
    refused: dict = {}  # noqa: RUF012 (never changed)
    kept: tuple = ()


def reread(files):
    """A survey's name and content are its file's; it is refused if that is bad, and kept if there is no file."""
    good = [
        Survey(file.partition(".")[0], text.decode(), file)
        for file, text in files.items()
        if text[:3] != b"bad"
    ]
    refused = {file: ["it is bad"] for file, text in files.items() if text[:3] == b"bad"}
    return Reread(tuple(good), tuple(good), (), refused, () if "clinic.yaml" in files else ("clinic",))


class Place:
    """A folder, and whoever watches it."""

    def __init__(self, folder):
        self.folder = folder
        self.taken = []
        self.error = None
        self.watch = SurveyReloader(folder, reread, self.take_up)

    def take_up(self, found):
        if self.error is not None:
            raise self.error
        self.taken.append(found.current)

    def write(self, text, file="clinic.yaml"):
        (self.folder / file).write_text(text)

    def looks(self, times=3):
        """What is logged meanwhile, as (event, what it is about)."""
        with capture_logs() as logs:
            for _ in range(times):
                self.watch.check_folder()
        return [(line["log_level"], line.get("file") or line.get("survey")) for line in logs]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "surveys").mkdir()
    return Place(tmp_path / "surveys")


def test_what_changed_is_taken_up_once(place):
    place.write("one")
    assert place.looks() == [("info", "clinic.yaml")]
    place.write("two")
    assert place.looks() == [("info", "clinic.yaml")]
    assert [[survey.version for survey in taken] for taken in place.taken] == [["one"], ["two"]]


def test_an_error_is_told_once_for_each_content_and_counted(place):
    place.write("one", "other.yaml")
    place.write("bad")
    assert ("error", "clinic.yaml") in place.looks()
    assert metrics.SURVEYS_REFUSED._value.get() == 1
    place.write("two", "other.yaml")
    assert place.looks() == [("info", "other.yaml")], "the bad one is as it was"
    place.write("bad too")
    assert ("error", "clinic.yaml") in place.looks()
    place.write("good")
    place.looks()
    assert metrics.SURVEYS_REFUSED._value.get() == 0
    place.write("bad")
    assert ("error", "clinic.yaml") in place.looks(), "it is wrong again"


def test_a_survey_that_runs_without_a_file_is_told_once(place):
    place.write("one")
    place.looks()
    (place.folder / "clinic.yaml").unlink()
    assert place.looks() == [("error", "clinic")]
    place.write("one", "other.yaml")
    assert place.looks() == [("info", "other.yaml")]
    place.write("one")
    place.looks()
    (place.folder / "clinic.yaml").unlink()
    assert ("error", "clinic") in place.looks(), "it is gone again"


def test_what_cannot_be_taken_up_is_tried_again_at_each_look(place):
    place.write("one")
    place.error = redis.ConnectionError("away")
    place.watch.check_folder()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            place.watch.check_folder()
    place.error = None
    assert place.looks(1) == [("info", "clinic.yaml")]
    assert len(place.taken) == 1


def test_what_is_newer_overtakes_what_waits(place):
    place.write("one")
    place.watch.check_folder()
    place.error = redis.ConnectionError("away")
    place.write("two")
    for _ in range(3):
        try:
            place.watch.check_folder()
        except redis.ConnectionError:
            continue
    place.error = None
    place.looks()
    assert [[survey.version for survey in taken] for taken in place.taken] == [["two"]]


def test_a_folder_that_is_away_changes_nothing_and_is_told_once(place):
    place.write("one")
    place.looks()
    place.folder.rename(place.folder.with_name("away"))
    assert place.looks() == [("error", None)]
    place.folder.with_name("away").rename(place.folder)
    assert place.looks() == []
    assert len(place.taken) == 1


def test_what_is_done_repeatedly_outlives_its_failures_and_tells_each_kind_once():
    failures = [
        redis.ConnectionError("a"),
        redis.ConnectionError("b"),
        ValueError("c"),
        ValueError("c"),
        None,
    ]
    done = Event()

    def do():
        failure = failures.pop(0) if failures else None
        if failure is not None:
            raise failure
        if not failures:
            done.set()

    with capture_logs() as logs, run_periodically(do, 0.001, "a test"):
        until(done.is_set, SOON_S, "it is done at last")
    assert [(line["log_level"], line["what"]) for line in logs] == [
        ("warning", "a test"),
        ("error", "a test"),
    ]
