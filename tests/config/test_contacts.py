"""Contacts are read as spreadsheets write them, and every mistake is told by its line, without the number."""

from pathlib import Path

import pytest

from config.settings.contacts import MAX_NAME_LENGTH, read_contacts

SHIPPED = Path(__file__).parent.parent.parent / "config" / "contacts.csv"

PEOPLE = {"+14158675308": "Rey", "+12349013030": "Finn"}


@pytest.fixture
def read(tmp_path):
    """What is read from a file with this content, its path left out of the problems."""

    def of(content: str | bytes) -> tuple[dict[str, str], list[str]]:
        path = tmp_path / "contacts.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        contacts, problems = read_contacts(path)
        assert all(problem.startswith(f"{path}: ") for problem in problems)
        return contacts, [problem.removeprefix(f"{path}: ") for problem in problems]

    return of


def test_the_contacts_that_we_ship_are_those_of_the_example():
    assert read_contacts(SHIPPED) == ({**PEOPLE, "+12348134522": "Chewy"}, [])


@pytest.mark.parametrize(
    "content",
    [
        "number,name\n+14158675308,Rey\n+12349013030,Finn\n",
        "number,name\n+14158675308,Rey\n+12349013030,Finn",
        "\ufeffnumber,name\r\n+14158675308,Rey\r\n+12349013030,Finn\r\n",
        '\ufeff"number","name"\n"+14158675308","Rey"\n"+12349013030","Finn"\n',
        "Number, Name\n\n+14158675308 , Rey\n,\n  \n+12349013030,\tFinn\n\n",
        "number,name\r+14158675308,Rey\r+12349013030,Finn\r",
        "number;name\n+14158675308;Rey\n+12349013030;Finn\n",
        "number\tname\n+14158675308\tRey\n+12349013030\tFinn\n",
    ],
)
def test_contacts_are_read_however_a_spreadsheet_writes_them(read, content):
    assert read(content) == (PEOPLE, [])


def test_a_name_is_whatever_people_are_called(read):
    contacts, problems = read('number,name\n+123,"Organa, Leia"\n+124,"Han ""Solo"""\n+125,楊 👍\n')
    assert (contacts, problems) == ({"+123": "Organa, Leia", "+124": 'Han "Solo"', "+125": "楊 👍"}, [])


@pytest.mark.parametrize(
    "rows, problem",
    [
        ("14158675308,Rey", "line 3: expected a number in full"),
        ("+1 415 867 5308,Rey", "line 3: expected a number in full"),
        ("+1415867530800000,Rey", "line 3: expected a number in full"),
        ("+04158675308,Rey", "line 3: expected a number in full"),
        ("+\uff114158675308,Rey", "line 3: expected a number in full"),
        ("Rey,+14158675308", "line 3: expected a number in full"),
        (",Rey", "line 3: expected a number in full"),
        ("+14158675308,", "line 3: the name is missing"),
        ("+14158675308", "line 3: found 1 field, expected a number and a name"),
        ("+14158675308,Organa,Leia", "line 3: found 3 fields, expected a number and a name"),
        ("+14158675308;Rey", "line 3: found 1 field"),
        (f"+14158675308,{'x' * (MAX_NAME_LENGTH + 1)}", "line 3: the name has 101 characters, expected 100"),
        ('+14158675308,"Rey\nSkywalker"', "line 3: the name has a line break"),
        ("+14158675308,R\u200dey", "line 3: the name has a line break or another invisible"),
        ("+12349013030,Rey", "line 3: this is the number of line 2 again"),
        ('+14158675308,"Rey', "line 3: this is not CSV (unexpected end of data)"),
        ('+14158675308,"Rey"x', "line 3: this is not CSV"),
    ],
)
def test_a_mistake_is_told_by_its_line_and_never_by_its_number(read, rows, problem):
    contacts, problems = read(f"number,name\n+12349013030,Finn\n{rows}\n")
    assert contacts == {"+12349013030": "Finn"}
    assert len(problems) == 1
    assert problems[0].startswith(problem)
    assert not any(digits in problems[0] for digits in ("4158675308", "2349013030"))


def test_every_mistake_is_reported_and_the_other_lines_are_read(read):
    contacts, problems = read('number,name\n\n1,A\n+123,"B\nb"\n+124,C\n+124,D\n+125,\n+126,E\n')
    assert contacts == {"+124": "C", "+126": "E"}
    assert [problem.split(":")[0] for problem in problems] == ["line 3", "line 4", "line 7", "line 8"]
    assert "line 6" in problems[2]


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "it is empty: expected the header"),
        (b"\n\n", "it is empty"),
        (b"+14158675308,Rey\n", "line 1: expected the header `number,name`"),
        (b"name,number\nRey,+14158675308\n", "line 1: expected the header"),
        (b"number:name\n+14158675308:Rey\n", "line 1: expected the header `number,name`"),
        (b"\nnumber,name,age\n", "line 2: expected the header"),
        (
            "number,name\n+123,Zoë\n".encode("latin-1"),
            "line 2: it is not UTF-8: save the file as CSV in UTF-8",
        ),
        ("number,name\n".encode("utf-16"), "line 1: it is not UTF-8"),
    ],
)
def test_a_file_that_holds_no_contacts_says_what_one_looks_like(read, content, problem):
    contacts, problems = read(content)
    assert contacts == {}
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_a_file_that_is_not_there_is_a_mistake(tmp_path):
    contacts, problems = read_contacts(tmp_path / "nobody.csv")
    assert contacts == {}
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path / 'nobody.csv'}: it cannot be read (No such file or directory)")
