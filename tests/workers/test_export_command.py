"""`parley export`: what was answered comes out whole, in every format, and nobody's number with it unless asked for."""

import csv
import json
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, time
from pathlib import Path

import msgspec
import openpyxl
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from config.archive.pseudonyms import read_pseudonyms
from config.store import keyspace
from engine.codebook.codebook import Codebook
from engine.model.events import Answer, Attachment, Invitation, SmsDecided, SmsReceived
from tests.support.archive_writer import T0, ArchiveWriter
from workers.commands.reports import export as export_module
from workers.commands.reports.export import export
from workers.exporting import session_stream, xlsx_writer

SURVEY = """
survey: clinic
languages: [en, fr]
variables: [agentName]
steps:
  - {id: name, ask: "Name?", answer: {type: text}}
  - {id: temperature, ask: "Temperature?", answer: {type: number}}
  - {id: fever, ask: "Fever?", answer: {type: yes_no}}
  - id: colour
    ask: Colour?
    answer: {type: choice, options: [{id: r, label: {en: Red, fr: Rouge}}, {id: g, label: {en: Green, fr: Vert}}]}
  - id: toppings
    ask: Toppings?
    answer: {type: choices, options: [oil, {id: salt, label: {en: Salt, fr: Sel}}, basil]}
  - {id: born, ask: "Born?", answer: {type: date}}
  - {id: at, ask: "When?", answer: {type: time}}
"""
NEXT_SURVEY = SURVEY.replace(
    '{id: temperature, ask: "Temperature?", answer: {type: number}}',
    '{id: temperature, ask: "How warm?", answer: {type: text}}',
)
ANSWERS = [
    ("name", Answer(" Ann ", "Ann"), "text"),
    ("temperature", Answer("98,6 F", 98.6), "number"),
    ("fever", Answer("yes!", True), "yes_no"),
    ("colour", Answer("2", "g", 1), "choice"),
    ("toppings", Answer("1 and 2", ("oil", "salt"), -1, (0, 1)), "choices"),
    ("born", Answer("31/12/1999", "1999-12-31"), "date"),
    ("at", Answer("8:30 am", "08:30"), "time"),
]
ODD = [
    '=HYPERLINK("http://evil","x")', "+1-cmd|' /C calc'!A0", "@SUM(1)", "-2+3", "\tx", "a,b;c", 'say "hi"', "two\nlines", "two\r\nlines",
    "👍🏽 family 👨‍👩‍👧", "مرحبا", "\x07bell", "", " ", "'quoted", "007", "1e5", "NULL", "１２",
]  # fmt: skip


@pytest.fixture
def reach(deploy, monkeypatch):
    """A function: the URL of an archive -> its writer; the command reaches that archive."""
    writers = []

    def open_writer(url):
        deploy()
        monkeypatch.setenv("PARLEY_ARCHIVE_URL", url)
        writers.append(ArchiveWriter(url))
        return writers[-1]

    yield open_writer
    for writer in writers:
        writer.database.close()


@pytest.fixture
def archive(reach, tmp_path):
    return reach(f"sqlite:///{tmp_path / 'archive.db'}")


def call(*arguments):
    return CliRunner().invoke(export, [*map(str, arguments)])


def ok(*arguments):
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened, strict=True))


def wide(tmp_path, *options):
    ok("clinic", "--out", tmp_path / "wide.csv", "--force", *options)
    return read_csv(tmp_path / "wide.csv")


# What is in it


def test_a_session_is_a_row_and_its_answers_are_columns(archive, tmp_path):
    version = archive.add_survey(SURVEY)
    archive.add_session(ANSWERS, version=version, misread="hot")
    (row,) = wide(tmp_path)
    expected = {
        "session": f"{1:016x}", "channel": "clinic", "survey": "clinic", "version": version, "language": "en",
        "state": "completed", "invited": "no", "reference": "", "misreads": "1", "segments": "8", "cost": "0.05",
        "currency": "EUR", "seconds": "35", "opened": "2026-01-01T00:00:02.000Z", "ended": "2026-01-01T00:00:37.000Z",
        "name": "Ann", "temperature": "98.6", "fever": "yes", "colour": "g", "toppings": "oil; salt", "toppings/oil": "1",
        "toppings/salt": "1", "toppings/basil": "0", "born": "1999-12-31", "at": "08:30", "agentName": "",
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


def test_people_are_pseudonyms_unless_numbers_are_asked_for(archive, tmp_path):
    archive.add_survey(SURVEY)
    for sender in ("+33612345678", "+33612345679", "+33612345678"):
        archive.add_session(ANSWERS[:1], sender=sender)
    people = [row["pseudonym"] for row in wide(tmp_path)]
    pseudonyms = read_pseudonyms(archive.database)
    assert people == [pseudonyms.of(f"+3361234567{n}") for n in (8, 9, 8)]
    assert "33612345" not in (tmp_path / "wide.csv").read_text()
    rows = wide(tmp_path, "--numbers")
    assert [row["number"] for row in rows] == ["+33612345678", "+33612345679", "+33612345678"]
    assert "pseudonym" not in rows[0]


@pytest.mark.parametrize(
    "written", ["+33612345678", "0033612345678", "06 12 34 56 78", "33612345678", "0612345678"]
)
def test_a_number_of_ones_own_in_a_variable_or_an_answer_is_a_pseudonym_too(archive, tmp_path, written):
    archive.add_survey(SURVEY)
    invitation = Invitation("a1", "clinic", "clinic", reference=written, variables={"consumerPhone": written})
    archive.add_session([("name", Answer(written, written), "text")], invitation=invitation)
    (row,) = wide(tmp_path, "--raw")
    hidden = {row["pseudonym"]}
    assert {row[each] for each in ("reference", "consumerPhone", "name", "name.raw")} == hidden
    (row,) = wide(tmp_path, "--numbers")
    assert row["consumerPhone"] == written


def test_variables_are_in_the_spelling_in_which_they_came(archive, tmp_path):
    archive.add_survey(SURVEY)
    for n, spelled in enumerate(["agentId", "AGENTID", "agentId"]):
        variables = {spelled: f"{n}", "further": "x"}
        archive.add_session(invitation=Invitation(f"a{n}", "clinic", "clinic", variables=variables))
    rows = wide(tmp_path)
    assert [row["agentId"] for row in rows] == ["0", "1", "2"]
    assert {row["further"] for row in rows} == {"x"}
    assert "agentName" in rows[0], "the survey declares it"
    assert "queueKey" not in rows[0], "nobody has it"


def test_versions_are_merged_and_a_type_that_changed_is_told(archive, tmp_path):
    first = archive.add_survey(SURVEY)
    archive.add_session(ANSWERS, version=first)
    second = archive.add_survey(NEXT_SURVEY)
    archive.add_session([("temperature", Answer("warm", "warm"), "text")], version=second)
    result = ok("clinic", "--out", tmp_path / "merged.csv")
    assert [row["temperature"] for row in read_csv(tmp_path / "merged.csv")] == ["98.6", "warm"]
    assert "Wrote 2 sessions of clinic to" in result.stderr
    assert "2 versions of it merged" in result.stderr
    assert "The type of temperature changed (number, text): its column holds text" in result.stderr


def test_an_answer_of_a_version_that_is_not_kept_has_a_column_and_is_told(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session([("lost", Answer("x", "x"), "text")], version="gone")
    result = ok("clinic", "--out", tmp_path / "lost.csv")
    assert read_csv(tmp_path / "lost.csv")[0]["lost"] == "x"
    assert "lost was answered, and no version of the survey that is kept asks it" in result.stderr


def test_the_last_answer_wins_and_jsonl_and_long_have_all(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(
        [
            ("name", Answer("A", "A"), "text"),
            ("name", Answer("B", "B"), "text"),
            ("name", Answer("C", "C"), "text"),
        ]
    )
    assert [row["name"] for row in wide(tmp_path)] == ["C"]
    assert [row["value"] for row in wide(tmp_path, "--long")] == ["A", "B", "C"]
    ok("clinic", "--out", tmp_path / "x.jsonl")
    answer = json.loads((tmp_path / "x.jsonl").read_text())["answers"]["name"]
    assert (answer["value"], [each["value"] for each in answer["earlier"]]) == ("C", ["A", "B"])


def test_open_and_refused_sessions_are_there(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS[:1], how="")
    archive.add_refusal(Invitation("f1", "clinic", "clinic", reference="r7", campaign="spring"))
    rows = wide(tmp_path)
    assert [(row["state"], row["why"], row["reference"], row["campaign"]) for row in rows] == [
        ("refused", "opted_out", "r7", "spring"),
        ("open", "", "", ""),
    ]
    assert [row["state"] for row in wide(tmp_path, "--state", "open")] == ["open"]


def test_long_has_a_row_for_each_answer_and_each_choice(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    archive.add_session(how="idle")
    rows = wide(tmp_path, "--long")
    told = [
        (
            row["step"],
            row["answer"],
            row["choice"],
            row["type"],
            row["raw"],
            row["value"],
            row["option_place"],
        )
        for row in rows
    ]
    assert told == [
        ("name", "1", "1", "text", " Ann ", "Ann", ""),
        ("temperature", "2", "1", "number", "98,6 F", "98.6", ""),
        ("fever", "3", "1", "yes_no", "yes!", "yes", ""),
        ("colour", "4", "1", "choice", "2", "g", "2"),
        ("toppings", "5", "1", "choices", "1 and 2", "oil", "1"),
        ("toppings", "5", "2", "choices", "1 and 2", "salt", "2"),
        ("born", "6", "1", "date", "31/12/1999", "1999-12-31", ""),
        ("at", "7", "1", "time", "8:30 am", "08:30", ""),
        ("", "", "", "", "", "", ""),
    ]
    assert [row["answer_seconds"] for row in rows][:2] == ["5", "5"]


def test_labels_stand_in_place_of_ids(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    (row,) = wide(tmp_path, "--labels", "fr")
    assert (row["colour"], row["toppings"], row["fever"]) == ("Vert", "oil; Sel", "oui")
    rows = wide(tmp_path, "--labels", "fr", "--long")
    assert [row["value"] for row in rows][2:6] == ["oui", "Vert", "oil", "Sel"]
    result = call("clinic", "--out", tmp_path / "x.csv", "--labels", "fre")
    assert (result.exit_code, "did you mean fr?" in result.output) == (2, True)


def test_filters_choose_sessions(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session([("temperature", Answer("95", 95), "number")])
    archive.add_session([("temperature", Answer("94", 94), "number")])
    assert len(wide(tmp_path, "--where", "temperature >= 95")) == 1
    assert len(wide(tmp_path, "--until", "2025-12-31")) == 0


@pytest.mark.parametrize("options", [(), ("--long",)])
def test_a_survey_without_sessions_is_a_table_without_rows(archive, tmp_path, options):
    archive.add_survey(SURVEY)
    assert wide(tmp_path, *options) == []
    assert (tmp_path / "wide.csv").read_text().startswith("session,pseudonym,channel,")
    for name in ("x.jsonl", "x.xlsx", "x.parquet"):
        ok("clinic", "--out", tmp_path / name, *options)


def test_a_survey_that_is_not_there_is_a_suggestion_and_nothing_is_written(archive, tmp_path):
    archive.add_survey(SURVEY)
    result = call("clinc", "--out", tmp_path / "x.csv")
    assert (result.exit_code, "did you mean clinic?" in result.output) == (1, True)
    assert not (tmp_path / "x.csv").exists()


# CSV


def test_odd_texts_come_back_as_they_were_but_for_an_apostrophe_before_formulas(archive, tmp_path):
    archive.add_survey(SURVEY)
    for text in ODD:
        archive.add_session([("name", Answer(text, text), "text")])
    written = [row["name"] for row in wide(tmp_path)]
    formulas = ODD[:5]
    assert written == [f"'{text}" if text in formulas else text for text in ODD]
    assert [row["name"] for row in wide(tmp_path, "--exact")] == ODD


@pytest.mark.parametrize("harmless", ["-2", "+3.5", "-1,250.5", "+33 6 99 99 99 99"])
def test_a_text_that_is_a_number_is_left_alone(archive, tmp_path, harmless):
    archive.add_survey(SURVEY)
    archive.add_session(
        [("name", Answer(harmless, harmless), "text"), ("temperature", Answer("-2", -2), "number")]
    )
    (row,) = wide(tmp_path)
    assert (row["name"], row["temperature"]) == (harmless, "-2")


def test_a_csv_is_utf_8_and_marked_if_excel_is_to_know(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session([("name", Answer("é👍", "é👍"), "text")])
    wide(tmp_path)
    plain = (tmp_path / "wide.csv").read_bytes()
    assert plain.startswith(b"session,")
    assert plain.count(b"\r\n") == 2
    ok("clinic", "--out", tmp_path / "wide.csv", "--force", "--bom")
    assert (tmp_path / "wide.csv").read_bytes() == b"\xef\xbb\xbf" + plain


def test_a_number_that_no_file_can_hold_is_a_text(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session([("temperature", Answer("1e999", float("inf")), "number")])
    assert [row["temperature"] for row in wide(tmp_path)] == ["inf"]
    ok("clinic", "--out", tmp_path / "x.xlsx")
    ok("clinic", "--out", tmp_path / "x.jsonl")
    result = ok("clinic", "--out", tmp_path / "x.parquet")
    assert "1 values of temperature are left out" in result.stderr


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_standard_output_has_the_same_as_a_file(archive, tmp_path, form):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    ok("clinic", "--out", tmp_path / "x", "--format", form)
    result = ok("clinic", "--out", "-", "--format", form)
    assert result.stdout_bytes == (tmp_path / "x").read_bytes()


# JSON lines


def test_a_line_of_json_is_a_session_with_all_that_it_has(archive, tmp_path):
    archive.add_survey(SURVEY)
    invitation = Invitation("a1", "clinic", "clinic", variables={"agentId": "7"}, asked_at=T0)
    archive.add_session(ANSWERS, invitation=invitation)
    ok("clinic", "--out", tmp_path / "x.jsonl")
    told = json.loads((tmp_path / "x.jsonl").read_text())
    assert (told["opened"], told["invited"], told["asked"]) == (
        "2026-01-01T00:00:02.000Z",
        True,
        "2026-01-01T00:00:00.000Z",
    )
    assert told["variables"] == {"agentId": "7"}
    values = {step: answer["value"] for step, answer in told["answers"].items()}
    assert values == {
        "name": "Ann", "temperature": 98.6, "fever": True, "colour": "g", "toppings": ["oil", "salt"],
        "born": "1999-12-31", "at": "08:30",
    }  # fmt: skip
    assert told["answers"]["temperature"]["raw"] == "98,6 F"


def test_what_the_person_sent_beside_words_is_counted_and_its_places_told(reach, archive_url, tmp_path):
    archive = reach(archive_url)
    archive.add_survey(SURVEY)
    pictured = archive.add_session(ANSWERS[:2], how="")
    archive.add_session(ANSWERS[:1], how="idle")
    (one, two, three) = (Attachment("image/png", f"https://media.example.org/{n}") for n in (1, 2, 3))
    at = T0 + 9_000_000
    received = [
        SmsReceived(at, "clinic", pictured, "p1", "", attachments=(one,)),
        SmsReceived(at + 1, "clinic", pictured, "p2", "yes", step="fever", answer=Answer("yes", True), answer_type="yes_no", attachments=(two, three)),
    ]  # fmt: skip
    archive.add_entries(
        "+33612345678",
        [received[:1], [SmsDecided(at, "clinic", pictured, "x", "fever", "?", "ask"), received[1]]],
    )
    assert [row["attachments"] for row in wide(tmp_path)] == ["3", "0"]
    urls = [each.url for each in (one, two, three)]
    rows = wide(tmp_path, "--long")
    assert [(row["session"] == pictured, row["attachments"], row["attachment_urls"]) for row in rows] == [
        *[(True, "3", " ".join(urls))] * 3,
        (False, "0", ""),
    ]
    ok("clinic", "--out", tmp_path / "x.jsonl")
    told = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(each["attachments"], each["attachment_urls"]) for each in told] == [(3, urls), (0, [])]


# Excel


def sheet_rows(path, name="results"):
    book = openpyxl.load_workbook(path)
    header, *rows = book[name].iter_rows(values_only=True)
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_a_workbook_has_real_numbers_dates_and_texts(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    for text in ODD:
        archive.add_session([("name", Answer(text, text), "text")])
    ok("clinic", "--out", tmp_path / "x.xlsx")
    row, *odd = sheet_rows(tmp_path / "x.xlsx")
    assert (row["temperature"], row["fever"], row["toppings/salt"], row["cost"]) == (98.6, True, 1, 0.05)
    assert row["opened"] == datetime(2026, 1, 1, 0, 0, 2)  # noqa: DTZ001 - Excel knows no zones
    assert row["born"] == datetime(1999, 12, 31)  # noqa: DTZ001 - the same
    texts = [text.replace("\r\n", "\n") for text in ODD]
    assert [(each["name"] or "").replace("_x000D_", "").replace("\r", "") for each in odd] == [
        "_x0007_bell" if "\x07" in text else text for text in texts
    ]


def test_a_workbook_has_the_codebook_as_a_sheet(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    ok("clinic", "--out", tmp_path / "x.xlsx")
    rows = sheet_rows(tmp_path / "x.xlsx", "codebook")
    columns = {row["name"] for row in rows if row["option"] is None or row["column"]}
    assert set(sheet_rows(tmp_path / "x.xlsx")[0]) == columns
    (green,) = [row for row in rows if row["option"] == "g"]
    assert (green["name"], green["place"], green["text fr"]) == ("colour", 2, "Vert")


def test_what_is_more_than_a_sheet_goes_to_the_next(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(xlsx_writer, "MOST_ROWS", 4)
    archive.add_survey(SURVEY)
    sessions = [archive.add_session() for _ in range(7)]
    ok("clinic", "--out", tmp_path / "x.xlsx")
    sheets = openpyxl.load_workbook(tmp_path / "x.xlsx").sheetnames
    assert sheets == ["results", "results 2", "results 3", "codebook"]
    found = [row["session"] for name in sheets[:3] for row in sheet_rows(tmp_path / "x.xlsx", name)]
    assert found == sessions


# Parquet


def test_parquet_has_typed_columns_and_the_codebook(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    archive.add_session(how="idle")
    ok("clinic", "--out", tmp_path / "x.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    row, empty = table.to_pylist()
    assert (row["temperature"], row["fever"], row["born"], row["at"]) == (
        98.6,
        True,
        date(1999, 12, 31),
        time(8, 30),
    )
    assert (row["toppings"], row["toppings/oil"]) == (["oil", "salt"], 1)
    assert row["opened"] == datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)
    assert empty["temperature"] is None
    codebook = msgspec.json.decode(table.schema.metadata[b"parley.codebook"], type=Codebook)
    assert [each.step for each in codebook.questions] == [step for step, _, _ in ANSWERS]
    ok("clinic", "--out", tmp_path / "long.parquet", "--long")
    assert pyarrow.parquet.read_table(tmp_path / "long.parquet").num_rows == 9


def test_labels_fit_the_columns_of_parquet(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    result = ok("clinic", "--out", tmp_path / "x.parquet", "--labels", "fr")
    assert "left out" not in result.stderr
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pylist()[0]["fever"] == "oui"


def test_without_pyarrow_a_sentence_says_how_to_get_it(archive, tmp_path, monkeypatch):
    archive.add_survey(SURVEY)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = call("clinic", "--out", tmp_path / "x.parquet")
    assert (result.exit_code, "pip install 'parley[parquet]'" in result.output) == (1, True)
    assert not list(tmp_path.glob("*x.parquet*"))


# Octopush's files


def test_files_are_as_the_tutorials_script_leaves_them(archive, tmp_path):
    tutorial = (
        '[{"text": "name?", "next": 1}, '
        '{"text": "temperature?", "condition": ">=", "value": 95, "true_next": 2, "false_next": 2}, '
        '{"text": "bye?", "next": -2}]'
    )
    archive.add_survey(tutorial, "tutorial.json")
    answers = [("name", Answer("Ann", "Ann"), "text"), ("temperature", Answer("98.6", 98.6), "number")]
    archive.add_session(answers, survey="tutorial", misread="hot")
    archive.add_session(answers[:1], survey="tutorial", how="idle", sender="+33600000002")
    result = ok("tutorial", "--format", "files", "--out", tmp_path / "results", "--numbers")
    (file,) = (tmp_path / "results").iterdir()
    assert file.name == f"+33612345678-result-{T0 // 1000 + 12}.txt"
    assert file.read_bytes() == b"START\nname?\nAnn\ntemperature?\n98.6\nbye?\nSESSION OVER\n"
    assert "Wrote 1 file to" in result.stderr
    assert "1 other session not completed" in result.stderr


def test_a_reply_that_was_answered_though_it_could_not_be_read_is_in_the_file(archive, tmp_path):
    archive.add_survey(SURVEY)
    session = archive.add_session(ANSWERS[:1])
    again = [
        SmsReceived(T0, "clinic", session, "m1", "hot"),
        SmsDecided(T0, "clinic", session, "m2", "name", "Digits, please.", "reask"),
    ]
    archive.add_entries("+33612345678", [again])
    ok("clinic", "--format", "files", "--out", tmp_path / "results", "--numbers")
    (file,) = (tmp_path / "results").iterdir()
    assert "hot\nDigits, please.\n" in file.read_text()


def test_files_want_numbers_and_an_empty_folder(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    folder = tmp_path / "results"
    assert "say --numbers" in call("clinic", "--format", "files", "--out", folder).output
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    result = call("clinic", "--format", "files", "--out", folder, "--numbers")
    assert (result.exit_code, "is there already" in result.output) == (1, True)
    ok("clinic", "--format", "files", "--out", folder, "--numbers", "--force")
    assert len(list(folder.iterdir())) == 2


# The codebook beside


def test_the_codebook_is_written_beside(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    ok("clinic", "--out", tmp_path / "x.csv", "--codebook", tmp_path / "book.json")
    codebook = msgspec.json.decode((tmp_path / "book.json").read_bytes(), type=Codebook)
    told = {each.name for each in (*codebook.columns, *codebook.variables, *codebook.questions)}
    told |= {
        each.name
        for question in codebook.questions
        if question.kind == "options"
        for each in question.options
    }
    assert set(read_csv(tmp_path / "x.csv")[0]) == told
    ok("clinic", "--out", tmp_path / "x.csv", "--codebook", tmp_path / "book.json", "--long", "--force")
    codebook = msgspec.json.decode((tmp_path / "book.json").read_bytes(), type=Codebook)
    told = {each.name for each in (*codebook.columns, *codebook.variables)}
    assert set(read_csv(tmp_path / "x.csv")[0]) == told


def test_a_line_of_json_keeps_each_answers_own_type_where_it_changed(archive, tmp_path):
    first = archive.add_survey(SURVEY)
    archive.add_session(ANSWERS, version=first)
    second = archive.add_survey(NEXT_SURVEY)
    archive.add_session([("temperature", Answer("warm", "warm"), "text")], version=second)
    ok("clinic", "--out", tmp_path / "x.jsonl")
    told = [json.loads(line)["answers"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [each["temperature"]["value"] for each in told] == [98.6, "warm"]


# Whole or not there, and told


def test_a_file_that_is_there_is_replaced_only_by_force(archive, tmp_path, valkey):
    archive.add_survey(SURVEY)
    (tmp_path / "x.csv").write_text("mine")
    result = call("clinic", "--out", tmp_path / "x.csv")
    assert (result.exit_code, "--force" in result.output) == (1, True)
    assert (tmp_path / "x.csv").read_text() == "mine"
    assert not valkey.client().exists(keyspace.AUDIT_KEY), "nothing was read"
    ok("clinic", "--out", tmp_path / "x.csv", "--force")
    assert (tmp_path / "x.csv").read_text() != "mine"


def test_what_it_writes_is_for_its_owner_alone(archive, tmp_path):
    archive.add_survey(SURVEY)
    for name in ("x.csv", "x.jsonl", "x.xlsx", "x.parquet"):
        ok("clinic", "--out", tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, name
    assert {each.name for each in tmp_path.iterdir() if each.name.startswith(".")} == set()


def test_it_is_audited_before_anything_is_read(archive, tmp_path, valkey):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    ok("clinic", "--out", tmp_path / "x.csv", "--numbers", "--state", "completed")
    ((_, told),) = valkey.client().xrange(keyspace.AUDIT_KEY)
    assert (told[b"action"], told[b"subject"]) == (b"export", b"clinic")
    detail = json.loads(told[b"detail"])
    assert (detail["numbers"], detail["filters"]) == (True, {"states": ["completed"]})


def test_if_the_audit_cannot_be_told_nothing_is_read(archive, tmp_path, valkey):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    valkey.client().set(keyspace.AUDIT_KEY, "no stream")
    result = call("clinic", "--out", tmp_path / "x.csv")
    assert result.exit_code == 1
    assert "nobody's answers are read without it" in result.output
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize("broken", ["write_row", "close"])
def test_a_failure_on_the_way_leaves_nothing(archive, tmp_path, monkeypatch, broken):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"workers.exporting.table_writers.CsvWriter.{broken}", fail)
    result = call("clinic", "--out", tmp_path / "x.csv")
    assert (result.exit_code, "No space left on device" in result.output) == (1, True)
    assert not list(tmp_path.glob("*x.csv*"))


# Streams, on both databases


def test_sessions_come_in_the_order_in_which_they_opened(reach, archive_url, tmp_path, monkeypatch):
    monkeypatch.setattr(session_stream, "SESSIONS_A_READ", 3)
    archive = reach(archive_url)
    archive.add_survey(SURVEY)
    sessions = [archive.add_session(ANSWERS[: n % 8]) for n in range(20)]
    rows = wide(tmp_path)
    assert [row["session"] for row in rows] == sessions
    assert [row["temperature"] for row in rows] == ["98.6" if n % 8 > 1 else "" for n in range(20)]
    assert rows == wide(tmp_path), "twice the same"


def test_what_comes_while_it_is_written_is_not_in_it(reach, archive_url, tmp_path, monkeypatch):
    monkeypatch.setattr(session_stream, "SESSIONS_A_READ", 2)
    archive = reach(archive_url)
    archive.add_survey(SURVEY)
    for _ in range(6):
        archive.add_session(ANSWERS)
    stream = export_module.export_table

    def export_while_a_campaign_runs(connection, filters, columns, choices, output, advance):
        def advance_and_add(number):
            archive.add_session([("name", Answer("late", "late"), "text")])
            archive.add_entries(
                "+33612345678",
                [
                    [
                        SmsReceived(
                            T0,
                            "clinic",
                            f"{6:016x}",
                            "late",
                            "late",
                            step="name",
                            answer=Answer("late", "late"),
                        )
                    ]
                ],
            )
            advance(number)

        return stream(connection, filters, columns, choices, output, advance_and_add)

    monkeypatch.setattr(export_module, "export_table", export_while_a_campaign_runs)
    assert [row["name"] for row in wide(tmp_path)] == ["Ann"] * 6


@pytest.mark.processes
def test_a_kill_on_the_way_leaves_no_file_of_that_name(archive, tmp_path, valkey):
    archive.add_survey(SURVEY)
    for _ in range(3):
        archive.add_session(ANSWERS)
    script = (
        "import os, sys\n"
        "from workers.exporting import table_writers\n"
        "def stall(self, cells):\n"
        "    print('writing', flush=True); sys.stdin.read()\n"
        "table_writers.CsvWriter.write_row = stall\n"
        "from workers.commands.reports.export import export\n"
        "export(['clinic', '--out', sys.argv[1]])\n"
    )
    target = tmp_path / "x.csv"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path.cwd(),
    )
    with process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert list(tmp_path.glob(".x.csv.*.part"))
    ok("clinic", "--out", target)
    assert len(read_csv(target)) == 3


def test_it_is_silent_where_standard_error_is_no_terminal(archive, tmp_path):
    archive.add_survey(SURVEY)
    archive.add_session(ANSWERS)
    assert len(ok("clinic", "--out", tmp_path / "x.csv").stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--out", "x.txt"], "its ending says no format"),
        (["--out", "-"], "its ending says no format"),
        (["--out", "-", "--format", "xlsx"], "only csv and jsonl go to standard output"),
        (["--out", "nowhere/x.csv"], "there is no folder nowhere"),
        (["--out", "x.csv", "--state", "complete"], "did you mean completed?"),
    ],
)
def test_a_mistake_is_a_sentence(archive, tmp_path, monkeypatch, arguments, said):
    archive.add_survey(SURVEY)
    monkeypatch.chdir(tmp_path)
    result = call("clinic", *arguments)
    assert result.exit_code in (1, 2)
    assert said in result.output
