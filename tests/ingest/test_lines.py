"""A body of lines is taken apart alike, in whatever pieces it comes, and what is too long is never kept."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.api.ndjson import LineSplitter, LineTooLong

LONGEST = 8
PIECES = st.lists(st.text("ab\r\n", max_size=12).map(str.encode), max_size=12)


def taken_apart(pieces):
    lines = LineSplitter(LONGEST)
    whole = [line for piece in pieces for line in lines.feed(piece)]
    return whole + lines.finish()


@given(PIECES)
def test_how_a_body_is_cut_into_pieces_makes_no_difference(pieces):
    body = b"".join(pieces)
    *ended, rest = body.split(b"\n")
    expected = ended + [rest] * bool(rest)
    assert taken_apart(pieces) == [
        LineTooLong if len(line) > LONGEST else line.removesuffix(b"\r") for line in expected
    ]


@given(PIECES)
def test_no_more_is_kept_than_a_line(pieces):
    lines = LineSplitter(LONGEST)
    for piece in pieces:
        lines.feed(piece)
        assert len(lines._rest) <= LONGEST
