"""A process takes up what its folder holds, says what is wrong once for each content, and never stops looking."""

from threading import Event

import pytest
import redis
from structlog.testing import capture_logs

from config.telemetry import metrics
from config.telemetry.hot_reload import SurveyReloader
from config.telemetry.periodic_task import run_periodically
from engine.surveys.survey_registry import SurveyRegistry
from tests.support.waiting import until

SOON_S = 10


class Place:
    """A folder, whoever watches it, and what is current: `clinic` may not go."""

    def __init__(self, folder):
        self.folder = folder
        self.surveys = SurveyRegistry()
        self.taken = []
        self.error = None
        self.watch = SurveyReloader(folder, self.surveys, ["clinic"], self.take_up)

    def take_up(self, found):
        if self.error is not None:
            raise self.error
        self.surveys.replace_current(found.current)
        self.taken.append([survey.title for survey in found.current])

    def write(self, title, file="clinic.yaml"):
        """A survey with this title, which is named after its file; one that is "bad" does not end."""
        steps = "[{id: on, say: On., next: on}]" if title[:3] == "bad" else "[{id: bye, say: Bye.}]"
        name = file.partition(".")[0]
        (self.folder / file).write_text(f"survey: {name}\ntitle: {title}\nstart: [{name}]\nsteps: {steps}\n")

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
    assert place.taken == [["one"], ["two"]]


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


DANGEROUS = {
    "of nested aliases": b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\n" + b"".join(
        b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in b"cdefghij"
    ),
    "with a set": b"survey: clinic\nsteps: !!set {a, b}",
    "with a number of 5,000 digits": b"survey: " + b"9" * 5_000,
    "with numbers for labels": b"survey: clinic\nsteps: [{id: a, ask: b, answer: {type: scale, to: 3, labels: "
    b"{1: {en: x}, 2: {en: 1, fr: 2}}}}]",
}  # fmt: skip


@pytest.mark.parametrize("content", DANGEROUS.values(), ids=DANGEROUS)
def test_a_dangerous_file_is_refused_and_counted_and_other_files_are_taken_up(place, content):
    place.write("one")
    place.write("one", "other.yaml")
    place.looks()
    (place.folder / "clinic.yaml").write_bytes(content)
    place.write("two", "other.yaml")
    assert sorted(place.looks()) == [("error", "clinic.yaml"), ("info", "other.yaml")]
    assert metrics.SURVEYS_REFUSED._value.get() == 1
    assert place.surveys.current("clinic").title == "one"
    assert place.surveys.current("other").title == "two"
    place.write("mended")
    assert place.looks() == [("info", "clinic.yaml")]
    assert metrics.SURVEYS_REFUSED._value.get() == 0


def test_what_is_no_file_is_refused_and_counted_and_other_files_are_taken_up(place):
    place.write("one")
    place.looks()
    (place.folder / "odd.yaml").mkdir()
    place.write("two")
    assert sorted(place.looks()) == [("error", "odd.yaml"), ("info", "clinic.yaml")]
    assert metrics.SURVEYS_REFUSED._value.get() == 1
    (place.folder / "odd.yaml").rmdir()
    assert place.looks() == []
    assert metrics.SURVEYS_REFUSED._value.get() == 0


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
    assert place.taken == [["two"]]


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
