"""Which sessions? The filters of results and funnels as they are written, by options of a command or in a form."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
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


class WrittenFilters(msgspec.Struct, frozen=True, kw_only=True):
    """Each that may be given several times lets any of its values through, but for variables and conditions, all of which must
    hold. `since` and `until` are a day, a moment, or how long ago."""

    since: str = ""
    until: str = ""
    channels: Sequence[str] = ()
    states: Sequence[str] = ()
    languages: Sequence[str] = ()
    versions: Sequence[str] = ()
    campaigns: Sequence[str] = ()
    variables: Sequence[str] = ()
    conditions: Sequence[str] = ()


class SeveralClocksError(InvalidFilterError):
    """A day begins at several moments: the survey's channels are in several time zones."""

    def __init__(self, problem: str, zones: Sequence[str]) -> None:
        super().__init__(f"{problem}, or choose a channel: they are in {', '.join(zones)}")
        self.problem = problem
        self.zones = zones


def require_channels(settings: Settings, channels: Sequence[str]) -> None:
    """Raise InvalidFilterError if one of them is no channel."""
    for each in channels:
        if each not in settings.channels:
            raise InvalidFilterError(
                f"no channel is called {each!r}{expected_instead(each, settings.channels)}"
            )


def read_filters(settings: Settings, survey: str, now: int, written: WrittenFilters) -> ResultFilters:
    """Read filters. Raises InvalidFilterError if one makes no sense."""
    require_channels(settings, written.channels)
    require_states(written.states)
    return ResultFilters(
        survey=survey,
        since=_read_moment(settings, survey, written.channels, written.since, now),
        until=_read_moment(settings, survey, written.channels, written.until, now, is_end=True),
        channels=written.channels,
        states=written.states,
        languages=written.languages,
        versions=written.versions,
        campaigns=written.campaigns,
        variables=tuple(map(parse_variable, written.variables)),
        answers=tuple(map(parse_condition, written.conditions)),
    )


def require_known(connection: Connection, filters: ResultFilters, columns: Sequence[ResultColumn]) -> None:
    """Raise InvalidFilterError if a filter names what the survey, as the archive has it, does not."""
    require_steps(connection, filters, [column.step for column in columns])
    languages = {each for column in columns for each in column.wording.texts}
    for each in filters.languages:
        if languages and each not in languages:
            instead = expected_instead(each, sorted(languages))
            raise InvalidFilterError(f"the survey {filters.survey} has no language {each!r}{instead}")


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


def may_be_number(text: str) -> bool:
    """May it be somebody's phone number?"""
    digits = sum(character.isdigit() for character in text)
    return digits > _MOST_DIGITS and normalize_number(text) is not None


def _without_number(text: str) -> str:
    return "a number" if may_be_number(text) else text


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
        if zone is None:
            raise SeveralClocksError(str(e), sorted(zones)) from e
        raise
