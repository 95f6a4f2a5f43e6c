"""What a channel allows. Built by whoever calls the engine; the engine reads no settings."""

from collections.abc import Mapping
from zoneinfo import ZoneInfo

import msgspec

from engine.events import Refusal


class ChannelPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`surveys` are names, in the order in which their keywords are tried.

    A START beyond `start_burst` at once and `start_per_minute` after that is refused; 0 in either, or in
    `sessions_per_sender_per_day` (days of `timezone`), is no limit. SMS decided together leave `pause_ms` apart.
    `confirms_stop`: the provider answers an SMS STOP by itself. `closed` is why nothing new may start now.
    """

    surveys: tuple[str, ...]
    timezone: ZoneInfo
    sessions_per_sender_per_day: int = 5
    start_burst: int = 3
    start_per_minute: float = 1
    pause_ms: int = 2000
    confirms_stop: bool = False
    closed: Refusal | None = None


Policy = Mapping[str, ChannelPolicy]
"""By channel name."""
