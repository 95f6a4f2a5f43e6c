"""Which sessions? The filters of results and funnels as options of a command."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from sqlalchemy import Connection

from config.archive.result_columns import ResultColumn
from config.archive.result_filters import InvalidFilterError, ResultFilters
from config.settings.settings import Settings
from workers.results import written_filters
from workers.results.written_filters import SeveralClocksError, WrittenFilters, require_channels

_Command = TypeVar("_Command", bound=Callable[..., Any])

_FILTER_OPTIONS = (
    click.option(
        "--since",
        default="",
        metavar="WHEN",
        help="Only those that opened since: a day, a moment in RFC 3339, or how long ago, such as 7d.",
    ),
    click.option(
        "--until", default="", metavar="WHEN", help="Only those that opened before; a day is included."
    ),
    click.option("--channel", "channels", multiple=True, help="Only on this channel."),
    click.option(
        "--state", "states", multiple=True, help="Only in this state: open, refused, or how it ended."
    ),
    click.option("--language", "languages", multiple=True, help="Only in this language."),
    click.option("--version", "versions", multiple=True, help="Only of this version of the survey."),
    click.option("--campaign", "campaigns", multiple=True, help="Only invited by this campaign."),
    click.option(
        "--variable", "variables", multiple=True, metavar="KEY=VALUE", help="Only with this variable."
    ),
    click.option(
        "--where",
        "conditions",
        multiple=True,
        metavar="CONDITION",
        help="Only with such an answer: temperature >= 95, fever = yes, name contains ann, $agentId = 7.",
    ),
)


def filter_options(command: _Command) -> _Command:
    """Add the options, whose values `read_filters` takes. Each that may be given several times lets any of its values through,
    but for variables and conditions, all of which must hold."""
    for option in reversed(_FILTER_OPTIONS):
        command = option(command)
    return command


def read_filters(settings: Settings, survey: str, now: int, options: dict[str, Any]) -> ResultFilters:
    """Read the values of the options. Ends the command with a sentence if one makes no sense."""
    written = WrittenFilters(**options)
    try:
        require_channels(settings, written.channels)
    except InvalidFilterError as e:
        raise click.BadParameter(str(e), param_hint="--channel") from e
    try:
        return written_filters.read_filters(settings, survey, now, written)
    except SeveralClocksError as e:
        raise click.UsageError(f"{e.problem}, or name a --channel: they are in {', '.join(e.zones)}") from e
    except InvalidFilterError as e:
        raise click.UsageError(str(e)) from e


def require_known(connection: Connection, filters: ResultFilters, columns: Sequence[ResultColumn]) -> None:
    """End the command with a sentence if a filter names what the survey, as the archive has it, does not."""
    try:
        written_filters.require_known(connection, filters, columns)
    except InvalidFilterError as e:
        raise click.UsageError(str(e)) from e
