"""Applies delivery receipts. They come in any order and more than once; an SMS's state only moves forward.

The line keeps a rank for each of its last SMS, under eight bytes of a hash of the SMS's id or ticket, so that repeated
receipts change nothing and need not be remembered one by one.
"""

from collections.abc import Mapping
from hashlib import blake2b

from engine.model.events import DeliveryReceipt, OutboundSms, ReceiptRecorded, SmsState, session_of_sms_id
from engine.model.lane import Lane
from engine.turns.session_routing import main_line, open_sessions
from engine.turns.turn import Turn

_STATE_RANKS: Mapping[SmsState, int] = {"sent": 1, "failed": 2, "delivered": 3}
_MOST_KNOWN_SMS = 64
"""SMS of one line whose state is known. A receipt for an older one that comes again is recorded again."""


def apply_receipt(turn: Turn, receipt: DeliveryReceipt) -> None:
    """Apply one receipt. That the number cannot get SMS ends the session that the SMS belonged to."""
    known = main_line(turn.lane, receipt.channel).receipts
    rank = _STATE_RANKS.get(receipt.state, 0)
    name = _hash_name((rank and (receipt.sms or receipt.ticket)) or receipt.id)
    if known.get(name, -1) >= rank:
        return
    known[name] = rank
    while len(known) > _MOST_KNOWN_SMS:
        del known[next(iter(known))]
    turn.effects.records.append(
        ReceiptRecorded(
            turn.now,
            receipt.channel,
            receipt.ticket,
            receipt.status,
            receipt.state,
            receipt.code,
            receipt.why,
            receipt.sms,
            receipt.segments,
            receipt.cost_micros,
            receipt.currency,
        )
    )
    if receipt.state == "failed" and receipt.permanent:
        _end_unreachable_sessions(turn, receipt)


def _end_unreachable_sessions(turn: Turn, receipt: DeliveryReceipt) -> None:
    """End the session that the receipt names, or each open one if it names none, and withdraw its SMS."""
    named = session_of_sms_id(receipt.sms)
    if named:
        turn.withdraw_session(named, "unreachable")
    for line, session in list(open_sessions(turn.lane, receipt.channel)):
        if session.id == named or not named:
            turn.withdraw_session(session.id, "unreachable")
            why = receipt.why or receipt.code or receipt.status
            turn.end_session(receipt.channel, line, session, "unreachable", why)


def _hash_name(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


def known_sms_state(lane: Lane, sms: OutboundSms) -> SmsState:
    """Return the state that the receipts of an SMS report; empty if there were none, or it is long ago."""
    line = lane.lines.get(sms.channel)
    rank = line.receipts.get(_hash_name(sms.id), 0) if line is not None else 0
    return next((state for state, each in _STATE_RANKS.items() if each == rank), "")
