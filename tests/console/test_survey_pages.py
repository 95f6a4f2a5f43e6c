"""Surveys in the console: what is shown of them, to whom, and the phone beside; what people could write runs nowhere."""

import re

import pytest

from config.store import redis_client
from engine.surveys.survey_reader import read_survey
from tests.console.surveyed import (
    ANN,
    BO,
    CLEO,
    CLINIC,
    EVIL_NAME,
    surveyed_console,
    write_archive,
)
from tests.console.visitor import sign_in, text_of
from tests.support.archive_writer import ArchiveWriter
from tests.support.waiting import until
from workers.console.surveys.engine_phone import MOST_ACTIONS, begin_script

pytestmark = [pytest.mark.processes, pytest.mark.console]

COUNTED_S = 15.0
SCRIPT = begin_script(1_800_000_000_000, "Europe/Paris")


@pytest.fixture
def surveyed(valkey, octopush, tmp_path):
    with surveyed_console(valkey, octopush, tmp_path) as deployment:
        yield deployment


@pytest.fixture
def clinic(surveyed):
    """A deployment whose archive has sessions."""
    surveyed.version = write_archive(surveyed)
    return surveyed


@pytest.fixture
def viewer(surveyed):
    return sign_in(surveyed, "vera", "viewer")


@pytest.fixture
def privacy(surveyed):
    return sign_in(surveyed, "pia", "privacy")


def counted(visitor, path, **query):
    """The page once all that it counts is there."""

    def page():
        found = visitor.get(path, **query)
        assert found.status_code == 200, text_of(found)
        return found if "being counted" not in found.text and "being proved" not in found.text else None

    return until(page, COUNTED_S, f"{path} is counted")


def audited(deployment):
    return text_of(sign_in(deployment, "odo", "operator").get("/audit"))


def hidden(page, name):
    """The value of a hidden field."""
    (value,) = re.findall(f'name="{name}" value="([^"]*)"', page.text)
    return value


# What is shown


def test_the_list_has_versions_open_sessions_findings_and_the_dearest_path(clinic, viewer):
    told = text_of(counted(viewer, "/surveys"))
    assert re.search(
        rf"clinic clinic {clinic.version} clinic.yaml 1 3 no findings en: at most \d+ segments", told
    ), told


def test_the_list_names_a_file_that_is_refused(clinic, viewer):
    clinic.survey_file.with_name("bad.yaml").write_text("survey: <b>bad\nsteps: []\n")
    page = until(
        lambda: found if "bad.yaml" in (found := viewer.get("/surveys")).text else None,
        COUNTED_S,
        "it is named",
    )
    assert "has errors and is refused" in page.text
    assert "<b>bad" not in page.text


def test_a_survey_has_its_graph_with_numbers_its_dearest_path_and_versions(clinic, viewer):
    page = counted(viewer, "/surveys/clinic")
    told = text_of(page)
    assert "3 sessions opened: 1 completed, 1 idle, 1 open." in told
    assert re.search(r"3 reached it \(100 %\)", told)
    assert 'href="/surveys/clinic/people?step=pain"' in page.text
    assert 'class="edge marked"' in page.text
    assert f"{clinic.version} current 1 3" in told
    assert "It ends: at most" in told


def test_what_an_author_wrote_runs_nowhere(clinic, viewer):
    for path in ("/surveys", "/surveys/clinic", "/surveys/clinic/graph.svg"):
        page = counted(viewer, path)
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert "style=" not in page.text
        assert "&lt;script&gt;alert" in page.text


def test_an_older_version_is_shown_as_one(clinic, viewer):
    clinic.survey_file.write_text(CLINIC.replace("Get well soon.", "Bye."))
    until(lambda: "Bye." in viewer.get("/surveys/clinic").text, COUNTED_S, "the new one is current")
    page = counted(viewer, "/surveys/clinic", version=clinic.version)
    assert "This is an older version" in page.text
    assert "Get well soon." in page.text
    assert "sse-connect" not in page.text


def test_a_version_that_the_archive_alone_has_is_shown(clinic, viewer):
    older, _ = read_survey("clinic.yaml", CLINIC.replace("Get well soon.", "So long.").encode())
    with ArchiveWriter(clinic.archive_url) as archive:
        archive.keep_survey(older)
    page = until(
        lambda: [
            it for it in [viewer.get("/surveys/clinic", version=older.version)] if it.status_code == 200
        ],
        COUNTED_S,
        "it is found",
    )[0]
    assert "So long." in page.text


@pytest.mark.parametrize(
    "path",
    ["/surveys/nobody", "/surveys/clinic?version=0", "/surveys/nobody/people", "/live/surveys/nobody",
     "/surveys/nobody/graph.svg", "/surveys/nobody/live-phone", "/surveys/%3Cscript%3E"],
)  # fmt: skip
def test_what_there_is_not_is_not_found(surveyed, viewer, path):
    assert viewer.get(path).status_code == 404


def test_without_an_archive_there_is_the_graph_and_a_sentence(surveyed, viewer):
    told = text_of(counted(viewer, "/surveys/clinic"))
    assert "There is no archive: the process `archive` makes it" in told
    assert "How much pain" in told
    assert "There is no archive" in text_of(counted(viewer, "/surveys"))
    assert "There is no archive" in text_of(viewer.get("/surveys/clinic/people"))


def test_an_archive_that_comes_is_read(surveyed, viewer):
    assert "There is no archive" in text_of(counted(viewer, "/surveys/clinic"))
    write_archive(surveyed)
    until(lambda: "3 sessions opened" in text_of(viewer.get("/surveys/clinic")), COUNTED_S, "it is read")


@pytest.mark.parametrize("steps", [20, 45, 150])
def test_no_page_is_larger_than_100_kb(clinic, viewer, steps):
    routes = [
        f", next: [{{when: {{at_least: 5}}, go: question-{min(n + 2, steps - 1)}}}, {{go: question-{n + 1}}}]"
        for n in range(steps - 1)
    ]
    asked = "".join(
        f"  - {{id: question-{n}, ask: How much of that which hurts is number {n}?, answer: {{type: scale, from: 0, to: 10}}{to}}}\n"
        for n, to in enumerate([*routes, ""])
    )
    source = f"survey: large\nstart: [LARGE]\nsteps:\n{asked}"
    clinic.survey_file.with_name("large.yaml").write_text(source)
    with ArchiveWriter(clinic.archive_url) as archive:
        archive.add_survey(source, "large.yaml")
    until(lambda: viewer.get("/surveys/large").status_code == 200, 5 * COUNTED_S, "it is taken up")
    for path in (
        "/surveys",
        "/surveys/large",
        "/surveys/large/people",
        "/results/large",
        "/results/large?page=2",
    ):
        assert len(counted(viewer, path).content) < 100_000, path
    assert "question-9" in counted(viewer, "/results/large?page=1").text


# Who is at a step


def test_who_is_at_a_step_and_who_was_left_there(clinic, viewer, privacy):
    both = text_of(viewer.get("/surveys/clinic/people", step="bye"))
    assert "+33…22" in both
    assert "+33…33" in both
    assert "+33…78" not in both, "Ann has completed it"
    is_open = text_of(viewer.get("/surveys/clinic/people", step="bye", who="open"))
    assert ("+33…22" in is_open, "+33…33" in is_open) == (True, False)
    left = text_of(viewer.get("/surveys/clinic/people", step="bye", who="left"))
    assert ("+33…22" in left, "+33…33" in left) == (False, True)
    on_version = text_of(viewer.get("/surveys/clinic/people", version=clinic.version, who="open"))
    assert "+33…22" in on_version
    assert BO in viewer_page(privacy)


def viewer_page(visitor):
    return visitor.get("/surveys/clinic/people", step="bye").text


def test_no_number_is_shown_to_a_viewer_nor_stands_in_an_address(clinic, viewer, privacy):
    for visitor in (viewer, privacy):
        page = viewer_page(visitor)
        addresses = " ".join(re.findall(r'href="([^"]*)"', page))
        assert [number for number in (ANN, BO, CLEO) if number[1:] in addresses] == []
    assert [number for number in (ANN, BO, CLEO) if number in viewer_page(viewer)] == []


def test_looking_at_people_and_funnels_is_told_first(clinic, viewer):
    viewer.get("/surveys/clinic")
    viewer_page(viewer)
    told = audited(clinic)
    assert "console vera read funnel clinic" in told
    assert "console vera list people clinic" in told


def test_nothing_is_shown_if_the_audit_cannot_be_told(clinic, viewer, valkey):
    redis_client.run_command(redis_client.connect(valkey.url), ("CONFIG", "SET", "maxmemory", "1"))
    try:
        page = viewer.get("/surveys/clinic/people", step="bye")
        assert page.status_code == 503
        assert "+33…22" not in page.text
    finally:
        redis_client.run_command(redis_client.connect(valkey.url), ("CONFIG", "SET", "maxmemory", "0"))


# The phone by the engine


def test_a_whole_conversation_without_a_script_in_the_browser(surveyed, viewer):
    page = viewer.get("/surveys/clinic")
    for form in (
        {"deed": "send", "text": "START"}, {"deed": "send", "text": EVIL_NAME}, {"deed": "skip", "text": ""},
        {"deed": "send", "text": "7"},
    ):  # fmt: skip
        script = hidden(page, "script").replace("&gt;", ">").replace("&lt;", "<").replace("&#39;", "'")
        page = viewer.post("/surveys/clinic/phone", script=script, **form)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
    told = text_of(page)
    assert "Still there?" in told
    assert "5 min later" in told
    assert "Get well soon." in told
    assert "completed" in told
    assert 'class="step here been" data-step="bye"' in page.text


def test_a_deed_that_cannot_be_done_is_told(surveyed, viewer):
    begun = {"script": SCRIPT}
    assert (
        "Write something first." in viewer.post("/surveys/clinic/phone", **begun, deed="send", text=" ").text
    )
    assert "Nothing is due" in viewer.post("/surveys/clinic/phone", **begun, deed="skip").text


@pytest.mark.parametrize(
    "script",
    ["", "no conversation", SCRIPT + "* completed\n", "# another\n" + SCRIPT, SCRIPT + "! stopped\n",
     SCRIPT + "> x\n" * (MOST_ACTIONS + 1), SCRIPT + "> " + "x" * 30_000, SCRIPT + "+999d\n"],
    ids=["nothing", "noise", "a decision", "another survey", "a provider", "long", "large", "ages"],
)  # fmt: skip
def test_what_is_no_conversation_of_ours_is_refused(surveyed, viewer, script):
    page = viewer.post("/surveys/clinic/phone", script=script, deed="send", text="START")
    assert page.status_code == 400
    assert "This conversation cannot go on" in page.text


def test_a_form_that_is_too_large_is_not_read(surveyed, viewer):
    page = viewer.post("/surveys/clinic/phone", script="x" * 300_000)
    assert page.status_code == 413


def test_a_conversation_that_is_long_enough_does_not_go_on(surveyed, viewer):
    page = viewer.post(
        "/surveys/clinic/phone", script=SCRIPT + "> x\n" * MOST_ACTIONS, deed="send", text="START"
    )
    assert "This conversation is long enough" in page.text
    assert hidden(page, "script").count("x") == MOST_ACTIONS


def test_a_survey_that_was_edited_is_talked_to_as_it_is_now(surveyed, viewer):
    page = viewer.post("/surveys/clinic/phone", script=SCRIPT, deed="send", text="START")
    was = hidden(page, "played")
    surveyed.survey_file.write_text(CLINIC.replace("Your name?", "Who are you?"))
    until(lambda: "Who are you?" in viewer.get("/surveys/clinic").text, COUNTED_S, "it is taken up")
    again = viewer.post("/surveys/clinic/phone", script=SCRIPT + "> START\n", played=was)
    assert "The survey has changed" in again.text
    assert "Who are you?" in again.text


# The phone that is live


def test_there_is_no_live_phone_beside_a_real_provider(surveyed, viewer):
    operator = sign_in(surveyed, "odo", "operator")
    why = "There are live phones only where every channel is simulated."
    assert why in viewer.get("/surveys/clinic", phone="live").text
    refused = operator.post("/surveys/clinic/live-phone", channel="clinic", text="START")
    assert refused.status_code == 409
    assert why in refused.text


def test_a_viewer_does_not_text(surveyed, viewer):
    assert viewer.post("/surveys/clinic/live-phone", channel="clinic", text="START").status_code == 403
