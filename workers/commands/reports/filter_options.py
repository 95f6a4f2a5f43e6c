"""Which sessions? The filters of results and funnels as options of a command."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click
from sqlalchemy import Connection

from config.archive.result_columns import ResultColumn
from config.archive.result_filters import (
    InvalidFilterError,
    ResultFilters,
    parse_condition,
    parse_moment,
    parse_variable,
    require_states,
    require_steps,
)
from config.settings.settings import Settings
from engine.model.sender_numbers import normalize_number
from engine.model.suggestions import expected_instead

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
    channels: Sequence[str] = options["channels"]
    for each in channels:
        if each not in settings.channels:
            raise click.BadParameter(
                f"no channel is called {each!r}{expected_instead(each, settings.channels)}",
                param_hint="--channel",
            )
    try:
        require_states(options["states"])
        return ResultFilters(
            survey=survey,
            since=_read_moment(settings, survey, channels, options["since"], now),
            until=_read_moment(settings, survey, channels, options["until"], now, is_end=True),
            channels=channels,
            states=options["states"],
            languages=options["languages"],
            versions=options["versions"],
            campaigns=options["campaigns"],
            variables=tuple(map(parse_variable, options["variables"])),
            answers=tuple(map(parse_condition, options["conditions"])),
        )
    except InvalidFilterError as e:
        raise click.UsageError(str(e)) from e


def require_known(connection: Connection, filters: ResultFilters, columns: Sequence[ResultColumn]) -> None:
    """End the command with a sentence if a filter names what the survey, as the archive has it, does not."""
    try:
        require_steps(connection, filters, [column.step for column in columns])
    except InvalidFilterError as e:
        raise click.UsageError(str(e)) from e
    languages = {each for column in columns for each in column.wording.texts}
    for each in filters.languages:
        if languages and each not in languages:
            instead = expected_instead(each, sorted(languages))
            raise click.UsageError(f"the survey {filters.survey} has no language {each!r}{instead}")


def audited_filters(filters: ResultFilters) -> dict[str, Any]:
    """The filters as the audit keeps them: those that say something, and without people's numbers."""
    return {
        name: [_without_number(str(each)) for each in value] if isinstance(value, tuple) else value
        for name, value in (
            ("since", filters.since),
            ("until", filters.until),
            ("channels", tuple(filters.channels)),
            ("states", tuple(filters.states)),
            ("languages", tuple(filters.languages)),
            ("versions", tuple(filters.versions)),
            ("campaigns", tuple(filters.campaigns)),
            ("variables", tuple(f"{key}={_without_number(value)}" for key, value in filters.variables)),
            (
                "answers",
                tuple(
                    f"{each.step} {each.operator} {_without_number(each.text)}" for each in filters.answers
                ),
            ),
        )
        if value
    }


def _without_number(text: str) -> str:
    digits = sum(character.isdigit() for character in text)
    return "a number" if digits > _MOST_DIGITS and normalize_number(text) is not None else text


_MOST_DIGITS = 6
"""What has more may be somebody's number."""


def _read_moment(
    settings: Settings, survey: str, channels: Sequence[str], written: str, now: int, *, is_end: bool = False
) -> int:
    """Read a moment on the clock of the channels asked for, or of those that offer the survey, if they have one clock."""
    if not written:
        return 0
    zones = {
        channel.timezone.key: channel.timezone
        for channel in settings.channels.values()
        if (channel.name in channels if channels else survey in channel.surveys)
    }
    zone = next(iter(zones.values()), ZoneInfo("UTC")) if len(zones) < 2 else None
    try:
        return parse_moment(written, zone, now, is_end=is_end)
    except InvalidFilterError as e:
        told = f"{e}, or name a --channel: they are in {', '.join(sorted(zones))}" if zone is None else str(e)
        raise InvalidFilterError(told) from e
