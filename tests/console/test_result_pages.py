"""Results in the console: filters, charts, cost, exports by a link; who may have them, and what the audit is told."""

import csv
import io
import json
import re
from html import unescape

import openpyxl
import pytest

from tests.console.surveyed import ANN, BO, EVIL_NAME, surveyed_console, write_archive
from tests.console.visitor import sign_in, text_of
from tests.support.topologies import TOPOLOGIES
from tests.support.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.console]

COUNTED_S = 15.0


@pytest.fixture(scope="module")
def clinic(request, octopush_process, tmp_path_factory):
    """One for all tests of this file: nothing here changes it but the audit."""
    folder = tmp_path_factory.mktemp("clinic")
    with (
        TOPOLOGIES[request.config.option.redis]() as server,
        surveyed_console(server, octopush_process, folder) as deployment,
    ):
        write_archive(deployment)
        yield deployment


@pytest.fixture(scope="module")
def viewer(clinic):
    return sign_in(clinic, "vera", "viewer")


@pytest.fixture(scope="module")
def privacy(clinic):
    return sign_in(clinic, "pia", "privacy")


@pytest.fixture(scope="module")
def operator(clinic):
    return sign_in(clinic, "odo", "operator")


def counted(visitor, path="/results/clinic", **query):
    """The page once all that it counts is there."""

    def page():
        found = visitor.get(path, **query)
        return [found] if "being counted" not in found.text else None

    (found,) = until(page, COUNTED_S, "answers are counted")
    return found


def told_by_command(deployment, *options):
    return json.loads(deployment.command("results", "clinic", "--json", *options).stdout)


def audited(operator, action):
    """What the audit has of acts of this name, the newest first."""
    rows = operator.get("/audit", action=action).text.split("<tr>")[2:]
    return [" ".join(unescape(re.sub("<[^>]*>", " ", row)).split()) for row in rows]


def test_the_list_leads_to_each_survey(clinic, viewer):
    page = until(
        lambda: [it for it in [viewer.get("/results")] if "/results/clinic" in it.text], COUNTED_S, "listed"
    )[0]
    assert "<script>alert" not in page.text


def test_the_page_says_what_the_command_says(clinic, viewer):
    page, command = text_of(counted(viewer)), told_by_command(clinic)
    assert f"sessions {command['sessions']}" in page
    for state, number in command["states"].items():
        assert f"{state} {number}" in page
    for question in command["questions"]:
        assert f"{question['answered']} answered" in page
    assert "mean 7 · median 7" in page


def test_filters_choose_as_the_commands_options_do(clinic, viewer):
    page = text_of(counted(viewer, where="pain >= 5", state="completed"))
    assert told_by_command(clinic, "--where", "pain >= 5", "--state", "completed")["sessions"] == 1
    assert "sessions 1 completed 1 100 %" in page


@pytest.mark.parametrize(
    "query, why",
    [({"where": "pain"}, "is no condition"), ({"where": "paint > 1"}, "asks nothing called"), ({"since": "soon"}, "is no moment"),
     ({"channel": "clinc"}, "did you mean"), ({"state": "gone"}, "is no state"), ({"variable": "x"}, "is no variable"),
     ({"where": f"name = {ANN}"}, "stays out of addresses"), ({"variable": f"phone={ANN}"}, "stays out of addresses"),
     ({"where": f"name contains {ANN}"}, "stays out of addresses")],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_a_sentence(clinic, viewer, query, why):
    told = text_of(counted(viewer, **query))
    assert why in told
    assert "sessions 3" not in told


def test_a_chart_has_a_title_a_description_and_a_table(clinic, viewer):
    page = counted(viewer).text
    assert '<title id="chart-1-title">Answers to pain</title>' in page
    assert re.search(r'<desc id="chart-1-about">7: 1</desc>', page)
    assert 'aria-labelledby="chart-1-title chart-1-about"' in page
    assert "style=" not in page


def test_what_people_wrote_runs_nowhere(clinic, viewer):
    page = counted(viewer).text
    assert EVIL_NAME not in page
    assert "&lt;script&gt;alert(" in page


def test_a_viewer_sees_no_number_not_even_one_that_somebody_wrote(clinic, viewer, privacy):
    page = counted(viewer).text
    assert [part for part in ("12 34 56", "+33698765432", BO) if part in page] == []
    assert "12 34 56" in counted(privacy).text


def test_cost_is_the_sum_of_what_is_exported(clinic, viewer):
    rows = [
        json.loads(line)
        for line in clinic.command("export", "clinic", "--out", "-", "--format", "jsonl").stdout.splitlines()
    ]
    received, sent, segments = (sum(row[name] for row in rows) for name in ("received", "sent", "segments"))
    assert segments > 0
    told = f"segments told by providers {len(rows)} {received} {sent} {segments} 0.15 EUR"
    assert told in text_of(counted(viewer))


def test_looking_at_results_is_told_first(clinic, viewer, operator):
    counted(viewer, where="pain >= 6")
    assert (
        "console vera read results clinic filters answers ['pain >= 6']"
        in audited(operator, "read results")[0]
    )


def test_a_page_that_renews_itself_while_answers_are_counted_is_one_look(clinic, operator):
    renata = sign_in(clinic, "renata", "viewer")
    for filters in ({"since": "7d"}, {"since": "7d", "state": "completed"}):
        assert renata.get("/results/clinic", **filters).status_code == 200
        for _ in range(3):
            assert renata.get("/results/clinic", {"HX-Request": "true"}, **filters).status_code == 200
    assert renata.get("/results/clinic", {"HX-Request": "true"}, state="idle").status_code == 200
    told = [act for act in audited(operator, "read results") if "console renata" in act]
    assert len(told) == 3, "that of the renewal alone too, as it was of something else"


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_export_is_what_the_command_writes(clinic, privacy, form):
    page = privacy.get("/results/clinic/export", format=form, state="completed")
    assert page.status_code == 200
    assert page.headers["Content-Disposition"] == f'attachment; filename="clinic.{form}"'
    command = clinic.command("export", "clinic", "--out", "-", "--format", form, "--state", "completed")
    assert page.content.decode().splitlines() == command.stdout.splitlines()
    assert command.stdout.count("completed") == 1


def test_an_export_to_excel_opens(clinic, privacy):
    page = privacy.get("/results/clinic/export", format="xlsx", numbers="1")
    sheet = openpyxl.load_workbook(io.BytesIO(page.content))["results"]
    heading, *rows = sheet.iter_rows(values_only=True)
    assert {row[heading.index("number")] for row in rows} >= {ANN, BO}


def test_numbers_are_exported_only_if_they_are_asked_for(clinic, privacy, operator):
    hidden = privacy.get("/results/clinic/export", format="csv")
    assert ANN not in hidden.text
    shown = privacy.get("/results/clinic/export", format="csv", numbers="1")
    numbers = {row["number"] for row in csv.DictReader(io.StringIO(shown.text))}
    assert ANN in numbers
    newest, before = audited(operator, "export")[:2]
    assert "console pia export clinic numbers True, format csv" in newest
    assert "console pia export clinic format csv" in before


def test_an_export_takes_the_role_privacy(clinic, viewer, operator):
    for visitor in (viewer, operator):
        refused = visitor.get("/results/clinic/export", format="csv")
        assert refused.status_code == 403
        assert "This takes the role privacy" in refused.text
        assert "Export" not in counted(visitor).text


def test_another_site_has_nothing_exported(clinic, privacy, operator):
    before = audited(operator, "export")
    for site in ("cross-site", "same-site"):
        refused = privacy.get("/results/clinic/export", headers={"Sec-Fetch-Site": site}, format="csv")
        assert refused.status_code == 403
    assert audited(operator, "export") == before


@pytest.mark.parametrize(
    "query, status", [({"format": "exe"}, 400), ({"labels": "fr"}, 400), ({"where": "x"}, 400), ({"where": f"name={ANN}"}, 400)]
)  # fmt: skip
def test_an_export_that_makes_no_sense_is_refused(clinic, privacy, operator, query, status):
    before = audited(operator, "export")
    assert privacy.get("/results/clinic/export", **query).status_code == status
    assert audited(operator, "export") == before


def test_a_survey_that_nobody_knows_has_no_results(clinic, viewer, privacy):
    assert "no survey is called" in text_of(counted(viewer, "/results/nobody"))
    assert privacy.get("/results/nobody/export").status_code == 400
    assert viewer.get("/results/%3Cscript%3E").status_code == 404


def test_without_an_archive_it_says_so(valkey, octopush, tmp_path):
    with surveyed_console(valkey, octopush, tmp_path) as deployment:
        privacy = sign_in(deployment, "pia", "privacy")
        assert "There is no archive" in text_of(counted(privacy, "/results/clinic"))
        assert "There is no archive" in text_of(counted(privacy, "/results"))
        refused = privacy.get("/results/clinic/export")
        assert refused.status_code == 503
        assert "There is no archive" in refused.text
