"""What a channel allows. Built by whoever calls the engine; the engine reads no settings."""

from collections.abc import Mapping
from zoneinfo import ZoneInfo

import msgspec

from engine.model.events import RefusalReason
from engine.model.quiet_hours import QuietHours


class ChannelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`surveys` are names, in the order in which their keywords are tried.

    A START beyond `start_burst` at once and `start_per_minute` after that is refused; 0 in either, or in
    `sessions_per_sender_per_day` (days of `timezone`), is no limit. SMS decided together leave `pause_ms` apart.
    `closed` is why nothing new may start now. `number` is the channel's own, `originators` the sub-numbers that a
    session may have for its own. What we begin (invitations, reminders) waits while it is `quiet` where the person
    is. `contacts` are people's names by number.
    """

    surveys: tuple[str, ...]
    timezone: ZoneInfo
    sessions_per_sender_per_day: int = 5
    start_burst: int = 3
    start_per_minute: float = 1
    pause_ms: int = 2000
    closed: RefusalReason | None = None
    number: str = ""
    originators: tuple[str, ...] = ()
    quiet: QuietHours | None = None
    contacts: Mapping[str, str] = {}


ChannelPolicies = Mapping[str, ChannelPolicy]
"""By channel name."""
