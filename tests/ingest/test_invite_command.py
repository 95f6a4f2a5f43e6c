"""`parley invite`: a person or a table of people, through the API, nobody twice."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import process_time
from typing import ClassVar

import msgspec
import pytest
from click.testing import CliRunner

from config.invitations import invitation_client
from config.invitations.invitation_client import InvitationApi
from config.invitations.people_table import PeopleFileError, read_people
from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from ingest.commands import invite as command
from ingest.commands.invite import invite
from tests.support.inviting import KEY, key_table
from workers.store.optouts import open_opt_out_list

SHARDS = DEFAULT_SHARDS
CONFIG = """
[channels.clinic]
provider = "octopush"
token_env = "CLINIC"
number = "+33700000001"
surveys = ["clinic"]
"""
SECRETS = {"CLINIC": "s3cr3t", "PARLEY_OCTOPUSH_LOGIN": "l", "PARLEY_OCTOPUSH_KEY": "k"}


@pytest.fixture
def run(web, tmp_path, monkeypatch):
    """A function: arguments of the command -> its result, against an API that takes KEY."""
    (tmp_path / "parley.toml").write_text(CONFIG + key_table())
    base = web(PARLEY_CONFIG=str(tmp_path / "parley.toml"), **SECRETS)
    monkeypatch.setenv("PARLEY_PUBLIC_URL", base + "/")
    monkeypatch.setenv("PARLEY_API_KEY", KEY)
    return lambda *arguments: CliRunner().invoke(invite, [*map(str, arguments), "--survey", "clinic"])


@pytest.fixture
def table(tmp_path):
    """A function: lines -> a file of them."""

    def write(*lines, encoding="utf-8"):
        path = tmp_path / "people.csv"
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return write


def held(valkey):
    return sum(valkey.client().zcard(keyspace.held_ids_key(k, "clinic")) for k in range(SHARDS))


def test_one_person(run, valkey):
    done = run("+33612345678", "--variable", "agentid=7", "--language", "en")
    assert (done.exit_code, done.stdout) == (0, "1 invited, 0 had been before, 0 refused.\n")
    assert held(valkey) == 1


def test_one_person_by_reference_is_invited_once(run, valkey):
    for said in ("1 invited, 0 had been before", "0 invited, 1 had been before"):
        assert said in run("+33612345678", "--reference", "r").stdout
    assert held(valkey) == 1


def test_the_same_table_again_invites_nobody_twice_and_a_longer_one_those_that_are_new(run, table, valkey):
    people = [f"+336{12_000_000 + n:08d};Ada {n}" for n in range(30)]
    file = table("phone;agentid", *people)
    assert run("--csv", file).stdout == "30 invited, 0 had been before, 0 refused.\n"
    assert run("--csv", file).stdout == "0 invited, 30 had been before, 0 refused.\n"
    file = table("phone;agentid", "+33698765432;Bob", *people)
    assert run("--csv", file).stdout == "1 invited, 30 had been before, 0 refused.\n"
    assert (
        run("--csv", file, "--reference", "november").stdout == "31 invited, 0 had been before, 0 refused.\n"
    )
    assert held(valkey) == 62


def test_what_is_wrong_is_told_by_line_and_the_rest_is_invited(run, table, valkey):
    file = table("identifier,language", "+33612345678,en", "", "+33123456789,xx", "06,")
    done = run("--csv", file)
    assert done.exit_code == 1
    assert done.stdout == "1 invited, 0 had been before, 2 refused.\n"
    name, _, header, _, *told = done.stderr.splitlines()
    assert (name, header.split()) == (f"{file}:", ["refused", "why", "lines"])
    assert sorted((line.split()[0], line.split()[1], line.split()[-1]) for line in told if line.strip()) == [
        ("1", "identifier:", "4"), ("1", "identifier:", "5"), ("1", "language:", "4"),
    ]  # fmt: skip


def test_what_is_wrong_with_many_rows_is_summed_up(run, table, valkey):
    """The most frequent first, with the first rows of each; of one person there is no table."""
    done = run("--csv", table("identifier", *["06"] * 9, *["+33123456789"] * 2, "+33612345678"))
    assert done.stdout == "1 invited, 0 had been before, 11 refused.\n"
    told = [line.split() for line in done.stderr.splitlines()[4:] if line.strip()]
    assert [(line[0], " ".join(line[-6:])) for line in told] == [
        ("9", "2, 3, 4, 5, 6, …"), ("2", "full, such as +33612345678 11, 12"),
    ]  # fmt: skip
    alone = run("06")
    assert alone.stderr == "identifier: expected a mobile number in full, such as +33612345678\n"


def test_numbers_may_be_as_they_are_written_in_a_country(run, table, valkey):
    file = table(
        "phone,name", "06 12 34 56 78,a", "+447400123456,b", "0047 406 12 345,c", "612345679,d", "x,e"
    )
    done = run("--csv", file, "--country", "fr", "--json")
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == [202, 202, 202, 202, 422]
    senders = {
        mail.partition(b"\0")[0].decode()
        for k in range(SHARDS)
        for mail in valkey.client().hvals(keyspace.held_invitations_key(k))
    }
    assert senders == {"+33612345678", "+447400123456", "+4740612345", "+33612345679"}
    in_full = table("phone,name", "+33612345678,a", "+447400123456,b")
    assert run("--csv", in_full).stdout == "0 invited, 2 had been before, 0 refused.\n"
    assert run("06 12 34 56 78", "--country", "FR").exit_code == 0
    wrong = run("--csv", file, "--country", "FRA")
    assert (wrong.exit_code, "--country FRA: expected a country's two letters" in wrong.stderr) == (2, True)


def test_json_is_a_line_for_each(run, table):
    file = table("identifier,clientReference", "+33612345678,a", "+33123456789,b")
    done = run("--csv", file, "--json")
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["line"], first["reference"], first["status"], len(first["id"])) == (2, "a", 202, 16)
    assert (second["status"], second["errors"][0]["pointer"]) == (422, "/identifier")
    assert done.exit_code == 1


def test_a_dry_run_sends_nothing(run, table, valkey):
    file = table("identifier,agentid", "+33612345678,1", "+33612345678,1")
    done = run("--csv", file, "--dry-run", "--content", "Hello,")
    assert done.exit_code == 0
    assert "1 would be invited, 1 had been before, 0 refused." in done.stdout
    assert '"agentid": "1"' in done.stdout
    assert (
        not valkey.client().keys("*held*")
        + valkey.client().keys("*reference*")
        + valkey.client().keys("*session*")
    )


def test_a_dry_run_says_who_would_be_refused_when_the_last_has_their_turn_and_what_it_costs(
    run, table, valkey
):
    """One has opted out, one is invited already, one reference is used twice for different people, one number is none."""
    optouts = open_opt_out_list(valkey.client(), SHARDS, "")
    optouts.add_opt_outs([("+33612345670", "clinic")], "an operator's list")
    assert run("+33612345671", "--reference", "before").exit_code == 0
    people = [f"+3361234{n:04d},r{n}" for n in range(200)]
    rows = ["+33612345670,gone", "+33612345671,before", "+33612345672,r0", "06,none", *people]
    done = run("--csv", table("phone,clientReference", *rows), "--dry-run", "--price", "0.05")
    assert done.exit_code == 1
    assert "200 would be invited, 1 had been before, 3 refused." in done.stdout
    (ends,) = re.findall(r"their turn after (\S+ \S+) UTC", done.stdout)
    left = datetime.fromisoformat(ends + "+00:00") - datetime.now(UTC)
    assert timedelta(seconds=20) < left < timedelta(seconds=45), "five a second"
    segments, each, cost = re.search(
        r"At most (\S+) segments \((\d+) a session\), (\S+) at 0.05 each", done.stdout
    ).groups()
    assert int(segments.replace(",", "")) == 200 * int(each)
    assert float(cost) == pytest.approx(10 * int(each))
    assert "they have opted out" in done.stderr
    assert held(valkey) == 1
    assert (
        run("--csv", table("phone,clientReference", *rows)).stdout
        == "200 invited, 1 had been before, 3 refused.\n"
    )


def test_a_dry_run_of_a_survey_that_is_elsewhere_knows_no_cost(run, table, monkeypatch, tmp_path):
    monkeypatch.setenv("PARLEY_SURVEYS", str(tmp_path / "nowhere"))
    done = run("--csv", table("phone", "+33612345678"), "--dry-run")
    assert "What it would cost at most is not known" in done.stdout


def test_a_web_that_knows_no_dry_runs_invites_nobody(table, monkeypatch):
    """As 0.1.0's: it is asked for something that is not there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), NotThere) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever)
        monkeypatch.setenv("PARLEY_PUBLIC_URL", f"http://127.0.0.1:{server.server_port}")
        done = CliRunner().invoke(
            invite, ["--csv", str(table("phone", "+33612345678")), "--survey", "clinic", "--dry-run"]
        )
        server.shutdown()
    assert (done.exit_code, "knows no dry runs" in done.stderr) == (1, True)
    assert NotThere.asked == ["/v1/surveys/clinic/invitations/dry-run"]


class NotThere(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_POST(self):
        self.asked.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_a_chunk_that_is_cut_off_is_sent_again(run, table, valkey, monkeypatch):
    """The first answer of each chunk gets lost after the API has accepted it."""
    monkeypatch.setattr(command, "ROWS_PER_REQUEST", 10)
    monkeypatch.setattr(invitation_client, "RETRY_PAUSE_S", 0.0)
    post, lost = InvitationApi._post_rows, []

    def losing(self, url, rows, *, last):
        answers = post(self, url, rows, last=last)
        if rows[0] not in lost:
            lost.append(rows[0])
            return []
        return answers

    monkeypatch.setattr(InvitationApi, "_post_rows", losing)
    file = table("identifier", *(f"+336{12_000_000 + n:08d}" for n in range(25)))
    assert run("--csv", file).exit_code == 0
    assert (held(valkey), len(lost)) == (25, 3)


@pytest.mark.parametrize(
    "variable, value, why",
    [
        ("PARLEY_API_KEY", "wrong", "parley key"),
        ("PARLEY_PUBLIC_URL", "http://127.0.0.1:9", "does not answer"),
    ],
)
def test_what_stands_in_the_way_of_all_is_told_once(run, monkeypatch, variable, value, why):
    monkeypatch.setattr(invitation_client, "RETRY_PAUSE_S", 0.0)
    monkeypatch.setenv(variable, value)
    done = run("+33612345678")
    assert (done.exit_code, why in done.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["+33612345678", "--csv", __file__],
        ["+33612345678", "--variable", "x"],
        ["+33612345678", "--url", "127.0.0.1:8000"],
        ["+33612345678", "--content", "not UTF-8: \udcff"],
    ],
)
def test_wrong_usage_is_status_2(run, arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("key", ["ключ", "two words", "parley_x\n"])
def test_a_key_that_no_header_holds_is_told(run, monkeypatch, key):
    monkeypatch.setenv("PARLEY_API_KEY", key)
    done = run("+33612345678")
    assert (done.exit_code, "PARLEY_API_KEY" in done.stderr, key in done.stderr) == (2, True, False)


def test_whoever_interrupts_it_is_told_how_far_it_came(run, table, monkeypatch, valkey):
    monkeypatch.setattr(command, "ROWS_PER_REQUEST", 10)
    invite_chunk, done_before = InvitationApi.invite, []

    def interrupted(self, rows):
        if done_before:
            raise KeyboardInterrupt
        done_before.append(rows)
        return invite_chunk(self, rows)

    monkeypatch.setattr(InvitationApi, "invite", interrupted)
    file = table("phone", *[f"+336{12_000_000 + n:08d}" for n in range(30)])
    done = run("--csv", file)
    assert (done.exit_code, held(valkey)) == (1, 10)
    assert "So far: 10 invited, 0 had been before, 0 refused. To go on, run this command again" in done.stderr


def test_one_person_can_be_invited_again_after_an_answer_that_never_came(run, monkeypatch):
    """Without the reference that was made up for it, the same command would be another invitation."""
    monkeypatch.setattr(invitation_client, "RETRY_PAUSE_S", 0.0)
    done = run("+33612345678", "--url", "http://127.0.0.1:1")
    assert "run this command again with --reference cli-" in done.stderr
    assert "--reference" not in run("+33612345678", "--reference", "r", "--url", "http://127.0.0.1:1").stderr


def rows(path, **fixed):
    return [row.body for row in read_people(path.read_bytes(), "clinic", fixed, "")]


def test_columns_are_fields_or_variables(table):
    file = table("Number,LANGUAGE,agentId,,content", '+336,en,7,x,"Hello,\nyou"', "+337,,,,")
    first, second = rows(file, language="no", userSessionVariables={"vip": "1"})
    assert first | {"clientReference": ""} == {
        "identifier": "+336", "language": "en", "content": "Hello,\nyou", "clientReference": "",
        "userSessionVariables": {"vip": "1", "agentId": "7"},
    }  # fmt: skip
    assert (second["language"], second["userSessionVariables"]) == ("no", {"vip": "1"})


def test_many_columns_are_read_in_a_time_that_grows_with_them_alone(table):
    def cpu_s(many):
        file = table(",".join(["phone", *map("v{}".format, range(many))]), "+336")
        begun = process_time()
        rows(file)
        return process_time() - begun

    few, many = (min(cpu_s(columns) for _ in range(3)) for columns in (500, 5_000))
    assert many < 30 * few, "ten times as many columns"


def test_campaign_and_moment_are_columns_or_options(table, run, valkey):
    file = table(
        "phone,campaign,SendAt,ward", "+33612345678,winter,,7", "+33612345679,,2026-12-01T09:00:00Z,8"
    )
    first, second = rows(file, campaign="all", sendAt="2026-12-02T09:00:00Z")
    assert (first["campaign"], first["sendAt"]) == ("winter", "2026-12-02T09:00:00Z")
    assert (second["campaign"], second["sendAt"]) == ("all", "2026-12-01T09:00:00Z")
    assert first["userSessionVariables"] == {"ward": "7"}
    soon = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    assert run("+33612345678", "--campaign", "winter", "--at", soon).exit_code == 0
    assert run("+33612345679", "--at", "soon").exit_code == 1
    assert run("+33612345679", "--at", "09:00").exit_code == 0
    assert held(valkey) == 2


def test_a_table_that_0_1_0_has_read_has_the_references_that_it_gave(table):
    """Columns that it took for variables too: so nobody is invited twice by the same table after an upgrade."""
    (row,) = rows(table("phone,Campaign,SENDAT,ward", "+336,winter,2026-12-01T09:00:00Z,7"), language="en")
    body_of_0_1_0 = {
        "language": "en",
        "identifier": "+336",
        "userSessionVariables": {"Campaign": "winter", "SENDAT": "2026-12-01T09:00:00Z", "ward": "7"},
    }
    content = msgspec.json.encode(["clinic", body_of_0_1_0], order="sorted")
    digest = blake2b(content, digest_size=12, person=b"invitation row").hexdigest()
    assert row["clientReference"] == digest
    (plain,) = rows(table("phone,ward", "+336,7"), language="en")
    (other,) = rows(table("phone,ward", "+336,7"), language="en", campaign="winter")
    assert len({digest, plain["clientReference"], other["clientReference"]}) == 3


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_as_spreadsheets_write_them(table, delimiter, encoding):
    file = table(delimiter.join(["identifier", "Prénom"]), delimiter.join(["+336", "Zoé"]), encoding=encoding)
    (row,) = rows(file)
    assert row["userSessionVariables"] == {"Prénom": "Zoé"}


@pytest.mark.parametrize(
    "head, why", [("name", "expected one called identifier"), ("identifer", "did you mean identifier"), ("phone,x,x", "two columns"), ("", "no column")]
)  # fmt: skip
def test_what_is_no_table_of_people_is_told_why(table, head, why):
    with pytest.raises(PeopleFileError, match=why):
        rows(table(head, "+336"))


@pytest.mark.parametrize(
    "lines, why",
    [
        (["+336,Ann", '+337,"Bob', "+338,Cy"], "line 3: .* quotation mark"),
        (["+336,Ann", "+337,Hello Bob, how are you?"], "line 3 has more cells"),
    ],
)
def test_nobody_is_invited_by_a_table_whose_cells_are_out_of_place(table, lines, why):
    with pytest.raises(PeopleFileError, match=why):
        rows(table("identifier,name", *lines))


def test_empty_cells_beyond_the_last_column_are_nothing(table):
    assert len(rows(table("identifier,name", "+336,Ann,,"))) == 1


def test_a_table_in_another_encoding_is_told_so(table):
    with pytest.raises(PeopleFileError, match="line 2: it is not UTF-8: save the file as CSV in UTF-8"):
        rows(table("identifier,name", "+336,Zoé", encoding="latin-1"))
    for encoding in ("utf-16", "utf-16-le"):
        with pytest.raises(PeopleFileError, match=r"line 1: it is .*UTF.*: save the file as CSV in UTF-8"):
            rows(table("identifier,name", "+336,Zoe", encoding=encoding))
