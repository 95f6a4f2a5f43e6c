"""Routes an event to a session. A person may hold several sessions on one channel, each over an address of ours: the
channel's own number, or a sub-number that the session has to itself.

An SMS belongs to the session that is open on the address it was sent to, else to the one on the channel's number.
Opt-out and limits are kept on the channel's own line.
"""

from collections.abc import Iterator

import msgspec

from engine.model.events import InboundSms, Invitation
from engine.model.lane import ChannelLine, Lane, Session
from engine.model.policy import ChannelPolicy

MOST_SUB_NUMBERS = 16
"""Sub-numbers of one channel that a lane remembers. With so many sessions open, nobody is invited to another."""


class ConversationThread(msgspec.Struct, frozen=True):
    """The place in a lane to which an event belongs. `line` is the one that it concerns, over `originator` (empty: the
    channel's number); `main` is the channel's own line. `answer_from` is the address that fixed texts are sent from."""

    channel: str
    originator: str
    line: ChannelLine
    main: ChannelLine
    answer_from: str = ""

    @property
    def session(self) -> Session | None:
        return self.line.session

    def store_line(self, lane: Lane) -> None:
        """Store the line in the lane, as a session opens on it; of MOST_SUB_NUMBERS, the one that ended first is dropped."""
        key = line_key(self.channel, self.originator)
        if key not in lane.lines:
            _drop_oldest_ended(lane, self.channel)
            lane.lines[key] = self.line


def line_key(channel: str, originator: str = "") -> str:
    """Return the key of a line in its lane. No channel's name has a colon."""
    return f"{channel}:{originator}" if originator else channel


def channel_of_key(key: str) -> str:
    return key.partition(":")[0]


def main_line(lane: Lane, channel: str) -> ChannelLine:
    """Return the channel's own line, made if the lane has none."""
    line = lane.lines.get(channel)
    if line is None:
        line = lane.lines[channel] = ChannelLine()
    return line


def open_sessions(lane: Lane, channel: str) -> Iterator[tuple[ChannelLine, Session]]:
    """Yield the sessions that are open on the channel, whatever their address, with their lines."""
    for key, line in lane.lines.items():
        if line.session is not None and channel_of_key(key) == channel:
            yield line, line.session


def route_sms(lane: Lane, sms: InboundSms, policy: ChannelPolicy, *, starts: bool) -> ConversationThread:
    """Return the thread of an SMS. With `starts`, a START opens on the address that it was sent to.

    An address that is neither the channel's nor a session's counts as the channel's number.
    """
    main = main_line(lane, sms.channel)
    address = sms.originator
    if not address or address == policy.number:
        return ConversationThread(sms.channel, "", main, main)
    line = lane.lines.get(line_key(sms.channel, address))
    if line is None and address not in policy.originators:
        return ConversationThread(sms.channel, "", main, main)
    if starts or (line is not None and (line.session is not None or main.session is None)):
        return ConversationThread(sms.channel, address, line or ChannelLine(), main, address)
    return ConversationThread(sms.channel, "", main, main, address)


def route_invitation(lane: Lane, invitation: Invitation, policy: ChannelPolicy) -> ConversationThread | None:
    """Return the thread on which an invited session may open; None if a session is open there, or no address is free."""
    channel = invitation.channel
    main = main_line(lane, channel)
    busy = {session.originator for _, session in open_sessions(lane, channel)}
    wanted = "" if invitation.originator == policy.number else invitation.originator
    offered = (wanted,) if invitation.originator else ("", *policy.originators)
    free = next((each for each in offered if each not in busy), None)
    if free is None or (free and len(busy - {""}) >= MOST_SUB_NUMBERS):
        return None
    line = lane.lines.get(line_key(channel, free)) or ChannelLine()
    return ConversationThread(channel, free, line, main, free)


def _drop_oldest_ended(lane: Lane, channel: str) -> None:
    """Make room for one more sub-number by dropping the one whose session ended first."""
    ended = [
        (line.ended_at, key)
        for key, line in lane.lines.items()
        if key != channel and channel_of_key(key) == channel and line.session is None
    ]
    subs = sum(key != channel and channel_of_key(key) == channel for key in lane.lines)
    for _, key in sorted(ended)[: max(0, subs + 1 - MOST_SUB_NUMBERS)]:
        del lane.lines[key]
