"""Tables of dead letters: each one, or what is alike together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.table import Table

from engine.commands.terminal import simple_table
from engine.model.plurals import pluralize
from engine.model.timestamps import format_utc
from workers.dead_letters.filters import DRAMATIQ_REASON, survey_of_dead_letter
from workers.dead_letters.groups import DeadLetterGroup
from workers.dead_letters.letter_reading import error_text
from workers.store.dead_letter_store import DeadLetter
from workers.store.dramatiq_letters import DramatiqLetter

MOST_GROUPS_NAMED = 10

_OUR_ID_WIDTH = 19


def letter_table(found: Iterable[DeadLetter | DramatiqLetter], *, narrow: bool) -> Table:
    """Each letter in a line; `narrow`: survey and reason stand before what went wrong, and the channel nowhere."""
    table = simple_table()
    # ids of Dramatiq's may fill a line
    table.add_column("id", no_wrap=not narrow, overflow="fold", min_width=_OUR_ID_WIDTH)
    columns = (
        ("when (UTC)", "sender")
        if narrow
        else ("when (UTC)", "queue", "channel", "survey", "sender", "reason")
    )
    for column in columns:
        table.add_column(column, no_wrap=True)
    table.add_column("why")
    for letter in found:
        channel, sender, reason, survey = _fields_of(letter)
        if narrow:
            why = ": ".join(filter(None, (survey, reason, error_text(letter))))
            table.add_row(letter.id, format_utc(letter.at)[len("2026-") : -len(":00")], sender, why)
        else:
            when = format_utc(letter.at)
            table.add_row(letter.id, when, letter.queue, channel, survey, sender, reason, error_text(letter))
    return table


def group_table(groups: Sequence[DeadLetterGroup], *, narrow: bool) -> Table:
    """What is alike, the most first."""
    table = simple_table()
    table.add_column("letters", justify="right", no_wrap=True)
    table.add_column("people", justify="right", no_wrap=True)
    for column in (
        ("reason",) if narrow else ("reason", "channel", "survey", "from (UTC)", "to (UTC)", "such as")
    ):
        table.add_column(column, no_wrap=True)
    table.add_column("why")
    for group in groups:
        of = () if narrow else (
            _counted(group.channels), _counted(group.surveys), format_utc(group.oldest_at),
            format_utc(group.newest_at), group.example,
        )  # fmt: skip
        table.add_row(
            f"{group.count:,}", f"{group.people:,}" if group.people else "-", group.reason, *of, group.error
        )
    return table


def group_lines(groups: Sequence[DeadLetterGroup]) -> Iterator[str]:
    """How many letters have the same error, of whom; of those errors that several have."""
    alike = [group for group in groups if group.count > 1]
    for group in alike[:MOST_GROUPS_NAMED]:
        people = f", {pluralize(group.people, 'person', 'people')}" if group.people else ""
        error = group.error or "nothing is told"
        yield f"{group.count:,} × {error} ({group.reason}{people})"  # noqa: RUF001 (it is times)
    if len(alike) > MOST_GROUPS_NAMED:
        yield f"and {len(alike) - MOST_GROUPS_NAMED} more causes: `parley dead list --group`"


def _counted(counts: Mapping[str, int]) -> str:
    """`clinic`, `clinic 40, quiz 10`."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"


def _fields_of(letter: DeadLetter | DramatiqLetter) -> tuple[str, str, str, str]:
    """Channel, sender, reason and survey; Dramatiq's have none of it."""
    if isinstance(letter, DramatiqLetter):
        return "", "", DRAMATIQ_REASON, ""
    return letter.channel, letter.sender, letter.reason, survey_of_dead_letter(letter)
