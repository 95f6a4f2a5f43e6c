"""What all commands print with: nothing that people wrote is taken for markup, and a pipe is as wide for all."""

import io
import json
import sys

import msgspec
import pytest
from rich.text import Text

from engine.commands import exit_status, json_output
from engine.commands.terminal import (
    PIPED_WIDTH,
    open_console,
    print_wrapped,
    progress_bar,
    simple_table,
)

HOSTILE = "[red]x[/] [/b] :warning: 12"


class Point(msgspec.Struct, array_like=True):
    x: int


def test_what_people_wrote_is_printed_as_it_is(capsys):
    open_console().print(HOSTILE)
    open_console(stderr=True, soft_wrap=True).print(HOSTILE)
    table = simple_table("why")
    table.add_row(HOSTILE)
    open_console().print(table)
    printed = capsys.readouterr()
    assert printed.out.count(HOSTILE) == 2
    assert printed.err == HOSTILE + "\n"


def test_a_pipe_is_wide_and_a_soft_line_is_whole(capsys):
    assert open_console().width == PIPED_WIDTH
    long = "word " * PIPED_WIDTH
    open_console(soft_wrap=True).print(long.strip())
    assert capsys.readouterr().out.splitlines() == [long.strip()]


def test_what_is_piped_has_no_blanks_at_the_ends_of_lines(capsys):
    table = simple_table("why", "when")
    table.add_row("short", "")
    table.add_row("much longer than that", "today")
    for console in (open_console(), open_console(soft_wrap=True), open_console(stderr=True)):
        console.print(table)
    printed = capsys.readouterr()
    lines = (printed.out + printed.err).split("\n")
    assert len(lines) > 15
    assert [line for line in lines if line != line.rstrip()] == []
    assert any(line.startswith("  much longer than that   today") for line in lines)


def test_words_are_not_broken_on_a_terminal(monkeypatch):
    """And what follows stands under what begins. A word that is longer than the terminal is wide is."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "dumb")
    console = open_console(wrap_words=True)
    print_wrapped(console, Text("< Where does it hurt, and since when?\n  Tell us."), 2)
    print_wrapped(console, Text("x" * 50), 2)
    lines = screen.getvalue().splitlines()
    assert lines == ["< Where does it hurt, and", "  since when?", "  Tell us.", "x" * 28, "  " + "x" * 22]


def test_a_bar_is_for_terminals_and_for_what_takes_long(capsys, monkeypatch):
    with progress_bar(10, "importing") as advance:
        advance(1)
    assert capsys.readouterr().err == ""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar(1, "importing") as advance:
        advance(1)
    assert screen.getvalue() == ""
    with progress_bar(10, "[x] importing") as advance:
        advance(4)
    assert "[x] importing" in screen.getvalue()


def test_json_has_structs_as_objects_and_a_line_for_each(capsys):
    json_output.print_json({"at": Point(1), "né": [Point(2)]})
    line = capsys.readouterr().out
    assert json.loads(line) == {"at": {"x": 1}, "né": [{"x": 2}]}
    assert line.isascii()
    assert line.count("\n") == 1


def test_mistakes_go_to_standard_error_and_end_with_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        exit_status.exit_unusable("a: no", "b: no")
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "a: no\nb: no\n")
