"""What is left of a channel that is not configured any more, in words."""

from collections.abc import Mapping

import msgspec

from engine.model.plurals import pluralize


class ChannelLeftovers(msgspec.Struct):
    """Held `invitations`, open `sessions`, and `sms` in outboxes."""

    invitations: int = 0
    sessions: int = 0
    sms: int = 0


def leftover_sentences(removed: Mapping[str, ChannelLeftovers]) -> list[str]:
    """Say what is left of each channel that is not configured, and what to do about it."""
    return [
        f"the channel {name} is not configured, and nobody goes on with what it has "
        f"({leftovers_clause(left)}): configure it again, or `parley channel close {name}`"
        for name, left in sorted(removed.items())
    ]


def leftovers_clause(left: ChannelLeftovers) -> str:
    """`3 held invitations, 1 open session`."""
    counts = (
        (left.invitations, "held invitation", "held invitations"),
        (left.sessions, "open session", "open sessions"),
        (left.sms, "SMS to send", "SMS to send"),
    )
    return ", ".join(pluralize(count, one, more) for count, one, more in counts if count)
