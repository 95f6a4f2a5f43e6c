"""`parley invite`: a person or a table of people, through the API, nobody twice."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import msgspec
import pytest
from click.testing import CliRunner

from config.settings.settings import DEFAULT_SHARDS
from config.store import keyspace
from ingest.commands import invite as command
from ingest.commands.invite import invite
from ingest.commands.people import PeopleFileError, read_people
from tests.support.inviting import KEY, key_table

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
    assert [
        line.split(":")[0].rpartition(", ")[2] + ":" + line.split(":")[1] for line in done.stderr.splitlines()
    ] == [
        "line 4: language",
        "line 4: identifier",
        "line 5: identifier",
    ]


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
    assert "2 would be invited, 1 of them repeated" in done.stdout
    assert '"agentid": "1"' in done.stdout
    assert held(valkey) == 0


def test_a_chunk_that_is_cut_off_is_sent_again(run, table, valkey, monkeypatch):
    """The first answer of each chunk gets lost after the API has accepted it."""
    monkeypatch.setattr(command, "ROWS_PER_REQUEST", 10)
    monkeypatch.setattr(command, "RETRY_PAUSE_S", 0.0)
    post, lost = command.InvitationApi._post_rows, []

    def losing(self, rows, *, last):
        answers = post(self, rows, last=last)
        if rows[0].line not in lost:
            lost.append(rows[0].line)
            return []
        return answers

    monkeypatch.setattr(command.InvitationApi, "_post_rows", losing)
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
    monkeypatch.setattr(command, "RETRY_PAUSE_S", 0.0)
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
    invite_chunk, done_before = command.InvitationApi.invite, []

    def interrupted(self, rows):
        if done_before:
            raise KeyboardInterrupt
        done_before.append(rows)
        return invite_chunk(self, rows)

    monkeypatch.setattr(command.InvitationApi, "invite", interrupted)
    file = table("phone", *[f"+336{12_000_000 + n:08d}" for n in range(30)])
    done = run("--csv", file)
    assert (done.exit_code, held(valkey)) == (1, 10)
    assert "So far: 10 invited, 0 had been before, 0 refused. To go on, run this command again" in done.stderr


def test_one_person_can_be_invited_again_after_an_answer_that_never_came(run, monkeypatch):
    """Without the reference that was made up for it, the same command would be another invitation."""
    monkeypatch.setattr(command, "RETRY_PAUSE_S", 0.0)
    done = run("+33612345678", "--url", "http://127.0.0.1:1")
    assert "run this command again with --reference cli-" in done.stderr
    assert "--reference" not in run("+33612345678", "--reference", "r", "--url", "http://127.0.0.1:1").stderr


def rows(path, **fixed):
    return [row.body for row in read_people(path, "clinic", fixed, "")]


def test_columns_are_fields_or_variables(table):
    file = table("Number,LANGUAGE,agentId,,content", '+336,en,7,x,"Hello,\nyou"', "+337,,,,")
    first, second = rows(file, language="no", userSessionVariables={"vip": "1"})
    assert first | {"clientReference": ""} == {
        "identifier": "+336", "language": "en", "content": "Hello,\nyou", "clientReference": "",
        "userSessionVariables": {"vip": "1", "agentId": "7"},
    }  # fmt: skip
    assert (second["language"], second["userSessionVariables"]) == ("no", {"vip": "1"})


def test_campaign_and_moment_are_columns_or_options(table, run, valkey):
    file = table(
        "phone,campaign,SendAt,ward", "+33612345678,winter,,7", "+33612345679,,2026-12-01T09:00:00Z,8"
    )
    first, second = rows(file, campaign="all", sendAt="2026-12-02T09:00:00Z")
    assert (first["campaign"], first["sendAt"]) == ("winter", "2026-12-02T09:00:00Z")
    assert (second["campaign"], second["sendAt"]) == ("all", "2026-12-01T09:00:00Z")
    assert first["userSessionVariables"] == {"ward": "7"}
    soon = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    assert run("+33612345678", "--campaign", "winter", "--send-at", soon).exit_code == 0
    assert run("+33612345679", "--send-at", "soon").exit_code == 1
    assert held(valkey) == 1


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
