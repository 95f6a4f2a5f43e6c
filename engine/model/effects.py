"""The effects of a turn: what is committed with the lane that it changed, all of it or nothing.

One struct from the turn to the server-side call. A turn gathers it, `advance` returns it, and a worker's draft of the
lane carries it to workers.store.lanes, which packs it. A new effect is a field here and its line in `merge_later`,
what decides it, and its place in that packing and in `commit` of config/store/lua/lanes.lua, which unpacks it.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from engine.model.events import ArchiveRecord, OutboundSms, SmsNotSent

WithdrawalCode = Literal["stopped", "cancelled", "unreachable", "session_ended"]

WITHDRAWAL_REASONS: Mapping[WithdrawalCode, str] = {
    "stopped": "withdrawn by a STOP",
    "cancelled": "withdrawn: whoever invited wants no more of it",
    "unreachable": "withdrawn: the number gets no SMS",
    "session_ended": "withdrawn: its session ended before it could leave",
}
"""Why an SMS that was decided will not leave, by the code in its SmsNotSent."""


class Effects(msgspec.Struct, kw_only=True):
    """What is committed with a lane. `Effects()` changes nothing: times that are None stay as they were."""

    outbox: list[OutboundSms] = []
    """SMS to send, in this order, once `silenced` and `withdrawn` have taken back what was queued before."""

    records: list[ArchiveRecord] = []
    """What the archive is told, in this order."""

    alarm: int | None = None
    """When (ms) the lane wants to be advanced though no mail comes; may be past. 0: never."""

    keep_until: int | None = None
    """From when on (ms) the lane may be forgotten. 0: never."""

    has_open: bool = False
    """Whether something is open in the lane, a session or parts of an SMS: then it does not go by itself, whatever the time."""

    silenced: list[str] = []
    """Channels of which all queued SMS are withdrawn."""

    withdrawn: dict[str, WithdrawalCode] = {}
    """Sessions, by id, of which all queued SMS are withdrawn, and why."""

    sessions: list[tuple[str, int]] = []
    """(id, since when in ms) of sessions that opened, and of invitations that were refused: found by id from now on."""

    opt_outs: dict[str, tuple[int, str]] = {}
    """What the list of opt-outs is told: channel -> (since when in ms, or 0 for in again; by whose word: "person",
    "provider", or an operator's list)."""

    displaced_events: dict[str, int] = {}
    """Events that the lane has no room to remember any more: id -> when it was applied (ms)."""

    opened_by_channel: dict[str, int] = {}
    """How many sessions an SMS opened. They need permits; those of invitations have theirs. Not stored."""

    survey_by_session: dict[str, str] = {}
    """Surveys of the sessions whose end or rejected answer is in `records`, for metrics. Not stored."""

    duplicates: int = 0
    """How much of the mail had been applied before, for metrics. Not stored."""

    def merge_later(self, later: "Effects") -> None:
        """Take in what the same lane's next mail came to. What it withdraws includes SMS that wait in `outbox`."""
        gone = [sms for sms in self.outbox if later.withdraws(sms)]
        self.outbox = [sms for sms in self.outbox if sms not in gone] + later.outbox
        self.records += later.records + [later.withdrawal_record(sms) for sms in gone]
        self.alarm = self.alarm if later.alarm is None else later.alarm
        self.has_open = self.has_open if later.keep_until is None else later.has_open
        self.keep_until = self.keep_until if later.keep_until is None else later.keep_until
        self.silenced += [channel for channel in later.silenced if channel not in self.silenced]
        self.withdrawn = later.withdrawn | self.withdrawn
        self.sessions += later.sessions
        self.opt_outs |= later.opt_outs
        self.displaced_events |= later.displaced_events
        for channel, count in later.opened_by_channel.items():
            self.opened_by_channel[channel] = self.opened_by_channel.get(channel, 0) + count
        self.survey_by_session |= later.survey_by_session
        self.duplicates += later.duplicates

    @property
    def changes_only_times(self) -> bool:
        """Return whether nothing is committed but the lane itself, its alarm and how long it is kept."""
        times = Effects(alarm=self.alarm, keep_until=self.keep_until, has_open=self.has_open)
        return self == msgspec.structs.replace(times, duplicates=self.duplicates)

    def withdraws(self, sms: OutboundSms) -> bool:
        """Return whether an SMS that was queued before must not leave any more."""
        return sms.channel in self.silenced or sms.session in self.withdrawn

    def withdrawal_record(self, sms: OutboundSms) -> SmsNotSent:
        """Return what the archive is told of an SMS that was decided before, and is withdrawn."""
        code = "stopped" if sms.channel in self.silenced else self.withdrawn[sms.session]
        at = self.records[-1].at if self.records else sms.decided
        return SmsNotSent(at, sms.channel, sms.session, sms.id, code, WITHDRAWAL_REASONS[code])
