"""CSV files are read as spreadsheets write them, whichever file it is, and what is no CSV is told by its line."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings.csv_files import CsvFileError, CsvRow, read_csv_rows, write_csv_rows

CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r")).map(str.strip)


@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=4)))
def test_what_is_written_is_read_back(rows):
    file = io.StringIO(newline="")
    write_csv_rows(file, [("a", "b", "c", "d", "e"), *rows])
    _, *read = read_csv_rows(file.getvalue().encode())
    assert [row.cells for row in read] == [row for row in rows if any(row)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_spreadsheets_differ_and_mean_the_same(delimiter, line_end, encoding):
    lines = ["", f"number{delimiter}name", "", f' +336 {delimiter}"Zoé{delimiter} ""Z"""', delimiter, "x"]
    assert list(read_csv_rows(line_end.join(lines).encode(encoding))) == [
        CsvRow(2, ["number", "name"]),
        CsvRow(4, ["+336", f'Zoé{delimiter} "Z"']),
        CsvRow(6, ["x"]),
    ]


def test_a_row_is_told_by_the_line_on_which_it_begins():
    assert [row.line for row in read_csv_rows(b'a,b\n1,"x\ny\nz"\n2,c\n')] == [1, 2, 5]


@pytest.mark.parametrize(
    "source, why",
    [
        (b'a,b\n1,"x\n2,y\n', "line 2: this is not CSV"),
        (b'a,b\n1,"x"y\n', "line 2: this is not CSV"),
        ("a,b\n1,é\n".encode("latin-1"), "line 2: it is not UTF-8"),
        ("a\n".encode("utf-16"), "line 1: it is not UTF-8 but UTF-16"),
        ("a\n".encode("utf-16-le"), "line 1: it is not UTF-8 but UTF-16"),
        (b"PK\x03\x04\x14\x00", "line 1: it is a workbook"),
    ],
)
def test_what_is_no_csv_is_told_by_its_line(source, why):
    with pytest.raises(CsvFileError, match=why):
        list(read_csv_rows(source))


def test_there_is_nothing_in_an_empty_file():
    assert list(read_csv_rows(b"\n \n")) == []
