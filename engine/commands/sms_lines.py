"""SMS on a terminal, as `parley chat` and `parley phone` show them: what was texted, and what came, with what it takes."""

from rich.console import Console
from rich.text import Text

from engine.commands.terminal import print_wrapped
from engine.model.plurals import pluralize
from engine.model.segments import SegmentCount, count_segments
from engine.proofs.transcripts import SmsIn, SmsOut, format_entry

_SINGLE_SEGMENT_UNITS = {"GSM-7": 160, "UCS-2": 70}
_JOINED_SEGMENT_UNITS = {"GSM-7": 153, "UCS-2": 67}
SENT_STYLE = "bold cyan"
MARK_WIDTH = len("< ")


def print_sent(console: Console, text: str) -> None:
    print_wrapped(console, Text(format_entry(SmsIn(text)), SENT_STYLE), MARK_WIDTH)


def print_received(console: Console, text: str, lead: str = "") -> None:
    """`lead`, such as a time, stands before it."""
    line = Text().append(lead, "dim")
    line.append(format_entry(SmsOut(text)), "green")
    line.append(f"  [{describe_cost(count_segments(text))}]", "dim")
    print_wrapped(console, line, len(lead) + MARK_WIDTH)


def describe_cost(segments: SegmentCount) -> str:
    """`1 segment GSM-7, 34/160`: what a text takes, of what that many segments hold."""
    holds = (
        _SINGLE_SEGMENT_UNITS[segments.encoding]
        if segments.segments == 1
        else _JOINED_SEGMENT_UNITS[segments.encoding] * segments.segments
    )
    return f"{pluralize(segments.segments, 'segment')} {segments.encoding}, {segments.units}/{holds}"
