"""What `parley invite` prints: of a person a sentence, of a table what was wrong, summed up by reason, and how many were invited."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import NoReturn

import click

from config.invitations.invitation_cost import InvitationWording, SurveyCosts, wording_of
from config.invitations.invitation_sums import InvitationSums
from config.invitations.line_result import LineResult
from config.invitations.people_table import InvitationRow
from engine.commands.exit_status import EXIT_PROBLEMS
from engine.commands.json_output import print_json, print_json_document
from engine.commands.terminal import open_console, progress_bar, simple_table
from engine.model.plurals import pluralize
from engine.model.timestamps import format_utc
from engine.surveys.program import Survey

ROWS_SHOWN = 5
"""Of those that are refused for one reason."""


class InviteReport:
    """Takes in the result of each invitation as it comes, and sums them up. `shown_from` is how many have a progress bar."""

    def __init__(self, file: str, *, as_json: bool, shown_from: int) -> None:
        self._file = file
        self._as_json = as_json
        self._shown_from = shown_from
        self._sums = InvitationSums()
        self._invited: Counter[InvitationWording] = Counter()
        self._console = open_console(stderr=True, soft_wrap=True)

    def progress_bar(self, total: int) -> AbstractContextManager[Callable[[float], None]]:
        return progress_bar(total, "inviting", shown_from=self._shown_from, console=self._console)

    def note_result(self, row: InvitationRow, result: LineResult, *, with_body: bool = False) -> None:
        """Count a row; with --json, print it, and, if wanted, the whole invitation."""
        if self._sums.add_result(row.line, result) == "accepted":
            self._invited[wording_of(row.body)] += 1
        if self._as_json:
            said = {"line": row.line, "reference": row.body["clientReference"], "status": result.status}
            said |= {"id": result.id} if result.id else {}
            said |= {"state": result.state, "reason": result.reason} if result.state else {}
            said |= {"errors": result.errors} if result.errors else {}
            print_json((row.body if with_body else {}) | said)

    def exit_with_summary(self) -> None:
        """Sum up, and end with status 1 if somebody was not invited."""
        if not self._as_json:
            self._print_reasons()
            click.echo(self._summary_sentence("invited"))
        self._exit_if_refused()

    def exit_with_forecast(
        self, rows: Sequence[InvitationRow], survey: Survey | None, price: Decimal | None
    ) -> None:
        """Say what would come of it: who would be refused, when the last would have their turn, and what it would cost at most."""
        if not self._as_json:
            self._print_reasons()
            click.echo(self._summary_sentence("would be invited"))
            if self._sums.last_turn_ms:
                moment = format_utc(self._sums.last_turn_ms)
                click.echo(f"The last would have their turn after {moment} UTC.")
            if self._invited:
                click.echo(_cost_sentence(self._invited, survey, price))
            click.echo("The first:")
            for row in rows[:1]:
                print_json_document(row.body)
        self._exit_if_refused()

    def exit_interrupted(self, again: str) -> NoReturn:
        """Say how far it came, and how to go on."""
        self._print_reasons()
        self._console.print(f"Interrupted. So far: {self._summary_sentence('invited')} To go on, {again}.")
        raise SystemExit(EXIT_PROBLEMS)

    def _print_reasons(self) -> None:
        """Print why how many were refused, and which rows those are: of one person the reasons alone."""
        if not self._file:
            for reason in self._sums.reasons:
                self._console.print(reason)
            return
        if not self._sums.reasons:
            return
        table = simple_table("refused", "why", "lines")
        table.columns[0].justify = "right"
        for reason, found in self._sums.by_frequency:
            more = ", …" if found.count > ROWS_SHOWN else ""
            table.add_row(str(found.count), reason, ", ".join(map(str, found.lines[:ROWS_SHOWN])) + more)
        self._console.print(f"{self._file}:")
        open_console(stderr=True).print(table)

    def _exit_if_refused(self) -> None:
        if self._sums.refused:
            raise SystemExit(EXIT_PROBLEMS)

    def _summary_sentence(self, invited: str) -> str:
        return (
            f"{self._sums.accepted} {invited}, {self._sums.repeated} had been before, "
            f"{self._sums.refused} refused."
        )


def _cost_sentence(
    invited: Mapping[InvitationWording, int], survey: Survey | None, price: Decimal | None
) -> str:
    """What so many sessions cost at most, by what is proved of the survey's texts."""
    if survey is None:
        return "What it would cost at most is not known: the survey is not in the folder PARLEY_SURVEYS here."
    found = SurveyCosts(survey).cost_of(invited)
    if found is None:
        return "What it would cost at most is not known: nothing bounds how many SMS a session takes."
    each, rest = divmod(found.segments, found.people)
    session = f"{each} a session" if not rest else f"{each} to {each + 1} a session on average"
    cost = f", {price * found.segments} at {price} each" if price is not None else ""
    return f"At most {pluralize(found.segments, 'segment')} ({session}){cost}."
